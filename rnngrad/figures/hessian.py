"""How many eigenvalues of a matrix of second derivatives lie beyond each magnitude, of either sign."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..analysis.words import short
from .style import BLUE, RED, decades, legend_below, title

_NAMES = {"hessian": "Hessian", "gauss_newton": "Gauss-Newton matrix"}
_DECADES = 5  # of magnitude shown


def draw(ax: Any, result: Any) -> Any:
    """Draw a :class:`rnngrad.analysis.hessian.HessianSpectrum`: counts against magnitude, both logarithmic."""
    probes, exact, size = len(result.nodes), result.eigenvalues, result.size
    top = np.log10(np.abs(exact).max()) if exact.any() else 0.0
    levels = np.log10(result.levels)
    floor = -0.35  # just below one eigenvalue
    for name, sign, color, count, error in (
        ("positive", 1, BLUE, result.above, result.above_error),
        ("negative", -1, RED, result.below, result.below_error),
    ):
        own = np.sort(np.abs(exact[sign * exact > 0]))[::-1]
        if own.size:
            ax.plot(
                np.log10(own), np.log10(np.arange(1, own.size + 1)), "o", color=color, ms=2.8, mew=0,
                label=f"{name}, exact",
            )  # fmt: skip
        if count.max() < 0.5:
            continue
        low, middle, high = (np.log10(np.maximum(count + k * error, 10**floor)) for k in (-2, 0, 2))
        ax.fill_between(levels, low, high, color=color, alpha=0.22, lw=0)
        label = f"{name}, Lanczos quadrature: mean of {probes} probes, ± two standard errors"
        ax.plot(levels, middle, color=color, lw=1.2, label=label)
    decades(ax.xaxis, top - _DECADES, top + 0.2)
    decades(ax.yaxis, floor, np.log10(size) + 0.15)
    ax.set_xlabel(r"magnitude $r$ of eigenvalues (loss per squared unit of parameters)")
    ax.set_ylabel(r"number of eigenvalues beyond $r$")
    lowest, highest = float(np.nanmin(result.nodes)), float(np.nanmax(result.nodes))
    clear = 10.0 ** (top - _DECADES)
    down = f"most negative {short(lowest)}" if lowest < -clear else "none negative"
    if exact.size == size:  # all of them are known
        negative = int(np.count_nonzero(exact < -clear))
        down = f"{negative} of {size} directions curve down, by up to {short(-lowest)}" if negative else "none negative"
    title(ax, f"{result.network}: {_NAMES[result.matrix]}, largest eigenvalue {short(highest)}, {down}")
    legend_below(ax, 1)
    return ax
