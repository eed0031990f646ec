"""Solving z - z J = g for rows z, by every method of the adjoint; each says how many iterations a row took.

A method takes (local Jacobians of one step in float64, g (R, S, n), places at (R,), limit, reduction) and returns (z,
iterations (R,), done (R,)): where ``done`` it lowered the residual by the factor ``reduction``, or to rounding.
Refinement and judgement stand in ``adjoint``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator, bicgstab, cg, gmres

from .._blas import one_blas_thread
from ..kernels import backend as find_backend
from .maps import lengths_of
from .solve import TILE, history_arrays
from .spectrum import products

_RESTART = 100  # of GMRES

Solved = tuple[NDArray, NDArray[np.int64], NDArray[np.bool_]]


def iteration(local: Any, g: NDArray, at: NDArray, limit: int, reduction: float, *, terms: int | None = None) -> Solved:
    """z <- z J + g (Almeida 1987; Pineda 1987); ``terms`` = K stops at sum over k < K of g J^k."""
    scale = lengths_of(g)
    scale[scale == 0] = 1.0
    g = g / scale[:, None, None]
    z = g.copy()
    limit = limit if terms is None else terms - 1
    settings = (reduction if terms is None else -1.0, limit, 0, 1.0, TILE)
    history = history_arrays(limit, len(g))
    local.adjoint_fixed_point(z, history, settings, g, at)
    kernels = find_backend()
    done = np.isin(
        history[2], (kernels.CONVERGED, kernels.STALLED)
    )  # stalled at rounding: refinement goes on from there
    return z * scale[:, None, None], history[1], done


def lu(local: Any, g: NDArray, at: NDArray, limit: int, reduction: float) -> Solved:
    """Elimination of the dense I - J^T."""
    z, done = np.zeros_like(g), np.ones(len(g), np.bool_)
    J = local.dense()[0]
    eye = np.eye(J.shape[1])
    factors: dict[int, Any] = {}
    with one_blas_thread():
        for r, b in enumerate(at):
            if b not in factors:
                factors[b] = scipy.linalg.lapack.dgetrf(eye - J[b])
            decomposed, pivots, zero = factors[b]
            done[r] = zero == 0
            if done[r]:
                z[r] = scipy.linalg.lapack.dgetrs(decomposed, pivots, g[r].ravel(), trans=1)[0].reshape(g[r].shape)
    return z, np.ones(len(g), np.int64), done


def krylov(solver: Callable[..., Any], normal: bool, **options: Any) -> Callable[..., Solved]:
    """A method of SciPy on A z = g, A = I - J^T, by products with J; ``normal``: on A^T A z = A^T g."""

    def method(local: Any, g: NDArray, at: NDArray, limit: int, reduction: float) -> Solved:
        shape = (int(at.max(initial=0)) + 1, *g.shape[1:])
        N = int(np.prod(shape[1:]))
        z, iterations, done = np.zeros_like(g), np.zeros(len(g), np.int64), np.zeros(len(g), np.bool_)
        for r, b in enumerate(at):
            J = products(local, shape, int(b))
            own, count = g[r].ravel(), [0]

            def forth(v: NDArray, J: LinearOperator = J) -> NDArray:
                return v - J.rmatvec(v)

            def back(v: NDArray, J: LinearOperator = J) -> NDArray:
                return v - J.matvec(v)

            def both(v: NDArray, forth: Any = forth, back: Any = back) -> NDArray:
                return back(forth(v))

            def tick(_: Any, count: list[int] = count) -> None:
                count[0] += 1

            A = LinearOperator((N, N), matvec=both if normal else forth, dtype=np.float64)
            own = back(own) if normal else own
            found, failed = solver(A, own, rtol=reduction, atol=0.0, maxiter=limit, callback=tick, **options)
            z[r], iterations[r], done[r] = found.reshape(g[r].shape), count[0], failed == 0
        return z, iterations, done

    return method


def _gmres(A: Any, b: NDArray, *, maxiter: int, **options: Any) -> Any:
    """GMRES with ``maxiter`` products, not restarts."""
    restart = min(len(b), _RESTART)
    return gmres(A, b, restart=restart, maxiter=-(-maxiter // restart), callback_type="pr_norm", **options)


#: Method of the adjoint -> how it solves.
SOLVERS: dict[str, Callable[..., Solved]] = {
    "iteration": iteration,
    "cg": krylov(cg, True),
    "gmres": krylov(_gmres, False),
    "bicgstab": krylov(bicgstab, False),
    "lu": lu,
}
