"""What would help a network whose gradients vanish or explode, and why; the numbers come from the verdict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from .._results import Result
from ..network import Network
from .lag_ranges import GROWN
from .words import factor, short

CLIPPED_FROM = 10.0  # growth up to which a gradient counts as not yet exploded: its norm then is where to clip


class Leak(NamedTuple):
    """The factor by which a unit carries its own state: its name, the gate it comes from, and which way opens it."""

    name: str
    gate: str
    sign: int
    other: str = ""  # the gate that writes, where it is one of its own


LEAKS = {
    "lstm": Leak("the forget gate", "the forget gate", 1, "the input gate"),
    "gru": Leak("the update gate", "the update gate", 1),
    "gru_reset_before": Leak("the update gate", "the update gate", 1),
    "gru_delayed": Leak("the update gate", "the update gate", 1),
    "gated_unit": Leak("the copying gate", "the gate", 1),
    "mgu": Leak("one minus the gate", "the gate", -1),
    "continuous": Leak("1 - alpha", "", 0),
}


def leak_words(net: Any) -> Leak:
    """How a unit's own path is called in this network."""
    base = net.cell.name.removesuffix("_dropout").removesuffix("_scaled") if isinstance(net, Network) else ""
    return LEAKS.get(base, Leak("its own path", "the gates that keep the state", 1))


@dataclass(frozen=True)
class Remedy(Result):
    """What to change and why.

    Attributes
    ----------
    kind : str
        "clip", "initialization", "gate bias", "time constant", "inputs", "window" or "architecture".
    advice : str
    """

    kind: str
    advice: str


def against_vanishing(net: Any, d: dict[str, float]) -> list[Remedy]:
    """Remedies, the likeliest first. ``d`` are the verdict's numbers; what is worked out here is added to them."""
    out = []
    if d["saturated"] > d["saturated_limit"]:
        advice = "Scale inputs and weights down until the units leave the flat ends of the activation."
        out.append(Remedy("inputs", advice))
    if np.isfinite(d["leak_median"]) and d["leak_median"] < d["leak_needed"]:
        out.append(_longer_leak(net, d))
    if np.isfinite(d["log_a_priori"]):
        out.append(Remedy("initialization", _start(d)))
        if net.cell.name != "continuous":
            advice = "Use an LSTM or GRU: their state has a path of its own past W and the activation."
            out.append(Remedy("architecture", advice))
    elif np.isfinite(d["leak_median"]) and not out:
        advice = "The median unit does carry its state this far; let the loss reach it (readout, skip connections)."
        out.append(Remedy("architecture", advice))
    if np.isfinite(d["window"]):
        out.append(
            Remedy(
                "window",
                f"Until then backpropagation truncated at {_steps(d['window'])} will do: it differs from the whole "
                f"gradient by at most {short(d['window_percent'])} % of its norm.",
            )
        )
    return out


def _longer_leak(net: Any, d: dict[str, float]) -> Remedy:
    """The bias or time constant with which a unit by itself carries its state over the wanted lag."""
    wanted, leak = f"{d['wanted']:.0f}", leak_words(net)
    if leak.sign == 0:
        d["tau_needed"] = net.dt / (1 - d["leak_needed"])
        return Remedy(
            "time constant",
            f"Give the units time constants tau of about {short(d['tau_needed'])} and longer (now {short(d['tau'])} in "
            f"the median, dt {short(d['dt'])}): by itself a unit then carries its state {wanted} steps.",
        )
    d["gate_shift"] = logit(d["leak_needed"]) - logit(d["leak_median"])
    way = "Raise" if leak.sign > 0 else "Lower"
    advice = (
        f"{way} the bias of {leak.gate} by about {short(d['gate_shift'])}: the median unit then carries its state "
        f"{wanted} steps."
    )
    if d["wanted"] > 2:
        d["chrono_range"] = d["wanted"] - 1
        d["chrono_bias"] = leak.sign * float(np.log(d["chrono_range"]))
        advice += (
            f" To start anew, draw it as {'' if leak.sign > 0 else '-'}ln U(1, {d['chrono_range']:.0f}), which goes to "
            f"{short(d['chrono_bias'])}{f', and that of {leak.other} as its negative' if leak.other else ''} (chrono "
            "initialization, Tallec & Ollivier): the units' memories then spread over all lags up to that."
        )
    return Remedy("gate bias", advice)


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


def against_explosion(net: Any, d: dict[str, float]) -> list[Remedy]:
    """Remedies, the likeliest first; see :func:`against_vanishing`."""
    out = [Remedy("clip", _clip(d))]
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
    steps = _steps(d["grown_lag"])
    out.append(Remedy("window", f"Truncate at {steps}, where growth passes ×{GROWN:g} for one step in ten."))
    return out


def _clip(d: dict[str, float]) -> str:
    """At which norm, taken from the norms that were measured."""
    growth = factor(d["largest_rare_log_ratio"])
    why = f"a growth by {growth} makes one step undo many, while its direction is of use."
    if np.isfinite(d["median_norm"]):
        return (
            f"Clip the gradient's norm at {short(d['clip'])}, the median of the {d['norms']:.0f} norms given (largest "
            f"{short(d['largest_norm'])}): {why}"
        )
    if not d["clip"] > 0:
        return f"Clip the gradient's norm: {why}"
    whole = f"; the whole of it has {short(d['full_norm'])}" if np.isfinite(d["full_norm"]) else ""
    return (
        f"Clip the gradient's norm at {short(d['clip'])}, what it has while nine steps in ten have grown by less than "
        f"×{CLIPPED_FROM:g} (truncated at {_steps(d['clip_window'])}{whole}): {why}"
    )


def _steps(count: float) -> str:
    return f"{count:.0f} step{'' if count == 1 else 's'}"


def logit(p: float) -> float:
    """ln(p/(1 - p)); a factor that a float cannot tell from 0 counts as the smallest one it can."""
    p = max(p, np.finfo(float).tiny)
    return float(np.log(p) - np.log1p(-p))
