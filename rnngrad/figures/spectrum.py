"""Eigenvalues in the complex plane, with the unit circle."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..analysis.words import short
from .style import BLACK, CYCLE, legend_below, title


def draw(ax: Any, result: Any) -> Any:
    """Draw a :class:`rnngrad.analysis.spectra.Spectrum`."""
    shown = [0.0]
    angle = np.linspace(0, 2 * np.pi, 361)
    ax.plot(np.cos(angle), np.sin(angle), color=BLACK, lw=1, label="unit circle")
    for i, (label, values) in enumerate(zip(result.labels, result.eigenvalues, strict=True)):
        color = CYCLE[i % len(CYCLE)]
        ax.plot(
            values.real, values.imag, "o+xsvD"[i % 6], ms=3.5, color=color, mfc="none", mew=0.9,
            label=rf"{label}: $\rho$ = {short(result.radius[i])}, $\sigma_{{\max}}$ = {short(result.sigma_max[i])}",
        )  # fmt: skip
    if len(result.labels) == 1:
        r = float(result.circular_radius[0])
        shown.append(r)
        ax.plot(r * np.cos(angle), r * np.sin(angle), ":", color="#666666", lw=1, label=f"circular law, radius {r:.3g}")
    limit = 1.08 * max(1.0, float(np.abs(result.eigenvalues).max()), float(max(shown)))
    ax.set_aspect("equal")
    ax.set_xlim(-limit, limit)
    ax.set_ylim(-limit, limit)
    ax.set_xlabel(r"Re $\mu$")
    ax.set_ylabel(r"Im $\mu$")
    outside = int(np.count_nonzero(np.abs(result.eigenvalues) > 1))
    name = "W" if result.labels[0].startswith("W") else "J"
    title(ax, f"{name}: {outside} of {result.eigenvalues.size} eigenvalues lie outside the unit circle")
    legend_below(ax, 1)
    return ax
