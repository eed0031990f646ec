"""Mean-field theory of random networks h <- phi(W h + b), W_ij ~ N(0, g^2/n), b_i ~ N(0, sigma_b^2), n -> infinity.

A unit's input is Gaussian of variance q, which the step before determines:

    q = g^2 E[phi(sqrt(q) z)^2] + sigma_b^2,        z ~ N(0, 1),
    chi = g^2 E[phi'(sqrt(q) z)^2],                 lambda_1 = 1/2 ln chi:

the mean squared norm of a perturbation is multiplied by chi per step, so chi = 1 is the edge of chaos (Sompolinsky,
Crisanti & Sommers 1988; Poole et al. 2016). Two trajectories of correlation c have after a step the correlation

    C(c) = (g^2 E[phi(u_1) phi(u_2)] + sigma_b^2)/q,       C'(c) = g^2 E[phi'(u_1) phi'(u_2)],        C'(1) = chi,

and approach its fixed point c* by C'(c*) = e^(-1/xi) per step (Schoenholz et al. 2017).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from .. import _checks
from .._math import ACTIVATIONS as NAMES
from .._results import Result
from ..errors import ConvergenceError
from .activations import ACTIVATIONS
from .gaussian import gaussian_rule, hermite_coefficients

_LARGEST = 1e100  # gain or variance: squares of it are numbers still
_RESIDUAL = 1e-12
_RANGE = 700.0  # of ln q
_TERMS = 8192  # of a Hermite series
_CORRELATION_ERROR = 1e-10

#: Limits of E[phi^2]/q and of E[phi'^2] as q -> infinity.
_GROWTH = {"tanh": 0.0, "logistic": 0.0, "relu": 0.5, "identity": 1.0, "softplus": 0.5}


@dataclass(frozen=True)
class MeanField(Result):
    """Mean-field prediction for each gain g.

    Attributes
    ----------
    g : ndarray (K,) or float
    q : as g
        Variance of a unit's input, W h + b. inf where it grows without bound (relu, softplus beyond sqrt(2), identity
        beyond 1), with chi and lambda1 at their limits; NaN where every q is as good as another (relu at sqrt(2) and
        identity at 1, without bias).
    chi : as g
        Growth of the mean squared norm of a perturbation per step.
    lambda1 : as g
        Largest Lyapunov exponent, 1/2 ln chi, natural logarithm per step.
    correlation : as g
        c*, to which the correlation of two trajectories tends: 1 where chi <= 1. NaN where q is not finite, and with
        ``correlations=False``.
    length : as g
        Correlation length xi = -1/ln C'(c*), steps; inf at the edge of chaos. NaN as above.
    residual : as g
        |F(q)/q - 1| of the equation q = F(q) that was solved; 0 where q needs no solving.
    critical : float
        Gain of the edge of chaos, chi = 1.
    activation : str
    bias_variance : float
        sigma_b^2.
    """

    g: Any
    q: Any
    chi: Any
    lambda1: Any
    correlation: Any
    length: Any
    residual: Any
    critical: float
    activation: str
    bias_variance: float


def mean_field(g: Any, *, activation: str = "tanh", bias_variance: float = 0.0, correlations: bool = True) -> MeanField:
    """Variance, chi, Lyapunov exponent, edge of chaos and correlation length of random networks.

    Parameters
    ----------
    g : float or array (K,)
        Gains: W_ij ~ N(0, g^2/n).
    activation : str
        tanh, logistic, relu, identity or softplus.
    bias_variance : float
        sigma_b^2: variance of the biases, or of any input that is constant in time.
    correlations : bool
        Compute ``correlation`` and ``length``.

    Returns
    -------
    MeanField
        With numbers for a number g, else with arrays.

    Raises
    ------
    ValueError
        g or the bias variance is outside [0, 1e100], or there is no such activation.
    ConvergenceError
        The equation of q or c* was not solved to 1e-12 and 1e-10.

    Notes
    -----
    Averages are exact to rounding (:mod:`rnngrad.analysis.gaussian`). The theory says nothing of cells with gates,
    nor of finite n: fluctuations are of order 1/sqrt(n), and largest near the edge.
    """
    gains = _checks.array("g", g)
    if gains.ndim > 1 or not gains.size or (gains < 0).any() or (gains > _LARGEST).any():
        raise ValueError(f"g is {g!r}; it must be a number, or a list of numbers, in [0, {_LARGEST:g}]")
    _checks.choice("activation", activation, tuple(NAMES))
    sigma2 = _checks.number("bias_variance", bias_variance, 0.0, _LARGEST)
    rows = []
    for gain in gains.ravel():
        q, residual = _variance(float(gain), activation, sigma2)
        chi = _chi(float(gain), activation, q)
        pair = _correlation(float(gain), activation, sigma2, q, chi) if correlations else (np.nan, np.nan)
        rows.append((q, chi, _half_log(chi), *pair, residual))
    columns = [np.array(column).reshape(gains.shape) for column in zip(*rows, strict=True)]
    shaped: list[Any] = columns if gains.ndim else [float(column) for column in columns]
    q, chi, lambda1, correlation, length, residual = shaped
    return MeanField(
        g=gains if gains.ndim else float(gains),
        q=q,
        chi=chi,
        lambda1=lambda1,
        correlation=correlation,
        length=length,
        residual=residual,
        critical=edge_of_chaos(activation, sigma2),
        activation=activation,
        bias_variance=sigma2,
    )


def edge_of_chaos(activation: str = "tanh", bias_variance: float = 0.0) -> float:
    """The gain at which chi = 1: smaller ones forget every perturbation, larger ones amplify it.

    On the edge g^2 = 1/E[phi'^2], so the variance q there is the root of q - E[phi^2]/E[phi'^2] = sigma_b^2.

    Raises
    ------
    ValueError
        There is no such activation, or the bias variance is outside [0, 1e100].
    ConvergenceError
        No q was found.
    """
    _checks.choice("activation", activation, tuple(NAMES))
    sigma2 = _checks.number("bias_variance", bias_variance, 0.0, _LARGEST)
    if _GROWTH[activation] > 0:  # E[phi'^2] is below its limit, and q infinite once g^2 reaches 1/limit
        return float(1 / np.sqrt(_GROWTH[activation]))
    phi = ACTIVATIONS[activation]
    value, slope = (float(part[0]) for part in phi(np.zeros(1)))
    if value == 0 and sigma2 == 0:
        return 1 / abs(slope)

    def excess(log_q: float) -> float:
        q = float(np.exp(log_q))
        squared, slopes = _averages(activation, q)
        return (q - squared / slopes - sigma2) / q

    return float(1 / np.sqrt(_averages(activation, float(np.exp(_root(excess, "the edge of chaos"))))[1]))


def _averages(activation: str, q: float) -> tuple[float, float]:
    """E[phi^2] and E[phi'^2] for inputs of variance q."""
    u, weights = gaussian_rule(q)
    value, slope = ACTIVATIONS[activation](u)
    return float(weights @ (value * value)), float(weights @ (slope * slope))


def _variance(g: float, activation: str, sigma2: float) -> tuple[float, float]:
    """The q that large inputs tend to, and the residual of its equation."""
    value, slope = (float(part[0]) for part in ACTIVATIONS[activation](np.zeros(1)))
    growth = g * g * _GROWTH[activation]
    if growth > 1 or (growth == 1 and (sigma2 > 0 or value != 0)):
        return np.inf, 0.0
    if value == 0 and sigma2 == 0:
        if activation in ("relu", "identity"):  # homogeneous: F(q) = growth q
            return (0.0 if growth < 1 else np.nan), 0.0
        if g * abs(slope) <= 1:  # F(q) is concave
            return 0.0, 0.0
    if g == 0:
        return sigma2, 0.0

    def excess(log_q: float) -> float:
        q = float(np.exp(log_q))
        return 1 - (g * g * _averages(activation, q)[0] + sigma2) / q

    log_q = _root(excess, f"the variance at g = {g:g}")
    residual = abs(excess(log_q))
    if residual > _RESIDUAL:
        raise ConvergenceError(f"the variance at g = {g:g} has the residual {residual:.3g}; it must be {_RESIDUAL:g}")
    return float(np.exp(log_q)), residual


def _chi(g: float, activation: str, q: float) -> float:
    if np.isfinite(q):
        return g * g * _averages(activation, q)[1]
    return g * g * _GROWTH[activation]


def _half_log(chi: float) -> float:
    return 0.5 * float(np.log(chi)) if chi > 0 else -np.inf


def _root(increasing: Any, what: str) -> float:
    """Root of a function of ln q that rises through 0 once."""
    low = high = 0.0
    step = 1.0
    while increasing(low) >= 0 and low > -_RANGE:
        low, step = low - step, 2 * step
    step = 1.0
    while increasing(high) <= 0 and high < _RANGE:
        high, step = high + step, 2 * step
    if low <= -_RANGE or high >= _RANGE:
        raise ConvergenceError(f"{what} was not found: no q between e^-{_RANGE:g} and e^{_RANGE:g} solves its equation")
    return float(brentq(increasing, low, high, xtol=1e-15, rtol=4 * np.finfo(float).eps, maxiter=200))


def _correlation(g: float, activation: str, sigma2: float, q: float, chi: float) -> tuple[float, float]:
    """c* and the correlation length."""
    if not np.isfinite(q):
        return np.nan, np.nan
    if chi <= 1:
        return 1.0, _length(chi)
    u, weights = gaussian_rule(q)
    value, slope = ACTIVATIONS[activation](u)
    series = hermite_coefficients(value, u / np.sqrt(q), weights)
    total, slopes = float(weights @ (value * value)), float(weights @ (slope * slope))
    squares, terms = np.zeros(0), 32
    while len(squares) < _TERMS:
        squares = np.append(squares, np.square(list(islice(series, terms))))
        terms = len(squares)
        c, rate = _fixed_correlation(squares, g, sigma2, q)
        # Parseval: what the series lacks at c is at most what it lacks at 1 times the first power left out
        k, lost = len(squares), max(total - float(squares.sum()), 0.0)
        lost_slope = max(slopes - float(np.arange(k) @ squares) / q, 0.0)
        if g * g * c ** (k - 1) * max(lost / q, lost_slope) <= _CORRELATION_ERROR * max(1 - rate, 1e-3):
            return c, _length(rate)
    raise ConvergenceError(
        f"the correlation at g = {g:g} needs more than {_TERMS} terms of its series (c* = {c:.6g}); "
        "correlations=False leaves it out"
    )


def _fixed_correlation(squares: NDArray, g: float, sigma2: float, q: float) -> tuple[float, float]:
    """The fixed point below 1 of C(c) = (g^2 sum a_k^2 c^k + sigma_b^2)/q, a convex function, and its slope there."""
    polynomial = np.polynomial.Polynomial(g * g * squares / q) + sigma2 / q

    def gap(c: float) -> float:
        return float(polynomial(c)) - c

    derivative = polynomial.deriv()
    if gap(0.0) <= 1e-15:
        return 0.0, float(derivative(0.0))
    # a convex C with C(0) > 0, C(1) = 1 and C'(1) > 1 is below c just under 1; a truncated series also at 1
    lowest = brentq(lambda c: float(derivative(c)) - 1, 0.0, 1.0) if float(derivative(1.0)) > 1 else 1.0
    if gap(lowest) >= 0:
        return 1.0, float(derivative(1.0))
    c = float(brentq(gap, 0.0, lowest, xtol=1e-15, rtol=4 * np.finfo(float).eps))
    return c, float(derivative(c))


def _length(rate: float) -> float:
    """-1/ln rate, steps; inf within rounding of 1."""
    if rate <= 0:
        return 0.0
    return np.inf if rate > 1 - 8 * np.finfo(float).eps else -1 / float(np.log(rate))
