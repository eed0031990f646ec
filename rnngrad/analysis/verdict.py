"""A verdict in plain words: does the gradient vanish, explode or arrive, why, and what would help.

The rules are few and stated here. Gradients are compared with their own size at the step of the loss; "far enough" is
a number of steps that the caller names (or WANTED).

- exploding: one reference step in ten grows by more than GROWN within the wanted lag;
- vanishing: at the wanted lag the median gradient is below LOST of its size;
- healthy: neither.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import _checks
from .._results import Result
from ..dynamics.rollout import Trajectory
from ..losses import Loss
from ..network import Network
from .memory import horizon
from .reach import GradientReach, gradient_reach, steps_with_loss
from .remedies import Remedy, against_explosion, against_vanishing, leak_words
from .saturation import Saturation, saturation
from .step_bounds import StepBounds, step_bounds
from .time_constants import leak_rates
from .words import factor, short

WANTED = 100  # steps that a gradient should travel when nobody says how many
LOST = 1e-3  # a gradient below this share of its size does not teach
GROWN = 1e3  # growth that makes one step of gradient descent leap
RARE = 0.9  # quantile of the reference steps that decides on explosion: one in ten is enough to break training
SATURATED = 0.25  # share of unit-steps at the flat ends of the activation that counts as a cause
REFERENCE_STEPS = 64


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
    numbers, thresholds : dict
        Every number in the text by name, and the constants of the rules. NaN where a number does not apply.
    """

    label: str
    summary: str
    reasons: tuple[str, ...]
    remedies: tuple[Remedy, ...]
    numbers: dict[str, float]
    thresholds: dict[str, float]

    def __str__(self) -> str:
        lines = [self.summary, *(f"- {reason}" for reason in self.reasons)]
        return "\n".join([*lines, *(f"Try ({item.kind}): {item.advice}" for item in self.remedies)])


