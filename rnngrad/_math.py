"""Scalar tanh, logistic and softplus that vectorise, and the activations by number.

Numba calls libm one element at a time; these are straight-line polynomials that LLVM turns into vector code
(float64 and float32 are told apart at compile time) and that mean the same on CUDA. Worst errors, measured against
mpmath and long doubles over millions of points: 3.5 ulp in value, 5.5 ulp in derivative, also where it saturates:
1 - tanh^2 is never formed as a difference, so a saturated unit has a small derivative, not a zero one.
"""

import math

import numpy as np
from numba.core import config

from ._jit import unit

TANH, LOGISTIC, RELU, IDENTITY, SOFTPLUS = range(5)

#: name -> number; the number is a compile-time constant of the kernels.
ACTIVATIONS = {"tanh": TANH, "logistic": LOGISTIC, "relu": RELU, "identity": IDENTITY, "softplus": SOFTPLUS}

#: Supremum of the absolute derivative: the gamma of the bound (gamma lambda)^(t-k).
LIPSCHITZ = {"tanh": 1.0, "logistic": 0.25, "relu": 1.0, "identity": 1.0, "softplus": 1.0}


@unit
def is_single(x):
    """True for float32; LLVM folds it."""
    T = type(x)
    return T(1.0) + T(1e-10) == T(1.0)


@unit
def _split(y):
    """(2^k, e^r - 1) with y = k ln 2 + r and |r| <= ln(2)/2, for y within the exponent range.

    Adding 1.5 * 2^52 (2^23) rounds y/ln 2 to an integer whose bits then sit at the bottom of the mantissa.
    """
    T = type(y)
    if is_single(y):
        shift = y * T(1.4426950408889634) + T(12582912.0)
        k = shift - T(12582912.0)
        r = (y - k * T(0.693359375)) + k * T(2.12194440e-4)
        p = T(1 / 5040)
        p = p * r + T(1 / 720)
        p = p * r + T(1 / 120)
        p = p * r + T(1 / 24)
        p = p * r + T(1 / 6)
        p = p * r + T(0.5)
        bits = np.int32((np.float32(shift).view(np.int32) << np.int32(23)) + np.int32(1065353216))
        return T(bits.view(np.float32)), r + r * r * p
    shift = y * T(1.4426950408889634) + T(6755399441055744.0)
    k = shift - T(6755399441055744.0)
    r = (y - k * T(6.93147180369123816490e-01)) - k * T(1.90821492927058770002e-10)
    p = T(1 / 6227020800)
    p = p * r + T(1 / 479001600)
    p = p * r + T(1 / 39916800)
    p = p * r + T(1 / 3628800)
    p = p * r + T(1 / 362880)
    p = p * r + T(1 / 40320)
    p = p * r + T(1 / 5040)
    p = p * r + T(1 / 720)
    p = p * r + T(1 / 120)
    p = p * r + T(1 / 24)
    p = p * r + T(1 / 6)
    p = p * r + T(0.5)
    bits = np.int64((np.float64(shift).view(np.int64) << np.int64(52)) + np.int64(4607182418800017408))
    return T(bits.view(np.float64)), r + r * r * p


@unit
def _minus_abs(x, limit):
    """-min(|x|, limit), keeping NaN; |y| = limit is where e^y leaves the normal range."""
    y = abs(x)
    return -(limit if y > limit else y)


@unit
def _range(x):
    """Largest y with e^-y a normal number."""
    T = type(x)
    return T(87.0) if is_single(x) else T(708.0)


@unit
def exp_minus(x):
    """e^-|x|; where that is below the normal numbers, the smallest of them about."""
    scale, p = _split(_minus_abs(x, _range(x)))
    return scale + scale * p


