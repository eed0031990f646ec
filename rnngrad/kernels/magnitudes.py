"""The larger of two magnitudes, for both backends."""

from .._jit import unit


@unit
def larger(top, size):
    """The larger of the two; a NaN once met stays."""
    return size if size > top or size != size else top
