"""Checks of arguments: every raise about shape, dtype and finiteness. Kernels never check."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _cuda

FLOATS = (np.dtype("float64"), np.dtype("float32"))


def float_dtype(value: Any) -> np.dtype:
    """float64 or float32 from a name or dtype."""
    try:
        if value is not None and np.dtype(value) in FLOATS:  # NumPy takes None for float64
            return np.dtype(value)
    except TypeError as error:
        raise ValueError(f"dtype is {value!r}; it must be 'float64' or 'float32'") from error
    raise ValueError(f"dtype is {value!r}; it must be 'float64' or 'float32'")


def _spell(shape: Sequence[int | str | None]) -> str:
    return "(" + ", ".join("*" if s is None else str(s) for s in shape) + ("," if len(shape) == 1 else "") + ")"


def readable(name: str, value: Any) -> NDArray:
    """Whatever NumPy makes of the value; an error names what it cannot read, such as nested lists of uneven length.

    Arrays on a GPU are refused, also those that would copy themselves to the host.
    """
    if _cuda.is_device_array(value):
        raise ValueError(f"{name} lives on a GPU, and this is computed from arrays on the host; copy it there")
    try:
        return np.asarray(value)
    except (ValueError, TypeError, RuntimeError) as error:
        raise ValueError(f"{name} cannot be read as an array: {error}") from error


def numbers(name: str, value: Any) -> NDArray:
    """Any array of real numbers, as NumPy reads it."""
    out = readable(name, value)
    if out.dtype.kind not in "fiub":
        raise ValueError(f"{name} has dtype {out.dtype}; it must be real numbers")
    return out


def array(name: str, value: Any, shape: Sequence[int | str | None] | None = None, dtype: Any = None) -> NDArray:
    """A C-contiguous native array of finite numbers, with the shape asked for.

    ``shape`` entries are sizes, or names/None where any size will do. A floating array of another precision is
    refused (precisions are never mixed); integers, booleans and lists are converted. Any order, stride or byte order
    is accepted by copying.
    """
    dtype = np.dtype(dtype or np.float64)
    given = numbers(name, value)
    typed = hasattr(value, "dtype")
    if typed and given.dtype.kind == "f" and given.dtype.newbyteorder("=") != dtype:
        raise ValueError(
            f"{name} has dtype {given.dtype.name}; it must be {dtype.name} like the rest "
            f"(precisions are never mixed: convert it, or make the network with dtype={given.dtype.name!r})"
        )
    out = np.ascontiguousarray(given, dtype=dtype).reshape(given.shape)
    if shape is not None:
        fits = out.ndim == len(shape) and all(
            shape[i] == out.shape[i] for i in range(out.ndim) if isinstance(shape[i], int)
        )
        if not fits:
            raise ValueError(f"{name} has shape {_spell(out.shape)}; it must have shape {_spell(shape)}")
    finite(name, out)
    return out


def finite(name: str, value: NDArray) -> None:
    """Raise if the array holds a NaN or an infinity, and say where the first one is."""
    bad = ~np.isfinite(value)
    if bad.any():
        where = tuple(int(i) for i in np.argwhere(bad)[0])
        raise ValueError(
            f"{name} is {value[where]} at index {where} ({int(bad.sum())} of {value.size} entries are not finite); "
            "all of it must be finite"
        )


def integer(name: str, value: Any, low: int | None = None, high: int | None = None) -> int:
    """An integer in [low, high]."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise ValueError(f"{name} is {value!r}; it must be an integer")
    if (low is not None and value < low) or (high is not None and value > high):
        bounds = f"at least {low}" if high is None else f"at most {high}" if low is None else f"in {low}…{high}"
        raise ValueError(f"{name} is {value}; it must be {bounds}")
    return int(value)


def number(name: str, value: Any, low: float = -np.inf, high: float = np.inf, *, open_low: bool = False) -> float:
    """A finite real number in [low, high], or (low, high] with ``open_low``."""
    try:
        out = float(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} is {value!r}; it must be a number") from error
    if not np.isfinite(out) or out < low or out > high or (open_low and out == low):
        raise ValueError(f"{name} is {out}; it must be in {'(' if open_low else '['}{low}, {high}]")
    return out


def choice(name: str, value: Any, options: Sequence[Any]) -> Any:
    """One of the options."""
    if value not in options:
        raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(map(repr, options))}")
    return value


def sequence(name: str, x: Any, m: int, dtype: Any) -> NDArray:
    """Inputs as (T, B, m); (T, m) is one sequence."""
    out = numbers(name, x)
    if out.ndim == 2:
        out = np.asarray(array(name, x, ("T", m), dtype))[:, None, :]
    else:
        out = array(name, x, ("T", "B", m), dtype)
    if out.shape[0] == 0 or out.shape[1] == 0:
        raise ValueError(f"{name} has shape {_spell(out.shape)}: an empty sequence; T and B must be at least 1")
    return out


def lengths(value: Any, T: int, B: int) -> NDArray[np.int64]:
    """Sequence lengths (B,), each in 1…T; None means all T."""
    if value is None:
        return np.full(B, T, dtype=np.int64)
    out = readable("lengths", value)
    if out.shape != (B,) or out.dtype.kind not in "iu":
        raise ValueError(f"lengths has shape {_spell(out.shape)} and dtype {out.dtype}; it must be {B} integers (B,)")
    if out.min() < 1 or out.max() > T:
        b = int(np.argmax((out < 1) | (out > T)))
        raise ValueError(f"lengths[{b}] is {int(out[b])}; it must be in 1…{T} (T = {T} steps)")
    return out.astype(np.int64)


def pair(t: Any, k: Any, T: int) -> tuple[int, int]:
    """Steps 0 <= k <= t <= T."""
    t = integer("t", t, 0, T)
    return t, integer("k", k, 0, t)
