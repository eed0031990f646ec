"""A small plain trainer: minibatches of subsequences, backpropagation through time, one optimizer."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _checks, losses
from .._results import Result
from ..dynamics.rollout import rollout
from ..gradients.bptt import bptt
from ..losses import Loss
from ..network import Network
from .optimizers import Adam, Optimizer, clip_norm

#: Called after every step with (step, total, loss); steps count from 1.
Progress = Callable[[int, int, float], Any]


@dataclass(frozen=True)
class Fit(Result):
    """A trained network and how it got there.

    Attributes
    ----------
    net : Network
    optimizer : Optimizer
        With its moments after the last step and its learning rate before any schedule; hand it back to
        :func:`fit` to go on.
    loss_history : ndarray (steps,)
        Loss of each minibatch before its step.
    norm_history : ndarray (steps,)
        ||g|| over all parameters, before clipping.
    """

    net: Network = field(metadata={"saved": False})
    optimizer: Optimizer = field(metadata={"saved": False})
    loss_history: NDArray[np.float64]
    norm_history: NDArray[np.float64]


def fit(
    net: Network,
    x: Any,
    target: Any,
    *,
    steps: int,
    length: int | None = None,
    batch: int = 16,
    loss: Callable[[NDArray], Loss] = losses.squared_error,
    optimizer: Optimizer | None = None,
    clip: float | None = None,
    schedule: Callable[[float], float] | None = None,
    seed: int | np.random.Generator = 0,
    progress: Progress | None = None,
) -> Fit:
    """Train a network on random subsequences, each from the zero state.

    The same arguments give the same numbers, bit for bit, on any number of threads.

    Parameters
    ----------
    net : Network
    x : array (T, B, m), or (T, m) for one sequence
    target : array (T, B, p), or (T, p); labels (T, B) or (T,) for cross-entropy
    steps : int
        Minibatches.
    length : int
        Steps of a subsequence, at most T (default T): no dependency longer than this can be learnt.
    batch : int
        Subsequences per minibatch; sequence and start are drawn anew each time, with replacement.
    loss : callable
        Makes the loss from a minibatch's target, such as ``functools.partial(losses.squared_error, weights="last")``.
    optimizer : Optimizer
        Default ``Adam()``.
    clip : float
        Norm at which the gradient is clipped, see :func:`clip_norm`; None does not clip.
    schedule : callable
        Factor on the learning rate as a function of progress in [0, 1), such as :func:`cosine`.
    progress : callable
        Called as ``progress(step, steps, loss)``.

    Returns
    -------
    Fit

    Raises
    ------
    ValueError
        Arguments do not fit one another, or training diverged; the message names the step.
    """
    steps = _checks.integer("steps", steps, 1)
    batch = _checks.integer("batch", batch, 1)
    single = np.ndim(x) == 2
    x = _checks.sequence("x", x, net.m, net.dtype)
    T, B, _ = x.shape
    target = np.asarray(target)
    if single:
        target = target[:, None]
    if target.shape[:2] != (T, B):
        raise ValueError(f"target has shape {target.shape} beside x {x.shape}; both must have the same T and B")
    length = T if length is None else _checks.integer("length", length, 1, T)
    rng = np.random.default_rng(seed)
    optimizer = optimizer or Adam()
    lr = optimizer.lr
    loss_history, norm_history = np.empty(steps), np.empty(steps)
    for k in range(steps):
        t = rng.integers(0, T - length + 1, batch) + np.arange(length)[:, None]  # (length, batch)
        b = rng.integers(0, B, batch)
        if schedule is not None:
            optimizer = dataclasses.replace(optimizer, lr=lr * schedule(k / steps))  # type: ignore[type-var]
        try:
            grads = bptt(rollout(net, x[t, b]), loss(target[t, b]))
            loss_history[k], norm_history[k] = grads.loss, grads.norm()
            net, optimizer = optimizer.step(net, grads if clip is None else clip_norm(grads, clip))
        except ValueError as error:
            raise ValueError(f"training step {k + 1} of {steps}: {error}") from error
        if progress is not None:
            progress(k + 1, steps, grads.loss)
    if schedule is not None:
        optimizer = dataclasses.replace(optimizer, lr=lr)  # type: ignore[type-var]
    return Fit(net, optimizer, loss_history, norm_history)
