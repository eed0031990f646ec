"""Gradients of a loss: by backpropagation, truncated, in real time, and taken apart."""
