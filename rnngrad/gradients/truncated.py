"""Truncated backpropagation through time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _checks
from ..dynamics.jacobian import local_jacobians
from ..dynamics.placed import add_rows, filled, finished
from ..dynamics.scaled import unscaled
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
    traj : Trajectory, DeviceTrajectory or StackTrajectory
    loss : Loss
    window : int
        p >= 1; or give both ``k1`` >= 1 and ``k2`` >= k1.

    Returns
    -------
    Gradients, DeviceGradients or StackGradients
        ``s[t]`` is the truncated adjoint used at step t, summed over the segments; ``s0`` is what reaches s_0. Of a
        DeviceTrajectory device arrays, and the loss as the one number that is copied to the host.

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
    return next(truncated_gradients(traj, loss, [k2], k1=k1))[1]


def truncated_gradients(traj: Any, loss: Loss, windows: Sequence[int], *, k1: int = 1) -> Iterator[tuple[int, Any]]:
    """(k2, gradients of :func:`truncated_bptt` with k1 and k2) for ascending windows k2, all from one walk back.

    g_w is the sum of all pieces (t, k) with t - k < w, so each window starts from the one before. Costs one product
    with the Jacobians for every segment and step walked, T/k1 times the largest window in all, and per window the
    explicit gradients of one backward pass. The arrays are used again for the next window: copy what is to stay.
    """
    value = evaluate(traj, loss)
    jacobians = local_jacobians(traj)
    for window, G in windowed_adjoints(jacobians, state_adjoint(traj, value.dy), k1, windows):
        found = collect(traj, value, G, explicit_gradients(traj, jacobians, G[1:]))
        finished(G)
        yield window, found


def full_adjoints(jacobians: Any, direct: NDArray) -> NDArray:
    """Adjoints of every step (T+1, B, S, n), nothing cut: one segment over the whole sequence."""
    T = len(direct)
    return next(windowed_adjoints(jacobians, direct, T, [T]))[1]


def windowed_adjoints(
    jacobians: Any, direct: NDArray, k1: int, windows: Sequence[int]
) -> Iterator[tuple[int, NDArray]]:
    """(k2, sum over segments of the adjoint each one carries to step k, (T+1, B, S, n)) for ascending k2.

    All segments step back together: after d steps the segment that ends at t stands at t - d, and what was summed up
    to then is the answer for k2 = d. Rows of different times meet the flattened Jacobians, so one product with W
    serves them all. The array is the same one every time.
    """
    T, B, S, n = direct.shape
    flat = jacobians.flattened()
    ends = np.unique(np.append(np.arange(k1, T, k1), T))  # the last segment may be shorter
    starts = np.concatenate([[0], ends[:-1]])  # a segment carries the losses of steps starts+1 … ends
    G = filled(direct, (T + 1, B, S, n), direct.dtype)
    y = filled(direct, (len(ends), B, S, n), direct.dtype)
    done = 0
    for window in windows:
        for d in range(done, min(window, T)):
            at = ends - d  # step where each segment stands now
            injected = np.flatnonzero(at > starts)
            add_rows(y, injected, direct, at[injected] - 1)
            add_rows(G, at, y)
            sample = ((at - 1)[:, None] * B + np.arange(B)).ravel()
            y = _one_step(flat, y.reshape(len(at) * B, S, n), sample).reshape(len(at), B, S, n)
            if at[0] == 1:
                add_rows(G, np.zeros(1, np.int64), y[:1])
                if len(ends) > 1:  # else this was the last step of all
                    ends, starts, y = ends[1:], starts[1:], y[1:]
        done = max(done, min(window, T))
        yield window, G


def _one_step(flat: Any, rows: NDArray, sample: NDArray) -> NDArray:
    out, exponents = flat.adjoint(rows, np.zeros(len(sample), np.int64), sample, 1, 1)
    return unscaled(out[0], exponents[0])
