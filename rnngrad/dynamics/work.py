"""How much work jobs are, for the choice of a backend."""

from __future__ import annotations

from typing import Any

from ..kernels.choice import Work
from ..network import Network
from ..stack import Stack

_PASSES = 3  # products of one pass forward, of adjoints and of parameter gradients are as many each


def gradient_work(net: Any, T: int, B: int) -> Work | None:
    """A rollout with its gradients; None for systems that not every kernel of CUDA takes.

    Those are user-written systems and registered cells, which may hold what does not compile for a GPU, outputs that
    are fed back, a step at a time, and normalised batches, whose chain has no kernel.
    """
    layers = [layer for row in net.layers for layer in row] if isinstance(net, Stack) else [net]
    if getattr(net, "feedback", False) or not all(isinstance(of, Network) and of.cell.built_in for of in layers):
        return None
    products = sum(value.size for of in layers for name, value in of.parameters.items() if name[0] in "WU")
    numbers = sum(of.m + _numbers(of) for of in layers)
    itemsize = net.dtype.itemsize
    return Work(T * len(layers), _PASSES * T * B * products, T * B * numbers * itemsize, net.dtype.name)


def chain_work(net: Network, T: int, B: int) -> Work:
    """The product of all Jacobians along a trajectory."""
    S, P, P2 = net.S, len(net.cell.gates), len(net.cell.gates2)
    factors = S * (S + P + P2) + S + (S + P if net.cell.two_stage else 0)
    products = net.N * (net.W.size + (net.W2.size if net.cell.two_stage else 0))
    return Work(T, T * B * products, T * B * (factors * net.n + net.N**2) * net.dtype.itemsize, net.dtype.name)


def _numbers(net: Network) -> int:
    """Numbers of a trajectory at one step of one sample, inputs not counted."""
    cell = net.cell
    parts = net.S + len(cell.gates) + len(cell.gates2) + (not cell.emits_state) + cell.two_stage
    return net.n * parts
