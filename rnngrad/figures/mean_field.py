"""The largest Lyapunov exponent of random networks over the gain."""

from __future__ import annotations

from typing import Any

import numpy as np

from .style import BLUE, ORANGE, title


def draw(ax: Any, result: Any) -> Any:
    """Draw a :class:`rnngrad.analysis.mean_field.MeanField`."""
    ax.plot(np.atleast_1d(result.g), np.atleast_1d(result.lambda1), color=BLUE, lw=1.8, label=r"$\frac{1}{2}\ln\chi$")
    ax.axhline(0, color="#888888", lw=0.8)
    ax.axvline(result.critical, color=ORANGE, lw=1.4, ls="--", label=f"edge of chaos, $g$ = {result.critical:.4g}")
    ax.set_xlabel(r"gain $g=\sigma_w\sqrt{n}$")
    ax.set_ylabel(r"largest Lyapunov exponent $\lambda_1$ (1/step)")
    title(ax, f"Random {result.activation} networks are chaotic beyond g = {result.critical:.4g}")
    ax.legend(loc="best")
    return ax
