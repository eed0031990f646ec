"""Optimizers as values: ``step`` returns the next network and the next optimizer, and changes nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .. import _checks
from ..gradients.assemble import Gradients, scaled_norm
from ..network import Network


class Optimizer(Protocol):
    """What the trainer needs: a learning rate, and a step."""

    @property
    def lr(self) -> float: ...

    def step(self, net: Network, grads: Gradients) -> tuple[Network, Optimizer]: ...


@dataclass(frozen=True)
class SGD:
    """Gradient descent with momentum: v <- momentum v + g, w <- w - lr v (Polyak 1964; PyTorch's form).

    Parameters
    ----------
    lr : float
        Learning rate, > 0.
    momentum : float
        In [0, 1]; 0 is plain gradient descent.
    velocity : mapping
        v of each parameter; empty at the start.

    Examples
    --------
    >>> net, optimizer = optimizer.step(net, rg.bptt(traj, loss))
    """

    lr: float = 1e-2
    momentum: float = 0.0
    velocity: Mapping[str, NDArray] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        _checks.number("lr", self.lr, 0.0, open_low=True)
        _checks.number("momentum", self.momentum, 0.0, 1.0)

    def step(self, net: Network, grads: Gradients) -> tuple[Network, SGD]:
        """The network after one step, and the optimizer for the next."""
        velocity, changes = {}, {}
        for name, g in grads.parameters():
            velocity[name] = self.momentum * self.velocity[name] + g if name in self.velocity else g
            changes[name] = getattr(net, name) - self.lr * velocity[name]
        return net.replace(**changes), dataclasses.replace(self, velocity=velocity)


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma & Ba 2015, algorithm 1): w <- w - lr m^/(sqrt(v^) + eps) with bias-corrected moments m^, v^.

    Parameters
    ----------
    lr : float
        Learning rate, > 0.
    beta1, beta2 : float
        Decay of the first and second moment, in [0, 1).
    eps : float
        > 0; outside the root, as in the paper and in PyTorch.
    t : int
        Steps done.
    m, v : mapping
        Moments of each parameter before correction; empty at the start.
    """

    lr: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    t: int = 0
    m: Mapping[str, NDArray] = field(default_factory=dict, repr=False, compare=False)
    v: Mapping[str, NDArray] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        _checks.number("lr", self.lr, 0.0, open_low=True)
        _checks.number("eps", self.eps, 0.0, open_low=True)
        for name in ("beta1", "beta2"):
            if _checks.number(name, getattr(self, name), 0.0, 1.0) == 1.0:
                raise ValueError(f"{name} is 1; it must be in [0, 1)")

    def step(self, net: Network, grads: Gradients) -> tuple[Network, Adam]:
        """The network after one step, and the optimizer for the next."""
        t = self.t + 1
        rate, root = self.lr / (1 - self.beta1**t), 1 / (1 - self.beta2**t) ** 0.5
        m, v, changes = {}, {}, {}
        for name, g in grads.parameters():
            m[name] = self.beta1 * self.m.get(name, 0) + (1 - self.beta1) * g
            v[name] = self.beta2 * self.v.get(name, 0) + (1 - self.beta2) * (g * g)
            changes[name] = getattr(net, name) - rate * m[name] / (root * np.sqrt(v[name]) + self.eps)
        return net.replace(**changes), dataclasses.replace(self, t=t, m=m, v=v)


def clip_norm(grads: Any, c: float) -> Any:
    """g <- c g/||g|| where ||g|| >= c, over all parameters together (Pascanu, Mikolov & Bengio 2013, algorithm 1).

    Parameters
    ----------
    grads : Gradients, StackGradients, BatchNormGradients or EncoderDecoderGradients
    c : float
        Threshold, > 0, in units of the gradient.

    Returns
    -------
    The same kind
        Parameters scaled; ``loss``, ``x``, ``s0`` and ``s`` as they were, since only parameters take a step.

    Raises
    ------
    ValueError
        c is out of range, or a gradient is not finite: scaling it would hide that it means nothing.
    """
    c = _checks.number("c", c, 0.0, open_low=True)
    parameters = dict(grads.parameters())
    top, relative = scaled_norm(parameters.values())
    if not np.isfinite(top):
        for name, g in parameters.items():
            _checks.finite(f"the gradient of {name}", g)
    # top * relative may overflow where every entry is finite, so the two never meet
    if top == 0 or relative < c / top:
        return grads
    scaled = {name: (g / g.dtype.type(top)) * g.dtype.type(c / relative) for name, g in parameters.items()}
    return grads.with_parameters(scaled)


def cosine(progress: float) -> float:
    """Factor on the learning rate that falls from 1 to 0 as progress goes from 0 to 1 (Loshchilov & Hutter 2017)."""
    return 0.5 * (1 + float(np.cos(np.pi * progress)))
