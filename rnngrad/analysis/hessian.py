"""Eigenvalues of the Hessian and of the Gauss-Newton matrix: the leading ones, and the density of all of them.

The matrix is never formed: ARPACK and Lanczos quadrature see it through products. Lanczos from a random start gives a
Gauss quadrature of the spectrum as that start sees it; the mean over random starts is the density (Golub & Meurant
1994; Ubaru, Chen & Saad 2017), and its scatter over them the error.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import scipy.linalg
import scipy.sparse.linalg
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator

from .. import _checks
from .._blas import one_blas_thread
from .._results import Result
from ..errors import ConvergenceError
from ..gradients.curvature import Curvature
from ..losses import Loss
from ..network import Network

Matrix = Literal["hessian", "gauss_newton"]
_MATRICES = ("hessian", "gauss_newton")
_POINTS = 512  # of the grid on which the density is given
_MEMORY = 2**28  # bytes of Lanczos vectors kept at once
_SMALL = 40  # parameters, below which the matrix is made


@dataclass(frozen=True)
class HessianSpectrum(Result):
    """Spectrum of a P x P matrix of second derivatives.

    Attributes
    ----------
    matrix : str
        "hessian" or "gauss_newton".
    network : str
        What it is a matrix of, such as "lstm, 8 units".
    size : int
        P, the number of parameters.
    loss : float
        L at the trajectory.
    eigenvalues : ndarray (k,)
        The k largest in magnitude, descending.
    residuals : ndarray (k,)
        ||A u - lambda u|| of each with its unit eigenvector u: an eigenvalue lies within that distance.
    grid : ndarray (M,)
        Points at which the density is given, in units of the eigenvalues.
    density, density_error : ndarray (M,)
        Eigenvalues per unit as a share of P, each spread over a normal distribution of standard deviation ``width``;
        and its standard error over the probes.
    width : float
    levels : ndarray (L,)
        Magnitudes r, even in their logarithm.
    above, above_error, below, below_error : ndarray (L,)
        Estimated numbers of eigenvalues > r and < -r, and their standard errors over the probes. Where eigenvalues
        lie closer than about the spectrum's width over steps^2, a node stands for several of them.
    nodes, weights : ndarray (probes, steps)
        Quadrature of each probe: Ritz values and their weights, which sum to 1. A probe that found an invariant
        subspace has fewer nodes; the rest are NaN, of weight 0.
    trace, trace_error : float
        Estimate of tr A = P times the mean eigenvalue, and its standard error over the probes.
    """

    matrix: str
    network: str
    size: int
    loss: float
    eigenvalues: NDArray[np.float64]
    residuals: NDArray[np.float64]
    grid: NDArray[np.float64]
    density: NDArray[np.float64]
    density_error: NDArray[np.float64]
    width: float
    levels: NDArray[np.float64]
    above: NDArray[np.float64]
    above_error: NDArray[np.float64]
    below: NDArray[np.float64]
    below_error: NDArray[np.float64]
    nodes: NDArray[np.float64]
    weights: NDArray[np.float64]
    trace: float
    trace_error: float


def hessian_operator(traj: Any, loss: Loss, *, matrix: Matrix = "hessian") -> LinearOperator:
    """The Hessian, or the Gauss-Newton matrix, as a symmetric SciPy operator of shape (P, P).

    Parameters
    ----------
    traj : Trajectory, DeviceTrajectory or StackTrajectory
    loss : Loss
    matrix : "hessian" or "gauss_newton"

    Returns
    -------
    LinearOperator
        Of dtype float64; the products of a float32 network are rounded to float32. Vectors are in the order of
        :func:`rnngrad.flatten_parameters`, and on the host: SciPy's solvers work there. Along a DeviceTrajectory a
        vector goes to the GPU and its product comes back, P numbers each; all else stays there.

    Raises
    ------
    ValueError
        As :func:`rnngrad.hessian_vector_product`.
    """
    _checks.choice("matrix", matrix, _MATRICES)
    curvature = Curvature(traj, loss)
    second = matrix == "hessian"

    def columns(V: NDArray) -> NDArray:
        _checks.finite("the vector", V)
        given = np.ascontiguousarray(np.asarray(V, dtype=np.float64).reshape(curvature.size, -1).T)
        exponent = np.frexp(np.abs(given).max(axis=1, initial=0))[1][:, None]  # float32 has less of a range
        product = curvature.of_host(np.ldexp(given, -exponent).astype(curvature.dtype), second=second)
        return np.ldexp(product.astype(np.float64), exponent).T.reshape(V.shape)

    shape = (curvature.size, curvature.size)
    return LinearOperator(shape, matvec=columns, rmatvec=columns, matmat=columns, rmatmat=columns, dtype=np.float64)


def hessian_spectrum(
    traj: Any,
    loss: Loss,
    *,
    matrix: Matrix = "hessian",
    leading: int = 8,
    probes: int = 8,
    steps: int = 64,
    width: float | None = None,
    seed: int | np.random.Generator = 0,
) -> HessianSpectrum:
    """Leading eigenvalues and density of the spectrum of the Hessian or of the Gauss-Newton matrix.

    Parameters
    ----------
    traj : Trajectory, DeviceTrajectory or StackTrajectory
    loss : Loss
    matrix : "hessian" or "gauss_newton"
    leading : int
        Eigenvalues of the largest magnitude wanted, at most P.
    probes, steps : int
        Random starts, at least 2, and Lanczos steps from each; probes x steps products. The density shows what is
        wider than the spectrum's width over ``steps``.
    width : float
        Standard deviation of the normal distribution that stands for one eigenvalue; the width of the spectrum over
        ``steps`` by default.
    seed : int or Generator
        Of the starts.

    Returns
    -------
    HessianSpectrum

    Raises
    ------
    ValueError
        An argument is out of range, or as :func:`rnngrad.hessian_vector_product`.
    ConvergenceError
        The leading eigenvalues did not converge.

    Notes
    -----
    Lanczos vectors are orthogonalised against all before them, so no eigenvalue is found twice; they take
    steps x P numbers for each probe, on the host. Along a DeviceTrajectory the products are made on the GPU; vectors go
    there and come back.
    """
    operator = hessian_operator(traj, loss, matrix=matrix)
    size = operator.shape[0]
    leading = _checks.integer("leading", leading, 1, size)
    probes, steps = _checks.integer("probes", probes, 2), _checks.integer("steps", steps, 2)
    width = None if width is None else _checks.number("width", width, 0.0, open_low=True)
    rng = np.random.default_rng(seed)
    starts = rng.choice([-1.0, 1.0], size=(probes, size)) / np.sqrt(size)
    precision = float(np.finfo(traj.net.dtype).eps)
    nodes, weights = quadrature(lambda rows: operator.matmat(rows.T).T, starts, min(steps, size), precision)
    low, high = float(np.nanmin(nodes)), float(np.nanmax(nodes))
    spread = high - low if high > low else max(abs(high), 1.0)
    width = spread / steps if width is None else width
    grid = np.linspace(low - 4 * width, high + 4 * width, _POINTS)
    density, density_error = _mean(_smoothed(grid, nodes, weights, width))
    norm = max(abs(low), abs(high))
    levels = np.geomspace(1e-6, 1.0, 181) * (norm if norm > 0 else 1.0)
    above, above_error = _mean(size * np.einsum("kj,kjl->kl", weights, nodes[..., None] > levels))
    below, below_error = _mean(size * np.einsum("kj,kjl->kl", weights, nodes[..., None] < -levels))
    trace, trace_error = _mean(size * np.nansum(nodes * weights, axis=1))
    eigenvalues, residuals = _leading(operator, leading, rng, precision, norm)
    return HessianSpectrum(
        matrix=matrix,
        network=_name(traj.net),
        size=size,
        loss=float(loss(traj.y, traj.lengths).value),
        eigenvalues=eigenvalues,
        residuals=residuals,
        grid=grid,
        density=density,
        density_error=density_error,
        width=width,
        levels=levels,
        above=above,
        above_error=above_error,
        below=below,
        below_error=below_error,
        nodes=nodes,
        weights=weights,
        trace=float(trace),
        trace_error=float(trace_error),
    )


def _mean(by_probe: NDArray) -> tuple[Any, Any]:
    """Mean over the probes (axis 0) and its standard error."""
    return by_probe.mean(axis=0), by_probe.std(axis=0, ddof=1) / np.sqrt(len(by_probe))


def _name(net: Any) -> str:
    """A network in a word."""
    return f"{net.cell.name}, {net.n} units" if isinstance(net, Network) else f"stack of {len(net.layers)} layers"


def quadrature(
    multiply: Callable[[NDArray], NDArray], starts: NDArray, steps: int, precision: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Gauss quadrature (nodes, weights) of a symmetric matrix's spectrum as each unit row of ``starts`` sees it.

    ``multiply`` takes rows (K, P). A row whose Krylov space ends early (to ``precision``) has NaN nodes of weight 0.
    """
    nodes, weights = np.full((len(starts), steps), np.nan), np.zeros((len(starts), steps))
    together = max(1, _MEMORY // (starts[0].nbytes * (steps + 1)))
    for first in range(0, len(starts), together):
        part = slice(first, first + together)
        alpha, beta, counts = _lanczos(multiply, starts[part], steps, precision)
        for i, count in enumerate(counts):
            values, vectors = scipy.linalg.eigh_tridiagonal(alpha[i, :count], beta[i, : count - 1])
            nodes[first + i, :count], weights[first + i, :count] = values, vectors[0] ** 2
    return nodes, weights


def _lanczos(
    multiply: Callable[[NDArray], NDArray], starts: NDArray, steps: int, precision: float
) -> tuple[NDArray, NDArray, NDArray]:
    """Diagonals alpha (K, steps) and beta (K, steps) of the tridiagonal matrices, and their sizes (K,)."""
    K, P = starts.shape
    Q = np.zeros((K, steps + 1, P))
    alpha, beta, counts, live = np.zeros((K, steps)), np.zeros((K, steps)), np.full(K, steps), np.ones(K, bool)
    Q[:, 0] = starts
    scale = np.zeros(K)  # a lower bound of the matrix's norm
    for j in range(steps):
        r = np.zeros((K, P))
        r[live] = multiply(Q[live, j])
        alpha[:, j] = np.einsum("kp,kp->k", r, Q[:, j])
        scale = np.maximum(scale, np.linalg.norm(r, axis=1))
        for _ in range(2):  # against all before, twice: once leaves what rounding brought back
            r -= np.einsum("kjp,kj->kp", Q[:, : j + 1], np.einsum("kjp,kp->kj", Q[:, : j + 1], r))
        beta[:, j] = np.linalg.norm(r, axis=1)
        ended = live & (beta[:, j] <= 10 * precision * np.sqrt(P) * scale)
        counts[ended], live = j + 1, live & ~ended
        if not live.any():
            break
        Q[live, j + 1] = r[live] / beta[live, j, None]
    return alpha, beta, counts


def _smoothed(grid: NDArray, nodes: NDArray, weights: NDArray, width: float) -> NDArray[np.float64]:
    """Sum of normal densities of standard deviation ``width`` at the nodes, for each probe: (probes, M)."""
    z = (grid - np.where(np.isnan(nodes), 0.0, nodes)[..., None]) / width
    return np.einsum("kj,kjm->km", weights, np.exp(-z * z / 2)) / (width * np.sqrt(2 * np.pi))


def _leading(
    operator: LinearOperator, count: int, rng: np.random.Generator, precision: float, norm: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The eigenvalues of the largest magnitude, descending, and their residuals; ``norm`` is about the largest."""
    P = operator.shape[0]
    if norm == 0:
        return np.zeros(count), np.zeros(count)
    if max(_SMALL, 2 * count) >= P:
        A = operator.matmat(np.eye(P))
        with one_blas_thread():
            values, vectors = scipy.linalg.eigh((A + A.T) / 2)
        kept = np.argsort(-np.abs(values))[:count]
        values, vectors = values[kept], vectors[:, kept]
    else:
        try:
            with one_blas_thread():
                values, vectors = scipy.sparse.linalg.eigsh(
                    operator, count, which="LM", v0=rng.standard_normal(P), tol=10 * precision
                )
        except scipy.sparse.linalg.ArpackNoConvergence as error:
            raise ConvergenceError(
                f"{len(error.eigenvalues)} of the {count} leading eigenvalues of a {P} x {P} matrix converged "
                f"({error}); ask for fewer, or for so many that those of the same size are among them"
            ) from error
    order = np.argsort(-values)
    values, vectors = values[order], vectors[:, order]
    return values, np.linalg.norm(operator.matmat(vectors) - vectors * values, axis=0)
