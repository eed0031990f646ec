"""What would help a network whose gradients vanish or explode, and why; the numbers come from the verdict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .._results import Result
from .words import factor, short

#: Cells whose units carry their state by a factor of their own: what it is called, and what raises it.
LEAKS = {
    "lstm": ("the forget gate", "Raise the forget gate's bias by about {shift}"),
    "gru": ("the update gate", "Raise the update gate's bias by about {shift}"),
    "gru_reset_before": ("the update gate", "Raise the update gate's bias by about {shift}"),
    "gru_delayed": ("the update gate", "Raise the update gate's bias by about {shift}"),
    "gated_unit": ("the copying gate", "Raise the gate's bias by about {shift}"),
    "mgu": ("one minus the gate", "Lower the gate's bias by about {shift}"),
    "continuous": ("1 - alpha", "Sample with a smaller step dt, or give the units longer time constants tau"),
}


def leak_words(net: Any) -> tuple[str, str]:
    """What the factor of a unit's own is called, and what raises it."""
    base = net.cell.name.removesuffix("_dropout").removesuffix("_scaled")
    return LEAKS.get(
        base, ("its own path", "Raise the factor by which a unit keeps its state, in logits by about {shift}")
    )


@dataclass(frozen=True)
class Remedy(Result):
    """What to change ("clip", "initialization", "gate bias", "inputs", "window", "architecture") and why."""

    kind: str
    advice: str


def against_vanishing(net: Any, d: dict[str, float], saturated: float) -> list[Remedy]:
    """Remedies, the likeliest first. ``d`` are the verdict's numbers; what is worked out here is added to them."""
    out = []
    if d["saturated"] > saturated:
        advice = "Scale inputs and weights down until the units leave the flat ends of the activation."
        out.append(Remedy("inputs", advice))
    if np.isfinite(d["leak_median"]) and d["leak_median"] < d["leak_needed"]:
        d["gate_shift"] = logit(d["leak_needed"]) - logit(d["leak_median"])
        advice = leak_words(net)[1].format(shift=short(d["gate_shift"]))
        out.append(Remedy("gate bias", f"{advice}: the median unit then carries its state {d['wanted']:.0f} steps."))
    if np.isfinite(d["log_a_priori"]):
        out.append(Remedy("initialization", _start(d)))
        if net.cell.name != "continuous":
            advice = "Use an LSTM or GRU: their state has a path of its own past W and the activation."
            out.append(Remedy("architecture", advice))
    elif np.isfinite(d["leak_median"]) and not out:
        advice = "The median unit does carry its state this far; let the loss reach it (readout, skip connections)."
        out.append(Remedy("architecture", advice))
    if np.isfinite(d["horizon"]):
        steps = f"{d['horizon']:.0f} steps"
        out.append(Remedy("window", f"Until then backpropagation truncated at {steps} loses next to nothing."))
    return out


def _start(d: dict[str, float]) -> str:
    """Which W to start from, for one activation around one matrix."""
    lam, slope = short(d["lam"]), short(d["slope"])
    if d["log_a_priori"] < -1e-6:
        d["target_lam"] = 1 / d["gamma"]
        return (
            f"Start from an orthogonal W with singular values {short(d['target_lam'])}: at {lam} no input can keep the "
            "gradient from shrinking."
        )
    if d["slope"] == 0:
        return "Start with biases or inputs that keep the units active: at present none of them passes any gradient."
    if d["lam"] * d["slope"] < 1:
        d["target_lam"] = 1 / d["slope"]
        return (
            f"W stretches by at most {lam} and the activation passes {slope} on average: start from an orthogonal W "
            f"with singular values up to {short(d['target_lam'])}, or scale the inputs down, so that the slope comes "
            "near its largest."
        )
    return (
        f"Start from an orthogonal W, or the identity with relu units: one direction of W stretches by {lam}, but the "
        "gradient does not stay in it."
    )


def against_explosion(net: Any, d: dict[str, float], grown: float) -> list[Remedy]:
    """Remedies, the likeliest first; see :func:`against_vanishing`."""
    growth = factor(d["largest_rare_log_ratio"])
    out = [
        Remedy(
            "clip",
            f"Clip the gradient's norm: a growth by {growth} makes one step undo many, while its direction is of use.",
        )
    ]
    if np.isfinite(d["log_a_priori"]):
        d["target_lam"] = 1 / d["gamma"]
        advice = (
            f"Scale W so that its largest singular value, now {short(d['lam'])}, is at most {short(d['target_lam'])}: "
            "growth is then impossible."
        )
        out.append(Remedy("initialization", advice))
    elif np.isfinite(d["lam"]):
        advice = f"Scale the recurrent weights down: their largest singular value is {short(d['lam'])}."
        out.append(Remedy("initialization", advice))
    steps = f"{d['grown_lag']:.0f} steps"
    out.append(Remedy("window", f"Truncate at {steps}, where growth passes ×{grown:g} for one step in ten."))
    return out


def logit(p: float) -> float:
    """ln(p/(1 - p)); a factor that a float cannot tell from 0 counts as the smallest one it can."""
    p = max(p, np.finfo(float).tiny)
    return float(np.log(p) - np.log1p(-p))
