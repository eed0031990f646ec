"""Backpropagation through time: one block carries the adjoints of a few samples through all steps, in one launch."""

import functools

from ... import _cuda
from ..tuples import PUT, TAKE
from . import block, pieces

cuda = _cuda.load()


@functools.cache
def make(cell, phi, dtype, level):
    """Kernel ``run(gs, last, da, da2, gh, states, a, a2, W, W2, lengths, consts, scratch, rows)``; W, W2 flat."""
    unit = cell.module
    S, P, P2, G = cell.n_states, len(cell.gates), len(cell.gates2), cell.recurrent
    take_s, take_a, take_a2, take_k = TAKE[S], TAKE[P], TAKE[P2], TAKE[len(cell.constants)]
    put_s, put_a, put_a2 = PUT[S], PUT[P], PUT[P2]
    update_vjp = unit.update_vjp
    emits_state, two_stage, outputs_state = cell.emits_state, cell.two_stage, cell.outputs_state
    emit_vjp = None if emits_state else unit.emit_vjp
    inner_vjp = unit.inner_vjp if two_stage else None
    output_vjp = None if outputs_state else unit.output_vjp
    multiply, place = block.product(dtype), block.place(dtype, level)
    zero = dtype.type(0)

    @_cuda.Kernel
    def run(gs, last, da, da2, gh, states, a, a2, W, W2, lengths, consts, scratch, rows):
        # gs, states[T+1, B, S, n]  last[B, S, n]  da, a[T, B, P, n]  da2, a2[T, B, P2, n]  gh[T, B, n]
        steps, B, n = a.shape[0], a.shape[1], a.shape[3]
        first = cuda.blockIdx.x * rows
        count = min(rows, B - first)
        room, z, (weights, first_at, weights2, second_at) = place(
            scratch, rows * (G + P2 + 1) * n, W, G * n * n, W2, P2 * n * n
        )
        z2 = z + rows * G * n
        dq = z2 + rows * P2 * n
        for item in range(cuda.threadIdx.x, count * n, cuda.blockDim.x):
            for s in range(S):
                gs[steps, first + item // n, s, item % n] = last[first + item // n, s, item % n]
        for d in range(steps):
            t = steps - 1 - d
            tk = min(t, consts.shape[0] - 1)
            # a unit of a sample is always the same thread's, so what it wrote it may read
            for item in range(cuda.threadIdx.x, count * n, cuda.blockDim.x):
                r, i = item // n, item % n
                b = first + r
                k = take_k(consts[tk, min(b, consts.shape[1] - 1)], i)
                if outputs_state:
                    gs[t + 1, b, 0, i] += gh[t, b, i]
                else:
                    direct = output_vjp(phi, take_s(states[t + 1, b], i), k, gh[t, b, i])
                    for s in range(S):
                        gs[t + 1, b, s, i] += direct[s]
                g = take_s(gs[t + 1, b], i)
                if t < lengths[b]:
                    ds, dg, dg2 = update_vjp(
                        phi, take_s(states[t, b], i), take_a(a[t, b], i), take_a2(a2[t, b], i), k, g
                    )
                    put_s(gs[t, b], 0, i, ds)
                    put_a(da[t, b], 0, i, dg)
                    put_a2(da2[t, b], 0, i, dg2)
                else:  # padding passes the adjoint on
                    put_s(gs[t, b], 0, i, g)
                    for p in range(P):
                        da[t, b, p, i] = zero
                    for p in range(P2):
                        da2[t, b, p, i] = zero
                for p in range(G):
                    room[z + (r * G + p) * n + i] = da[t, b, p, i]
                for p in range(P2):
                    room[z2 + (r * P2 + p) * n + i] = da2[t, b, p, i]
            cuda.syncthreads()
            if two_stage:
                multiply(room, dq, n, room, z2, P2 * n, weights2, second_at, n, count, P2 * n, n)
                cuda.syncthreads()
                for item in range(cuda.threadIdx.x, count * n, cuda.blockDim.x):
                    r, i = item // n, item % n
                    b = first + r
                    if t < lengths[b]:
                        k = take_k(consts[tk, min(b, consts.shape[1] - 1)], i)
                        s, at = take_s(states[t, b], i), take_a(a[t, b], i)
                        ds, dg = inner_vjp(phi, s, at, k, room[dq + item])
                        for c in range(S):
                            gs[t, b, c, i] += ds[c]
                        for p in range(P):
                            da[t, b, p, i] += dg[p]
                        for p in range(G):
                            room[z + (r * G + p) * n + i] = da[t, b, p, i]
                cuda.syncthreads()
            multiply(room, dq, n, room, z, G * n, weights, first_at, n, count, G * n, n)
            cuda.syncthreads()
            for item in range(cuda.threadIdx.x, count * n, cuda.blockDim.x):
                b, i = first + item // n, item % n
                if t < lengths[b]:
                    if emits_state:
                        gs[t, b, 0, i] += room[dq + item]
                    else:
                        k = take_k(consts[tk, min(b, consts.shape[1] - 1)], i)
                        ds = emit_vjp(phi, take_s(states[t, b], i), k, room[dq + item])
                        for c in range(S):
                            gs[t, b, c, i] += ds[c]

    return run


@functools.cache
def backprop(cell, phi):
    """Kernel ``launch(gs, da, da2, gh, states, a, a2, W, W2, lengths, consts, tile)``, the contract of the CPU's.

    gs[T] holds on entry what reaches s_T from beyond the end; on return gs[t] = dL/ds_t and da[t], da2[t] are the
    adjoints of the pre-activations. No use of tile.
    """

    def launch(gs, da, da2, gh, states, a, a2, W, W2, lengths, consts, tile):
        T, B, _, n = a.shape
        row = (len(W) + len(W2) + 1) * n
        level, fits = block.placement(a.dtype.itemsize, W.size + W2.size, row, _cuda.shared_limit())
        kernel = make(cell, phi, a.dtype, level)
        operands = [
            pieces.written(gs, 1),
            pieces.read(gs[T], 0),
            pieces.written(da, 1),
            pieces.written(da2, 1),
            pieces.read(gh, 1),
            pieces.read(states, 1),
            pieces.read(a, 1),
            pieces.read(a2, 1),
            pieces.whole(W.ravel()),
            pieces.whole(W2.ravel()),
            pieces.read(lengths, 0),
            pieces.read(consts, 1),
        ]
        spare = block.spare(level, row * a.dtype.itemsize)
        if T > 1 and not pieces.fitting(B, operands, spare):  # not even one sample: the later half of the steps first
            half = T // 2
            early, late = pieces.in_time(consts, half)
            launch(
                gs[half:], da[half:], da2[half:], gh[half:], states[half:], a[half:], a2[half:], W, W2, lengths - half,
                late, tile,
            )  # fmt: skip
            launch(
                gs[: half + 1], da[:half], da2[:half], gh[:half], states[: half + 1], a[:half], a2[:half], W, W2,
                lengths, early, tile,
            )  # fmt: skip
            return

        def piece(start, stop, *arrays):
            blocks, rows = pieces.blocks_and_rows(stop - start, fits)
            scratch, shared = block.scratch(level, blocks, rows * row, W.size + W2.size, a.dtype)
            kernel(blocks, _cuda.threads(rows * n), shared, *arrays, scratch, rows)

        pieces.run(piece, B, operands, "backpropagation", spare)

    return launch
