"""Jacobi rotations of two rows of very different lengths, for both backends (Demmel & Veselić 1992)."""

import math

from .._jit import unit

SWEEPS = 40  # over all pairs of rows, at most
EPS = 2.220446049250313e-16


@unit
def is_orthogonal(a, b, g, count):
    """Whether rows of ``count`` numbers with a = |x|^2, b = |y|^2, g = x.y are orthogonal to rounding."""
    return not abs(g) > count * EPS * math.sqrt(a * b)


@unit
def rotation(a, b, g, z):
    """(c, s) with x <- c x + s z^2 y and y <- c y - s x orthogonal, for rows x and z y of which x is the larger.

    The angle has tan = z t, t = sign(d) g / (|d|/2 + sqrt(d^2/4 + g^2 z^2)), d = a - b z^2: for a tiny z it takes from
    y what lies along x, and leaves x.
    """
    half = (a - b * z * z) / 2.0
    t = g / (abs(half) + math.sqrt(half * half + g * g * z * z))
    if half < 0.0:
        t = -t
    c = 1.0 / math.sqrt(1.0 + t * t * z * z)
    return c, t * c


@unit
def rounding_exponent(rows):
    """e for which a row that rotations brought below 2^e of its length is what cancellation leaves of a zero."""
    return -53.0 + math.log2(4.0 * rows)


@unit
def keeps_largest(a, b, g):
    """Whether rows with a = |x|^2, b = |y|^2, g = x.y are as good as orthogonal where the largest length is wanted.

    Rounding leaves so much of a row that a rotation takes to zero: below it there would be no end. Rows are of numbers
    divided by the largest of all that are compared: those whose squares come near the end of the numbers, where a
    rotation by them is none, are not the largest.
    """
    return not abs(g) > 4.0 * EPS * (a + b) or a + b < 1e-100
