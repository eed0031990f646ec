"""Error under teacher forcing and running free, step by step."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..analysis.words import short
from .style import BLUE, RED, title


def draw(ax: Any, result: Any) -> Any:
    """Draw a :class:`rnngrad.training.teacher_forcing.ExposureGap`."""
    steps = np.arange(1, len(result.free) + 1)
    ax.plot(steps, result.free, color=RED, lw=2, label="running free, on its own outputs")
    ax.plot(steps, result.forced, color=BLUE, lw=2, label="teacher forcing, on the truth")
    ax.fill_between(steps, result.forced, result.free, color=RED, alpha=0.12, lw=0)
    ax.set_xlim(1, max(len(steps), 2))
    ax.set_ylim(bottom=0)
    ax.set_xlabel("step $t$")
    ax.set_ylabel("root mean square error")
    free, forced = (float(np.sqrt(np.mean(np.square(part)))) for part in (result.free, result.forced))
    title(ax, f"Over {len(steps)} steps it errs by {short(free)} running free, by {short(forced)} on the truth")
    ax.legend(loc="best")
    return ax
