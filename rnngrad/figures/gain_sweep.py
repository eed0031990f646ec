"""Gradient against lag, one colour per gain, with the line of mean field."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np

from ..analysis.words import factor
from .style import BLACK, LN10, MAP, decades, legend_below, span, title


def draw(ax: Any, result: Any) -> Any:
    """Draw a :class:`rnngrad.analysis.gain_sweep.GainSweep`."""
    theory, lags = result.prediction, result.lags
    colors = mpl.colormaps[MAP](np.linspace(0, 0.9, len(theory.g)))
    for gain, lambda1, (low, median, high), color in zip(
        theory.g, theory.lambda1, result.log_ratio / LN10, colors, strict=True
    ):
        ax.fill_between(lags, low, high, color=color, alpha=0.2, lw=0)
        ax.plot(lags, median, color=color, lw=2, label=f"$g$ = {gain:.3g}")
        ax.plot(lags, lambda1 * lags / LN10, color=BLACK, lw=0.9, ls="--")
    ax.plot([], [], color=BLACK, lw=0.9, ls="--", label=r"mean field, $\chi^{\ell/2}$")
    ax.axhline(0, color="#888888", lw=0.8)
    decades(ax.yaxis, *span(result.log_ratio[:, 1] / LN10, [0.0]))
    ax.set_xlim(0, int(lags[-1]))
    ax.set_xlabel(r"lag $\ell$ (steps)")
    ax.set_ylabel(r"$\|dL_t/ds_{t-\ell}\|\,/\,\|dL_t/ds_t\|$")
    first, last = (factor(float(result.log_ratio[i, 1, -1])) for i in (0, -1))
    title(
        ax,
        f"Over {lags[-1]} steps the median gradient changes by {first} at g = {theory.g[0]:.3g} "
        f"and by {last} at g = {theory.g[-1]:.3g}",
    )
    legend_below(ax, 4)
    return ax
