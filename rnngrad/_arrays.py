"""Small things done to an array where it lies: NumPy arrays on the host, device arrays on the GPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from . import _cuda, _memory


def empty_beside(array: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    """An uninitialised array where the other one lies."""
    return _cuda.empty(shape, dtype) if _cuda.is_device_array(array) else _memory.empty(shape, dtype)


def placed_beside(array: Any, value: Any) -> Any:
    """A NumPy array where the other one lies, C-contiguous; on the host the very same if it is so already."""
    return _cuda.upload(value) if _cuda.is_device_array(array) else np.ascontiguousarray(value)


def on_host(array: Any) -> Any:
    """The NumPy array itself, or a copy of what lies on the GPU."""
    if not _cuda.is_device_array(array):
        return array
    out = np.empty(array.shape, array.dtype)
    _cuda.download(array, out)
    return out


def zeros_beside(array: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    """An array of zeros where the other one lies."""
    out = np.zeros(shape, dtype)
    return _cuda.upload(out) if _cuda.is_device_array(array) else out


def copied(array: Any) -> Any:
    """A C-contiguous copy that nothing else uses, where the array lies; those on the GPU are contiguous."""
    if not _cuda.is_device_array(array):
        out = _memory.empty(array.shape, array.dtype)
        out[...] = array
        return out
    out = _cuda.empty(tuple(array.shape), array.dtype)
    out.copy_to_device(array)
    return out


def contiguous(array: Any) -> Any:
    """C-contiguous; the device arrays made here are."""
    return array if _cuda.is_device_array(array) else np.ascontiguousarray(array)


def assign(to: Any, value: Any) -> None:
    """to[...] = value, of an array or a number; ``to`` is contiguous if it lies on the GPU."""
    if not _cuda.is_device_array(to):
        to[...] = value
    elif _cuda.is_device_array(value):
        to.copy_to_device(value)
    else:
        to.copy_to_device(_cuda.upload(np.ascontiguousarray(np.broadcast_to(value, to.shape), to.dtype)))


def concatenated(parts: Sequence[Any]) -> Any:
    """The parts one after the other along their first axis."""
    if not _cuda.is_device_array(parts[0]):
        return np.concatenate(parts)
    if len(parts) == 1:
        return parts[0]
    shape = (sum(part.shape[0] for part in parts), *parts[0].shape[1:])
    out, at = _cuda.empty(shape, parts[0].dtype), 0
    for part in parts:
        out[at : at + part.shape[0]].copy_to_device(part)
        at += part.shape[0]
    return out


def rows(array: Any, indices: Sequence[int]) -> Any:
    """array[indices], a copy; without indices there is nothing to lie on a device."""
    if not _cuda.is_device_array(array):
        return array[list(indices)]
    if not indices:
        return np.empty((0, *array.shape[1:]), array.dtype)
    return concatenated([array[i : i + 1] for i in indices])
