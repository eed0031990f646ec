"""Share of the time that gates and values are at their flat ends."""

from __future__ import annotations

from typing import Any

import numpy as np

from .style import BLACK, BLUE, ORANGE, legend_below, title


def draw(ax: Any, result: Any) -> Any:
    """Draw a :class:`rnngrad.analysis.saturation.Saturation`."""
    rows = np.arange(len(result.names))[::-1]
    low, high, share = 100 * result.low, 100 * result.high, 100 * result.share
    ax.barh(rows, low.mean(axis=1), 0.5, color=BLUE, label="lower end (gate closed)")
    ax.barh(rows, high.mean(axis=1), 0.5, left=low.mean(axis=1), color=ORANGE, label="upper end (gate open)")
    for row, units in zip(rows, share, strict=True):
        # spread over the bar in the order of the units, so that equal ones do not hide each other
        ax.plot(units, row + np.linspace(-0.2, 0.2, len(units)), ".", ms=3, color=BLACK, alpha=0.5)
    ax.plot([], [], ".", ms=4, color=BLACK, alpha=0.6, label="single units, both ends")
    ax.set_yticks(rows, [f"{kind} {name}" for name, kind in zip(result.names, result.kinds, strict=True)])
    ax.set_ylim(-0.6, len(rows) - 0.4)
    ax.set_xlim(0, 100)
    ax.grid(axis="y", visible=False)
    ax.set_xlabel("share of the steps saturated (%)")
    if len(rows):
        worst = int(np.argmax(share.mean(axis=1)))
        title(
            ax, f"Most saturated: {result.kinds[worst]} {result.names[worst]}, {share[worst].mean():.3g} % of the time"
        )
    legend_below(ax, 3)
    return ax
