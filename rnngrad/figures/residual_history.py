"""Residuals of an iteration towards fixed points, sample by sample."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.collections import LineCollection

from .style import BLACK, BLUE, RED, decades, legend_below, span, title


def draw(ax: Any, result: Any) -> Any:
    """Draw a :class:`rnngrad.fixedpoint.solve.FixedPoint`: residual over iterations, and the tolerance."""
    with np.errstate(divide="ignore", invalid="ignore"):
        history = np.log10(result.history)
    steps = np.arange(len(history))
    for chosen, color, label in ((result.converged, BLUE, "converged"), (~result.converged, RED, "not converged")):
        lines = [np.column_stack([steps, history[:, b]])[np.isfinite(history[:, b])] for b in np.flatnonzero(chosen)]
        if lines:
            ax.add_collection(LineCollection(lines, colors=color, lw=0.9, alpha=0.7))
            ax.plot([], [], color=color, label=f"{label}: {len(lines)}")
    ax.axhline(np.log10(result.tol), color=BLACK, ls="--", lw=0.9, label=f"tol = {result.tol:g}")
    ax.set_xlim(0, max(len(history) - 1, 1))
    decades(ax.yaxis, *span(history, np.log10(result.tol)))
    ax.set_xlabel(f"iterations ({result.method})")
    ax.set_ylabel(r"residual $\|f(s) - s\|$")
    count, worst = int(np.count_nonzero(result.converged)), int(result.iterations.max(initial=0))
    title(ax, f"{count} of {len(result.s)} samples at a fixed point, within {worst} iterations")
    legend_below(ax, 3)
    return ax
