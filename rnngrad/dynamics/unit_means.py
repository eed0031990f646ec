"""Means over the steps of every unit, made where a trajectory lies; the few numbers that come of it are on the host."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._arrays import on_host
from .._math import ACTIVATIONS
from ..kernels import backend as find_backend
from ..unit_terms import LOG_MAGNITUDE, SQUARE


def activation_means(
    traj: Any, z: Any, column: int, activation: str, levels: tuple[float, float, float]
) -> NDArray[np.float64]:
    """Shares of the steps at the lower and upper end, mean value and mean slope of an activation, (4, n).

    Of column ``column`` of pre-activations z (T, B, C, n), padded steps apart; ``levels`` are those of
    :func:`rnngrad.unit_terms.terms`.
    """
    return _means(traj, z, column, ACTIVATIONS[activation], levels, 0)


def log_magnitude_means(traj: Any, z: Any, column: int, first: int) -> NDArray[np.float64]:
    """Mean ln|z| (n,) of column ``column`` of z (T, B, C, n) from step ``first`` on, padded steps apart."""
    return _means(traj, z, column, LOG_MAGNITUDE, (0.0, 0.0, 0.0), first)[2]


def mean_square(traj: Any, samples: NDArray[np.int64]) -> float:
    """Mean of the squares of all numbers of the states s_0 … s_T of some samples."""
    ends = np.zeros(traj.B, np.int64)
    ends[samples] = traj.T + 1
    sums = find_backend(traj.backend).unit_sums(SQUARE)
    parts = [on_host(sums(traj.states, s, 0, ends, (0.0, 0.0, 0.0)))[2] for s in range(traj.net.state_shape[0])]
    return float(np.mean(parts) / ends.sum())


def _means(
    traj: Any, z: Any, column: int, kind: int, levels: tuple[float, float, float], first: int
) -> NDArray[np.float64]:
    sums = find_backend(traj.backend).unit_sums(kind)(z, column, first, traj.lengths, levels)
    return on_host(sums) / np.maximum(traj.lengths - first, 0).sum()
