"""Forward pass of a batch: states and pre-activations at every step."""

import functools

import numpy as np

from ..._gemm import add_packed_product, pack
from ..._jit import MULTIPLY_ADDS, inner, kernel
from ..tuples import PUT, TAKE, copy_rows


@functools.cache
def step(cell, phi):
    """Loop nest ``run(states, a, a2, e, q, weights, k, t, lengths, b0, b1)``: states[t] -> states[t + 1], rows b0 … b1.

    a[t], a2[t] hold U x + b on entry; weights = (W, W2) are packed, k[b, K, n] the constants of these rows.
    """
    unit = cell.module
    S, P, P2, G = cell.n_states, len(cell.gates), len(cell.gates2), cell.recurrent
    take_s, take_a, take_a2, take_k = TAKE[S], TAKE[P], TAKE[P2], TAKE[len(cell.constants)]
    put_s = PUT[S]
    update = unit.update
    emits_state, two_stage = cell.emits_state, cell.two_stage
    emit = None if emits_state else unit.emit
    inner_map = unit.inner if two_stage else None

    @inner(cell.name, phi, cached=cell.built_in)
    def emit_rows(e, s, k):
        # e[b, n]  s[b, S, n]
        for b in range(e.shape[0]):
            kb = k[min(b, k.shape[0] - 1)]
            for i in range(e.shape[1]):
                e[b, i] = emit(phi, take_s(s[b], i), take_k(kb, i))

    @inner(cell.name, phi, cached=cell.built_in)
    def inner_rows(q, s, a, k):
        row = np.empty(q.shape[1], q.dtype)  # a buffer of its own keeps the loop free of aliases, hence vectorised
        for b in range(q.shape[0]):
            kb = k[min(b, k.shape[0] - 1)]
            for i in range(q.shape[1]):
                row[i] = inner_map(phi, take_s(s[b], i), take_a(a[b], i), take_k(kb, i))
            for i in range(row.size):
                q[b, i] = row[i]

    @inner(cell.name, phi, cached=cell.built_in)
    def update_rows(new, s, a, a2, k, t, lengths):
        # new[b, S, n]  s[b, S, n]  a[b, P, n]
        n = s.shape[2]
        row = np.empty((S, n), s.dtype)
        for b in range(s.shape[0]):
            if t >= lengths[b]:
                copy_rows(new[b], s[b], 0)
                continue
            kb = k[min(b, k.shape[0] - 1)]
            sb, ab, a2b = s[b], a[b], a2[b]
            for i in range(n):
                put_s(row, 0, i, update(phi, take_s(sb, i), take_a(ab, i), take_a2(a2b, i), take_k(kb, i)))
            copy_rows(new[b], row, 0)

    @inner(cell.name, phi, forced=True)
    def run(states, a, a2, e, q, weights, k, t, lengths, b0, b1):
        # states[T+1, B, S, n]  a[T, B, P, n]  a2[T, B, P2, n]  e, q[T, B, n] where the cell has them
        W, W2 = weights
        rows, n = b1 - b0, a.shape[3]
        s = states[t, b0:b1]
        if emits_state:
            add_packed_product(rows, n, s, S * n, 1, W, G * n, a[t, b0:b1], P * n)
        else:
            emit_rows(e[t, b0:b1], s, k)
            add_packed_product(rows, n, e[t, b0:b1], n, 1, W, G * n, a[t, b0:b1], P * n)
        if two_stage:
            inner_rows(q[t, b0:b1], s, a[t, b0:b1], k)
            add_packed_product(rows, n, q[t, b0:b1], n, 1, W2, P2 * n, a2[t, b0:b1], P2 * n)
        update_rows(states[t + 1, b0:b1], s, a[t, b0:b1], a2[t, b0:b1], k, t, lengths[b0:b1])

    return run


@functools.cache
def rollout(cell, phi):
    """Kernel ``launch(states, a, a2, e, q, W, W2, lengths, consts, tile)`` of a cell with activation number ``phi``.

    On entry states[0] holds s_0, and a, a2 hold U x + b for every step; on return they are complete.
    """
    one_step = step(cell, phi)

    @kernel(
        "rollout",
        cell.name,
        phi,
        cached=cell.built_in,
        tasks=lambda states, *rest: -(-states.shape[1] // rest[-1]),
        work=lambda states, a, *rest: a.size * (3 + a.shape[3] / MULTIPLY_ADDS),
    )
    def run(start, stop, states, a, a2, e, q, weights, lengths, consts, tile):
        T, B = a.shape[:2]
        for block in range(start, stop):
            b0 = block * tile
            b1 = min(B, b0 + tile)
            for t in range(T):
                tk = min(t, consts.shape[0] - 1)
                k = consts[tk, min(b0, consts.shape[1] - 1) : min(b1, consts.shape[1])]
                one_step(states, a, a2, e, q, weights, k, t, lengths, b0, b1)

    def launch(states, a, a2, e, q, W, W2, lengths, consts, tile):
        weights = pack(W, transposed=True), pack(W2, transposed=True)
        run(states, a, a2, e, q, weights, lengths, consts, tile)

    return launch
