"""Lyapunov spectra of random networks over the gain, beside what mean field and the circular law say of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _checks
from .._results import Result
from ..network import Network
from .lyapunov import lyapunov_spectrum
from .mean_field import MeanField, mean_field

_CURVE = 101  # gains of the line that is drawn


@dataclass(frozen=True)
class LeadingExponents(Result):
    """The largest exponent over the gain.

    Attributes
    ----------
    prediction, curve : MeanField
        For the gains (K,) that were measured, and from the smallest to the largest of them.
    lambda1 : ndarray (K,)
        Natural logarithm per step.
    interval : ndarray (K, 2)
        95 % interval of ``lambda1`` of that network, from its fluctuation in time; other networks of the ensemble
        differ by O(1/sqrt(n)) more.
    n, steps : int
        Units, and steps measured.
    """

    prediction: MeanField
    curve: MeanField
    lambda1: NDArray[np.float64]
    interval: NDArray[np.float64]
    n: int
    steps: int


@dataclass(frozen=True)
class SpectrumSweep(Result):
    """All exponents, for each gain.

    Attributes
    ----------
    g : ndarray (K,)
    exponents : ndarray (K, n)
        Natural logarithm per step, descending.
    rank : ndarray (n,)
        (i - 1/2)/n for exponent i.
    circular : ndarray (K, n)
        The exponents of a network at rest by the circular law, of which a fraction e^{2s}/g^2 is below s:
        ln g + 1/2 ln(1 - rank). NaN for g > 1, where a network does not rest.
    kaplan_yorke : ndarray (K,)
        Dimension of the attractor.
    n, steps : int
        Units, and steps measured.
    """

    g: NDArray[np.float64]
    exponents: NDArray[np.float64]
    rank: NDArray[np.float64]
    circular: NDArray[np.float64]
    kaplan_yorke: NDArray[np.float64]
    n: int
    steps: int


def spectrum_sweep(
    g: Any,
    *,
    n: int = 100,
    steps: int = 1000,
    transient: int = 300,
    seed: int = 0,
    progress: Callable[[float], Any] = lambda share: None,
) -> tuple[LeadingExponents, SpectrumSweep]:
    """Spectra of random networks h <- tanh(W h), W_ij ~ N(0, g^2/n), for each gain g (K,).

    One draw of the weights serves every gain, and every network starts from the same standard normal state.

    Raises
    ------
    ValueError
        An argument is out of range.
    """
    gains = _checks.array("g", np.atleast_1d(_checks.numbers("g", g)), ("K",))
    if not gains.size:
        raise ValueError("g is empty; it must hold one gain or more")
    fine = np.union1d(gains, np.linspace(gains.min(), gains.max(), _CURVE))
    found = []
    for i, gain in enumerate(gains):
        net = Network.init("vanilla", 0, n, scheme="gaussian", gain=float(gain), seed=seed)
        found.append(lyapunov_spectrum(net, steps=steps, transient=transient, seed=seed))
        progress((i + 1) / len(gains))
    exponents = np.array([one.exponents[0] for one in found])
    interval = np.array([one.interval[0, 0] for one in found])
    rank = (np.arange(net.n) + 0.5) / net.n
    with np.errstate(divide="ignore"):
        law = np.where(gains[:, None] <= 1, np.log(gains)[:, None] + np.log1p(-rank) / 2, np.nan)
    dimension = np.array([one.kaplan_yorke[0] for one in found])
    prediction = mean_field(gains, correlations=False)
    leading = LeadingExponents(
        prediction, mean_field(fine, correlations=False), exponents[:, 0], interval, net.n, found[0].steps
    )
    return leading, SpectrumSweep(gains, exponents, rank, law, dimension, net.n, found[0].steps)
