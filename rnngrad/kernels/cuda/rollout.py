"""Forward pass of a batch: one block carries a few samples through all steps, in one launch.

The weights lie in shared memory where they fit, else they come from the cache; the result is the same to the last bit.
"""

import functools

from ... import _cuda
from ..tuples import PUT, TAKE
from . import block, pieces

cuda = _cuda.load()


@functools.cache
def step(cell, phi, dtype):
    """Device function: states[t + 1] from states[t] for ``count`` samples from ``first`` on, with what it makes.

    a[t], a2[t] hold U x + b on entry. room[sent : …] holds, for the block's ``rows``, what is sent[rows, n] and
    z[rows, max(G, P2), n]; the weights are transposed. A unit of a sample is always the same thread's, so what it wrote
    it may read.
    """
    unit = cell.module
    S, P, P2, G = cell.n_states, len(cell.gates), len(cell.gates2), cell.recurrent
    take_s, take_a, take_a2, take_k = TAKE[S], TAKE[P], TAKE[P2], TAKE[len(cell.constants)]
    put_s = PUT[S]
    update = unit.update
    emits_state, two_stage = cell.emits_state, cell.two_stage
    emit = None if emits_state else unit.emit
    inner_map = unit.inner if two_stage else None
    multiply = block.product(dtype)

    @_cuda.function
    def one_step(states, a, a2, e, q, t, weights, lengths, consts, first, count, rows, room, sent):
        # states[T+1, B, S, n]  a[T, B, P, n]  a2[T, B, P2, n]  e, q[T, B, n] where the cell has them
        W, w0, W2, w20 = weights
        n = states.shape[3]
        z = sent + rows * n
        tk = min(t, consts.shape[0] - 1)
        for item in range(cuda.threadIdx.x, count * n, cuda.blockDim.x):
            b, i = first + item // n, item % n
            if emits_state:
                room[sent + item] = states[t, b, 0, i]
            else:
                k = consts[tk, min(b, consts.shape[1] - 1)]
                value = emit(phi, take_s(states[t, b], i), take_k(k, i))
                room[sent + item] = value
                e[t, b, i] = value
        cuda.syncthreads()
        multiply(room, z, G * n, room, sent, n, W, w0, G * n, count, n, G * n)
        cuda.syncthreads()
        for item in range(cuda.threadIdx.x, count * n, cuda.blockDim.x):
            r, i = item // n, item % n
            b = first + r
            for g in range(G):
                a[t, b, g, i] += room[z + (r * G + g) * n + i]
            if two_stage:
                k = consts[tk, min(b, consts.shape[1] - 1)]
                value = inner_map(phi, take_s(states[t, b], i), take_a(a[t, b], i), take_k(k, i))
                room[sent + item] = value
                q[t, b, i] = value
        if two_stage:
            cuda.syncthreads()
            multiply(room, z, P2 * n, room, sent, n, W2, w20, P2 * n, count, n, P2 * n)
            cuda.syncthreads()
        for item in range(cuda.threadIdx.x, count * n, cuda.blockDim.x):
            r, i = item // n, item % n
            b = first + r
            for g in range(P2):
                a2[t, b, g, i] += room[z + (r * P2 + g) * n + i]
            s = take_s(states[t, b], i)
            if t < lengths[b]:
                k = take_k(consts[tk, min(b, consts.shape[1] - 1)], i)
                put_s(states[t + 1, b], 0, i, update(phi, s, take_a(a[t, b], i), take_a2(a2[t, b], i), k))
            else:  # padding copies the state
                put_s(states[t + 1, b], 0, i, s)

    return one_step


def room(G, P2, n):
    """Numbers of scratch of a step for one sample."""
    return (1 + max(G, P2)) * n


@functools.cache
def make(cell, phi, dtype, level):
    """Kernel ``run(states, s0, a, a2, e, q, W, W2, lengths, consts, scratch, rows)``; W, W2 transposed and flat."""
    S, P2, G = cell.n_states, len(cell.gates2), cell.recurrent
    one_step, place = step(cell, phi, dtype), block.place(dtype, level)
    wide = max(G, P2)

    @_cuda.Kernel
    def run(states, s0, a, a2, e, q, W, W2, lengths, consts, scratch, rows):
        steps, B, n = a.shape[0], states.shape[1], states.shape[3]
        first = cuda.blockIdx.x * rows
        count = min(rows, B - first)
        room, sent, weights = place(scratch, rows * (1 + wide) * n, W, G * n * n, W2, P2 * n * n)
        for item in range(cuda.threadIdx.x, count * n, cuda.blockDim.x):
            for s in range(S):
                states[0, first + item // n, s, item % n] = s0[first + item // n, s, item % n]
        for t in range(steps):
            one_step(states, a, a2, e, q, t, weights, lengths, consts, first, count, rows, room, sent)

    return run


@functools.cache
def rollout(cell, phi):
    """Kernel ``launch(states, a, a2, e, q, W, W2, lengths, consts, tile)``, the contract of the CPU's; no use of tile.

    On entry states[0] holds s_0, and a, a2 hold U x + b for every step; on return they are complete.
    """

    def launch(states, a, a2, e, q, W, W2, lengths, consts, tile):
        T, B, _, n = a.shape
        row = room(len(W), len(W2), n)
        level, fits = block.placement(a.dtype.itemsize, W.size + W2.size, row, _cuda.shared_limit())
        kernel = make(cell, phi, a.dtype, level)
        operands = [
            pieces.written(states, 1),
            pieces.read(states[0], 0),
            pieces.changed(a, 1),
            pieces.changed(a2, 1),
            pieces.written(e, 1),
            pieces.written(q, 1),
            pieces.whole(pieces.transposed(W).ravel()),
            pieces.whole(pieces.transposed(W2).ravel()),
            pieces.read(lengths, 0),
            pieces.read(consts, 1),
        ]
        spare = block.spare(level, row * a.dtype.itemsize)
        if T > 1 and not pieces.fitting(B, operands, spare):  # not even one sample: half of the steps, then the others
            half = T // 2
            early, late = pieces.in_time(consts, half)
            launch(states[: half + 1], a[:half], a2[:half], e[:half], q[:half], W, W2, lengths, early, tile)
            launch(states[half:], a[half:], a2[half:], e[half:], q[half:], W, W2, lengths - half, late, tile)
            return

        def piece(start, stop, *arrays):
            blocks, rows = pieces.blocks_and_rows(stop - start, fits)
            scratch, shared = block.scratch(level, blocks, rows * row, W.size + W2.size, a.dtype)
            kernel(blocks, _cuda.threads(rows * n), shared, *arrays, scratch, rows)

        pieces.run(piece, B, operands, "a rollout", spare)

    return launch
