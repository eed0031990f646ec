"""A verdict in plain words: does the gradient vanish, explode or arrive, over which lags, why, and what would help.

The rules are few and stated here. Gradients are compared with their own size at the step of the loss; "far enough" is
a number of steps that the caller names (or WANTED).

- exploding: one reference step in ten grows by more than GROWN within the wanted lag;
- vanishing: at the wanted lag the median gradient is below LOST of its size;
- healthy: neither.

The same rule labels each decade of the lag axis by itself, see :mod:`rnngrad.analysis.lag_ranges`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _checks
from .._results import Result
from ..dynamics.placed import lengths
from ..gradients.bptt import bptt
from ..gradients.truncated import truncated_bptt
from ..losses import Loss
from ..network import Network
from .lag_ranges import GROWN, LOST, RARE, LagRange, label_of, lag_ranges
from .memory import horizon
from .reach import GradientReach, gradient_reach, steps_with_loss
from .reasons import in_one_sentence, reasons
from .remedies import CLIPPED_FROM, Remedy, against_explosion, against_vanishing
from .saturation import Saturation, saturation
from .step_bounds import StepBounds, step_bounds
from .time_constants import leak_rates
from .truncation import TruncationBias, truncation_bias

WANTED = 100  # steps that a gradient should travel when nobody says how many
SATURATED = 0.25  # share of unit-steps at the flat ends of the activation that counts as a cause
WINDOW_BIAS = 0.1  # relative bias at which a truncated gradient will do
REFERENCE_STEPS = 64
_COST = 6e10  # multiplications that the search for a window may cost unasked: a second or two


@dataclass(frozen=True)
class Verdict(Result):
    """Verdict on a network's gradients.

    Attributes
    ----------
    label : str
        "vanishing", "exploding" or "healthy".
    summary : str
        One sentence.
    reasons : tuple of str
        Why, each with the number that shows it.
    remedies : tuple of Remedy
        What would help, the likeliest first; empty for a healthy network.
    ranges : tuple of LagRange
        The label of each decade of the lag axis by itself, as far as the gradient was followed.
    lags, median, rare : ndarray (L,)
        What the rules are about: quantiles 0.5 and RARE of log(||dL_t/ds_{t-lag}||/||dL_t/ds_t||) at each lag.
    numbers, thresholds : dict
        Every number in the text by name, and the constants of the rules. NaN where a number does not apply.
    """

    label: str
    summary: str
    reasons: tuple[str, ...]
    remedies: tuple[Remedy, ...]
    ranges: tuple[LagRange, ...]
    lags: NDArray[np.int64]
    median: NDArray[np.float64]
    rare: NDArray[np.float64]
    numbers: dict[str, float]
    thresholds: dict[str, float]

    def __str__(self) -> str:
        lines = [self.summary, *(f"- {reason}" for reason in self.reasons)]
        return "\n".join([*lines, *(f"Try ({item.kind}): {item.advice}" for item in self.remedies)])


def verdict(
    traj: Any,
    loss: Loss,
    *,
    wanted: int | None = None,
    norms: Any = None,
    reach: GradientReach | None = None,
    bounds: StepBounds | None = None,
    saturated: Saturation | None = None,
    truncation: TruncationBias | None = None,
) -> Verdict:
    """Judge a network's gradients along a trajectory by the rules of this module.

    Parameters
    ----------
    traj : Trajectory, DeviceTrajectory or StackTrajectory
        Of one on a GPU statistics alone come to the host.
    loss : Loss
    wanted : int
        Lag that the gradient should reach; by default WANTED = 100 steps, or what the record has room for.
    norms : array (K,)
        Gradient norms of past updates, such as ``fit(...).norm_history``: their median is where to clip. Without them
        it is the norm of the gradient truncated where it has not exploded yet.
    reach, bounds, saturated, truncation
        Results already at hand; what is missing is computed (at most 64 reference steps, and windows that take a
        second or two).

    Returns
    -------
    Verdict

    Raises
    ------
    ValueError
        ``wanted`` is out of range, or the loss is zero everywhere.
    """
    if reach is None:
        last = int(steps_with_loss(traj, loss)[-1])
        lag = min(WANTED, last) if wanted is None else _checks.integer("wanted", wanted, 1, last)
        reach = gradient_reach(traj, loss, times=steps_with_loss(traj, loss, lag, REFERENCE_STEPS), max_lag=lag)
    limit = int(min(reach.lags[-1], reach.times.max()))
    wanted = min(WANTED, limit) if wanted is None else _checks.integer("wanted", wanted, 1, limit)
    bounds = step_bounds(traj) if bounds is None else bounds
    if saturated is None and isinstance(traj.net, Network):
        saturated = saturation(traj)
    median, rare = reach.quantiles((0.5, RARE))
    at = int(np.flatnonzero(reach.lags == wanted)[0])
    if np.isnan(median[at]):
        raise ValueError(f"no reference step with a loss has {wanted} steps before it; give a smaller wanted lag")
    label = label_of(median[at], rare[: at + 1])
    d = _measure(reach, median, rare, at) | _causes(traj, wanted, bounds, saturated)
    remedies: list[Remedy] = []
    if label == "exploding":
        d |= _norms(traj, loss, norms, reach.lags, rare)
        remedies = against_explosion(traj.net, d)
    elif label == "vanishing":
        d["window"], d["window_percent"] = _window(traj, loss, truncation)
        remedies = against_vanishing(traj.net, d)
    ranges = lag_ranges(reach.lags, median, rare)
    closed = _closed(saturated)
    d |= {f"closed_{name}_percent": share for name, share in closed.items()}
    return Verdict(
        label,
        in_one_sentence(label, d),
        tuple(reasons(label, traj.net, d, ranges, closed)),
        tuple(remedies),
        ranges,
        reach.lags,
        median,
        rare,
        {name: float(value) for name, value in d.items()},
        {"wanted": WANTED, "lost": LOST, "grown": GROWN, "rare": RARE, "saturated": SATURATED,
         "clipped_from": CLIPPED_FROM, "window_bias": WINDOW_BIAS},
    )  # fmt: skip


def _measure(reach: GradientReach, median: NDArray, rare: NDArray, at: int) -> dict[str, float]:
    """What becomes of the gradient; logarithms are natural."""
    within, wanted = horizon(reach, LOST), reach.lags[at]
    rare = rare[: at + 1]
    peak = int(np.nanargmax(rare))
    grown = np.flatnonzero(rare >= np.log(GROWN))
    return {
        "wanted": wanted,
        "median_log_ratio": median[at],
        "log_rate": median[at] / wanted,
        "rate": np.exp(median[at] / wanted),
        "largest_rare_log_ratio": rare[peak],
        "largest_rare_lag": reach.lags[peak],
        "grown_lag": reach.lags[grown[0]] if grown.size else np.nan,
        "horizon": within.median,
        "longest": within.longest,
    }


def _causes(traj: Any, wanted: int, bounds: StepBounds, saturated: Saturation | None) -> dict[str, float]:
    """What the network allows: weights, slopes, leaks."""
    net = traj.net
    leak = np.concatenate([np.zeros(0), *leak_rates(traj).values()])
    values = [] if saturated is None else [row for row, kind in enumerate(saturated.kinds) if kind == "value"]
    valid = np.arange(traj.T)[:, None] < traj.lengths
    share = np.mean(saturated.share[values]) if saturated and values else np.nan
    continuous = isinstance(net, Network) and net.tau is not None
    return {
        "gamma": bounds.gamma,
        "lam": bounds.lam,
        "log_a_priori": np.median(bounds.log_a_priori[valid]),
        "a_priori": np.exp(np.median(bounds.log_a_priori[valid])),
        "factored": np.exp(np.mean(bounds.log_factored[valid])),
        "saturated": share,
        "saturated_percent": 100 * share,
        "saturated_limit": SATURATED,
        "slope": np.mean(saturated.slope[values]) if saturated and values else np.nan,
        "leak_median": np.exp(np.median(leak)) if leak.size else np.nan,
        "leak_longest": np.exp(leak.max()) if leak.size else np.nan,
        "leak_needed": np.exp(np.log(LOST) / wanted),
        "tau": np.median(net.tau) if continuous else np.nan,
        "dt": net.dt if continuous else np.nan,
    }


def _closed(saturated: Saturation | None) -> dict[str, float]:
    """Percent of the time that each gate is closed, of those that are closed for long."""
    if saturated is None:
        return {}
    gates = [i for i, kind in enumerate(saturated.kinds) if kind == "gate" and saturated.low[i].mean() > SATURATED]
    return {saturated.names[i]: 100 * float(saturated.low[i].mean()) for i in gates}


def _norms(traj: Any, loss: Loss, norms: Any, lags: NDArray, rare: NDArray) -> dict[str, float]:
    """The norm at which to clip, and what it was taken from."""
    if norms is not None:
        norms = _checks.array("norms", norms, ("K",))
        if not norms.size or norms.min() < 0:
            raise ValueError(f"norms holds {norms.size} numbers; it must hold norms of gradients, at least one")
        middle = np.median(norms)
        return {"clip": middle, "median_norm": middle, "norms": norms.size, "largest_norm": norms.max()}
    window = int(lags[np.argmax(rare >= np.log(CLIPPED_FROM))])
    with np.errstate(over="ignore", invalid="ignore"):  # the whole gradient may be beyond floats; that is said
        full = bptt(traj, loss).norm()
    return {
        "clip": truncated_bptt(traj, loss, window=window).norm(),
        "clip_window": window,
        "full_norm": full if np.isfinite(full) else np.nan,
        "median_norm": np.nan,
    }


def _window(traj: Any, loss: Loss, truncation: TruncationBias | None) -> tuple[float, float]:
    """(smallest window that will do, the percentage it is good to); inf where none was found, NaN where none is asked.

    The readout has no memory to cut, so it is left out of the comparison.
    """
    if truncation is None:
        truncation = affordable_truncation(traj, loss)
    if truncation is None:
        return np.nan, np.nan
    wanted = truncation.wanted if truncation.criterion == "bias" else np.nan
    return truncation.smallest, 100 * wanted


def affordable_truncation(traj: Any, loss: Loss) -> TruncationBias | None:
    """Truncation bias of what has a memory, over windows that take a second or two; None where there is no gradient.

    "No gradient" is an exact zero of all parameters that reach through time, or a full gradient beyond floats.
    """
    net = traj.net
    with np.errstate(over="ignore", invalid="ignore"):
        grads = dict(bptt(traj, loss).parameters())
    names = [name for name in grads if name not in ("V", "c") or getattr(net, "feedback", False)]
    norms = {name: float(lengths(g.reshape(1, g.size))[0]) for name, g in grads.items()}
    if not np.isfinite(list(norms.values())).all() or not any(norms[name] for name in names):
        return None
    longest = int(np.clip(_COST // (traj.T * traj.B * _multiplications(net)), 1, traj.T))
    return truncation_bias(traj, loss, wanted=WINDOW_BIAS, parameters=names, longest=longest)


def _multiplications(net: Any) -> int:
    """Of a row with the Jacobian of one step and with what makes parameter gradients of it."""
    return 2 * sum(int(value.size) for name, value in _parameters(net) if name[0] in "WU") + net.N**2 * (
        not isinstance(net, Network)
    )


def _parameters(net: Any) -> Any:
    return net.parameters.items() if isinstance(net.parameters, dict) else net.parameters()
