"""Eigenvalues of J at fixed points, with the unit circle."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..analysis.words import short
from .style import BLACK, BLUE, GREEN, RED, legend_below, title

_KINDS = (
    ("stable", "of the stable points", "o", BLUE, 4.5),
    ("unstable", "of the unstable points", "X", RED, 5.5),
    ("slow", "of the slow points", "D", GREEN, 3.5),
    ("cycles", r"of $f^p$ around cycles of $p$ steps", "s", BLACK, 4.5),
)


def draw(ax: Any, result: Any) -> Any:
    """Draw a :class:`rnngrad.analysis.settled.PointSpectrum`."""
    angle = np.linspace(0, 2 * np.pi, 361)
    ax.plot(np.cos(angle), np.sin(angle), color=BLACK, lw=1, label="unit circle")
    limit = 1.0
    for name, label, marker, color, size in _KINDS:
        values = getattr(result, name)
        if values.size:
            limit = max(limit, float(np.abs(values).max()))
            ax.plot(
                values.real.ravel(), values.imag.ravel(), marker, ms=size, color=color, mfc="none", mew=0.9, ls="",
                label=f"{label}: {len(values)} × {values.shape[1]}",
            )  # fmt: skip
    ax.set_aspect("equal")
    ax.set_xlim(-1.08 * limit, 1.08 * limit)
    ax.set_ylim(-1.08 * limit, 1.08 * limit)
    ax.set_xlabel(r"Re $\mu$")
    ax.set_ylabel(r"Im $\mu$")
    if np.isnan(result.end):
        count, outside = (sum(op(getattr(result, name)) for name, *_ in _KINDS) for op in (np.size, _outside))
        title(ax, f"{outside} of {count} eigenvalues lie on or outside the unit circle")
    else:
        ax.plot(
            result.end.real,
            result.end.imag,
            "o",
            ms=11,
            mfc="none",
            mec=BLACK,
            mew=1.2,
            label="largest |μ| where the first trajectory ends",
        )
        size = abs(result.end)
        says = "fade" if size < 1 else "grow" if size > 1 else "keep their size"
        title(ax, f"Where the first trajectory ends, gradients {says}: largest |μ| = {short(size)}")
    legend_below(ax, 1)
    return ax


def _outside(values: Any) -> int:
    return int(np.count_nonzero(np.abs(values) >= 1))
