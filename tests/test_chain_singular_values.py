"""Singular values of chains whose spread is beyond the range of floats, against products and SVDs in mpmath."""

import mpmath
import numpy as np
import pytest

import rnngrad as rg
from rnngrad.dynamics.chain import JacobianChain
from rnngrad.dynamics.graded import Graded
from rnngrad.dynamics.system import DenseJacobians

LN_RANGE = np.log(np.finfo(float).max) - np.log(np.finfo(float).tiny)  # 1417: what float64 spans


def exact_logs(J, digits):
    """Logarithms of the singular values of J_T … J_1 for J (T, N, N), taken as exact numbers, descending."""
    with mpmath.workdps(digits):
        product = mpmath.eye(J.shape[1])
        for one in J.astype(np.float64):
            product = mpmath.matrix(one.tolist()) * product
        values = mpmath.svd_r(product, compute_uv=False)
        return np.array(sorted((float(mpmath.log(value)) for value in values), reverse=True))


def bare(J):
    """The chain of any matrices J (T, N, N) or (T, B, N, N)."""
    J = np.ascontiguousarray(J if J.ndim == 4 else J[:, None])
    T, B, N, _ = J.shape
    like = rg.Network.from_parameters("linear", {"W": np.eye(N, dtype=J.dtype)[None], "b": np.zeros((1, N), J.dtype)})
    return JacobianChain(rg.rollout(like, steps=T, s0=np.zeros((B, 1, N), J.dtype)), DenseJacobians(None, J, "cpu"))


def powers(W, T, dtype="float64"):
    """The chain of s <- W s."""
    W = np.asarray(W, dtype)
    net = rg.Network.from_parameters("linear", {"W": W[None], "b": np.zeros((1, len(W)), dtype)})
    return rg.jacobian_chain(rg.rollout(net, np.zeros((T, 1, 0), dtype)))


def graded(T, N, rng, *, turns=False):
    """Gaussian matrices (or rotations) on both sides of singular values that fall to 1e-4."""
    left, right = rng.standard_normal((2, T, N, N))
    if turns:
        left, right = np.linalg.qr(left)[0], np.linalg.qr(right)[0]
    return left @ (np.logspace(0, -4, N)[:, None] * right)


def amplification(J):
    """Sum over the steps j of ||Phi(T, j)|| ||J_j|| ||Phi(j-1, 0)|| / ||Phi(T, 0)||.

    By so much a relative error of each can move the norm of the product: the steps, more where parts cancel.
    """

    def logs(factors):
        product, log, out = np.eye(J.shape[1]), 0.0, [0.0]
        for one in factors:
            product = one @ product
            size = np.linalg.norm(product, 2)
            product, log = product / size, log + np.log(size)
            out.append(log)
        return np.array(out)

    J = J.astype(np.float64)
    to, since, one = logs(J), logs(J[::-1].swapaxes(1, 2))[::-1], np.log(np.linalg.norm(J, 2, axis=(1, 2)))
    return np.exp(since[1:] + one + to[:-1] - to[-1]).sum()


def check(chain, J, digits, dtype="float64", spread=LN_RANGE):
    """All values against mpmath; the largest against log_norm; the sum against the determinants."""
    T, N = len(J), J.shape[1]
    exact = exact_logs(J, digits)
    assert exact[0] - exact[-1] > spread  # or the case shows nothing
    values = chain.log_singular_values(T, 0)[0]
    # float64: the accuracy that is promised. float32: what each of at most T factors may be off by.
    rtol, atol = (1e-8, T * 1e-11) if dtype == "float64" else (0, T * N * 2**5 * float(np.finfo(dtype).eps))
    np.testing.assert_allclose(values, exact, rtol=rtol, atol=atol)
    assert (np.diff(values) <= 0).all()
    norm = amplification(J) * N * float(np.finfo(dtype).eps) + abs(exact[0]) * 4 * np.finfo(float).eps
    assert chain.log_norm(T, 0)[0] == pytest.approx(values[0], abs=norm + atol)
    assert chain.log_norm(T, 0)[0] == pytest.approx(exact[0], abs=norm)
    determinants = np.linalg.slogdet(J.astype(np.float64))[1].sum()
    assert values.sum() == pytest.approx(determinants, rel=rtol, abs=N * atol)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("N", [3, 4, 5])
def test_random_products(N, dtype):
    J = graded(300, N, np.random.default_rng(N), turns=dtype == "float32").astype(dtype)
    check(bare(J), J, 2500, dtype)


