"""Bounds of ||Phi(t, k)|| beside the norm itself, at the last reference time."""

from __future__ import annotations

from typing import Any

import numpy as np

from .style import BLACK, BLUE, GREEN, LN10, ORANGE, RED, decades, span, title


def draw(ax: Any, result: Any, sample: int = 0) -> Any:
    """Draw a :class:`rnngrad.analysis.bounds.GrowthBounds` of one sample against the lag t - k."""
    t = int(result.times[-1])
    lags = np.arange(t + 1)
    measured = result.log_measured[sample, t, t::-1] / LN10
    ax.plot(lags, measured, color=BLACK, lw=2, label=r"measured $\|\Phi(t,k)\|_2$")
    lines = (
        (result.log_gamma_lambda, "-", RED, r"$(\gamma\lambda)^{t-k}$"),
        (result.log_upper, "--", ORANGE, "product of per-step bounds"),
        (result.log_product, "-.", BLUE, r"$\prod\|J_j\|$"),
        (result.log_lower, ":", GREEN, r"$\prod\sigma_{\min}(J_j)$, from below"),
    )
    for values, line, color, label in lines:
        row = values[sample, t, t::-1]
        if np.isfinite(row).any():
            ax.plot(lags, row / LN10, line, color=color, lw=1.6, label=label)
    low, high = span(measured, [0.0])
    room = 0.6 * (high - low)  # a bound is worth seeing leave, not following
    decades(ax.yaxis, low - room, high + room)
    ax.set_xlim(0, max(t, 1))
    ax.set_xlabel(r"lag $t-k$ (steps)")
    ax.set_ylabel(r"$\|\Phi(t,k)\|_2$")
    gap = result.log_tightness[sample, t, 0] / LN10
    title(ax, f"Over {t} steps the bound lies {gap:.3g} decades above the measured norm")
    ax.legend(loc="best")
    return ax
