"""Covariant Lyapunov vectors from the frames and triangular factors of a forward pass: a block for each sample."""

import functools

import numpy as np

from ... import _cuda
from ..triangular import carried_back
from . import pieces

cuda = _cuda.load()


@functools.cache
def make():
    """Kernel ``run(C, mean, vectors, logs, Q, R, shifts, states, steps, share)``; one for all dtypes."""

    @_cuda.Kernel
    def run(C, mean, vectors, logs, Q, R, shifts, states, steps, share):
        M, k, N = shifts.shape[0], Q.shape[2], Q.shape[3]
        b = cuda.blockIdx.x
        for i in range(M, -1, -1):
            if i < states:
                for item in range(cuda.threadIdx.x, k * N, cuda.blockDim.x):
                    c, l = item // N, item % N
                    total = 0.0
                    for j in range(c + 1):
                        total += C[b, j, c] * Q[i, b, j, l]
                    vectors[i, b, c, l] = total
            cuda.syncthreads()
            if i > 0:
                for c in range(cuda.threadIdx.x, k, cuda.blockDim.x):
                    log = carried_back(C[b], c, R[i - 1, b], shifts[i - 1, b])
                    if i <= steps:
                        logs[i - 1, b, c] = log
                        mean[b, c] += share * log
            cuda.syncthreads()

    return run


def covariant_vectors(C, mean, vectors, logs, Q, R, shifts, share):
    """Carry coefficients C[B, k, k] back through R 2^shifts; the CPU's contract."""
    M, B, k = shifts.shape
    operands = [pieces.changed(C, 0), pieces.changed(mean, 0)]
    operands += [pieces.written(array, 1) for array in (vectors, logs)]
    operands += [pieces.read(array, 1) for array in (Q, R, shifts)]
    if M > 1 and pieces.fitting(B, operands) < 1:  # not even one sample: the later half of the steps, then the others
        half = M // 2
        covariant_vectors(C, mean, vectors[half:], logs[half:], Q[half:], R[half:], shifts[half:], share)
        states = min(half, len(vectors))
        covariant_vectors(C, mean, vectors[:states], logs[:half], Q[: half + 1], R[:half], shifts[:half], share)
        return
    states, steps = vectors.shape[0], logs.shape[0]

    def piece(start, stop, *arrays):
        make()(stop - start, _cuda.threads(k * Q.shape[3]), 0, *arrays, states, steps, np.float64(share))

    pieces.run(piece, B, operands, "the covariant vectors of one sample")
