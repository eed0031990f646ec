"""Chains of J = D W: the product that makes the next step's rows too, against NumPy and against single steps."""

import numpy as np
import pytest
from cases import assert_close

import rnngrad as rg
from rnngrad import _gemm
from rnngrad._jit import kernel
from rnngrad.dynamics.jacobian import local_jacobians
from rnngrad.kernels.cpu import scaling

DTYPES = ["float64", "float32"]


@kernel("onward product of a test", tasks=lambda *arrays: 1, cached=False)
def onward(start, stop, out, a, panels, d, places, scaled, within):
    least, beyond = scaling.limits(out)
    _gemm.onward_product(a.shape[0], a.shape[1], a, panels, out, d, places, scaled, within, least, beyond)


def product(a, B, d, places):
    """C = A B, C d[places], and whether all rows are within range."""
    out, scaled, within = np.empty_like(a), np.empty_like(a), np.ones(1, np.int64)
    onward(out, a, _gemm.pack(B[None]), d, places, scaled, within)
    return out, scaled, bool(within[0])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [1, 3, 8, 16, 17, 31, 32, 33, 64, 70])
def test_product_and_what_comes_of_it(dtype, n):
    rng, eps = np.random.default_rng(n), np.finfo(dtype).eps
    B, d = rng.standard_normal((n, n)).astype(dtype), rng.standard_normal((5, n)).astype(dtype)
    for rows in (1, 4, 7, 8, 13, 64):
        a, places = rng.standard_normal((rows, n)).astype(dtype), rng.integers(0, 5, rows)
        C, scaled, _ = product(a, B, d, places)
        exact = a.astype(float) @ B.astype(float)
        assert np.abs(C - exact).max() <= 2 * n * eps * (np.abs(a) @ np.abs(B)).max()
        assert np.array_equal(scaled, C * d[places])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [3, 16, 40])
def test_a_row_out_of_range_is_seen(dtype, n):
    """Rows are those of A, since B = I; ``rescale`` leaves those within range, and takes a power out else."""
    w = 60 if dtype == "float32" else 500
    width = _gemm.panel_columns(n, np.dtype(dtype).itemsize)
    ones, places = np.ones((1, n), dtype), np.zeros(9, np.int64)
    for largest, within in (
        (1.0, True),
        (2.0 ** (-w - 1), True),  # [1/2, 1) 2^-w
        (2.0 ** (-w - 2), False),
        (2.0 ** (w - 1), True),
        (2.0**w, False),
        (0.0, False),  # zeros and what is no number are looked at again, and left
        (np.inf, False),
        (np.nan, False),
    ):
        a = np.ones((9, n), dtype)
        a[6] = 0
        a[6, ::width] = largest  # one in every panel
        a[6, n - 1] = -largest
        with np.errstate(invalid="ignore"):
            assert product(a, np.eye(n, dtype=dtype), ones, places)[2] == within, largest
        counts = np.zeros(1, np.int64)
        rescaled(a[6:7], n, counts)
        assert (counts[0] == 0) == (within or not np.isfinite(largest) or largest == 0), largest


@kernel("rescale of a test", tasks=lambda *arrays: 1, cached=False)
def rescaled(start, stop, values, count, exponents):
    scaling.rescale(values, count, exponents)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize(("n", "gain"), [(5, 1.0), (16, 0.3), (16, 3.0), (33, 0.05)])
def test_a_chain_is_its_steps_one_after_the_other(n, gain, activation, dtype):
    """The same bits: rows of any sample, with exponents of their own, that shrink, grow, vanish and leave the range."""
    rng = np.random.default_rng(n)
    W = (gain / np.sqrt(n) * rng.standard_normal((1, n, n))).astype(dtype)
    net = rg.Network.init("vanilla", n_inputs=2, n_hidden=n, activation=activation, seed=0, dtype=dtype).replace(W=W)
    T, B, R = 90, 4, 150
    traj = rg.rollout(net, 0.1 * rng.standard_normal((T, B, 2)).astype(dtype), lengths=None)
    local, sample = local_jacobians(traj), rng.integers(0, B, R)
    y, exponent = rng.standard_normal((R, 1, n)).astype(dtype), rng.integers(-9, 9, R)
    y[7] = 0
    rows, exponents = local.adjoint(y, exponent, sample, T - 1, T - 2)
    for d in range(T - 2):
        step, counts = local.adjoint(y, exponent, sample, T - 1 - d, 1)
        y, exponent = step[0], counts[0]
        assert np.array_equal(rows[T - 3 - d], y) and np.array_equal(exponents[T - 3 - d], exponent)
    assert gain == 1.0 or activation == "relu" or (exponents != 0).any()


@pytest.mark.parametrize("cell", ["vanilla", "linear", "vanilla_s"])
def test_samples_in_one_row_have_the_partials_that_each_has(cell):
    rng = np.random.default_rng(0)
    net = rg.Network.init(cell, n_inputs=2, n_hidden=3, seed=0)
    x = rng.standard_normal((7, 250, 2))
    whole = local_jacobians(rg.rollout(net, x))
    lengths = np.full(250, 7)
    lengths[3] = 4  # then each is taken by itself
    apart = local_jacobians(rg.rollout(net, x, lengths=lengths))
    for one, other in zip(whole.arrays, apart.arrays, strict=True):
        assert one.shape == other.shape
        if one.size:
            assert_close(np.delete(one, 3, axis=1), np.delete(other, 3, axis=1), 1e-15)


def test_fold_leaves_blocks_without_exponents_and_sees_an_overflow_in_any():
    rng = np.random.default_rng(0)
    rows, exponent = rng.standard_normal((200, 5)), np.zeros(200, np.int64)
    exponent[[70, 190]] = 3, -2
    expected = np.ldexp(rows, exponent[:, None].astype(np.int32))
    assert not scaling.fold(rows, exponent) and np.array_equal(rows, expected)
    exponent[:] = 0
    exponent[199] = 2000
    assert scaling.fold(rows, exponent)
