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

from .._arrays import contiguous, empty_beside
from ..dynamics.jacobian import factored_jacobians, through_output
from ..dynamics.placed import (
    add,
    add_rows,
    add_to_first_states,
    fill,
    filled,
    first_states,
    in_dtype,
    put_rows,
    take_rows,
)
from ..dynamics.rollout import Trajectory, input_runs
from ..kernels import backend as find_backend
from .assemble import bias_gradients, to_inputs, weight_gradients
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
        traj = self.traj
        return through_output(traj, filled(traj.states, (traj.T, traj.B, self.net.n), self.net.dtype, 1))

    @cached_property
    def _emitted(self) -> NDArray:
        """e_{t-1} (T, B, n)."""
        traj, cell = self.traj, self.net.cell
        return first_states(traj.states[: traj.T]) if cell.emits_state else contiguous(traj.emitted)

    # -- forward -----------------------------------------------------------------------------------------------

    def tangent(self, v: Direction, dx: NDArray | None = None) -> Tangent:
        """R of the trajectory along parameters v and inputs dx (T, R, m), none by default; s_0 stays."""
        net, traj, cell = self.net, self.traj, self.net.cell
        T, B, n, K = traj.T, traj.B, net.n, v["W"].shape[0]
        a = self._changes("", v, self._emitted, dx, self._gates, cell.inputs, cell.biases, len(cell.gates))
        a2 = self._changes("2", v, traj.inner, dx, self._gates2, self._gates2, self._gates2, len(cell.gates2))
        s = empty_beside(a, (T + 1, K * B, net.S, n), net.dtype)
        fill(s[:1], 0)
        none, exponents = np.zeros(K * B, np.int64), empty_beside(a, (T, K * B), np.int64)
        self.factors.tangent(s[0], none, np.tile(np.arange(B), K), 0, T, a, a2, out=(s[1:], exponents))

        def apply(partial: NDArray, moved: NDArray, out: NDArray | None = None) -> NDArray:
            """sum_p partial (T, B, p, n) moved (T, R, p, n), or added to ``out``."""
            more, width = out is not None, partial.shape[2]
            out = empty_beside(a, (T, K * B, n), net.dtype) if out is None else out
            through = out.reshape(T, K * B, 1, n), moved, partial.reshape(T, B, width, 1, n)
            self.kernels.through_diagonals(*through, more=more)
            return out

        e = first_states(s[:-1]) if cell.emits_state else apply(self.factors.emit_s, s[:-1])
        h = first_states(s[1:]) if cell.outputs_state else apply(self._slopes, s[1:])
        q = empty_beside(a, (0, K * B, n), net.dtype)
        if cell.two_stage:
            q = apply(self.factors.inner_a, a, apply(self.factors.inner_s, s[:-1]))
        return Tangent(s, a, a2, e, q, h, filled(a, (T, K * B, net.m), net.dtype) if dx is None else dx)

    def _changes(
        self, suffix: str, v: Direction, e: NDArray, dx: NDArray | None, gates: tuple, inputs: tuple, biases: tuple,
        P: int,
    ) -> NDArray:  # fmt: skip
        """What v and dx add to the pre-activations of one product, states held fixed: (T, R, P, n)."""
        T, B, n, m, K = self.traj.T, self.traj.B, self.net.n, self.net.m, v["W"].shape[0]
        out = filled(v["W"], (T, K * B, P, n), self.net.dtype)
        if P == 0:
            return out
        still, part = filled(out, (P, n), self.net.dtype), empty_beside(out, (T * B, P, n), self.net.dtype)

        def add(k: int, source: NDArray, weights: NDArray, bias: NDArray, rows: tuple) -> None:
            self.kernels.affine(part, source, contiguous(weights), bias, input_runs(rows))
            add_to_direction(out, k, K, part.reshape(T, B, P, n))

        for k in range(K):
            bias = filled(out, (P, n), self.net.dtype)
            put_rows(bias, np.array(biases, np.int64), v["b" + suffix][k])
            add(k, self.traj.x.reshape(T * B, m), v["U" + suffix][k], bias, inputs)
            add(k, e.reshape(T * B, n), v["W" + suffix][k], still, gates)
            if dx is not None:
                moved = of_direction(dx, k, K).reshape(T * B, m)
                add(k, moved, self.net.parameters["U" + suffix], still, inputs)
        return out

    # -- backward ----------------------------------------------------------------------------------------------

    def adjoint(self, gh: NDArray) -> Adjoint:
        """dL/d of everything, from the loss's own derivative gh (T, B, n) with respect to h_1 … h_T."""
        gs, da, da2 = adjoints(self.traj, gh)
        dq, de = self._to_products(da, da2, self.net.parameters)
        return Adjoint(gs, gh, da, da2, dq, de)

    def _to_products(self, da: NDArray, da2: NDArray, weights: Direction) -> tuple[NDArray, NDArray]:
        """(W2^T da2, W^T da), what arrives at q and e."""
        T, B, n = self.traj.T, self.traj.B, self.net.n
        found = []
        for charge, name, gates in ((da2, "W2", self._gates2), (da, "W", self._gates)):
            out = (empty_beside if gates else filled)(da, (T * B, n), self.net.dtype)
            if gates:
                W = contiguous(weights[name])
                self.kernels.input_adjoint(out, charge.reshape(T * B, -1, n), W, input_runs(gates))
            found.append(out.reshape(T, B, n))
        return found[0], found[1]

    def pull_back(self, gh: NDArray) -> tuple[list[dict[str, NDArray]], NDArray]:
        """J^T gh for charges gh (T, R, n) to the outputs: gradients of every direction, and those of the inputs."""
        T, B, n, S = self.traj.T, self.traj.B, self.net.n, self.net.S
        K = gh.shape[1] // B
        ds, da, da2 = self._charges(K)
        slopes = self._slopes.reshape(T, B, 1, S, n)
        self.kernels.through_diagonals(ds[1:], gh.reshape(T, K * B, 1, n), slopes, more=True)
        self._carry_back(ds, da, da2)
        return self._collect(K, da, da2)

    def differentiate_adjoint(
        self, v: Direction, moved: Tangent, base: Adjoint, gh: NDArray
    ) -> tuple[list[dict[str, NDArray]], NDArray]:
        """R of every gradient by direction, for R{gh} (T, R, n), and of the inputs (T, R, m)."""
        T, B, n, cell, K = self.traj.T, self.traj.B, self.net.n, self.net.cell, v["W"].shape[0]
        ds, da, da2 = self._charges(K)
        dq, de = (filled(ds, (T, K * B, n), self.net.dtype) for _ in range(2))
        for k in range(K):
            to_q, to_e = self._to_products(base.da, base.da2, {name: value[k] for name, value in v.items()})
            add_to_direction(de, k, K, to_e)
            if cell.two_stage:
                add_to_direction(dq, k, K, to_q)
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
        ds, da, da2 = (in_dtype(part, self.net.dtype) for part in added)
        if cell.outputs_state:
            add_to_first_states(ds[1:], gh)
        if cell.emits_state:
            add_to_first_states(ds[:-1], de)
        self._carry_back(ds, da, da2)
        return self._collect(K, da, da2, v, moved, base)

    def _charges(self, K: int) -> tuple[NDArray, NDArray, NDArray]:
        """Zeros for charges to the states (T+1, R, S, n) and to the pre-activations."""
        traj, net = self.traj, self.net
        sizes = (traj.T + 1, net.S), (traj.T, len(net.cell.gates)), (traj.T, len(net.cell.gates2))
        ds, da, da2 = (filled(traj.states, (T, K * traj.B, P, net.n), net.dtype) for T, P in sizes)
        return ds, da, da2

    def _carry_back(self, ds: NDArray, da: NDArray, da2: NDArray) -> None:
        """Charges to states and pre-activations become adjoints, in place."""
        T, rows = self.traj.T, ds.shape[1]
        sample = np.tile(np.arange(self.traj.B), rows // self.traj.B)
        out = ds[:T], empty_beside(ds, (T, rows), np.int64)
        self.factors.adjoint(ds[T], np.zeros(rows, np.int64), sample, T, T, out, da, da2)

    def _collect(
        self,
        K: int,
        da: NDArray,
        da2: NDArray,
        v: Direction | None = None,
        moved: Tangent | None = None,
        base: Adjoint | None = None,
    ) -> tuple[list[dict[str, NDArray]], NDArray]:
        """R{sum da e^T} = sum R{da} e^T + da R{e}^T and so on, direction by direction."""
        traj, two_stage = self.traj, self.net.cell.two_stage
        columns: list[dict[str, NDArray]] = []
        dx = to_inputs(traj, da, da2, self.net.parameters)
        for k in range(K):
            mine, mine2 = of_direction(da, k, K), of_direction(da2, k, K) if two_stage else da2
            out = weight_gradients(traj, mine, mine2, self._emitted, traj.x, traj.inner)
            if v is not None and moved is not None and base is not None:
                e, x = of_direction(moved.e, k, K), of_direction(moved.x, k, K)
                q = of_direction(moved.q, k, K) if two_stage else moved.q
                for name, more in weight_gradients(traj, base.da, base.da2, e, x, q).items():
                    add(out[name], more)
                weights = {name: contiguous(value[k]) for name, value in v.items()}
                add_to_direction(dx, k, K, to_inputs(traj, base.da, base.da2, weights))
            columns.append(out | bias_gradients(traj, mine, mine2))
        return columns, dx


def of_direction(values: NDArray, k: int, K: int) -> NDArray:
    """Rows of direction k (T, B, …) of C-contiguous values (T, K B, …); the values themselves if K is 1."""
    if K == 1:
        return values
    T, R, *rest = values.shape
    shape = (T * K, R // K, *rest)
    return take_rows(values.reshape(shape), np.arange(T) * K + k)


def add_to_direction(values: NDArray, k: int, K: int, more: NDArray) -> None:
    """values[direction k] += more (T, B, …), of C-contiguous values (T, K B, …)."""
    T, R, *rest = values.shape
    add_rows(values.reshape(T * K, R // K, *rest), np.arange(T) * K + k, more)


def _double(*arrays: NDArray) -> tuple[NDArray, ...]:
    """The arrays in float64, which dual numbers need for their range, whatever the network's precision."""
    return tuple(in_dtype(array, np.float64) for array in arrays)
