"""Rows through the diagonals of pointwise partials, without a product between them; a thread for each unit."""

import functools

import numpy as np

from ... import _cuda
from . import pieces

cuda = _cuda.load()


@functools.cache
def make(dtype, more):
    """Kernel ``run(out, y, partial)``."""
    zero = dtype.type(0)

    @_cuda.Kernel
    def run(out, y, partial):
        # out[T, R, P, n]  y[T, R, S, n]  partial[T, B, S, P, n]
        T, R, P, n = out.shape
        B, S = partial.shape[1], partial.shape[2]
        for item in range(cuda.grid(1), T * R * P * n, cuda.gridsize(1)):
            i, p = item % n, item // n % P
            r, t = item // (n * P) % R, item // (n * P * R)
            total = out[t, r, p, i] if more else zero
            for s in range(S):
                total += y[t, r, s, i] * partial[t, r % B, s, p, i]
            out[t, r, p, i] = total

    return run


def through_diagonals(out, y, partial, more=False):
    """out[t, r, p, i] = sum_s y[t, r, s, i] partial[t, r % B, s, p, i], or added to it; the CPU's contract."""
    operands = [pieces.changed(out, 0) if more else pieces.written(out, 0)]
    operands += [pieces.read(array, 0) for array in (y, partial)]
    kernel, each = make(np.dtype(out.dtype), bool(more)), out.shape[1] * out.shape[2] * out.shape[3]

    def piece(start, stop, *arrays):
        threads = _cuda.threads(each)
        kernel(-(-(stop - start) * each // threads), threads, 0, *arrays)

    pieces.run(piece, out.shape[0], operands, "one step of pointwise partials")
