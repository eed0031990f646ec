"""One step of a cell without its products: the update of every unit, its adjoint, and the slope of its output."""

import functools

from ..._jit import kernel
from ...normalization import output_slope
from ..tuples import PUT, TAKE


@functools.cache
def update(cell, phi):
    """Kernel ``run(new, s, a, consts)``: new[r] = update(s[r], a[r], consts), of a one-stage cell."""
    S, P, K = cell.n_states, len(cell.gates), len(cell.constants)
    take_s, take_a, take_k, put_s = TAKE[S], TAKE[P], TAKE[K], PUT[S]
    unit_update = cell.module.update

    @kernel(
        "update",
        cell.name,
        phi,
        cached=cell.built_in,
        tasks=lambda new, *rest: len(new),
        work=lambda new, *rest: 5 * new.size,
    )
    def run(start, stop, new, s, a, consts):
        # new, s[r, S, n]  a[r, P, n]  consts[K, n]
        for r in range(start, stop):
            for i in range(new.shape[2]):
                put_s(new[r], 0, i, unit_update(phi, take_s(s[r], i), take_a(a[r], i), (), take_k(consts, i)))

    return run


@functools.cache
def update_vjp(cell, phi):
    """Kernel ``run(gs, da, s, a, consts, g, place)``: g[r] through the update at s[p], a[p], p = place[r]."""
    S, P, K = cell.n_states, len(cell.gates), len(cell.constants)
    take_s, take_a, take_k, put_s, put_a = TAKE[S], TAKE[P], TAKE[K], PUT[S], PUT[P]
    unit_vjp = cell.module.update_vjp

    @kernel(
        "update_vjp",
        cell.name,
        phi,
        cached=cell.built_in,
        tasks=lambda gs, *rest: len(gs),
        work=lambda gs, *rest: 9 * gs.size,
    )
    def run(start, stop, gs, da, s, a, consts, g, place):
        for r in range(start, stop):
            p = place[r]
            for i in range(gs.shape[2]):
                d = unit_vjp(phi, take_s(s[p], i), take_a(a[p], i), (), take_k(consts, i), take_s(g[r], i))
                put_s(gs[r], 0, i, d[0])
                put_a(da[r], 0, i, d[1])

    return run


@functools.cache
def gated_slope(phi):
    """Kernel ``run(out, gate, z)``: logistic(gate) phi'(z), the slope of an LSTM's h = o phi(z)."""

    @kernel("gated_slope", phi, tasks=lambda out, *rest: len(out), work=lambda out, *rest: 4 * out.size)
    def run(start, stop, out, gate, z):
        for r in range(start, stop):
            for i in range(out.shape[1]):
                out[r, i] = output_slope(phi, gate[r, i], z[r, i])

    return run
