"""Numba's CUDA simulator with a real barrier: its own polls all threads in a loop that can starve them for minutes.

Imported where NUMBA_ENABLE_CUDASIM=1; a thread of a block that leaves out a barrier is an error here.
"""

import sys
import threading

from numba.cuda.simulator import kernel

_PATIENCE = 60  # seconds a thread waits for the others


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


def install():
    """Let every later launch run so."""
    sys.setswitchinterval(1e-4)
    kernel.BlockManager.run = _run
