"""Trajectories, their Jacobians, and products of those: what gradients and analyses are made of."""

from . import batchnorm, device_chain, encoder_decoder, stack  # noqa: F401  (registered with rollout and the chains)
