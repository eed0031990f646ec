"""Memory horizon of every reference step."""

from __future__ import annotations

from typing import Any

import numpy as np

from .style import BLUE, RED, title


def draw(ax: Any, result: Any) -> Any:
    """Draw a :class:`rnngrad.analysis.memory.MemoryHorizon`."""
    times = np.broadcast_to(result.times, result.horizon.shape)
    beyond = result.censored
    ax.plot(times[~beyond], result.horizon[~beyond], ".", color=BLUE, label="horizon")
    if beyond.any():
        ax.plot(times[beyond], result.horizon[beyond], "^", ms=4, color=RED, label="still above: horizon is greater")
    if np.isfinite(result.median):
        ax.axhline(result.median, color="#666666", lw=1)
    ax.set_xlabel("reference step $t$ (steps)")
    ax.set_ylabel(f"lag from which the gradient is below {result.eps:g} (steps)")
    typical = f"{result.median:.0f} steps" if np.isfinite(result.median) else f"more than {result.longest} steps"
    title(ax, f"The gradient reaches back {typical} (median)")
    ax.legend(loc="best")
    return ax
