"""Gradient and chain against lag, with bound, rate and leak over the measurement."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..analysis.words import short
from .style import BLACK, BLUE, GREEN, LN10, ORANGE, PINK, RED, SKY, decades, legend_below, span, title


def draw(ax: Any, result: Any) -> Any:
    """Draw a :class:`rnngrad.analysis.growth.GrowthByLag`."""
    lags, chain_lags = result.lags, result.chain_lags
    low, median, high = result.gradient / LN10
    ax.fill_between(lags, low, high, color=BLUE, alpha=0.2, lw=0, label="gradient, middle 80 %")
    ax.plot(lags, median, color=BLUE, lw=2, label="gradient of the loss, median")
    ax.plot(chain_lags, result.chain[1] / LN10, "o", ms=4, color=BLACK, label=r"chain $\|\Phi(t,t-\ell)\|_2$, median")
    rates = (
        (result.a_priori, "-", RED, r"bound $(\gamma\lambda)^\ell$"),
        (result.factored, "--", ORANGE, "bound from the partials"),
        (result.product, (0, (4, 1, 1, 1, 1, 1)), SKY, r"bound $\prod\|J_j\|_2$"),
        (result.eigen_rate, ":", PINK, r"rate $(\gamma\rho)^\ell$, no bound"),
        (result.leak, "-.", GREEN, "longest unit, own gate only"),
    )
    for values, line, color, label in rates:
        if np.isfinite(values[-1]):
            ax.plot(
                lags, values / LN10, ls=line, color=color, lw=1.6, label=f"{label} (×{short(np.exp(values[1]))} a step)"
            )
    # what is measured fills the page; of a bound it is enough to see it leave
    lowest = np.min(median, where=np.isfinite(median), initial=0.0)
    bottom, top = span(median, high, np.maximum(low, lowest - 2), result.chain[1] / LN10, [0.0])
    if bottom < np.log10(result.eps):
        ax.axhline(np.log10(result.eps), color="#888888", lw=0.8)
        ax.annotate(
            f"{result.eps:g}", (1, np.log10(result.eps)), xycoords=("axes fraction", "data"), ha="right", va="bottom",
            fontsize=8, color="#666666",
        )  # fmt: skip
    ax.set_xlim(0, max(int(lags[-1]), 1))
    decades(ax.yaxis, bottom, top + 0.25 * (top - bottom))
    ax.set_xlabel(r"lag $\ell$ (steps)")
    ax.set_ylabel(r"factor over the lag, $\|dL_t/ds_{t-\ell}\|\,/\,\|dL_t/ds_t\|$")
    if np.isfinite(result.horizon):
        title(ax, f"Half of the gradients are below {result.eps:g} of their size from lag {result.horizon:.0f} on")
    else:
        title(ax, f"More than half of the gradients are above {result.eps:g} of their size at lag {result.longest:.0f}")
    legend_below(ax)
    return ax
