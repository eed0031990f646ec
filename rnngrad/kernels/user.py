"""A user's function in the one form that kernels call: ``call(out, s, x, params)`` writes what it gives into ``out``.

The kernels of every backend are loops around such a call; how a function gives its result stands here alone.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: of the complex-step derivative: its square is lost beside 1, so no truncation error is left
COMPLEX_STEP = 1e-30
_LEAF = 4  # numbers of a tuple that one function writes
_FORMS = {3: "(s, x, params)", 4: "(out, s, x, params)"}


@dataclass(frozen=True)
class UserFunction:
    """A compiled function of s (n,), x (m,) and params (q,) with a result of ``shape``, which is (n,) or (n, n).

    ``gives`` says how: "array" or "tuple", returned by function(s, x, params); "written" by function(out, s, x,
    params).
    """

    function: Any
    shape: tuple[int, ...]
    gives: str

    def __call__(self, s: NDArray, x: NDArray, params: NDArray) -> NDArray:
        """The result at one place, as an array."""
        return _value(self.function, self.shape, self.gives == "written", s, x, params)

    @property
    def source(self) -> Any:
        """The function as Python has it."""
        return getattr(self.function, "py_func", self.function)

    def into(self, function: Any, compiled: Callable[[Any], Any]) -> Any:
        """``call(out, s, x, params)`` around ``function``, which is this one made for a backend by ``compiled``."""
        if self.gives == "written":
            return function
        matrix = len(self.shape) == 2
        if self.gives == "tuple":
            put = _writer(0, self.shape[0], compiled)
            if matrix:
                put = _writer(0, self.shape[0], compiled, put)
        elif matrix:

            def put(out, value):
                for i in range(out.shape[0]):
                    for j in range(out.shape[1]):
                        out[i, j] = value[i, j]

            put = compiled(put)
        else:

            def put(out, value):
                for i in range(out.size):
                    out[i] = value[i]

            put = compiled(put)

        def call(out, s, x, params):
            put(out, function(s, x, params))

        return compiled(call)


def _writer(start: int, stop: int, compiled: Callable[[Any], Any], row: Any = None) -> Any:
    """``put(out, value)``: out[i] = value[i] for start <= i < stop of a tuple, by ``row(out[i], value[i])`` if given.

    Halves of halves: the index of a tuple whose entries differ in type must be a constant of the code.
    """
    if stop - start > _LEAF:
        middle = (start + stop) // 2
        first, second = _writer(start, middle, compiled, row), _writer(middle, stop, compiled, row)

        def put(out, value):
            first(out, value)
            second(out, value)

        return compiled(put)
    a, b, c, d = (min(start + i, stop - 1) for i in range(_LEAF))  # the last one more than once does no harm
    if row is None:

        def put(out, value):
            out[a] = value[a]
            out[b] = value[b]
            out[c] = value[c]
            out[d] = value[d]

    else:

        def put(out, value):
            row(out[a], value[a])
            row(out[b], value[b])
            row(out[c], value[c])
            row(out[d], value[d])

    return compiled(put)


def writes(name: str, function: Any) -> bool:
    """Whether a function is of the form (out, s, x, params); an error if it is of neither form."""
    parameters = inspect.signature(getattr(function, "py_func", function)).parameters.values()
    needed = [p for p in parameters if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(needed) not in _FORMS or len(needed) < len(parameters):
        raise ValueError(
            f"{name} has the parameters ({', '.join(str(p) for p in parameters)}); they must be "
            f"{' or '.join(_FORMS.values())}"
        )
    return len(needed) == 4


def examined(
    name: str, function: Any, shape: tuple[int, ...], s: NDArray, x: NDArray, params: NDArray, errors: Any
) -> UserFunction:
    """The function with what it was found to give at one place; ``errors`` are those that it may end with.

    Raises
    ------
    ValueError
        It is of neither form, does not run, or gives something else than real numbers of the shape.
    """
    written = writes(name, function)
    fills: tuple[float, ...] = (1.0, 2.0) if written else ()
    try:
        values = [_value(function, shape, True, s, x, params, fill) for fill in fills]
        given = values[0] if written else function(s.copy(), x.copy(), params)
        value = np.asarray(given)
    except errors as error:
        out = f"out {shape}, " if written else ""
        raise ValueError(
            f"{name} does not run on {out}s {s.shape}, x {x.shape}, params {params.shape}: {error}"
        ) from error
    if written and (missed := np.argwhere((values[0] == 1.0) & (values[1] == 2.0))).size:
        raise ValueError(f"{name} does not write out[{', '.join(map(str, missed[0]))}]; it must write all of out")
    if value.shape != shape or value.dtype.kind not in "fiu":
        numbers = " x ".join(map(str, shape))
        raise ValueError(f"{name} returns shape {value.shape} of {value.dtype}; it must return {numbers} real numbers")
    return UserFunction(function, shape, "written" if written else "tuple" if isinstance(given, tuple) else "array")


def _value(
    function: Any, shape: tuple[int, ...], written: bool, s: NDArray, x: NDArray, params: NDArray, fill: float = 0.0
) -> NDArray:
    """What the function gives, whichever its form."""
    if not written:
        return np.asarray(function(s, x, params), dtype=np.float64)
    out = np.full(shape, fill)
    function(out, s.copy(), x.copy(), params)
    return out
