"""The activations with their slopes on NumPy arrays, for analyses; kernels have their own in :mod:`rnngrad._math`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

#: phi and phi' at z, any shape, float64.
ValueAndSlope = Callable[[NDArray], tuple[NDArray, NDArray]]


def _tanh(z: NDArray) -> tuple[NDArray, NDArray]:
    h = np.tanh(z)
    return h, 1 - h * h


def _logistic(z: NDArray) -> tuple[NDArray, NDArray]:
    s = 0.5 * (1 + np.tanh(0.5 * z))
    return s, s * (1 - s)


ACTIVATIONS: dict[str, ValueAndSlope] = {
    "tanh": _tanh,
    "logistic": _logistic,
    "relu": lambda z: (np.maximum(z, 0), (z > 0).astype(float)),
    "identity": lambda z: (z, np.ones_like(z)),
    "softplus": lambda z: (np.logaddexp(0, z), _logistic(z)[0]),
}
