"""Bias and direction of the truncated gradient against its window."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..analysis.words import short
from .style import BLACK, BLUE, RED, legend_below, title

_ROUNDING = 1e-7  # what is nearer than this to the full gradient is the full gradient, on a figure


def draw(ax: Any, result: Any) -> Any:
    """Draw a :class:`rnngrad.analysis.truncation.TruncationBias`."""
    w = result.windows
    angle = 1 - result.cosine
    single = [bias for bias in result.parameter_bias.values() if np.any(bias > _ROUNDING)]
    for i, bias in enumerate(single):
        label = "bias of one parameter" if i == 0 else None
        ax.plot(w, np.where(bias > _ROUNDING, bias, np.nan), color=BLUE, lw=0.6, alpha=0.4, label=label)
    bias = np.where(result.bias > _ROUNDING, result.bias, np.nan)
    ax.plot(w, bias, "-", color=BLUE, lw=2, label=r"bias $\|g_w-g\|\,/\,\|g\|$")
    ax.plot(w, np.where(angle > _ROUNDING, angle, np.nan), "--", color=RED, lw=1.8, label="1 − cosine")
    level = result.wanted if result.criterion == "bias" else 1 - result.wanted
    if level > 0:
        ax.axhline(level, color="#888888", lw=0.8)
    if np.isfinite(result.smallest):
        ax.axvline(result.smallest, color=BLACK, lw=1, ls=":")
        ax.annotate(
            f"{result.smallest:.0f} steps", (result.smallest, 1), xycoords=("data", "axes fraction"), xytext=(4, -2),
            textcoords="offset points", va="top", fontsize=9,
        )  # fmt: skip
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlim(w[0], max(w[-1], w[0] + 1))
    ax.set_xlabel("window $w$ (steps)" if result.k1 == 1 else f"steps back $k_2$, every $k_1$ = {result.k1} steps")
    ax.set_ylabel("distance to the full gradient (relative)")
    title(ax, _message(result))
    legend_below(ax, 3)
    return ax


def _message(result: Any) -> str:
    kept = f"the bias at most {short(result.wanted)}" if result.criterion == "bias" else (
        f"the cosine at least {short(result.wanted)}"
    )  # fmt: skip
    if np.isfinite(result.smallest):
        return f"A window of {result.smallest:.0f} steps keeps {kept}"
    return f"No window up to {result.windows[-1]} steps keeps {kept}"
