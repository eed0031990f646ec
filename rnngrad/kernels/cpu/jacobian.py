"""Local Jacobians ds_t/ds_{t-1}: as pointwise partial derivatives around W, and dense.

The factored form is six arrays of partials, one value per unit and entry (``*`` are the trailing unit axis n):

    update_s[T, B, S, S, *]   update_a[T, B, S, P, *]   update_a2[T, B, S, P2, *]
    inner_s[T, B, S, *]       inner_a[T, B, P, *]       emit_s[T, B, S, *]

J = update_s + update_a W emit_s + update_a2 W2 [inner_s + inner_a W emit_s], each partial a diagonal matrix.
"""

import functools

import numpy as np

from ..._gemm import fill_panels, packed_product, panel_width
from ..._jit import inner, kernel
from ..tuples import PUT, TAKE, copy_rows

_UNITS = 512  # of several samples in one row: a loop over few units has more to do with itself than with them


@functools.cache
def factors(cell, phi):
    """Kernel ``run(update_s, update_a, update_a2, inner_s, inner_a, emit_s, states, a, a2, lengths, consts)``."""
    unit = cell.module
    S, P, P2 = cell.n_states, len(cell.gates), len(cell.gates2)
    take_s, take_a, take_a2, take_k = TAKE[S], TAKE[P], TAKE[P2], TAKE[len(cell.constants)]
    put_s, put_a, put_a2 = PUT[S], PUT[P], PUT[P2]
    update_vjp = unit.update_vjp
    emits_state, two_stage = cell.emits_state, cell.two_stage
    emit_vjp = None if emits_state else unit.emit_vjp
    inner_vjp = unit.inner_vjp if two_stage else None

    @inner(cell.name, phi, cached=cell.built_in)
    def rows(update_s, update_a, update_a2, inner_s, inner_a, emit_s, s, a, a2, k, t, lengths, buffer, unit_g):
        B, n = a.shape[0], a.shape[2]
        one, zero = s.dtype.type(1), s.dtype.type(0)
        for b in range(B):
            if t >= lengths[b]:  # a padded step copies the state
                update_s[b] = zero
                for r in range(S):
                    update_s[b, r, r] = one
                update_a[b] = zero
                update_a2[b] = zero
                inner_s[b] = zero
                inner_a[b] = zero
                emit_s[b] = zero
                continue
            sb, ab, a2b, kb = s[b], a[b], a2[b], k[min(b, k.shape[0] - 1)]
            for r in range(S):
                for c in range(S):
                    for i in range(n):
                        unit_g[c, i] = one if c == r else zero
                for i in range(n):
                    d = update_vjp(phi, take_s(sb, i), take_a(ab, i), take_a2(a2b, i), take_k(kb, i), take_s(unit_g, i))
                    put_s(buffer, 0, i, d[0])
                    put_a(buffer, S, i, d[1])
                    put_a2(buffer, S + P, i, d[2])
                copy_rows(update_s[b, r], buffer, 0)
                copy_rows(update_a[b, r], buffer, S)
                copy_rows(update_a2[b, r], buffer, S + P)
            if two_stage:
                for i in range(n):
                    ds, da = inner_vjp(phi, take_s(sb, i), take_a(ab, i), take_k(kb, i), one)
                    put_s(buffer, 0, i, ds)
                    put_a(buffer, S, i, da)
                copy_rows(inner_s[b], buffer, 0)
                copy_rows(inner_a[b], buffer, S)
            if emits_state:
                for c in range(S):
                    for i in range(n):
                        emit_s[b, c, i] = zero if c else one
            else:
                for i in range(n):
                    put_s(buffer, 0, i, emit_vjp(phi, take_s(sb, i), take_k(kb, i), one))
                copy_rows(emit_s[b], buffer, 0)

    @kernel(
        "factors",
        cell.name,
        phi,
        cached=cell.built_in,
        tasks=lambda update_s, *rest: len(update_s),
        work=lambda update_s, update_a, *rest: 3 * update_a.size,
    )
    def run(start, stop, update_s, update_a, update_a2, inner_s, inner_a, emit_s, states, a, a2, lengths, consts):
        n = a.shape[3]
        buffer = np.empty((S + P + P2, n), a.dtype)  # of no other array: the loops that fill it vectorise
        unit_g = np.empty((S, n), a.dtype)
        for t in range(start, stop):
            rows(
                update_s[t], update_a[t], update_a2[t], inner_s[t], inner_a[t], emit_s[t], states[t], a[t], a2[t],
                consts[min(t, consts.shape[0] - 1)], t, lengths, buffer, unit_g,
            )  # fmt: skip

    def launch(update_s, update_a, update_a2, inner_s, inner_a, emit_s, states, a, a2, lengths, consts):
        arrays = update_s, update_a, update_a2, inner_s, inner_a, emit_s, states, a, a2
        T, B, _, n = a.shape
        if cell.unit_wise and lengths.min() >= T:
            together = max((g for g in range(2, min(B, _UNITS // n) + 1) if B % g == 0), default=1)
            arrays = [x.reshape(len(x), B // together, *x.shape[2:-1], together * n) for x in arrays]
            lengths = lengths[: B // together]
        run(*arrays, lengths, consts)

    return launch


@inner()
def dense_rows(Jb, us, ua, ua2, qs, qa, es, W, W2, panels):
    """Jb[S*n, S*n] from the factored form of one sample; ``panels`` is scratch for a product of S*n columns."""
    S, _, n = ua.shape
    G, P2 = W.shape[0], W2.shape[0]
    Jb[:] = 0
    for r in range(S):
        for c in range(S):
            for i in range(n):
                row = Jb[r * n + i, c * n :]
                row[i] += us[r, c, i]
                for g in range(G):
                    factor = ua[r, g, i]
                    if factor != 0:
                        for j in range(n):
                            row[j] += factor * W[g, i, j] * es[c, j]
    if P2 > 0:
        K = np.zeros((n, S * n), Jb.dtype)  # dq/ds
        for c in range(S):
            for i in range(n):
                row = K[i, c * n :]
                row[i] += qs[c, i]
                for g in range(G):
                    factor = qa[g, i]
                    if factor != 0:
                        for j in range(n):
                            row[j] += factor * W[g, i, j] * es[c, j]
        product = np.empty((P2 * n, S * n), Jb.dtype)
        fill_panels(panels, 0, panels.shape[0], K, False)
        packed_product(P2 * n, n, W2, n, 1, panels, S * n, product, S * n)
        for r in range(S):
            for g in range(P2):
                for i in range(n):
                    factor = ua2[r, g, i]
                    if factor != 0:
                        row = Jb[r * n + i]
                        for j in range(S * n):
                            row[j] += factor * product[g * n + i, j]


@kernel("dense", tasks=lambda J, *rest: J.shape[0] * J.shape[1])
def dense(start, stop, J, update_s, update_a, update_a2, inner_s, inner_a, emit_s, W, W2):
    """J[T, B, S*n, S*n] from the factored form; independent of the cell."""
    _, B, S, _, n = update_a.shape
    width = panel_width(S * n, J.itemsize)
    panels = np.empty(((S * n + width - 1) // width, n, width), J.dtype)
    for tb in range(start, stop):
        t, b = tb // B, tb % B
        dense_rows(
            J[t, b], update_s[t, b], update_a[t, b], update_a2[t, b], inner_s[t, b], inner_a[t, b], emit_s[t, b], W, W2,
            panels,
        )  # fmt: skip
