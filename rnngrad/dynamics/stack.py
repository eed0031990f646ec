"""Stacks along their inputs: every layer is an ordinary rollout over the layer below, and so are its Jacobians.

The joint state of a stack whose layers all run forward is s_t = [s^0_t; s^1_t; …], all layers end to end. Layer l reads
h^{l-1}_t of the *same* step, so ds_t/ds_{t-1} is block lower-triangular: with A_l = ds^l_t/ds^l_{t-1},
B_l = ds^l_t/dh^{l-1}_t and C_l = dh^l_t/ds^l_t,

    J^{l,l} = A_l,    J^{l,j} = B_l C_{l-1} J^{l-1,j}  for j < l.

Products with it go from layer to layer within a step; it is dense only when asked for.

With feedback layer 0 also reads y_{t-1} = V h^{top}_{t-1} + c, a function of the joint state before, which adds
B_0 V C_top(t-1) to its rows; B_0 is the part of B for the fed-back inputs. At step 1 the output before is given from
outside and adds nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._memory import empty
from ..stack import Stack
from .jacobian import FactoredJacobians, local_jacobians, through_output
from .rollout import Trajectory, readout, run
from .scaled import Scaled, scaled, scaled_arrays
from .steps import Steps
from .system import DenseJacobians


@dataclass(frozen=True)
class StackTrajectory(Steps):
    """States of a stack along its inputs.

    Attributes
    ----------
    net : Stack
    x : ndarray (T, B, m)
    layers : tuple of tuples of Trajectory
        ``layers[l]`` is (forward,) or (forward, backward). A backward trajectory lies in its own order of time: its
        step 1 reads the last step of each sequence. Each is an ordinary trajectory; chains and Jacobians of one
        direction of one layer are those of its trajectory.
    h : ndarray (T, B, n)
        Output of the top layer in the order of x, [forward; backward] where it has two directions.
    y : ndarray (T, B, p)
        Outputs V h + c; h itself without a readout.
    lengths : ndarray (B,)
    diverged : ndarray (B,)
        First step (of its own direction) at which a layer's state is not finite; -1 where there is none.
    fed : ndarray (T, B, p)
        What was fed back: y_0 … y_{T-1}, 0 at padded steps; (T, B, 0) without feedback.
    """

    net: Stack
    x: NDArray
    layers: tuple[tuple[Trajectory, ...], ...]
    h: NDArray
    y: NDArray
    lengths: NDArray
    diverged: NDArray
    fed: NDArray
    backend: str = "auto"

    @cached_property
    def states(self) -> NDArray:
        """Joint states s_0 … s_T, (T+1, B, 1, N); see ``net.blocks`` for what lies where."""
        require_forward(self.net, "joint states")
        return np.concatenate([_flat(row[0].states) for row in self.layers], axis=-1)[:, :, None]


def require_forward(net: Stack, what: str) -> None:
    """Raise where a layer runs backward: then no state at one step determines the next."""
    if net.bidirectional:
        layer = next(i for i, row in enumerate(net.layers) if len(row) == 2)
        raise ValueError(
            f"layer {layer} runs in both directions, so the stack has no {what}; ask for those of one direction, "
            f"traj.layers[{layer}][0] (forward) or traj.layers[{layer}][1] (backward)"
        )


def reverse(values: NDArray, lengths: NDArray) -> NDArray:
    """Each sequence of (T, B, …) reversed within its own length; what lies beyond stays."""
    T = len(values)
    t = np.arange(T)[:, None]
    index = np.where(t < lengths, lengths - 1 - t, t)
    return np.take_along_axis(values, index.reshape(*index.shape, *[1] * (values.ndim - 2)), axis=0)


def _flat(states: NDArray) -> NDArray:
    """(…, S, n) as (…, S n)."""
    return states.reshape(*states.shape[:-2], -1)


@run.register
def _run_stack(
    net: Stack, x: NDArray, s0: NDArray, lengths: NDArray, backend: str, quiet: bool = False
) -> StackTrajectory:
    if not net.feedback:
        return _run_layers(net, x, s0, lengths, backend, quiet)
    T, B, _ = x.shape
    fed = np.zeros((T, B, net.p), net.dtype)  # y_0 = 0, and 0 where a sequence has ended
    forced, every, s = net.teacher_forced(), np.ones(B, np.int64), s0
    for t in range(T - 1):
        u = np.concatenate([x[t : t + 1], fed[t : t + 1]], axis=-1)
        step = _run_layers(_at_step(forced, t), u, s, every, backend, quiet=True)
        s = np.where((t < lengths)[:, None, None], step.states[1], s)
        fed[t + 1] = np.where((t + 1 < lengths)[:, None], step.y[0], 0)
    # on its own outputs the stack runs as if they had been given: every layer is one ordinary trajectory again
    traj = _run_layers(forced, np.concatenate([x, fed], axis=-1), s0, lengths, backend, quiet)
    return replace(traj, net=net, x=x, fed=fed)


def _at_step(net: Stack, t: int) -> Stack:
    """The stack with the constants (dropout masks) of step t + 1 alone."""

    def now(layer: Any) -> Any:
        if not any(value.ndim == 3 and len(value) > 1 for value in getattr(layer, "constants", {}).values()):
            return layer
        return replace(layer, constants={k: v[t : t + 1] if v.ndim == 3 else v for k, v in layer.constants.items()})

    return replace(net, layers=tuple(tuple(map(now, row)) for row in net.layers))


def _run_layers(
    net: Stack, x: NDArray, s0: NDArray, lengths: NDArray, backend: str, quiet: bool = False
) -> StackTrajectory:
    layers: list[tuple[Trajectory, ...]] = []
    h, start = x, 0
    for row in net.layers:
        trajectories, outputs = [], []
        for backward, layer in enumerate(row):
            first = s0[:, 0, start : start + layer.N].reshape(len(s0), *layer.state_shape)
            start += layer.N
            given = reverse(h, lengths) if backward else np.ascontiguousarray(h)
            traj = run(layer, given, first, lengths, backend, quiet)
            trajectories.append(traj)
            outputs.append(reverse(traj.h, lengths) if backward else traj.h)
        layers.append(tuple(trajectories))
        h = np.concatenate(outputs, axis=-1) if len(outputs) > 1 else outputs[0]
    bad = np.stack([traj.diverged for row in layers for traj in row])
    first_bad = np.where(bad < 0, len(x) + 1, bad).min(axis=0)
    diverged = np.where((bad >= 0).any(axis=0), first_bad, -1)
    y = readout(net, h, backend)
    return StackTrajectory(net, x, tuple(layers), h, y, lengths, diverged, x[..., :0], backend)


@dataclass(frozen=True)
class StackJacobians:
    """Joint Jacobians of a forward stack, by way of its layers' factored ones.

    Attributes
    ----------
    layers : tuple of FactoredJacobians, or DenseJacobians for a user's system
    outputs : tuple of ndarray (T, B, S, n)
        dh^l_t/ds^l_t per unit, of all layers but the top one.
    before : ndarray (T, B, S, n) or None
        dh_{t-1}/ds_{t-1} of the top layer, where its output is fed back; 0 at the first step.
    """

    net: Stack
    layers: tuple[FactoredJacobians | DenseJacobians, ...]
    outputs: tuple[NDArray, ...]
    before: NDArray | None
    backend: str
    shape: tuple[int, int]  # (T, B)

    @property
    def _slices(self) -> list[slice]:
        return [self.net.blocks[f"l{layer}"] for layer in range(len(self.layers))]

    def in_float64(self) -> StackJacobians:
        """The same numbers in float64."""
        if self.net.dtype == np.float64:
            return self
        layers = tuple(part.in_float64() for part in self.layers)
        outputs = tuple(slopes.astype(np.float64) for slopes in self.outputs)
        before = None if self.before is None else self.before.astype(np.float64)
        return replace(self, net=self.net.astype("float64"), layers=layers, outputs=outputs, before=before)

    def between(self, first: int, last: int) -> StackJacobians:
        """Those of the steps from state ``first`` to state ``last`` alone, views."""
        parts = tuple(part.between(first, last) for part in self.layers)
        before = None if self.before is None else self.before[first:last]
        outputs = tuple(slopes[first:last] for slopes in self.outputs)
        return replace(self, layers=parts, outputs=outputs, before=before, shape=(last - first, self.shape[1]))

    def flattened(self) -> StackJacobians:
        """The same with time and batch as one axis, so that rows can be at different times."""

        def flat(slopes: NDArray) -> NDArray:
            return slopes.reshape(1, -1, *slopes.shape[2:])

        before = None if self.before is None else flat(self.before)
        parts = tuple(part.flattened() for part in self.layers)
        shape = (1, self.shape[0] * self.shape[1])
        return StackJacobians(self.net, parts, tuple(map(flat, self.outputs)), before, self.backend, shape)

    # -- between layers ----------------------------------------------------------------------------------------

    def _to_output_before(self, dx: NDArray, at: Any) -> NDArray:
        """What arrives at layer 0's fed-back inputs, carried to the top layer's state of the step before: (R, S n)."""
        assert self.before is not None
        dy = dx[:, self.net.m :]
        dh = dy if self.net.V is None else dy @ self.net.V
        return (self.before[at] * dh[:, None]).reshape(len(dx), -1)

    def _fed_back(self, v: NDArray, at: Any) -> NDArray:
        """Change of layer 0's inputs (R, m) by way of the output before, for columns v (R, N) of the state before."""
        dx = np.zeros((len(v), self.layers[0].net.m), v.dtype)
        if self.before is not None:
            top = v[:, self._slices[-1]].reshape(len(v), *self.before.shape[2:])
            dh = np.sum(self.before[at] * top, axis=1)
            dx[:, self.net.m :] = dh if self.net.V is None else dh @ self.net.V.T
        return dx

    # -- along time --------------------------------------------------------------------------------------------

    def adjoint(
        self, y: NDArray, exponent: NDArray, sample: NDArray, t_from: int, steps: int, out: Scaled | None = None
    ) -> Scaled:
        """Carry rows back; see :meth:`FactoredJacobians.adjoint`. Rows are (R, 1, N)."""
        rows, exponents = out or scaled_arrays(steps, y)
        y, exponent = y[:, 0], exponent.copy()
        none = np.zeros(len(y), np.int64)
        for d in range(steps):
            t = t_from - 1 - d
            new, shifts, carried = np.empty_like(y), [], None
            for layer in reversed(range(len(self.layers))):
                part, where = self.layers[layer], self._slices[layer]
                g = np.ascontiguousarray(y[:, where]).reshape(-1, *part.net.state_shape)
                if carried is not None:
                    g = g + self.outputs[layer][t, sample] * carried[:, None]
                result, shift = part.adjoint(g, none, sample, t + 1, 1)
                new[:, where] = result[0].reshape(len(y), -1)
                shifts.append((where, shift[0]))
                carried = part.to_inputs(g, (t, sample)) if layer or self.before is not None else None
            if self.before is not None and carried is not None:
                where, shift = shifts[0]  # the top layer came first
                back = self._to_output_before(carried, (t, sample))
                new[:, where], shifts[0] = _sum(new[:, where], shift, back), (where, np.maximum(shift, 0))
            y = _common(new, shifts, exponent)
            rows[steps - 1 - d, :, 0], exponents[steps - 1 - d] = y, exponent
        return rows, exponents

    def tangent(
        self, v: NDArray, exponent: NDArray, sample: NDArray, t_from: int, steps: int, *, out: Scaled | None = None
    ) -> Scaled:
        """Carry columns forward; see :meth:`FactoredJacobians.tangent`. Columns are (R, 1, N)."""
        columns, exponents = out or scaled_arrays(steps, v)
        v, exponent = v[:, 0], exponent.copy()
        for d in range(steps):
            t, new = t_from + d, np.empty_like(v)
            dx = self._fed_back(v, (t, sample))
            for layer, part in enumerate(self.layers):
                where = self._slices[layer]
                column = np.ascontiguousarray(v[:, where]).reshape(-1, *part.net.state_shape)
                result = part.driven(column, dx, sample, t)
                new[:, where] = result.reshape(len(v), -1)
                if layer + 1 < len(self.layers):
                    dx = np.sum(self.outputs[layer][t, sample] * result, axis=1)
            v, shift = scaled(new)
            exponent += shift
            columns[d, :, 0], exponents[d] = v, exponent
        return columns, exponents

    def dense(self) -> NDArray:
        """J (T, B, N, N)."""
        (T, B), N = self.shape, self.net.N
        J = empty((T, B, N, N), self.net.dtype)
        eye = np.ascontiguousarray(np.broadcast_to(np.eye(N, dtype=J.dtype), (B, N, N))).reshape(B * N, 1, N)
        sample, none = np.repeat(np.arange(B), N), np.zeros(B * N, np.int64)
        for t in range(T):
            rows, exponents = self.adjoint(eye, none, sample, t + 1, 1)
            J[t] = np.ldexp(rows[0, :, 0], exponents[0, :, None].astype(np.int32)).reshape(B, N, N)
        return J


