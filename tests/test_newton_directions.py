"""(I - J)^-1 r by the elimination of the kernels, against LAPACK."""

from __future__ import annotations

import numpy as np
import pytest

from rnngrad.kernels import cpu

SIZES = [1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 64, 65, 130]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("N", SIZES)
def test_dense_directions(N, dtype):
    """Pivots are needed: I - J has zeros on its diagonal, and rows of very different size."""
    rng = np.random.default_rng(N)
    A = rng.standard_normal((3, N, N)) * 10.0 ** rng.uniform(-1, 1, (3, N, 1))
    if N > 1:
        A[:, np.arange(N), np.arange(N)] = 0
    J = (np.eye(N) - A).astype(dtype)
    wide = np.eye(N) - J.astype(np.float64)
    r = rng.standard_normal((3, N)).astype(dtype)
    d, regular = r.copy(), np.zeros(3, np.bool_)
    before = J.copy()
    cpu.dense_newton_directions(d, regular, np.ascontiguousarray(J[None]))
    assert regular.all()
    np.testing.assert_array_equal(J, before)
    truth = np.linalg.solve(wide, r.astype(np.float64)[..., None])[..., 0]
    eps = np.finfo(dtype).eps
    for b in range(3):  # 1 - J is rounded where J is stored in float32: that is part of the condition number
        allowed = 4 * N * eps * np.linalg.cond(wide[b]) * np.abs(truth[b]).max()
        assert np.abs(d[b] - truth[b]).max() <= allowed
        backward = np.abs(wide[b] @ d[b] - r[b]).max()  # of elimination with pivots, whatever the condition
        assert backward <= 50 * N * eps * np.abs(wide[b]).max() * np.abs(d[b]).max()


@pytest.mark.parametrize("N", [2, 9, 40])
def test_singular_and_not_finite_are_said(N):
    rng = np.random.default_rng(N)
    J = rng.standard_normal((1, 5, N, N))
    J[0, 1] = np.eye(N) - np.outer(rng.integers(1, 9, N), rng.integers(1, 9, N)) / 4  # I - J has rank 1, exactly
    J[0, 2, N - 1, 0] = np.nan
    J[0, 3, 0, N - 1] = np.inf
    J[0, 4] = np.eye(N) - rng.standard_normal((N, N // 2)) @ rng.standard_normal((N // 2, N))  # half the rank, rounded
    d, regular = rng.standard_normal((5, N)), np.ones(5, np.bool_)
    cpu.dense_newton_directions(d, regular, J)
    np.testing.assert_array_equal(regular[:4], [True, False, False, False])
    assert N == 2 or not regular[4]  # of two rows the second may keep a last bit


def test_large_entries():
    A = 1e120 * np.random.default_rng(0).standard_normal((9, 9))
    J = np.eye(9) - A
    d, regular = np.ones((1, 9)), np.zeros(1, np.bool_)
    cpu.dense_newton_directions(d, regular, J[None, None])
    assert regular[0]
    np.testing.assert_allclose(d[0], np.linalg.solve(np.eye(9) - J, np.ones(9)), rtol=1e-11)
