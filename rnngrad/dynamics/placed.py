"""Work on arrays where they lie: NumPy arrays by the kernels of the CPU, device arrays by those of CUDA."""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _cuda
from .._arrays import contiguous, copied, empty_beside
from ..kernels import backend as find_backend


def kernels_at(array: Any) -> ModuleType:
    """The kernels that work where the array lies."""
    return find_backend("cuda" if _cuda.is_device_array(array) else "cpu")


def fill(array: Any, value: float) -> Any:
    """array[...] = value; the array. It is contiguous if it lies on the GPU."""
    if _cuda.is_device_array(array):
        find_backend("cuda").fill(array, value)
    else:
        array[...] = value
    return array


def filled(beside: Any, shape: tuple[int, ...], dtype: Any, value: float = 0) -> Any:
    """An array of one value where another one lies."""
    if not _cuda.is_device_array(beside) and value == 0:
        return np.zeros(shape, dtype)  # whose pages are made when they are written
    return fill(empty_beside(beside, shape, dtype), value)


def unit_rows(beside: Any, B: int, S: int, n: int) -> Any:
    """The rows of the identity of S n numbers, for each of B samples: (B S n, S, n), in the dtype of ``beside``."""
    N = S * n
    if _cuda.is_device_array(beside):
        return find_backend("cuda").unit_rows(B, 0, N, S, n, beside.dtype)
    return np.tile(np.eye(N, dtype=beside.dtype), (B, 1)).reshape(B * N, S, n)


def in_dtype(array: Any, dtype: Any) -> Any:
    """The same numbers in a dtype, C-contiguous; the array itself if it is so already."""
    if _cuda.is_device_array(array):
        return find_backend("cuda").in_dtype(array, dtype)
    return np.ascontiguousarray(array, dtype=dtype)


def take_rows(values: Any, rows: NDArray[np.int64]) -> Any:
    """values[rows], a copy; values (X, …) are C-contiguous."""
    out = empty_beside(values, (len(rows), *values.shape[1:]), values.dtype)
    _put(out, np.arange(len(rows)), values, rows, False)
    return out


def put_rows(out: Any, to: NDArray[np.int64], values: Any, source: NDArray[np.int64] | None = None) -> None:
    """out[to] = values[source] (all of them by default) of C-contiguous (X, …) and (Y, …); ``to`` has no row twice."""
    _put(out, to, values, source, False)


def add_rows(
    out: Any,
    to: NDArray[np.int64],
    values: Any,
    source: NDArray[np.int64] | None = None,
    factors: NDArray | float | None = None,
) -> None:
    """out[to] += factors values[source], with a factor for each row or one for all; see ``put_rows``."""
    _put(out, to, values, source, True, factors)


def times_rows(values: Any, factors: NDArray | float) -> Any:
    """factors values, with a factor for each row of C-contiguous (R, …) or one for all; a new array."""
    out = empty_beside(values, tuple(values.shape), values.dtype)
    if not _cuda.is_device_array(values):
        factors = np.asarray(factors, values.dtype).reshape(-1, *[1] * (values.ndim - 1))
        with np.errstate(all="ignore"):  # as of the kernels
            return np.multiply(values, factors, out=out)
    every = np.arange(values.shape[0])
    _put(out, every, values, every, False, factors)
    return out


def minus(values: Any, others: Any) -> Any:
    """values - others, of C-contiguous (R, …)."""
    if not _cuda.is_device_array(values):
        with np.errstate(all="ignore"):
            return np.subtract(values, others, out=empty_beside(values, values.shape, values.dtype))
    out = copied(values)
    add_rows(out, np.arange(values.shape[0]), others, factors=-1.0)
    return out


def lengths(rows: Any) -> NDArray[np.float64]:
    """Euclidean length of each row of C-contiguous (R, …), of any size that is a number.

    Not finite where an entry is not; in float64, and on the host in any case.
    """
    R = rows.shape[0]
    out = np.zeros(R)
    if R and rows.size:
        kernels_at(rows).row_lengths(out, rows.reshape(R, math.prod(rows.shape[1:])))
    return out


def _put(
    out: Any,
    to: NDArray[np.int64],
    values: Any,
    source: NDArray[np.int64] | None,
    more: bool,
    factors: NDArray | float | None = None,
) -> None:
    width = math.prod(out.shape[1:])
    if not len(to) or not width:
        return
    source = np.arange(len(to)) if source is None else source
    flat = out.reshape(out.shape[0], width), contiguous(values).reshape(values.shape[0], width)
    if factors is not None:
        factors = np.ascontiguousarray(np.broadcast_to(factors, len(to)), dtype=values.dtype)
    kernels_at(out).put_rows(flat[0], to, flat[1], source, more, factors)


def add(out: Any, more: Any) -> None:
    """out += more, of one shape; C-contiguous."""
    if not _cuda.is_device_array(out):
        with np.errstate(all="ignore"):
            np.add(out, more, out=out)
    elif out.size:
        one = np.zeros(1, np.int64)
        _put(out.reshape(1, -1), one, more.reshape(1, -1), one, True)


def add_products(out: Any, x: Any, y: Any) -> None:
    """out += x y, entry by entry, of one shape (R, …); C-contiguous."""
    flat = (1, out.shape[0], 1, math.prod(out.shape[1:]))
    partial = y.reshape(*flat[:3], 1, flat[3])
    kernels_at(out).through_diagonals(out.reshape(flat), x.reshape(flat), partial, more=True)


def first_states(states: Any) -> Any:
    """states[..., 0, :] of C-contiguous (T, R, S, n) as (T, R, n), C-contiguous; without a copy where S is 1."""
    T, R, S, n = states.shape
    flat = states.reshape(T * R * S, n)
    return (flat if S == 1 else take_rows(flat, _first(T * R, S))).reshape(T, R, n)


def add_to_first_states(states: Any, values: Any) -> None:
    """states[..., 0, :] += values, of C-contiguous (T, R, S, n) and (T, R, n)."""
    T, R, S, n = states.shape
    add_rows(states.reshape(T * R * S, n), _first(T * R, S), contiguous(values).reshape(T * R, n))


def _first(rows: int, S: int) -> NDArray[np.int64]:
    return np.arange(rows) * S


def first_not_finite(values: Any) -> NDArray[np.int64]:
    """First i for every j with a NaN or an infinity in C-contiguous values[i, j, :], -1 where there is none.

    That alone is copied from a GPU.
    """
    if _cuda.is_device_array(values):
        return find_backend("cuda").first_not_finite(values)
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(values.sum()):  # one pass; a finite sum rules out any inf or NaN
            return np.full(values.shape[1], -1)
    bad = ~np.isfinite(values).all(axis=2)
    return np.where(bad.any(axis=0), bad.argmax(axis=0), -1)


def all_finite(array: Any) -> bool:
    """Whether there is no NaN and no infinity in a C-contiguous array; that alone is copied from a GPU."""
    return bool((first_not_finite(array.reshape(1, 1, array.size)) < 0).all())


def changing(x: Any) -> NDArray[np.bool_]:
    """Which samples of C-contiguous x (T, B, m) are not the same at every step, (B,); that alone is copied."""
    return kernels_at(x).changing(x)


def finished(value: Any) -> Any:
    """The value when it is written, if it lies on the GPU: whoever reads it there is told of no stream to wait for."""
    if _cuda.is_device_array(value):
        _cuda.synchronize()
    return value
