"""Several networks' gradients against lag, with the lag that matters."""

from __future__ import annotations

from typing import Any

import numpy as np

from .style import BESIDE, LN10, colors, decades, legend_below, span, title


def draw(ax: Any, result: Any) -> Any:
    """Draw a :class:`rnngrad.analysis.comparison.Comparison`."""
    shown = [[0.0]]
    for (name, growth), color in zip(result.growths.items(), colors(len(result.growths)), strict=True):
        low, median, high = growth.gradient / LN10
        ax.fill_between(growth.lags, low, high, color=color, alpha=0.18, lw=0)
        lag = f"lag {growth.horizon:.0f}" if np.isfinite(growth.horizon) else f"beyond lag {growth.longest:.0f}"
        ax.plot(
            growth.lags, median, color=color, lw=2, label=f"{name}: half of them below {growth.eps:g} from {lag} on"
        )
        shown += [median, high, np.maximum(low, np.min(median, where=np.isfinite(median), initial=0.0) - 1)]
    bottom, top = span(*shown)
    decades(ax.yaxis, bottom, top + 0.05 * (top - bottom))
    ax.set_xlim(0, max(int(growth.lags[-1]) for growth in result.growths.values()))
    ax.axvline(result.lag, color="#555555", lw=1.2, ls="--")
    right = 2 * result.lag <= ax.get_xlim()[1]  # the text goes where there is more room
    ax.annotate(
        result.lag_name, (result.lag, 0.98), xycoords=("data", "axes fraction"), xytext=(4 if right else -4, 0),
        textcoords="offset points", ha="left" if right else "right", va="top", fontsize=8.5, color="#333333",
        bbox=BESIDE,
    )  # fmt: skip
    ax.set_xlabel(rf"lag $\ell$ ({result.unit})")
    ax.set_ylabel(r"$\|dL_t/ds_{t-\ell}\|\,/\,\|dL_t/ds_t\|$, median and 10–90 %")
    title(ax, result.title)
    legend_below(ax, 1)
    return ax
