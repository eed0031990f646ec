"""Rows through the diagonals of pointwise partials, without a product between them."""

import numpy as np

from ..._jit import kernel


@kernel("through_diagonals", tasks=lambda out, *rest: out.shape[0] * out.shape[1])
def _through(start, stop, out, y, partial, more):
    # out[T, R, P, n]  y[T, R, S, n]  partial[T, B, S, P, n]
    _, R, P, n = out.shape
    B, S = partial.shape[1], partial.shape[2]
    total = np.empty(n, out.dtype)  # of no other array, hence vectorised
    for task in range(start, stop):
        t, r = task // R, task % R
        b = r % B
        for p in range(P):
            for i in range(n):
                total[i] = out[t, r, p, i] if more else 0
            for s in range(S):
                for i in range(n):
                    total[i] += y[t, r, s, i] * partial[t, b, s, p, i]
            for i in range(n):
                out[t, r, p, i] = total[i]


def through_diagonals(out, y, partial, more=False):
    """out[T, R, P, n] = sum_s y[T, R, S, n] partial[T, B, S, P, n], unit by unit, or added to it; row r is of r % B."""
    _through(out, y, partial, bool(more))
