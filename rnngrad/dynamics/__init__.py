"""Trajectories, their Jacobians, and products of those: what gradients and analyses are made of."""
