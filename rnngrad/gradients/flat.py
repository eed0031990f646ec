"""Parameters, or directions in their space, by name and as one flat vector."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _checks
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
        Of the network's dtype; a parameter that is not named is 0.

    Returns
    -------
    ndarray (P,)
        In the order W, U, b, W2, U2, b2, V, c of those there are (of a stack, layer by layer and direction by
        direction, the readout last), each in C order.

    Raises
    ------
    ValueError
        A name or a shape is not the network's, or an entry is not finite.
    """
    if isinstance(values, OfParameters):
        values = dict(values.parameters())
    if not isinstance(values, Mapping):
        raise ValueError(f"{name} is {type(values).__name__}; it must map names of parameters to arrays")
    known = named_parameters(net)
    unknown = sorted(map(str, set(values) - set(known)))
    if unknown:
        raise ValueError(f"{name} holds {unknown}; the network's parameters are {list(known)}")
    parts = [
        _checks.array(f"{name}[{key!r}]", values[key], own.shape, own.dtype) if key in values else np.zeros_like(own)
        for key, own in known.items()
    ]
    return np.concatenate([part.ravel() for part in parts])


def unflatten_parameters(net: Any, flat: Any, name: str = "flat") -> dict[str, NDArray]:
    """The inverse of :func:`flatten_parameters`: (P,) as arrays by name; (K, P) as arrays with a leading axis K."""
    known = named_parameters(net)
    size = sum(own.size for own in known.values())
    flat = _checks.array(name, flat, (size,) if np.ndim(flat) < 2 else ("K", size), net.dtype)
    out, start = {}, 0
    for key, own in known.items():
        out[key] = flat[..., start : start + own.size].reshape(*flat.shape[:-1], *own.shape)
        start += own.size
    return out
