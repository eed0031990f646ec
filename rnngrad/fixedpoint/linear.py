"""Solving z - z J = g for rows z, by every method of the adjoint; each says how many products with J a row took.

A method takes (local Jacobians of one step in float64, g (R, S, n), places at (R,), limit, reduction) and returns (z,
iterations (R,), done (R,)): where ``done`` it lowered the residual by the factor ``reduction``, or to rounding.
Refinement and judgement stand in ``judged``. Rows that lie on a GPU are iterated there; SciPy and LAPACK work on the
host, and what they take and give is copied.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator, bicgstab, cg, gmres

from .._arrays import copied, on_host, placed_beside
from .._blas import one_blas_thread
from ..dynamics.placed import lengths, times_rows
from ..dynamics.rollout import tile_rows
from ..kernels import backend as find_backend
from .solve import history_arrays
from .spectrum import products

_RESTART = 100  # of GMRES
_ROUNDED = 1e-10  # of the residual: where a method of SciPy that ends above what was asked for has come to rounding

_DENSE = 200  # state size up to which these are by elimination, but for the iteration

Solved = tuple[Any, NDArray[np.int64], NDArray[np.bool_]]


def iteration(
    local: Any,
    g: Any,
    at: NDArray,
    limit: int,
    reduction: float,
    *,
    terms: int | None = None,
    forward: bool = False,
) -> Solved:
    """z <- z J + g (Almeida 1987; Pineda 1987); ``terms`` = K stops at sum over k < K of g J^k.

    ``forward``: of columns, z <- J z + g.
    """
    scale = lengths(g)
    scale[scale == 0] = 1.0
    g = times_rows(g, 1 / scale)
    z = copied(g)
    limit = (limit if terms is None else terms) - 1  # the first residual takes a product too
    settings = (reduction if terms is None else -1.0, limit, 0, 1.0, tile_rows(g.shape[2]))
    history = history_arrays(limit, len(g))
    local.linear_fixed_point(z, history, settings, g, at, forward)
    kernels = find_backend()
    ends = history[2]
    done = (ends == kernels.CONVERGED) | (ends == kernels.STALLED)  # at rounding: refinement goes on from there
    return times_rows(z, scale), history[1] + 1, done


def lu(local: Any, g: Any, at: NDArray, limit: int, reduction: float) -> Solved:
    """Elimination of the dense I - J^T."""
    given = on_host(g)
    z, done = np.zeros_like(given), np.ones(len(given), np.bool_)
    J = on_host(local.dense())[0]
    eye = np.eye(J.shape[1])
    factors: dict[int, Any] = {}
    with one_blas_thread():
        for r, b in enumerate(at):
            if b not in factors:
                factors[b] = scipy.linalg.lapack.dgetrf(eye - J[b])
            decomposed, pivots, zero = factors[b]
            done[r] = zero == 0
            if done[r]:
                z[r] = scipy.linalg.lapack.dgetrs(decomposed, pivots, given[r].ravel(), trans=1)[0].reshape(z[r].shape)
    return placed_beside(g, z), np.zeros(len(z), np.int64), done


def directions(local: Any, shape: tuple[int, ...], method: str, limit: int) -> Callable[[Any, float], Any]:
    """(r, reduction) -> (I - J)^-1 r of rows r (B, S, n), one for each sample; NaN where that is not to be had.

    By the iteration, if that is the method, with ``limit`` products; else by one elimination for all that follow, or,
    of large states, by GMRES. Elimination apart, ``reduction`` is what may be left of the residual.
    """
    B, N = shape[0], int(np.prod(shape[1:]))
    if method == "iteration":
        at = np.arange(B)

        def steps(r: Any, reduction: float) -> Any:
            d, _, done = iteration(local, r, at, limit, reduction, forward=True)
            return d if done.all() else times_rows(d, np.where(done, 1.0, np.nan))

        return steps
    if method == "lu" or N <= _DENSE:
        with one_blas_thread():
            factors = [scipy.linalg.lapack.dgetrf(np.eye(N) - J) for J in on_host(local.dense())[0]]

        def solved(b: int, r: NDArray, reduction: float) -> NDArray:
            decomposed, pivots, zero = factors[b]
            return scipy.linalg.lapack.dgetrs(decomposed, pivots, r)[0] if zero == 0 else np.full(N, np.nan)

    else:
        each = [products(local, shape, b) for b in range(B)]

        def solved(b: int, r: NDArray, reduction: float) -> NDArray:
            A = LinearOperator((N, N), matvec=lambda v: v - each[b] @ v, dtype=np.float64)
            found, failed = gmres(A, r, rtol=reduction, atol=0.0, restart=_RESTART, maxiter=10)
            return found if failed == 0 else np.full(N, np.nan)

    def one_by_one(r: Any, reduction: float) -> Any:
        given = on_host(r)
        with one_blas_thread():
            found = np.stack([solved(b, given[b].ravel(), reduction) for b in range(B)]).reshape(shape)
        return placed_beside(r, found)

    return one_by_one


def krylov(solver: Callable[..., Any], normal: bool, **options: Any) -> Callable[..., Solved]:
    """A method of SciPy on A z = g, A = I - J^T, by products with J; ``normal``: on A^T A z = A^T g.

    ``limit`` bounds the products with J and J^T, and these are the iterations that are counted.
    """

    def method(local: Any, given: Any, at: NDArray, limit: int, reduction: float) -> Solved:
        g = on_host(given)
        shape = (int(at.max(initial=0)) + 1, *g.shape[1:])
        N = int(np.prod(shape[1:]))
        z, iterations, done = np.zeros_like(g), np.zeros(len(g), np.int64), np.zeros(len(g), np.bool_)
        for r, b in enumerate(at):
            A = _Counted(products(local, shape, int(b)), limit)
            whole = LinearOperator((N, N), matvec=A.normal if normal else A.forth, dtype=np.float64)
            try:
                own = A.back(g[r].ravel()) if normal else g[r].ravel()
                found, failed = solver(whole, own, rtol=reduction, atol=0.0, maxiter=limit, **options)
                z[r] = found.reshape(g[r].shape)
                left = np.linalg.norm(own - whole @ found) if failed else 0.0
                done[r] = left <= _ROUNDED * np.linalg.norm(own)  # refinement goes on from there
            except _Spent:
                pass
            iterations[r] = A.count
        return placed_beside(given, z), iterations, done

    return method


class _Spent(Exception):
    """Every product that was allowed is made."""


class _Counted:
    """I - J^T and its transpose on vectors, at most ``limit`` products."""

    def __init__(self, J: LinearOperator, limit: int) -> None:
        self.J, self.limit, self.count = J, limit, 0

    def _spend(self) -> None:
        if self.count == self.limit:
            raise _Spent
        self.count += 1

    def forth(self, v: NDArray) -> NDArray:
        self._spend()
        return v - self.J.rmatvec(v)

    def back(self, v: NDArray) -> NDArray:
        self._spend()
        return v - self.J.matvec(v)

    def normal(self, v: NDArray) -> NDArray:
        return self.back(self.forth(v))


def _gmres(A: Any, b: NDArray, *, maxiter: int, **options: Any) -> Any:
    """GMRES with ``maxiter`` products, not restarts."""
    restart = min(len(b), _RESTART, maxiter)
    return gmres(A, b, restart=restart, maxiter=-(-maxiter // restart), **options)


#: Method of the adjoint -> how it solves.
SOLVERS: dict[str, Callable[..., Solved]] = {
    "iteration": iteration,
    "cg": krylov(cg, True),
    "gmres": krylov(_gmres, False),
    "bicgstab": krylov(bicgstab, False),
    "lu": lu,
}
