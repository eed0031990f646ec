"""The verdict as a picture: the gradient against lag, with what each decade of lags is called."""

from __future__ import annotations

from typing import Any

import numpy as np

from .style import BLACK, BLUE, GREEN, LN10, PINK, RED, decades, legend_below, span, title

COLORS = {"healthy": GREEN, "vanishing": RED, "exploding": PINK}


def draw(ax: Any, result: Any) -> Any:
    """Draw a :class:`rnngrad.analysis.verdict.Verdict`."""
    lags, median, rare = result.lags[1:], result.median[1:] / LN10, result.rare[1:] / LN10
    ax.plot(lags, median, color=BLUE, lw=2, label="median")
    ax.plot(lags, rare, "--", color=BLUE, lw=1.4, label="exceeded by one reference step in ten")
    lost, grown = (np.log10(result.thresholds[name]) for name in ("lost", "grown"))
    low, high = span(median, np.minimum(rare, grown + 12), [lost, grown, 0.0], floor=-40)
    low = max(low, lost - 9)
    for part in result.ranges:
        since = part.since if np.isfinite(part.since) else part.first
        right = part.last + 0.5
        ax.axvspan(since - 0.5, right, color=COLORS[part.label], alpha=0.13, lw=0)
        if since > part.first:  # before it the range is as good as any
            ax.axvspan(part.first - 0.5, since - 0.5, color=COLORS["healthy"], alpha=0.13, lw=0)
        ax.axvline(right, color="white", lw=1.5)
    for level, text in ((lost, "vanished below"), (grown, "exploded above")):
        ax.axhline(level, color="#777777", lw=0.9)
        ax.annotate(
            text, (0, level), xycoords=("axes fraction", "data"), xytext=(4, 1), textcoords="offset points",
            va="bottom", fontsize=8,
        )  # fmt: skip
    wanted = result.numbers["wanted"]
    ax.axvline(wanted, color=BLACK, lw=1, ls=":", label=f"wanted lag, {wanted:.0f} steps")
    shown = {part.label for part in result.ranges} | {"healthy" for part in result.ranges if part.since > part.first}
    for name, color in COLORS.items():
        if name in shown:
            ax.fill_between([], [], [], color=color, alpha=0.3, lw=0, label=name)
    ax.set_xscale("log")
    ax.set_xlim(0.9, max(float(lags[-1]), 2.0) * 1.05)
    decades(ax.yaxis, low, high)
    ax.set_xlabel(r"lag $\ell$ (steps)")
    ax.set_ylabel(r"$\|dL_t/ds_{t-\ell}\|\,/\,\|dL_t/ds_t\|$")
    where = "within" if result.label == "exploding" else "at"
    title(ax, f"{result.label.capitalize()} {where} lag {wanted:.0f}; lags {', '.join(map(str, result.ranges))}")
    legend_below(ax, 3)
    return ax
