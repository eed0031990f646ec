"""Two vectors and their difference: largest entries, and sums of squares and products of entries divided by these."""

import numpy as np

from ..._jit import kernel
from ..magnitudes import larger, overlap_terms

_LANES = 64  # parts of a sum


@kernel("overlap_tops", tasks=lambda parts, *rest: len(parts), work=lambda parts, a, b: 3 * a.size)
def _tops(start, stop, parts, a, b):
    # parts[L, 3]  a[P]  b[P]
    P, L = a.size, len(parts)
    for lane in range(start, stop):
        first, second, gap = 0.0, 0.0, 0.0
        for i in range(P * lane // L, P * (lane + 1) // L):
            x, y = np.float64(a[i]), np.float64(b[i])
            first, second, gap = larger(first, abs(x)), larger(second, abs(y)), larger(gap, abs(x - y))
        parts[lane, 0], parts[lane, 1], parts[lane, 2] = first, second, gap


@kernel("overlap_sums", tasks=lambda parts, *rest: len(parts), work=lambda parts, a, *rest: 4 * a.size)
def _sums(start, stop, parts, a, b, tops):
    # parts[L, 4]  a[P]  b[P]  tops[3]
    P, L = a.size, len(parts)
    for lane in range(start, stop):
        first, second, gap, both = 0.0, 0.0, 0.0, 0.0
        for i in range(P * lane // L, P * (lane + 1) // L):
            terms = overlap_terms(np.float64(a[i]), np.float64(b[i]), tops[0], tops[1], tops[2])
            first += terms[0]
            second += terms[1]
            gap += terms[2]
            both += terms[3]
        parts[lane, 0], parts[lane, 1], parts[lane, 2], parts[lane, 3] = first, second, gap, both


def overlap(a, b):
    """(max |a|, max |b|, max |a - b|) of a[P], b[P], and the sums of (a/top)^2, (b/top)^2, ((a - b)/top)^2, a b/tops.

    Float64, on the host; every kind over its own largest entry.
    """
    tops = np.empty((_LANES, 3))
    _tops(tops, a, b)
    tops, sums = tops.max(axis=0), np.empty((_LANES, 4))
    with np.errstate(invalid="ignore"):
        _sums(sums, a, b, tops)
    return tops, sums.sum(axis=0)
