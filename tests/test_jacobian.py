"""Local Jacobians and their products, against autograd, exact powers, and numbers beyond the range of floats."""

import numpy as np
import oracles
import pytest
from cases import CELLS, PAIRS, SHAPES, UNEVEN, assert_close

import rnngrad as rg

NOTE_001 = np.array([[1, 0, 0, 0.4], [0.9, 0, 0.6, 0.5], [0, 0, 0, 0.3], [0, 0.8, 0, 0.7]])


def linear_chain(W, T, B=1, dtype="float64"):
    """Chain of s <- W s at rest: Phi(t, k) = W^(t-k) exactly, whatever its size."""
    W = np.asarray(W, dtype)
    net = rg.Network.from_parameters("linear", {"W": W[None], "b": np.zeros((1, len(W)), dtype)})
    return rg.jacobian_chain(rg.rollout(net, np.zeros((T, B, 0), dtype)))


def rotation(n, seed=0):
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((n, n)))[0]


def symmetric(radius, n=4):
    """Normal W with spectral radius and norm ``radius``."""
    Q = rotation(n)
    return Q @ np.diag(radius * np.linspace(0.5, 1, n) * (-1) ** np.arange(n)) @ Q.T


# ---------------------------------------------------------------- local Jacobians


@pytest.mark.parametrize("lengths", [None, UNEVEN], ids=["even", "uneven"])
@pytest.mark.parametrize(("cell", "activation"), PAIRS)
def test_jacobians_are_those_of_autograd(case, cell, activation, lengths):
    drawn = case(cell, activation, lengths=lengths)
    assert_close(rg.jacobians(drawn.traj), oracles.jacobians(*drawn.args, **drawn.kwargs), 1e-11)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("cell", CELLS)
def test_degenerate_shapes(case, cell, shape):
    drawn = case(cell, **shape)
    assert_close(rg.jacobians(drawn.traj), oracles.jacobians(*drawn.args, **drawn.kwargs), 1e-11)


@pytest.mark.parametrize("cell", CELLS)
def test_single_precision(case, cell):
    drawn = case(cell, dtype="float32")
    actual, expected = rg.jacobians(drawn.traj), oracles.jacobians(*drawn.args, **drawn.kwargs)
    assert actual.dtype == np.float32
    assert_close(actual, expected, 1e-5)
    chain = rg.jacobian_chain(drawn.traj)
    assert chain.product(5, 0).dtype == np.float32
    assert_close(chain.product(5, 0), oracles.product(expected, 5, 0), 1e-5)


@pytest.mark.parametrize("cell", CELLS)
def test_padded_steps_are_identities(case, cell):
    drawn = case(cell, lengths=UNEVEN)
    J, chain = rg.jacobians(drawn.traj), rg.jacobian_chain(drawn.traj)
    eye = np.eye(drawn.net.N)
    for b, length in enumerate(UNEVEN):
        np.testing.assert_array_equal(J[length:, b], np.broadcast_to(eye, J[length:, b].shape))
        np.testing.assert_array_equal(chain.product(5, length)[b], eye)
        np.testing.assert_array_equal(chain.all_from(length)[:, b], np.broadcast_to(eye, (6 - length, *eye.shape)))
        assert np.abs(J[length - 1, b] - eye).max() > 1e-3
        np.testing.assert_allclose(chain.product(5, 0)[b], chain.product(int(length), 0)[b], rtol=1e-14)


# ---------------------------------------------------------------- products


