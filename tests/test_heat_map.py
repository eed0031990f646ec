"""Log-norms of all pairs of steps, by a kernel that keeps no product, against singular values of the products."""

import tracemalloc

import numpy as np
import pytest
from cases import CELLS

import rnngrad as rg


def expected(traj, ord, rows=slice(None), columns=slice(None)):
    """log||Phi(t, k)|| (B, T+1, T+1) from dense Jacobians, in plain NumPy; products within the range of floats."""
    J = rg.jacobians(traj).astype(np.float64)
    T, B, N, _ = J.shape
    out = np.full((B, T + 1, T + 1), np.nan)
    with np.errstate(divide="ignore"):
        for t in range(T + 1):
            product = np.broadcast_to(np.eye(N), (B, N, N))
            for k in range(t, -1, -1):
                out[:, t, k] = np.log(np.linalg.norm(product[:, rows, columns], ord, axis=(1, 2)))
                product = product @ J[k - 1] if k else product
    return out


def linear(W, T):
    net = rg.Network.from_parameters("linear", {"W": np.asarray(W, float)[None], "b": np.zeros((1, len(W)))})
    return rg.rollout(net, steps=T)


@pytest.mark.parametrize("ord", [2, "fro"])
@pytest.mark.parametrize("cell", CELLS)
def test_every_cell(case, cell, ord):
    drawn = case(cell, n=7, T=12, B=3, lengths=np.array([12, 5, 1]), scale=0.8)
    actual = rg.jacobian_chain(drawn.traj).log_norms(ord)
    np.testing.assert_allclose(actual, expected(drawn.traj, ord), atol=1e-11)


@pytest.mark.parametrize("ord", [2, "fro"])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-11), ("float32", 1e-4)])
def test_larger_networks_and_blocks(ord, dtype, tolerance):
    net = rg.Network.init("lstm", n_inputs=2, n_hidden=21, seed=1, dtype=dtype)
    traj = rg.rollout(net, np.random.default_rng(0).standard_normal((25, 2, 2)).astype(dtype))
    chain = rg.jacobian_chain(traj)
    np.testing.assert_allclose(chain.log_norms(ord), expected(traj, ord), atol=tolerance)
    h, c = slice(0, 21), slice(21, 42)
    for block, (rows, columns) in {("h", "c"): (h, c), ("c", "h"): (c, h), ("c", "c"): (c, c)}.items():
        actual = chain.log_norms(ord, block=block)
        np.testing.assert_allclose(actual, expected(traj, ord, rows, columns), atol=tolerance, err_msg=str(block))


def test_the_norm_of_one_pair_is_that_of_the_map(case):
    drawn = case("gru", n=9, T=20, lengths=None)
    chain = rg.jacobian_chain(drawn.traj)
    table = chain.log_norms()
    for t, k in ((20, 0), (13, 7), (5, 5)):
        np.testing.assert_allclose(table[:, t, k], chain.log_norm(t, k), atol=1e-12)  # by a decomposition of its own
    np.testing.assert_array_equal(table[:, 17, :18], chain.log_norms_to(17))


def test_equal_singular_values():
    """Lanczos meets one vector of a degenerate eigenvalue, and must still find the largest."""
    Q = np.linalg.qr(np.random.default_rng(2).standard_normal((30, 30)))[0]
    table = rg.jacobian_chain(linear(Q, 40)).log_norms()
    np.testing.assert_allclose(table[0][np.tril_indices(41)], 0, atol=1e-12)
    lam = np.r_[np.full(15, 1.1), np.full(14, 1.0), 1.1 + 1e-9]
    table = rg.jacobian_chain(linear(Q @ np.diag(lam) @ Q.T, 40)).log_norms()
    lag = np.subtract.outer(np.arange(41), np.arange(41))
    lower = np.tril_indices(41)
    np.testing.assert_allclose(table[0][lower], (lag * np.log(1.1 + 1e-9))[lower], atol=1e-12)


def test_a_direction_that_takes_over_late_is_not_missed():
    """The largest singular vector of short lags is orthogonal to that of long ones."""
    W = np.zeros((6, 6))
    W[:2, :2] = [[0.5, 30.0], [0.0, 0.5]]  # large at first
    W[2:, 2:] = np.diag([0.99, 0.7, 0.3, 0.1])
    table = rg.jacobian_chain(linear(W, 60)).log_norms()[0]
    for lag in range(61):
        assert table[60, 60 - lag] == pytest.approx(
            np.log(np.linalg.norm(np.linalg.matrix_power(W, lag), 2)), abs=1e-12
        )


def test_zero_and_rank_one_matrices():
    table = rg.jacobian_chain(linear(np.zeros((3, 3)), 4)).log_norms()[0]
    assert (np.diag(table) == 0).all() and (table[np.tril_indices(5, -1)] == -np.inf).all()
    u, v = np.array([1.0, 2.0, 2.0]), np.array([0.5, 0.0, 0.5])
    table = rg.jacobian_chain(linear(np.outer(u, v), 4)).log_norms()[0]
    for lag in range(1, 5):  # (v.u)^(lag - 1) |u| |v|
        assert table[4, 4 - lag] == pytest.approx((lag - 1) * np.log(1.5) + np.log(3 * np.sqrt(0.5)), abs=1e-13)


@pytest.mark.parametrize("scale", [1e80, 1e-80])
def test_beyond_the_range_of_floats(scale):
    table = rg.jacobian_chain(linear(scale * np.diag([1.0, 0.5]), 30)).log_norms()[0]
    lag = np.subtract.outer(np.arange(31), np.arange(31))
    lower = np.tril_indices(31)
    np.testing.assert_allclose(table[lower], (lag * np.log(scale))[lower], rtol=1e-14, atol=1e-12)


def test_stacks_and_systems():
    stack = rg.Stack.init("gru", 2, 3, n_layers=2, seed=3)
    traj = rg.rollout(stack, np.random.default_rng(0).standard_normal((9, 2, 2)))
    for ord in (2, "fro"):
        np.testing.assert_allclose(rg.jacobian_chain(traj).log_norms(ord), expected(traj, ord), atol=1e-11)

    def rotor(s, x, p):
        return np.array([s[0] * s[1] - 0.3 * s[2], s[1] + 0.2 * s[0], np.sin(s[2]) + s[0]])

    traj = rg.rollout(rg.System(rotor, 3), s0=[0.3, 0.4, 0.5], steps=15)
    for ord in (2, "fro"):
        np.testing.assert_allclose(rg.jacobian_chain(traj).log_norms(ord), expected(traj, ord), atol=1e-11)


def test_memory_is_that_of_the_result_and_progress_is_told():
    net = rg.Network.init("vanilla", n_inputs=1, n_hidden=40)
    chain = rg.jacobian_chain(rg.rollout(net, np.random.default_rng(0).standard_normal((150, 1, 1))))
    chain.log_norms("fro")
    shares = []
    tracemalloc.start()
    try:
        chain.log_norms("fro", progress=shares.append)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3 * 8 * 151**2 + 20 * 8 * 40**2  # all products of one row t would be 151 * 40^2
    assert shares[-1] == pytest.approx(1) and shares == sorted(shares) and len(shares) > 3
