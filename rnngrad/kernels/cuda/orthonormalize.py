"""QR of tangent frames: k vectors, kept as rows, are made orthonormal by one block, and R is what they had in common.

Blocked modified Gram-Schmidt: within a panel row by row, with inner products in a fixed number of parts, then two
matrix products take the panel out of the rows after it. A frame that was stretched a lot goes through twice, as on
the CPU (Giraud, Langou, Rozložník & van den Eshof 2005).
"""

import functools
import math

import numba

from ... import _cuda
from . import block, pieces
from .block import KEYS, MOST_ROWS

cuda = _cuda.load()

DEPENDENT, NOT_FINITE = 1 << 40, 1 << 41  # in the place of a stretch
_PANEL = 8  # rows of a panel
_LANES = 32  # parts of an inner product


def limits(itemsize):
    """(aim, limit): log2 of the stretch of a frame that is aimed at between two QRs, and of the largest accepted."""
    return (5, 8) if itemsize == 4 else (16, 22)


def room(k, N):
    """Numbers of scratch for a frame of k vectors."""
    return _PANEL * (_LANES + 1) + _PANEL * N + _PANEL * k + N + k


@functools.cache
def make_qr(dtype):
    """Device function ``qr(Y, y, first, k, R, again, r0, exponents, scratch, at, keys, flags)``: log2 of the stretch.

    Y[first : first + k, S, n] are the rows, y the same memory flat; R and ``again`` are flat, of k x k from r0 on;
    scratch[at : …] has :func:`room` numbers; flags is shared, of two integers. See ``orthonormalize`` of the CPU.
    """
    T = dtype.type
    zero, one, eps = T(0), T(1), T(4 * (2.0**-23 if dtype.itemsize == 4 else 2.0**-52))
    limit = limits(dtype.itemsize)[1]
    multiply, take_out = block.product(dtype), block.product(dtype, subtract=True)

    @_cuda.function
    def gram_schmidt(y, start, k, N, R, r0, room, at, tol):
        # rows of y made orthonormal, or zero where less than tol is left; R[j, c] of the flat R
        parts, dots = at, at + _PANEL * _LANES
        turned = dots + _PANEL
        shared = turned + _PANEL * N
        for j0 in range(0, k, _PANEL):
            w = min(_PANEL, k - j0)
            for j in range(w):
                row = start + (j0 + j) * N
                for task in range(cuda.threadIdx.x, (w - j) * _LANES, cuda.blockDim.x):
                    other, lane = row + task // _LANES * N, task % _LANES
                    total = zero
                    for i in range(lane, N, _LANES):
                        total += y[row + i] * y[other + i]
                    room[parts + task] = total
                cuda.syncthreads()
                for c in range(cuda.threadIdx.x, w - j, cuda.blockDim.x):
                    total = zero
                    for lane in range(_LANES):
                        total += room[parts + c * _LANES + lane]
                    room[dots + c] = total
                cuda.syncthreads()
                length = math.sqrt(room[dots])
                kept = length > tol
                scale = one / length if kept else zero
                for c in range(cuda.threadIdx.x, w - j, cuda.blockDim.x):
                    R[r0 + (j0 + j) * k + j0 + j + c] = (length if c == 0 else room[dots + c] * scale) if kept else zero
                for i in range(cuda.threadIdx.x, N, cuda.blockDim.x):
                    q = y[row + i] * scale
                    for c in range(1, w - j):
                        y[row + c * N + i] -= q * (room[dots + c] * scale)
                    y[row + i] = q
                cuda.syncthreads()
            left = k - j0 - w
            if left > 0:
                for item in range(cuda.threadIdx.x, w * N, cuda.blockDim.x):
                    room[turned + item % N * w + item // N] = y[start + j0 * N + item]
                cuda.syncthreads()
                after = start + (j0 + w) * N
                multiply(room, shared, w, y, after, N, room, turned, w, left, N, w)
                cuda.syncthreads()
                for item in range(cuda.threadIdx.x, left * w, cuda.blockDim.x):
                    R[r0 + (j0 + item % w) * k + j0 + w + item // w] = room[shared + item]
                take_out(y, after, N, room, shared, w, y, start + j0 * N, N, left, w, N)
                cuda.syncthreads()

    @_cuda.function
    def fill(y, start, k, N, room, at, flags):
        # a unit vector orthogonal to all the others in the place of every zero row
        vector, dots = at, at + N
        for c in range(k):
            if cuda.threadIdx.x == 0:
                flags[0] = 0
            cuda.syncthreads()
            for i in range(cuda.threadIdx.x, N, cuda.blockDim.x):
                if y[start + c * N + i] != zero:
                    cuda.atomic.max(flags, 0, 1)
            cuda.syncthreads()
            if flags[0] == 0:
                for attempt in range(N):  # of N unit vectors, one at least keeps 1/N of its square
                    for i in range(cuda.threadIdx.x, N, cuda.blockDim.x):
                        room[vector + i] = one if i == (c + attempt) % N else zero
                    for _ in range(2):
                        cuda.syncthreads()
                        for r in range(cuda.threadIdx.x, k, cuda.blockDim.x):
                            total = zero
                            for i in range(N):
                                total += y[start + r * N + i] * room[vector + i]
                            room[dots + r] = total
                        cuda.syncthreads()
                        for i in range(cuda.threadIdx.x, N, cuda.blockDim.x):
                            for r in range(k):
                                room[vector + i] -= room[dots + r] * y[start + r * N + i]
                    cuda.syncthreads()
                    square = zero
                    for i in range(N):
                        square += room[vector + i] * room[vector + i]
                    if T(2 * N) * square >= one:
                        break
                    cuda.syncthreads()
                for i in range(cuda.threadIdx.x, N, cuda.blockDim.x):
                    y[start + c * N + i] = room[vector + i] / math.sqrt(square)
            cuda.syncthreads()

    @_cuda.function
    def qr(Y, y, first, k, R, again, r0, exponents, room, at, keys, flags):
        S, n = Y.shape[1], Y.shape[2]
        N = S * n
        start, tol = first * N, eps * T(N)
        for item in range(cuda.threadIdx.x, k * k, cuda.blockDim.x):
            R[r0 + item] = zero
            again[r0 + item] = zero
        for r in range(cuda.threadIdx.x, KEYS, cuda.blockDim.x):
            keys[r] = 0
        if cuda.threadIdx.x == 0:
            flags[0] = 0
        cuda.syncthreads()
        turn = 0
        for g in range(0, k, MOST_ROWS):
            if not block.rescale(Y, first + g, min(MOST_ROWS, k - g), keys, exponents[g:], turn, 0):
                cuda.atomic.max(flags, 0, 1)
            turn = 1 - turn
            cuda.syncthreads()  # the next call clears the keys that this one reads
        if flags[0] == 1:
            cuda.syncthreads()
            return NOT_FINITE
        top = exponents[0]
        for c in range(1, k):
            top = max(top, exponents[c])
        low = top + block.exponent_of(block.exponent_key(tol), tol)
        for item in range(cuda.threadIdx.x, k * N, cuda.blockDim.x):
            if exponents[item // N] < low:  # what a product leaves of a null direction
                y[start + item] = zero
        cuda.syncthreads()
        gram_schmidt(y, start, k, N, R, r0, room, at, tol)
        shortest, longest, dependent = 1 << 62, -(1 << 62), False
        for c in range(k):
            value = R[r0 + c * k + c]
            if value > zero:
                size = exponents[c] + block.exponent_of(block.exponent_key(value), value)
                shortest, longest = min(shortest, size), max(longest, size)
            else:
                dependent = True
        stretch = max(longest - shortest, 0)
        if dependent or stretch > limit:
            gram_schmidt(y, start, k, N, again, r0, room, at, tol)
            for c in range(cuda.threadIdx.x, k, cuda.blockDim.x):  # R = again R, column by column
                for j in range(c + 1):
                    total = zero
                    for i in range(j, c + 1):
                        total += again[r0 + j * k + i] * R[r0 + i * k + c]
                    R[r0 + j * k + c] = total
            cuda.syncthreads()
            for c in range(k):
                if not R[r0 + c * k + c] > tol:
                    dependent = True
            cuda.syncthreads()
            for item in range(cuda.threadIdx.x, k * N, cuda.blockDim.x):
                c = item // N
                if not R[r0 + c * k + c] > tol:
                    y[start + item] = zero
            cuda.syncthreads()
            for c in range(cuda.threadIdx.x, k, cuda.blockDim.x):
                if not R[r0 + c * k + c] > tol:
                    R[r0 + c * k + c] = zero
        cuda.syncthreads()
        if dependent:
            fill(y, start, k, N, room, at, flags)
            return DEPENDENT
        return stretch

    return qr


@functools.cache
def make(dtype, level):
    """Kernel ``run(Y, y, R, again, exponents, stretch, scratch)``, one block per frame; y is Y flat."""
    qr = make_qr(dtype)
    dtype = numba.from_dtype(dtype)

    @_cuda.Kernel
    def run(Y, y, R, again, exponents, stretch, scratch, numbers):
        # Y[B k, 1, N]  exponents[B, k]  stretch[B]
        b, k = cuda.blockIdx.x, exponents.shape[1]
        keys = cuda.shared.array(KEYS, numba.int32)
        flags = cuda.shared.array(2, numba.int32)
        if level == 0:
            room = scratch
            at = b * numbers
        else:
            room = cuda.shared.array(0, dtype)
            at = 0
        found = qr(Y, y, b * k, k, R, again, b * k * k, exponents[b], room, at, keys, flags)
        if cuda.threadIdx.x == 0:
            stretch[b] = found

    return run


def orthonormalize(Y, R, exponents, stretch):
    """QR of every frame: Y[B, k, N] 2^exponents[B, k] = (R[B, k, k])^T (orthonormal rows), as the CPU's."""
    B, k, N = Y.shape
    numbers = room(k, N)
    level = block.SHARED if numbers * Y.dtype.itemsize <= _cuda.shared_limit() else block.GLOBAL
    kernel = make(Y.dtype, level)
    operands = [pieces.changed(Y, 0), pieces.written(R, 0), pieces.changed(exponents, 0), pieces.written(stretch, 0)]

    def piece(start, stop, Y, R, exponents, stretch):
        count = stop - start
        scratch, shared = block.scratch(level, count, numbers, 0, Y.dtype)
        again = _cuda.empty((R.size,), R.dtype)
        kernel(
            count, _cuda.threads(N), shared, Y.reshape(count * k, 1, N), Y.reshape(-1), R.reshape(-1), again, exponents,
            stretch, scratch, numbers,
        )  # fmt: skip

    each = (numbers if level == block.GLOBAL else 0) + k * k
    pieces.run(piece, B, operands, "the QR of one frame", (0, each * Y.dtype.itemsize))
