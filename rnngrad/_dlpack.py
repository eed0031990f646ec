"""Arrays that other libraries lend by DLPack alone: the memory that a capsule speaks of, described for Numba.

``__dlpack__`` gives a capsule with a pointer to a ``DLManagedTensor`` (dmlc/dlpack, ``dlpack.h``). The capsule is kept
as long as the description: its own end gives the memory back.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

CUDA_DEVICES = (2, 13)  # kDLCUDA, kDLCUDAManaged
LEGACY_DEFAULT_STREAM = 1  # what kernels are launched on here
_KINDS = {0: "i", 1: "u", 2: "f", 6: "b"}


class _Device(ctypes.Structure):
    _fields_ = [("type", ctypes.c_int32), ("id", ctypes.c_int32)]


class _DataType(ctypes.Structure):
    _fields_ = [("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16)]


class _Tensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device", _Device),
        ("ndim", ctypes.c_int32),
        ("dtype", _DataType),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]


def device_of(value: Any) -> tuple[int, int] | None:
    """(kind of device, its number) of what speaks DLPack."""
    where = getattr(value, "__dlpack_device__", None)
    if where is None:
        return None
    kind, number = where()
    return int(kind), int(number)


class Lent:
    """Memory of a GPU that a capsule speaks of, with ``__cuda_array_interface__``."""

    def __init__(self, value: Any) -> None:
        self._capsule = value.__dlpack__(stream=LEGACY_DEFAULT_STREAM)  # its owner waits for what is still written
        pointer = ctypes.pythonapi.PyCapsule_GetPointer
        pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
        tensor = ctypes.cast(pointer(self._capsule, b"dltensor"), ctypes.POINTER(_Tensor)).contents
        code, bits, lanes = tensor.dtype.code, tensor.dtype.bits, tensor.dtype.lanes
        if code not in _KINDS or bits % 8 or lanes != 1:
            raise ValueError(
                f"an array lent by DLPack has numbers of code {code}, {bits} bits and {lanes} lanes; they must be "
                "plain integers or floats"
            )
        dtype = np.dtype(f"{_KINDS[code]}{bits // 8}")
        strides = None
        if tensor.strides:
            strides = tuple(tensor.strides[i] * dtype.itemsize for i in range(tensor.ndim))
        self.__cuda_array_interface__ = {
            "shape": tuple(tensor.shape[i] for i in range(tensor.ndim)),
            "typestr": dtype.str,
            "data": ((tensor.data or 0) + tensor.byte_offset, False),
            "strides": strides,
            "version": 3,
            "stream": None,
        }
