"""Batch normalisation written once: plain expressions that kernels inline and NumPy applies to whole arrays.

BN(z) = gamma z^ + beta with z^ = (z - mean)/std, mean and std = sqrt(var + eps) over the batch (Ioffe & Szegedy 2015);
the batch-normalised LSTM of Cooijmans et al. (2017) has it in three places.
"""

from __future__ import annotations

from typing import Any

from ._jit import unit
from ._math import logistic, phi_slope


@unit
def normalized(z, mean, std):
    """z^ = (z - mean)/std."""
    return (z - mean) / std


@unit
def pre_activation(h_hat, x_hat, gamma_h, gamma_x, b):
    """a = BN(W h) + BN(U x) + b."""
    return gamma_h * h_hat + gamma_x * x_hat + b


@unit
def affine(gamma, beta, mean, std):
    """(scale, shift) with BN(c) = scale c + shift."""
    scale = gamma / std
    return scale, beta - scale * mean


@unit
def through(g, hat, mean_g, mean_g_hat, std):
    """dL/dz for g = dL/dz^, the means of g and g z^ over the batch; both 0 where the statistics are given."""
    return (g - mean_g - hat * mean_g_hat) / std


@unit
def output_slope(phi, gate, z):
    """dh/dz of h = logistic(gate) phi(z)."""
    return logistic(gate) * phi_slope(phi, z)[1]


def for_arrays(function: Any) -> Any:
    """A unit of plain arithmetic as NumPy can call it."""
    return getattr(function, "py_func", function)
