"""What is averaged over the steps of a unit, written once: scalar mathematics that kernels of both backends inline."""

from __future__ import annotations

import math

from ._jit import unit
from ._math import IDENTITY, LOGISTIC, TANH, log, phi_slope

#: In the place of an activation's number: the logarithm of the magnitude.
LOG_MAGNITUDE = -1
#: In the place of an activation's number: the square.
SQUARE = -2
#: How many terms there are.
COUNT = 4

_INFINITY = math.inf
_SMALL, _RAISED, _BITS = 1e-300, 2.0**60, 60 * math.log(2.0)


@unit
def log_magnitude(x):
    """ln|x| of a float64; -inf for 0."""
    size = abs(x)
    if size == 0.0:
        return -_INFINITY
    if not size < _INFINITY:
        return size
    return log(size * _RAISED) - _BITS if size < _SMALL else log(size)


@unit
def terms(kind, x, low, high, level):
    """(at the lower end, at the upper end, value, slope) of activation ``kind`` at a float64 x.

    A tanh is at an end beyond +-``level``, a logistic function below ``low`` and above ``high``, a relu or softplus at
    its lower one where its slope is below ``low``, the identity never. Of ``LOG_MAGNITUDE`` the value is ln|x|, of
    ``SQUARE`` x^2.
    """
    if kind == LOG_MAGNITUDE:
        return 0.0, 0.0, log_magnitude(x), 0.0
    if kind == SQUARE:
        return 0.0, 0.0, x * x, 0.0
    value, slope = phi_slope(kind, x)
    below, above = 0.0, 0.0
    if kind == TANH:
        below, above = 1.0 if value < -level else 0.0, 1.0 if value > level else 0.0
    elif kind == LOGISTIC:
        below, above = 1.0 if value < low else 0.0, 1.0 if value > high else 0.0
    elif kind != IDENTITY:
        below = 1.0 if slope < low else 0.0
    return below, above, value, slope
