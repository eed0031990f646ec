"""Real-time recurrent learning: the same gradient carried forward in time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._arrays import assign, empty_beside, placed_beside
from ..dynamics.device import DeviceTrajectory
from ..dynamics.jacobian import factored_jacobians, jacobians
from ..dynamics.placed import fill, filled, finished, in_dtype
from ..dynamics.rollout import Trajectory
from ..dynamics.system import System
from ..kernels import backend as find_backend
from ..losses import Loss, LossValue
from .assemble import Gradients, emitted, evaluate, kind_of, readout_gradients, state_adjoint

_COLUMNS = 4096  # tangents carried at once; more parameters are done in pieces


def rtrl(traj: Any, loss: Loss) -> Gradients:
    """Gradient of a loss by the forward recurrence ds_t/dw = d+s_t/dw + J_t ds_{t-1}/dw.

    The same numbers as :func:`bptt` at O(n) times the cost, without storing a backward pass (Williams & Zipser 1989).
    For checking and for small networks; with thousands of parameters use :func:`bptt`.

    Parameters
    ----------
    traj : Trajectory or DeviceTrajectory
    loss : Loss

    Returns
    -------
    Gradients or DeviceGradients
        All parameters and s_0; ``x`` and ``s`` are None (they need the backward pass). Of a DeviceTrajectory device
        arrays, and the loss as the one number that is copied to the host.
    """
    if not isinstance(traj, (Trajectory, DeviceTrajectory)):
        raise ValueError(f"traj is {type(traj).__name__}; rtrl takes one-layer networks and systems (use bptt)")
    value = evaluate(traj, loss)
    if isinstance(traj.net, System):
        return _system_rtrl(traj, value)
    net, B = traj.net, traj.B
    direct, factors = state_adjoint(traj, value.dy), factored_jacobians(traj)
    gradients: dict[str, Any] = {}
    for name, shape, source, gates in _layout(traj):
        # source[T, B, j] is what a weight (gate, i, j) multiplies; a bias has one column of ones
        g, i, j = (index.ravel() for index in np.indices((*shape, 1)[:3]))
        if not g.size:  # there is nothing to lie on a GPU
            gradients[name] = np.zeros(shape, net.dtype)
            continue
        total = filled(direct, (g.size,), np.float64)
        for first in range(0, g.size, _COLUMNS):
            part = slice(first, min(first + _COLUMNS, g.size))
            start = filled(direct, (B * (part.stop - first), net.S, net.n), net.dtype)
            drive = source, (j[part], np.asarray(gates)[g[part]], i[part]), name.endswith("2")
            _carry(traj, factors, direct, start, total[part], drive)
        gradients[name] = in_dtype(total, net.dtype).reshape(shape)

    eye = placed_beside(direct, np.eye(net.N, dtype=net.dtype).reshape(net.N, net.S, net.n))
    s0 = filled(direct, (B, net.N), np.float64)
    for b in range(B):  # ds_t/ds_0 of one sample at a time: the others' tangents stay zero
        start = filled(direct, (B * net.N, net.S, net.n), net.dtype)
        assign(start[b * net.N : (b + 1) * net.N], eye)
        _carry(traj, factors, direct, start, s0[b])
    gradients["s0"] = in_dtype(s0, net.dtype).reshape(B, net.S, net.n)
    found = kind_of(traj)(loss=value.value, **gradients, **readout_gradients(traj, value.dy))
    finished(s0)
    return found


_Drive = tuple[Any, tuple[NDArray, NDArray, NDArray], bool]  # source[T, B, …]; column of it, gate and unit; the stage


def _carry(traj: Any, factors: Any, direct: Any, v: Any, total: Any, drive: _Drive | None = None) -> None:
    """Add dL/dw to total[K] for so many parameters w with ds_0/dw = v (B K, S, n).

    ``drive``: parameter k adds source[t, b, column[k]] to the pre-activation of its gate and unit.
    """
    net, T, B, N = traj.net, traj.T, traj.B, traj.net.N
    kernels, n, (K,) = find_backend(traj.backend), net.n, total.shape
    sample, none = (placed_beside(v, index) for index in (np.repeat(np.arange(B), K), np.zeros(B * K, np.int64)))
    changes = [empty_beside(v, (1, B * K, len(gates), n), net.dtype) for gates in (net.cell.gates, net.cell.gates2)]
    for t in range(T):
        for second, dz in enumerate(changes):
            if drive is not None and drive[2] == bool(second):
                kernels.weight_drive(dz.reshape(B, K, -1, n), drive[0][t], *drive[1])
            else:
                fill(dz, 0)
        v = factors.tangent(v, none, sample, t, 1, *changes)[0][0]
        kernels.charge_columns(total, direct[t].reshape(B, N), v.reshape(B, K, N))


def _system_rtrl(traj: Trajectory, value: LossValue) -> Gradients:
    """ds_t/dparams and ds_t/ds_0 of a user's system, carried forward as they stand."""
    J, F = jacobians(traj), traj.net.parameter_jacobians(traj)
    by_params = np.zeros((traj.B, traj.net.n, traj.net.params.size))
    by_start = np.broadcast_to(np.eye(traj.net.n), (traj.B, traj.net.n, traj.net.n))
    params, s0 = np.zeros(traj.net.params.size), np.zeros((traj.B, traj.net.n))
    for t in range(traj.T):
        by_params = J[t] @ by_params + F[t]
        by_start = J[t] @ by_start
        params += np.einsum("bi,biq->q", value.dy[t], by_params)
        s0 += np.einsum("bi,bij->bj", value.dy[t], by_start)
    return Gradients(loss=value.value, params=params, s0=s0[:, None])


def _layout(traj: Any) -> Iterator[tuple[str, tuple[int, ...], Any, tuple[int, ...]]]:
    """(parameter, shape, what it multiplies (T, B, …), pre-activation row of each of its gates)."""
    net, cell = traj.net, traj.net.cell
    one = placed_beside(traj.x, np.ones((traj.T, traj.B, 1), net.dtype))
    yield "W", net.W.shape, emitted(traj).reshape(traj.T, traj.B, -1), tuple(range(cell.recurrent))
    yield "U", net.U.shape, traj.x, cell.inputs
    yield "b", net.b.shape, one, cell.biases
    if cell.two_stage:
        every = tuple(range(len(cell.gates2)))
        yield "W2", net.W2.shape, traj.inner, every
        yield "U2", net.U2.shape, traj.x, every
        yield "b2", net.b2.shape, one, every
