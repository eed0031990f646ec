"""Networks whose gradients and chains are known in closed form."""

import numpy as np

import rnngrad as rg
from rnngrad.losses import squared_error


def linear(W, T=12, p=0, B=1):
    """Trajectory of h = W h + x."""
    n = len(W)
    V = {"V": np.eye(p, n), "c": np.zeros(p)} if p else {}
    net = rg.Network.from_parameters("linear", {"W": W[None], "U": np.eye(n)[None], "b": np.zeros((1, n)), **V})
    return rg.rollout(net, np.random.default_rng(1).standard_normal((T, B, n)))


def orthogonal(n, seed=0):
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((n, n)))[0]


def probe(traj):
    """The loss 1/2 ||y||^2 of every step."""
    return squared_error(np.zeros_like(traj.y))


def zero(cell, n=3, T=8, forget=0.0):
    """Trajectory of a cell with all weights zero."""
    net = rg.Network.init(cell, 1, n, seed=0)
    values = {name: np.zeros_like(value) for name, value in net.parameters.items()}
    if cell == "lstm":
        values["b"][net.cell.gates.index("f")] = forget
    return rg.rollout(net.replace(**values), np.zeros((T, 1, 1)))
