"""A triangular factor times rows with a power of two each: a block for each row of the product, float64."""

import functools

import numba
import numpy as np

from ... import _cuda
from ..grading import NONE, lowered
from . import block, pieces
from .block import KEYS

cuda = _cuda.load()

_DTYPE = np.dtype(np.float64)
_COLUMNS = 128  # of R, whose weights lie in shared memory at once


@functools.cache
def make():
    """Kernel ``run(out, exponents, R, shifts, X, before, live)``; out is [B N, 1, M], live[B, N] from ``make_live``."""

    @_cuda.Kernel
    def run(out, exponents, R, shifts, X, before, live):
        _, N, M = X.shape
        row = cuda.blockIdx.x
        b, i = row // N, row % N
        keys = cuda.shared.array(KEYS, numba.int32)
        top = cuda.shared.array(1, numba.int64)
        weights = cuda.shared.array(_COLUMNS, numba.float64)
        for r in range(cuda.threadIdx.x, KEYS, cuda.blockDim.x):
            keys[r] = 0
        if cuda.threadIdx.x == 0:
            top[0] = NONE
        cuda.syncthreads()
        for j in range(i + cuda.threadIdx.x, N, cuda.blockDim.x):
            if live[b, j] and R[b, i, j] != 0.0:  # the exponent of a zero says nothing
                cuda.atomic.max(top, 0, shifts[b, j] + before[b, j])
        for l in range(cuda.threadIdx.x, M, cuda.blockDim.x):
            out[row, 0, l] = 0.0
        cuda.syncthreads()
        for j0 in range(i, N, _COLUMNS):
            count = min(_COLUMNS, N - j0)
            for c in range(cuda.threadIdx.x, count, cuda.blockDim.x):
                j = j0 + c
                below = max(top[0] - shifts[b, j] - before[b, j], 0)
                weights[c] = lowered(R[b, i, j], below) if live[b, j] else 0.0
            cuda.syncthreads()
            for l in range(cuda.threadIdx.x, M, cuda.blockDim.x):
                total = out[row, 0, l]
                for c in range(count):
                    total += weights[c] * X[b, j0 + c, l]
                out[row, 0, l] = total
            cuda.syncthreads()
        if cuda.threadIdx.x == 0:
            exponents[row] = top[0] if top[0] != NONE else 0
        cuda.syncthreads()
        block.rescale(out, row, 1, keys, exponents[row:], 0, 0)

    return run


@functools.cache
def make_live(dtype):
    """Kernel ``run(live, X)``: live[b, i] is set where X[b, i, :] holds a number that is not zero."""
    zero = dtype.type(0)

    @_cuda.Kernel
    def run(live, X):
        B, N, M = X.shape
        for item in range(cuda.grid(1), B * N * M, cuda.gridsize(1)):
            if X[item // (N * M), item // M % N, item % M] != zero:
                live[item // (N * M), item // M % N] = 1  # whichever thread comes last

    return run


def graded_product(out, exponents, R, shifts, X, before):
    """out 2^exponents = R 2^shifts (X 2^before), R upper triangular, rows normalised; the CPU's contract."""
    B, N, M = X.shape
    arrays = pieces.written(out, 0), pieces.written(exponents, 0)
    operands = [*arrays, *(pieces.read(array, 0) for array in (R, shifts, X, before))]

    def piece(start, stop, out, exponents, R, shifts, X, before):
        count, threads = stop - start, _cuda.threads(M)
        live = _cuda.upload(np.zeros((count, N), np.uint8))
        make_live(_DTYPE)(-(-X.size // threads), threads, 0, live, X)
        rows = out.reshape(count * N, 1, M), exponents.reshape(count * N)
        make()(count * N, threads, 0, *rows, R, shifts, X, before, live)

    pieces.run(piece, B, operands, "the product of one triangular factor", (0, N))
