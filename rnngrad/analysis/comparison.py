"""Several networks side by side: how far the gradient of each reaches, and how far it should."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .._results import Result
from .memory import horizon
from .reach import GradientReach

QUANTILES = (0.1, 0.5, 0.9)


@dataclass(frozen=True)
class ReachByLag(Result):
    """Gradient norm against lag with its spread over time and batch; natural logarithms.

    Attributes
    ----------
    lags : ndarray (L,)
    gradient : ndarray (3, L)
        log(||dL_t/ds_{t-lag}||/||dL_t/ds_t||): the quantiles 0.1, 0.5, 0.9 over reference steps and samples.
    count : ndarray (L,)
        Reference steps times samples behind each lag: late lags have fewer.
    eps, horizon, longest : float
        Memory horizon: the median lag from which the gradient stays below eps; inf if beyond ``longest``.
    """

    lags: NDArray[np.int64]
    gradient: NDArray[np.float64]
    count: NDArray[np.int64]
    eps: float
    horizon: float
    longest: float


def reach_by_lag(reach: GradientReach, eps: float = 1e-3) -> ReachByLag:
    """Quantiles of a measured reach, and its memory horizon."""
    memory = horizon(reach, eps)
    count = np.count_nonzero(~np.isnan(reach.log_ratio), axis=(0, 1))
    return ReachByLag(reach.lags, reach.quantiles(QUANTILES), count, eps, memory.median, memory.longest)


@dataclass(frozen=True)
class Comparison(Result):
    """Several networks' gradients by lag, and the lag that they should reach.

    Attributes
    ----------
    growths : dict of ReachByLag by name
    lag, lag_name, unit : int, str, str
        The lag that matters, what it is, and what a step is.
    title : str
        What the comparison shows.
    """

    growths: Mapping[str, ReachByLag]
    lag: int
    lag_name: str
    unit: str
    title: str