@pytest.mark.parametrize(("dtype", "last"), [("float64", 1e-7), ("float32", 1e-2)])
def test_one_direction_far_below_all_others(dtype, last):
    """Spread in every step, in the same directions: no step mends what another lost."""
    rng = np.random.default_rng(1)
    V = np.eye(3) + 0.3 * rng.standard_normal((3, 3))
    J = (V @ np.diag([1.3, 1.2, last]) @ np.linalg.inv(V))[None] * rng.uniform(0.5, 2.0, (400, 1, 1))
    check(bare(J.astype(dtype)), J.astype(dtype), 6000, dtype)


def test_a_turn_in_the_middle():
    """The directions of the second half are not those of the first."""
    T, N = 120, 3
    D = np.diag(10.0 ** np.array([2.0, 0.0, -2.0]))
    turns = np.linalg.qr(np.random.default_rng(2).standard_normal((N, N)))[0]
    J = np.concatenate([np.broadcast_to(D, (T, N, N)), turns[None], np.broadcast_to(D, (T, N, N))])
    check(bare(J), J, 2000)
    np.testing.assert_allclose(bare(J).log_singular_values(T, 0)[0], T * np.log(np.diag(D)), rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("cell", "T"), [("lstm", 500), ("vanilla", 1500), ("gru", 1500)])
def test_chains_of_rollouts(cell, T, dtype):
    rng = np.random.default_rng(3)
    net = rg.Network.init(cell, n_inputs=2, n_hidden=4, scheme="gaussian", gain=1.5, seed=1, dtype=dtype)
    traj = rg.rollout(net, rng.standard_normal((T, 2)).astype(dtype))
    check(rg.jacobian_chain(traj), rg.jacobians(traj)[:, 0], 4000, dtype)


def test_every_sample_and_every_part_of_the_chain():
    J = graded(40, 4, np.random.default_rng(4)).reshape(20, 2, 4, 4)
    chain = bare(J)
    for t, k in ((20, 0), (20, 13), (7, 2), (9, 8)):
        values = chain.log_singular_values(t, k)
        for b in range(2):
            np.testing.assert_allclose(values[b], exact_logs(J[k:t, b], 400), rtol=1e-8, atol=1e-9)
    np.testing.assert_array_equal(chain.log_singular_values(5, 5), 0)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_singular_step_leaves_minus_infinity_and_no_error(dtype):
    rng = np.random.default_rng(5)
    J = rng.standard_normal((60, 4, 4)).astype(dtype)
    J[20, :, 3] = J[20, :, 0]  # rank 3
    J[40, 2:] = 0  # rank 2
    chain = bare(J)
    values = chain.log_singular_values(60, 0)[0]
    assert np.isfinite(values[:2]).all() and (values[2:] == -np.inf).all()
    np.testing.assert_allclose(values[0], chain.log_norm(60, 0)[0], atol=60 * 32 * float(np.finfo(dtype).eps) * 16)
    assert np.isfinite(chain.log_singular_values(40, 0)[0]).sum() == 3
    assert np.isfinite(chain.log_singular_values(20, 0)).all()
    J[30] = 0
    assert (bare(J).log_singular_values(60, 0) == -np.inf).all() and bare(J).log_norm(60, 0)[0] == -np.inf


def test_directions_that_last_beside_lost_ones():
    """Rank 2 in every step, and so small that a zero of size 1 beside it would be everything."""
    T = 700
    J = 1e-3 * np.random.default_rng(8).standard_normal((T, 4, 4))
    J[:, 2:] = 0
    J[0, :, 2:] = 0  # so the product is its first block
    values = bare(J).log_singular_values(T, 0)[0]
    np.testing.assert_allclose(values[:2], exact_logs(J[:, :2, :2], 6000), rtol=1e-9)
    assert (values[2:] == -np.inf).all()


def test_what_rounding_swallows_is_said():
    """Graded in its columns, a matrix of condition 1e30 whose small part no QR of unit vectors can see."""
    J = np.broadcast_to(np.array([[1.0, 0.3], [0.2, 1.0]]) @ np.diag([1.0, 1e-30]), (10, 2, 2))
    with pytest.warns(rg.PrecisionWarning, match="step 9 of sample 0") as said:
        values = bare(J).log_singular_values(10, 0)[0]
    assert len(said) == 1 and said[0].filename == __file__
    assert values[1] == -np.inf and values[0] == pytest.approx(bare(J).log_norm(10, 0)[0], abs=1e-12)


def test_a_jacobian_beyond_the_floats_is_an_error():
    J = np.ones((5, 8, 8))
    J[2] *= 1.7e308
    with pytest.raises(OverflowError, match="step 2"):
        bare(J).log_singular_values(5, 0)


def test_orthogonal_steps_of_all_kinds():
    J = np.linalg.qr(np.random.default_rng(6).standard_normal((1000, 6, 6)))[0]
    np.testing.assert_allclose(bare(J).log_singular_values(1000, 0), 0, atol=1e-12)
    scaled = J * np.exp(np.random.default_rng(7).normal(0, 5, (1000, 1, 1)))
    total = np.log(np.linalg.norm(scaled, 2, axis=(1, 2))).sum()
    np.testing.assert_allclose(bare(scaled).log_singular_values(1000, 0), total, rtol=1e-12)