@unit
def log(x):
    """ln x of a positive normal number: k ln 2 + 2 artanh((m - 1)/(m + 1)), x = 2^k m with m in [sqrt(1/2), sqrt(2)).

    For kernels: CUDA's own logarithm starts from an approximate reciprocal that flushes subnormal numbers.
    """
    T = type(x)
    if is_single(x):
        bits = np.float32(x).view(np.int32)
        e = np.int32((bits - np.int32(0x3F3504F3)) >> np.int32(23))
        k, m = T(e), T(np.int32(bits - np.int32(e << np.int32(23))).view(np.float32))
        s = (m - T(1.0)) / (m + T(1.0))
        w = s * s
        q = T(1 / 11)
        q = q * w + T(1 / 9)
        q = q * w + T(1 / 7)
        q = q * w + T(1 / 5)
        q = q * w + T(1 / 3)
        return k * T(0.693359375) + (T(2.0) * (s + s * w * q) - k * T(2.12194440e-4))
    bits = np.float64(x).view(np.int64)
    e = np.int64((bits - np.int64(0x3FE6A09E667F3BCD)) >> np.int64(52))
    k, m = T(e), T(np.int64(bits - np.int64(e << np.int64(52))).view(np.float64))
    s = (m - T(1.0)) / (m + T(1.0))
    w = s * s
    q = T(1 / 23)
    q = q * w + T(1 / 21)
    q = q * w + T(1 / 19)
    q = q * w + T(1 / 17)
    q = q * w + T(1 / 15)
    q = q * w + T(1 / 13)
    q = q * w + T(1 / 11)
    q = q * w + T(1 / 9)
    q = q * w + T(1 / 7)
    q = q * w + T(1 / 5)
    q = q * w + T(1 / 3)
    return k * T(6.93147180369123816490e-01) + (T(2.0) * (s + s * w * q) + k * T(1.90821492927058770002e-10))


@unit
def tanh_slope(x):
    """(tanh x, 1 - tanh^2 x)."""
    T = type(x)
    scale, p = _split(_minus_abs(T(2.0) * x, _range(x)))
    e = scale + scale * p  # e^(-2|x|), relative accuracy
    em1 = scale * p + (scale - T(1.0))  # e^(-2|x|) - 1, relative accuracy
    r = T(1.0) / (T(1.0) + e)
    return math.copysign(em1 * r, x), T(4.0) * e * r * r


@unit
def tanh(x):
    return tanh_slope(x)[0]


@unit
def logistic_slope(x):
    """(s, 1 - s, s (1 - s)) of the logistic function s = 1/(1 + e^-x), each to relative accuracy."""
    T = type(x)
    scale, p = _split(_minus_abs(x, _range(x)))
    e = scale + scale * p
    large = T(1.0) / (T(1.0) + e)
    small = e * large
    s = small if x < T(0.0) else large
    co = large if x < T(0.0) else small
    return s, co, small * large


@unit
def logistic(x):
    return logistic_slope(x)[0]


@unit
def softplus(x):
    """log(1 + e^x) = max(x, 0) + 2 artanh(e/(2+e)), e = e^-|x|: the argument never exceeds 1/3."""
    T = type(x)
    scale, p = _split(_minus_abs(x, _range(x)))
    e = scale + scale * p
    z = e / (T(2.0) + e)
    w = z * z
    q = T(1 / 33)
    q = q * w + T(1 / 31)
    q = q * w + T(1 / 29)
    q = q * w + T(1 / 27)
    q = q * w + T(1 / 25)
    q = q * w + T(1 / 23)
    q = q * w + T(1 / 21)
    q = q * w + T(1 / 19)
    q = q * w + T(1 / 17)
    q = q * w + T(1 / 15)
    q = q * w + T(1 / 13)
    q = q * w + T(1 / 11)
    q = q * w + T(1 / 9)
    q = q * w + T(1 / 7)
    q = q * w + T(1 / 5)
    q = q * w + T(1 / 3)
    log1p = T(2.0) * (z + z * w * q)
    return (x if x > T(0.0) else T(0.0)) + log1p


@unit
def phi(kind, x):
    """Activation number ``kind`` at x."""
    T = type(x)
    if kind == TANH:
        return tanh(x)
    if kind == LOGISTIC:
        return logistic(x)
    if kind == RELU:
        return x if not x <= T(0.0) else T(0.0)  # a NaN stays a NaN
    if kind == IDENTITY:
        return x
    return softplus(x)


@unit
def phi_slope(kind, x):
    """(phi(x), phi'(x)); relu'(0) = 0."""
    T = type(x)
    if kind == TANH:
        return tanh_slope(x)
    if kind == LOGISTIC:
        s, _, slope = logistic_slope(x)
        return s, slope
    if kind == RELU:
        return (x, T(1.0)) if not x <= T(0.0) else (T(0.0), T(0.0))
    if kind == IDENTITY:
        return x, T(1.0)
    return softplus(x), logistic(x)


if config.DISABLE_JIT:  # interpreted kernels: Python floats have no bit view, and speed is of no concern

    def _split(y):
        if y != y:
            return y, y
        k = round(float(y) / math.log(2.0))
        return type(y)(2.0**k), type(y)(math.expm1(float(y) - k * math.log(2.0)))

    def log(x):
        return type(x)(math.log(x))