@pytest.mark.parametrize("cell", CELLS)
def test_products_and_their_action(case, cell):
    """product, all_from, all_to, vjp, jvp, blocks and norms against plain products of autograd's Jacobians."""
    drawn = case(cell, lengths=UNEVEN)
    chain, J = rg.jacobian_chain(drawn.traj), oracles.jacobians(*drawn.args, **drawn.kwargs)
    net, T = drawn.net, 5
    u, v = drawn.rng.standard_normal((2, 3, net.S, net.n))
    for t in range(T + 1):
        for k in range(t + 1):
            exact = oracles.product(J, t, k)
            assert_close(chain.product(t, k), exact, 1e-12, f"Phi({t}, {k})")
            assert_close(chain.all_from(k)[t - k], exact, 1e-12, "all_from")
            assert_close(chain.all_to(t)[k], exact, 1e-12, "all_to")
            uPhi = np.einsum("br,brc->bc", u.reshape(3, -1), exact).reshape(u.shape)
            Phiv = np.einsum("brc,bc->br", exact, v.reshape(3, -1)).reshape(v.shape)
            assert_close(chain.vjp(u, t, k), uPhi, 1e-12, "vjp")
            assert_close(chain.jvp(v, t, k), Phiv, 1e-12, "jvp")
            assert np.sum(u * Phiv) == pytest.approx(np.sum(chain.vjp(u, t, k) * v), rel=1e-10)
            np.testing.assert_allclose(chain.log_norm(t, k), np.log(np.linalg.norm(exact, 2, axis=(1, 2))), atol=1e-11)


@pytest.mark.parametrize("cell", CELLS)
def test_vjp_and_jvp_are_those_of_autograd(case, cell):
    drawn = case(cell, lengths=UNEVEN)
    chain = rg.jacobian_chain(drawn.traj)
    u, v = drawn.rng.standard_normal((2, 3, drawn.net.S, drawn.net.n))
    assert_close(chain.vjp(u, 4, 1), oracles.vjp(*drawn.args, u, 4, 1, **drawn.kwargs), 1e-11)
    assert_close(chain.jvp(v, 4, 1), oracles.jvp(*drawn.args, v, 4, 1, **drawn.kwargs), 1e-11)


@pytest.mark.parametrize("cell", CELLS)
def test_log_norms_of_all_pairs_and_blocks(case, cell):
    drawn = case(cell)
    chain, J = rg.jacobian_chain(drawn.traj), oracles.jacobians(*drawn.args, **drawn.kwargs)
    n, states = drawn.net.n, drawn.net.cell.states
    blocks = [None, *((row, column) for row in states for column in states)]
    for ord in (2, "fro"):
        for block in blocks:
            rows, columns = (
                slice(states.index(name) * n, (states.index(name) + 1) * n) for name in block or states[:1] * 2
            )
            if block is None:
                rows = columns = slice(None)
            norms = chain.log_norms(ord, block=block)
            assert norms.shape == (3, 6, 6)
            for t in range(6):
                assert np.isnan(norms[:, t, t + 1 :]).all()
                np.testing.assert_array_equal(norms[:, t, : t + 1], chain.log_norms_to(t, ord, block=block))
                for k in range(t + 1):
                    exact = oracles.product(J, t, k)[:, rows, columns]
                    assert_close(chain.product(t, k, block=block), exact, 1e-11, f"block {block}")
                    with np.errstate(divide="ignore"):
                        expected = np.log(np.linalg.norm(exact, ord, axis=(1, 2)))
                    np.testing.assert_allclose(norms[:, t, k], expected, atol=1e-10, err_msg=f"{block} {t} {k}")
                    np.testing.assert_allclose(chain.log_norm(t, k, ord, block=block), expected, atol=1e-10)


@pytest.mark.parametrize("cell", CELLS)
def test_log_singular_values(case, cell):
    drawn = case(cell)
    chain, J = rg.jacobian_chain(drawn.traj), oracles.jacobians(*drawn.args, **drawn.kwargs)
    for t, k in ((1, 0), (5, 3), (2, 2)):
        exact = np.linalg.svd(oracles.product(J, t, k), compute_uv=False)
        actual = chain.log_singular_values(t, k)
        assert actual.shape == (3, drawn.net.N)
        floor = drawn.net.N * np.finfo(float).eps * exact[:, :1]
        assert (actual[exact < floor] < np.log(np.broadcast_to(floor, exact.shape)[exact < floor])).all()
        kept = exact > 1e-6 * exact[:, :1]
        np.testing.assert_allclose(actual[kept], np.log(exact[kept]), atol=1e-9)
        assert kept.any()


