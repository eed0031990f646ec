"""A dynamical system written by its user: s_t = f(s_{t-1}, x_t; params)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numba.core.errors import NumbaError
from numpy.typing import NDArray

from .. import _checks
from .._arrays import copied
from ..kernels import backend as find_backend
from ..kernels.user import examined, writes
from .placed import in_dtype
from .scaled import Scaled, scaled_arrays

_STATE, _INPUT, _PARAMS = 0, 1, 2  # arguments of f
_FAILURES = (NumbaError, TypeError, IndexError, ValueError)  # of a user's function
_CHECKED = 64  # steps at which a derivative is compared with finite differences


class System:
    """General dynamical system s_t = f(s_{t-1}, x_t; params).

    Parameters
    ----------
    f : function (s, x, params) -> s', or (out, s, x, params)
        ``numba.njit`` function (a plain one is compiled); s (n,), x (m,) and params (q,) are float64 arrays, not to be
        changed. The result is an array or a tuple of n numbers; with four parameters, f writes all of out (n,) instead.
        Jacobians are derived by complex steps, to machine precision, so f must be made of analytic operations that work
        on complex numbers (out and one of the arguments are then complex128).
    n_state : int
        n.
    params : array (q,) or a number
        Parameters theta; ``replace(params=...)`` changes them.
    jacobian : function (s, x, params) -> (n, n), or (out, s, x, params), optional
        ds'/ds, row = output, as an array, a tuple of rows, or written to out (n, n); needed where f has ``abs``,
        ``max``, comparisons or other kinks.
    n_inputs : int
        m.

    Raises
    ------
    ValueError
        f is of neither form, does not compile, or gives something else than n numbers. Later, where Jacobians are asked
        for: the derived (or given) Jacobian disagrees with finite differences of f.
    BackendError
        Later, where it is used with ``backend="cuda"``: f or jacobian cannot be compiled for CUDA.

    Notes
    -----
    With ``backend="cuda"`` a thread runs f for one sample. No memory can be allocated there, so f must return a tuple
    or write to out, without temporary arrays, and be made of what Numba compiles for CUDA: arithmetic, powers with
    integer exponents, sin, cos, tan, their inverses and hyperbolic twins, exp, log, sqrt of ``numpy``.

    One state vector per unit (S = 1), h = y = s, float64 only. Source of the complex step: Squire & Trapp (1998).
    """

    S = 1
    V = c = None
    V = None
    dtype = np.dtype("float64")

    def __init__(
        self,
        f: Callable[..., Any],
        n_state: int,
        params: Any = (),
        jacobian: Callable[..., Any] | None = None,
        *,
        n_inputs: int = 0,
    ) -> None:
        self.n = self.N = self.p = _checks.integer("n_state", n_state, 1)
        self.state_shape, self.blocks = (1, self.n), {"s": slice(0, self.n)}
        self.m = _checks.integer("n_inputs", n_inputs, 0)
        self.params = _checks.array("params", np.atleast_1d(np.asarray(params, dtype=np.float64)), ("q",))
        self.params.flags.writeable = False
        self.f = _compiled("f", f)
        self.jacobian = None if jacobian is None else _compiled("jacobian", jacobian)
        #: f as kernels take it
        self.map = examined("f", self.f, (self.n,), np.zeros(self.n), np.zeros(self.m), self.params, _FAILURES)

    @property
    def parameters(self) -> dict[str, NDArray]:
        """{"params": …}, as a network has its own."""
        return {"params": self.params}

    def __repr__(self) -> str:
        name = getattr(self.f, "__name__", "f")
        return f"System({name}, n_state={self.n}, n_inputs={self.m}, params={self.params.tolist()})"

    def replace(self, *, params: Any) -> System:
        """The same system with other parameters."""
        return System(self.f, self.n, params, self.jacobian, n_inputs=self.m)

    def _derivative(self, traj: Any, which: int) -> NDArray:
        """df/d(state, input or params) at every step, (T, B, n, width)."""
        kernels = find_backend(traj.backend)
        width = (self.n, self.m, self.params.size)[which]
        out = np.empty((traj.T, traj.B, self.n, width))
        arguments = (out, traj.states, traj.x, self.params, traj.lengths)
        if which == _STATE and self.jacobian is not None:
            at = traj.states[0, 0, 0], traj.x[0, 0], self.params
            given = examined("jacobian", self.jacobian, (self.n, self.n), *at, _FAILURES)
            kernels.system_jacobian(given)(*arguments)
        else:
            try:
                kernels.system_derivatives(self.map, which)(*arguments)
            except NumbaError as error:
                raise ValueError(
                    "f cannot be differentiated by a complex step: it does not compile for complex numbers; give "
                    f"jacobian=, or write f without comparisons of the state ({str(error).splitlines()[0]})"
                ) from error
        self._verify(traj, which, out)
        return out

    def _verify(self, traj: Any, which: int, derivative: NDArray) -> None:
        """Compare with central differences at a few steps: kinks and non-analytic operations show here."""
        name = ("ds'/ds", "ds'/dx", "ds'/dparams")[which]
        given = which == _STATE and self.jacobian is not None
        steps = np.argwhere(np.arange(traj.T)[:, None] < traj.lengths)
        for t, b in steps[:: max(1, len(steps) // _CHECKED)]:
            expected, got = self._differences(traj, which, t, b), derivative[t, b]
            if expected.size == 0:
                return
            error, scale = np.abs(got - expected).max(), max(1.0, np.abs(expected).max())
            if error <= 1e-4 * scale:
                continue
            if given:
                transposed = self.n > 1 and np.allclose(got.T, expected, atol=1e-4 * scale)
                hint = "it is transposed (row = output)" if transposed else "it must be ds'/ds, row = output"
            else:
                hint = (
                    "operations that are not analytic (abs, max, sign, a power of a negative number) need jacobian=; "
                    "write s*s instead of s**2"
                )
            raise ValueError(
                f"{'the given jacobian' if given else 'the complex step'} for {name} of f differs from finite "
                f"differences by {error:.2g} at step {t}, sample {b}: {hint}"
            )

    def _differences(self, traj: Any, which: int, t: int, b: int) -> NDArray:
        """Central differences of f at one step, (n, width)."""
        at = [traj.states[t, b, 0], traj.x[t, b], self.params]
        columns = []
        for j in range(at[which].size):
            step = 1e-5 * max(1.0, abs(at[which][j]))
            sides = []
            for sign in (1, -1):
                moved = [a.copy() for a in at]
                moved[which][j] += sign * step
                sides.append(self.map(*moved))
            columns.append((sides[0] - sides[1]) / (2 * step))
        return np.stack(columns, axis=1) if columns else np.empty((self.n, 0))

    def _local_jacobians(self, traj: Any) -> DenseJacobians:
        traj.require_finite()
        return DenseJacobians(self, self._derivative(traj, _STATE), traj.backend)

    def parameter_jacobians(self, traj: Any) -> NDArray:
        """ds'/dparams with the state held fixed, (T, B, n, q)."""
        return self._derivative(traj, _PARAMS)

    def input_jacobians(self, traj: Any) -> NDArray:
        """ds'/dx with the state held fixed, (T, B, n, m)."""
        return self._derivative(traj, _INPUT)


