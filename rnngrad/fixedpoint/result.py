"""What a solved fixed point is: the states, how they were come by, and the linear map around them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from .._arrays import concatenated, contiguous, on_host
from .._results import Result
from ..dynamics.jacobian import local_jacobians
from ..dynamics.placed import finished
from ..dynamics.rollout import hidden, readout
from ..errors import ConvergenceError
from . import spectrum
from .maps import Clamped


@dataclass(frozen=True)
class FixedPoint(Result):
    """States s* = f(s*, x), one for each sample.

    Attributes
    ----------
    s : ndarray (B, S, n)
        The states; where ``status`` is not "converged", the last ones.
    h, y : ndarray (B, n), (B, p)
        Hidden output of s*, and the readout.
    residual : ndarray (B,)
        ||f(s) - s||, Euclidean.
    iterations : ndarray (B,)
    history : ndarray (K+1, B)
        Residual before each iteration; NaN after the last.
    contraction : ndarray (B,)
        Factor by which an iteration shrank the residual, geometric mean over the last ten at most. Of plain Picard
        iteration an estimate of the spectral radius.
    status : ndarray (B,) of str
        "converged"; "rounding": tol is below what rounding leaves, the residual is as small as it gets; "oscillating":
        on a cycle (its length is in ``cycle``); "diverged": grew or left the finite numbers; "outside": f is not finite
        at the start; "invalid": the start is not finite; "limit", "singular": out of iterations, where I - J is regular
        or singular.
    cycle : ndarray (B,)
        Length of the cycle a sample is on, 0 where none was seen.
    method : str
    tol : float
    """

    DERIVED: ClassVar[tuple[str, ...]] = ("converged",)

    s: NDArray
    h: NDArray
    y: NDArray
    residual: NDArray[np.float64]
    iterations: NDArray[np.int64]
    history: NDArray[np.float64]
    contraction: NDArray[np.float64]
    status: NDArray[np.str_]
    cycle: NDArray[np.int64]
    method: str
    tol: float
    map: Clamped = field(repr=False, metadata={"saved": False})

    @property
    def converged(self) -> NDArray[np.bool_]:
        """Where ``status`` is "converged", (B,)."""
        return self.status == "converged"

    @cached_property
    def step(self) -> Any:
        """One step of f from the states, (2, B, S, n): s and f(s)."""
        return self.map.trajectory(self.s)

    @cached_property
    def traj(self) -> Any:
        """One step at the fixed points, from s* to s*: what Jacobians and gradients are taken of."""
        return at_rest(self.step)

    @cached_property
    def local(self) -> Any:
        """The Jacobians in the form that suits the system, with products, for one step."""
        return local_jacobians(self.traj)

    @cached_property
    def jacobian(self) -> NDArray:
        """J = df/ds at the fixed points, (B, N, N)."""
        return np.array(self.local.dense()[0])

    @cached_property
    def spectral_radius(self) -> NDArray[np.float64]:
        """rho(J), (B,): below 1 the fixed point is stable, and Picard iteration and its adjoint converge nearby.

        Of all eigenvalues for N <= 1000, by Arnoldi iteration above.
        """
        return spectrum.spectral_radius(self.local, tuple(self.s.shape))

    @cached_property
    def condition(self) -> NDArray[np.float64]:
        """Condition number of I - J in the 2-norm, (B,); inf where it is singular."""
        return spectrum.condition(on_host(self.jacobian))

    def require_converged(self) -> None:
        """Raise ``ConvergenceError`` if a sample is not at a fixed point; it says which and why."""
        bad = np.flatnonzero(~self.converged)
        if bad.size:
            b = int(bad[0])
            raise ConvergenceError(
                f"{bad.size} of {len(self.status)} samples are not at a fixed point: sample {b} is "
                f"{str(self.status[b])!r} with residual {self.residual[b]:.3g} (tol is {self.tol:g}) after "
                f"{int(self.iterations[b])} iterations of {self.method}; {self._advice(b)}"
            )

    def _advice(self, b: int) -> str:
        if self.status[b] == "rounding":
            return f"a tol of {2 * self.residual[b]:.1g} can be met"
        if self.status[b] == "oscillating":
            return f"it is on a cycle of {int(self.cycle[b])} steps; method='newton' finds the fixed point inside"
        if self.status[b] in ("invalid", "outside"):
            return "start it where f is finite"
        return "try method='newton', another s0, or smaller recurrent weights"


@dataclass(frozen=True)
class DeviceFixedPoint(FixedPoint):
    """Fixed points whose states lie on a GPU: ``s``, ``h``, ``y`` and ``jacobian`` are device arrays.

    They have ``__cuda_array_interface__``, so CuPy and PyTorch read them in place. Everything else is on the host; for
    ``spectral_radius`` and ``condition`` the Jacobians are copied there, and for saving everything.
    """

    @cached_property
    def jacobian(self) -> Any:
        """J = df/ds at the fixed points, a device array (B, N, N)."""
        J = self.local.dense()
        return finished(J.reshape(J.shape[1:]))

    def to_host(self) -> FixedPoint:
        """The same as NumPy arrays: everything is copied."""
        parts = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        parts |= {name: on_host(parts[name]) for name in ("s", "h", "y")}
        return FixedPoint(**parts | {"map": self.map.on_host()})

    def plot(self, ax: Any = None) -> Any:
        """Draw a copy on the host."""
        return self.to_host().plot(ax)

    def _saved(self) -> list[tuple[str, Any]]:
        return self.to_host()._saved()


def at_rest(traj: Any) -> Any:
    """The trajectory of one step from fixed points, as one that ends where it starts."""
    net, states = traj.net, concatenated([traj.states[:1]] * 2)
    h = hidden(net, states[1:], traj.backend)
    y = readout(net, contiguous(h), traj.backend)
    return dataclasses.replace(traj, states=states, h=h, y=y)
