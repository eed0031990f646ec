"""From adjoints of the pre-activations to gradients of parameters and inputs: the one place where this is done."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _cuda
from .._arrays import contiguous, empty_beside, rows
from ..dynamics.device import is_on_device
from ..dynamics.jacobian import through_output
from ..dynamics.rollout import Trajectory, input_runs
from ..dynamics.system import System
from ..kernels import backend as find_backend
from ..losses import Loss, LossValue


class OfParameters:
    """What gradients of every kind of network have: parameters by name, their norm, and a copy with others."""

    def parameters(self) -> Iterator[tuple[str, NDArray]]:
        """(name, gradient) of each parameter there is."""
        raise NotImplementedError

    def norm(self) -> float:
        """Euclidean norm over all parameters."""
        top, relative = scaled_norm(g for _, g in self.parameters())
        return top * relative

    def with_parameters(self, changes: Mapping[str, NDArray]) -> Any:
        """A copy in which the gradients of the named parameters are others."""
        return dataclasses.replace(self, **changes)  # type: ignore[type-var]


def scaled_norm(arrays: Iterable[NDArray]) -> tuple[float, float]:
    """(largest entry, norm of everything divided by it): their product over- or underflows only if the norm does."""
    arrays = list(arrays)
    top = float(np.max([np.abs(g).max() for g in arrays if g.size], initial=0.0))  # a NaN stays one, unlike in max()
    if top == 0 or not np.isfinite(top):
        return top, 1.0
    return top, float(np.sqrt(sum(float(np.sum(np.square(g / top, dtype=np.float64))) for g in arrays)))


@dataclass(frozen=True)
class Gradients(OfParameters):
    """Gradient of a loss L; every array has the shape of what it belongs to, None where there is no such thing.

    Attributes
    ----------
    loss : float
        L.
    W, U, b, W2, U2, b2, V, c : ndarray
        dL/dparameter.
    x : ndarray (T, B, m)
        dL/dx.
    s0 : ndarray (B, S, n)
        dL/ds_0.
    s : ndarray (T+1, B, S, n)
        dL/ds_t, total: through every later step.
    params : ndarray
        dL/dparams of a user's :class:`System`.
    """

    loss: float
    W: Any = None
    U: Any = None
    b: Any = None
    W2: Any = None
    U2: Any = None
    b2: Any = None
    V: Any = None
    c: Any = None
    x: Any = None
    s0: Any = None
    s: Any = None
    params: Any = None

    def parameters(self) -> Iterator[tuple[str, NDArray]]:
        """(name, gradient) of each parameter there is."""
        for item in fields(Gradients):  # a kind of gradients with more to say adds no parameters
            value = getattr(self, item.name)
            if item.name not in ("loss", "x", "s0", "s") and value is not None:
                yield item.name, value


@dataclass(frozen=True)
class DeviceGradients(Gradients):
    """Gradients along a :class:`rnngrad.DeviceTrajectory`: device arrays, all but ``loss`` and what has no elements.

    They have ``__cuda_array_interface__``, so CuPy and PyTorch read them in place.
    """

    def norm(self) -> float:
        """Euclidean norm over all parameters, whose gradients are copied to the host for it."""
        return self.to_host().norm()

    def to_host(self) -> Gradients:
        """The same as NumPy arrays: everything is copied."""
        copies = {}
        for item in fields(Gradients):
            value = getattr(self, item.name)
            if item.name != "loss" and value is not None:
                copies[item.name] = np.empty(value.shape, value.dtype)
                if value.size:
                    _cuda.download(value, copies[item.name])
        return Gradients(loss=self.loss, **copies)


def kind_of(traj: Any) -> type[Gradients]:
    """The gradients of a network's trajectory, by where it lies."""
    return DeviceGradients if is_on_device(traj) else Gradients


def evaluate(traj: Any, loss: Loss) -> LossValue:
    """The loss at the trajectory's outputs, where they lie."""
    if not isinstance(loss, Loss):
        raise ValueError(
            f"loss is {type(loss).__name__}; it must be made by rnngrad.losses, such as squared_error(target)"
        )
    traj.require_finite()
    return loss(traj.y, traj.lengths, getattr(traj, "backend", "auto"))


def output_adjoint(traj: Any, dy: NDArray, V: NDArray | None = None) -> NDArray:
    """V^T dy (T, R, n) of rows dy (T, R, p), by the network's own V if none is given: dL/dh by the same step alone."""
    net = traj.net
    V = net.V if V is None else V
    if V is None:
        return contiguous(dy)
    T, R, _ = dy.shape
    gh = empty_beside(dy, (T * R, net.n), net.dtype)
    find_backend(traj.backend).input_adjoint(
        gh, contiguous(dy).reshape(T * R, 1, net.p), V.reshape(1, net.p, net.n), input_runs((0,))
    )
    return gh.reshape(T, R, net.n)


@functools.singledispatch
def state_adjoint(traj: Any, dy: NDArray) -> NDArray:
    """dL/ds_t (T, B, S, n) through the readout of the same step only: d+L/ds_1 … d+L/ds_T."""
    return through_output(traj, output_adjoint(traj, dy))


