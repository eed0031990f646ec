"""Products of Jacobians from the right: tangent columns carried forward through time, a block for a few of them.

The arrays and their meaning are those of the CPU's kernel: v_t = J_t v_{t-1} + what a change of the pre-activations
adds; columns are stored as rows (S, n). Nothing here depends on the cell.
"""

import functools

import numba

from ... import _cuda
from . import block, large, library, pieces
from .block import KEYS, MOST_ROWS
from .stages import tangent_stages

cuda = _cuda.load()


@functools.cache
def tangent_step(dtype, driven):
    """Device function: new[r] = J_t v[r] for ``count`` rows from ``first`` on.

    room[sent : …] holds, for the block's ``rows``, e[rows, n], z[rows, G, n] and z2[rows, P2, n]; the weights are
    transposed. ``driven``: see ``tangent_chain``.
    """
    multiply = block.product(dtype)
    before, between, after = tangent_stages(dtype, driven)

    @_cuda.function
    def step(v, new, first, count, rows, sample, t, factors, masks, room, sent, weights, G, P2, emits_state, dz, dz2):
        W, w0, W2, w20 = weights
        n = v.shape[2]
        z = sent + rows * n
        z2 = z + rows * G * n
        before(v, first, count, sample, t, factors, masks, room, sent, emits_state)
        cuda.syncthreads()
        multiply(room, z, G * n, room, sent, n, W, w0, G * n, count, n, G * n)
        cuda.syncthreads()
        if driven or P2 > 0:
            between(v, first, count, sample, t, factors, masks, room, sent, z, G, P2, dz)
        if P2 > 0:
            cuda.syncthreads()
            multiply(room, z2, P2 * n, room, sent, n, W2, w20, P2 * n, count, n, P2 * n)
            cuda.syncthreads()
        after(v, new, first, count, sample, t, factors, masks, room, z, z2, G, P2, dz, dz2)

    return step


@functools.cache
def make(dtype, level, driven):
    """Kernel of ``tangent_chain``; W, W2 transposed and flat, t_first the index of the factors of the first step."""
    step = tangent_step(dtype, driven)
    widest = block.widest(dtype.type(1))
    dtype = numba.from_dtype(dtype)

    @_cuda.Kernel
    def run(
        out, exponents, v, exponent, sample, dz, dz2, update_s, update_a, update_a2, inner_s, inner_a, emit_s, W, W2,
        by_s, by_a, by_a2, in_s, in_a, by_e, scratch, rows, G, P2, emits_state,
    ):  # fmt: skip
        steps, R, n = out.shape[0], out.shape[1], out.shape[3]
        first = cuda.blockIdx.x * rows
        count = min(rows, R - first)
        keys = cuda.shared.array(KEYS, numba.int32)
        taken = cuda.shared.array(MOST_ROWS, numba.int64)
        if level == 0:
            room = scratch
            sent = cuda.blockIdx.x * rows * (1 + G + P2) * n
        else:
            room = cuda.shared.array(0, dtype)
            sent = 0
        if level == 2:
            block.copy(room, 0, W, G * n * n)
            block.copy(room, G * n * n, W2, P2 * n * n)
            weights = (room, 0, room, G * n * n)
            sent = (G + P2) * n * n
        else:
            weights = (W, 0, W2, 0)
        for r in range(cuda.threadIdx.x, MOST_ROWS, cuda.blockDim.x):
            keys[r] = 0
            keys[MOST_ROWS + r] = 0
            if r < count:
                taken[r] = exponent[first + r]
        cuda.syncthreads()
        factors = (update_s, update_a, update_a2, inner_s, inner_a, emit_s)
        masks = (by_s, by_a, by_a2, in_s, in_a, by_e)
        current = v
        for d in range(steps):
            new = out[d]
            at = d if driven else 0
            step(
                current, new, first, count, rows, sample, d, factors, masks, room, sent, weights, G, P2, emits_state,
                dz[at], dz2[at],
            )  # fmt: skip
            if not driven:
                block.rescale(new, first, count, keys, taken, d % 2, widest)
            for item in range(cuda.threadIdx.x, count * n, cuda.blockDim.x):
                if item % n == 0:  # the thread that counts for this row
                    exponents[d, first + item // n] = taken[item // n]
            current = new

    return run


def tangent_chain(out, exponents, v, exponent, sample, t_from, dz, dz2, factors, W, W2, masks, emits_state):
    """Carry v[R, S, n] (with exponent[R]) from state t_from on; out[d], exponents[d] hold it d + 1 steps later.

    The contract of the CPU's kernel: with changes dz[D, R, P, n], dz2 (D > 0) of the pre-activations no exponent is
    taken out, and they return the tangents of the pre-activations.
    """
    steps, R, _, n = out.shape
    G, P2, driven = len(W), len(W2), len(dz) > 0
    row = (1 + G + P2) * n
    level, fits = block.placement(out.dtype.itemsize, W.size + W2.size, row, _cuda.shared_limit())
    by_library = library.pays(n)
    least = min(R, library.ROWS) if by_library else 1
    cut = [pieces.written(out, 1), pieces.written(exponents, 1)]
    cut += [pieces.read(array, 0) for array in (v, exponent, sample)]
    cut += [pieces.changed(array, 1) if driven else pieces.whole(array) for array in (dz, dz2)]
    cut += [pieces.whole(partial[t_from : t_from + steps]) for partial in factors]
    cut += [pieces.whole(pieces.transposed(weights).ravel()) for weights in (W, W2)]
    cut += [pieces.whole(mask) for mask in masks]
    spare = (0, row * out.dtype.itemsize) if by_library else block.spare(level, row * out.dtype.itemsize)
    if steps > 1 and pieces.fitting(R, cut, spare) < least:  # not even the fewest rows: the earlier half of steps first
        half = steps // 2
        early, late = slice(half), slice(half, None)
        rest = (factors, W, W2, masks, emits_state)
        tangent_chain(out[early], exponents[early], v, exponent, sample, t_from, dz[early], dz2[early], *rest)
        v, exponent = out[half - 1], exponents[half - 1]
        tangent_chain(out[late], exponents[late], v, exponent, sample, t_from + half, dz[late], dz2[late], *rest)
        return

    def piece(start, stop, *arrays):
        if by_library:
            large.tangent(arrays, G, P2, emits_state, driven)
            return
        blocks, rows = pieces.blocks_and_rows(stop - start, fits)
        scratch, shared = block.scratch(level, blocks, rows * row, W.size + W2.size, out.dtype)
        kernel = make(out.dtype, level, driven)
        kernel(blocks, _cuda.threads(rows * n), shared, *arrays, scratch, rows, G, P2, emits_state)

    pieces.run(piece, R, cut, "one row of a chain of Jacobians", spare, least)
