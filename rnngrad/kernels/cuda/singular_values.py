"""Singular values of matrices whose rows differ by more than the range of floats: a block for each matrix.

The rotations are the CPU's, N/2 pairs of rows at a time: in N - 1 rounds every row meets every other (the tournament of
Brent & Luk 1985), and the rows of a round do not meet those of another pair. Everything is float64.
"""

import functools
import math

import numba
import numpy as np

from ... import _cuda
from ..._math import log
from ..rotation import SWEEPS, is_orthogonal, rotation, rounding_exponent
from . import block, pieces
from .block import KEYS, MOST_ROWS

cuda = _cuda.load()

_LANES = 16  # parts of an inner product
_LN2 = math.log(2.0)
_DTYPE = np.dtype(np.float64)


def _room(N):
    """Numbers of scratch for N rows: parts of three inner products, and (c, s) of every pair."""
    return (3 * _LANES + 2) * ((N + 1) // 2)


@_cuda.function
def _first_of(p, turn, players):
    """The row with the lower number of pair p in round ``turn`` of so many players, an even number."""
    if p == 0:
        return turn  # against the last, who stays
    return min((turn + p) % (players - 1), (turn - p + players - 1) % (players - 1))


@_cuda.function
def _second_of(p, turn, players):
    """The other row of the pair; there is none with the number of rows, if that is odd."""
    if p == 0:
        return players - 1
    return max((turn + p) % (players - 1), (turn - p + players - 1) % (players - 1))


@functools.cache
def make(level):
    """Kernel ``run(out, X, x, e, given, sweeps, scratch, numbers, floor)``; x is X[B N, 1, M] flat, e[B, N]."""

    @_cuda.Kernel
    def run(out, X, x, e, given, sweeps, scratch, numbers, floor):
        b, N, M = cuda.blockIdx.x, e.shape[1], X.shape[2]
        players = N + N % 2
        pairs, first = players // 2, b * N
        keys = cuda.shared.array(KEYS, numba.int32)
        flags = cuda.shared.array(1, numba.int32)
        if level == 0:
            room = scratch
            at = b * numbers
        else:
            room = cuda.shared.array(0, numba.float64)
            at = 0
        angles = at + 3 * _LANES * pairs
        exponents = e[b]
        for r in range(cuda.threadIdx.x, KEYS, cuda.blockDim.x):
            keys[r] = 0
        cuda.syncthreads()
        turn, taken, turned = 0, 0, True
        while turned and taken <= SWEEPS:
            for g in range(0, N, MOST_ROWS):
                block.rescale(X, first + g, min(MOST_ROWS, N - g), keys, exponents[g:], turn, 0)
                turn = 1 - turn
                cuda.syncthreads()
            if taken == 0:
                for i in range(cuda.threadIdx.x, N, cuda.blockDim.x):
                    given[first + i] = exponents[i]
                cuda.syncthreads()
            taken += 1
            for item in range(cuda.threadIdx.x, N * M, cuda.blockDim.x):
                if exponents[item // M] - given[first + item // M] < floor:  # else rotations would not come to an end
                    x[first * M + item] = 0.0
            if cuda.threadIdx.x == 0:
                flags[0] = 0
            cuda.syncthreads()
            for meeting in range(players - 1):
                for task in range(cuda.threadIdx.x, pairs * _LANES, cuda.blockDim.x):
                    i, j = _first_of(task // _LANES, meeting, players), _second_of(task // _LANES, meeting, players)
                    if j < N:
                        xi, xj = (first + i) * M, (first + j) * M
                        a, c, g = 0.0, 0.0, 0.0
                        for l in range(task % _LANES, M, _LANES):
                            u, v = x[xi + l], x[xj + l]
                            a += u * u
                            c += v * v
                            g += u * v
                        room[at + 3 * task] = a
                        room[at + 3 * task + 1] = c
                        room[at + 3 * task + 2] = g
                cuda.syncthreads()
                for p in range(cuda.threadIdx.x, pairs, cuda.blockDim.x):
                    i, j = _first_of(p, meeting, players), _second_of(p, meeting, players)
                    c, s = 1.0, 0.0
                    if j < N:
                        a, d, g = 0.0, 0.0, 0.0
                        for lane in range(_LANES):
                            part = at + 3 * (p * _LANES + lane)
                            a += room[part]
                            d += room[part + 1]
                            g += room[part + 2]
                        if not is_orthogonal(a, d, g, M):
                            shift = exponents[i] - exponents[j]
                            z = block.power(-min(abs(shift), 1000), 1.0)
                            c, s = rotation(a, d, g, z) if shift >= 0 else rotation(d, a, g, z)
                            cuda.atomic.max(flags, 0, 1)
                    room[angles + 2 * p] = c
                    room[angles + 2 * p + 1] = s
                cuda.syncthreads()
                for item in range(cuda.threadIdx.x, pairs * M, cuda.blockDim.x):
                    p, l = item // M, item % M
                    i, j = _first_of(p, meeting, players), _second_of(p, meeting, players)
                    c, s = room[angles + 2 * p], room[angles + 2 * p + 1]
                    if j < N and s != 0.0:
                        shift = exponents[i] - exponents[j]
                        z = block.power(-min(abs(shift), 1000), 1.0)
                        large, small = (i, j) if shift >= 0 else (j, i)
                        u, v = x[(first + large) * M + l], x[(first + small) * M + l]
                        x[(first + large) * M + l] = c * u + s * z * z * v
                        x[(first + small) * M + l] = c * v - s * u
                cuda.syncthreads()
            turned = flags[0] == 1
            cuda.syncthreads()
        if cuda.threadIdx.x == 0:
            sweeps[b] = taken
        for i in range(cuda.threadIdx.x, N, cuda.blockDim.x):
            square = 0.0
            for l in range(M):
                square += x[(first + i) * M + l] * x[(first + i) * M + l]
            value = -math.inf
            if square > 0.0:
                value = log(square) / 2.0 + exponents[i] * _LN2
            room[at + i] = value
        cuda.syncthreads()
        for i in range(cuda.threadIdx.x, N, cuda.blockDim.x):
            rank = 0
            for j in range(N):
                if room[at + j] > room[at + i] or (room[at + j] == room[at + i] and j < i):
                    rank += 1
            out[b, rank] = room[at + i]

    return run


def graded_singular_values(out, X, exponents, sweeps):
    """out[B, N] = ln of the singular values of X[B, N, M] 2^exponents[B, N], descending; the CPU's contract."""
    _, N, M = X.shape
    numbers, floor = _room(N), rounding_exponent(N)
    level = block.SHARED if 8 * numbers <= _cuda.shared_limit() else block.GLOBAL
    operands = [pieces.written(out, 0), pieces.changed(X, 0), pieces.changed(exponents, 0), pieces.written(sweeps, 0)]

    def piece(start, stop, out, X, exponents, sweeps):
        count = stop - start
        scratch, shared = block.scratch(level, count, numbers, 0, _DTYPE)
        given = _cuda.empty((count * N,), np.int64)
        rows = X.reshape(count * N, 1, M)
        make(level)(
            count, _cuda.threads(N * M), shared, out, rows, X.reshape(-1), exponents, given, sweeps, scratch, numbers,
            floor,
        )  # fmt: skip

    each = 8 * (N + (numbers if level == block.GLOBAL else 0))
    pieces.run(piece, len(out), operands, "the singular values of one matrix", (0, each))


def log_singular_values(out, X, sweeps):
    """out[B, N] = ln of the singular values of X[B, N, N], descending; the CPU's contract, by rotations."""
    none = np.zeros(X.shape[:2], np.int64)
    graded_singular_values(out, X, _cuda.upload(none) if _cuda.is_device_array(X) else none, sweeps)