def readout_gradients(traj: Any, dy: NDArray, h: NDArray | None = None) -> dict[str, NDArray]:
    """dL/dV, dL/dc from dy (T, B, p) at outputs h (T, B, n), those of the trajectory if none are given."""
    net = traj.net
    if net.V is None:
        return {}
    kernels = find_backend(traj.backend)
    dy = dy.reshape(-1, net.p)
    return {
        "V": kernels.outer(dy, 0, net.p, contiguous(traj.h if h is None else h).reshape(len(dy), net.n), net.n),
        "c": kernels.column_sums(dy),
    }


def emitted(traj: Trajectory) -> NDArray:
    """What the first product acted on, e = emit(s_{t-1}); its first n columns when rows are longer."""
    count = traj.T * traj.B
    if traj.net.cell.emits_state:
        return traj.states[: traj.T].reshape(count, traj.net.N)
    return traj.emitted.reshape(count, traj.net.n)


@functools.singledispatch
def collect(traj: Any, value: LossValue, G: NDArray, parts: dict[str, Any]) -> Any:
    """Gradients from the adjoints G (T+1, B, S, n) of s_0 … s_T and what ``explicit_gradients`` made of them."""
    return kind_of(traj)(loss=value.value, s=G, s0=G[0], **parts, **readout_gradients(traj, value.dy))


@functools.singledispatch
def explicit_gradients(traj: Any, jacobians: Any, G: NDArray) -> dict[str, Any]:
    """Gradients of recurrent parameters and x from adjoints G (T, B, S, n) of s_1 … s_T, earlier states held fixed."""
    net = traj.net
    if isinstance(net, System):
        g = G[:, :, 0]
        return {
            "params": np.einsum("tbi,tbiq->q", g, net.parameter_jacobians(traj)),
            "x": np.einsum("tbi,tbim->tbm", g, net.input_jacobians(traj)),
        }
    return recurrent_gradients(traj, *jacobians.explicit(G))


def recurrent_gradients(traj: Trajectory, da: NDArray, da2: NDArray) -> dict[str, NDArray]:
    """Gradients of W, U, b, W2, U2, b2 and x from the adjoints of the pre-activations (T, B, P, n)."""
    weights = weight_gradients(traj, da, da2, emitted(traj), traj.x, traj.inner)
    return weights | bias_gradients(traj, da, da2) | {"x": to_inputs(traj, da, da2, traj.net.parameters)}


def weight_gradients(
    traj: Trajectory, da: NDArray, da2: NDArray, e: NDArray, x: NDArray, q: NDArray
) -> dict[str, NDArray]:
    """sum over t, b of da times what W, U and W2, U2 act on: e (T, B, n; rows may be longer), x and q."""
    net = traj.net
    cell, n, m = net.cell, net.n, net.m
    kernels = find_backend(traj.backend)
    count = traj.T * traj.B

    def stage(suffix: str, da: NDArray, e: NDArray, recurrent: int, inputs: Any) -> dict[str, NDArray]:
        driven = [(p * n, length * n) for _, p, length in input_runs(inputs)]
        da, x_rows = da.reshape(count, -1, n), x.reshape(count, m)
        dW, dU = kernels.outers(da, (e.reshape(count, -1), n, [(0, recurrent * n)]), (x_rows, m, driven))
        return {"W" + suffix: dW.reshape(recurrent, n, n), "U" + suffix: dU.reshape(len(inputs), n, m)}

    out = stage("", da, e, cell.recurrent, cell.inputs)
    if cell.two_stage:
        out |= stage("2", da2, q, len(cell.gates2), range(len(cell.gates2)))
    return out


def bias_gradients(traj: Trajectory, da: NDArray, da2: NDArray) -> dict[str, NDArray]:
    """sum over t, b of da, for b and b2."""
    kernels, cell, shape = find_backend(traj.backend), traj.net.cell, (traj.T * traj.B, -1, traj.net.n)
    out = {"b": rows(kernels.column_sums(da.reshape(shape)), cell.biases)}
    if cell.two_stage:
        out["b2"] = kernels.column_sums(da2.reshape(shape))
    return out


def to_inputs(traj: Trajectory, da: NDArray, da2: NDArray, weights: Mapping[str, NDArray]) -> NDArray:
    """U^T da + U2^T da2 as (T, R, m) of rows da (T, R, P, n), da2, for U, U2 among ``weights``."""
    net, kernels = traj.net, find_backend(traj.backend)
    count = da.shape[0] * da.shape[1]
    dx = empty_beside(da, (count, net.m), net.dtype)
    if net.m > 0:
        kernels.input_adjoint(dx, da.reshape(count, -1, net.n), weights["U"], input_runs(net.cell.inputs))
        if net.cell.two_stage:
            every = input_runs(range(len(net.cell.gates2)))
            kernels.input_adjoint(dx, da2.reshape(count, -1, net.n), weights["U2"], every, more=True)
    return dx.reshape(*da.shape[:2], net.m)
