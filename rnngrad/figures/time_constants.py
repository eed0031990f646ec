"""Time constants of the units by themselves, beside what the whole network does."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..analysis.words import short
from .style import BLUE, GREEN, RED, title


def draw(ax: Any, result: Any) -> Any:
    """Draw a :class:`rnngrad.analysis.time_constants.TimeConstants`."""
    tau = np.sort(result.leak_tau)[::-1]
    shown = tau[np.isfinite(tau) & (tau > 0)]
    if shown.size:
        ax.plot(np.arange(1, len(shown) + 1), shown, "o", ms=4, color=BLUE, label=f"units' own leak ({result.state})")
    parts = []
    for fit, color, name in ((result.chain, RED, r"chain $\Phi$"), (result.gradient, GREEN, "gradient of the loss")):
        if fit is None or np.isnan(fit.rate):
            continue
        parts.append(f"{name} {_steps(fit.tau)}")
        if np.isfinite(fit.tau) and fit.tau > 0:
            ax.axhline(fit.tau, color=color, lw=1.6, label=f"{name}, lags {fit.first}–{fit.last}")
    if tau.size:
        parts.append(f"median unit alone {_steps(float(np.median(tau)))}")
    ax.set_yscale("log")
    ax.set_xlabel("unit, sorted")
    ax.set_ylabel(r"time constant $\tau$ (steps)")
    title(ax, "Steps until 1/e is left: " + ", ".join(parts) if parts else "No time constant was measured")
    if ax.get_legend_handles_labels()[0]:
        ax.legend(loc="best")
    return ax


def _steps(tau: float) -> str:
    return short(tau) if np.isfinite(tau) else "∞ (no decay)"
