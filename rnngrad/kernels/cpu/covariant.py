"""Covariant Lyapunov vectors from the frames and triangular factors of a forward pass, by a pass back."""

import numpy as np

from ..._jit import MULTIPLY_ADDS, kernel
from ..triangular import carried_back


@kernel(
    "covariant_vectors",
    tasks=lambda C, *rest: len(C),
    work=lambda C, mean, vectors, logs, Q, *rest: len(Q) * C[0].size * (C[0].shape[0] + Q.shape[3]) / MULTIPLY_ADDS,
)
def covariant_vectors(start, stop, C, mean, vectors, logs, Q, R, shifts, share):
    """Carry C[B, k, k], upper triangular and float64, from state M back to state 0: coefficients of unit vectors.

    J_{i+1} Q_i = Q_{i+1} R_i 2^shifts_i for Q[M+1, B, k, N], R[M, B, k, k] and shifts[M, B, k], an exponent for each
    column of R. On the first states vectors[V, B, k, N] are C Q, and on the first steps logs[L, B, k] is
    ln ||J_{i+1} v_i||, of which the share of each is added to mean[B, k].
    """
    M, k, N = len(R), Q.shape[2], Q.shape[3]
    row = np.empty(N, np.float64)
    for b in range(start, stop):
        for i in range(M, -1, -1):
            if i < len(vectors):
                for c in range(k):
                    row[:] = 0
                    for j in range(c + 1):
                        weight = C[b, j, c]
                        for l in range(N):
                            row[l] += weight * Q[i, b, j, l]
                    for l in range(N):
                        vectors[i, b, c, l] = row[l]
            if i > 0:
                for c in range(k):
                    log = carried_back(C[b], c, R[i - 1, b], shifts[i - 1, b])
                    if i <= len(logs):
                        logs[i - 1, b, c] = log
                        mean[b, c] += share * log
