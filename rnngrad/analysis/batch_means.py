"""Confidence intervals for the mean of a correlated series, from the means of its blocks.

Block sums are taken as a moving average of order one: neighbours may share something, blocks further apart do not.
Its spectral density f(w) = p (1 + cos w)/2 + q (1 - cos w)/2, with p, q >= 0, is fitted to the periodogram by Whittle's
likelihood (Fisher scoring), and the variance of the mean of M blocks is (p (M - 1/2) + q/2)/M^2. Plain batch means
assume p = q. That is badly wrong where increments undo each other, as in the exponent of the logistic map at r = 4,
where log|f'| is ln 2 plus the difference of a function at the ends of a step: there p = 0, and the error of the mean
falls as 1/M, not 1/sqrt(M).

Sources: Whittle (1953); Heidelberger & Welch (1981) for the spectral route to such intervals.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import special

FEWEST = 16  # blocks without which there is no interval
_CORRELATED = 0.15  # correlation of neighbours above which blocks are joined
_SCORING, _CLOSE = 60, 1e-4  # steps of Fisher scoring at most, and the change that is no change
_HALVINGS, _FLOOR = 12, 1e-9  # of a step that does not raise the likelihood; of the spectral density


def mean_interval(values: NDArray, confidence: float = 0.95) -> tuple[NDArray, NDArray]:
    """(standard error, half width of the interval) of the mean over the first axis.

    Blocks are joined in pairs while neighbours are correlated by more than 0.15 and at least 2 x 16 are left, so that
    blocks end up longer than the correlation. Student's t has about 2 M/9 degrees of freedom, what the fit leaves to
    p. NaN for fewer than 16 blocks, or where a value is not finite.

    Parameters
    ----------
    values : ndarray (M, ...)
        Means of consecutive blocks of equal length.
    """
    shape = values.shape[1:]
    flat = values.reshape(len(values), -1).astype(np.float64)
    error, width = np.full(flat.shape[1], np.nan), np.full(flat.shape[1], np.nan)
    left = np.flatnonzero(np.isfinite(flat).all(axis=0))
    level = flat
    while left.size and len(level) >= FEWEST:
        variance, freedom, correlation = _variance(level[:, left])
        coarser = len(level) // 2
        done = (correlation <= _CORRELATED) | (coarser < FEWEST)
        settled = left[done]
        error[settled] = np.sqrt(variance[done])
        width[settled] = special.stdtrit(freedom[done], 0.5 + confidence / 2) * error[settled]
        left = left[~done]
        level = level[len(level) - 2 * coarser :].reshape(coarser, 2, -1).mean(axis=1)
    return error.reshape(shape), width.reshape(shape)


def _variance(values: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    """(variance of the mean, its degrees of freedom, correlation of neighbours) for blocks (M, R)."""
    M, R = values.shape
    scale = values.std(axis=0)
    live = scale > 8 * np.finfo(float).eps * np.abs(values).max(axis=0)  # a constant has no error
    centred = (values - values.mean(axis=0)) / np.where(live, scale, 1)
    # Without a taper the two ends, which do not fit together, would leak into every frequency.
    taper = np.sqrt(2 / (M + 1)) * np.sin(np.pi * np.arange(1, M + 1) / (M + 1))[:, None]
    K = (M - 1) // 2
    angle = 2 * np.pi * np.arange(1, K + 1) / M
    power = np.abs(np.fft.rfft(taper * centred, axis=0)[1 : K + 1]) ** 2  # (K, R), expectation f
    basis = np.stack([(1 + np.cos(angle)) / 2, (1 - np.cos(angle)) / 2])  # (2, K)
    fit = _fitted(basis, power)
    p, q = fit
    gp, gq = (M - 0.5) / M**2, 0.5 / M**2
    variance = p * gp + q * gq
    freedom = np.full(R, max(4 * K / 9, 1.0))  # of p, by the Fisher information at p = q; the taper costs a third
    correlation = (p - q) / np.where(live, 2 * (p + q), 1)
    return np.where(live, variance * scale**2, 0), freedom, np.where(live, correlation, 0)


def _fitted(basis: NDArray, power: NDArray) -> NDArray:
    """(p, q) >= 0 (2, R) of Whittle's likelihood, by Fisher scoring with steps that never lower it.

    A whole step can leap from p >> q to q >> p, and back, for ever.
    """
    squares = np.stack([basis[0] ** 2, basis[0] * basis[1], basis[1] ** 2])
    fit = np.ones((2, power.shape[1]))
    live = np.arange(power.shape[1])
    least = _deviance(basis, fit, power)
    for _ in range(_SCORING):
        own, before = power[:, live], fit[:, live]
        weight = 1 / np.maximum(basis.T @ before, _FLOOR) ** 2  # (K, live)
        aa, ab, bb = squares @ weight
        ca, cb = basis @ (weight * own)
        det = aa * bb - ab * ab
        p, q = (bb * ca - ab * cb) / det, (aa * cb - ab * ca) / det
        aim = np.stack(
            [np.where(p < 0, 0, np.where(q < 0, ca / aa, p)), np.where(q < 0, 0, np.where(p < 0, cb / bb, q))]
        )
        after, left, step = before.copy(), np.arange(len(live)), 1.0
        for _ in range(_HALVINGS):
            trial = before[:, left] + step * (aim[:, left] - before[:, left])
            reached = _deviance(basis, trial, own[:, left])
            better = reached <= least[live[left]]
            after[:, left[better]], least[live[left[better]]] = trial[:, better], reached[better]
            left, step = left[~better], step / 2
            if not left.size:
                break
        fit[:, live] = after
        live = live[(np.abs(after - before) > _CLOSE * after.max(axis=0)).any(axis=0)]
        if not live.size:
            break
    return fit


def _deviance(basis: NDArray, fit: NDArray, power: NDArray) -> NDArray:
    """Whittle's -2 log likelihood of (p, q), up to a constant, (R,)."""
    density = np.maximum(basis.T @ fit, _FLOOR)
    return np.sum(np.log(density) + power / density, axis=0)
