"""How close covariant Lyapunov vectors come to each other: the smallest angle of every pair."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..analysis.words import short
from .style import title

_WRITTEN = 8  # vectors up to which the angles are legible


def draw(ax: Any, result: Any, sample: int = 0) -> Any:
    """Draw a :class:`rnngrad.analysis.covariant.CovariantVectors` of one sample."""
    angles = np.degrees(result.angles[:, sample])  # (W+1, k, k)
    k = angles.shape[1]
    least = np.where(np.eye(k, dtype=bool), np.nan, angles.min(axis=0))
    image = ax.imshow(least, cmap="viridis", vmin=0, vmax=90)
    ax.grid(False)
    if k <= _WRITTEN:
        for i, j in np.argwhere(~np.isnan(least)):
            shade = "white" if least[i, j] < 50 else "black"
            ax.text(j, i, short(float(least[i, j])), ha="center", va="center", color=shade, fontsize=9)
    names = [rf"$v_{{{i + 1}}}$" if k <= 2 * _WRITTEN else "" for i in range(k)]
    ax.set_xticks(range(k), names)
    ax.set_yticks(range(k), names)
    ax.set_xlabel(f"covariant vectors, steps {result.times[0]} to {result.times[-1]}")
    ax.set_ylabel("by falling exponent")
    ax.figure.colorbar(image, ax=ax, shrink=0.85).set_label("smallest angle along the way (degrees)")
    where = f"Sample {sample}: " if result.vectors.shape[1] > 1 else ""
    if k == 1:
        title(ax, f"{where}One covariant vector, which has nobody to meet")
    else:
        i, j = sorted(np.unravel_index(int(np.nanargmin(least)), least.shape))
        step = int(result.times[np.argmin(angles[:, i, j])])
        title(ax, f"{where}v{i + 1} and v{j + 1} come closest: {short(float(least[i, j]))}° at step {step}")
    return ax