@pytest.mark.parametrize(("cell", "n", "T", "B"), [("lstm", 20, 12, 9), ("gru_delayed", 9, 20, 5)])
def test_more_rows_than_one_task_of_the_kernels(case, cell, n, T, B):
    drawn = case(cell, n=n, T=T, B=B, lengths=np.arange(B) + T - B + 1, scale=0.5)  # B N rows, 64 to a task
    chain, J = rg.jacobian_chain(drawn.traj), oracles.jacobians(*drawn.args, **drawn.kwargs)
    assert_close(rg.jacobians(drawn.traj), J, 1e-11)
    assert_close(chain.product(T, 1), oracles.product(J, T, 1), 1e-11)
    assert_close(chain.all_from(0)[-1], oracles.product(J, T, 0), 1e-11)
    assert_close(chain.all_to(T)[0], oracles.product(J, T, 0), 1e-11)


# ---------------------------------------------------------------- exact answers, and beyond the floats


def test_note_001_chain_is_the_power_of_W():
    chain = linear_chain(NOTE_001, 12, B=2)
    for t, k in ((12, 0), (7, 6), (9, 2), (4, 4)):
        assert_close(chain.product(t, k), np.broadcast_to(np.linalg.matrix_power(NOTE_001, t - k), (2, 4, 4)), 1e-14)


def test_non_normal_matrix_breaks_the_eigenvalue_bound():
    chain = linear_chain([[0.9, 10], [0, 0.9]], 10)
    exact = np.array([[0.9**10, 10 * 10 * 0.9**9], [0, 0.9**10]])
    assert_close(chain.product(10, 0)[0], exact, 1e-14)
    assert chain.log_norm(10, 0)[0] == pytest.approx(np.log(np.linalg.norm(exact, 2)), abs=1e-13)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("radius", [1.5, 0.5, 1e12, 1e-12])
def test_norms_far_outside_the_range_of_floats(radius, dtype):
    """Normal W: log||Phi(t, k)|| = (t - k) ln rho, to the rounding of t - k products of n terms, and of the norm."""
    T, n = 3000, 4
    chain = linear_chain(symmetric(radius, n), T, dtype=dtype)
    lag = T - np.arange(T + 1)
    exact = lag * np.log(radius)
    tolerance = (lag + 1) * n * float(np.finfo(dtype).eps) + 2 * np.abs(exact) * float(np.finfo(float).eps)
    assert (np.abs(chain.log_norms_to(T)[0] - exact) <= tolerance).all()
    for k in (0, 1500, T - 60):
        assert chain.log_norm(T, k)[0] == pytest.approx(exact[k], abs=tolerance[k])
        spread = np.log(np.sum((0.5 + np.arange(n) / (2 * n - 2)) ** (2 * (T - k)))) / 2  # all eigenvalues, not one
        assert chain.log_norm(T, k, "fro")[0] == pytest.approx(exact[k] + spread, abs=tolerance[k])
    values = chain.log_singular_values(T, 0)[0]  # the last is 2^-3000 of the first
    np.testing.assert_allclose(values, T * np.log(radius * (1 - np.arange(n) / (2 * n - 2))), atol=tolerance[0])


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_every_singular_value_of_an_orthogonal_network_is_one(dtype):
    chain = linear_chain(rotation(5), 2000, dtype=dtype)
    tolerance = 2000 * 5 * float(np.finfo(dtype).eps)
    for t, k in ((2000, 0), (1234, 1233), (1000, 990)):
        np.testing.assert_allclose(chain.log_singular_values(t, k), 0, atol=tolerance)
        np.testing.assert_allclose(chain.log_norm(t, k), 0, atol=tolerance)


def test_singular_values_that_drift_apart():
    lam = np.array([1.05, 1.0, 0.9])
    values = linear_chain(np.diag(lam), 100).log_singular_values(100, 0)[0]
    np.testing.assert_allclose(values, 100 * np.log(lam), atol=1e-12)


