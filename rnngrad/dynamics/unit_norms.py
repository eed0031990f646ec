"""Norms of pointwise partials over the units, made where they lie; the few numbers that come of it are on the host."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._arrays import empty_beside, on_host
from ..kernels import backend as find_backend


def unit_norms(
    partials: Any, shape: tuple[int, ...], backend: str = "auto", columns: int | None = None
) -> NDArray[np.float64]:
    """2-norms (…) of pointwise partials taken as matrices ``shape`` = (…, R, C, n): the largest over the n units.

    Each unit has a matrix of its own, R x C numbers of it or the first ``columns`` of every row: together they are a
    matrix of diagonal blocks, whose norm is the largest of theirs. The partials are C-contiguous and may be of another
    shape with the same numbers.
    """
    *places, R, C, n = shape
    X = math.prod(places)
    out = empty_beside(partials, (X,), np.float64)
    if X:
        find_backend(backend).unit_norms(out, partials.reshape(X, R, C, n), C if columns is None else columns)
    return on_host(out).reshape(places)
