"""Numba's CUDA simulator with threads that take turns: its own are the system's, and it polls them at every barrier.

Imported where NUMBA_ENABLE_CUDASIM=1; a thread of a block that leaves out a barrier is an error here, and so is asking
a device array for what Numba's own on a card does not have: the simulator's passes everything on to NumPy.
"""

import functools
import sys
from itertools import zip_longest

import greenlet
import numpy as np
from numba import cuda
from numba.core import types
from numba.cuda.simulator import kernel, kernelapi
from numba.cuda.simulator.cudadrv.devicearray import FakeCUDAArray
from numba.cuda.simulator.kernelapi import FakeCUDAShared
from numba.np import numpy_support

#: what DeviceNDArray has too, of what the simulator's takes from NumPy
_SHARED = {"shape", "strides", "dtype", "ndim", "size", "flags", "squeeze", "__array__"}
_OPERATORS = ("eq", "ne", "lt", "le", "gt", "ge", "add", "sub", "mul", "floordiv", "truediv", "mod", "pow")
_dynamic = FakeCUDAShared.array
#: the integer type of a float and a signalling NaN's bits
_NAN = {np.dtype("f4"): ("u4", 0x7FA00000), np.dtype("f8"): ("u8", 0x7FF4000000000000)}


class _Thread(greenlet.greenlet):
    """A thread of a block, which runs until its next barrier or its end when it is switched to."""

    def __init__(self, body, block, place):
        super().__init__(body)
        self.blockIdx, self.threadIdx = kernelapi.Dim3(*block), kernelapi.Dim3(*place)


def _run(self, block, *args):
    """Run one block: every thread to its next barrier, then every thread to the one after it, ….

    A value that a thread reads without a barrier behind the thread that writes it is the wrong one wherever the reader
    comes first. The first thread, which alone writes or reads in many places, stands amid the others.
    """
    threads = [_Thread(lambda: self._f(*args), block, place) for place in np.ndindex(*self._block_dim)]
    half = (len(threads) + 1) // 2
    live = [thread for pair in zip_longest(threads[half:], threads[:half]) for thread in pair if thread is not None]
    try:
        while live:
            for thread in live:
                thread.switch()
            waiting = [thread for thread in live if not thread.dead]
            if waiting and len(waiting) < len(live):
                raise RuntimeError(f"{len(live) - len(waiting)} of {len(live)} threads of a block left out a barrier")
            live = waiting[::-1]
    finally:
        for thread in threads:
            if not thread.dead:
                thread.throw()


def _syncthreads(self):
    greenlet.getcurrent().parent.switch()


def _shared_array(self, shape, dtype):
    """Shared memory by the line that asks for it, without the whole stack that Numba's own looks at."""
    if shape == 0:
        return _dynamic(self, shape, dtype)
    frame = sys._getframe(1)
    place = frame.f_code.co_filename, frame.f_lineno
    if place not in self._allocations:
        kind = numpy_support.as_dtype(dtype) if isinstance(dtype, types.Type) else dtype
        self._allocations[place] = np.empty(shape, kind)
    return self._allocations[place]


def _attribute(self, name):
    if name not in _SHARED:
        raise AttributeError(f"a device array has no attribute {name!r}")
    return getattr(self._ary, name)


def _poisoned(of):
    """``of`` with numbers that show in the new array: floats are signalling NaNs, which warn when they are used.

    Memory that nobody wrote is as likely to hold what was right the last time.
    """

    @functools.wraps(of)
    def device_array(*args, **kwargs):
        new = of(*args, **kwargs)
        if new._ary.dtype in _NAN:
            new._ary.view(_NAN[new._ary.dtype][0])[...] = _NAN[new._ary.dtype][1]
        elif new._ary.dtype.kind == "i":
            new._ary[...] = np.iinfo(new._ary.dtype).min
        return new

    return device_array


def install():
    """Let every later launch run so."""
    cuda.device_array = _poisoned(cuda.device_array)
    FakeCUDAArray.__getattr__ = _attribute
    for name in _OPERATORS:
        if f"__{name}__" in vars(FakeCUDAArray):
            delattr(FakeCUDAArray, f"__{name}__")
    kernel.BlockManager.run = _run
    kernelapi.FakeCUDAModule.threadIdx = property(lambda self: greenlet.getcurrent().threadIdx)
    kernelapi.FakeCUDAModule.blockIdx = property(lambda self: greenlet.getcurrent().blockIdx)
    kernelapi.FakeCUDAModule.syncthreads = _syncthreads
    FakeCUDAShared.array = _shared_array
