"""Write a figure as PNG and SVG with the numbers it shows beside it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from .._results import Result
from . import plot, style

_drawing = threading.Lock()  # Matplotlib's settings and its parser of formulae are shared by all threads


def write(
    folder: Path,
    name: str,
    parts: Sequence[Result],
    size: tuple[float, float] = style.SIZE,
    columns: int | None = None,
) -> tuple[dict[str, str], list[str]]:
    """Draw results side by side as name.png and name.svg, save their arrays as name.npz.

    With ``columns`` they fill rows of so many panels.

    Returns
    -------
    files : dict
        File names by kind: png, svg, npz.
    titles : list of str
        What each part's title says.
    """
    files = {kind: f"{name}.{kind}" for kind in ("png", "svg", "npz")}
    titles = []
    with _drawing, style.look():
        figure = Figure(size, layout="constrained")
        across = len(parts) if columns is None else columns
        axes = np.ravel(figure.subplots(-(-len(parts) // across), across))
        for ax in axes[len(parts) :]:
            ax.set_visible(False)
        for part, ax in zip(parts, axes[: len(parts)], strict=True):
            plot(part, ax)
            titles.append(ax.get_title(loc="left").replace("\n", " "))
        engine = figure.get_layout_engine()
        assert engine is not None
        engine.execute(figure)
        figure.set_layout_engine(None)  # the layout found now serves both formats; while one is set, each draws twice
        figure.savefig(folder / files["png"])
        figure.savefig(folder / files["svg"], metadata={"Date": None})
    np.savez_compressed(folder / files["npz"], allow_pickle=False, **numbers(parts))
    return files, titles


def numbers(parts: Sequence[Result]) -> dict[str, NDArray]:
    """The arrays drawn; of several parts, each under its number and a dot."""
    if len(parts) == 1:
        return parts[0].arrays()
    return {f"{i + 1}.{name}": value for i, part in enumerate(parts) for name, value in part.arrays().items()}
