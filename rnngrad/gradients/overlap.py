"""How far two gradients of one parameter are apart, without squares that over- or underflow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..kernels import backend as find_backend

#: largest entry, and the norm divided by it: their product over- or underflows only if the norm does
ScaledNorm = tuple[float, float]


@dataclass(frozen=True)
class Overlap:
    """Norms of two arrays and of their difference, and their inner product over the largest entry of either."""

    first: ScaledNorm
    gap: ScaledNorm
    inner: float


def overlap(a: Any, b: Any, backend: str = "auto") -> Overlap:
    """Of two arrays of one shape, C-contiguous, made where they lie; these five numbers come to the host."""
    if not a.size:
        return Overlap((0.0, 1.0), (0.0, 1.0), 0.0)
    tops, sums = find_backend(backend).overlap(a.reshape(a.size), b.reshape(b.size))
    top, _, gap = map(float, tops)
    squares, _, apart, inner = map(float, sums)
    return Overlap(_scaled(top, squares), _scaled(gap, apart), inner)


def _scaled(top: float, square: float) -> ScaledNorm:
    return (top, 1.0) if top == 0 or not np.isfinite(top) else (top, float(np.sqrt(square)))
