"""Real-time recurrent learning: the same gradient carried forward in time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ..dynamics.jacobian import factored_jacobians, jacobians
from ..dynamics.rollout import Trajectory
from ..dynamics.system import System
from ..losses import Loss, LossValue
from .assemble import Gradients, emitted, evaluate, readout_gradients, state_adjoint

_COLUMNS = 4096  # tangents carried at once; more parameters are done in pieces


def rtrl(traj: Trajectory, loss: Loss) -> Gradients:
    """Gradient of a loss by the forward recurrence ds_t/dw = d+s_t/dw + J_t ds_{t-1}/dw.

    The same numbers as :func:`bptt` at O(n) times the cost, without storing a backward pass (Williams & Zipser 1989).
    For checking and for small networks; with thousands of parameters use :func:`bptt`.

    Parameters
    ----------
    traj : Trajectory
    loss : Loss

    Returns
    -------
    Gradients
        All parameters and s_0; ``x`` and ``s`` are None (they need the backward pass).
    """
    if not isinstance(traj, Trajectory):
        raise ValueError(f"traj is {type(traj).__name__}; rtrl takes one-layer networks and systems (use bptt)")
    value = evaluate(traj, loss)
    if isinstance(traj.net, System):
        return _system_rtrl(traj, value)
    net, T, B, n = traj.net, traj.T, traj.B, traj.net.n
    direct = state_adjoint(traj, value.dy).reshape(T, B, -1)
    factors = factored_jacobians(traj)
    e = emitted(traj).reshape(T, B, -1)[..., :n]
    P, P2 = len(net.cell.gates), len(net.cell.gates2)
    gradients: dict[str, NDArray] = {}

    def carry(v: NDArray, drive: NDArray, gates: NDArray, units: NDArray, second: bool) -> NDArray:
        """dL/dw of parameters w that add drive[t, b, w] to pre-activation gates[w] of unit units[w]."""
        count = v.shape[1]
        total = np.zeros(count)
        sample = np.repeat(np.arange(B), count)
        v = v.reshape(B * count, net.S, n)
        w = np.arange(count)
        for t in range(T):
            dz = np.zeros((1, B, count, P, n), net.dtype)
            dz2 = np.zeros((1, B, count, P2, n), net.dtype)
            if gates.size:
                (dz2 if second else dz)[0, :, w, gates, units] = drive[t].T
            out, _ = factors.tangent(
                v, np.zeros(len(v), np.int64), sample, t, 1, dz.reshape(1, len(v), P, n), dz2.reshape(1, len(v), P2, n)
            )
            v = out[0]
            total += np.einsum("bs,bws->w", direct[t], v.reshape(B, count, -1))
        return total.astype(net.dtype)

    for name, shape, source, rows in _layout(traj, e):
        # source[T, B, j] is what a weight (gate, i, j) multiplies; a bias has one column of ones
        g, i, j = (index.ravel() for index in np.indices((shape[0], n, source.shape[2])))
        total = np.empty(g.size, net.dtype)
        for first in range(0, g.size, _COLUMNS):
            part = slice(first, first + _COLUMNS)
            start = np.zeros((B, g[part].size, net.S, n), net.dtype)
            total[part] = carry(start, source[:, :, j[part]], np.asarray(rows)[g[part]], i[part], name.endswith("2"))
        gradients[name] = total.reshape(shape)

    eye = np.eye(net.N, dtype=net.dtype).reshape(net.N, net.S, n)
    none = np.zeros(0, np.int64)
    s0 = np.empty((B, net.S, n), net.dtype)
    for b in range(B):  # ds_t/ds_0 of one sample at a time: the others' tangents stay zero
        start = np.zeros((B, net.N, net.S, n), net.dtype)
        start[b] = eye
        s0[b] = carry(start, np.zeros((T, B, 0), net.dtype), none, none, False).reshape(net.S, n)
    return Gradients(loss=value.value, s0=s0, **gradients, **readout_gradients(traj, value.dy))


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


def _layout(traj: Trajectory, e: NDArray) -> Iterator[tuple[str, tuple[int, ...], NDArray, tuple[int, ...]]]:
    """(parameter, shape, what it multiplies, pre-activation row of each of its gates)."""
    net, cell = traj.net, traj.net.cell
    one = np.ones((traj.T, traj.B, 1), net.dtype)
    yield "W", net.W.shape, e, tuple(range(cell.recurrent))
    yield "U", net.U.shape, traj.x, cell.inputs
    yield "b", net.b.shape, one, cell.biases
    if cell.two_stage:
        every = tuple(range(len(cell.gates2)))
        yield "W2", net.W2.shape, traj.inner, every
        yield "U2", net.U2.shape, traj.x, every
        yield "b2", net.b2.shape, one, every
