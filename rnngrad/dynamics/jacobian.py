"""Local Jacobians J_t = ds_t/ds_{t-1} along a trajectory, factored or dense, and their action on vectors."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _cuda
from .._arrays import contiguous, copied, empty_beside
from .._memory import empty
from ..cells import Cell
from ..kernels import backend as find_backend
from .placed import add_to_first_states, filled, in_dtype
from .rollout import Trajectory, input_runs
from .scaled import Scaled, scaled_arrays
from .system import System

_FACTORS = ("update_s", "update_a", "update_a2", "inner_s", "inner_a", "emit_s")
_SECOND = ("update_a2", "inner_s", "inner_a")  # which cells of one stage do not have
_PIECE = 1 << 26  # bytes of dense Jacobians held at once


@dataclass(frozen=True)
class FactoredJacobians:
    """J_t as diagonals around W: J = update_s + update_a W emit_s + update_a2 W2 [inner_s + inner_a W emit_s].

    Attributes
    ----------
    update_s : ndarray (T, B, S, S, n)
        ds'/ds per unit; row, column, unit.
    update_a, update_a2 : ndarray (T, B, S, P, n), (T, B, S, P2, n)
        ds'/da, ds'/da2.
    inner_s, inner_a : ndarray (T, B, S, n), (T, B, P, n)
        dq/ds, dq/da of two-stage cells; (T, B, 0, n) for others.
    emit_s : ndarray (T, B, S, n)
        de/ds.
    """

    net: Any
    update_s: NDArray
    update_a: NDArray
    update_a2: NDArray
    inner_s: NDArray
    inner_a: NDArray
    emit_s: NDArray
    padded: bool
    backend: str

    @property
    def arrays(self) -> tuple[NDArray, ...]:
        return tuple(getattr(self, name) for name in _FACTORS)

    @property
    def _system(self) -> tuple[Any, ...]:
        """What the kernels take: (factors, W, W2, structural non-zeros, whether the first state is what W acts on)."""
        cell = self.net.cell
        return self.arrays, self.net.W, self.net.second_weights, structure(cell, self.padded), cell.emits_state

    def in_float64(self) -> FactoredJacobians:
        """The same numbers in float64, for products that float32 cannot resolve."""
        if self.net.dtype == np.float64:
            return self
        double = (in_dtype(array, np.float64) for array in self.arrays)
        wide: dict[str, Any] = dict(zip(_FACTORS, double, strict=True))
        return dataclasses.replace(self, net=self.net.astype("float64"), **wide)

    def between(self, first: int, last: int) -> FactoredJacobians:
        """Those of the steps from state ``first`` to state ``last`` alone, views."""
        there = [name for name in _FACTORS if self.net.cell.two_stage or name not in _SECOND]
        return dataclasses.replace(self, **{name: getattr(self, name)[first:last] for name in there})

    def flattened(self) -> FactoredJacobians:
        """The same with time and batch as one axis: (1, T B, ...), so that rows can be at different times."""
        flat = (array.reshape(1, len(array) * array.shape[1], *array.shape[2:]) for array in self.arrays)
        return FactoredJacobians(self.net, padded=self.padded, backend=self.backend, **dict(zip(_FACTORS, flat)))

    def adjoint(
        self,
        y: NDArray,
        exponent: NDArray,
        sample: NDArray,
        t_from: int,
        steps: int,
        out: Scaled | None = None,
        dz: NDArray | None = None,
        dz2: NDArray | None = None,
    ) -> Scaled:
        """Carry rows y[R, S, n] 2^exponent[R] from state t_from back.

        Returns the results at steps t_from - steps … t_from - 1, in the order of time, and their exponents. With dz,
        dz2, charges to the pre-activations, ``out`` holds charges to the states, and dz, dz2 return the adjoints.
        """
        rows, exponents = out or scaled_arrays(steps, y)
        dz, dz2 = self._changes(y, dz, dz2)
        find_backend(self.backend).adjoint_chain(rows, exponents, y, exponent, sample, t_from, dz, dz2, self._system)
        return rows, exponents

    def _changes(self, rows: NDArray, dz: NDArray | None, dz2: NDArray | None) -> tuple[NDArray, NDArray]:
        """Changes of the pre-activations, or none."""
        if dz is None or dz2 is None:
            shapes = ((0, len(rows), partial.shape[3], self.net.n) for partial in (self.update_a, self.update_a2))
            dz, dz2 = (np.empty(shape, rows.dtype) for shape in shapes)
        return dz, dz2

    def tangent(
        self,
        v: NDArray,
        exponent: NDArray,
        sample: NDArray,
        t_from: int,
        steps: int,
        dz: NDArray | None = None,
        dz2: NDArray | None = None,
        out: Scaled | None = None,
    ) -> Scaled:
        """Carry columns v[R, S, n] 2^exponent[R] from state t_from on.

        dz, dz2 change the pre-activations; on return they hold the tangents of the pre-activations.
        """
        rows, exponents = out or scaled_arrays(steps, v)
        dz, dz2 = self._changes(v, dz, dz2)
        find_backend(self.backend).tangent_chain(rows, exponents, v, exponent, sample, t_from, dz, dz2, self._system)
        return rows, exponents

    def norms(self, out: NDArray, times: NDArray, eye: NDArray, columns: tuple[int, int], spectral: bool) -> None:
        """ln ||Phi(t, k)|| of a block for the given t and every k; see :meth:`rnngrad.JacobianChain.log_norms`."""
        find_backend(self.backend).chain_norms(out, times, eye, columns, spectral, self._system)

    def frames(
        self, frames: NDArray, logs: NDArray, interval: NDArray, found: NDArray, t_from: int, steps: int
    ) -> None:
        """Carry frames (B, k, S, n) of orthonormal vectors on, in place; see :func:`rnngrad.dynamics.frames.carry`."""
        find_backend(self.backend).tangent_frames(frames, logs, interval, found, t_from, steps, self._system)

    def explicit(self, G: NDArray, at: Any = ...) -> tuple[NDArray, NDArray]:
        """Adjoints of the pre-activations from adjoints G[..., S, n] of the states they make; earlier states fixed.

        G is (T, B, S, n) for s_1 … s_T; or rows (R, S, n) with ``at`` indexing (T, B) to choose each row's place.
        """
        kernels, cell, n, rows = find_backend(self.backend), self.net.cell, self.net.n, G.shape[:-2]

        def partials(array: NDArray, *shape: int) -> NDArray:
            """At the place of every row, (T, B, rows of the diagonals, columns, n)."""
            found = array if at is ... else np.ascontiguousarray(array[at])[None]
            return found.reshape(*found.shape[:2], *shape, n)

        S, P, P2 = self.net.S, len(cell.gates), len(cell.gates2)
        g = contiguous(G if at is ... else G[None])
        T, R = g.shape[:2]
        da, da2 = (empty_beside(g, (*rows, count, n), g.dtype) for count in (P, P2))
        kernels.through_diagonals(da.reshape(T, R, P, n), g, partials(self.update_a, S, P))
        if cell.two_stage:
            kernels.through_diagonals(da2.reshape(T, R, P2, n), g, partials(self.update_a2, S, P2))
            dq = empty_beside(g, (T * R, n), g.dtype)
            kernels.input_adjoint(dq, da2.reshape(T * R, P2, n), self.net.W2, input_runs(range(P2)))
            by_q = da.reshape(T, R, P, n), dq.reshape(T, R, 1, n), partials(self.inner_a, 1, P)
            kernels.through_diagonals(*by_q, more=True)
        return da, da2

    def to_inputs(self, g: NDArray, at: Any) -> NDArray:
        """g ds/dx of rows g (R, S, n) at (time, sample) ``at``: what arrives at the inputs of that step, (R, m)."""
        net, kernels = self.net, find_backend(self.backend)
        dx = empty((len(g), net.m), g.dtype)
        da, da2 = self.explicit(g, at)
        kernels.input_adjoint(dx, da, net.U, input_runs(net.cell.inputs))
        if net.cell.two_stage:
            kernels.input_adjoint(dx, da2, net.U2, input_runs(range(da2.shape[1])), more=True)
        return dx

    def driven(self, v: NDArray, dx: NDArray, sample: NDArray, t: int) -> NDArray:
        """J v + ds/dx dx of columns v (R, S, n) and changes dx (R, m) of the inputs, at the step from t to t + 1."""
        net, kernels, changes = self.net, find_backend(self.backend), []
        for U, inputs, P in (
            (net.U, net.cell.inputs, len(net.cell.gates)),
            (net.U2, range(len(net.cell.gates2)), len(net.cell.gates2)),
        ):
            dz = empty((len(dx), P, net.n), dx.dtype)
            if P:
                kernels.affine(dz, dx, U, np.zeros((P, net.n), dx.dtype), input_runs(inputs))
            changes.append(dz[None])
        dz, dz2 = changes
        return self.tangent(v, np.zeros(len(v), np.int64), sample, t, 1, dz, dz2)[0][0]

    def newton(self, r: NDArray) -> tuple[NDArray, NDArray[np.bool_]]:
        """(I - J)^-1 r of rows r (B, S, n), one for each sample of a single step, and where I - J is regular."""
        d, regular = copied(r), np.zeros(len(r), np.bool_)
        flat = d.reshape(len(r), self.net.N)
        find_backend(self.backend).newton_directions(flat, regular, *self.arrays, self.net.W, self.net.second_weights)
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
        """Iterate y <- y J + g of rows y, g (R, S, n) with the J of sample at[R] of a single step, in place.

        ``forward``: of columns, y <- J y + g. ``history`` is (residuals, iterations, ends) and ``settings`` those of
        the kernels' fixed-point iteration.
        """
        kernels = find_backend(self.backend)
        run = kernels.tangent_fixed_point if forward else kernels.adjoint_fixed_point
        run(y, *history, settings, g, at, self._system)

    def dense(self) -> NDArray:
        """J (T, B, N, N)."""
        T, B = self.update_s.shape[:2]
        J = empty_beside(self.update_s, (T, B, self.net.N, self.net.N), self.net.dtype)
        find_backend(self.backend).dense(J, *self.arrays, self.net.W, self.net.second_weights)
        return J


@functools.cache
def structure(cell: Cell, padded: bool) -> tuple[NDArray, ...]:
    """Structural non-zeros of the factored form, in its order; ``padded``: with those of a padded step, an identity."""
    S = cell.n_states
    by_state = np.array(cell.update_by_state, dtype=np.uint8).reshape(S, -1)
    if padded:
        by_state |= np.eye(S, dtype=np.uint8)
    by_gate = np.array(cell.update_by_gate, dtype=np.uint8).reshape(S, -1)
    by_gate2 = np.array(cell.update_by_gate2, dtype=np.uint8).reshape(S, -1)
    inner = (np.array(cell.inner_by_state, dtype=np.uint8), np.array(cell.inner_by_gate, dtype=np.uint8))
    return by_state, by_gate, by_gate2, *inner, np.ones(S, dtype=np.uint8)


def factored_jacobians(traj: Any) -> FactoredJacobians:
    """Partial derivatives along a trajectory; the Jacobian of a padded step is the identity."""
    traj.require_finite()
    net = traj.net
    T, B, S, n = traj.T, traj.B, net.S, net.n
    P, P2 = len(net.cell.gates), len(net.cell.gates2)  # of a2 on a GPU no axis has the length 0
    Q, Q2 = (S, P) if net.cell.two_stage else (0, 0)
    shapes = ((S, S), (S, P), (S, P2), (Q,), (Q2,), (S,))
    arrays = [empty_beside(traj.states, (T, B, *shape, n), net.dtype) for shape in shapes]
    find_backend(traj.backend).factors(net.cell, net.phi)(
        *arrays, traj.states, traj.a, traj.a2, traj.lengths, net.unit_constants
    )
    padded = bool(traj.lengths.min() < T)
    return FactoredJacobians(net, padded=padded, backend=traj.backend, **dict(zip(_FACTORS, arrays)))


def through_output(traj: Trajectory, gh: NDArray) -> NDArray:
    """gh_t dh_t/ds_t (T, B, S, n) for gh (T, B, n): from the output to the state it is made of."""
    net = traj.net
    shape = (traj.T, traj.B, *net.state_shape)
    if isinstance(net, System) or net.cell.outputs_state:
        gs = filled(gh, shape, net.dtype)
        add_to_first_states(gs, gh)
        return gs
    gs = empty_beside(gh, shape, net.dtype)
    find_backend(traj.backend).output_vjp(net.cell, net.phi)(gs, contiguous(gh), traj.states[1:], net.unit_constants)
    return gs


def dense_pieces(jacobians: Any, T: int, B: int) -> Iterator[NDArray]:
    """Dense J (t, B, N, N) of consecutive steps, where the factors lie; t so that a piece takes 64 MB at most."""
    steps = max(1, _PIECE // (8 * B * jacobians.net.N**2))
    for first in range(0, T, steps):
        yield jacobians.between(first, min(first + steps, T)).dense()


@functools.singledispatch
def local_jacobians(traj: Any) -> Any:
    """The Jacobians in the form that suits the system: factored for networks, dense for a user's function."""
    return traj.net._local_jacobians(traj) if isinstance(traj.net, System) else factored_jacobians(traj)


def jacobians(traj: Trajectory) -> NDArray:
    """Dense local Jacobians J_t = ds_t/ds_{t-1}.

    Returns
    -------
    ndarray (T, B, N, N)
        ``J[t-1]`` is ds_t/ds_{t-1}; row = output. State order: all units of the first state vector, then the next
        ([h; c] for an LSTM). A padded step has the identity. Of a :class:`DeviceTrajectory`, a device array.
    """
    J = local_jacobians(traj).dense()
    if _cuda.is_device_array(J):  # whoever reads it in place is told of no stream to wait for
        _cuda.synchronize()
    return J
