"""Norms of pointwise partials, a block for each of them at a time: its lanes share the units among them."""

import functools
import math

import numba
import numpy as np

from ... import _cuda
from ..magnitudes import larger
from ..rotation import SWEEPS, keeps_largest, rotation
from . import pieces

cuda = _cuda.load()

_LANES = 32  # that share the units, and threads of a block


@_cuda.function
def _dot(room, x, y, step, count):
    """Sum of room[x + l step] room[y + l step] over l < count."""
    total = 0.0
    for l in range(count):
        total += room[x + l * step] * room[y + l * step]
    return total


@_cuda.function
def _square(room, at, step, R, C):
    """The square of the largest singular value of A[R, C], A[r, c] in room[at + (r C + c) step]; A is used up."""
    sweep, turned = 0, True
    while turned and sweep < SWEEPS:
        sweep, turned = sweep + 1, False
        for i in range(R - 1):
            for j in range(i + 1, R):
                x, y = at + i * C * step, at + j * C * step
                a, b, g = _dot(room, x, x, step, C), _dot(room, y, y, step, C), _dot(room, x, y, step, C)
                if not keeps_largest(a, b, g):
                    c, s = rotation(a, b, g, 1.0)
                    for l in range(0, C * step, step):
                        u, v = room[x + l], room[y + l]
                        room[x + l] = c * u + s * v
                        room[y + l] = c * v - s * u
                    turned = True
    most = 0.0
    for i in range(R):
        most = larger(most, _dot(room, at + i * C * step, at + i * C * step, step, C))
    return most


@functools.cache
def make():
    """Kernel ``run(out, partials, columns, lanes)``, of any dtype; shared: a number and a matrix for each lane."""

    @_cuda.Kernel
    def run(out, partials, columns, lanes):
        X, R, C, n = partials.shape
        room = cuda.shared.array(0, numba.float64)
        for x in range(cuda.blockIdx.x, X, cuda.gridDim.x):
            for lane in range(cuda.threadIdx.x, lanes, cuda.blockDim.x):
                own = 0.0
                for item in range(lane, R * columns * n, lanes):
                    row, rest = item // (columns * n), item % (columns * n)
                    own = larger(own, abs(np.float64(partials[x, row, rest // n, rest % n])))
                room[lane] = own
            cuda.syncthreads()
            top = 0.0  # a slope of 1e-200 has no square
            for lane in range(lanes):
                top = larger(top, room[lane])
            cuda.syncthreads()
            squares = R * columns > 1 and 0.0 < top < math.inf
            if squares:
                for lane in range(cuda.threadIdx.x, lanes, cuda.blockDim.x):
                    own = 0.0
                    for i in range(lane, n, lanes):
                        for entry in range(R * columns):
                            value = np.float64(partials[x, entry // columns, entry % columns, i])
                            room[(1 + entry) * lanes + lane] = value / top
                        own = larger(own, _square(room, lanes + lane, lanes, R, columns))
                    room[lane] = own
            cuda.syncthreads()
            if cuda.threadIdx.x == 0:
                most = 1.0
                if squares:
                    most = 0.0
                    for lane in range(lanes):
                        most = larger(most, room[lane])
                out[x] = top * math.sqrt(most)
            cuda.syncthreads()

    return run


def unit_norms(out, partials, columns):
    """out[x] = the largest over i of ||partials[x, :, :columns, i]||_2; the CPU's contract."""
    R = partials.shape[1]
    lanes = max(1, min(_LANES, _cuda.shared_limit() // (8 * (1 + R * columns))))

    def piece(start, stop, out, partials):
        blocks = min(stop - start, 32 * _cuda.processors())
        make()(blocks, _cuda.threads(lanes), 8 * lanes * (1 + R * columns), out, partials, columns, lanes)

    operands = [pieces.written(out, 0), pieces.read(partials, 0)]
    pieces.run(piece, partials.shape[0], operands, "the norms of one step's partials")
