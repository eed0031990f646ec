"""Gradients of a loss: by backpropagation, truncated, in real time, and taken apart."""

from . import batchnorm, encoder_decoder, stack  # noqa: F401  (they register themselves with what gradients share)
