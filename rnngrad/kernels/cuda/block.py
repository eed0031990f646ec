"""What the threads of one block do together: products out of registers, copies, and the exponents of rows.

Operands are flat arrays with a start and a row step, so that the same code serves shared and global memory. Loops go
over independent elements, thread by thread; each element is summed by one thread in the order of its index.
"""

import functools

import numba
import numpy as np

from ... import _cuda
from ..._jit import unit
from ..._math import is_single

cuda = _cuda.load()

TILE = 4  # a thread makes TILE x TILE elements of a product, so that each operand read serves TILE times
MOST_ROWS = 64  # rows of one block at most
KEYS = 2 * MOST_ROWS  # of ``rescale``: two turns

_LOWEST = 64  # added to exponent fields, so that those of subnormal numbers stay positive


@functools.cache
def product(dtype, subtract=False):
    """``product(c, c0, ldc, a, a0, lda, b, b0, ldb, rows, depth, columns)``: C = A B (or C -= A B), all by rows."""
    dtype = numba.from_dtype(dtype)

    @_cuda.function
    def multiply(c, c0, ldc, a, a0, lda, b, b0, ldb, rows, depth, columns):
        width = (columns + TILE - 1) // TILE  # a thread's columns are so far apart: neighbours read neighbours
        total = cuda.local.array((TILE, TILE), dtype)
        line = cuda.local.array(TILE, numba.int64)
        column = cuda.local.array(TILE, numba.int64)
        for tile in range(cuda.threadIdx.x, (rows + TILE - 1) // TILE * width, cuda.blockDim.x):
            row = tile // width * TILE
            for i in range(TILE):  # past the edge the last one again, and not kept
                line[i] = a0 + min(row + i, rows - 1) * lda
                column[i] = b0 + min(tile % width + i * width, columns - 1)
                for j in range(TILE):
                    total[i, j] = 0
            for k in range(depth):
                for i in range(TILE):
                    left = a[np.uint64(line[i] + k)]  # unsigned: no test for a negative index
                    for j in range(TILE):
                        total[i, j] += left * b[np.uint64(column[j] + k * ldb)]
            for i in range(TILE):
                if row + i < rows:
                    for j in range(TILE):
                        at = tile % width + j * width
                        if at < columns:
                            if subtract:
                                c[c0 + (row + i) * ldc + at] -= total[i, j]
                            else:
                                c[c0 + (row + i) * ldc + at] = total[i, j]

    return multiply


@_cuda.function
def copy(to, to0, source, count):
    """to[to0 : to0 + count] = source[:count]."""
    for i in range(cuda.threadIdx.x, count, cuda.blockDim.x):
        to[to0 + i] = source[i]


# ---------------------------------------------------------------- exponents of rows


@unit
def _bits(x):
    """(exponent field, field of infinities, bias) of |x|."""
    if is_single(x):
        return np.int64((np.float32(x).view(np.int32) & np.int32(0x7FFFFFFF)) >> np.int32(23)), 255, 126
    return (np.float64(x).view(np.int64) & np.int64(0x7FFFFFFFFFFFFFFF)) >> np.int64(52), 2047, 1022


@unit
def exponent_key(x):
    """An integer that orders magnitudes by exponent: 0 for 0, the largest for infinities and NaN."""
    T = type(x)
    field = _bits(x)[0]
    if field == 0:
        if x == T(0.0):
            return np.int32(0)
        field = _bits(x * T(18446744073709551616.0))[0] - 64  # 2^64 makes a subnormal number a normal one
    return np.int32(field + _LOWEST)


@unit
def is_infinite(key, like):
    """Whether the key is that of an infinity or a NaN."""
    return np.int64(key) - _LOWEST == _bits(like)[1]


@unit
def exponent_of(key, like):
    """e with magnitudes in [2^(e - 1), 2^e) for the key of the largest of them; 0 where nothing can be taken out."""
    if key == 0 or is_infinite(key, like):
        return np.int64(0)
    return np.int64(key) - _LOWEST - _bits(like)[2]


@unit
def power(exponent, like):
    """2^exponent in the dtype of ``like``; held at the ends of its range."""
    T = type(like)
    if is_single(like):
        e = np.int32(min(max(exponent, -126), 126) + 127)
        return T(np.int32(e << np.int32(23)).view(np.float32))
    e = np.int64(min(max(exponent, -1022), 1022) + 1023)
    return T(np.int64(e << np.int64(52)).view(np.float64))


@unit
def times_power(x, exponent):
    """x 2^exponent by two factors, since 2^exponent itself may be out of range."""
    half = exponent // 2
    return x * power(half, x) * power(exponent - half, x)


@unit
def widest(like):
    """w for which rows within 2^(+-w) may be left alone: half of the exponent range."""
    return 60 if is_single(like) else 500


@_cuda.function
def rescale(values, first, count, keys, exponents, turn, w):
    """Take 2^k out of each of the rows values[first + r, S, n] that left 2^(+-w), and add k to exponents[r].

    Whether all numbers of the rows of this thread are finite; rows that hold others stay as they are. Between two calls
    there must be a barrier.

    ``keys`` has MOST_ROWS zeros for each of two turns, taken alternately: those of one are cleared while no thread can
    still be reading them. The largest key is found by atomic maxima of integers, which do not depend on their order.
    """
    S, n = values.shape[1], values.shape[2]
    here, other = turn * MOST_ROWS, (1 - turn) * MOST_ROWS
    row, top = 0, np.int32(0)
    for item in range(cuda.threadIdx.x, count * n, cuda.blockDim.x):
        r, i = item // n, item % n
        if r != row:  # a thread's items of one row follow each other
            cuda.atomic.max(keys, here + row, top)
            row, top = r, np.int32(0)
        for s in range(S):
            top = max(top, exponent_key(values[first + r, s, i]))
    cuda.atomic.max(keys, here + row, top)
    for r in range(cuda.threadIdx.x, MOST_ROWS, cuda.blockDim.x):  # the next rows may be more than these
        keys[other + r] = 0
    cuda.syncthreads()
    finite = True
    for item in range(cuda.threadIdx.x, count * n, cuda.blockDim.x):
        r, i = item // n, item % n
        like = values[first + r, 0, i]
        exponent = exponent_of(keys[here + r], like)
        if is_infinite(keys[here + r], like):
            finite = False
        if abs(exponent) > w:
            for s in range(S):
                values[first + r, s, i] = times_power(values[first + r, s, i], -exponent)
            if i == 0:
                exponents[r] += exponent
    return finite


# ---------------------------------------------------------------- where operands lie

#: Scratch in global memory; scratch in shared memory; and the weights there too.
GLOBAL, SHARED, WEIGHTS_SHARED = range(3)


def placement(itemsize, weights, row, limit):
    """(level, rows that fit) for so many weights, and so many numbers of scratch per row of a block."""
    numbers = limit // itemsize
    for level, taken in ((WEIGHTS_SHARED, weights), (SHARED, 0)):
        rows = (numbers - taken) // max(row, 1) // TILE * TILE
        if rows >= TILE:
            return level, min(rows, MOST_ROWS)
    return GLOBAL, MOST_ROWS


def spare(level, row):
    """Bytes of scratch in global memory, (of every piece, for each row), for so many bytes per row of a block."""
    return (TILE * row, row) if level == GLOBAL else (0, 0)


def scratch(level, blocks, numbers, weights, dtype):
    """(array of scratch in global memory, bytes of shared memory) for blocks that need so many numbers each."""
    if level == GLOBAL:
        return _cuda.empty((blocks * numbers,), dtype), 0
    return _cuda.empty((1,), dtype), (numbers + (weights if level == WEIGHTS_SHARED else 0)) * dtype.itemsize


@functools.cache
def place(dtype, level):
    """Device function: (room, where the block's scratch of so many numbers begins in it, (W, w0, W2, w20)).

    W and W2 are flat, with the numbers there are of each; they are copied to shared memory where that is the level.
    """
    dtype = numba.from_dtype(dtype)

    @_cuda.function
    def run(scratch, numbers, W, size, W2, size2):
        if level == GLOBAL:
            return scratch, cuda.blockIdx.x * numbers, (W, 0, W2, 0)
        room = cuda.shared.array(0, dtype)
        if level == SHARED:
            return room, 0, (W, 0, W2, 0)
        copy(room, 0, W, size)
        copy(room, size, W2, size2)
        return room, size + size2, (room, 0, room, size)

    return run
