"""Magnitudes and what is summed of numbers divided by the largest of them, for both backends."""

from .._jit import unit


@unit
def larger(top, size):
    """The larger of the two; a NaN once met stays."""
    return size if size > top or size != size else top


@unit
def overlap_terms(x, y, top_x, top_y, top_gap):
    """Squares of x, y and x - y, and the product x y, of numbers over the largest of each kind; 0 where that is 0."""
    u = x / top_x if top_x != 0.0 else 0.0
    v = y / top_y if top_y != 0.0 else 0.0
    gap = (x - y) / top_gap if top_gap != 0.0 else 0.0
    return u * u, v * v, gap * gap, u * v
