"""Rates of the eigenvalues of Phi(t, t - lag) against lag, with that of its norm."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..analysis.words import short
from .style import BLACK, BLUE, RED, legend_below, title


def draw(ax: Any, result: Any) -> Any:
    """Draw a :class:`rnngrad.analysis.product_spectrum.ProductSpectrum`."""
    lags = result.lags
    rates, norm, floor = (
        values / (lags[:, None] if values.ndim == 2 else lags)
        for values in (result.log_magnitude, result.log_norm, result.log_floor)
    )
    at = np.broadcast_to(lags[:, None], rates.shape)
    known, shown = ~np.isnan(rates), np.isfinite(rates)  # -inf is known, and beyond any axis
    ax.plot(at[shown], rates[shown], ".", color=BLUE, ms=4, label=r"$\ln|\lambda_i|$/lag, every eigenvalue")
    ax.plot(lags, norm, color=BLACK, lw=1.2, label=r"$\ln\|\Phi\|_2$/lag")
    lost = known.sum(axis=1) < rates.shape[1]
    if lost.any():
        ax.plot(lags[lost], floor[lost], "_", color=RED, ms=10, label="below: lost in the rounding of the product")
    ax.axhline(0, color="#888888", lw=0.8)
    ax.set_xscale("log")
    ax.set_xlabel("lag (steps)")
    ax.set_ylabel(r"rate per step (natural logarithm)")
    last = len(lags) - 1
    kept = int(known[last].sum())
    title(
        ax,
        f"At lag {lags[last]} the norm grows by {short(float(norm[last]))} per step, the spectral radius by "
        f"{short(float(rates[last, 0]))}; {kept} of {rates.shape[1]} eigenvalues are known".replace("-inf", "-∞"),
    )
    legend_below(ax, 2)
    return ax
