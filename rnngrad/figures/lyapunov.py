"""Lyapunov exponents by rank, with their intervals."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from .style import BLUE, ORANGE, RED, title

_ROUNDING = 1e-7  # an exponent that is nearer to 0 is 0, whatever its interval


def draw(ax: Any, result: Any, sample: int = 0) -> Any:
    """Draw a :class:`rnngrad.LyapunovSpectrum` of one sample."""
    values, half = result.exponents[sample], (result.interval[sample, :, 1] - result.exponents[sample])
    rank = np.arange(1, len(values) + 1)
    live = np.isfinite(values)
    ax.axhline(0, color="#888888", lw=0.8)
    ax.errorbar(
        rank[live], values[live], np.nan_to_num(half[live]), fmt="o", ms=3, color=BLUE, ecolor=ORANGE, capsize=2,
        label="measured, with 95 % interval" if np.isfinite(half[live]).all() else "measured",
    )  # fmt: skip
    if not live.all():
        low = values[live].min() if live.any() else -1.0
        ax.plot(rank[~live], np.full((~live).sum(), low), "v", ms=4, color=RED, label=r"$-\infty$")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel(r"rank $i$")
    ax.set_ylabel(r"exponent $\lambda_i$ (1/step)")
    first, width = values[0], half[0]
    if first == -np.inf:
        says = "λ₁ = −∞: a step forgets everything"
    elif not np.isfinite(width):
        says = f"λ₁ = {first:.3g} per step; too few steps for an interval"
    else:
        sure = max(width, _ROUNDING)
        grows = "nearby states part" if first > sure else "nearby states meet" if first < -sure else "at the edge"
        says = f"λ₁ = {first:.3g} ± {width:.2g} per step: {grows}"
    says = f"Sample {sample}: {says}" if len(result.exponents) > 1 else says
    dimension = result.kaplan_yorke[sample]
    tail = f"; Kaplan-Yorke dimension {dimension:.3g} of {result.state_size}" if dimension > 0 else ""
    title(ax, says + tail)
    ax.legend(loc="best")
    return ax
