"""Products of Jacobians from the left: adjoint rows carried back through time, a block for a few of them.

The arrays and their meaning are those of the CPU's kernel: y_{t-1} = y_t J_t, a mantissa and an exponent for each row.
One launch takes all steps; the weights lie in shared memory where they fit. Nothing here depends on the cell.
"""

import functools

import numba

from ... import _cuda
from . import block, pieces
from .block import KEYS, MOST_ROWS

cuda = _cuda.load()


@functools.cache
def adjoint_step(dtype, driven):
    """Device function: new[r] = y[r] J_t for ``count`` rows from ``first`` on.

    room[z : …] holds, for the block's ``rows``, z[rows, G, n], z2[rows, P2, n] and dq[rows, n]. A unit of a row is
    always the same thread's: y, new, dz, dz2 need no barrier. ``driven``: see ``adjoint_chain``.
    """
    multiply = block.product(dtype)
    zero = dtype.type(0)

    @_cuda.function
    def step(y, new, first, count, rows, sample, t, factors, masks, room, z, weights, G, P2, emits_state, dz, dz2):
        update_s, update_a, update_a2, inner_s, inner_a, emit_s = factors
        by_s, by_a, by_a2, in_s, in_a, by_e = masks
        W, w0, W2, w20 = weights
        S, n = y.shape[1], y.shape[2]
        P = update_a.shape[3] if driven else G
        z2 = z + rows * G * n
        dq = z2 + rows * P2 * n
        for item in range(cuda.threadIdx.x, count * n, cuda.blockDim.x):
            r, i = item // n, item % n
            row = first + r
            b = sample[row]
            for p in range(P):
                total = dz[row, p, i] if driven else zero
                for s in range(S):
                    if by_a[s, p]:
                        total += y[row, s, i] * update_a[t, b, s, p, i]
                if p < G:
                    room[z + (r * G + p) * n + i] = total
                if driven:
                    dz[row, p, i] = total
            for p in range(P2):
                total = dz2[row, p, i] if driven else zero
                for s in range(S):
                    if by_a2[s, p]:
                        total += y[row, s, i] * update_a2[t, b, s, p, i]
                room[z2 + (r * P2 + p) * n + i] = total
                if driven:
                    dz2[row, p, i] = total
            for c in range(S):
                total = new[row, c, i] if driven else zero
                for s in range(S):
                    if by_s[s, c]:
                        total += y[row, s, i] * update_s[t, b, s, c, i]
                new[row, c, i] = total
        cuda.syncthreads()
        if P2 > 0:
            multiply(room, dq, n, room, z2, P2 * n, W2, w20, n, count, P2 * n, n)
            cuda.syncthreads()
            for item in range(cuda.threadIdx.x, count * n, cuda.blockDim.x):
                r, i = item // n, item % n
                row = first + r
                b, received = sample[row], room[dq + item]
                for p in range(P):
                    if in_a[p]:
                        more = received * inner_a[t, b, p, i]
                        if p < G:
                            room[z + (r * G + p) * n + i] += more
                        if driven:
                            dz[row, p, i] += more
                for c in range(S):
                    if in_s[c]:
                        new[row, c, i] += received * inner_s[t, b, c, i]
            cuda.syncthreads()
        multiply(room, dq, n, room, z, G * n, W, w0, n, count, G * n, n)
        cuda.syncthreads()
        for item in range(cuda.threadIdx.x, count * n, cuda.blockDim.x):
            r, i = item // n, item % n
            row = first + r
            received = room[dq + item]
            if emits_state:
                new[row, 0, i] += received
            else:
                b = sample[row]
                for c in range(S):
                    if by_e[c]:
                        new[row, c, i] += received * emit_s[t, b, c, i]

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
    kernel = make(out.dtype, level, driven)
    cut = [pieces.changed(out, 1) if driven else pieces.written(out, 1), pieces.written(exponents, 1)]
    cut += [pieces.read(array, 0) for array in (y, exponent, sample)]
    cut += [pieces.changed(array, 1) if driven else pieces.whole(array) for array in (dz, dz2)]
    cut += [pieces.whole(partial[t_from - steps : t_from]) for partial in factors]
    cut += [pieces.whole(array) for array in (W.ravel(), W2.ravel(), *masks)]
    spare = block.spare(level, row * out.dtype.itemsize)
    if steps > 1 and not pieces.fitting(R, cut, spare):  # not even one row: the later half of the steps first
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
        blocks, rows = pieces.blocks_and_rows(stop - start, fits)
        scratch, shared = block.scratch(level, blocks, rows * row, W.size + W2.size, out.dtype)
        kernel(blocks, _cuda.threads(rows * n), shared, *arrays, scratch, rows, steps - 1, G, P2, emits_state)

    pieces.run(piece, R, cut, "one row of a chain of Jacobians", spare)
