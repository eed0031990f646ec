"""Products of Jacobians from the left: adjoint rows carried back through time, a block for a few of them.

The arrays and their meaning are those of the CPU's kernel: y_{t-1} = y_t J_t, a mantissa and an exponent for each row.
One launch takes all steps; the weights lie in shared memory where they fit. Nothing here depends on the cell.
"""

import functools

import numba

from ... import _cuda
from . import block, large, library, pieces
from .block import KEYS, MOST_ROWS
from .stages import adjoint_stages

cuda = _cuda.load()


@functools.cache
def adjoint_step(dtype, driven):
    """Device function: new[r] = y[r] J_t for ``count`` rows from ``first`` on.

    room[z : …] holds, for the block's ``rows``, z[rows, G, n], z2[rows, P2, n] and dq[rows, n]. ``driven``: see
    ``adjoint_chain``.
    """
    multiply = block.product(dtype)
    before, between, after = adjoint_stages(dtype, driven)

    @_cuda.function
    def step(y, new, first, count, rows, sample, t, factors, masks, room, z, weights, G, P2, emits_state, dz, dz2):
        W, w0, W2, w20 = weights
        n = y.shape[2]
        z2 = z + rows * G * n
        dq = z2 + rows * P2 * n
        before(y, new, first, count, sample, t, factors, masks, room, z, z2, G, P2, dz, dz2)
        cuda.syncthreads()
        if P2 > 0:
            multiply(room, dq, n, room, z2, P2 * n, W2, w20, n, count, P2 * n, n)
            cuda.syncthreads()
            between(new, first, count, sample, t, factors, masks, room, z, dq, G, dz)
            cuda.syncthreads()
        multiply(room, dq, n, room, z, G * n, W, w0, n, count, G * n, n)
        cuda.syncthreads()
        after(new, first, count, sample, t, factors, masks, room, dq, emits_state)

    return step


@functools.cache
def make(dtype, level, driven):
    """Kernel of ``adjoint_chain``; W, W2 flat, t_last the index of the factors of the first step taken."""
    step = adjoint_step(dtype, driven)
    widest = block.widest(dtype.type(1))
    dtype = numba.from_dtype(dtype)

    @_cuda.Kernel
    def run(
        out, exponents, y, exponent, sample, dz, dz2, update_s, update_a, update_a2, inner_s, inner_a, emit_s, W, W2,
        by_s, by_a, by_a2, in_s, in_a, by_e, scratch, rows, t_last, G, P2, emits_state,
    ):  # fmt: skip
        steps, R, n = out.shape[0], out.shape[1], out.shape[3]
        first = cuda.blockIdx.x * rows
        count = min(rows, R - first)
        keys = cuda.shared.array(KEYS, numba.int32)
        taken = cuda.shared.array(MOST_ROWS, numba.int64)
        if level == 0:
            room = scratch
            z = cuda.blockIdx.x * rows * (G + P2 + 1) * n
        else:
            room = cuda.shared.array(0, dtype)
            z = 0
        if level == 2:
            block.copy(room, 0, W, G * n * n)
            block.copy(room, G * n * n, W2, P2 * n * n)
            weights = (room, 0, room, G * n * n)
            z = (G + P2) * n * n
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
        current = y
        for d in range(steps):
            slot = steps - 1 - d
            new = out[slot]
            at = slot if driven else 0
            step(
                current, new, first, count, rows, sample, t_last - d, factors, masks, room, z, weights, G, P2,
                emits_state, dz[at], dz2[at],
            )  # fmt: skip
            if not driven:
                block.rescale(new, first, count, keys, taken, d % 2, widest)
            for item in range(cuda.threadIdx.x, count * n, cuda.blockDim.x):
                if item % n == 0:  # the thread that counts for this row
                    exponents[slot, first + item // n] = taken[item // n]
            current = new

    return run


def adjoint_chain(out, exponents, y, exponent, sample, t_from, dz, dz2, factors, W, W2, masks, emits_state):
    """Carry y[R, S, n] (with exponent[R]) from step t_from back; out[-1 - d], exponents[-1 - d] hold it d + 1 earlier.

    The contract of the CPU's kernel: with charges dz[D, R, P, n], dz2 (D > 0) ``out`` holds on entry charges to the
    states, no exponent is taken out, and dz, dz2 return the adjoints of the pre-activations.
    """
    steps, R, _, n = out.shape
    G, P2, driven = len(W), len(W2), len(dz) > 0
    row = (G + P2 + 1) * n
    level, fits = block.placement(out.dtype.itemsize, W.size + W2.size, row, _cuda.shared_limit())
    by_library = library.pays(n)
    least = min(R, library.ROWS) if by_library else 1
    cut = [pieces.changed(out, 1) if driven else pieces.written(out, 1), pieces.written(exponents, 1)]
    cut += [pieces.read(array, 0) for array in (y, exponent, sample)]
    cut += [pieces.changed(array, 1) if driven else pieces.whole(array) for array in (dz, dz2)]
    cut += [pieces.whole(partial[t_from - steps : t_from]) for partial in factors]
    cut += [pieces.whole(array) for array in (W.ravel(), W2.ravel(), *masks)]
    spare = (0, row * out.dtype.itemsize) if by_library else block.spare(level, row * out.dtype.itemsize)
    if steps > 1 and pieces.fitting(R, cut, spare) < least:  # not even the fewest rows: the later half of steps first
        half = steps // 2
        late, early = slice(half, None), slice(half)
        rest = (factors, W, W2, masks, emits_state)
        adjoint_chain(out[late], exponents[late], y, exponent, sample, t_from, dz[late], dz2[late], *rest)
        t_from -= steps - half
        adjoint_chain(
            out[early], exponents[early], out[half], exponents[half], sample, t_from, dz[early], dz2[early], *rest
        )
        return

    def piece(start, stop, *arrays):
        if by_library:
            large.adjoint(arrays, G, P2, emits_state, driven)
            return
        blocks, rows = pieces.blocks_and_rows(stop - start, fits)
        scratch, shared = block.scratch(level, blocks, rows * row, W.size + W2.size, out.dtype)
        kernel = make(out.dtype, level, driven)
        kernel(blocks, _cuda.threads(rows * n), shared, *arrays, scratch, rows, steps - 1, G, P2, emits_state)

    pieces.run(piece, R, cut, "one row of a chain of Jacobians", spare, least)
