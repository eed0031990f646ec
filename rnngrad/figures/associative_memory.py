"""Error of unrolled and truncated gradients against the implicit one, over the steps they go through."""

from __future__ import annotations

from typing import Any

import numpy as np

from .style import BLUE, RED, decades, legend_below, span, title


def draw(ax: Any, result: Any) -> Any:
    """Draw a :class:`rnngrad.training.associative_memory.AssociativeMemory`: ||g - g*|| / ||g*|| over the depth."""
    with np.errstate(divide="ignore"):
        unrolled, series = np.log10(result.bptt), np.log10(result.neumann)
    ax.plot(result.depth, unrolled, "o-", ms=3, color=BLUE, label="unrolled from zero, backpropagation through time")
    ax.plot(result.depth, series, "s-", ms=3, color=RED, label="at the fixed point, Neumann series = truncated BPTT")
    decades(ax.yaxis, *span(unrolled, series))
    ax.set_xlabel("steps that the gradient goes back (terms of the series)")
    ax.set_ylabel(r"error of the gradient, $\|g - g^*\| / \|g^*\|$")
    title(
        ax,
        f"Associative memory with ρ(J) = {result.radius[-1]:.2f}: backpropagation through {result.depth[-1]} steps "
        f"from zero is off by {result.bptt[-1]:.1g}, as many terms at the fixed point by {result.neumann[-1]:.1g}",
    )
    legend_below(ax, 1)
    return ax
