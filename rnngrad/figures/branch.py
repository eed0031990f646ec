"""A curve of fixed points over its parameter, stable and unstable, with the bifurcations on it."""

from __future__ import annotations

from typing import Any

import numpy as np

from .style import BLACK, BLUE, RED, legend_below, title

_MARKS = {"fold": "s", "branch": "D", "flip": "^", "rotation": "o"}


def draw(ax: Any, result: Any, unit: int = 0) -> Any:
    """Draw a :class:`rnngrad.fixedpoint.continuation.Branch`, or several as a :class:`Branches`: one unit over p."""
    branches = getattr(result, "branches", (result,))
    named, seen = set(), []
    for branch in branches:
        p, value = branch.parameter, branch.s.reshape(len(branch.s), -1)[:, unit]
        for stable, color, style in ((True, BLUE, "-"), (False, RED, "--")):
            # a segment is drawn as stable where both of its ends are
            kept = branch.stable[:-1] & branch.stable[1:] if stable else ~(branch.stable[:-1] & branch.stable[1:])
            label = "stable" if stable else "unstable"
            for run in np.split(np.arange(len(kept)), np.flatnonzero(np.diff(kept.astype(int))) + 1):
                if len(run) and kept[run[0]]:
                    part = slice(run[0], run[-1] + 2)
                    ax.plot(p[part], value[part], style, color=color, label=None if label in named else label)
                    named.add(label)
        for kind, at, s in zip(branch.event, branch.event_parameter, branch.event_s, strict=True):
            new = None if kind in named else str(kind)
            named.add(str(kind))
            ax.plot(at, s.ravel()[unit], _MARKS[str(kind)], color=BLACK, ms=6, mfc="white", zorder=4, label=new, ls="")
            seen.append(f"{kind} at {branches[0].name} = {at:.5g}")
    ax.set_xlabel(f"parameter ${branches[0].name}$")
    ax.set_ylabel(rf"fixed point $h^*_{{{unit + 1}}}$")
    shown = list(dict.fromkeys(seen))
    more = f" and {len(shown) - 4} more" if len(shown) > 4 else ""
    curves = "A curve" if len(branches) == 1 else f"{len(branches)} curves"
    title(ax, f"{curves} of fixed points: {', '.join(shown[:4]) or 'no bifurcation'}{more}")
    legend_below(ax, 4)
    return ax
