"""One look for all figures: colours that colour-blind readers can tell apart, powers of ten that never overflow."""

from __future__ import annotations

import sys
import textwrap
from contextlib import AbstractContextManager
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from matplotlib.transforms import ScaledTranslation

# Okabe & Ito (2008)
BLUE, RED, GREEN, ORANGE, SKY, PINK, BLACK = (
    "#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9", "#CC79A7", "#000000",
)  # fmt: skip
CYCLE = (BLUE, RED, GREEN, ORANGE, SKY, PINK)
MAP = "viridis"

LN10 = float(np.log(10))
BESIDE: Any = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1}  # of text that lines may cross
SIZE = (6.8, 4.2)  # inches; legible at half a page
_RC: Any = {
    "font.size": 10,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "savefig.dpi": 130,
    "svg.hashsalt": "rnngrad",  # the same figure is the same file
}


def look() -> AbstractContextManager[None]:
    """Matplotlib's settings while a figure of ours is drawn and saved."""
    return rc_context(_RC)


def new_axes() -> Any:
    """Axes of a new figure; in a notebook, of one that it shows."""
    # pyplot keeps global state, so it is used only where somebody already does
    pyplot = sys.modules.get("matplotlib.pyplot")
    make: Any = Figure if pyplot is None else pyplot.figure
    return make(figsize=SIZE, layout="constrained").subplots()


def colors(count: int) -> list[Any]:
    """As many colours, all different."""
    if count <= len(CYCLE):
        return list(CYCLE[:count])
    return list(mpl.colormaps[MAP](np.linspace(0, 0.95, count)))


_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
#: tick labels of an axis that shows log10 of a quantity; plain characters, of which Matplotlib makes text at once
POWERS = FuncFormatter(lambda value, _: f"10{f'{value:.0f}'.translate(_RAISED)}")


def decades(axis: Any, low: float | None = None, high: float | None = None) -> None:
    """Label an axis that shows log10 of a quantity by the powers of ten themselves."""
    axis.set_major_locator(MaxNLocator(nbins=7, integer=True, steps=[1, 2, 5, 10]))
    axis.set_major_formatter(POWERS)
    if low is not None and high is not None:
        (axis.axes.set_ylim if axis.axis_name == "y" else axis.axes.set_xlim)(low, high)


def span(*values: Any, floor: float = -300.0) -> tuple[float, float]:
    """Limits around finite values in decades, at least one decade wide; what is below ``floor`` decades is left out."""
    flat = np.concatenate([np.ravel(value) for value in values])
    flat = flat[np.isfinite(flat) & (flat >= floor)]
    low, high = (float(flat.min()), float(flat.max())) if flat.size else (-1.0, 0.0)
    margin = max(0.06 * (high - low), 0.2)
    return low - margin, high + margin


def title(ax: Any, text: str) -> None:
    """The figure's message, on as many lines as the axes are wide for."""
    columns = ax.get_subplotspec().get_gridspec().ncols if ax.get_subplotspec() is not None else 1
    characters = int(11.5 * ax.figure.bbox.width / ax.figure.dpi / columns)
    ax.set_title(textwrap.fill(text, characters), loc="left")


def legend_below(ax: Any, columns: int = 2) -> None:
    """Legend under the axis label, where it hides nothing."""
    if not ax.get_legend_handles_labels()[0]:
        return
    below = ax.transAxes + ScaledTranslation(0, -40 / 72, ax.figure.dpi_scale_trans)
    ax.legend(loc="upper left", bbox_to_anchor=(-0.02, 0), bbox_transform=below, ncols=columns, borderaxespad=0.0)
