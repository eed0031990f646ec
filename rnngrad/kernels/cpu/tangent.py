"""Products of Jacobians from the right: many tangent columns carried forward through time at once.

A tangent goes v_t = J_t v_{t-1} + (what a change of the pre-activations adds). Columns are stored as rows (S, n) and
carry an exponent each, as in ``chain``. Nothing here depends on the cell.
"""

import numpy as np

from ..._gemm import add_packed_product, pack, packed_product
from ..._jit import MULTIPLY_ADDS, inner, kernel, unit
from .scaling import ROWS, rescale


@inner()
def _gather(out, v, partial, mask, sample):
    """out[r, n] += sum_s v[r, s, n] partial[b, s, n] over the structural non-zeros."""
    rows, S, n = v.shape
    for r in range(rows):
        b = sample[r]
        for s in range(S):
            if mask[s]:
                for i in range(n):
                    out[r, i] += v[r, s, i] * partial[b, s, i]


@inner()
def _clear(out):
    """out[r, n] = 0."""
    for r in range(out.shape[0]):
        for i in range(out.shape[1]):
            out[r, i] = 0


@inner()
def _add_columns(out, v, partial, mask, sample):
    """out[r, s, n] += sum_p partial[b, s, p, n] v[r, p, n] over the structural non-zeros."""
    rows, P, n = v.shape
    for r in range(rows):
        b = sample[r]
        for s in range(out.shape[1]):
            for p in range(P):
                if mask[s, p]:
                    for i in range(n):
                        out[r, s, i] += partial[b, s, p, i] * v[r, p, i]


@inner()
def _scale(out, partial, sample):
    """out[r, 0, n] *= partial[b, 0, 0, n]."""
    for r in range(out.shape[0]):
        b = sample[r]
        for i in range(out.shape[2]):
            out[r, 0, i] *= partial[b, 0, 0, i]


@unit
def is_scaled(S, P, P2, emits_state, keeps):
    """Whether J = D W, one matrix with scaled rows; ``keeps``: a state has a path to itself beside W."""
    return S == 1 and P == 1 and P2 == 0 and emits_state and not keeps


@inner()
def scaled_step(v, new, W, partial, sample):
    """new[r] = D W v[r] with D = diag(partial[b, 0, 0]), W[n, n] packed."""
    rows, _, n = v.shape
    packed_product(rows, n, v, n, 1, W, n, new, n)
    _scale(new, partial, sample)


@inner()
def tangent_step(v, new, scratch, sample, t, factors, weights, masks, emits_state, G, driven):
    """new[r] = J_t v[r], plus, if ``driven``, partials times the changes that z, z2 hold on entry.

    scratch = (z[rows, P, n], z2[rows, P2, n], e[rows, n], q[rows, n]); the rest as for ``adjoint_step``.
    """
    update_s, update_a, update_a2, inner_s, inner_a, emit_s = factors
    by_s, by_a, by_a2, in_s, in_a, by_e = masks
    z, z2, e, q = scratch
    W, W2 = weights
    rows, S, n = v.shape
    P, P2 = z.shape[1], z2.shape[1]
    if not driven:
        if is_scaled(S, P, P2, emits_state, by_s[0, 0]):
            scaled_step(v, new, W, update_a[t], sample)
            return
        for r in range(rows):
            _clear(z[r])
            _clear(z2[r])
    if emits_state:
        add_packed_product(rows, n, v, S * n, 1, W, G * n, z, P * n)
    else:
        _clear(e)
        _gather(e, v, emit_s[t], by_e, sample)
        add_packed_product(rows, n, e, n, 1, W, G * n, z, P * n)
    if P2 > 0:
        _clear(q)
        _gather(q, v, inner_s[t], in_s, sample)
        _gather(q, z, inner_a[t], in_a, sample)
        add_packed_product(rows, n, q, n, 1, W2, P2 * n, z2, P2 * n)
    for r in range(rows):
        _clear(new[r])
    _add_columns(new, v, update_s[t], by_s, sample)
    _add_columns(new, z, update_a[t], by_a, sample)
    _add_columns(new, z2, update_a2[t], by_a2, sample)


@kernel(
    "tangent_chain",
    tasks=lambda out, *rest: -(-out.shape[1] // ROWS),
    work=lambda out, *rest: out.size * (1 + rest[-1] * out.shape[3] / MULTIPLY_ADDS),
)
def _tangent_chain(
    start, stop, out, exponents, v, exponent, sample, t_from, changes, factors, weights, masks, emits_state, gates
):
    steps, R, S, n = out.shape
    P, P2 = factors[1].shape[3], factors[2].shape[3]
    dz, dz2 = changes
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
        scratch = (z[:rows], z2[:rows], e[:rows], q[:rows])
        for d in range(steps):
            if driven:
                scratch = (dz[d, r0:r1], dz2[d, r0:r1], e[:rows], q[:rows])
            new = out[d, r0:r1]
            tangent_step(
                current, new, scratch, sample[r0:r1], t_from + d, factors, weights, masks, emits_state, gates, driven
            )
            if not driven:
                rescale(new, S * n, count[:rows])
            exponents[d, r0:r1] = count[:rows]
            current = new


def tangent_chain(out, exponents, v, exponent, sample, t_from, dz, dz2, factors, W, W2, masks, emits_state):
    """Carry v[R, S, n] (with exponent[R]) from state t_from on; out[d], exponents[d] hold it d + 1 steps later.

    dz[D, R, P, n], dz2[D, R, P2, n] are changes of the pre-activations at each step, or have D = 0: none. With
    changes given, no exponent is taken out (the caller adds quantities of one scale), and dz, dz2 hold the tangents of
    the pre-activations on return.
    """
    weights = pack(W, transposed=True), pack(W2, transposed=True)
    _tangent_chain(out, exponents, v, exponent, sample, t_from, (dz, dz2), factors, weights, masks, emits_state, len(W))
