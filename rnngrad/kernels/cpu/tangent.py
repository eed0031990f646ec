"""Products of Jacobians from the right: many tangent columns carried forward through time at once.

A tangent goes v_t = J_t v_{t-1} + (what a change of the pre-activations adds). Columns are stored as rows (S, n) and
carry an exponent each, as in ``chain``. Nothing here depends on the cell.
"""

import numpy as np

from ..._blas import gemm_nt
from ..._jit import inner, kernel
from .scaling import rescale

_ROWS = 64


@inner
def _add_product(out, row, factor):
    for i in range(out.size):
        out[i] += row[i] * factor[i]


@inner
def tangent_step(v, new, e, z, z2, q, b0, sample, us, ua, ua2, qs, qa, es, W, W2, by_s, by_a, by_a2, emits_state):
    """new[r] = J v[r] + partials times the changes that z, z2 hold on entry (zero where there are none)."""
    rows, S, n = v.shape
    G, P, P2 = W.shape[0], ua.shape[2], W2.shape[0]
    if emits_state:
        gemm_nt(rows, G * n, n, v, S * n, W, n, 1.0, z, P * n)
    else:
        e[:] = 0
        for r in range(rows):
            for s in range(S):
                _add_product(e[r], v[r, s], es[sample[b0 + r], s])
        gemm_nt(rows, G * n, n, e, n, W, n, 1.0, z, P * n)
    if P2 > 0:
        q[:] = 0
        for r in range(rows):
            b = sample[b0 + r]
            for s in range(S):
                _add_product(q[r], v[r, s], qs[b, s])
            for p in range(P):
                _add_product(q[r], z[r, p], qa[b, p])
        gemm_nt(rows, P2 * n, n, q, n, W2, n, 1.0, z2, P2 * n)
    new[:] = 0
    for r in range(rows):
        b = sample[b0 + r]
        for s in range(S):
            for c in range(S):
                if by_s[s, c]:
                    _add_product(new[r, s], v[r, c], us[b, s, c])
            for p in range(P):
                if by_a[s, p]:
                    _add_product(new[r, s], z[r, p], ua[b, s, p])
            for p in range(P2):
                if by_a2[s, p]:
                    _add_product(new[r, s], z2[r, p], ua2[b, s, p])


@kernel("tangent_chain", tasks=lambda out, *rest: -(-out.shape[1] // _ROWS))
def tangent_chain(start, stop, out, exponents, v, exponent, sample, t_from, dz, dz2, us, ua, ua2, qs, qa, es, W, W2, by_s, by_a, by_a2, emits_state):
    """Carry v[R, S, n] (with exponent[R]) from state t_from on; out[d], exponents[d] hold it d + 1 steps later.

    dz[D, R, P, n], dz2[D, R, P2, n] are changes of the pre-activations at each step, or have D = 0: none. With
    changes given, no exponent is taken out (the caller adds quantities of one scale).
    """
    R, S, n = v.shape
    G, P, P2 = W.shape[0], ua.shape[3], W2.shape[0]
    driven = dz.shape[0] > 0
    for task in range(start, stop):
        r0 = task * _ROWS
        r1 = min(R, r0 + _ROWS)
        rows = r1 - r0
        z = np.empty((rows, P, n), v.dtype)
        z2 = np.empty((rows, P2, n), v.dtype)
        e = np.empty((rows, n), v.dtype)
        q = np.empty((rows, n), v.dtype)
        current = v[r0:r1].copy()
        count = exponent[r0:r1].copy()
        for d in range(out.shape[0]):
            t = t_from + d
            if driven:
                z[:] = dz[d, r0:r1]
                z2[:] = dz2[d, r0:r1]
            else:
                z[:] = 0
                z2[:] = 0
            new = out[d, r0:r1]
            tangent_step(
                current, new, e, z, z2, q, r0, sample, us[t], ua[t], ua2[t], qs[t], qa[t], es[t], W, W2,
                by_s, by_a, by_a2, emits_state,
            )  # fmt: skip
            for r in range(rows):
                if not driven:
                    count[r] += rescale(new[r].reshape(S * n))
                exponents[d, r0 + r] = count[r]
            current = new
