"""Bias and direction of the truncated gradient against its window."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..analysis.words import short
from .style import BESIDE, BLACK, BLUE, RED, legend_below, title

_ROUNDING = 1e-7  # what is nearer than this to the full gradient is the full gradient, on a figure


def draw(ax: Any, result: Any) -> Any:
    """Draw a :class:`rnngrad.analysis.truncation.TruncationBias`."""
    w = result.windows
    single = [bias for bias in result.parameter_bias.values() if np.any(bias > _ROUNDING)]
    for i, bias in enumerate(single):
        label = "bias of one parameter" if i == 0 else None
        ax.plot(w, _shown(bias), color=BLUE, lw=0.6, alpha=0.4, label=label)
    curves(ax, result, BLUE, RED)
    mark(ax, result, BLACK, 0)
    frame(ax, [result])
    ax.set_xlabel("window $w$ (steps)" if result.k1 == 1 else f"steps back $k_2$, every $k_1$ = {result.k1} steps")
    title(ax, _message(result))
    legend_below(ax, 3)
    return ax


def curves(ax: Any, result: Any, color: str, other: str, name: str = "") -> None:
    """Bias as a full line, 1 - cosine as a dashed one."""
    ax.plot(result.windows, _shown(result.bias), color=color, lw=2, label=name + r"bias $\|g_w-g\|\,/\,\|g\|$")
    ax.plot(result.windows, _shown(1 - result.cosine), "--", color=other, lw=1.8, label=f"{name}1 − cosine")


def mark(ax: Any, result: Any, color: str, row: int) -> None:
    """The smallest window that will do, with its number in that row from the top."""
    if np.isfinite(result.smallest):
        ax.axvline(result.smallest, color=color, lw=1.2, ls=":")
        ax.annotate(
            f"{result.smallest:.0f} steps", (result.smallest, 1), xycoords=("data", "axes fraction"),
            xytext=(4, -2 - 13 * row), textcoords="offset points", va="top", fontsize=9, color=color, bbox=BESIDE,
        )  # fmt: skip


def frame(ax: Any, results: list[Any]) -> None:
    """Axes that all of the results share, with the level that was wanted."""
    one = results[0]
    level = one.wanted if one.criterion == "bias" else 1 - one.wanted
    if level > 0:
        ax.axhline(level, color="#888888", lw=0.8)
    first, last = min(r.windows[0] for r in results), max(r.windows[-1] for r in results)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlim(first, max(last, first + 1))
    ax.set_ylabel("distance to the full gradient (relative)")


def _shown(values: Any) -> Any:
    return np.where(values > _ROUNDING, values, np.nan)


def _message(result: Any) -> str:
    kept = f"the bias at most {short(result.wanted)}" if result.criterion == "bias" else (
        f"the cosine at least {short(result.wanted)}"
    )  # fmt: skip
    if np.isfinite(result.smallest):
        return f"A window of {result.smallest:.0f} steps keeps {kept}"
    return f"No window up to {result.windows[-1]} steps keeps {kept}"