@dataclass(frozen=True)
class DenseJacobians:
    """Local Jacobians J (T, B, N, N) of a system, with the actions that factored ones have."""

    net: Any
    J: NDArray
    backend: str
    inputs: NDArray | None = None  # ds'/dx (T, B, n, m), where a layer below needs it

    def in_float64(self) -> DenseJacobians:
        """The same numbers in float64."""
        return self if self.J.dtype == np.float64 else dataclasses.replace(self, J=in_dtype(self.J, np.float64))

    def between(self, first: int, last: int) -> DenseJacobians:
        """Those of the steps from state ``first`` to state ``last`` alone, views."""
        inputs = None if self.inputs is None else self.inputs[first:last]
        return dataclasses.replace(self, J=self.J[first:last], inputs=inputs)

    def flattened(self) -> DenseJacobians:
        """The same with time and batch as one axis."""
        inputs = None if self.inputs is None else self.inputs.reshape(1, -1, *self.inputs.shape[2:])
        return dataclasses.replace(self, J=self.J.reshape(1, -1, *self.J.shape[2:]), inputs=inputs)

    def to_inputs(self, g: NDArray, at: Any) -> NDArray:
        """See :meth:`FactoredJacobians.to_inputs`."""
        assert self.inputs is not None
        return np.einsum("ri,rim->rm", g[:, 0], self.inputs[at])

    def driven(self, v: NDArray, dx: NDArray, sample: NDArray, t: int) -> NDArray:
        """See :meth:`FactoredJacobians.driven`."""
        assert self.inputs is not None
        moved = np.einsum("rij,rj->ri", self.J[t, sample], v[:, 0])
        return (moved + np.einsum("rim,rm->ri", self.inputs[t, sample], dx))[:, None]

    def dense(self) -> NDArray:
        """J itself."""
        return self.J

    def newton(self, r: NDArray) -> tuple[NDArray, NDArray[np.bool_]]:
        """(I - J)^-1 r; see :meth:`FactoredJacobians.newton`."""
        d, regular = copied(r), np.zeros(len(r), np.bool_)
        find_backend(self.backend).dense_newton_directions(d.reshape(len(r), self.J.shape[2]), regular, self.J)
        return d, regular

    def linear_fixed_point(
        self,
        y: NDArray,
        history: tuple[NDArray, NDArray, NDArray],
        settings: tuple[Any, ...],
        g: NDArray,
        at: NDArray,
        forward: bool,
    ) -> None:
        """Iterate y <- y J + g, or J y + g; see :meth:`FactoredJacobians.linear_fixed_point`."""
        kernels, flat = find_backend(self.backend), (len(y), 1, self.J.shape[2])
        run = kernels.dense_tangent_fixed_point if forward else kernels.dense_adjoint_fixed_point
        run(y.reshape(flat), *history, settings, g.reshape(flat), at, self.J)

    def adjoint(
        self, y: NDArray, exponent: NDArray, sample: NDArray, t_from: int, steps: int, out: Scaled | None = None
    ) -> Scaled:
        """Carry rows back; see :meth:`FactoredJacobians.adjoint`."""
        return self._carry(y, exponent, sample, t_from, steps, out, False)

    def tangent(
        self, v: NDArray, exponent: NDArray, sample: NDArray, t_from: int, steps: int, *, out: Scaled | None = None
    ) -> Scaled:
        """Carry columns forward; see :meth:`FactoredJacobians.tangent`."""
        return self._carry(v, exponent, sample, t_from, steps, out, True)

    def norms(self, out: NDArray, times: NDArray, eye: NDArray, columns: tuple[int, int], spectral: bool) -> None:
        """ln ||Phi(t, k)|| of a block; see :meth:`FactoredJacobians.norms`."""
        rows = eye.reshape(len(eye), 1, -1)  # of states that may be several vectors
        find_backend(self.backend).dense_chain_norms(out, times, rows, columns, spectral, self.J)

    def frames(
        self, frames: NDArray, logs: NDArray, interval: NDArray, found: NDArray, t_from: int, steps: int
    ) -> None:
        """Carry frames on; see :func:`rnngrad.dynamics.frames.carry`."""
        flat = frames.reshape(*frames.shape[:2], 1, -1)  # a view: they are contiguous
        find_backend(self.backend).dense_frames(flat, logs, interval, found, t_from, steps, self.J)

    def _carry(
        self,
        y: NDArray,
        exponent: NDArray,
        sample: NDArray,
        t_from: int,
        steps: int,
        out: Scaled | None,
        forward: bool,
    ) -> Scaled:
        out = out or scaled_arrays(steps, y)
        rows, exponents = out
        find_backend(self.backend).dense_chain(
            rows.reshape(steps, len(y), -1), exponents, y.reshape(len(y), -1), exponent, sample, t_from,
            self.J, forward,
        )  # fmt: skip
        return out


def _compiled(name: str, function: Any) -> Any:
    if not callable(function):
        raise ValueError(f"{name} is {function!r}; it must be a function (s, x, params)")
    writes(name, function)
    return function if hasattr(function, "py_func") else numba.njit(function)
