"""How many steps a network's gradient remembers: the memory horizon and effective time constants."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _checks
from .._results import Result
from ..dynamics.jacobian import local_jacobians
from ..dynamics.rollout import Trajectory
from ..losses import Loss
from ..network import Network
from .products import SingularValues, singular_values
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
    longest : int
        Longest lag looked at.
    """

    eps: float
    times: NDArray[np.int64]
    horizon: NDArray[np.float64]
    censored: NDArray[np.bool_]
    median: float
    quartiles: NDArray[np.float64]
    longest: int


@dataclass(frozen=True)
class TimeConstants(Result):
    """Exponential rates of forgetting, and the time constants -1/rate they amount to.

    Attributes
    ----------
    chain_rate, gradient_rate : float
        Slope of the median log||Phi(t, t-lag)|| and log||dL_t/ds_{t-lag}|| against lag, per step, over the longer half
        of the lags (natural logarithm; positive for growth). NaN where it was not measured.
    state : str
        The state vector whose units leak by themselves ("c" of an LSTM, "h" of a GRU); "" where none does.
    leak_rate : ndarray (n,)
        Mean over time of ln|ds'_i/ds_i| at fixed gates: ln f_i of an LSTM, ln u_i of a GRU, ln(1 - alpha). Empty
        where there is no such path.
    """

    chain_rate: float
    gradient_rate: float
    state: str
    leak_rate: NDArray[np.float64]

    @property
    def chain_tau(self) -> float:
        """Steps in which ||Phi|| falls by e; inf where it does not fall."""
        return float(_tau(self.chain_rate))

    @property
    def gradient_tau(self) -> float:
        """Steps in which the gradient falls by e; inf where it does not fall."""
        return float(_tau(self.gradient_rate))

    @property
    def leak_tau(self) -> NDArray[np.float64]:
        """-1/<ln f_i> per unit, in steps."""
        return _tau(self.leak_rate)


def memory_horizon(
    traj: Trajectory, loss: Loss, eps: float = 1e-3, *, times: Any = None, max_lag: int | None = None
) -> MemoryHorizon:
    """Smallest lag from which the gradient of a step's loss stays below ``eps`` of what it is at that step.

    Parameters
    ----------
    traj : Trajectory
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
    return MemoryHorizon(eps, reach.times, steps, censored, median, np.array([low, high]), int(available.max()))


def time_constants(
    traj: Trajectory, *, reach: GradientReach | None = None, chain: SingularValues | None = None
) -> TimeConstants:
    """Effective time constants of the chain, of the gradient, and of each leaky unit by itself.

    A leak says how long a unit would remember alone; where the chain decays faster, the paths through W cancel it.

    Parameters
    ----------
    traj : Trajectory
    reach : GradientReach
        From :func:`rnngrad.analysis.reach.gradient_reach`; without it ``gradient_rate`` is NaN.
    chain : SingularValues
        From :func:`rnngrad.analysis.products.singular_values`; computed at the last step by default.

    Returns
    -------
    TimeConstants
    """
    chain = singular_values(traj) if chain is None else chain
    gradient = np.nan if reach is None else decay_rate(reach.lags, reach.log_ratio)
    state, leak = leak_rates(traj)
    return TimeConstants(decay_rate(chain.lags, chain.log_norm), gradient, state, leak)


def leak_rates(traj: Trajectory) -> tuple[str, NDArray[np.float64]]:
    """Name of the leaky state and mean ln|ds'_i/ds_i| of its units, (n,); ("", empty) where there is none."""
    none = "", np.zeros(0)
    if not isinstance(traj.net, Network):
        return none
    cell = traj.net.cell
    leaky = [s for s in range(cell.n_states) if cell.update_by_state[s][s]]
    if not leaky:
        return none
    partial = local_jacobians(traj).update_s[:, :, leaky[0], leaky[0]]  # (T, B, n)
    valid = np.arange(traj.T)[:, None] < traj.lengths
    with np.errstate(divide="ignore"):
        logs = np.log(np.abs(partial[valid].astype(np.float64)))
    return cell.states[leaky[0]], logs.mean(axis=0)


def decay_rate(lags: NDArray, log_norm: NDArray) -> float:
    """Least-squares slope of the median of log_norm[..., L] over the longer half of the lags; NaN below two points."""
    flat = log_norm.reshape(-1, len(lags))
    seen = lags[~np.isnan(flat).all(axis=0)]
    if not seen.size:
        return np.nan
    points = []
    for lag, column in zip(lags, flat.T, strict=True):
        kept = column[~np.isnan(column)]
        if 2 * lag >= seen.max() and lag > 0 and kept.size:
            points.append((lag, np.quantile(kept, 0.5, method="inverted_cdf")))
    x, y = np.array(points, dtype=float).reshape(-1, 2).T
    if np.isneginf(y).any():
        return -np.inf  # exactly zero within the lags looked at
    return float(np.polyfit(x, y, 1)[0]) if len(x) > 1 else np.nan


def _tau(rate: Any) -> NDArray[np.float64]:
    rate = np.asarray(rate, dtype=np.float64)
    with np.errstate(divide="ignore"):
        return np.where(np.isnan(rate), np.nan, np.where(rate < 0, -1 / rate, np.inf))


def _survival_quantiles(value: NDArray, event: NDArray, q: tuple[float, ...]) -> list[float]:
    """Kaplan-Meier quantiles of values of which those without an event are only known to be greater."""
    ends = np.unique(value[event])
    at_risk = np.array([np.count_nonzero(value >= end) for end in ends])
    events = np.array([np.count_nonzero(value[event] == end) for end in ends])
    gone = 1 - np.cumprod(1 - events / at_risk) if ends.size else np.zeros(0)
    # the sum of shares is rounded: half of the values must count as half
    return [float(ends[np.argmax(gone >= share - 1e-12)]) if (gone >= share - 1e-12).any() else np.inf for share in q]
