"""Phi(t, t - lag) for chosen lags only: what the analyses of long records can afford."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _checks
from .._arrays import on_host, placed_beside
from .._results import Result
from ..dynamics.chain import JacobianChain
from ..dynamics.graded import graded_products
from ..dynamics.rollout import Trajectory


@dataclass(frozen=True)
class SingularValues(Result):
    """Singular values of Phi(t, t - lag) = ds_t/ds_{t-lag}.

    Attributes
    ----------
    times : ndarray (R,)
        Reference steps t.
    lags : ndarray (L,)
        Lags, ascending.
    log_values : ndarray (B, R, L, N)
        Natural logarithms, descending along the last axis; NaN where lag > t, -inf for a zero value.
    """

    times: NDArray[np.int64]
    lags: NDArray[np.int64]
    log_values: NDArray[np.float64]

    @property
    def log_norm(self) -> NDArray[np.float64]:
        """log||Phi(t, t - lag)||_2 as (B, R, L)."""
        return self.log_values[..., 0]


def singular_values(traj: Trajectory, *, times: Any = None, lags: Any = None) -> SingularValues:
    """Singular values of the Jacobian chain against lag, at a few reference steps.

    Parameters
    ----------
    traj : Trajectory or DeviceTrajectory
        Of one on a GPU the products stay there, and N numbers for each sample, time and lag come to the host.
    times : integers (R,)
        Reference steps in 1…T; the last step by default.
    lags : integers (L,)
        Lags in 0…T; by default at most 24 of them, spaced evenly in their logarithm up to the largest reference step.

    Returns
    -------
    SingularValues

    Raises
    ------
    ValueError
        A step or a lag is out of range.

    Notes
    -----
    Costs, per reference step, some 4 max(lags) products of N x N matrices and L decompositions; see
    :meth:`rnngrad.JacobianChain.log_singular_values`.
    """
    times = steps("times", [traj.T] if times is None else times, 1, traj.T)
    lags = log_spaced(int(times.max()), 24) if lags is None else np.unique(steps("lags", lags, 0, traj.T))
    chain, place = JacobianChain(traj), functools.partial(placed_beside, traj.x)
    out = np.full((traj.B, len(times), len(lags), chain.N), np.nan)
    for r, t in enumerate(times):
        kept = lags[lags <= t]
        for i, product in enumerate(graded_products(chain.jacobians, traj.B, traj.net, int(t), kept, place)):
            out[:, r, i] = on_host(product.log_singular_values(chain.jacobians.backend))
    return SingularValues(times, lags, out)


def log_spaced(last: int, count: int) -> NDArray[np.int64]:
    """At most ``count`` lags from 0 to ``last``, spaced evenly in their logarithm."""
    return np.unique(np.concatenate([[0], np.round(np.geomspace(1, max(last, 1), max(count - 1, 1))).astype(np.int64)]))


def spaced(first: int, last: int, count: int) -> NDArray[np.int64]:
    """At most ``count`` steps spread evenly over first … last, ends included (the last step alone for one)."""
    if count <= 1:
        return np.array([last], np.int64)
    return np.unique(np.round(np.linspace(first, last, count)).astype(np.int64))


def steps(name: str, value: Any, low: int, high: int) -> NDArray[np.int64]:
    """Integers (R,) in low … high, in ascending order."""
    given = np.atleast_1d(np.asarray(value))
    if given.ndim != 1 or not given.size or given.dtype.kind not in "iu":
        raise ValueError(f"{name} is {value!r}; it must be a list of integers")
    for step in (int(given.min()), int(given.max())):
        _checks.integer(name, step, low, high)
    return np.sort(given.astype(np.int64))


def quantiles(values: NDArray, q: Any) -> NDArray[np.float64]:
    """Quantiles over all axes but the last, (len(q), L), of what is not NaN; -inf may be among them."""
    flat = values.reshape(-1, values.shape[-1])
    out = np.full((len(q), flat.shape[1]), np.nan)
    for i, column in enumerate(flat.T):
        kept = column[~np.isnan(column)]
        if kept.size:  # interpolation between -inf and a number would be NaN
            out[:, i] = np.quantile(kept, q, method="inverted_cdf")
    return out
