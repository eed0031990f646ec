"""Averages over a Gaussian of functions that bend near 0, to rounding at any variance; Hermite series of them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

_X, _W = np.polynomial.legendre.leggauss(20)  # on each panel
_UNITS = 40.0  # where tanh, the logistic function and softplus have become their limits: e^-40 is below rounding
_TINY = float(np.finfo(np.float64).smallest_subnormal)
_SIGMAS = 14.0  # where a Hermite function of any order times the density is


def gaussian_rule(variance: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Nodes u (M,) and weights (M,) of averages over u ~ N(0, variance); the weights sum to 1.

    Gauss-Legendre on panels no longer than 1 as far as activations bend and than half a standard deviation as far as
    the density reaches. (Gauss-Hermite alone converges slowly at large variance: tanh has poles at +-i pi/2.)
    """
    if variance == 0:  # the limit of small variances: a kink at 0 is seen from both sides
        return np.array([-_TINY, _TINY]), np.array([0.5, 0.5])
    sigma = np.sqrt(variance)
    end = _SIGMAS * sigma
    cuts = np.concatenate([np.arange(0, _SIGMAS + 0.25, 0.5) * sigma, np.arange(_UNITS + 1)])
    cuts = np.unique(cuts[cuts <= end])
    half, middle = np.diff(cuts) / 2, (cuts[1:] + cuts[:-1]) / 2
    u = (middle[:, None] + half[:, None] * _X).ravel()
    weights = (half[:, None] * _W).ravel() * np.exp(-0.5 * (u / sigma) ** 2) / (sigma * np.sqrt(2 * np.pi))
    return np.concatenate([-u, u]), np.concatenate([weights, weights])


def hermite_coefficients(values: NDArray, z: NDArray, weights: NDArray) -> Iterator[float]:
    """a_k = E[f(z) He_k(z)]/sqrt(k!) for k = 0, 1, …, of values f (M,) at standard normal nodes z (M,).

    For u1, u2 standard normal of correlation c, E[f(u1) f(u2)] = sum_k a_k^2 c^k (Mehler 1866).
    """
    weighted = values * weights
    before, this, k = np.zeros_like(z), np.ones_like(z), 0  # He_k/sqrt(k!)
    while True:
        yield float(weighted @ this)
        k += 1
        before, this = this, (z * this - np.sqrt(k - 1) * before) / np.sqrt(k)
