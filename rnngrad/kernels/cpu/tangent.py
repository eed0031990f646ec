"""Products of Jacobians from the right: many tangent columns carried forward through time at once.

A tangent goes v_t = J_t v_{t-1} + (what a change of the pre-activations adds). Columns are stored as rows (S, n) and
carry an exponent each, as in ``chain``. Nothing here depends on the cell.
"""

import numpy as np

from ..._gemm import add_packed_product, pack
from ..._jit import inner, kernel
from .chain import ROWS
from .scaling import rescale


@inner
def _gather(out, v, partial, sample, b0):
    """out[r, n] = sum_s v[r, s, n] partial[b, s, n]."""
    rows, S, n = v.shape
    for r in range(rows):
        b = sample[b0 + r]
        for s in range(S):
            if s == 0:
                for i in range(n):
                    out[r, i] = v[r, s, i] * partial[b, s, i]
            else:
                for i in range(n):
                    out[r, i] += v[r, s, i] * partial[b, s, i]


@inner
def _add_columns(out, v, partial, mask, sample, b0):
    """out[r, s, n] += sum_p partial[b, s, p, n] v[r, p, n] over the structural non-zeros."""
    rows, P, n = v.shape
    for r in range(rows):
        b = sample[b0 + r]
        for s in range(out.shape[1]):
            for p in range(P):
                if mask[s, p]:
                    for i in range(n):
                        out[r, s, i] += partial[b, s, p, i] * v[r, p, i]


@inner
def tangent_step(v, new, e, z, z2, q, b0, sample, us, ua, ua2, qs, qa, es, W, W2, by_s, by_a, by_a2, G, emits_state):
    """new[r] = J v[r] + partials times the changes that z, z2 hold on entry (zero where there are none)."""
    rows, S, n = v.shape
    P, P2 = z.shape[1], z2.shape[1]
    if emits_state:
        add_packed_product(rows, n, v, S * n, 1, W, G * n, z, P * n)
    else:
        _gather(e, v, es, sample, b0)
        add_packed_product(rows, n, e, n, 1, W, G * n, z, P * n)
    if P2 > 0:
        _gather(q, v, qs, sample, b0)
        for r in range(rows):
            b = sample[b0 + r]
            for p in range(P):
                for i in range(n):
                    q[r, i] += z[r, p, i] * qa[b, p, i]
        add_packed_product(rows, n, q, n, 1, W2, P2 * n, z2, P2 * n)
    for r in range(rows):
        for s in range(S):
            for i in range(n):
                new[r, s, i] = 0
    _add_columns(new, v, us, by_s, sample, b0)
    _add_columns(new, z, ua, by_a, sample, b0)
    _add_columns(new, z2, ua2, by_a2, sample, b0)


@kernel("tangent_chain", tasks=lambda out, *rest: -(-out.shape[1] // ROWS))
def _tangent_chain(
    start, stop, out, exponents, v, exponent, sample, t_from, dz, dz2, us, ua, ua2, qs, qa, es, W, W2,
    by_s, by_a, by_a2, G, emits_state,
):  # fmt: skip
    steps, R, S, n = out.shape
    P, P2 = ua.shape[3], ua2.shape[3]
    driven = dz.shape[0] > 0
    z = np.empty((ROWS, P, n), v.dtype)
    z2 = np.empty((ROWS, P2, n), v.dtype)
    e = np.empty((ROWS, n), v.dtype)
    q = np.empty((ROWS, n), v.dtype)
    count = np.empty(ROWS, np.int64)
    for task in range(start, stop):
        r0 = task * ROWS
        r1 = min(R, r0 + ROWS)
        rows = r1 - r0
        current = v[r0:r1]
        count[:rows] = exponent[r0:r1]
        for d in range(steps):
            t = t_from + d
            if driven:
                z[:rows] = dz[d, r0:r1]
                z2[:rows] = dz2[d, r0:r1]
            else:
                z[:rows] = 0
                z2[:rows] = 0
            new = out[d, r0:r1]
            tangent_step(
                current, new, e[:rows], z[:rows], z2[:rows], q[:rows], r0, sample, us[t], ua[t], ua2[t], qs[t],
                qa[t], es[t], W, W2, by_s, by_a, by_a2, G, emits_state,
            )  # fmt: skip
            for r in range(rows):
                if not driven:
                    count[r] += rescale(new, r * S * n, S * n)
                exponents[d, r0 + r] = count[r]
            current = new


def tangent_chain(out, exponents, v, exponent, sample, t_from, dz, dz2, factors, W, W2, masks, emits_state):
    """Carry v[R, S, n] (with exponent[R]) from state t_from on; out[d], exponents[d] hold it d + 1 steps later.

    dz[D, R, P, n], dz2[D, R, P2, n] are changes of the pre-activations at each step, or have D = 0: none. With
    changes given, no exponent is taken out (the caller adds quantities of one scale).
    """
    _tangent_chain(
        out, exponents, v, exponent, sample, t_from, dz, dz2, *factors, pack(W, transposed=True),
        pack(W2, transposed=True), *masks, len(W), emits_state,
    )  # fmt: skip
