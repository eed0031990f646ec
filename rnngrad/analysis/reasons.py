"""A verdict's sentences: what happens to the gradient, and why, each with the number that shows it."""

from __future__ import annotations

from typing import Any

import numpy as np

from .lag_ranges import GROWN, LOST, LagRange
from .remedies import leak_words
from .words import factor, short


def in_one_sentence(label: str, d: dict[str, float]) -> str:
    """The summary; ``d`` are the verdict's numbers."""
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


def by_lag(ranges: tuple[LagRange, ...]) -> str:
    """The ranges of lags with their labels, and the rate within the last."""
    last = ranges[-1]
    rate = f" ({factor(last.log_rate)} a step)" if np.isfinite(last.log_rate) else ""
    return f"By lag: {', '.join(map(str, ranges))}{rate}."


def reasons(label: str, net: Any, d: dict[str, float], ranges: tuple[LagRange, ...], closed: dict[str, float]) -> list:
    """Why, each with its number; ``closed`` are the shares of time (in percent) that closed gates are closed."""
    wanted = f"{d['wanted']:.0f}"
    out = [by_lag(ranges)] if ranges else []
    out.append(f"On average over {wanted} steps the gradient is multiplied by {short(d['rate'])} per step.")
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
    if label == "vanishing":
        if d["saturated"] > d["saturated_limit"]:
            share = short(d["saturated_percent"])
            out.append(f"{share} % of the values are saturated, where the activation passes next to nothing.")
        out += [f"The gate {name} is closed {short(share)} % of the time." for name, share in closed.items()]
    if np.isfinite(d["leak_median"]):
        name = leak_words(net).name
        out.append(
            f"By {name} alone the median unit keeps {short(d['leak_median'])} of its state per step and the longest "
            f"{short(d['leak_longest'])}; to keep {LOST:g} over {wanted} steps takes {short(d['leak_needed'])}."
        )
        if d["rate"] > d["leak_longest"]:
            out.append(f"The gradient outlasts that: loops through the weights carry it, not {name} of a single unit.")
    return out
