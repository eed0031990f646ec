"""Keep a row of numbers inside the exponent range: a power of two is taken out and counted."""

import numpy as np

from ..._jit import inner


@inner
def rescale(row):
    """Divide a contiguous row by 2^k so that its largest magnitude lies in [1/2, 1) if it had left 2^(+-w); return k.

    w is a quarter of the exponent range, so one more product with a matrix of ordinary size cannot overflow, and
    dividing by a power of two is exact but for entries 2^-w below the largest.
    """
    window = 30 if row.itemsize == 4 else 250
    largest = row.dtype.type(0)
    for i in range(row.size):
        value = abs(row[i])
        if not value <= largest:  # a NaN is kept, and leaves the row as it is
            largest = value
    if largest == 0 or not np.isfinite(largest):
        return 0
    exponent = int(np.floor(np.log2(np.float64(largest)))) + 1
    if abs(exponent) <= window:
        return 0
    # two factors, since 2^-exponent itself may be out of range
    half = exponent // 2
    first, second = row.dtype.type(2.0 ** (-half)), row.dtype.type(2.0 ** (half - exponent))
    for i in range(row.size):
        row[i] = row[i] * first * second
    return exponent
