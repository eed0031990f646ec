"""The largest eigenvalue of the tridiagonal matrices that Lanczos steps make, for both backends."""

from .._jit import unit

EPS = 2.220446049250313e-16
SETTLED = 4 * EPS  # relative growth of the Ritz value that is none


@unit
def last_ratio(x, a, b, j):
    """(r, dr/dx), r = det(T_j - x)/det(T_{j-1} - x) of the tridiagonal matrix with diagonal a and off-diagonal b."""
    r, slope = a[0] - x, -1.0
    for i in range(1, j):
        if abs(r) < 1e-100:  # x is an eigenvalue of T_i: a neighbour of it does as well, and its square is a float
            r = -1e-100
        ratio = b[i - 1] / r
        slope = -1.0 + ratio * ratio * slope
        r = a[i] - x - b[i - 1] * ratio
    return r, slope


@unit
def largest_eigenvalue(a, b, j, low):
    """Largest eigenvalue of T_j, known to be at least ``low``, that of T_{j-1}.

    Newton's iteration on r, which is convex and falls between ``low`` and theta; kept inside a bracket.
    """
    high = low + abs(b[j - 2]) + abs(a[j - 1] - low) if j > 1 else a[0]
    x = high
    for _ in range(80):
        r, slope = last_ratio(x, a, b, j)
        if r > 0:
            low = x
        else:
            high = x
        new = x - r / slope
        if not low <= new <= high:
            new = (low + high) / 2
        if abs(new - x) <= 2 * EPS * abs(new):
            break
        x = new
    return x
