"""The largest Lyapunov exponent of random networks over the gain: the theory, and the networks measured."""

from __future__ import annotations

from typing import Any

import numpy as np

from .style import BLACK, BLUE, ORANGE, title


def draw(ax: Any, result: Any) -> Any:
    """Draw a :class:`rnngrad.analysis.mean_field.MeanField`, or random networks measured beside it."""
    measured = hasattr(result, "curve")
    theory = result.curve if measured else result
    if measured:
        count, points = result.lambda1.shape[1], np.repeat(result.prediction.g, result.lambda1.shape[1])
        label = f"{count} networks each, $n$ = {result.n}"
        ax.plot(points, result.lambda1.ravel(), "o", ms=4.5, mfc="none", color=BLACK, label=label)
    ax.plot(
        np.atleast_1d(theory.g), np.atleast_1d(theory.lambda1), color=BLUE, lw=1.6,
        label=r"mean field, $\lambda_1=\frac{1}{2}\ln\chi$",
    )  # fmt: skip
    ax.axhline(0, color="#888888", lw=0.8)
    ax.axvline(theory.critical, color=ORANGE, lw=1.4, ls="--", label=f"edge of chaos, $g$ = {theory.critical:.4g}")
    ax.set_xlabel(r"gain $g=\sigma_w\sqrt{n}$")
    ax.set_ylabel(r"largest Lyapunov exponent $\lambda_1$ (1/step)")
    # where the variance of the state has no bound, what grows is the state itself
    what = "chaotic" if theory.activation in ("tanh", "logistic") else "unstable"
    text = f"Random {theory.activation} networks are {what} beyond g = {theory.critical:.4g}"
    if measured:
        known = np.isfinite(result.prediction.lambda1)
        off = np.abs(result.lambda1.mean(axis=1)[known] - result.prediction.lambda1[known])
        if off.size:
            text += f"; measured means are within {off.max():.2g} of mean field"
    title(ax, text)
    ax.legend(loc="lower right")
    return ax
