"""Effective time constants: of the chain and the gradient by a fit, of single units by their gates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._results import Result
from ..dynamics.jacobian import local_jacobians
from ..dynamics.stack import StackTrajectory
from ..dynamics.unit_means import log_magnitude_means
from ..losses import Loss
from ..network import Network
from ..stack import DIRECTIONS
from .products import SingularValues, quantiles, singular_values
from .reach import GradientReach, gradient_reach


@dataclass(frozen=True)
class Decay(Result):
    """A straight line through log-norms against lag: norm ~ exp(rate lag).

    Attributes
    ----------
    rate : float
        Slope of the median, per step (natural logarithm; positive for growth); -inf where it is exactly zero within
        the fit, NaN where nothing was measured.
    quartiles : ndarray (2,)
        Of the slopes of the single lines, one per sample and reference step, that span all lags of the fit.
    deviation : float
        Root mean square of the median about the line, in natural logarithms: near 0 for an exponential.
    first, last : int
        Lags of the fit: the longer half of those measured, max/2 … max.
    """

    rate: float
    quartiles: NDArray[np.float64]
    deviation: float
    first: int
    last: int

    @property
    def tau(self) -> float:
        """-1/rate, the steps in which the norm falls by e; inf where it does not fall."""
        return float(_tau(self.rate))


@dataclass(frozen=True)
class TimeConstants(Result):
    """Exponential rates of forgetting, and the time constants -1/rate they amount to.

    Attributes
    ----------
    chain : Decay
        Of ||Phi(t, t-lag)||_2.
    gradient : Decay or None
        Of ||dL_t/ds_{t-lag}||; None where it was not measured.
    leaks : dict of ndarray (n,)
        By state vector whose units keep a part of themselves ("c" of an LSTM, "h" of a GRU, "s" of a leaky unit;
        "l0.c", "l1_reverse.h" in a stack): mean over time and batch of ln|ds'_i/ds_i| at fixed gates, that is ln f_i,
        ln u_i, ln(1 - alpha_i). Where gates act a step later, that of step 1 is a part of s_0 and does not count.
        Empty where no unit does.
    """

    chain: Decay
    gradient: Decay | None
    leaks: dict[str, NDArray[np.float64]]

    @property
    def state(self) -> str:
        """Names of the states in ``leaks``; "" where there is none."""
        return ", ".join(self.leaks)

    @property
    def leak_rate(self) -> NDArray[np.float64]:
        """All of ``leaks`` end to end."""
        return np.concatenate([np.zeros(0), *self.leaks.values()])

    @property
    def leak_tau(self) -> NDArray[np.float64]:
        """-1/<ln f_i> per unit, in steps."""
        return _tau(self.leak_rate)


def time_constants(
    traj: Any, loss: Loss | None = None, *, reach: GradientReach | None = None, chain: SingularValues | None = None
) -> TimeConstants:
    """Effective time constants of the chain, of the gradient, and of each leaky unit by itself.

    A leak says how long a unit would remember alone; where the chain decays faster, the paths through W cancel it,
    and where it decays more slowly, loops through W carry it. The rates of chain and gradient are least-squares slopes
    of the median log-norm over the longer half of the lags, past the transient that a non-normal chain may have.

    Parameters
    ----------
    traj : Trajectory, DeviceTrajectory or StackTrajectory
    loss : Loss
        For the gradient's rate, from all reference steps and lags.
    reach : GradientReach
        In place of a loss: from :func:`rnngrad.gradient_reach`, say at fewer steps.
    chain : SingularValues
        From :func:`rnngrad.singular_values`; computed at the last step by default.

    Returns
    -------
    TimeConstants

    Raises
    ------
    ValueError
        Both ``loss`` and ``reach`` are given, or the loss does not fit.
    """
    if loss is not None and reach is not None:
        raise ValueError("loss and reach are given both; one of them says what the gradient's rate is of")
    if loss is not None:
        reach = gradient_reach(traj, loss)
    chain = singular_values(traj) if chain is None else chain
    gradient = None if reach is None else decay(reach.lags, reach.log_ratio)
    return TimeConstants(decay(chain.lags, chain.log_norm), gradient, leak_rates(traj))


def leak_rates(traj: Any) -> dict[str, NDArray[np.float64]]:
    """Mean ln|ds'_i/ds_i| of the units of every state vector that keeps a part of itself, by its name; (n,) each."""
    if isinstance(traj, StackTrajectory):
        return {
            f"l{layer}{direction}.{state}": rate
            for layer, row in enumerate(traj.layers)
            for part, direction in zip(row, DIRECTIONS, strict=False)
            for state, rate in leak_rates(part).items()
        }
    if not isinstance(traj.net, Network):
        return {}
    cell = traj.net.cell
    leaky = [s for s in range(cell.n_states) if cell.update_by_state[s][s]]
    if not leaky:
        return {}
    S, partials = cell.n_states, local_jacobians(traj).update_s
    diagonals = partials.reshape(traj.T, traj.B, S * S, traj.net.n)
    out = {}
    for s in leaky:
        later = sum(map(bool, cell.update_by_state[s])) > 1 and traj.lengths.max() > 1
        first = int(later)  # without step 0 where the factor is a state, at first s_0's
        out[cell.states[s]] = log_magnitude_means(traj, diagonals, s * S + s, first)
    return out


def decay(lags: NDArray, log_norm: NDArray) -> Decay:
    """Line through the median of log_norm[..., L] over the longer half of the lags; NaN below two points."""
    lines = log_norm.reshape(-1, len(lags))
    nothing = np.full(2, np.nan)
    measured = ~np.isnan(lines).all(axis=0)
    last = int(lags[measured].max(initial=0))
    kept = measured & (2 * lags >= last) & (lags > 0)
    first = int(lags[kept].min(initial=last))
    if np.count_nonzero(kept) < 2:
        return Decay(np.nan, nothing, np.nan, first, last)
    x, lines = lags[kept].astype(float), lines[:, kept]
    median = quantiles(lines, (0.5,))[0]
    if np.isneginf(median).any():
        return Decay(-np.inf, nothing, np.nan, first, last)  # exactly zero within the lags looked at
    slope, start = np.polyfit(x, median, 1)
    whole = lines[np.isfinite(lines).all(axis=1)]
    slopes = np.polyfit(x, whole.T, 1)[0] if len(whole) else nothing
    deviation = np.sqrt(np.mean((median - start - slope * x) ** 2))
    return Decay(float(slope), np.quantile(slopes, (0.25, 0.75)), float(deviation), first, last)


def _tau(rate: Any) -> NDArray[np.float64]:
    rate = np.asarray(rate, dtype=np.float64)
    with np.errstate(divide="ignore"):
        return np.where(np.isnan(rate), np.nan, np.where(rate < 0, -1 / rate, np.inf))
