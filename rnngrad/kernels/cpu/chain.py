"""Products of Jacobians from the left: many adjoint rows carried back through time at once.

Row y of a cotangent goes y_{t-1} = y_t J_t. W is shared, so the rows of the whole batch make one product with W per
step; the diagonals are applied on the way. Rows are independent and carry an exponent each, so a row never over- or
underflows: its value is mantissa * 2^exponent. Nothing here depends on the cell.
"""

import numpy as np

from ..._gemm import add_packed_product, pack, packed_product
from ..._jit import inner, kernel
from .scaling import rescale

ROWS = 64  # rows of one task: enough for a matrix product, few enough for the cache


@inner
def _contract(out, y, partial, mask, sample, b0):
    """out[r, p, n] = sum_s y[r, s, n] partial[b, s, p, n] over the structural non-zeros; 0 where a column has none."""
    rows, S, n = y.shape
    for p in range(out.shape[1]):
        fresh = True
        for s in range(S):
            if mask[s, p]:
                for r in range(rows):
                    b = sample[b0 + r]
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


@inner
def _spread(out, q, partial, columns, sample, b0):
    """out[r, p, n] += q[r, n] partial[b, p, n] for the first ``columns`` p."""
    rows, n = q.shape
    for r in range(rows):
        b = sample[b0 + r]
        for p in range(columns):
            for i in range(n):
                out[r, p, i] += q[r, i] * partial[b, p, i]


@inner
def adjoint_step(y, new, z, z2, dq, b0, sample, us, ua, ua2, qs, qa, es, W, W2, by_s, by_a, by_a2, emits_state):
    """new[r] = y[r] J of the sample of row r; z[rows, G, n], z2, dq are scratch."""
    rows, S, n = y.shape
    G, P2 = z.shape[1], z2.shape[1]
    _contract(z, y, ua, by_a, sample, b0)
    if S == 1 and P2 == 0 and emits_state and not by_s[0, 0]:  # nothing to add to: J = update_a W
        packed_product(rows, G * n, z, G * n, 1, W, n, new, n)
        return
    _contract(new, y, us, by_s, sample, b0)
    if P2 > 0:
        _contract(z2, y, ua2, by_a2, sample, b0)
        packed_product(rows, P2 * n, z2, P2 * n, 1, W2, n, dq, n)
        _spread(z, dq, qa, G, sample, b0)
        _spread(new, dq, qs, S, sample, b0)
    if emits_state:
        add_packed_product(rows, G * n, z, G * n, 1, W, n, new, S * n)
    else:
        packed_product(rows, G * n, z, G * n, 1, W, n, dq, n)
        _spread(new, dq, es, S, sample, b0)


@kernel("adjoint_chain", tasks=lambda out, *rest: -(-out.shape[1] // ROWS))
def _adjoint_chain(
    start, stop, out, exponents, y, exponent, sample, t_from, us, ua, ua2, qs, qa, es, W, W2, by_s, by_a, by_a2,
    G, emits_state,
):  # fmt: skip
    steps, R, S, n = out.shape
    P2 = ua2.shape[3]
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
        for d in range(steps):
            t = t_from - 1 - d
            new = out[steps - 1 - d, r0:r1]
            adjoint_step(
                current, new, z[:rows], z2[:rows], dq[:rows], r0, sample, us[t], ua[t], ua2[t], qs[t], qa[t], es[t],
                W, W2, by_s, by_a, by_a2, emits_state,
            )  # fmt: skip
            for r in range(rows):
                count[r] += rescale(new, r * S * n, S * n)
                exponents[steps - 1 - d, r0 + r] = count[r]
            current = new


def adjoint_chain(out, exponents, y, exponent, sample, t_from, factors, W, W2, masks, emits_state):
    """Carry y[R, S, n] (with exponent[R]) from step t_from back; out[-1 - d], exponents[-1 - d] hold it d + 1 earlier.

    So out is in the order of time. sample[R] is each row's place in the batch axis of the factored Jacobians.
    """
    _adjoint_chain(
        out, exponents, y, exponent, sample, t_from, *factors, pack(W), pack(W2), *masks, len(W),
        emits_state,
    )  # fmt: skip
