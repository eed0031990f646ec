"""The verdict as a page of text."""

from __future__ import annotations

import textwrap
from typing import Any

from .style import title


def draw(ax: Any, result: Any) -> Any:
    """Write a :class:`rnngrad.analysis.verdict.Verdict` on empty axes."""
    lines = [textwrap.fill(line, 84) for line in str(result).splitlines()]
    ax.set_axis_off()
    title(ax, f"Verdict: {result.label}")
    ax.text(0, 1, "\n".join(lines), va="top", fontsize=8.5, transform=ax.transAxes)
    return ax
