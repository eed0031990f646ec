"""Newton directions (I - J)^-1 r of many samples: each matrix is made, eliminated and forgotten in the cache."""

import numpy as np

from ..._gemm import panel_width
from ..._jit import MULTIPLY_ADDS, inner, kernel
from .jacobian import dense_rows


@inner()
def _eliminate(A, x, row):
    """x <- A^-1 x by elimination with partial pivoting; A is used up. False where a pivot is rounding only."""
    N = x.size
    eps = 1.1920929e-07 if A.itemsize == 4 else 2.220446049250313e-16
    largest = 0.0
    for i in range(N):
        for j in range(N):
            largest = max(largest, abs(A[i, j]))
    if not np.isfinite(largest):
        return False
    for k in range(N):
        p = k
        for i in range(k + 1, N):
            if abs(A[i, k]) > abs(A[p, k]):
                p = i
        if not abs(A[p, k]) > N * eps * largest:
            return False
        for j in range(k, N):
            row[j] = A[p, j]  # of no other array: the loop that takes it out of the others vectorises
        if p != k:
            for j in range(k, N):
                A[p, j] = A[k, j]
                A[k, j] = row[j]
            x[p], x[k] = x[k], x[p]
        inverse = 1 / row[k]
        for i in range(k + 1, N):
            factor = A[i, k] * inverse
            if factor != 0:
                below = A[i]
                for j in range(k + 1, N):
                    below[j] -= factor * row[j]
                x[i] -= factor * x[k]
    for k in range(N - 1, -1, -1):
        value = x[k]
        for j in range(k + 1, N):
            value -= A[k, j] * x[j]
        x[k] = value / A[k, k]
    return True


@inner()
def _newton(J, x, row):
    """x <- (I - J)^-1 x, J used up."""
    N = x.size
    for i in range(N):
        for j in range(N):
            J[i, j] = -J[i, j]
        J[i, i] += 1
    return _eliminate(J, x, row)


@kernel(
    "newton_directions",
    tasks=lambda x, *rest: len(x),
    work=lambda x, *rest: x.size * (x.shape[1] ** 2 / MULTIPLY_ADDS + 20),
)
def newton_directions(start, stop, x, regular, update_s, update_a, update_a2, inner_s, inner_a, emit_s, W, W2):
    """x[b] <- (I - J_b)^-1 x[b], x[B, S n], of factored Jacobians of one step; regular[b] where that could be done."""
    _, B, S, _, n = update_a.shape
    N = S * n
    width = panel_width(N, x.itemsize)
    panels = np.empty(((N + width - 1) // width, n, width), x.dtype)
    J, row = np.empty((N, N), x.dtype), np.empty(N, x.dtype)
    for b in range(start, stop):
        dense_rows(
            J, update_s[0, b], update_a[0, b], update_a2[0, b], inner_s[0, b], inner_a[0, b], emit_s[0, b], W, W2,
            panels,
        )  # fmt: skip
        regular[b] = _newton(J, x[b], row)


@kernel(
    "dense_newton_directions",
    tasks=lambda x, *rest: len(x),
    work=lambda x, *rest: x.size * (x.shape[1] ** 2 / MULTIPLY_ADDS + 20),
)
def dense_newton_directions(start, stop, x, regular, J):
    """The same for dense Jacobians J[1, B, N, N]."""
    row = np.empty(x.shape[1], x.dtype)
    for b in range(start, stop):
        regular[b] = _newton(J[0, b].copy(), x[b], row)
