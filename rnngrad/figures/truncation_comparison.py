"""Bias and direction of the truncated gradient against its window, for several networks."""

from __future__ import annotations

from typing import Any

from .style import BESIDE, colors, legend_below, title
from .truncation import curves, frame, mark


def draw(ax: Any, result: Any) -> Any:
    """Draw a :class:`rnngrad.analysis.truncation.TruncationComparison`."""
    for row, ((name, part), color) in enumerate(zip(result.parts.items(), colors(len(result.parts)), strict=True)):
        curves(ax, part, color, color, f"{name}: ")
        mark(ax, part, color, row)
    frame(ax, list(result.parts.values()))
    ax.axvline(result.lag, color="#555555", lw=1.2, ls="--")
    ax.annotate(
        result.lag_name, (result.lag, 0.02), xycoords=("data", "axes fraction"), rotation=90, ha="right", va="bottom",
        fontsize=8.5, color="#333333", bbox=BESIDE,
    )  # fmt: skip
    ax.set_xlabel("window $w$ (steps)")
    title(ax, result.title)
    legend_below(ax, 2)
    return ax