def verdict(
    traj: Trajectory,
    loss: Loss,
    *,
    wanted: int | None = None,
    reach: GradientReach | None = None,
    bounds: StepBounds | None = None,
    saturated: Saturation | None = None,
) -> Verdict:
    """Judge a network's gradients along a trajectory by the rules of this module.

    Parameters
    ----------
    traj : Trajectory
    loss : Loss
    wanted : int
        Lag that the gradient should reach; by default WANTED = 100 steps, or what the record has room for.
    reach, bounds, saturated
        Results already at hand; what is missing is computed (at most 64 reference steps).

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
    d = _measure(traj, wanted, reach, bounds, saturated)
    remedies: list[Remedy] = []
    if d["largest_rare_log_ratio"] >= np.log(GROWN):
        label = "exploding"
        remedies = against_explosion(traj.net, d, GROWN)
    elif d["median_log_ratio"] < np.log(LOST):
        label = "vanishing"
        remedies = against_vanishing(traj.net, d, SATURATED)
    else:
        label = "healthy"
    return Verdict(
        label,
        _summary(label, d),
        tuple(_reasons(label, traj.net, d)),
        tuple(remedies),
        d,
        {"wanted": WANTED, "lost": LOST, "grown": GROWN, "rare": RARE, "saturated": SATURATED},
    )


def _measure(
    traj: Trajectory, wanted: int, reach: GradientReach, bounds: StepBounds, saturated: Saturation | None
) -> dict[str, float]:
    """Every number that a sentence may need; logarithms are natural."""
    median, rare = reach.quantiles((0.5, RARE))
    within = horizon(reach, LOST)
    lag = int(np.flatnonzero(reach.lags == wanted)[0])
    if np.isnan(median[lag]):
        raise ValueError(f"no reference step with a loss has {wanted} steps before it; give a smaller wanted lag")
    rare = rare[: lag + 1]
    peak = int(np.nanargmax(rare))
    grown = np.flatnonzero(rare >= np.log(GROWN))
    leak = np.concatenate([np.zeros(0), *leak_rates(traj).values()])
    values = [] if saturated is None else [row for row, kind in enumerate(saturated.kinds) if kind == "value"]
    valid = np.arange(traj.T)[:, None] < traj.lengths
    numbers = {
        "wanted": wanted,
        "median_log_ratio": median[lag],
        "log_rate": median[lag] / wanted,
        "rate": np.exp(median[lag] / wanted),
        "largest_rare_log_ratio": rare[peak],
        "largest_rare_lag": reach.lags[peak],
        "grown_lag": reach.lags[grown[0]] if grown.size else np.nan,
        "horizon": within.median,
        "longest": within.longest,
        "gamma": bounds.gamma,
        "lam": bounds.lam,
        "log_a_priori": np.median(bounds.log_a_priori[valid]),
        "a_priori": np.exp(np.median(bounds.log_a_priori[valid])),
        "factored": np.exp(np.mean(bounds.log_factored[valid])),
        "saturated": np.mean(saturated.share[values]) if saturated and values else np.nan,
        "saturated_percent": 100 * np.mean(saturated.share[values]) if saturated and values else np.nan,
        "slope": np.mean(saturated.slope[values]) if saturated and values else np.nan,
        "leak_median": np.exp(np.median(leak)) if leak.size else np.nan,
        "leak_longest": np.exp(leak.max()) if leak.size else np.nan,
        "leak_needed": np.exp(np.log(LOST) / wanted),
    }
    return {name: float(value) for name, value in numbers.items()}


def _summary(label: str, d: dict[str, float]) -> str:
    wanted, change = f"{d['wanted']:.0f}", factor(d["median_log_ratio"])
    if label == "exploding":
        return (
            f"The gradient explodes: at lag {d['largest_rare_lag']:.0f} one reference step in ten has grown by "
            f"{factor(d['largest_rare_log_ratio'])} or more; the median over {wanted} steps is {change}."
        )
    if label == "vanishing":
        at = f"from lag {d['horizon']:.0f} on" if np.isfinite(d["horizon"]) else f"beyond lag {d['longest']:.0f}"
        return (
            f"The gradient vanishes: {at}, half of the reference steps keep less than {LOST:g} of it; at lag {wanted} "
            f"the median is {change}."
        )
    how = "just arrives" if d["median_log_ratio"] < np.log(10 * LOST) else "arrives"
    return (
        f"The gradient {how}: over {wanted} steps the median changes by {change}, not below {LOST:g}, and not one "
        f"reference step in ten grows beyond ×{GROWN:g}."
    )


def _reasons(label: str, net: Any, d: dict[str, float]) -> list[str]:
    wanted = f"{d['wanted']:.0f}"
    out = [f"On average over {wanted} steps the gradient is multiplied by {short(d['rate'])} per step."]
    if np.isfinite(d["log_a_priori"]):
        bound = "the largest slope of the activation times the largest singular value of W"
        if net.cell.name == "continuous":
            bound = "1 - alpha, plus alpha times slope times the largest singular value of W,"
        if d["log_a_priori"] < 1e-6:
            out.append(
                f"It cannot grow: {bound} is {short(d['a_priori'])}, which bounds every step, whatever the input."
            )
        else:
            out.append(f"The a-priori bound allows growth: {bound} is {short(d['a_priori'])}.")
        if np.isfinite(d["slope"]):
            out.append(f"Along the trajectory the slope of the activation is {short(d['slope'])} on average.")
    elif label == "exploding":
        out.append(f"The norms of the paths through a step allow a factor of {short(d['factored'])} per step.")
    elif label == "vanishing":
        bound = f"The norms of the paths through a step bound it by a factor of {short(d['factored'])} on average"
        out.append(
            f"{bound}: {'that alone makes it vanish' if d['factored'] < 1 else 'they do not force it to vanish'}."
        )
    if d["saturated"] > SATURATED and label == "vanishing":
        share = short(d["saturated_percent"])
        out.append(f"{share} % of the values are saturated, where the activation passes next to nothing.")
    if np.isfinite(d["leak_median"]):
        name = leak_words(net)[0]
        out.append(
            f"By {name} alone the median unit keeps {short(d['leak_median'])} of its state per step and the longest "
            f"{short(d['leak_longest'])}; to keep {LOST:g} over {wanted} steps takes {short(d['leak_needed'])}."
        )
        if d["rate"] > d["leak_longest"]:
            out.append(f"The gradient outlasts that: loops through the weights carry it, not {name} of a single unit.")
    return out
