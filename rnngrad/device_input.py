"""Arrays that users give on the GPU: taken as they lie there, and checked there."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import _cuda
from ._dlpack import device_of
from .kernels import backend as find_backend


def device_array(name: str, value: Any, shape: tuple[int | str, ...], dtype: Any, *, finite: bool = True) -> Any:
    """A C-contiguous device array of numbers, finite ones if it is not said otherwise, with the shape asked for.

    One that is not contiguous is copied on the device.
    """
    out = packed(name, value)
    if out.dtype != dtype:
        raise ValueError(
            f"{name} has dtype {out.dtype}; it must be {np.dtype(dtype).name} as net is (precisions are never mixed)"
        )
    _fits(name, out, shape)
    kernels = find_backend("cuda")
    if not finite:
        return out
    bad = kernels.first_not_finite(out if out.ndim == 3 else out.reshape(out.size, 1, 1))
    if (bad >= 0).any():
        j = int(np.argmax(bad >= 0))
        where = f"({int(bad[j])}, {j}, …)" if out.ndim == 3 else tuple(map(int, np.unravel_index(bad[0], out.shape)))
        raise ValueError(f"{name} is not finite at index {where}; all of it must be finite")
    return out


def device_target(value: Any, y: Any, weights: Any, labels: bool, within: tuple[float, float]) -> Any:
    """A target on the GPU as (T, B, p) beside outputs y; where weights[T, B] is 0 it may hold anything.

    ``labels``: integers (T, B) are taken too, as the numbers of components.
    """
    T, B, p = y.shape
    out, kernels = packed("target", value), find_backend("cuda")
    labels = labels and np.dtype(out.dtype).kind in "iu"
    wanted = (T, B) if labels else (T, B, p)
    if B == 1 and out.ndim == len(wanted) - 1:
        out = out.reshape(wanted)  # one sequence without its batch axis
    if not labels and out.dtype != y.dtype:
        raise ValueError(f"target has dtype {out.dtype}; it must be {y.dtype} as the outputs are, on the GPU as they")
    _fits("target", out, wanted)
    if labels:
        hot, bad = kernels.one_hot(out, weights, p, y.dtype)
        if bad >= 0:
            raise ValueError(
                f"target has a label out of range at index ({bad // B}, {bad % B}); they must be in 0…{p - 1} "
                f"(p = {p} outputs)"
            )
        return hot
    bad = kernels.first_outside(out, weights, *within)
    if bad >= 0:
        low, high = within
        allowed = "finite" if high == np.inf else f"in [{low:g}, {high:g}]"
        raise ValueError(f"target is not {allowed} at index ({bad // B}, {bad % B}, …); all of it must be")
    return out


def packed(name: str, value: Any) -> Any:
    """The same memory as Numba's array, or a C-contiguous copy of it on the device."""
    out = taken(name, value)
    if out.is_c_contiguous():
        return out
    if out.ndim > 3:
        raise ValueError(f"{name} has {out.ndim} axes and is not C-contiguous; on the GPU it must be")
    return find_backend("cuda").contiguous(out)


def taken(name: str, value: Any) -> Any:
    """The same memory as Numba's array, if it lies on the current device."""
    where = device_of(value)
    if where is not None and not _cuda.simulated() and where[1] != _cuda.load().get_current_device().id:
        raise ValueError(
            f"{name} lives on GPU {where[1]}, and GPU {_cuda.load().get_current_device().id} is the current one; "
            "they must be the same"
        )
    return _cuda.as_device_array(value)


def _fits(name: str, array: Any, shape: tuple[int | str, ...]) -> None:
    fits = array.ndim == len(shape) and all(a == b for a, b in zip(array.shape, shape) if isinstance(b, int))
    if not fits or array.size == 0:
        wanted = ", ".join(map(str, shape))
        raise ValueError(f"{name} has shape {tuple(array.shape)}; it must have shape ({wanted}), none of them 0")
