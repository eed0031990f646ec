"""Arguments of the fixed-point functions: the held input and the starts, checked where they lie."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _checks, _cuda
from .._arrays import copied, placed_beside
from ..device_input import device_array, packed
from ..dynamics.device import require_device_network
from ..dynamics.placed import filled, first_not_finite, put_rows, take_rows
from ..dynamics.rollout import initial_state
from ..dynamics.system import System
from ..network import Network
from .maps import Clamped


def numbers(name: str, value: Any) -> Any:
    """The array itself, on a GPU or on the host, where it is made one of numbers."""
    if not _cuda.is_device_array(value):
        return _checks.numbers(name, value)
    _cuda.require()
    return packed(name, value)


def clamped(net: Any, x: Any, B: int | None, period: int, backend: str, beside: Any = None) -> Clamped:
    """The map for checked arguments: x is (B, m), (m,) or None for zero input; ``B`` samples where x does not say.

    On the GPU if x or the starts ``beside`` lie there.
    """
    if not isinstance(net, (Network, System)):
        raise ValueError(f"net is {type(net).__name__}; it must be a Network (one layer) or a System")
    if isinstance(net, Network):
        for name, value in net.constants.items():
            if value.ndim == 3:
                raise ValueError(f"net holds a {name} that changes from step to step; a fixed point needs it without")
    for name, value in (("x", x), ("the start", beside)):
        if _cuda.is_device_array(value):
            require_device_network(name, net, backend)
            if not net.m:  # device arrays have no axis of length 0
                raise ValueError(
                    f"{name} lives on a GPU, and net has no input (m = 0): give it on the host, with backend='cuda'"
                )
            backend = "cuda"
    held = held_input(net, x, B)
    if _cuda.is_device_array(beside) and not _cuda.is_device_array(held):
        held = placed_beside(beside, held)
    return Clamped(net, held, _checks.integer("period", period, 1), backend)


def held_input(net: Any, x: Any, B: int | None) -> Any:
    """The input that is held, (B, m)."""
    if x is None:
        return np.zeros((1 if B is None else B, net.m), net.dtype)
    given = numbers("x", x)
    checked = device_array if _cuda.is_device_array(given) else _checks.array
    if given.ndim == 3 and given.shape[0] == 1:
        given = given[0]  # one step of a time-major input
    elif given.ndim == 1:
        row = checked("x", given, (net.m,), net.dtype).reshape(1, net.m)
        return take_rows(row, np.zeros(1 if B is None else B, np.int64))
    elif given.ndim != 2:
        raise ValueError(
            f"x has shape {given.shape}; it must be (B, m) or (m,): one input per sample, held all the time"
        )
    return checked("x", given, ("B" if B is None else B, net.m), net.dtype)


def start_states(here: Clamped, starts: Any, B: int, name: str) -> tuple[Any, NDArray[np.bool_]]:
    """Start states (B, S, n) where the input lies, and which of them are not finite (those are 0)."""
    net, shape = here.net, (B, *here.net.state_shape)
    if starts is None:
        return filled(here.x, shape, net.dtype), np.zeros(B, np.bool_)
    if _cuda.is_device_array(starts):
        s = copied(device_array(name, starts, shape, net.dtype, finite=False))
        bad = first_not_finite(s.reshape(1, B, net.N)) >= 0
        if bad.any():
            put_rows(s, np.flatnonzero(bad), filled(s, (int(bad.sum()), *shape[1:]), net.dtype))
        return s, bad
    finite = np.isfinite(starts)
    given = starts if finite.all() else np.where(finite, starts, starts.dtype.type(0))
    s = np.array(initial_state(net, given, B, name), order="C")
    bad = ~(finite.reshape(B, net.N).all(axis=1) if starts.ndim == 3 else np.full(B, finite.all()))
    s[bad] = 0
    return placed_beside(here.x, s), bad
