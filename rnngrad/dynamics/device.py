"""Trajectories that stay on the GPU: device arrays in, device arrays out, nothing copied to the host on the way."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _checks, _cuda
from ..device_input import device_array
from ..errors import DivergenceWarning
from ..kernels import backend as find_backend
from ..network import Network
from .steps import Steps


@dataclass(frozen=True)
class DeviceTrajectory(Steps):
    """States of a network along inputs that lie on the GPU.

    These take it and give device arrays: :func:`rnngrad.jacobians`, :func:`rnngrad.jacobian_chain` (products, norms and
    singular values), :func:`rnngrad.bptt`, :func:`rnngrad.truncated_bptt`, :func:`rnngrad.rtrl`,
    :func:`rnngrad.gradient_flow`, :func:`rnngrad.hessian_vector_product`,
    :func:`rnngrad.gauss_newton_vector_product`, :class:`rnngrad.Curvature` and :func:`rnngrad.covariant_vectors`. The
    solvers of :func:`rnngrad.hessian_operator` and :func:`rnngrad.hessian_spectrum` work on vectors of the host, whose
    products are made on the GPU. Statistics are NumPy arrays, whose few numbers alone come to the host: Lyapunov
    exponents, :func:`rnngrad.singular_values`, :func:`rnngrad.jacobian_spectrum`, :func:`rnngrad.product_spectrum`,
    :func:`rnngrad.growth_bounds`, :func:`rnngrad.gradient_reach` and the map and the horizon made of it,
    :func:`rnngrad.truncation_bias`, :func:`rnngrad.saturation` and :func:`rnngrad.time_constants`. To follow where it
    settles (:func:`rnngrad.analysis.settling.settling`) its starts come to the host. For everything else there is
    :meth:`to_host`.

    Attributes
    ----------
    net : Network
    x : device array (T, B, m)
    states, h, y, a, a2 : device arrays
        As of :class:`rnngrad.Trajectory`; with ``__cuda_array_interface__``, so CuPy and PyTorch read them in place.
    lengths, diverged : ndarray (B,)
    """

    net: Network
    x: Any
    states: Any
    h: Any
    y: Any
    lengths: NDArray
    diverged: NDArray
    a: Any
    a2: Any
    emitted: Any
    inner: Any
    backend: str = "cuda"

    def to_host(self) -> Any:
        """An ordinary trajectory: everything is copied."""
        from .rollout import Trajectory

        cell, (T, B, n) = self.net.cell, self.h.shape
        shapes = {
            "x": self.x.shape,
            "states": self.states.shape,
            "h": self.h.shape,
            "y": self.y.shape,
            "a": self.a.shape,
            "a2": (T, B, len(cell.gates2), n),
            "emitted": (0 if cell.emits_state else T, B, n),
            "inner": (T if cell.two_stage else 0, B, n),
        }
        arrays = {name: np.empty(shape, self.net.dtype) for name, shape in shapes.items()}
        for name, array in arrays.items():
            _cuda.download(getattr(self, name), array)
        return Trajectory(self.net, lengths=self.lengths, diverged=self.diverged, backend=self.backend, **arrays)


def is_on_device(traj: Any) -> bool:
    """Whether a trajectory's arrays lie on the GPU."""
    return isinstance(traj, DeviceTrajectory)


def device_inputs(net: Any, x: Any, backend: str) -> Any:
    """Inputs (T, B, m) that lie on the GPU, checked there."""
    if backend == "cpu":
        raise ValueError("x lives on a GPU, and backend is 'cpu'; copy x to the host, or use backend='cuda'")
    find_backend("cuda")  # which says what is missing
    if not isinstance(net, Network):
        raise ValueError(f"x lives on a GPU, and net is a {type(net).__name__}; on a GPU it must be a Network")
    return device_array("x", x, ("T", "B", net.m), net.dtype)


def device_rollout(net: Any, x: Any, s0: Any, lengths: Any, backend: str) -> DeviceTrajectory:
    """The rollout of :func:`rnngrad.rollout` for inputs that lie on the GPU."""
    from .rollout import initial_state, input_runs, tile_rows

    x, kernels = device_inputs(net, x, backend), find_backend("cuda")
    T, B, _ = x.shape
    n, dtype, cell = net.n, net.dtype, net.cell
    lengths = _checks.lengths(lengths, T, B)
    if lengths.min() < T:
        x = kernels.contiguous(x, lengths)  # with zeros for padding, as on the host
    states = _cuda.empty((T + 1, B, net.S, n), dtype)
    states[0].copy_to_device(initial_state(net, s0, B, beside=x))
    a, a2 = (_cuda.empty((T, B, len(gates), n), dtype) for gates in (cell.gates, cell.gates2))
    emitted, inner = (_cuda.empty((T if has else 0, B, n), dtype) for has in (not cell.emits_state, cell.two_stage))
    flat = x.reshape(T * B, net.m)
    kernels.affine(a.reshape(T * B, len(cell.gates), n), flat, net.U, net.full_bias, input_runs(cell.inputs))
    if cell.two_stage:
        P2 = len(cell.gates2)
        kernels.affine(a2.reshape(T * B, P2, n), flat, net.U2, net.b2, input_runs(range(P2)))
    kernels.rollout(cell, net.phi)(
        states, a, a2, emitted, inner, net.W, net.second_weights, lengths, net.unit_constants, tile_rows(n)
    )
    if cell.outputs_state:
        h = kernels.contiguous(states[1:, :, 0])
    else:
        h = _cuda.empty((T, B, n), dtype)
        kernels.output(cell, net.phi)(h, states[1:], net.unit_constants)
    y = h
    if net.V is not None:
        y = _cuda.empty((T, B, net.p), dtype)
        rows = h.reshape(T * B, n)
        kernels.affine(y.reshape(T * B, 1, net.p), rows, net.V[None], net.c[None], input_runs((0,)))
    diverged = kernels.first_not_finite(states.reshape(T + 1, B, net.S * n))
    if (diverged >= 0).any():
        b = int(np.argmax(diverged >= 0))
        warnings.warn(
            f"the rollout left the finite numbers at step {int(diverged[b])} (sample {b}; "
            f"{int((diverged >= 0).sum())} of {B} samples)",
            DivergenceWarning,
            stacklevel=3,
        )
    _cuda.synchronize()
    return DeviceTrajectory(net, x, states, h, y, lengths, diverged, a, a2, emitted, inner)
