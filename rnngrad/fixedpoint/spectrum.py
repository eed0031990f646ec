"""rho(J) and the condition number of I - J: whether an iteration converges, and whether there is an answer at all."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.linalg import ArpackError, LinearOperator, eigs

from .._arrays import on_host
from .._blas import one_blas_thread

_DENSE = 1000  # state size up to which all eigenvalues are computed
_LEADING, _BASIS = 6, 60  # eigenvalues asked of Arnoldi above it, so that none hides behind another, and its vectors


def spectral_radius(jacobians: Any, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Largest modulus of an eigenvalue of each J (B,); ``shape`` is (B, S, n) of the states, one step of them.

    Above ``_DENSE`` by Arnoldi iteration from a random start, which meets every eigenvector; where it fails (J = 0, or
    many eigenvalues of one modulus) from all eigenvalues.
    """
    B, N = shape[0], int(np.prod(shape[1:]))
    out = np.full(B, np.nan)
    if N <= _DENSE:
        return moduli(on_host(jacobians.dense())[0]).max(axis=1)
    start = np.random.default_rng(0).standard_normal(N)
    for b in range(B):
        operator = products(jacobians, shape, b)
        try:
            with one_blas_thread():
                leading = eigs(operator, k=_LEADING, ncv=_BASIS, which="LM", return_eigenvectors=False, v0=start)
        except ArpackError:
            leading = moduli((operator @ np.eye(N))[None])[0]
        out[b] = np.abs(leading).max()
    return out


def moduli(J: NDArray) -> NDArray[np.float64]:
    """|eigenvalues| of matrices (B, N, N)."""
    finite = np.isfinite(J).all(axis=(1, 2))
    out = np.full(J.shape[:2], np.nan)
    with one_blas_thread():
        out[finite] = np.abs(np.linalg.eigvals(J[finite]))
    return out


def products(jacobians: Any, shape: tuple[int, ...], b: int) -> LinearOperator:
    """J of sample b as an operator (N, N) in float64, with J v and J^T v, of the one step that ``jacobians`` are of."""
    wide = jacobians.in_float64()
    N = int(np.prod(shape[1:]))

    def product(carry: Any, t_from: int) -> Any:
        def columns(V: NDArray) -> NDArray:
            rows = np.ascontiguousarray(np.asarray(V, dtype=np.float64).reshape(N, -1).T).reshape(-1, *shape[1:])
            out, exponents = carry(rows, np.zeros(len(rows), np.int64), np.full(len(rows), b), t_from, 1)
            out = np.ldexp(out[0], exponents[0].astype(np.int32)[:, None, None])
            return out.reshape(len(rows), N).T.reshape(V.shape)

        return columns

    forward, back = product(wide.tangent, 0), product(wide.adjoint, 1)
    return LinearOperator((N, N), matvec=forward, matmat=forward, rmatvec=back, rmatmat=back, dtype=np.float64)


def condition(J: NDArray) -> NDArray[np.float64]:
    """Condition number of I - J in the 2-norm for each J (B, N, N); inf where it is singular, NaN where J is."""
    out = np.full(len(J), np.nan)
    finite = np.isfinite(J).all(axis=(1, 2))
    with one_blas_thread(), np.errstate(divide="ignore"):
        values = np.linalg.svd(np.eye(J.shape[1]) - J[finite].astype(np.float64), compute_uv=False)
        out[finite] = values[:, 0] / values[:, -1]
    return out
