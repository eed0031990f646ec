"""A small matrix: its entries as colours and numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..analysis.words import short
from .style import title

_WRITTEN = 12  # units up to which the entries are legible


def draw(ax: Any, result: Any) -> Any:
    """Draw a :class:`rnngrad.analysis.linear.MatrixPower`."""
    values, n = result.values, len(result.values)
    top = float(np.abs(values).max()) or 1.0
    image = ax.imshow(values, cmap="PuOr_r", vmin=-top, vmax=top)
    if n <= _WRITTEN:
        for (i, j), value in np.ndenumerate(values):
            shade = "white" if abs(value) > 0.6 * top else "black"
            ax.text(j, i, short(value), ha="center", va="center", color=shade, fontsize=9)
    ax.grid(False)
    ax.set_xticks(range(n), [str(j + 1) for j in range(n)] if n <= _WRITTEN else [""] * n)
    ax.set_yticks(range(n), [str(i + 1) for i in range(n)] if n <= _WRITTEN else [""] * n)
    ax.set_xlabel(f"from unit $j$, at step $t-{result.lag}$")
    ax.set_ylabel("to unit $i$, at step $t$")
    ax.figure.colorbar(image, ax=ax, shrink=0.85).set_label(
        rf"$\partial h_{{t,i}}\,/\,\partial h_{{t-{result.lag},j}}$"
    )
    zeros = int(np.count_nonzero(values == 0))
    what = result.name if result.lag == 1 else f"{result.name}^{result.lag}"
    how = "connected" if result.lag == 1 else f"connected over {result.lag} steps"
    title(ax, f"{what}: {n * n - zeros} of {n * n} pairs of units are {how}")
    return ax
