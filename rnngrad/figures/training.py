"""Training loss against step."""

from __future__ import annotations

from typing import Any

import numpy as np

from .style import colors, title


def draw(ax: Any, result: Any) -> Any:
    """Draw training curves: ``losses`` and ``smooth`` by name, ``title``."""
    for (name, loss), color in zip(result.losses.items(), colors(len(result.losses)), strict=True):
        step = np.arange(1, len(loss) + 1)
        ax.semilogy(step, loss, color=color, lw=0.6, alpha=0.35)
        ax.semilogy(step, result.smooth[name], color=color, lw=2, label=name)
    ax.set_xlabel("minibatch")
    ax.set_ylabel(r"loss, mean of $\frac{1}{2}(y-z)^2$ (scaled units)")
    title(ax, result.title)
    ax.legend(loc="best")
    return ax
