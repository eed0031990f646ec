"""How many products with J the adjoint of a fixed point takes, by method and spectral radius."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .. import _checks
from .._results import Result
from ..errors import ConvergenceError
from ..fixedpoint.adjoint import implicit_gradient
from ..fixedpoint.result import FixedPoint
from ..fixedpoint.solve import solve_fixed_point
from ..losses import squared_error
from ..network import Network

METHODS = ("iteration", "cg", "gmres", "bicgstab", "lu")
PRODUCTS = {"iteration": 1, "cg": 2, "gmres": 1, "bicgstab": 2, "lu": 0}  # with J or J^T, of an iteration


@dataclass(frozen=True)
class AdjointConvergence(Result):
    """Adjoints at fixed points of spectral radius rho.

    Attributes
    ----------
    radius : ndarray (R,)
        rho(J), ascending.
    condition : ndarray (R,)
        Of I - J.
    terms : ndarray (K,)
        Terms of the Neumann series.
    series : ndarray (R, K)
        ||z_K - z|| / ||z|| of so many terms, z by LU; it grows where rho > 1.
    products : dict of ndarray (R,)
        Products with J until the method's answer has the accuracy asked for; NaN where it raised an error.
    tol : float
        The accuracy, relative.
    units : int
    """

    radius: NDArray[np.float64]
    condition: NDArray[np.float64]
    terms: NDArray[np.int64]
    series: NDArray[np.float64]
    products: dict[str, NDArray[np.float64]]
    tol: float
    units: int


def placed(W: NDArray, h: NDArray, radius: float) -> FixedPoint:
    """The fixed point h of a tanh network whose J = diag(1 - h^2) W has, after scaling W, this spectral radius."""
    J = (1 - h * h)[:, None] * W
    W = W * (radius / np.abs(np.linalg.eigvals(J)).max())
    net = Network.from_parameters("vanilla", {"W": W[None], "b": (np.arctanh(h) - W @ h)[None]})
    return solve_fixed_point(net, method="newton", s0=h, tol=1e-12)


def adjoint_convergence(
    radii: Sequence[float], *, n: int = 64, terms: int = 200, tol: float = 1e-10, seed: int | np.random.Generator = 0
) -> AdjointConvergence:
    """The Neumann series term by term, and the cost of every method, at fixed points of one random network.

    Parameters
    ----------
    radii : sequence of float
        Spectral radii; W and b are scaled so that the same h is a fixed point with each.
    n : int
        Units.
    terms : int
        K, terms of the series.
    tol : float
        Relative accuracy of the methods' answers.

    Raises
    ------
    ValueError
        An argument is out of range.
    """
    n = _checks.integer("n", n, 1)
    terms = _checks.integer("terms", terms, 1)
    wanted = np.sort(_checks.array("radii", radii, ("R",)))
    if not wanted.size or wanted[0] <= 0:
        raise ValueError(f"radii is {wanted.tolist()}; it must hold positive numbers")
    rng = np.random.default_rng(seed)
    W, h, target = rng.standard_normal((n, n)), rng.uniform(-0.9, 0.9, n), rng.standard_normal((1, n))
    products: dict[str, list[float]] = {name: [] for name in METHODS}
    series, conditions, found = np.empty((len(wanted), terms)), [], []
    for i, radius in enumerate(wanted):
        fp = placed(W, h, float(radius))
        found.append(float(fp.spectral_radius[0]))
        conditions.append(float(fp.condition[0]))
        loss = squared_error(target)
        exact = implicit_gradient(fp, loss, method="lu").z[0, 0]
        term, total = exact - exact @ fp.jacobian[0], np.zeros(n)
        for k in range(terms):
            total = total + term
            term = term @ fp.jacobian[0]
            series[i, k] = np.linalg.norm(total - exact) / np.linalg.norm(exact)
        for name in METHODS:
            try:
                count = implicit_gradient(fp, loss, method=name, tol=tol, max_iterations=100_000).iterations[0]  # type: ignore[arg-type]
                products[name].append(float(PRODUCTS[name] * count))
            except ConvergenceError:
                products[name].append(np.nan)
    return AdjointConvergence(
        radius=np.array(found), condition=np.array(conditions), terms=np.arange(1, terms + 1), series=series,
        products={name: np.array(values) for name, values in products.items()}, tol=tol, units=n,
    )  # fmt: skip
