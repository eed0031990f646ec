"""Eigenvalues against the circular law: those of a matrix of independent entries fill a disc evenly (Girko 1984)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .._results import Result
from .product_spectrum import ProductSpectrum
from .spectra import Spectrum


@dataclass(frozen=True)
class CircularLaw(Result):
    """How evenly the eigenvalues of K matrices fill their discs.

    Attributes
    ----------
    labels : tuple of str (K,)
    log_radius : ndarray (K,)
        ln R, natural: R = ||A||_F/sqrt(N); of a product of m matrices, the m-th root of the product of theirs.
    r : ndarray (M,)
        Radii in units of R, 0 … 1.5.
    share : ndarray (K, M)
        Share of the eigenvalues with |lambda| <= r R; of a product of m matrices, with |lambda|^(1/m) <= r R. NaN below
        the magnitude at which rounding has swallowed eigenvalues.
    law : ndarray (M,)
        min(r^2, 1), the limit for large matrices of independent entries, and for products of independent ones
        (Götze & Tikhomirov 2010).
    distance : ndarray (K,)
        Largest |share - law|, over all r and not only those listed; NaN where the share is nowhere known.
    outermost : ndarray (K,)
        Largest |lambda| (or its m-th root) over R, about 1 under the law.

    Notes
    -----
    In a random tanh network with gain g < 1 about its fixed point 0, J_t = W fills a disc of radius g, so that the
    share of Lyapunov exponents ln|lambda| below s is e^(2 s)/g^2. Where saturation differs from unit to unit, the rows
    of J_t differ in size, and the small eigenvalues are more than the law says.
    """

    labels: tuple[str, ...]
    log_radius: NDArray[np.float64]
    r: NDArray[np.float64]
    share: NDArray[np.float64]
    law: NDArray[np.float64]
    distance: NDArray[np.float64]
    outermost: NDArray[np.float64]


def circular_law(spectrum: Spectrum | ProductSpectrum) -> CircularLaw:
    """Compare a spectrum with the circular law.

    Parameters
    ----------
    spectrum : Spectrum or ProductSpectrum
        From :func:`rnngrad.weight_spectrum`, :func:`rnngrad.jacobian_spectrum` or :func:`rnngrad.product_spectrum`.

    Raises
    ------
    ValueError
        It is something else, or of a zero matrix, which has no disc.
    """
    with np.errstate(divide="ignore"):
        if isinstance(spectrum, Spectrum):
            labels, order = spectrum.labels, np.ones(len(spectrum.labels))
            logs, log_radius = np.log(np.abs(spectrum.eigenvalues)), np.log(spectrum.circular_radius)
            floor = np.full(len(labels), -np.inf)
        elif isinstance(spectrum, ProductSpectrum):
            labels, order = tuple(f"Phi, lag = {lag}" for lag in spectrum.lags), spectrum.lags.astype(float)
            logs, log_radius, floor = spectrum.log_magnitude, spectrum.log_circular_radius, spectrum.log_floor
        else:
            raise ValueError(
                f"spectrum is {type(spectrum).__name__}; it must come from weight_spectrum, jacobian_spectrum or "
                "product_spectrum"
            )
    if not np.isfinite(log_radius).all():
        zero = labels[int(np.argmin(np.isfinite(log_radius)))]
        raise ValueError(f"spectrum holds a zero matrix ({zero}); there is no disc to compare it with")
    r = np.linspace(0.0, 1.5, 151)
    moduli = np.exp((logs - log_radius[:, None]) / order[:, None])  # (K, N), falling or not, NaN if lost
    floor = np.exp((floor - log_radius) / order)
    share, distance = np.full((len(labels), len(r)), np.nan), np.full(len(labels), np.nan)
    for k, (own, lowest) in enumerate(zip(moduli, floor, strict=True)):
        known = np.sort(own[~np.isnan(own)])
        lost = own.size - known.size
        counted = known.searchsorted(r, side="right") + lost
        share[k] = np.where((r >= lowest) | (lost == 0), counted / own.size, np.nan)
        at = known[known >= lowest] if lost else known
        if at.size:  # the largest difference is just before or at an eigenvalue, or at R
            ends = np.append(at, 1.0) if not lost or lowest <= 1 else at
            after, before = (known.searchsorted(ends, side=side) + lost for side in ("right", "left"))
            law = np.minimum(ends**2, 1.0)
            distance[k] = max(np.abs(after / own.size - law).max(), np.abs(before / own.size - law).max())
    return CircularLaw(
        labels=labels,
        log_radius=log_radius / order,
        r=r,
        share=share,
        law=np.minimum(r**2, 1.0),
        distance=distance,
        outermost=np.fmax.reduce(moduli, axis=1),
    )
