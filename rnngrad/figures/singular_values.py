"""Singular values of Phi(t, t - lag) against lag."""

from __future__ import annotations

from typing import Any

import numpy as np

from .style import BLUE, LN10, RED, decades, legend_below, span, title


def draw(ax: Any, result: Any, sample: int = 0) -> Any:
    """Draw a :class:`rnngrad.analysis.products.SingularValues` at its last reference step."""
    values = result.log_values[sample, -1] / LN10  # (L, N)
    ax.plot(result.lags, values, "-", color=BLUE, lw=0.6, alpha=0.6)
    ax.plot([], [], color=BLUE, lw=0.8, label="singular values (those that rounding leaves)")
    ax.plot(result.lags, values[:, 0], color=RED, lw=2, label=r"largest, $\|\Phi\|_2$")
    ax.set_xscale("symlog", linthresh=1)
    ax.set_xlim(0, max(int(result.lags[-1]), 1))
    decades(ax.yaxis, *span(values, [0.0]))
    ax.set_xlabel(r"lag $\ell$ (steps)")
    ax.set_ylabel(r"singular values of $\Phi(t,t-\ell)$")
    last = np.flatnonzero(~np.isnan(values[:, 0]))[-1]
    kept = int(np.count_nonzero(result.log_values[sample, -1, last] >= result.log_values[sample, -1, last, 0] - LN10))
    verb = "is" if kept == 1 else "are"
    lag, N = result.lags[last], values.shape[1]
    title(ax, f"At lag {lag}, {kept} of {N} directions {verb} within a factor of 10 of the strongest")
    legend_below(ax)
    return ax
