"""Singular values of matrices whose rows differ by more than the range of floats, by one-sided Jacobi rotations.

Rows X[i] 2^e[i] are rotated in pairs until all are orthogonal; their lengths are the singular values. Rotations act on
the ratio of two rows only, so a row of 2^-5000 beside one of 1 is as accurate as any, if the rows without their scales
are well conditioned (Demmel & Veselić 1992).
"""

import math

import numpy as np

from ..._blas import one_blas_thread
from ..._jit import MULTIPLY_ADDS, inner, kernel
from ..rotation import SWEEPS, is_orthogonal, rotation, rounding_exponent
from .scaling import normalize
from .sums import dot


@inner()
def _rotate(x, y, shift):
    """Make rows x and y 2^-shift (shift >= 0, y the smaller) orthogonal, in place; whether they were not."""
    a, b, g = dot(x, x), dot(y, y), dot(x, y)
    if is_orthogonal(a, b, g, x.size):
        return False
    z = 2.0 ** -min(shift, 1000)
    c, s = rotation(a, b, g, z)
    for i in range(x.size):
        u, v = x[i], y[i]
        x[i] = c * u + s * z * z * v
        y[i] = c * v - s * u
    return True


@kernel(
    "graded_singular_values",
    tasks=lambda out, *rest: len(out),
    work=lambda out, X, *rest: 20 * X.size * X.shape[1] / MULTIPLY_ADDS,
)
def _rotations(start, stop, out, X, exponents, sweeps):
    _, N, M = X.shape
    given, floor = np.empty(N, np.int64), rounding_exponent(N)
    for b in range(start, stop):
        rows, e = X[b], exponents[b]
        taken = 0
        normalize(rows, M, e)
        for i in range(N):
            given[i] = e[i]
        while taken <= SWEEPS:
            taken += 1
            normalize(rows, M, e)
            for i in range(N):
                if e[i] - given[i] < floor:  # what cancellation leaves of a zero; rotations would not come to an end
                    for j in range(M):
                        rows[i, j] = 0
            turned = False
            for i in range(N - 1):
                for j in range(i + 1, N):
                    if e[i] >= e[j]:
                        turned |= _rotate(rows[i], rows[j], e[i] - e[j])
                    else:
                        turned |= _rotate(rows[j], rows[i], e[j] - e[i])
            if not turned:
                break
        sweeps[b] = taken
        for i in range(N):
            square = dot(rows[i], rows[i])
            if e[i] - given[i] < floor or not square > 0:
                out[b, i] = -math.inf
            else:
                out[b, i] = math.log(square) / 2 + e[i] * math.log(2.0)


def graded_singular_values(out, X, exponents, sweeps):
    """out[B, N] = ln of the singular values of X[B, N, M] 2^exponents[B, N], descending; X is used up (float64).

    A row of which rotations leave no more than their rounding is a singular value of 0, -inf.

    sweeps[B] is how many it took; SWEEPS + 1 where that was not enough.
    """
    _rotations(out, X, exponents, sweeps)
    out[:] = np.sort(out, axis=1)[:, ::-1]


def log_singular_values(out, X, sweeps):
    """out[B, N] = ln of the singular values of X[B, N, N], descending; X may be used up (float64). By LAPACK.

    Those below N eps of the largest are lost in rounding; sweeps[B] is 0.
    """
    with one_blas_thread():
        sigma = np.linalg.svd(X, compute_uv=False)
    sweeps[:] = 0
    with np.errstate(divide="ignore"):
        np.log(sigma, out=out)
