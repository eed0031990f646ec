"""The largest Lyapunov exponent of random networks over the gain: prediction, and networks measured."""

from __future__ import annotations

from typing import Any

import numpy as np

from .style import BLACK, BLUE, ORANGE, title


def draw(ax: Any, result: Any) -> Any:
    """Draw a :class:`rnngrad.analysis.mean_field.MeanField`, or random networks measured beside it."""
    measured = hasattr(result, "prediction")
    theory = result.prediction if measured else result
    g, lambda1 = np.atleast_1d(theory.g), np.atleast_1d(theory.lambda1)
    if measured:
        points = np.repeat(g, result.lambda1.shape[1])
        label = f"{result.lambda1.shape[1]} networks each, $n$ = {result.n}"
        ax.plot(points, result.lambda1.ravel(), "o", ms=4, mfc="none", color=BLACK, label=label, zorder=3)
    ax.plot(g, lambda1, color=BLUE, lw=1.8, label=r"mean field, $\frac{1}{2}\ln\chi$")
    ax.axhline(0, color="#888888", lw=0.8)
    ax.axvline(theory.critical, color=ORANGE, lw=1.4, ls="--", label=f"edge of chaos, $g$ = {theory.critical:.4g}")
    ax.set_xlabel(r"gain $g=\sigma_w\sqrt{n}$")
    ax.set_ylabel(r"largest Lyapunov exponent $\lambda_1$ (1/step)")
    if measured:
        off = np.abs(result.lambda1.mean(axis=1) - lambda1)
        worst = int(np.argmax(off))
        title(ax, f"Networks follow mean field: their mean is off by at most {off[worst]:.2g}, at g = {g[worst]:.3g}")
    else:
        title(ax, f"Random {theory.activation} networks are chaotic beyond g = {theory.critical:.4g}")
    ax.legend(loc="best")
    return ax
