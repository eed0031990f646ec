"""How many steps a network's gradient remembers: the lag where it falls under eps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _checks
from .._results import Result
from ..losses import Loss
from .reach import GradientReach, gradient_reach


@dataclass(frozen=True)
class MemoryHorizon(Result):
    """Lags from which ||dL_t/ds_{t-lag}|| stays below eps ||dL_t/ds_t||.

    Attributes
    ----------
    eps : float
    times : ndarray (R,)
        Reference steps t.
    horizon : ndarray (B, R)
        In steps; NaN where there is no loss at step t.
    censored : ndarray (B, R) of bool
        The gradient was still above eps at the largest lag there was: the horizon is **greater** than the number given.
    median, quartiles : float, ndarray (2,)
        Over samples and reference steps, censored ones accounted for (Kaplan & Meier 1958); inf where more than
        that share is still above eps at the longest lag.
    by_time, by_sample : ndarray (R,), ndarray (B,)
        The same median over the samples at each reference step, and over the reference steps of each sample: whether
        the spread is one of time or of the batch. NaN where there is no loss.
    longest : int
        Longest lag looked at.
    """

    eps: float
    times: NDArray[np.int64]
    horizon: NDArray[np.float64]
    censored: NDArray[np.bool_]
    median: float
    quartiles: NDArray[np.float64]
    by_time: NDArray[np.float64]
    by_sample: NDArray[np.float64]
    longest: int


def memory_horizon(
    traj: Any, loss: Loss, eps: float = 1e-3, *, times: Any = None, max_lag: int | None = None
) -> MemoryHorizon:
    """Smallest lag from which the gradient of a step's loss stays below ``eps`` of what it is at that step.

    Parameters
    ----------
    traj : Trajectory, DeviceTrajectory or StackTrajectory
        As for :func:`gradient_reach`.
    loss : Loss
    eps : float
        In (0, 1).
    times : integers (R,)
        Reference steps in 1…T; all by default.
    max_lag : int
        Largest lag looked at; by default back to the first state.

    Returns
    -------
    MemoryHorizon

    Raises
    ------
    ValueError
        An argument is out of range, or no reference step has a loss.
    """
    return horizon(gradient_reach(traj, loss, times=times, max_lag=max_lag), eps)


def horizon(reach: GradientReach, eps: float = 1e-3) -> MemoryHorizon:
    """Memory horizon of a measured gradient reach; see :func:`memory_horizon`."""
    eps = _checks.number("eps", eps, 0.0, 1.0, open_low=True)
    ratio = reach.log_ratio  # (B, R, L)
    L = ratio.shape[-1]
    above = ratio >= np.log(eps)  # False where NaN
    there = above.any(axis=-1)  # lag 0 has ratio 1: False only where there is no loss
    if not there.any():
        raise ValueError(
            "no reference step has a loss; give times at which the loss has weight and the output an error"
        )
    last = L - 1 - np.argmax(above[..., ::-1], axis=-1)
    available = np.broadcast_to(np.minimum(reach.times, L - 1), last.shape)
    censored = there & (last == available)
    steps = np.where(there, np.where(censored, available, last + 1.0), np.nan)
    low, median, high = _survival_quantiles(steps[there], ~censored[there], (0.25, 0.5, 0.75))

    def medians(rows: Any) -> NDArray[np.float64]:
        return np.array(
            [_survival_quantiles(v[k], ~c[k], (0.5,))[0] if k.any() else np.nan for v, c, k in zip(*rows, strict=True)]
        )

    rows = steps, censored, there
    return MemoryHorizon(
        eps,
        reach.times,
        steps,
        censored,
        median,
        np.array([low, high]),
        medians([part.T for part in rows]),
        medians(rows),
        int(available.max()),
    )


def _survival_quantiles(value: NDArray, event: NDArray, q: tuple[float, ...]) -> list[float]:
    """Kaplan-Meier quantiles of values of which those without an event are only known to be greater."""
    ends = np.unique(value[event])
    at_risk = np.array([np.count_nonzero(value >= end) for end in ends])
    events = np.array([np.count_nonzero(value[event] == end) for end in ends])
    gone = 1 - np.cumprod(1 - events / at_risk) if ends.size else np.zeros(0)
    # the sum of shares is rounded: half of the values must count as half
    return [float(ends[np.argmax(gone >= share - 1e-12)]) if (gone >= share - 1e-12).any() else np.inf for share in q]
