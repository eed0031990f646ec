"""Gradient norm against lag, one line per layer of a stack."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..analysis.words import factor
from .style import BLUE, GREEN, LN10, ORANGE, PINK, RED, SKY, decades, legend_below, span, title

_COLORS = (BLUE, ORANGE, GREEN, PINK, SKY, RED)


def draw(ax: Any, result: Any) -> Any:
    """Draw a :class:`rnngrad.analysis.reach.LayerReach`."""
    drawn, last = [], {}
    for i, (name, (low, median, high)) in enumerate(result.quantiles((0.1, 0.5, 0.9)).items()):
        color, number = _COLORS[i % len(_COLORS)], name.removeprefix("l")
        ax.fill_between(result.lags, low / LN10, high / LN10, color=color, alpha=0.12, lw=0)
        ax.plot(result.lags, median / LN10, color=color, lw=2, label=f"layer {number}, median and middle 80 %")
        drawn.append(median / LN10)
        seen = np.flatnonzero(np.isfinite(median))
        if seen.size:
            last[number] = (int(result.lags[seen[-1]]), float(median[seen[-1]]))
    decades(ax.yaxis, *span(*drawn, [0.0]))
    ax.set_xlim(0, max(int(result.lags[-1]), 1))
    ax.set_xlabel(r"lag $\ell$ (steps)")
    ax.set_ylabel(r"$\|dL_t/ds^{layer}_{t-\ell}\|\,/\,\|dL_t/ds_t\|$")
    parts = [f"{factor(change)} in layer {number}" for number, (_, change) in last.items()]
    lag = max((lag for lag, _ in last.values()), default=0)
    title(ax, f"After {lag} steps the median gradient is " + ", ".join(parts))
    legend_below(ax)
    return ax
