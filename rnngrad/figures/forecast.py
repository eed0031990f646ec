"""Forecast error against horizon, beside the baselines."""

from __future__ import annotations

from itertools import cycle
from typing import Any

from .style import colors, title


def draw(ax: Any, result: Any) -> Any:
    """Draw a forecast: ``horizon``, ``errors`` by name, ``baselines`` by name, ``unit``, ``title``."""
    for (name, error), color, marker in zip(
        result.errors.items(), colors(len(result.errors)), cycle("osv^"), strict=False
    ):
        ax.plot(result.horizon, error, "-", marker=marker, ms=4, color=color, lw=1.8, label=name)
    for (name, error), line in zip(result.baselines.items(), ("--", ":", "-."), strict=False):
        ax.plot(result.horizon, error, line, color="#444444", lw=1.5, label=name)
    ax.set_ylim(bottom=0)
    ax.set_xlabel(f"forecast horizon ({result.horizon_unit})")
    ax.set_ylabel(f"root mean square error ({result.unit})")
    title(ax, result.title)
    ax.legend(loc="lower right")
    return ax
