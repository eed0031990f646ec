"""Chains of Jacobians of many units: products by the library, and a launch for what is between two of them.

The stages are those of the kernels that take all steps in one launch, and so are the results, to rounding.
"""

import functools

import numba

from ... import _cuda
from . import block, library, stages
from .block import KEYS, MOST_ROWS, TILE

cuda = _cuda.load()


@functools.cache
def places(forward):
    """Device function: where z, z2 and the vector of the block at row ``first`` of R lie in the room of all rows.

    With the step that is the d-th to be made, and where its result is in the order of time.
    """

    @_cuda.function
    def run(first, R, n, system, d, steps):
        G, P2 = system[14:16]
        at = (first * G * n, (R * G + first * P2) * n, (R * (G + P2) + first) * n)
        return at, d - 1 if forward else steps - d

    return run


@functools.cache
def make_edge(forward, dtype, driven):
    """Kernel: the end of step d of a chain (if d > 0) and the beginning of the next one (if there is one)."""
    before, _, after = stages.make(forward, dtype, driven)
    find = places(forward)
    widest = block.widest(dtype.type(1))

    @_cuda.Kernel
    def run(out, exponents, y, exponent, sample, dz, dz2, system, room, d):
        steps, R, n = out.shape[0], out.shape[1], out.shape[3]
        first = cuda.blockIdx.x * TILE
        count = min(TILE, R - first)
        keys = cuda.shared.array(KEYS, numba.int32)
        taken = cuda.shared.array(MOST_ROWS, numba.int64)
        last = find(first, R, n, system, d - 1, steps)[1]
        for r in range(cuda.threadIdx.x, KEYS, cuda.blockDim.x):
            keys[r] = 0
        for r in range(cuda.threadIdx.x, count, cuda.blockDim.x):
            taken[r] = exponent[first + r] if d < 2 else exponents[last, first + r]
        cuda.syncthreads()
        current = y
        if d > 1:
            current = out[last]
        if d > 0:
            at, t = find(first, R, n, system, d, steps)
            new, charged = out[t], t if driven else 0
            after(current, new, first, count, sample, t, system, room, at, dz[charged], dz2[charged])
            if not driven:
                block.rescale(new, first, count, keys, taken, 0, widest)
            for item in range(cuda.threadIdx.x, count * n, cuda.blockDim.x):
                if item % n == 0:  # the thread that counts for this row
                    exponents[t, first + item // n] = taken[item // n]
            current = new
        if d < steps:
            at, t = find(first, R, n, system, d + 1, steps)
            charged = t if driven else 0
            before(current, out[t], first, count, sample, t, system, room, at, dz[charged], dz2[charged])

    return run


@functools.cache
def make_between(forward, dtype, driven):
    """Kernel: what is between the two products of step d = 1 …"""
    between, find = stages.make(forward, dtype, driven)[1], places(forward)

    @_cuda.Kernel
    def run(out, y, sample, dz, dz2, system, room, d):
        steps, R, n = out.shape[0], out.shape[1], out.shape[3]
        first = cuda.blockIdx.x * TILE
        current = y
        if d > 1:
            current = out[find(first, R, n, system, d - 1, steps)[1]]
        at, t = find(first, R, n, system, d, steps)
        charged = t if driven else 0
        between(
            current, out[t], first, min(TILE, R - first), sample, t, system, room, at, dz[charged], dz2[charged]
        )  # fmt: skip

    return run


def carry(forward, arrays, scalars, driven):
    """All steps of a chain of device arrays: those of its kernel, but for the weights in their places."""
    out, exponents, y, exponent, sample, dz, dz2, *partials_and_shared = arrays
    system, (W, W2), (G, P2, _) = (*partials_and_shared, *scalars), partials_and_shared[6:8], scalars
    steps, R, _, n = out.shape
    room = _cuda.empty((R * (G + P2 + 1) * n,), out.dtype)
    edge, between = (make(forward, out.dtype, driven) for make in (make_edge, make_between))
    blocks, threads = -(-R // TILE), _cuda.threads(TILE * n)
    z2, vector = R * G * n, R * (G + P2) * n

    for d in range(steps + 1):
        edge(blocks, threads, 0, out, exponents, y, exponent, sample, dz, dz2, system, room, d)
        if d == steps:
            return
        if forward:
            library.multiply(room, room, W, R, n, G * n, (vector, n, 1), (0, G * n, 1), (0, G * n))
        elif P2:
            library.multiply(room, room, W2, R, P2 * n, n, (z2, P2 * n, 1), (0, n, 1), (vector, n))
        if P2 or (forward and driven):
            between(blocks, threads, 0, out, y, sample, dz, dz2, system, room, d + 1)
        if not forward:
            library.multiply(room, room, W, R, G * n, n, (0, G * n, 1), (0, n, 1), (vector, n))
        elif P2:
            library.multiply(room, room, W2, R, n, P2 * n, (vector, n, 1), (0, P2 * n, 1), (z2, P2 * n))
