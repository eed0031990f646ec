"""Losses written once, component by component: scalar mathematics that kernels of both backends inline.

A loss of one output y (p,) with target z is scale sum_i term_i, and its derivative scale slope_i. What a component
needs of the others comes as (top, log_mass) = (max_j y_j, ln sum_j share_j), its share p_i of the softmax, and
total = sum_j z_j; all are 0 for losses that are not ``normalized``. The second derivative along u is scale bend_i, with
mean = sum_j p_j u_j.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ._jit import unit
from ._math import exp_minus, log, logistic, softplus


@unit
def share(y, top):
    """e^(y - top), what a component adds to the mass of the softmax."""
    return exp_minus(top - y)


@unit
def log_mass(mass):
    """ln of the sum of all shares."""
    return log(mass)


@unit
def square_term(y, z, top, log_mass):
    d = y - z
    return d * d


@unit
def square_slope(y, z, p, total):
    d = y - z
    return d + d


@unit
def square_bend(y, u, p, total, mean):
    return u + u


@unit
def softmax_bend(y, u, p, total, mean):
    """Softmax and cross-entropy as one convex function: total (diag p - p p^T) u."""
    return total * p * (u - mean)


@unit
def logistic_bend(y, u, p, total, mean):
    """s (1 - s) u without overflow, with both tails."""
    e = exp_minus(y)
    one = type(y)(1.0)
    return e / ((one + e) * (one + e)) * u


@unit
def softmax_term(y, z, top, log_mass):
    return z * (log_mass + (top - y))


@unit
def softmax_slope(y, z, p, total):
    return p * total - z


@unit
def logistic_term(y, z, top, log_mass):
    """ln(1 + e^y) - z y, without overflow."""
    return softplus(y) - z * y


@unit
def logistic_slope(y, z, p, total):
    return logistic(y) - z


@dataclass(frozen=True)
class Terms:
    """The units of a loss, and the power of two that their sum is multiplied by."""

    name: str
    term: Any
    slope: Any
    bend: Any
    normalized: bool = False
    scale: float = 1.0


TERMS = {
    terms.name: terms
    for terms in (
        Terms("squared_error", square_term, square_slope, square_bend, scale=0.5),
        Terms("sum_of_squares", square_term, square_slope, square_bend),
        Terms("cross_entropy", softmax_term, softmax_slope, softmax_bend, normalized=True),
        Terms("binary_cross_entropy", logistic_term, logistic_slope, logistic_bend),
    )
}
