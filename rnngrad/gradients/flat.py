"""Parameters, or directions in their space, by name and as one flat vector."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _checks, _cuda
from .._arrays import concatenated, empty_beside
from ..device_input import device_array, taken
from ..dynamics.placed import filled
from ..kernels import backend as find_backend
from .assemble import OfParameters


def named_parameters(net: Any) -> dict[str, NDArray]:
    """Parameters by name in the order of flat vectors: W, U, b, W2, U2, b2 (of a stack, layer by layer), V, c."""
    return dict(net.parameters() if callable(net.parameters) else net.parameters)


def flatten_parameters(net: Any, values: Any, name: str = "values") -> NDArray:
    """Arrays of the shapes of a network's parameters as one vector (P,).

    Parameters
    ----------
    net : Network or Stack
    values : mapping of names to arrays, or gradients
        Of the network's dtype, all of them on a GPU or none; a parameter that is not named is 0.

    Returns
    -------
    ndarray (P,), or a device array
        In the order W, U, b, W2, U2, b2, V, c of those there are (of a stack, layer by layer and direction by
        direction, the readout last), each in C order.

    Raises
    ------
    ValueError
        A name or a shape is not the network's, or an entry is not finite.
    """
    if isinstance(values, OfParameters):
        values = dict(values.parameters())
    given = list(values.values()) if isinstance(values, Mapping) else []
    return flattened(net, values, name, given[0] if given else None)


def flattened(net: Any, values: Any, name: str, beside: Any) -> Any:
    """The same of arrays that must lie where another one does."""
    if isinstance(values, OfParameters):
        values = dict(values.parameters())
    if not isinstance(values, Mapping):
        raise ValueError(f"{name} is {type(values).__name__}; it must map names of parameters to arrays")
    known = named_parameters(net)
    unknown = sorted(map(str, set(values) - set(known)))
    if unknown:
        raise ValueError(f"{name} holds {unknown}; the network's parameters are {list(known)}")
    parts = [
        checked(f"{name}[{key!r}]", values[key], own.shape, own.dtype, beside)
        if key in values
        else filled(beside, own.shape, own.dtype)
        for key, own in known.items()
        if own.size
    ]
    return concatenated([part.reshape(part.size) for part in parts])


def checked(name: str, value: Any, shape: tuple[Any, ...], dtype: Any, beside: Any) -> Any:
    """An array of finite numbers, with the shape asked for, that must lie where another one does."""
    if _cuda.is_device_array(beside):
        if not _cuda.is_device_array(value):
            raise ValueError(f"{name} is a {type(value).__name__} on the host; it must lie on the GPU as the rest does")
        return device_array(name, value, shape, dtype)
    if _cuda.is_device_array(value):
        raise ValueError(f"{name} lives on a GPU, and this is computed from arrays on the host; copy it there")
    return _checks.array(name, value, shape, dtype)


def unflatten_parameters(net: Any, flat: Any, name: str = "flat") -> dict[str, NDArray]:
    """The inverse of :func:`flatten_parameters`: (P,) as arrays by name; (K, P) as arrays with a leading axis K."""
    known = named_parameters(net)
    size = sum(own.size for own in known.values())
    if _cuda.is_device_array(flat):
        flat = taken(name, flat)
    flat = checked(name, flat, (size,) if np.ndim(flat) < 2 else ("K", size), net.dtype, flat)
    out, start = {}, 0
    for key, own in known.items():
        out[key] = (
            _columns(flat, start, start + own.size).reshape(*flat.shape[:-1], *own.shape)
            if own.size
            else (empty_beside(flat, (*flat.shape[:-1], *own.shape), own.dtype))
        )
        start += own.size
    return out


def _columns(flat: Any, start: int, stop: int) -> Any:
    """flat[..., start : stop] of (P,) or (K, P), copied on the GPU where it is not contiguous."""
    if not _cuda.is_device_array(flat) or flat.ndim == 1:
        return flat[..., start:stop]
    K, P = flat.shape
    if K == 1:
        return flat.reshape(P)[start:stop]
    return find_backend("cuda").contiguous(flat.reshape(K, 1, P)[:, :, start:stop]).reshape(K, stop - start)
