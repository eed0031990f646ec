"""Second derivatives of the cells by dual numbers: every ``*_vjp`` unit run over x + h x' with h^2 = 0.

A complex number of imaginary part ``STEP`` x' is a dual number: the square of STEP underflows to zero, so sums,
products and quotients carry real part and derivative along without touching each other. The scalar functions of
``_math``, which split numbers into bits, have their dual versions here, f(x + h x') = f(x) + h f'(x) x', made of the
real ones. ``dual`` gives the twin of a unit: the same source with these in place of those. So second partials are
nowhere written by hand, and are as exact as the first ones; changes below 1e-108 read 0.
"""

import cmath
import functools
import math
from types import BuiltinFunctionType, CellType, FunctionType, ModuleType

from numba.core.dispatcher import Dispatcher

from . import _math
from ._jit import unit
from ._math import IDENTITY, LOGISTIC, RELU, TANH

STEP = 1e-200


@unit
def _tanh_slope(z):
    t, slope = _math.tanh_slope(z.real)
    return complex(t, slope * z.imag), complex(slope, -2.0 * t * slope * z.imag)


@unit
def _tanh(z):
    return _tanh_slope(z)[0]


@unit
def _logistic_slope(z):
    s, co, slope = _math.logistic_slope(z.real)
    change = slope * z.imag
    return complex(s, change), complex(co, -change), complex(slope, (co - s) * change)


@unit
def _logistic(z):
    return _logistic_slope(z)[0]


@unit
def _phi_slope(kind, z):
    if kind == TANH:
        return _tanh_slope(z)
    if kind == LOGISTIC:
        s, _, slope = _logistic_slope(z)
        return s, slope
    if kind == RELU:
        v, slope = _math.phi_slope(RELU, z.real)
        return complex(v, slope * z.imag), complex(slope, 0.0)
    if kind == IDENTITY:
        return z, complex(1.0, 0.0)
    return _softplus(z), _logistic(z)


@unit
def _softplus(z):
    return complex(_math.softplus(z.real), _math.logistic(z.real) * z.imag)


@unit
def _phi(kind, z):
    return _phi_slope(kind, z)[0]


_NAMED = {
    "tanh_slope": _tanh_slope,
    "tanh": _tanh,
    "logistic_slope": _logistic_slope,
    "logistic": _logistic,
    "phi_slope": _phi_slope,
    "phi": _phi,
    "softplus": _softplus,
}
_DUALS = {getattr(_math, name): value for name, value in _NAMED.items()}
_MATH = ModuleType("rnngrad._math, dual")
vars(_MATH).update(vars(_math) | _NAMED)


@functools.cache
def dual(function):
    """The twin of a unit for dual numbers: its source, with every function it calls replaced by a twin."""
    source = getattr(function, "py_func", function)
    names = set(source.__code__.co_names)
    values = source.__globals__ | {name: _twin(source.__globals__[name]) for name in names & set(source.__globals__)}
    closure = tuple(CellType(_twin(cell.cell_contents)) for cell in source.__closure__ or ())
    twin = FunctionType(source.__code__, values, source.__name__, source.__defaults__, closure or None)
    twin.__qualname__ = source.__qualname__ + "[dual]"  # machine symbols are made of it
    return unit(twin)


def _twin(value):
    """What a name of a unit's source stands for over dual numbers; numbers and all else stand for themselves."""
    if isinstance(value, (Dispatcher, FunctionType)):
        return _DUALS[value] if value in _DUALS else dual(value)
    if isinstance(value, BuiltinFunctionType) and value.__module__ == "math":
        return getattr(cmath, value.__name__, value)
    return _MATH if value is _math else cmath if value is math else value
