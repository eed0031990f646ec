"""Lyapunov spectra of random networks: the largest exponent over the gain, and all exponents by rank."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np

from ..analysis.spectrum_sweep import LeadingExponents
from .style import BLACK, BLUE, MAP, ORANGE, title


def draw(ax: Any, result: Any) -> Any:
    """Draw one of the two parts of :func:`rnngrad.analysis.spectrum_sweep.spectrum_sweep`."""
    return _leading(ax, result) if isinstance(result, LeadingExponents) else _spectra(ax, result)


def _leading(ax: Any, result: Any) -> Any:
    theory, curve = result.prediction, result.curve
    half = np.nan_to_num(result.interval[:, 1] - result.lambda1)
    ax.axhline(0, color="#888888", lw=0.8)
    ax.plot(curve.g, curve.lambda1, color=ORANGE, lw=2, label=r"mean field, $\frac{1}{2}\ln\chi$")
    ax.errorbar(
        theory.g, result.lambda1, half, fmt="o", ms=4, color=BLUE, capsize=3, zorder=3,
        label=f"one network of {result.n} units, with 95 % interval",
    )  # fmt: skip
    ax.set_xlabel(r"gain $g=\sigma_w\sqrt{n}$")
    ax.set_ylabel(r"largest Lyapunov exponent $\lambda_1$ (1/step)")
    off = np.where(np.isfinite(theory.lambda1), result.lambda1, 0) - np.nan_to_num(theory.lambda1, neginf=0)
    worst = int(np.argmax(np.abs(off)))
    gap = off[worst]
    title(ax, f"λ₁ is within {abs(gap):.2g} per step of mean field (furthest at g = {theory.g[worst]:.3g})")
    ax.legend(loc="lower right")
    return ax


def _spectra(ax: Any, result: Any) -> Any:
    colors = mpl.colormaps[MAP](np.linspace(0, 0.9, len(result.g)))
    for gain, values, law, color in zip(result.g, result.exponents, result.circular, colors, strict=True):
        ax.plot(result.rank, values, color=color, lw=1.8, label=f"$g$ = {gain:.3g}")
        ax.plot(result.rank, law, color=BLACK, lw=1.0, ls="--")
    if np.isfinite(result.circular).any():
        ax.plot([], [], color=BLACK, lw=1.0, ls="--", label=r"circular law, $\ln g+\frac{1}{2}\ln(1-i/n)$")
    ax.axhline(0, color="#888888", lw=0.8)
    finite = result.exponents[:, : max(1, int(0.98 * len(result.rank)))]
    finite = finite[np.isfinite(finite)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (-1.0, 0.0)
    ax.set_ylim(low - 0.05 * (high - low), high + 0.08 * (high - low))
    ax.set_xlim(0, 1)
    ax.set_xlabel(r"rank $i/n$")
    ax.set_ylabel(r"Lyapunov exponent $\lambda_i$ (1/step)")
    share = float(np.mean(result.exponents[-1] > 0))
    title(
        ax,
        f"At g = {result.g[-1]:.3g}, {100 * share:.3g} % of directions expand (dimension "
        f"{result.kaplan_yorke[-1]:.3g} of {result.n})",
    )
    ax.legend(loc="lower left")
    return ax
