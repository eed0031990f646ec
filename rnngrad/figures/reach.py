"""Gradient norm against lag, one line per reference step."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..analysis.words import factor
from .style import BLUE, LN10, RED, decades, span, title


def draw(ax: Any, result: Any) -> Any:
    """Draw a :class:`rnngrad.analysis.reach.GradientReach`."""
    lines = (result.log_ratio / LN10).reshape(-1, len(result.lags))
    lines = lines[~np.isnan(lines[:, 0])]
    ax.plot(result.lags, lines.T, color=BLUE, lw=0.5, alpha=max(0.08, 1 / max(len(lines), 1)))
    median = result.quantiles((0.5,))[0] / LN10
    ax.plot(result.lags, median, color=RED, lw=2, label="median")
    decades(ax.yaxis, *span(lines, [0.0]))
    ax.set_xlim(0, max(int(result.lags[-1]), 1))
    ax.set_xlabel(r"lag $\ell$ (steps)")
    ax.set_ylabel(r"$\|dL_t/ds_{t-\ell}\|\,/\,\|dL_t/ds_t\|$")
    change = factor(float(median[-1] * LN10))
    title(ax, f"Over {result.lags[-1]} steps the median of {len(lines)} reference steps changes by {change}")
    ax.legend(loc="best")
    return ax
