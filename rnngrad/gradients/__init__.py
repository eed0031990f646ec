"""Gradients of a loss: by backpropagation, truncated, in real time, and taken apart."""

from . import stack  # noqa: F401  (registers stacks with what the gradients share)
