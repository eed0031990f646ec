"""The map s -> f(s, x) with its input held: evaluated for many states at once, and its Jacobian."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _cuda
from .._arrays import on_host
from ..dynamics.jacobian import local_jacobians
from ..dynamics.placed import in_dtype, lengths, minus, take_rows, unit_rows
from ..dynamics.rollout import run
from ..dynamics.scaled import unscaled
from ..dynamics.system import DenseJacobians


@dataclass(frozen=True)
class Clamped:
    """f^p of a network or a system whose input is held at x (B, m), one row per sample.

    States lie where x does, and so does what is made of them.
    """

    net: Any
    x: Any
    period: int = 1
    backend: str = "auto"

    def at(self, B: int) -> Clamped:
        """The same for B samples of the one input."""
        if not _cuda.is_device_array(self.x):
            return dataclasses.replace(self, x=np.broadcast_to(self.x[:1], (B, self.net.m)))
        return dataclasses.replace(self, x=take_rows(self.x, np.zeros(B, np.int64)))

    def on_host(self) -> Clamped:
        """The same map for states on the host; its kernels run where they did."""
        return dataclasses.replace(self, x=on_host(self.x))

    def in_float64(self) -> Clamped:
        """The same map with the same numbers in float64."""
        if self.net.dtype == np.float64:
            return self
        return dataclasses.replace(self, net=self.net.astype("float64"), x=in_dtype(self.x, np.float64))

    def trajectory(self, s: Any, at: NDArray[np.int64] | None = None) -> Any:
        """The ``period`` steps from states s (R, S, n), those of the samples ``at`` (all by default)."""
        R = s.shape[0]
        at = np.arange(R) if at is None else at
        if _cuda.is_device_array(self.x):
            x = take_rows(self.x, np.tile(at, self.period)).reshape(self.period, R, self.net.m)
        else:
            x = np.ascontiguousarray(np.broadcast_to(self.x[at], (self.period, R, self.net.m)))
        with np.errstate(all="ignore"):  # a state may leave the domain; its residual says so
            return run(self.net, x, s, np.full(R, self.period), self.backend, quiet=True)

    def image(self, s: Any, at: NDArray[np.int64] | None = None) -> Any:
        """f^p(s), (R, S, n)."""
        return self.trajectory(s, at).states[-1] if s.shape[0] else s

    def size(self, s: Any, at: NDArray[np.int64] | None = None) -> NDArray[np.float64]:
        """||f^p(s) - s||, (R,), on the host."""
        return lengths(minus(self.image(s, at), s)) if s.shape[0] else np.zeros(0)

    def jacobians(self, traj: Any) -> Any:
        """df^p/ds along trajectories of :meth:`trajectory`, as the local Jacobians of one step."""
        local = local_jacobians(traj)
        if self.period == 1:
            return local
        R, N = traj.B, self.net.N
        rows = unit_rows(traj.states, R, *self.net.state_shape)
        at = np.repeat(np.arange(R), N)
        rows, exponents = local.adjoint(rows, np.zeros(R * N, np.int64), at, self.period, self.period)
        J = unscaled(rows[0], exponents[0]).reshape(1, R, N, N)
        return DenseJacobians(self.net, J, self.backend)


def residuals(traj: Any) -> Any:
    """f^p(s) - s (R, S, n) of trajectories of f^p."""
    return minus(traj.states[-1], traj.states[0])
