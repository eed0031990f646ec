"""Newton directions (I - J)^-1 r of many samples: a block eliminates the matrix of one sample, with partial pivoting.

A few columns are eliminated at once, and the rest of the matrix follows by one product, as on the CPU.
"""

import functools
import math

import numba
import numpy as np

from ... import _cuda
from . import block, pieces
from .jacobian import make_dense

cuda = _cuda.load()

_BLOCK = 8  # columns eliminated at once
_PARTS = 64  # of a sum, and of the search for a pivot


@functools.cache
def make(dtype):
    """Kernel ``run(x, regular, A, y)``: x[b] <- (I - J_b)^-1 x[b]; A[B N N] holds J and is used up, y[B N] is scratch.

    regular[b] is 0, and x[b] as it was, where a pivot is rounding only, or the matrix is not finite.
    """
    T = dtype.type
    zero, one, eps = T(0), T(1), T(np.finfo(dtype).eps)
    take_out = block.product(dtype, subtract=True)
    dtype = numba.from_dtype(dtype)

    @_cuda.function
    def pivot_of(A, a0, N, column, largest, places):
        # (row, magnitude) of the largest entry of the column from the diagonal on, the first of equal ones
        for part in range(cuda.threadIdx.x, _PARTS, cuda.blockDim.x):
            place, top = column, zero
            for i in range(column + part, N, _PARTS):
                value = abs(A[a0 + i * N + column])
                if value > top:
                    place, top = i, value
            largest[part] = top
            places[part] = place
        cuda.syncthreads()
        place, top = places[0], largest[0]
        for part in range(1, _PARTS):
            if largest[part] > top or (largest[part] == top and places[part] < place):
                place, top = places[part], largest[part]
        return place, top

    @_cuda.function
    def eliminate(A, a0, y, y0, N, least, largest, places):
        # L and U of A with its rows exchanged, and L^-1 of y; whether every pivot is above ``least``
        for k0 in range(0, N, _BLOCK):
            k1 = min(N, k0 + _BLOCK)
            for column in range(k0, k1):
                pivot, top = pivot_of(A, a0, N, column, largest, places)
                if not top > least:
                    return False
                upper, lower = a0 + column * N, a0 + pivot * N
                if pivot != column:
                    for j in range(cuda.threadIdx.x, N, cuda.blockDim.x):
                        A[upper + j], A[lower + j] = A[lower + j], A[upper + j]
                    if cuda.threadIdx.x == 0:
                        y[y0 + column], y[y0 + pivot] = y[y0 + pivot], y[y0 + column]
                cuda.syncthreads()
                inverse = one / A[upper + column]
                for i in range(column + 1 + cuda.threadIdx.x, N, cuda.blockDim.x):
                    row = a0 + i * N
                    factor = A[row + column] * inverse
                    A[row + column] = factor
                    for j in range(column + 1, k1):
                        A[row + j] -= factor * A[upper + j]
                cuda.syncthreads()
            for j in range(k1 + cuda.threadIdx.x, N + 1, cuda.blockDim.x):  # the rows of U, and y beside them
                for q in range(k0 + 1, k1):
                    for r in range(k0, q):
                        factor = A[a0 + q * N + r]
                        if j < N:
                            A[a0 + q * N + j] -= factor * A[a0 + r * N + j]
                        else:
                            y[y0 + q] -= factor * y[y0 + r]
            cuda.syncthreads()
            take_out(
                A, a0 + k1 * N + k1, N, A, a0 + k1 * N + k0, N, A, a0 + k0 * N + k1, N, N - k1, k1 - k0, N - k1
            )  # fmt: skip
            for i in range(k1 + cuda.threadIdx.x, N, cuda.blockDim.x):
                for q in range(k0, k1):
                    y[y0 + i] -= A[a0 + i * N + q] * y[y0 + q]
            cuda.syncthreads()
        return True

    @_cuda.Kernel
    def run(x, regular, A, y):
        b, N = cuda.blockIdx.x, x.shape[1]
        a0, y0 = b * N * N, b * N
        largest = cuda.shared.array(_PARTS, dtype)
        places = cuda.shared.array(_PARTS, numba.int64)
        for i in range(cuda.threadIdx.x, N, cuda.blockDim.x):
            y[y0 + i] = x[b, i]
        for part in range(cuda.threadIdx.x, _PARTS, cuda.blockDim.x):
            total = zero
            for item in range(part, N * N, _PARTS):
                value = (one if item // N == item % N else zero) - A[a0 + item]
                A[a0 + item] = value
                total += value * value
            largest[part] = total
        cuda.syncthreads()
        square = zero
        for part in range(_PARTS):
            square += largest[part]
        cuda.syncthreads()  # what was read is written again
        least = eps * T(math.sqrt(T(N) * square))
        found = False
        if square - square == zero:  # finite
            found = eliminate(A, a0, y, y0, N, least, largest, places)
        if cuda.threadIdx.x == 0:
            regular[b] = 1 if found else 0
        if found:
            for k in range(N - 1, -1, -1):
                value = y[y0 + k] / A[a0 + k * N + k]
                if cuda.threadIdx.x == 0:
                    x[b, k] = value
                for i in range(cuda.threadIdx.x, k, cuda.blockDim.x):
                    y[y0 + i] -= A[a0 + i * N + k] * value
                cuda.syncthreads()

    return run


def newton_directions(x, regular, update_s, update_a, update_a2, inner_s, inner_a, emit_s, W, W2):
    """x[b] <- (I - J_b)^-1 x[b], x[B, S n], of factored Jacobians of one step; regular[b] where that could be done."""
    B, N = x.shape
    n, G, P2 = update_s.shape[4], len(W), len(W2)
    of_sample = N * N + N + ((1 + P2) * n * N if P2 else 0)
    partials = (update_s, update_a, update_a2, inner_s, inner_a, emit_s)
    operands = [pieces.changed(x, 0), pieces.written(regular.view(np.uint8), 0)]
    operands += [pieces.read(array, 1) for array in partials] + [pieces.whole(W.ravel()), pieces.whole(W2.ravel())]

    def piece(start, stop, x, regular, *arrays):
        count = stop - start
        J, y = _cuda.empty((1, count, N, N), x.dtype), _cuda.empty((count * N,), x.dtype)
        K, W2K = (_cuda.empty((count * size * N if P2 else 1,), x.dtype) for size in (n, P2 * n))
        make_dense(np.dtype(x.dtype))(count, _cuda.threads(N * N), 0, J, *arrays, K, W2K, G, P2)
        make(np.dtype(x.dtype))(count, _cuda.threads(N * N), 0, x, regular, J.reshape(-1), y)

    pieces.run(piece, B, operands, "the Newton direction of one sample", (0, of_sample * x.dtype.itemsize))


def dense_newton_directions(x, regular, J):
    """The same for dense Jacobians J[1, B, N, N]."""
    B, N = x.shape
    operands = [pieces.changed(x, 0), pieces.written(regular.view(np.uint8), 0), pieces.read(J, 1)]

    def piece(start, stop, x, regular, J):
        A, y = (_cuda.empty(((stop - start) * size,), x.dtype) for size in (N * N, N))
        A.copy_to_device(J.reshape(-1))  # which is used up
        make(np.dtype(x.dtype))(stop - start, _cuda.threads(N * N), 0, x, regular, A, y)

    each = (N * N + N) * x.dtype.itemsize
    pieces.run(piece, B, operands, "the Newton direction of one sample", (0, each))
