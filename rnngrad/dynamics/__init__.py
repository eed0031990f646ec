"""Trajectories, their Jacobians, and products of those: what gradients and analyses are made of."""

from . import stack  # noqa: F401  (registers stacks with rollout and local_jacobians)
