"""Two vectors and their difference: largest entries, and sums of squares and products of entries divided by these."""

import functools

import numpy as np

from ... import _cuda
from ..magnitudes import larger, overlap_terms
from .products import added

cuda = _cuda.load()

_LANES = 1024  # parts of a sum, a thread for each


@functools.cache
def make_tops():
    """Kernel ``run(parts, a, b)``: parts[3 lane …] of every lane; of any dtype."""

    @_cuda.Kernel
    def run(parts, a, b):
        lanes = parts.size // 3
        for lane in range(cuda.grid(1), lanes, cuda.gridsize(1)):
            first, second, gap = 0.0, 0.0, 0.0
            for i in range(lane, a.size, lanes):
                x, y = np.float64(a[i]), np.float64(b[i])
                first, second, gap = larger(first, abs(x)), larger(second, abs(y)), larger(gap, abs(x - y))
            parts[3 * lane], parts[3 * lane + 1], parts[3 * lane + 2] = first, second, gap

    return run


@functools.cache
def make_largest():
    """Kernel ``run(out, parts)``: out[k] = the largest over p of parts[p out.size + k]."""

    @_cuda.Kernel
    def run(out, parts):
        for k in range(cuda.grid(1), out.size, cuda.gridsize(1)):
            top = 0.0
            for at in range(k, parts.size, out.size):
                top = larger(top, parts[at])
            out[k] = top

    return run


@functools.cache
def make_sums():
    """Kernel ``run(parts, a, b, tops)``: parts[4 lane …] of every lane; of any dtype."""

    @_cuda.Kernel
    def run(parts, a, b, tops):
        lanes = parts.size // 4
        for lane in range(cuda.grid(1), lanes, cuda.gridsize(1)):
            first, second, gap, both = 0.0, 0.0, 0.0, 0.0
            for i in range(lane, a.size, lanes):
                xx, yy, gg, xy = overlap_terms(np.float64(a[i]), np.float64(b[i]), tops[0], tops[1], tops[2])
                first += xx
                second += yy
                gap += gg
                both += xy
            parts[4 * lane], parts[4 * lane + 1], parts[4 * lane + 2], parts[4 * lane + 3] = first, second, gap, both

    return run


def overlap(a, b):
    """Largest entries and sums of a[P], b[P] and a - b; the CPU's contract."""
    a, b = (array if _cuda.is_device_array(array) else _cuda.upload(array) for array in (a, b))
    lanes = min(_LANES, a.size)
    threads = _cuda.threads(lanes)
    parts, tops = _cuda.empty((3 * lanes,), np.float64), _cuda.empty((3,), np.float64)
    make_tops()(-(-lanes // threads), threads, 0, parts, a, b)
    make_largest()(1, _cuda.threads(3), 0, tops, parts)
    parts = _cuda.empty((4 * lanes,), np.float64)
    make_sums()(-(-lanes // threads), threads, 0, parts, a, b, tops)
    largest = np.empty(3)
    _cuda.download(tops, largest)
    return largest, added(parts, lanes, (4,), False)
