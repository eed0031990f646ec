"""Results that only the report of the built-in example has."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .._results import Result


@dataclass(frozen=True)
class Forecast(Result):
    """Root mean square error by forecast horizon, of networks and of baselines, in ``unit``."""

    horizon: NDArray[np.int64]
    errors: dict[str, NDArray[np.float64]]
    baselines: dict[str, NDArray[np.float64]]
    unit: str
    horizon_unit: str
    title: str


@dataclass(frozen=True)
class TrainingCurves(Result):
    """Loss of every minibatch, and its running mean, by network."""

    losses: dict[str, NDArray[np.float64]]
    smooth: dict[str, NDArray[np.float64]]
    title: str


def running_mean(values: NDArray, width: int) -> NDArray[np.float64]:
    """Mean of the last ``width`` values, of fewer at the start."""
    sums = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    end = np.arange(1, len(values) + 1)
    start = np.maximum(end - width, 0)
    return (sums[end] - sums[start]) / (end - start)
