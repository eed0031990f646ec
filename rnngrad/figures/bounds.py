"""Bounds of ||Phi(t, k)|| beside the norm itself, at the last reference time."""

from __future__ import annotations

from typing import Any

import numpy as np

from .style import BLACK, BLUE, GREEN, LN10, ORANGE, PINK, RED, SKY, decades, legend_below, span, title

_VIOLATED = 0.5  # decades above the rate that make it the figure's message


def draw(ax: Any, result: Any, sample: int = 0) -> Any:
    """Draw a :class:`rnngrad.analysis.bounds.GrowthBounds` of one sample against the lag t - k."""
    t = int(result.times[-1])
    lags = np.arange(t + 1)

    def by_lag(values: Any) -> Any:
        return values[sample, t, t::-1] / LN10

    measured, rate = by_lag(result.log_measured), result.steps.log_eigen_rate / LN10 * lags
    ax.plot(lags, measured, color=BLACK, lw=2, label=r"measured $\|\Phi(t,k)\|_2$")
    one_number = result.steps.blocks.shape[-1] == 1  # then the two bounds from the partials are the same
    one_gamma = np.isfinite(result.steps.gamma_measured[sample])
    uniform = (
        r"$(\gamma\lambda)^{t-k}$, $\gamma$ measured" if one_gamma else r"$\|M^{t-k}\|$, $M$ the largest blocks met"
    )
    lines = (
        (by_lag(result.log_gamma_lambda), "-", RED, r"$(\gamma\lambda)^{t-k}$, $\gamma=\sup|\phi'|$"),
        (by_lag(result.log_gamma_measured), (0, (5, 1, 1, 1, 1, 1)), SKY, uniform),
        (by_lag(result.log_upper), "--", ORANGE, "partials, step by step"),
        (by_lag(result.log_block) if not one_number else None, (0, (1, 1)), RED, "partials, by blocks"),
        (by_lag(result.log_product), "-.", BLUE, r"$\prod\|J_j\|$"),
        (by_lag(result.log_lower), ":", GREEN, r"$\prod\sigma_{\min}(J_j)$, from below"),
        (rate, (0, (1, 3)), PINK, r"$(\gamma\rho)^{t-k}$: a rate, no bound"),
    )
    excess = float(np.max(measured - rate)) if np.isfinite(rate).all() else -np.inf
    shown = [measured, [0.0], rate if excess > _VIOLATED else by_lag(result.log_product)]
    for row, line, color, label in lines:
        if row is not None and np.isfinite(row).any():
            ax.plot(lags, row, ls=line, color=color, lw=1.6, label=label)
    low, high = span(*shown)
    room = 0.6 * (high - low)  # a bound is worth seeing leave, not following
    decades(ax.yaxis, low - room, high + room)
    ax.set_xlim(0, max(t, 1))
    ax.set_xlabel(r"lag $t-k$ (steps)")
    ax.set_ylabel(r"$\|\Phi(t,k)\|_2$")
    name = "" if result.name is None else f"{result.name}: "
    if excess > _VIOLATED:
        title(ax, f"{name}the eigenvalue rate is exceeded by up to {excess:.3g} decades, the bounds hold")
    else:
        gap = result.log_tightness[sample, t, 0] / LN10
        title(ax, f"{name}over {t} steps the best bound lies {gap:.3g} decades above the measured norm")
    legend_below(ax)
    return ax
