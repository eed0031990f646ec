"""Time constants of the units by themselves, beside what the whole network does."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..analysis.words import short
from .style import BLUE, GREEN, RED, title


def draw(ax: Any, result: Any) -> Any:
    """Draw a :class:`rnngrad.analysis.memory.TimeConstants`."""
    tau = np.sort(result.leak_tau)[::-1]
    shown = tau[np.isfinite(tau) & (tau > 0)]
    if shown.size:
        ax.semilogy(
            np.arange(1, len(shown) + 1), shown, "o", ms=4, color=BLUE, label=f"units' own leak ({result.state})"
        )
    for value, color, label in (
        (result.chain_tau, RED, r"chain $\Phi$"),
        (result.gradient_tau, GREEN, "gradient of the loss"),
    ):
        if np.isfinite(value) and value > 0:
            ax.axhline(value, color=color, lw=1.6, label=f"{label}: {short(value)} steps")
    ax.set_yscale("log")
    ax.set_xlabel("unit, sorted")
    ax.set_ylabel(r"time constant $\tau$ (steps)")
    title(ax, "How long units remember alone, and the network as a whole")
    if ax.get_legend_handles_labels()[0]:
        ax.legend(loc="best")
    return ax
