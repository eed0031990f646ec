"""The task of the comparisons: answer with the input of some steps ago; every cell trained on it alike."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

import rnngrad as rg
from rnngrad.losses import Loss, from_step, squared_error
from rnngrad.training.optimizers import Adam, cosine

NAMES = {"vanilla": "vanilla", "gru": "GRU", "lstm": "LSTM"}


def task(delay: int, T: int, B: int, rng: np.random.Generator) -> tuple[NDArray, NDArray]:
    """x (T, B, 1) ~ N(0, 1) and z_t = x_{t - delay}; the first ``delay`` targets cannot be known and are 0."""
    x = rng.standard_normal((T, B, 1))
    z = np.zeros_like(x)
    z[delay:] = x[:-delay]
    return x, z


def fresh(cell: str, units: int, seed: int) -> rg.Network:
    """One input, one output; orthogonal recurrent weights, an LSTM's forget bias 1."""
    return rg.Network.init(cell, 1, units, 1, seed=seed)


def trained(net: rg.Network, delay: int, steps: int, seed: int) -> rg.Network:
    """The network after ``steps`` minibatches of 16 subsequences of three delays each, loss after the first delay."""
    x, z = task(delay, 40 * delay, 16, np.random.default_rng(seed))
    loss = partial(squared_error, weights=from_step(delay + 1, 3 * delay), reduction="mean")
    made = rg.fit(
        net, x, z, steps=steps, length=3 * delay, batch=16, loss=loss, optimizer=Adam(lr=0.01), clip=1.0,
        schedule=cosine, seed=seed,
    )  # fmt: skip
    return made.net


def examined(net: rg.Network, delay: int, T: int, B: int, seed: int) -> tuple[rg.Trajectory, Loss, float]:
    """A trajectory on new input, its loss 1/2 (y - z)^2 after the first delay, and the error as a share of <z^2>."""
    x, z = task(delay, T, B, np.random.default_rng(seed + 1))
    traj = rg.rollout(net, x)
    error = float(np.mean((traj.y - z)[delay:] ** 2) / np.mean(z[delay:] ** 2))
    return traj, squared_error(z, from_step(delay + 1, T)), error
