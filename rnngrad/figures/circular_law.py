"""Share of eigenvalues within a radius, against the circular law."""

from __future__ import annotations

from typing import Any

from ..analysis.words import short
from .style import BLACK, CYCLE, legend_below, title


def draw(ax: Any, result: Any) -> Any:
    """Draw a :class:`rnngrad.analysis.circular_law.CircularLaw`."""
    for i, (label, share, distance) in enumerate(zip(result.labels, result.share, result.distance, strict=True)):
        text = f"{label.replace('Phi', chr(0x3A6))}: within {short(float(distance))} of the law"
        ax.step(
            result.r, share, where="post", color=CYCLE[i % len(CYCLE)], ls="-" if i < len(CYCLE) else "-.", label=text
        )
    ax.plot(result.r, result.law, "--", color=BLACK, lw=1.1, label=r"circular law, $(r/R)^2$")
    ax.set_xlim(0, float(result.r[-1]))
    ax.set_ylim(0, 1.04)
    root = r"$|\lambda|^{1/\mathrm{lag}}$" if result.labels[0].startswith("Phi") else r"$|\lambda|$"
    ax.set_xlabel(r"radius $r$ in units of $R = \|A\|_F/\sqrt{N}$")
    ax.set_ylabel(f"share of eigenvalues with {root} below $r$")
    first, largest = short(float(result.share[0][50])), short(float(result.outermost[0]))
    inside = f"a share {first} of the eigenvalues lies within R/2 (the law: 0.25)"
    title(ax, f"{result.labels[0].replace('Phi', chr(0x3A6))}: {inside}, the outermost at {largest} R")
    legend_below(ax, 1 if len(result.labels) < 5 else 2)
    return ax
