"""Fixed points in the plane of two principal components: stable ones, saddles with unstable modes, trajectories."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.collections import LineCollection

from .style import BLACK, BLUE, GREEN, ORANGE, RED, legend_below, title


def draw(ax: Any, result: Any) -> Any:
    """Draw a :class:`rnngrad.fixedpoint.portrait.FixedPointPortrait`."""
    if len(result.paths):
        ax.add_collection(LineCollection(list(result.paths), colors=BLUE, lw=0.5, alpha=0.4))
        ax.plot([], [], color=BLUE, lw=0.8, label="trajectories")
    if len(result.modes):
        ax.add_collection(LineCollection(list(result.modes), colors=RED, lw=1.6, alpha=0.9, zorder=3))
        ax.plot([], [], color=RED, lw=1.6, label="unstable modes of the saddles")
    several = result.unstable[result.unstable > 1]
    least, most = int(several.min(initial=result.state_size)), int(several.max(initial=0))
    more = f"saddle, {least if least == most else f'{least} to {most}'} unstable directions"
    for name, chosen, marker, face in (
        ("stable", result.unstable == 0, "o", BLACK),
        ("saddle, one unstable direction", result.unstable == 1, "X", RED),
        (more, result.unstable > 1, "P", ORANGE),
    ):
        if chosen.any():
            ax.plot(
                *result.points[chosen].T, marker, ms=6.5, color=face, mec="white", mew=0.7, zorder=4,
                label=f"{name}: {np.count_nonzero(chosen)}",
            )  # fmt: skip
    if len(result.slow):
        ax.plot(
            *result.slow.T, "D", ms=4.5, color=GREEN, mec="white", mew=0.5, zorder=4, label=f"slow: {len(result.slow)}"
        )
    ax.autoscale_view()
    ax.margins(0.06)
    for axis, name, share in ((ax.xaxis, "first", result.variance[0]), (ax.yaxis, "second", result.variance[1])):
        axis.set_label_text(f"{name} principal component ({share:.0%} of the variance)")
    count, stable = len(result.points), int(np.count_nonzero(result.unstable == 0))
    plural = "" if count == 1 else "s"
    what = f"fixed point{plural}" if result.period == 1 else f"point{plural} of period {result.period}"
    others = count - stable
    title(ax, f"{count} {what} in {result.state_size} dimensions: {stable} stable, {others} unstable")
    legend_below(ax, 2)
    return ax
