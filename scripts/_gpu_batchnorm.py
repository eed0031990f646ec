"""What ``gpu_check.py`` asks of the batch-normalised LSTM, in training and in inference mode."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import rnngrad as rg
from rnngrad import _cuda


def draw(n: int, m: int, T: int, B: int, training: bool) -> tuple[Any, np.ndarray, np.ndarray]:
    """(network, x, s0) in float64."""
    rng = np.random.default_rng(0)
    net = rg.BatchNormLSTM.init(m, n, 3, seed=1, scheme="orthogonal")
    new = {name: rng.uniform(0.2, 1.0, getattr(net, name).shape) for name in ("gamma_h", "gamma_x", "gamma_c")}
    net, x, s0 = net.replace(**new), rng.standard_normal((T, B, m)), rng.standard_normal((B, 2, n))
    return net if training else net.with_statistics(rg.rollout(net, x[::-1], s0), 3), x, s0


def results(net: Any, x: np.ndarray, s0: np.ndarray, backend: str, jacobians: bool) -> dict[str, np.ndarray]:
    """What the kernels make of one network, by name."""
    traj = rg.rollout(net, x, s0, backend=backend)
    grads = rg.bptt(traj, rg.losses.squared_error(np.cos(np.arange(traj.y.size)).reshape(traj.y.shape)))
    found = {"states": traj.states, "y": traj.y, "x": grads.x, "s": grads.s, **vars(traj.statistics)}
    found |= {f"dL/d{name}": value for name, value in grads.parameters()}
    return found | ({"J": rg.full_jacobians(traj)} if jacobians else {})


def one(
    what: str, size: tuple[int, ...], training: bool, dtype: str, compare: Callable[..., Any], limit: float
) -> Iterator[Any]:
    """One network on both, and again."""
    net, x, s0 = draw(*size, training)
    jacobians = size[0] * size[3] <= (12 if _cuda.simulated() else 600)
    truth = results(net, x, s0, "cpu", jacobians)
    args = (net.astype(dtype), x.astype(dtype), s0.astype(dtype), "cuda", jacobians)
    found, again = results(*args), results(*args)
    worst = compare(found, truth)
    name = max(worst, key=worst.__getitem__)
    same = all(np.array_equal(value, found[key]) for key, value in again.items())
    passed = worst[name] <= limit and same
    yield {"case": what, "worst": name, "error": worst[name], "same bits": {"a second run": same}, "passed": passed}
