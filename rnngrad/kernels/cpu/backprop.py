"""Backpropagation through time: adjoints of every state and pre-activation."""

import functools

import numpy as np

from ..._gemm import add_packed_product, pack, packed_product
from ..._jit import MULTIPLY_ADDS, inner, kernel
from ..tuples import PUT, TAKE, copy_rows


@functools.cache
def backprop(cell, phi):
    """Kernel ``launch(gs, da, da2, gh, states, a, a2, W, W2, lengths, consts, tile)``.

    gh[t] is the loss's own derivative with respect to h_{t+1}, and gs[T] on entry what reaches s_T from beyond the end
    (0 where nothing does); on return gs[t] = dL/ds_t (total) and
    da[t], da2[t] = dL/da at step t + 1, from which every parameter gradient is one product over (t, b).
    """
    unit = cell.module
    S, P, P2, G = cell.n_states, len(cell.gates), len(cell.gates2), cell.recurrent
    take_s, take_a, take_a2, take_k = TAKE[S], TAKE[P], TAKE[P2], TAKE[len(cell.constants)]
    put_s, put_a, put_a2 = PUT[S], PUT[P], PUT[P2]
    update_vjp = unit.update_vjp
    emits_state, two_stage, outputs_state = cell.emits_state, cell.two_stage, cell.outputs_state
    emit_vjp = None if emits_state else unit.emit_vjp
    inner_vjp = unit.inner_vjp if two_stage else None
    output_vjp = None if outputs_state else unit.output_vjp

    @inner(cell.name, phi, cached=cell.built_in)
    def add_output(gs, gh, s, k):
        # gs[b, S, n] += dh/ds^T gh
        for b in range(gh.shape[0]):
            kb = k[min(b, k.shape[0] - 1)]
            for i in range(gh.shape[1]):
                if outputs_state:
                    gs[b, 0, i] += gh[b, i]
                else:
                    d = output_vjp(phi, take_s(s[b], i), take_k(kb, i), gh[b, i])
                    for r in range(S):
                        gs[b, r, i] += d[r]

    @inner(cell.name, phi, cached=cell.built_in)
    def update_rows(g_new, da, da2, g, s, a, a2, k, t, lengths):
        # through update: g[b, S, n] -> g_new (by way of ds'/ds), da[b, P, n], da2[b, P2, n]
        n = s.shape[2]
        row = np.empty((S + P + P2, n), s.dtype)  # no aliases in the loop below, hence vectorised
        for b in range(s.shape[0]):
            if t >= lengths[b]:
                copy_rows(g_new[b], g[b], 0)
                da[b] = 0
                da2[b] = 0
                continue
            kb = k[min(b, k.shape[0] - 1)]
            sb, ab, a2b, gb = s[b], a[b], a2[b], g[b]
            for i in range(n):
                d = update_vjp(phi, take_s(sb, i), take_a(ab, i), take_a2(a2b, i), take_k(kb, i), take_s(gb, i))
                put_s(row, 0, i, d[0])
                put_a(row, S, i, d[1])
                put_a2(row, S + P, i, d[2])
            copy_rows(g_new[b], row, 0)
            copy_rows(da[b], row, S)
            copy_rows(da2[b], row, S + P)

    @inner(cell.name, phi, cached=cell.built_in)
    def inner_rows(g_new, da, dq, s, a, k):
        for b in range(dq.shape[0]):
            kb = k[min(b, k.shape[0] - 1)]
            for i in range(dq.shape[1]):
                ds, d = inner_vjp(phi, take_s(s[b], i), take_a(a[b], i), take_k(kb, i), dq[b, i])
                for r in range(S):
                    g_new[b, r, i] += ds[r]
                for r in range(P):
                    da[b, r, i] += d[r]

    @inner(cell.name, phi, cached=cell.built_in)
    def emit_rows(g_new, de, s, k):
        for b in range(de.shape[0]):
            kb = k[min(b, k.shape[0] - 1)]
            for i in range(de.shape[1]):
                ds = emit_vjp(phi, take_s(s[b], i), take_k(kb, i), de[b, i])
                for r in range(S):
                    g_new[b, r, i] += ds[r]

    @kernel(
        "backprop",
        cell.name,
        phi,
        cached=cell.built_in,
        tasks=lambda gs, *rest: -(-gs.shape[1] // rest[-1]),
        work=lambda gs, da, *rest: da.size * (3 + da.shape[3] / MULTIPLY_ADDS),
    )
    def run(start, stop, gs, da, da2, gh, states, a, a2, W, W2, lengths, consts, tile):
        T, B, _, n = a.shape
        for block in range(start, stop):
            b0 = block * tile
            b1 = min(B, b0 + tile)
            rows = b1 - b0
            buffer = np.empty((rows, n), a.dtype)
            kb0, kb1 = min(b0, consts.shape[1] - 1), min(b1, consts.shape[1])
            for t in range(T - 1, -1, -1):
                k = consts[min(t, consts.shape[0] - 1), kb0:kb1]
                s, g_new = states[t, b0:b1], gs[t, b0:b1]
                da_t, da2_t = da[t, b0:b1], da2[t, b0:b1]
                add_output(gs[t + 1, b0:b1], gh[t, b0:b1], states[t + 1, b0:b1], k)
                update_rows(g_new, da_t, da2_t, gs[t + 1, b0:b1], s, a[t, b0:b1], a2[t, b0:b1], k, t, lengths[b0:b1])
                if two_stage:
                    packed_product(rows, P2 * n, da2_t, P2 * n, 1, W2, n, buffer, n)
                    inner_rows(g_new, da_t, buffer, s, a[t, b0:b1], k)
                if emits_state:
                    add_packed_product(rows, G * n, da_t, P * n, 1, W, n, g_new, S * n)
                else:
                    packed_product(rows, G * n, da_t, P * n, 1, W, n, buffer, n)
                    emit_rows(g_new, buffer, s, k)

    def launch(gs, da, da2, gh, states, a, a2, W, W2, lengths, consts, tile):
        run(gs, da, da2, gh, states, a, a2, pack(W), pack(W2), lengths, consts, tile)

    return launch
