"""Sums over steps and samples of the products of two rows, for what two matrices are driven by at once."""

import numpy as np
import pytest

from rnngrad.kernels.cpu.products import outer, outers

TOLERANCES = {"float64": 1e-14, "float32": 1e-6}
RUNS = {
    "one run of both": (16, 8, [(0, 64)], [(0, 64)]),
    "as of a GRU": (5, 3, [(0, 15)], [(0, 10), (15, 5)]),
    "blocks that are cut": (100, 40, [(0, 300)], [(0, 200), (300, 100)]),
    "aligned": (64, 16, [(0, 192)], [(0, 128), (192, 64)]),
    "apart": (4, 2, [(8, 4)], [(0, 4)]),
    "inside": (6, 5, [(2, 20)], [(7, 3), (12, 1)]),
    "no columns of the first": (4, 2, [], [(3, 4)]),
    "no columns of the second": (4, 2, [(0, 4)], []),
    "no numbers of the second": (3, 0, [(0, 9)], [(0, 9)]),
    "nothing": (0, 0, [(0, 2)], [(0, 2)]),
}


def sums(da, x, m, runs):
    """The definition, by NumPy in float64, and what its rounding goes by."""
    columns = np.concatenate([np.arange(first, first + count) for first, count in runs] or [[]]).astype(int)
    left, right = da[:, columns].astype(float), x[:, :m].astype(float)
    return left.T @ right, np.abs(left).T @ np.abs(right)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("R", [1, 7, 256, 2100])
@pytest.mark.parametrize("name", RUNS)
def test_two_sums_are_those_of_numpy(name, R, dtype):
    n, m, runs, runs2 = RUNS[name]
    rng = np.random.default_rng(R)
    width = max(first + count for first, count in (*runs, *runs2)) + 1
    da, e, x = (rng.standard_normal((R, size)).astype(dtype) for size in (width, 2 * n, m))
    found = outers(da, (e, n, runs), (x, m, runs2))
    for value, (wanted, most) in zip(found, (sums(da, e, n, runs), sums(da, x, m, runs2)), strict=True):
        assert value.shape == wanted.shape and value.dtype == dtype
        assert (np.abs(value - wanted) <= TOLERANCES[dtype] * most).all()
    if len(runs) == 1:
        np.testing.assert_allclose(outer(da, *runs[0], e, n), found[0], rtol=0, atol=TOLERANCES[dtype] * R)
