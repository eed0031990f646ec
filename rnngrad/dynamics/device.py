"""Trajectories that stay on the GPU: device arrays in, device arrays out, nothing copied to the host on the way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _checks, _cuda
from ..device_input import device_array
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
    :func:`rnngrad.truncation_bias`, :func:`rnngrad.saturation`, :func:`rnngrad.time_constants` and
    :func:`rnngrad.verdict`. Its states serve :func:`rnngrad.find_fixed_points` as starts where they lie. To follow
    where it settles (:func:`rnngrad.analysis.settling.settling`) its starts come to the host. For all else there is
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


def require_device_network(name: str, net: Any, backend: str) -> None:
    """Raise if what lies on the GPU cannot be worked on there: another backend was asked for, or net is no Network."""
    if backend == "cpu":
        raise ValueError(f"{name} lives on a GPU, and backend is 'cpu'; copy it to the host, or use backend='cuda'")
    _checks.choice("backend", backend, ("auto", "cuda"))
    find_backend("cuda")  # which says what is missing
    if not isinstance(net, Network):
        raise ValueError(f"{name} lives on a GPU, and net is a {type(net).__name__}; on a GPU it must be a Network")


def device_inputs(net: Any, x: Any, backend: str) -> Any:
    """Inputs (T, B, m) that lie on the GPU, checked there."""
    require_device_network("x", net, backend)
    return device_array("x", x, ("T", "B", net.m), net.dtype)
