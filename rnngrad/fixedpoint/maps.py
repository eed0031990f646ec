"""The map s -> f(s, x) with its input held: evaluated for many states at once, and its Jacobian."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _checks
from .._blas import one_blas_thread
from ..dynamics.jacobian import local_jacobians
from ..dynamics.rollout import Trajectory, run
from ..dynamics.system import DenseJacobians, System
from ..network import Network

_LEAST, _LARGEST = 1e-130, 1e150  # lengths whose squares are certainly normal numbers


@dataclass(frozen=True)
class Clamped:
    """f^p of a network or a system whose input is held at x (B, m), one row per sample."""

    net: Any
    x: NDArray
    period: int = 1
    backend: str = "auto"

    def at(self, B: int) -> Clamped:
        """The same for B samples of the one input."""
        return dataclasses.replace(self, x=np.broadcast_to(self.x[:1], (B, self.net.m)))

    def trajectory(self, s: NDArray, at: Any = ...) -> Trajectory:
        """The ``period`` steps from states s (R, S, n), those of the samples ``at``."""
        x = np.broadcast_to(self.x[at], (self.period, len(s), self.net.m))
        with np.errstate(all="ignore"):  # a state may leave the domain; its residual says so
            return run(self.net, np.ascontiguousarray(x), s, np.full(len(s), self.period), self.backend, quiet=True)

    def image(self, s: NDArray, at: Any = ...) -> NDArray:
        """f^p(s), (R, S, n)."""
        return self.trajectory(s, at).states[-1] if len(s) else s

    def jacobians(self, traj: Trajectory) -> Any:
        """df^p/ds along trajectories of :meth:`trajectory`, as the local Jacobians of one step."""
        local = local_jacobians(traj)
        if self.period == 1:
            return local
        J = local.dense()
        product = J[0]
        with one_blas_thread():
            for step in J[1:]:
                product = step @ product
        return DenseJacobians(self.net, np.ascontiguousarray(product[None]), self.backend)


def clamped(net: Any, x: Any, B: int | None, period: int, backend: str) -> Clamped:
    """The map for checked arguments: x is (B, m), (m,) or None for zero input; ``B`` samples where x does not say."""
    if not isinstance(net, (Network, System)):
        raise ValueError(f"net is {type(net).__name__}; it must be a Network (one layer) or a System")
    if isinstance(net, Network):
        for name, value in net.constants.items():
            if value.ndim == 3:
                raise ValueError(f"net holds a {name} that changes from step to step; a fixed point needs it without")
    return Clamped(net, held_input(net, x, B), _checks.integer("period", period, 1), backend)


def held_input(net: Any, x: Any, B: int | None) -> NDArray:
    """The input that is held, (B, m)."""
    if x is None:
        return np.zeros((1 if B is None else B, net.m), net.dtype)
    given = _checks.numbers("x", x)
    if given.ndim == 3 and len(given) == 1:
        x = x[0]  # one step of a time-major input
    elif given.ndim == 1:
        out = _checks.array("x", x, (net.m,), net.dtype)
        return np.ascontiguousarray(np.broadcast_to(out, (1 if B is None else B, net.m)))
    elif given.ndim != 2:
        raise ValueError(
            f"x has shape {given.shape}; it must be (B, m) or (m,): one input per sample, held all the time"
        )
    return _checks.array("x", x, ("B" if B is None else B, net.m), net.dtype)


def lengths_of(rows: NDArray) -> NDArray[np.float64]:
    """Euclidean length of each row (R, ...), of any size that is a number; not finite where an entry is not."""
    flat = rows.reshape(len(rows), int(np.prod(rows.shape[1:]))).astype(np.float64, copy=False)
    with np.errstate(over="ignore", invalid="ignore"):
        out = np.sqrt(np.einsum("ri,ri->r", flat, flat))
        if not (out.min(initial=1.0) > _LEAST and out.max(initial=1.0) < _LARGEST):  # squares may have left the numbers
            far = ~((out > _LEAST) & (out < _LARGEST))
            top = np.abs(flat[far]).max(axis=1, initial=0.0)
            scale = np.where((top > 0) & np.isfinite(top), top, 1.0)
            own = flat[far] / scale[:, None]
            out[far] = scale * np.sqrt(np.einsum("ri,ri->r", own, own))
    return out
