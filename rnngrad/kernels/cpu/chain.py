"""Products of Jacobians from the left: many adjoint rows carried back through time at once.

Row y of a cotangent goes y_{t-1} = y_t J_t. W is shared, so the rows of the whole batch make one product with W per
step; the diagonals are applied on the way. Rows are independent and carry an exponent each, so a row never over- or
underflows: its value is mantissa * 2^exponent. Nothing here depends on the cell.
"""

import numpy as np

from ..._gemm import add_packed_product, pack, packed_product
from ..._jit import MULTIPLY_ADDS, inner, kernel
from .scaling import ROWS, rescale


@inner()
def _contract(out, y, partial, mask, sample, more):
    """out[r, p, n] = sum_s y[r, s, n] partial[b, s, p, n] over the structural non-zeros; ``more``: added to out."""
    rows, S, n = y.shape
    for p in range(out.shape[1]):
        fresh = not more
        for s in range(S):
            if mask[s, p]:
                for r in range(rows):
                    b = sample[r]
                    if fresh:
                        for i in range(n):
                            out[r, p, i] = y[r, s, i] * partial[b, s, p, i]
                    else:
                        for i in range(n):
                            out[r, p, i] += y[r, s, i] * partial[b, s, p, i]
                fresh = False
        if fresh:
            for r in range(rows):
                for i in range(n):
                    out[r, p, i] = 0


@inner()
def _spread(out, q, partial, mask, sample):
    """out[r, p, n] += q[r, n] partial[b, p, n] over the structural non-zeros p that out has."""
    rows, n = q.shape
    for r in range(rows):
        b = sample[r]
        for p in range(out.shape[1]):
            if mask[p]:
                for i in range(n):
                    out[r, p, i] += q[r, i] * partial[b, p, i]


@inner()
def adjoint_step(y, new, scratch, sample, t, factors, weights, masks, emits_state, G, driven):
    """new[r] = y[r] J_t of the sample of row r.

    scratch = (z[rows, P, n], z2[rows, P2, n], dq[rows, n]), where the G gates that W acts on will do for P; sample[r]
    is the row's place in the batch axis of the factored Jacobians; weights = (W, W2) packed; masks are the structural
    non-zeros, in the order of ``factors``. ``driven``: what z, z2 and new hold on entry is charged to the
    pre-activations and to the state as well, and z, z2 hold their whole adjoints on return.
    """
    update_s, update_a, update_a2, inner_s, inner_a, emit_s = factors
    by_s, by_a, by_a2, in_s, in_a, by_e = masks
    z, z2, dq = scratch
    W, W2 = weights
    rows, S, n = y.shape
    P, P2 = z.shape[1], z2.shape[1]
    _contract(z, y, update_a[t], by_a, sample, driven)
    if S == 1 and P2 == 0 and emits_state and not by_s[0, 0] and not driven:  # nothing to add to: J = update_a W
        packed_product(rows, G * n, z, P * n, 1, W, n, new, n)
        return
    _contract(new, y, update_s[t], by_s, sample, driven)
    if P2 > 0:
        _contract(z2, y, update_a2[t], by_a2, sample, driven)
        packed_product(rows, P2 * n, z2, P2 * n, 1, W2, n, dq, n)
        _spread(z, dq, inner_a[t], in_a, sample)
        _spread(new, dq, inner_s[t], in_s, sample)
    if emits_state:
        add_packed_product(rows, G * n, z, P * n, 1, W, n, new, S * n)
    else:
        packed_product(rows, G * n, z, P * n, 1, W, n, dq, n)
        _spread(new, dq, emit_s[t], by_e, sample)


@kernel(
    "adjoint_chain",
    tasks=lambda out, *rest: -(-out.shape[1] // ROWS),
    work=lambda out, *rest: out.size * (1 + rest[-2][0] * out.shape[3] / MULTIPLY_ADDS),
)
def _adjoint_chain(
    start, stop, out, exponents, y, exponent, sample, t_from, charges, factors, weights, masks, gates, emits_state
):
    steps, R, S, n = out.shape
    G, P2 = gates
    dz, dz2 = charges
    driven = dz.shape[0] > 0
    z = np.empty((ROWS, G, n), y.dtype)
    z2 = np.empty((ROWS, P2, n), y.dtype)
    dq = np.empty((ROWS, n), y.dtype)
    count = np.empty(ROWS, np.int64)
    for task in range(start, stop):
        r0 = task * ROWS
        r1 = min(R, r0 + ROWS)
        rows = r1 - r0
        current = y[r0:r1]
        count[:rows] = exponent[r0:r1]
        scratch = (z[:rows], z2[:rows], dq[:rows])
        for d in range(steps):
            new = out[steps - 1 - d, r0:r1]
            if driven:
                scratch = (dz[steps - 1 - d, r0:r1], dz2[steps - 1 - d, r0:r1], dq[:rows])
            adjoint_step(
                current, new, scratch, sample[r0:r1], t_from - 1 - d, factors, weights, masks, emits_state, G, driven
            )
            if not driven:
                rescale(new, S * n, count[:rows])
            exponents[steps - 1 - d, r0:r1] = count[:rows]
            current = new


def adjoint_chain(out, exponents, y, exponent, sample, t_from, dz, dz2, factors, W, W2, masks, emits_state):
    """Carry y[R, S, n] (with exponent[R]) from step t_from back; out[-1 - d], exponents[-1 - d] hold it d + 1 earlier.

    So out is in the order of time. sample[R] is each row's place in the batch axis of the factored Jacobians.

    dz[D, R, P, n], dz2[D, R, P2, n] are charges to the pre-activations at each step, and out holds on entry charges to
    the states; or D = 0: none. With charges given, no exponent is taken out, and dz, dz2 hold the adjoints of the
    pre-activations on return.
    """
    weights, gates = (pack(W), pack(W2)), (len(W), len(W2))
    _adjoint_chain(out, exponents, y, exponent, sample, t_from, (dz, dz2), factors, weights, masks, gates, emits_state)
