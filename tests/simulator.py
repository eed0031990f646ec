"""Numba's CUDA simulator with a real barrier: its own polls all threads in a loop that can starve them for minutes.

Imported where NUMBA_ENABLE_CUDASIM=1; a thread of a block that leaves out a barrier is an error here, and so is asking
a device array for what Numba's own on a card does not have: the simulator's passes everything on to NumPy.
"""

import sys
import threading

import numpy as np
from numba.core import types
from numba.cuda.simulator import kernel
from numba.cuda.simulator.cudadrv.devicearray import FakeCUDAArray
from numba.cuda.simulator.kernelapi import FakeCUDAShared
from numba.np import numpy_support

#: what DeviceNDArray has too, of what the simulator's takes from NumPy
_SHARED = {"shape", "strides", "dtype", "ndim", "size", "flags", "squeeze", "__array__"}
_OPERATORS = ("eq", "ne", "lt", "le", "gt", "ge", "add", "sub", "mul", "floordiv", "truediv", "mod", "pow")
_PATIENCE = 60  # seconds a thread waits for the others
_sharing = threading.Lock()
_dynamic = FakeCUDAShared.array


class _Thread(kernel.BlockThread):
    def syncthreads(self):
        self._manager.barrier.wait(_PATIENCE)


def _run(self, grid_point, *args):
    x, y, z = self._block_dim
    points = [(i, j, k) for i in range(x) for j in range(y) for k in range(z)]
    self.barrier = threading.Barrier(len(points))

    def body():
        try:
            self._f(*args)
        except Exception:
            self.barrier.abort()
            raise

    threads = [_Thread(body, self, grid_point, point, self._debug) for point in points]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    failed = [thread.exception for thread in threads if thread.exception]
    failed.sort(key=lambda exception: exception[0].__class__ is threading.BrokenBarrierError)
    if failed:
        raise failed[0][0].with_traceback(failed[0][1])


def _shared_array(self, shape, dtype):
    """Shared memory by the line that asks for it. Numba's own looks and then allocates: two threads could get two."""
    if shape == 0:
        return _dynamic(self, shape, dtype)
    frame = sys._getframe(1)
    place = frame.f_code.co_filename, frame.f_lineno
    with _sharing:
        if place not in self._allocations:
            kind = numpy_support.as_dtype(dtype) if isinstance(dtype, types.Type) else dtype
            self._allocations[place] = np.empty(shape, kind)
        return self._allocations[place]


def _attribute(self, name):
    if name not in _SHARED:
        raise AttributeError(f"a device array has no attribute {name!r}")
    return getattr(self._ary, name)


def install():
    """Let every later launch run so."""
    sys.setswitchinterval(1e-4)
    FakeCUDAArray.__getattr__ = _attribute
    for name in _OPERATORS:
        if f"__{name}__" in vars(FakeCUDAArray):
            delattr(FakeCUDAArray, f"__{name}__")
    kernel.BlockManager.run = _run
    FakeCUDAShared.array = _shared_array
