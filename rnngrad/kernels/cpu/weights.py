"""What tangents along single weights need beside the chain: where a weight enters, and what a loss makes of them."""

import numpy as np

from ..._jit import kernel


@kernel("weight_drive", tasks=lambda dz, *rest: dz.shape[0] * dz.shape[1], work=lambda dz, *rest: dz.size / 4)
def weight_drive(start, stop, dz, source, column, gate, unit):
    """dz[B, K, P, n] = source[B, column[k]] at (gate[k], unit[k]), 0 elsewhere: what weight k adds per unit of it."""
    _, K, P, n = dz.shape
    for task in range(start, stop):
        b, k = task // K, task % K
        for p in range(P):
            for i in range(n):
                dz[b, k, p, i] = 0
        dz[b, k, gate[k], unit[k]] = source[b, column[k]]


@kernel("charge_columns", tasks=lambda total, *rest: len(total), work=lambda total, direct, v: v.size)
def charge_columns(start, stop, total, direct, v):
    """total[k] += sum_b <direct[b], v[b, k]> of direct[B, N], v[B, K, N], in float64."""
    B, _, N = v.shape
    for k in range(start, stop):
        more = 0.0
        for b in range(B):
            for s in range(N):
                more += np.float64(direct[b, s]) * np.float64(v[b, k, s])
        total[k] += more
