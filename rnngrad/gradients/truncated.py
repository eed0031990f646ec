"""Truncated backpropagation through time."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _checks
from ..dynamics.jacobian import local_jacobians
from ..dynamics.scaled import scaled
from ..losses import Loss
from .assemble import collect, evaluate, explicit_gradients, state_adjoint


def truncated_bptt(
    traj: Any,
    loss: Loss,
    window: int | None = None,
    *,
    k1: int | None = None,
    k2: int | None = None,
) -> Any:
    """Gradient in which a loss reaches back a limited number of steps.

    ``window=p``: every dL_t goes back to steps t, t-1, …, t-p+1 (note 001). ``k1, k2``: every k1 steps the losses of
    the last k1 steps are carried back together over the last k2 steps (Williams & Peng 1990); ``window=p`` is k1 = 1,
    k2 = p. A window of T or more is full backpropagation.

    Parameters
    ----------
    traj : Trajectory or StackTrajectory
    loss : Loss
    window : int
        p >= 1; or give both ``k1`` >= 1 and ``k2`` >= k1.

    Returns
    -------
    Gradients, or StackGradients
        ``s[t]`` is the truncated adjoint used at step t, summed over the segments; ``s0`` is what reaches s_0.

    Raises
    ------
    ValueError
        Neither form is given, or both; or a size is out of range.
    """
    if (window is None) == (k1 is None and k2 is None) or (k1 is None) != (k2 is None):
        raise ValueError(f"give either window or both k1 and k2; got window={window}, k1={k1}, k2={k2}")
    if window is not None:
        k1, k2 = 1, _checks.integer("window", window, 1)
    assert k1 is not None and k2 is not None
    k1 = _checks.integer("k1", k1, 1)
    k2 = _checks.integer("k2", k2, k1)
    value = evaluate(traj, loss)
    jacobians = local_jacobians(traj)
    G = windowed_adjoints(jacobians, state_adjoint(traj, value.dy), k1, k2)
    return collect(traj, value, G, explicit_gradients(traj, jacobians, G[1:]))


def windowed_adjoints(jacobians: Any, direct: NDArray, k1: int, k2: int) -> NDArray:
    """Sum over segments of the adjoint each one carries to step k, (T+1, B, S, n).

    All segments step back together: after d steps the segment that ends at t stands at t - d. Rows of different times
    meet the flattened Jacobians, so one product with W serves them all.
    """
    T, B, S, n = direct.shape
    flat = jacobians.flattened()
    ends = np.unique(np.append(np.arange(k1, T, k1), T))  # the last segment may be shorter
    starts = np.concatenate([[0], ends[:-1]])  # a segment carries the losses of steps starts+1 … ends
    G = np.zeros((T + 1, B, S, n), direct.dtype)
    y = np.zeros((len(ends), B, S, n), direct.dtype)
    for d in range(min(k2, T)):
        at = ends - d  # step where each segment stands now
        G[0] += y[at == 0].sum(axis=0)
        alive = at >= 1
        at, y = at[alive], y[alive]
        ends, starts = ends[alive], starts[alive]
        injected = at > starts
        y[injected] += direct[at[injected] - 1]
        np.add.at(G, at, y)
        sample = ((at - 1)[:, None] * B + np.arange(B)).ravel()
        rows = y.reshape(-1, S, n)
        y = _one_step(flat, rows, sample).reshape(y.shape)
    G[0] += y[ends - min(k2, T) == 0].sum(axis=0)
    return G


def _one_step(flat: Any, rows: NDArray, sample: NDArray) -> NDArray:
    out, exponents = flat.adjoint(*scaled(rows), sample, 1, 1)
    return np.ldexp(out[0], exponents[0].astype(np.int32)[:, None, None])
