"""The R-operator on one network: how states and adjoints change along a direction of its parameters and inputs.

R{f} = df(w + eps v)/deps at 0 (Pearlmutter 1994). Forward, the tangents of states and pre-activations; backward, the
chain of adjoints once more, charged at every step with what the second partials of the cell and the direction itself
add. K directions go together: a row r = k B + b is direction k of sample b.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from .._memory import empty
from ..dynamics.jacobian import factored_jacobians, through_output
from ..dynamics.rollout import Trajectory, input_runs
from ..kernels import backend as find_backend
from .assemble import bias_gradients, emitted, to_inputs, weight_gradients
from .bptt import adjoints

Direction = Mapping[str, NDArray]  # by name, (K, *shape of the parameter)


@dataclass(frozen=True)
class Tangent:
    """R of everything along a trajectory: s (T+1, R, S, n), a (T, R, P, n), a2, and e, q, h, x (T, R, n or m)."""

    s: NDArray
    a: NDArray
    a2: NDArray
    e: NDArray
    q: NDArray
    h: NDArray
    x: NDArray


@dataclass(frozen=True)
class Adjoint:
    """dL/d of everything along a trajectory: gs (T+1, B, S, n), gh, da, da2, and dq, de where the cell has them."""

    gs: NDArray
    gh: NDArray
    da: NDArray
    da2: NDArray
    dq: NDArray
    de: NDArray


class Linearized:
    """A network about one trajectory of it."""

    def __init__(self, traj: Trajectory) -> None:
        self.traj, self.net, self.kernels = traj, traj.net, find_backend(traj.backend)
        self.factors = factored_jacobians(traj)
        self._gates = tuple(range(self.net.cell.recurrent))
        self._gates2 = tuple(range(len(self.net.cell.gates2)))

    @cached_property
    def _slopes(self) -> NDArray:
        """dh_t/ds_t (T, B, S, n)."""
        return through_output(self.traj, np.ones_like(self.traj.h))

    @cached_property
    def _emitted(self) -> NDArray:
        """e_{t-1} (T, B, n)."""
        rows = emitted(self.traj)[:, : self.net.n]
        return np.ascontiguousarray(rows).reshape(self.traj.T, self.traj.B, self.net.n)

    # -- forward -----------------------------------------------------------------------------------------------

    def tangent(self, v: Direction, dx: NDArray | None = None) -> Tangent:
        """R of the trajectory along parameters v and inputs dx (T, R, m); s_0 stays."""
        net, traj, cell = self.net, self.traj, self.net.cell
        T, B, n, K = traj.T, traj.B, net.n, len(v["W"])
        dx = np.zeros((T, K * B, net.m), net.dtype) if dx is None else dx
        a = self._changes("", v, self._emitted, dx, self._gates, cell.inputs, cell.biases, len(cell.gates))
        a2 = self._changes("2", v, traj.inner, dx, self._gates2, self._gates2, self._gates2, len(cell.gates2))
        s = empty((T + 1, K * B, net.S, n), net.dtype)
        s[0] = 0
        none, exponents = np.zeros(K * B, np.int64), empty((T, K * B), np.int64)
        self.factors.tangent(s[0], none, np.tile(np.arange(B), K), 0, T, a, a2, out=(s[1:], exponents))

        def apply(partial: NDArray, moved: NDArray) -> NDArray:
            out = np.einsum("tbpn,tkbpn->tkbn", partial, moved.reshape(T, K, B, -1, n))
            return out.reshape(T, K * B, n)

        e = s[:-1, :, 0] if cell.emits_state else apply(self.factors.emit_s, s[:-1])
        h = s[1:, :, 0] if cell.outputs_state else apply(self._slopes, s[1:])
        q = empty((0, K * B, n), net.dtype)
        if cell.two_stage:
            q = apply(self.factors.inner_s, s[:-1]) + apply(self.factors.inner_a, a)
        return Tangent(s, a, a2, np.ascontiguousarray(e), q, np.ascontiguousarray(h), dx)

    def _changes(
        self, suffix: str, v: Direction, e: NDArray, dx: NDArray, gates: tuple, inputs: tuple, biases: tuple, P: int
    ) -> NDArray:
        """What v and dx add to the pre-activations of one product, states held fixed: (T, R, P, n)."""
        T, B, n, m, K = self.traj.T, self.traj.B, self.net.n, self.net.m, len(v["W"])
        out = np.zeros((T, K, B, P, n), self.net.dtype)
        if P == 0:
            return out.reshape(T, K * B, 0, n)
        still, part = np.zeros((P, n), self.net.dtype), empty((T * B, P, n), self.net.dtype)

        def add(k: int, source: NDArray, weights: NDArray, bias: NDArray, rows: tuple) -> None:
            self.kernels.affine(part, source, np.ascontiguousarray(weights), bias, input_runs(rows))
            out[:, k] += part.reshape(T, B, P, n)

        for k in range(K):
            bias = still.copy()
            bias[list(biases)] = v["b" + suffix][k]
            add(k, self.traj.x.reshape(T * B, m), v["U" + suffix][k], bias, inputs)
            add(k, e.reshape(T * B, n), v["W" + suffix][k], still, gates)
            moved = np.ascontiguousarray(dx[:, k * B : (k + 1) * B]).reshape(T * B, m)
            if moved.any():
                add(k, moved, self.net.parameters["U" + suffix], still, inputs)
        return out.reshape(T, K * B, P, n)

    # -- backward ----------------------------------------------------------------------------------------------

    def adjoint(self, gh: NDArray) -> Adjoint:
        """dL/d of everything, from the loss's own derivative gh (T, B, n) with respect to h_1 … h_T."""
        gs, da, da2 = adjoints(self.traj, gh)
        dq, de = self._to_products(da, da2, self.net.parameters)
        return Adjoint(gs, gh, da, da2, dq, de)

    def _to_products(self, da: NDArray, da2: NDArray, weights: Direction) -> tuple[NDArray, NDArray]:
        """(W2^T da2, W^T da), what arrives at q and e."""
        T, B, n = self.traj.T, self.traj.B, self.net.n
        dq, de = (empty((T * B, n), self.net.dtype) for _ in range(2))
        for out, charge, name, gates in ((dq, da2, "W2", self._gates2), (de, da, "W", self._gates)):
            if gates:
                W = np.ascontiguousarray(weights[name])
                self.kernels.input_adjoint(out, charge.reshape(T * B, -1, n), W, input_runs(gates))
        return dq.reshape(T, B, n), de.reshape(T, B, n)

    def pull_back(self, gh: NDArray) -> tuple[dict[str, NDArray], NDArray]:
        """J^T gh for charges gh (T, R, n) to the outputs: gradients (K, *shape) and those of the inputs (T, R, m)."""
        T, B, n = self.traj.T, self.traj.B, self.net.n
        K = gh.shape[1] // B
        ds, da, da2 = self._charges(K)
        direct = self._slopes[:, None] * gh.reshape(T, K, B, 1, n)
        ds[1:] += direct.reshape(T, K * B, self.net.S, n)
        self._carry_back(ds, da, da2)
        return self._collect(K, da, da2)

    def differentiate_adjoint(
        self, v: Direction, moved: Tangent, base: Adjoint, gh: NDArray
    ) -> tuple[dict[str, NDArray], NDArray]:
        """R of every gradient, for R{gh} (T, R, n): (K, *shape) by name, and of the inputs (T, R, m)."""
        T, B, n, cell, K = self.traj.T, self.traj.B, self.net.n, self.net.cell, len(v["W"])
        ds, da, da2 = self._charges(K)
        dq, de = (empty((T, K * B, n), self.net.dtype) for _ in range(2))
        for k in range(K):
            own = slice(k * B, (k + 1) * B)
            dq[:, own], de[:, own] = self._to_products(base.da, base.da2, {name: value[k] for name, value in v.items()})
        point = self.traj.states, self.traj.a, self.traj.a2
        added = _double(ds, da, da2)
        self.kernels.curvature(cell, self.net.phi)(
            *added,
            _double(moved.s, moved.a, moved.a2),
            _double(gh, dq, de),
            _double(*point),
            _double(base.gs, base.gh, base.dq, base.de),
            self.traj.lengths,
            *_double(self.net.unit_constants),
        )
        ds, da, da2 = (part.astype(self.net.dtype, copy=False) for part in added)
        if cell.outputs_state:
            ds[1:, :, 0] += gh
        if cell.emits_state:
            ds[:-1, :, 0] += de
        self._carry_back(ds, da, da2)
        return self._collect(K, da, da2, v, moved, base)

    def _charges(self, K: int) -> tuple[NDArray, NDArray, NDArray]:
        traj, rows = self.traj, K * self.traj.B
        shapes = (traj.states.shape, traj.a.shape, traj.a2.shape)
        ds, da, da2 = (np.zeros((shape[0], rows, *shape[2:]), self.net.dtype) for shape in shapes)
        return ds, da, da2

    def _carry_back(self, ds: NDArray, da: NDArray, da2: NDArray) -> None:
        """Charges to states and pre-activations become adjoints, in place."""
        T, rows = self.traj.T, ds.shape[1]
        sample = np.tile(np.arange(self.traj.B), rows // self.traj.B)
        out = ds[:T], empty((T, rows), np.int64)
        self.factors.adjoint(ds[T], np.zeros(rows, np.int64), sample, T, T, out, da, da2)

    def _collect(
        self,
        K: int,
        da: NDArray,
        da2: NDArray,
        v: Direction | None = None,
        moved: Tangent | None = None,
        base: Adjoint | None = None,
    ) -> tuple[dict[str, NDArray], NDArray]:
        """R{sum da e^T} = sum R{da} e^T + da R{e}^T and so on, direction by direction."""
        traj, B = self.traj, self.traj.B
        columns: list[dict[str, NDArray]] = []
        dx = empty((traj.T, K * B, self.net.m), self.net.dtype)
        for k in range(K):
            own = slice(k * B, (k + 1) * B)
            mine, mine2 = np.ascontiguousarray(da[:, own]), np.ascontiguousarray(da2[:, own])
            out = weight_gradients(traj, mine, mine2, emitted(traj), traj.x, traj.inner)
            dx[:, own] = to_inputs(traj, mine, mine2, self.net.parameters)
            if v is not None and moved is not None and base is not None:
                e, x, q = (np.ascontiguousarray(part[:, own]) for part in (moved.e, moved.x, moved.q))
                for name, more in weight_gradients(traj, base.da, base.da2, e, x, q).items():
                    out[name] = out[name] + more
                weights = {name: np.ascontiguousarray(value[k]) for name, value in v.items()}
                dx[:, own] += to_inputs(traj, base.da, base.da2, weights)
            columns.append(out | bias_gradients(traj, mine, mine2))
        return {name: np.stack([column[name] for column in columns]) for name in self.net.cell.shapes(1, 1)}, dx


def _double(*arrays: NDArray) -> tuple[NDArray, ...]:
    """The arrays in float64, which dual numbers need for their range, whatever the network's precision."""
    return tuple(np.ascontiguousarray(array, dtype=np.float64) for array in arrays)