@pytest.mark.parametrize(("cell", "scale"), [("vanilla", 3.0), ("vanilla", 0.3), ("lstm", 2.0), ("gated_unit", 1.5)])
def test_long_chains_of_nonlinear_networks(case, cell, scale):
    """Against plain products of autograd's Jacobians, normalised at every step."""
    T = 1200
    drawn = case(cell, n=3, T=T, B=2, scale=scale)
    chain, J = rg.jacobian_chain(drawn.traj), oracles.jacobians(*drawn.args, **drawn.kwargs)
    Phi, log = np.broadcast_to(np.eye(drawn.net.N), J[0].shape), np.zeros(2)
    for t in range(1, T + 1):
        Phi = J[t - 1] @ Phi
        norm = np.linalg.norm(Phi, 2, axis=(1, 2))
        Phi, log = Phi / norm[:, None, None], log + np.log(norm)
        if t in (1, 400, T):
            np.testing.assert_allclose(chain.log_norm(t, 0), log, rtol=1e-11, atol=1e-9)


def test_product_says_when_it_is_beyond_the_floats():
    chain = linear_chain(symmetric(1.5), 3000)
    v = np.ones((1, 1, 4))
    for beyond in (lambda: chain.product(3000, 0), lambda: chain.all_to(3000), lambda: chain.all_from(0),
                   lambda: chain.vjp(v, 3000, 0), lambda: chain.jvp(v, 3000, 0)):  # fmt: skip
        with pytest.raises(OverflowError, match="float64"):
            beyond()
    with pytest.raises(OverflowError, match="float32"):
        linear_chain(symmetric(1.5), 300, dtype="float32").product(300, 0)
    np.testing.assert_array_equal(linear_chain(symmetric(0.5), 3000).product(3000, 0), 0)


def test_an_adjoint_beyond_the_floats_is_no_silent_infinity():
    chain, u = linear_chain([[1e10]], 3), np.full((1, 1, 1), 1e300)
    for action in (chain.vjp, chain.jvp):
        with pytest.raises(OverflowError, match="float64"):
            action(u, 1, 0)


def test_zero_matrices_have_log_norm_minus_infinity():
    chain = linear_chain([[0.0, 1.0], [0.0, 0.0]], 3)
    np.testing.assert_array_equal(chain.log_norm(1, 0), 0)
    np.testing.assert_array_equal(chain.log_norm(2, 0), -np.inf)
    np.testing.assert_array_equal(chain.log_norm(3, 0, "fro"), -np.inf)
    np.testing.assert_array_equal(chain.log_singular_values(2, 0), -np.inf)
    np.testing.assert_array_equal(chain.product(2, 0), 0)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("factor", [0.1, 10.0])
def test_chains_of_whole_vectors_leave_the_range_of_floats(dtype, factor):
    """n = 8: rows are judged by their lanes. ||Phi(t, k)|| = factor^(t - k) for W = factor Q, in both directions."""
    steps, n = 1500, 8
    Q = np.linalg.qr(np.random.default_rng(0).standard_normal((n, n)))[0]
    net = rg.Network.init("linear", 1, n, dtype=dtype).replace(W=(factor * Q).astype(dtype)[None])
    chain = rg.jacobian_chain(rg.rollout(net, s0=np.zeros((1, 1, n), dtype), steps=steps))
    expected = np.log(factor) * np.arange(steps, -1, -1)
    rounding = steps * np.finfo(dtype).eps * n
    assert np.abs(chain.log_norms_to(steps)[0] - expected).max() <= rounding
    assert np.abs(chain.log_norm(steps, 0, "fro") - expected[0] - np.log(n) / 2).max() <= rounding
    forward, exponents = chain.jacobians.tangent(
        np.eye(n, dtype=dtype)[:, None], np.zeros(n, np.int64), np.zeros(n, np.int64), 0, steps
    )
    logs = np.log(np.linalg.norm(forward[-1, :, 0].astype(np.float64), axis=1)) + exponents[-1] * np.log(2.0)
    assert np.abs(logs - expected[0]).max() <= rounding
