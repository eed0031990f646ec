"""Newton directions (I - J)^-1 r of many samples: each matrix is made, eliminated and forgotten in the cache."""

import numpy as np

from ..._compiler import VECTOR_BYTES
from ..._gemm import add_packed_product, panel_width
from ..._jit import MULTIPLY_ADDS, inner, kernel
from .jacobian import dense_rows
from .rowwise import subtract_outer
from .sums import dot

_BLOCK = 8  # columns eliminated at once; the rest of the matrix follows by one product


@inner(forced=True)
def _room(N, like):
    """Scratch of ``_eliminate``: the matrix with its right-hand side, a block of columns, and of rows in panels."""
    width = panel_width(N + 1, like.itemsize)
    panels = (N + width) // width
    lanes = VECTOR_BYTES // like.itemsize
    columns = (N + 2 * lanes) // lanes * lanes  # a vector that begins at the last one ends in the row
    A, C = np.zeros((N, columns), like.dtype), np.zeros((_BLOCK, columns), like.dtype)
    return A, C, np.empty(panels * _BLOCK * width, like.dtype)


@inner()
def _block(A, C, k0, kb, least):
    """Eliminate columns k0 … k0 + kb - 1 of A with partial pivoting; C[c] holds them from row k0 on, L on return.

    Rows are exchanged in A as well, to the right of the block, and the block of U is put there. False where a pivot is
    not above ``least``.
    """
    N = len(A)
    m, k1 = N - k0, k0 + kb
    flat = C.reshape(C.size)
    for c in range(kb):
        for i in range(m):
            C[c, i] = A[k0 + i, k0 + c]
    for c in range(kb):
        column = C[c]
        p, largest = c, abs(column[c])
        for i in range(c + 1, m):
            if abs(column[i]) > largest:
                p, largest = i, abs(column[i])
        if not largest > least:
            return False
        if p != c:
            for q in range(kb):
                C[q, p], C[q, c] = C[q, c], C[q, p]
            upper, lower = A[k0 + c], A[k0 + p]
            for j in range(k1, N + 1):
                upper[j], lower[j] = lower[j], upper[j]
        inverse = 1 / column[c]
        for i in range(c + 1, m):
            column[i] *= inverse
        after = c * C.shape[1] + c  # of C as it lies; the columns after this one begin a row of it further on
        subtract_outer(
            kb - c - 1,
            m - c - 1,
            flat,
            after + C.shape[1],
            C.shape[1],
            flat,
            after + 1,
            flat,
            after + C.shape[1] + 1,
            C.shape[1],
        )
    for c in range(kb):
        for r in range(c + 1):
            A[k0 + r, k0 + c] = C[c, r]
    return True


@inner()
def _eliminate(x, room):
    """x <- A^-1 x for the matrix in ``room``, by elimination in blocks; A is used up.

    False where a pivot is rounding only, or A is not finite.
    """
    A, C, flat = room
    N, columns = A.shape
    N = x.size
    eps = 1.1920929e-07 if A.itemsize == 4 else 2.220446049250313e-16
    square = 0.0
    for i in range(N):
        A[i, N] = x[i]
        square += dot(A[i, :N], A[i, :N])
    if not np.isfinite(square):
        return False
    least = eps * np.sqrt(N * square)
    whole, left, ldc = A.reshape(A.size), C.reshape(C.size), C.shape[1]
    k0 = 0
    while k0 < N:
        kb = min(_BLOCK, N - k0)
        k1 = k0 + kb
        if not _block(A, C, k0, kb, least):
            return False
        for q in range(kb - 1):
            row = (k0 + q) * columns + k1
            subtract_outer(kb - q - 1, N + 1 - k1, left, q * ldc + q + 1, 1, whole, row, whole, row + columns, columns)
        if k1 < N:
            rest = N + 1 - k1
            width = panel_width(rest, A.itemsize)
            count = (rest + width - 1) // width
            panels = flat[: count * kb * width].reshape(count, kb, width)
            for p in range(count):
                j0 = k1 + p * width
                for q in range(kb):
                    row, to = A[k0 + q], panels[p, q]
                    for j in range(min(width, N + 1 - j0)):
                        to[j] = -row[j0 + j]
                    for j in range(N + 1 - j0, width):
                        to[j] = 0
            at = k1 * columns + k1
            add_packed_product(N - k1, kb, left[kb:], 1, ldc, panels, rest, whole[at:], columns)
        k0 = k1
    for k in range(N - 1, -1, -1):
        x[k] = (A[k, N] - dot(A[k, k + 1 : N], x[k + 1 :])) / A[k, k]
    return True


@inner()
def _newton(J, x, room):
    """x <- (I - J)^-1 x."""
    A = room[0]
    N = x.size
    for i in range(N):
        for j in range(N):
            A[i, j] = -J[i, j]
        A[i, i] += 1
    return _eliminate(x, room)


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
    J, room = np.empty((N, N), x.dtype), _room(N, x)
    for b in range(start, stop):
        dense_rows(
            J, update_s[0, b], update_a[0, b], update_a2[0, b], inner_s[0, b], inner_a[0, b], emit_s[0, b], W, W2,
            panels,
        )  # fmt: skip
        regular[b] = _newton(J, x[b], room)


@kernel(
    "dense_newton_directions",
    tasks=lambda x, *rest: len(x),
    work=lambda x, *rest: x.size * (x.shape[1] ** 2 / MULTIPLY_ADDS + 20),
)
def dense_newton_directions(start, stop, x, regular, J):
    """The same for dense Jacobians J[1, B, N, N]."""
    room = _room(x.shape[1], x)
    for b in range(start, stop):
        regular[b] = _newton(J[0, b], x[b], room)
