"""An associative memory trained at its fixed point: by recurrent backpropagation, and by backpropagation through time.

A network relaxes with a corrupted pattern as its held input; where it comes to rest it should show the pattern itself.
Liao, Xiong, Fetaya, Zhang, Yoon, Pitkow, Urtasun & Zemel (2018) train such memories by implicit gradients.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _checks
from .._results import Result
from ..dynamics.rollout import rollout
from ..fixedpoint.adjoint import implicit_gradient
from ..fixedpoint.solve import solve_fixed_point
from ..gradients.bptt import bptt
from ..losses import squared_error
from ..network import Network
from .optimizers import Adam


@dataclass(frozen=True)
class AssociativeMemory(Result):
    """Training curves of one memory by several gradients, and what the gradients have in common.

    Attributes
    ----------
    losses : dict of ndarray (steps,)
        Mean squared error per unit at the fixed point, before each step, by gradient.
    radius : ndarray (steps,)
        Largest rho(J) of the batch, along the training by the implicit gradient.
    depth : ndarray (D,)
        Steps that backpropagation goes through.
    bptt, neumann : ndarray (D,)
        ||g - g*|| / ||g*|| over all parameters at the end of training, g* the implicit gradient by LU: of a network
        unrolled that many steps from zero, and of as many terms of the Neumann series at the fixed point.
    recalled : float
        Share of the bits of new corrupted patterns that have the right sign after training by the implicit gradient.
    corrupted : float
        The same of the input itself.
    """

    losses: dict[str, NDArray[np.float64]]
    radius: NDArray[np.float64]
    depth: NDArray[np.int64]
    bptt: NDArray[np.float64]
    neumann: NDArray[np.float64]
    recalled: float
    corrupted: float


def associative_memory(
    *, units: int = 40, patterns: int = 6, steps: int = 200, noise: float = 0.2, depth: int = 60, seed: int = 0
) -> AssociativeMemory:
    """Train h* = tanh(W h* + U x) to show a pattern when x is the pattern with some of its bits flipped.

    The same network is trained by the implicit gradient, by BPTT over ``depth`` steps from zero, and by two terms of
    the Neumann series, on the same corrupted patterns.

    Parameters
    ----------
    units, patterns : int
        n, and random patterns of n bits +-0.8.
    steps : int
        Of Adam, with all patterns four times in a batch.
    noise : float
        Share of the bits that are flipped, in [0, 0.5).
    depth : int
        Steps of BPTT.

    Raises
    ------
    ValueError
        An argument is out of range.
    ConvergenceError
        The network stopped to contract: the message says where.
    """
    units, patterns = _checks.integer("units", units, 2), _checks.integer("patterns", patterns, 1)
    steps, depth = _checks.integer("steps", steps, 1), _checks.integer("depth", depth, 2)
    noise = _checks.number("noise", noise, 0.0, 0.499)
    rng = np.random.default_rng(seed)
    stored = 0.8 * rng.choice([-1.0, 1.0], (patterns, units))

    def batch() -> tuple[NDArray, NDArray]:
        target = np.repeat(stored, 4, axis=0)
        return np.where(rng.random(target.shape) < noise, -target, target), target

    batches = [batch() for _ in range(steps)]
    start = Network.init("vanilla", units, units, scheme="gaussian", gain=0.3, seed=seed)
    start = start.replace(U=0.5 * np.eye(units)[None])
    curves, radius, trained = {}, np.empty(steps), start
    for name in ("implicit", "bptt", "two terms"):
        net, optimizer, curve = start, Adam(lr=5e-3), np.empty(steps)
        for k, (x, target) in enumerate(batches):
            fp = solve_fixed_point(net, x, method="picard", max_iterations=5000)
            fp.require_converged()
            loss = squared_error(target, reduction="mean")
            curve[k] = np.mean((fp.y - target) ** 2)
            grads: Any
            if name == "implicit":
                radius[k] = fp.spectral_radius.max()
                grads = implicit_gradient(fp, loss, method="lu")
            elif name == "bptt":
                grads = bptt(*_unrolled(net, x, target, depth))
            else:
                grads = implicit_gradient(fp, loss, method="neumann", terms=2)
            net, optimizer = optimizer.step(net, grads)
        curves[name] = curve
        trained = net if name == "implicit" else trained
    x, target = batch()
    depths = np.unique(np.geomspace(1, depth, 25).astype(int))
    fp = solve_fixed_point(trained, x, method="picard", tol=1e-13, max_iterations=5000)
    loss = squared_error(target, reduction="mean")
    exact = implicit_gradient(fp, loss, method="lu")
    unrolled = [_away(bptt(*_unrolled(trained, x, target, int(T))), exact) for T in depths]
    series = [_away(implicit_gradient(fp, loss, method="neumann", terms=int(K)), exact) for K in depths]
    right = float(np.mean(np.sign(fp.y) == np.sign(target)))
    return AssociativeMemory(
        losses=curves, radius=radius, depth=depths, bptt=np.array(unrolled), neumann=np.array(series), recalled=right,
        corrupted=float(np.mean(np.sign(x) == np.sign(target))),
    )  # fmt: skip


def _unrolled(net: Network, x: NDArray, target: NDArray, T: int) -> tuple[Any, Any]:
    """Trajectory of T steps from zero with x held, and the loss at its end."""
    traj = rollout(net, np.repeat(x[None], T, axis=0))
    return traj, squared_error(np.repeat(target[None], T, axis=0), weights="last", reduction="mean")


def _away(grads: Any, exact: Any) -> float:
    """||g - g*|| / ||g*|| over all parameters."""
    mine, other = dict(grads.parameters()), dict(exact.parameters())
    return float(np.sqrt(sum(np.sum((mine[k] - other[k]) ** 2) for k in other)) / exact.norm())