@pytest.mark.parametrize("spread", [0, 8])
def test_rows_with_exponents(spread):
    """One matrix by itself: rows of all lengths and orders, against LAPACK, and rows that depend on one another."""
    rng = np.random.default_rng(9)
    rows = rng.standard_normal((20, 9, 9)) * np.exp(rng.normal(0, 2, (20, 9, 1)))
    exponents = rng.integers(-spread, spread + 1, (20, 9)).astype(np.int64)
    exact = np.log(np.linalg.svd(np.ldexp(rows, exponents[..., None]), compute_uv=False))
    np.testing.assert_allclose(Graded(rows, exponents).log_singular_values(), exact, atol=1e-9)
    rows = rng.integers(-9, 10, (20, 9, 9)).astype(float)
    rows[:, 4] = rows[:, 0] + rows[:, 8]  # without rounding
    values = Graded(rows, 0 * exponents).log_singular_values()
    assert np.isfinite(values[:, :8]).all() and (values[:, 8] == -np.inf).all()


def test_a_triangular_factor_times_rows():
    """Against integers of any size: rows and columns far apart, and rows of zeros on either side."""
    rng = np.random.default_rng(12)
    R, X = np.triu(rng.standard_normal((2, 5, 5))), rng.standard_normal((2, 5, 5))
    R[0, 3], X[1, 4], X[1, 2] = 0, 0, 0
    for spread in (3, 40, 3000):
        shifts, before = rng.integers(-spread, spread + 1, (2, 2, 5))
        found = Graded(X, before).then(R, shifts)
        total = shifts + before
        with mpmath.workdps(3000):
            for b, i, l in np.ndindex(2, 5, 5):
                parts = [
                    mpmath.ldexp(mpmath.mpf(R[b, i, j]) * mpmath.mpf(X[b, j, l]), int(total[b, j])) for j in range(5)
                ]
                error = mpmath.mpf(found.mantissa[b, i, l]) * mpmath.mpf(2) ** int(found.exponent[b, i]) - sum(parts)
                scale = max(abs(mpmath.ldexp(mpmath.mpf(R[b, i, j]), int(total[b, j]))) for j in range(5))
                assert abs(error) <= 4e-15 * scale
        tops = np.abs(found.mantissa).max(axis=-1)
        assert (((tops >= 0.5) & (tops < 1)) | (tops == 0)).all() and tops[0, 3] == tops[1, 4] == 0
        assert found.exponent[0, 3] == found.exponent[1, 4] == 0


@pytest.mark.slow
def test_a_million_steps():
    """Finite, and of orthogonal steps no drift: against W^T by squaring in mpmath, since W itself is rounded."""
    T, n = 1_000_000, 16
    net = rg.Network.init("vanilla", 0, n, scheme="orthogonal", seed=0)
    net = net.replace(W=1.3 * net.W)
    chain = rg.jacobian_chain(rg.rollout(net, steps=T, s0=np.random.default_rng(0).standard_normal((1, 1, n))))
    values, norm = chain.log_singular_values(T, 0)[0], chain.log_norm(T, 0)[0]
    assert np.isfinite(values).all() and np.isfinite(norm)
    assert values[0] == pytest.approx(norm, rel=1e-9)
    W = np.linalg.qr(np.random.default_rng(0).standard_normal((n, n)))[0]
    chain = powers(W, T)
    with mpmath.workdps(40):
        exact = [float(mpmath.log(v)) for v in mpmath.svd_r(mpmath.matrix(W.tolist()) ** T, compute_uv=False)]
    drift = chain.log_norm(T, 0)[0], *chain.log_singular_values(T, 0)[0]
    assert np.abs(drift).max() <= 1e-9
    np.testing.assert_allclose(drift[1:], sorted(exact, reverse=True), atol=1e-12)  # most of it is W's own


def test_rank_60_of_120_leaves_60_zeros():
    """What rotations leave of dependent rows is their rounding; it must not be taken for small singular values."""
    rng = np.random.default_rng(11)
    dense = rng.standard_normal((120, 60)) @ rng.standard_normal((60, 120))
    graded = Graded(dense[None] / 100, -np.arange(120)[None] // 4)
    logs = graded.log_singular_values()[0]
    assert np.isfinite(logs[:60]).all()
    exact = np.linalg.svd(np.ldexp(dense / 100, (-np.arange(120) // 4)[:, None]), compute_uv=False)
    np.testing.assert_allclose(logs[:40], np.log(exact[:40]), atol=1e-8)
    assert (logs[60:] == -np.inf).all()
