"""Products of Jacobians from the left: many adjoint rows carried back through time at once.

Row y of a cotangent goes y_{t-1} = y_t J_t. W is shared, so the rows of the whole batch make one product with W per
step; the diagonals are applied on the way. Rows are independent and carry an exponent each, so a row never over- or
underflows: its value is mantissa * 2^exponent. Nothing here depends on the cell.
"""

import numpy as np

from ..._blas import gemm_nn
from ..._jit import inner, kernel
from .scaling import rescale

_ROWS = 64  # rows of one task: enough for a matrix product, few enough for the cache


@inner
def _scale_add(out, row, factor, fresh):
    """out = row * factor, or out += row * factor."""
    if fresh:
        for i in range(out.size):
            out[i] = row[i] * factor[i]
    else:
        for i in range(out.size):
            out[i] += row[i] * factor[i]


@inner
def _contract(out, y, partial, mask):
    """out[p, n] = sum_s y[s, n] partial[s, p, n] over the structural non-zeros; zero where a column has none."""
    for p in range(out.shape[0]):
        fresh = True
        for s in range(y.shape[0]):
            if mask[s, p]:
                _scale_add(out[p], y[s], partial[s, p], fresh)
                fresh = False
        if fresh:
            out[p] = 0


@inner
def adjoint_step(y, new, z, z2, dq, b0, sample, us, ua, ua2, qs, qa, es, W, W2, by_s, by_a, by_a2, emits_state):
    """new[r] = y[r] J of the sample of row r; z, z2, dq are scratch of the same number of rows."""
    rows, S, n = y.shape
    G, P2 = W.shape[0], W2.shape[0]
    for r in range(rows):
        b = sample[b0 + r]
        _contract(z[r], y[r], ua[b][:, :G], by_a)
        _contract(new[r], y[r], us[b], by_s)
        if P2 > 0:
            _contract(z2[r], y[r], ua2[b], by_a2)
    if P2 > 0:
        gemm_nn(rows, n, P2 * n, z2, P2 * n, W2, n, 0.0, dq, n)
        for r in range(rows):
            b = sample[b0 + r]
            for g in range(G):
                _scale_add(z[r, g], dq[r], qa[b, g], False)
            for s in range(S):
                _scale_add(new[r, s], dq[r], qs[b, s], False)
    if emits_state:
        gemm_nn(rows, n, G * n, z, G * n, W, n, 1.0, new, S * n)
    else:
        gemm_nn(rows, n, G * n, z, G * n, W, n, 0.0, dq, n)
        for r in range(rows):
            b = sample[b0 + r]
            for s in range(S):
                _scale_add(new[r, s], dq[r], es[b, s], False)


@kernel("adjoint_chain", tasks=lambda out, *rest: -(-out.shape[1] // _ROWS))
def adjoint_chain(start, stop, out, exponents, y, exponent, sample, t_from, us, ua, ua2, qs, qa, es, W, W2, by_s, by_a, by_a2, emits_state):
    """Carry y[R, S, n] (with exponent[R]) from step t_from back; out[d], exponents[d] hold it d + 1 steps earlier.

    sample[R] is each row's place in the batch axis of the factored Jacobians us ... es.
    """
    R, S, n = y.shape
    G, P2 = W.shape[0], W2.shape[0]
    for task in range(start, stop):
        r0 = task * _ROWS
        r1 = min(R, r0 + _ROWS)
        rows = r1 - r0
        z = np.empty((rows, G, n), y.dtype)
        z2 = np.empty((rows, P2, n), y.dtype)
        dq = np.empty((rows, n), y.dtype)
        current = y[r0:r1].copy()
        count = exponent[r0:r1].copy()
        for d in range(out.shape[0]):
            t = t_from - 1 - d
            new = out[d, r0:r1]
            adjoint_step(
                current, new, z, z2, dq, r0, sample, us[t], ua[t], ua2[t], qs[t], qa[t], es[t], W, W2,
                by_s, by_a, by_a2, emits_state,
            )  # fmt: skip
            for r in range(rows):
                count[r] += rescale(new[r].reshape(S * n))
                exponents[d, r0 + r] = count[r]
            current = new
