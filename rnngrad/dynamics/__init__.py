"""Trajectories, their Jacobians, and products of those: what gradients and analyses are made of."""

from . import batchnorm, encoder_decoder, stack  # noqa: F401  (they register themselves with rollout and the chains)
