"""A power of two below one, for both backends: what an entry is worth beside those of rows with other exponents."""

import numpy as np

from .._jit import unit

NONE = -(1 << 62)  # below every exponent
_LOWEST = 1000  # powers below 2^-1000 of the largest are nothing beside it


@unit
def lowered(x, below):
    """x 2^-below of a float64, below >= 0; 0 where that is nothing beside a number of 1."""
    if below > _LOWEST:
        return 0.0
    return x * np.int64((1023 - below) << 52).view(np.float64)
