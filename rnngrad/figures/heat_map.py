"""Heat map of ||dL_t/ds_k|| over all pairs of steps."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from .style import LN10, MAP, POWERS, title

_DECADES = 12  # shown below the largest value: beyond it a gradient is nothing beside the others


def draw(ax: Any, result: Any, sample: int = 0) -> Any:
    """Draw a :class:`rnngrad.analysis.reach.GradientMap`, or one sample of a :class:`rnngrad.GradientFlow`."""
    whole = result.log_norm.ndim == 3
    values, first = (result.log_norm[sample], 0) if whole else (result.log_norm, result.first)
    last = first + len(values) - 1
    paint(ax, values, (first - 0.5, last + 0.5, first - 0.5, last + 0.5))
    ax.set_xlabel("state at step $k$ (steps)")
    ax.set_ylabel("loss at step $t$ (steps)")
    title(ax, f"Which earlier states each step's loss can teach (steps {first} to {last})")
    return ax


def paint(ax: Any, values: Any, extent: tuple[float, float, float, float]) -> None:
    """Natural logarithms as colours, with a bar in powers of ten."""
    values = values / LN10
    finite = values[np.isfinite(values)]
    top = float(finite.max()) if finite.size else 0.0
    bottom = max(float(finite.min()), top - _DECADES) if finite.size else -1.0
    image = ax.imshow(
        np.where(np.isneginf(values), bottom, values),
        origin="lower",
        extent=extent,
        cmap=MAP,
        vmin=bottom,
        vmax=top if top > bottom else bottom + 1,
        interpolation="nearest",
        aspect="equal",
    )
    ax.grid(False)
    bar = ax.figure.colorbar(image, ax=ax, extend="min", shrink=0.9)
    bar.ax.yaxis.set_major_locator(MaxNLocator(nbins=7, integer=True))
    bar.ax.yaxis.set_major_formatter(POWERS)
    bar.set_label(r"$\|dL_t/ds_k\|$")
