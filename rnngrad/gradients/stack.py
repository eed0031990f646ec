"""Gradients of stacks, taken together from those of their layers."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..dynamics.jacobian import through_output
from ..dynamics.stack import StackJacobians, StackTrajectory, require_forward
from ..losses import LossValue
from ..stack import DIRECTIONS, ByName
from .assemble import (
    Gradients,
    OfParameters,
    collect,
    explicit_gradients,
    output_adjoint,
    readout_gradients,
    state_adjoint,
)


@dataclass(frozen=True)
class StackGradients(ByName, OfParameters):
    """Gradient of a loss L of a stack.

    Attributes
    ----------
    loss : float
        L.
    layers : tuple of tuples of Gradients
        ``layers[l][d]`` of direction d of layer l: W, U, b, …, ``s`` = dL/ds^l_t for every t (through all that
        depends on it, the layers above at the same step included) and ``x`` = dL/d(its input). A backward direction's
        arrays are in its own order of time, like its trajectory.
    V, c : ndarray
        Readout.
    x : ndarray (T, B, m)
        dL/dx.
    """

    loss: float
    layers: tuple[tuple[Gradients, ...], ...]
    V: Any = None
    c: Any = None
    x: Any = None

    @property
    def s0(self) -> NDArray:
        """dL/ds_0 of the joint state, (B, 1, N)."""
        rows = [part.s0.reshape(len(part.s0), -1) for row in self.layers for part in row]
        return np.concatenate(rows, axis=-1)[:, None]

    def _rows(self) -> Iterator[tuple[str, Iterable[tuple[str, NDArray]]]]:
        for layer, row in enumerate(self.layers):
            for part, direction in zip(row, DIRECTIONS, strict=False):
                yield f"_l{layer}{direction}", part.parameters()

    def with_parameters(self, changes: Mapping[str, NDArray]) -> StackGradients:
        """A copy in which the gradients of the named parameters are others."""
        rows: list[tuple[Gradients, ...]] = []
        rest: dict[str, Any] = dict(changes)
        for layer, row in enumerate(self.layers):
            parts = []
            for part, direction in zip(row, DIRECTIONS, strict=False):
                ending = f"_l{layer}{direction}"
                own = {name: rest.pop(name + ending) for name, _ in part.parameters() if name + ending in rest}
                parts.append(part.with_parameters(own))
            rows.append(tuple(parts))
        return dataclasses.replace(self, layers=tuple(rows), **rest)


@state_adjoint.register
def _stack_state_adjoint(traj: StackTrajectory, dy: NDArray) -> NDArray:
    require_forward(traj.net, "joint Jacobian")
    top = through_output(traj.layers[-1][0], output_adjoint(traj, dy))
    T, B = traj.T, traj.B
    out = np.zeros((T, B, 1, traj.net.N), traj.net.dtype)
    out[:, :, 0, traj.net.blocks[f"l{len(traj.layers) - 1}"]] = top.reshape(T, B, -1)
    return out


@collect.register
def _collect_stack(traj: StackTrajectory, value: LossValue, G: NDArray, parts: dict[str, Any]) -> StackGradients:
    layers = []
    for layer, (part,) in enumerate(parts["layers"]):
        first = G[:1, :, 0, traj.net.blocks[f"l{layer}"]].reshape(1, *part.s.shape[1:])
        layers.append((dataclasses.replace(part, s=np.concatenate([first, part.s]), s0=first[0]),))
    x, dy = parts["x"], value.dy
    if traj.net.feedback:  # y_{t-1} is charged with what arrives where it was fed in at step t
        dy = dy.copy()
        dy[:-1] += x[1:, :, traj.net.m :]
        x = np.ascontiguousarray(x[..., : traj.net.m])
    return StackGradients(loss=value.value, layers=tuple(layers), x=x, **readout_gradients(traj, dy))


@explicit_gradients.register
def _stack_explicit_gradients(traj: StackTrajectory, jacobians: StackJacobians, G: NDArray) -> dict[str, Any]:
    """Layer by layer from the top; the state before a step is held fixed, the layers below at the step are not."""
    T, B = traj.T, traj.B
    layers: list[tuple[Gradients, ...]] = []
    gx: NDArray | None = None
    for layer in reversed(range(len(traj.layers))):
        (own,) = traj.layers[layer]
        g = G[:, :, 0, traj.net.blocks[f"l{layer}"]].reshape(T, B, *own.net.state_shape)
        if gx is not None:
            g = g + jacobians.outputs[layer] * gx[:, :, None]
        parts = explicit_gradients(own, jacobians.layers[layer], g)
        layers.insert(0, (Gradients(loss=0.0, s=g, **parts),))
        gx = parts["x"]
    return {"layers": tuple(layers), "x": gx}
