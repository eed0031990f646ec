"""One step of a few rows through the local Jacobians, forward or back, in each of their forms, by one block.

``make(form, forward, dtype, driven)`` is a device function ``step(y, new, first, count, rows, sample, t, system, where,
dz, dz2)``: new[r] = y[r] J_t, or J_t y[r] ``forward``, for ``count`` rows [S, n] from ``first`` on, each with the
Jacobian of sample[r]. ``where`` is what ``begin`` made of the block's scratch for ``rows`` rows. y, new, dz and dz2
need no barrier around a step. ``driven``: what new, dz and dz2 hold on
entry is charged to the state and to the pre-activations, and dz, dz2 hold their whole adjoints (tangents) on return.

On the host, a :class:`System` says what a form passes to a kernel. Nothing here depends on the cell.
"""

import dataclasses
import functools
from dataclasses import dataclass
from typing import Any

import numba

from ... import _cuda
from . import block, pieces, stages
from .block import TILE

cuda = _cuda.load()


@dataclass(frozen=True)
class System:
    """Local Jacobians as a kernel takes them: the arrays of :meth:`operands` and ``scalars`` in one tuple.

    partials[T, B, ...] differ by step and sample, ``shared`` do not; a step needs ``row`` numbers of scratch per row,
    and there are ``weights`` numbers that may lie in shared memory.
    """

    form: str
    partials: tuple[Any, ...]
    shared: tuple[Any, ...] = ()
    scalars: tuple[Any, ...] = ()
    row: int = 0
    weights: int = 0

    def operands(self, of: Any) -> list[pieces.Operand]:
        """The arrays of a launch; ``of(partial)`` says how a partial is cut."""
        return [of(partial) for partial in self.partials] + [pieces.whole(array) for array in self.shared]

    def steps(self, start: int, stop: int) -> "System":
        """Of these steps alone."""
        return dataclasses.replace(self, partials=tuple(partial[start:stop] for partial in self.partials))


def factored(forward, system):
    """The form of diagonals around W, of a system (factors, W, W2, masks, emits_state); see the CPU's kernels."""
    factors, W, W2, masks, emits_state = system
    weights = tuple(pieces.transposed(w).ravel() if forward else w.ravel() for w in (W, W2))
    G, P2, n = len(W), len(W2), W.shape[2]
    return System(
        "factored", tuple(factors), (*weights, *masks), (G, P2, emits_state), (1 + G + P2) * n, W.size + W2.size
    )


def dense(J):
    """The form of matrices J[T, B, N, N], for rows of S n = N numbers."""
    return System("dense", (J,))


@functools.cache
def _adjoint(dtype, driven):
    """The scratch is z[rows, G, n], z2[rows, P2, n] and a vector [rows, n]."""
    multiply = block.product(dtype)
    before, between, after = stages.make(False, dtype, driven)

    @_cuda.function
    def step(y, new, first, count, rows, sample, t, system, where, dz, dz2):
        G, P2 = system[14:16]
        room, z, (W, w0, W2, w20) = where
        n = y.shape[2]
        z2 = z + rows * G * n
        vector = z2 + rows * P2 * n
        places = (z, z2, vector)
        before(y, new, first, count, sample, t, system, room, places, dz, dz2)
        cuda.syncthreads()
        if P2 > 0:
            multiply(room, vector, n, room, z2, P2 * n, W2, w20, n, count, P2 * n, n)
            cuda.syncthreads()
            between(y, new, first, count, sample, t, system, room, places, dz, dz2)
            cuda.syncthreads()
        multiply(room, vector, n, room, z, G * n, W, w0, n, count, G * n, n)
        cuda.syncthreads()
        after(y, new, first, count, sample, t, system, room, places, dz, dz2)

    return step


@functools.cache
def _tangent(dtype, driven):
    """The scratch is a vector [rows, n], z[rows, G, n] and z2[rows, P2, n]; the weights are transposed."""
    multiply = block.product(dtype)
    before, between, after = stages.make(True, dtype, driven)

    @_cuda.function
    def step(y, new, first, count, rows, sample, t, system, where, dz, dz2):
        G, P2 = system[14:16]
        room, vector, (W, w0, W2, w20) = where
        n = y.shape[2]
        z = vector + rows * n
        z2 = z + rows * G * n
        places = (z, z2, vector)
        before(y, new, first, count, sample, t, system, room, places, dz, dz2)
        cuda.syncthreads()
        multiply(room, z, G * n, room, vector, n, W, w0, G * n, count, n, G * n)
        cuda.syncthreads()
        if driven or P2 > 0:
            between(y, new, first, count, sample, t, system, room, places, dz, dz2)
        if P2 > 0:
            cuda.syncthreads()
            multiply(room, z2, P2 * n, room, vector, n, W2, w20, P2 * n, count, n, P2 * n)
            cuda.syncthreads()
        after(y, new, first, count, sample, t, system, room, places, dz, dz2)

    return step


@functools.cache
def _dense(dtype, forward):
    """A thread sums a unit of TILE rows, so that rows of one sample share what is read of J; no scratch."""
    zero, number = dtype.type(0), numba.from_dtype(dtype)

    @_cuda.function
    def step(y, new, first, count, rows, sample, t, system, where, dz, dz2):
        J = system[0]
        n = y.shape[2]
        N = y.shape[1] * n
        line = cuda.local.array(TILE, numba.int64)
        own = cuda.local.array(TILE, numba.int64)
        total = cuda.local.array(TILE, number)
        cuda.syncthreads()  # other threads made the units that are read here
        for tile in range(cuda.threadIdx.x, (count + TILE - 1) // TILE * N, cuda.blockDim.x):
            i = tile % N
            for l in range(TILE):  # past the edge the last row again, and not kept
                line[l] = first + min(tile // N * TILE + l, count - 1)
                own[l] = sample[line[l]]
                total[l] = zero
            for c in range(y.shape[1]):
                for j in range(n):
                    k = c * n + j
                    entry = zero
                    for l in range(TILE):
                        if l == 0 or own[l] != own[l - 1]:
                            entry = J[t, own[l], i, k] if forward else J[t, own[l], k, i]
                        total[l] += y[line[l], c, j] * entry
            for l in range(TILE):
                if tile // N * TILE + l < count:
                    new[line[l], i // n, i % n] = total[l]
        cuda.syncthreads()

    return step


@functools.cache
def make(form, forward, dtype, driven=False):
    """Device function ``step``; see the module."""
    if form == "dense":
        return _dense(dtype, forward)
    return (_tangent if forward else _adjoint)(dtype, driven)


@functools.cache
def begin(form, dtype, level):
    """Device function ``run(scratch, numbers, system, n)``: ``where`` a block finds so many numbers of scratch."""
    place = block.place(dtype, level)
    factored = form == "factored"

    @_cuda.function
    def run(scratch, numbers, system, n):
        if factored:
            return place(scratch, numbers, system[6], system[14] * n * n, system[7], system[15] * n * n)
        return place(scratch, numbers, scratch, 0, scratch, 0)

    return run