def _sum(values: NDArray, shift: NDArray, more: NDArray) -> NDArray:
    """values 2^shift + more, as mantissas of 2^max(shift, 0)."""
    top = np.maximum(shift, 0)
    down = np.clip(np.stack([shift - top, -top]), -4000, 0).astype(np.int32)[..., None]
    return np.ldexp(values, down[0]) + np.ldexp(more, down[1])


def _common(new: NDArray, shifts: list[tuple[slice, NDArray]], exponent: NDArray) -> NDArray:
    """Rows whose layers took out a power of two each, with one for the whole row, which is added to ``exponent``."""
    if not any(shift.any() for _, shift in shifts):
        return new
    lowest = np.iinfo(np.int64).min // 2
    live = [np.where(np.any(new[:, where] != 0, axis=1), shift, lowest) for where, shift in shifts]
    top = np.max(live, axis=0)
    top = np.where(top == lowest, 0, top)
    for where, shift in shifts:
        new[:, where] = np.ldexp(new[:, where], np.clip(shift - top, -4000, 0).astype(np.int32)[:, None])
    exponent += top
    return new


def _with_inputs(traj: Trajectory) -> FactoredJacobians | DenseJacobians:
    """The Jacobians of a layer, with what they need to reach its inputs."""
    jacobians = local_jacobians(traj)
    if isinstance(jacobians, DenseJacobians):
        return replace(jacobians, inputs=traj.net.input_jacobians(traj))
    return jacobians


@local_jacobians.register
def stack_jacobians(traj: StackTrajectory) -> StackJacobians:
    """Joint Jacobians of a stack; every layer must run forward."""
    require_forward(traj.net, "joint Jacobian")
    traj.require_finite()
    layers = [row[0] for row in traj.layers]
    parts = tuple(map(_with_inputs, layers))
    slopes = [through_output(layer, np.ones_like(layer.h)) for layer in layers]
    before = np.concatenate([np.zeros_like(slopes[-1][:1]), slopes[-1][:-1]]) if traj.net.feedback else None
    return StackJacobians(traj.net, parts, tuple(slopes[:-1]), before, traj.backend, (traj.T, traj.B))
