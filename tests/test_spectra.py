"""Eigenvalues of products and the circular law: closed forms, mpmath, and large random matrices."""

import mpmath
import numba
import numpy as np
import pytest
from cases import UNEVEN, make_case

import rnngrad as rg


def linear(W, steps, dtype="float64"):
    net = rg.Network.from_parameters("linear", {"W": np.asarray(W, dtype)[None], "b": np.zeros((1, len(W)), dtype)})
    return rg.rollout(net, steps=steps)


@pytest.mark.parametrize("lag", [1, 7, 400, 3000])
@pytest.mark.parametrize("size", [1.3, 0.2])
def test_normal_network_far_beyond_the_range(size, lag):
    """Phi = W^lag; of a normal W every eigenvalue is lag ln|lambda|, and 3000 steps of 0.2 are 1e-2097."""
    rng = np.random.default_rng(0)
    Q, _ = np.linalg.qr(rng.standard_normal((6, 6)))
    moduli = size * np.array([1, 1, 0.999, 0.995, 0.99, 0.5])
    turn = np.array([[np.cos(0.7), -np.sin(0.7)], [np.sin(0.7), np.cos(0.7)]])
    W = np.diag(moduli)
    W[:2, :2] = size * turn
    result = rg.product_spectrum(linear(Q @ W @ Q.T, 3000), lags=[lag])
    expected = lag * np.log(moduli)
    known = ~np.isnan(result.log_magnitude[0])
    np.testing.assert_array_equal(known, expected > expected[0] + np.log(10 * 2.2e-16))
    np.testing.assert_allclose(result.log_magnitude[0, :4], expected[:4], atol=1e-11 * max(lag, 10))
    assert known.all() or (expected[~known] < result.log_floor[0]).all()
    np.testing.assert_allclose(result.log_norm, expected[0], atol=1e-11 * max(lag, 10))
    np.testing.assert_allclose(result.log_radius, expected[0], atol=1e-11 * max(lag, 10))
    frobenius = np.sqrt(np.mean(moduli**2))
    np.testing.assert_allclose(result.log_circular_radius, lag * np.log(frobenius), rtol=1e-12)
    angle = np.angle(result.eigenvalues[0, :2])
    np.testing.assert_allclose(np.abs(np.cos(angle) - np.cos(0.7 * lag)), 0, atol=1e-9)
    scaled = np.log(np.abs(result.eigenvalues[0, :4])) + result.log_scale[0]
    np.testing.assert_allclose(scaled, expected[:4], atol=1e-11 * max(lag, 10))


@pytest.mark.parametrize("cell", ["vanilla", "lstm", "gru_reset_before"])
@pytest.mark.parametrize("sample", [0, 1])
def test_products_against_mpmath(cell, sample):
    drawn = make_case(cell, n=3, T=12, B=2, lengths=(12, 9))
    result = rg.product_spectrum(drawn.traj, lags=[1, 4, 10], sample=sample, time=11)
    J = rg.jacobians(drawn.traj)[:, sample]
    with mpmath.workdps(60):
        Phi, at = mpmath.eye(drawn.net.N), 11
        for i, lag in enumerate([1, 4, 10]):
            while at > 11 - lag:
                Phi, at = Phi * mpmath.matrix(J[at - 1].tolist()), at - 1
            values = sorted((abs(value) for value in mpmath.eig(Phi, left=False, right=False)), reverse=True)
            logs = np.array([float(mpmath.log(value)) if value else -np.inf for value in values])
            known = ~np.isnan(result.log_magnitude[i])
            assert known[0]
            found = np.sort(result.log_magnitude[i][known])[::-1]
            # an eigenvalue is known to its uncertainty over its size, at worst 1 just above the floor
            relative = np.exp(np.maximum(result.log_floor[i], result.log_norm[i] - 33) - found)
            assert (np.abs(found - logs[: known.sum()]) <= 1e-11 + 10 * relative).all()
            assert (logs[known.sum() :] <= result.log_floor[i]).all()


def test_product_spectrum_of_a_stack_and_in_single_precision():
    stack = rg.Stack.init(["lstm", "gru"], 2, 3)
    traj = rg.rollout(stack, np.random.default_rng(0).standard_normal((6, 2, 2)))
    result = rg.product_spectrum(traj, lags=[3], sample=1)
    Phi = rg.jacobian_chain(traj).product(6, 3)[1]
    known = ~np.isnan(result.log_magnitude[0])
    expected = np.sort(np.abs(np.linalg.eigvals(Phi)))[::-1]
    np.testing.assert_allclose(np.exp(result.log_magnitude[0][known]), expected[known], atol=1e-12)
    single = rg.product_spectrum(make_case("lstm", dtype="float32").traj)
    double = rg.product_spectrum(make_case("lstm").traj)
    np.testing.assert_allclose(single.log_radius, double.log_radius, atol=1e-3)
    assert np.isnan(single.log_magnitude).sum() >= np.isnan(double.log_magnitude).sum()
    assert list(single.lags) == [1, 2, 3, 4, 5] and single.time == 5


def test_zero_and_nilpotent_products():
    result = rg.product_spectrum(linear(np.zeros((3, 3)), 4), lags=[2])
    np.testing.assert_array_equal(result.log_magnitude, -np.inf)
    assert result.log_norm[0] == result.log_radius[0] == result.log_circular_radius[0] == -np.inf
    with pytest.raises(ValueError, match=r"holds a zero matrix \(Phi, lag = 2\)"):
        rg.circular_law(result)
    shift = rg.product_spectrum(linear(np.diag(np.ones(3), 1), 4), lags=[1])
    assert np.isnan(shift.log_magnitude).all() and np.isnan(rg.circular_law(shift).distance).all()


def test_circular_law_of_a_ginibre_matrix():
    """N = 1000: the radius is about 1.02 and a quarter of the eigenvalues lies within 1/2 (known answers)."""
    net = rg.Network.init("vanilla", 0, 1000, scheme="gaussian", gain=1.0, seed=0)
    result = rg.circular_law(rg.weight_spectrum(net))
    assert result.outermost[0] == pytest.approx(1.02, abs=0.03)
    # the number within r fluctuates by less than sqrt(N) ^(1/2), as eigenvalues repel each other
    np.testing.assert_allclose(result.share[0], result.law, atol=0.035)
    assert result.share[0][50] == pytest.approx(0.25, abs=0.01)
    assert result.distance[0] < 0.035
    np.testing.assert_allclose(np.exp(result.log_radius), 1.0, rtol=0.005)
    # in the network about 0: the share of exponents below s is e^(2 s)/g^2
    g, s = 0.8, np.log(0.8) - np.array([0.1, 0.5, 1.0])
    exponents = np.log(g * np.abs(rg.weight_spectrum(net).eigenvalues[0]))
    shares = np.mean(exponents[:, None] < s, axis=0)
    np.testing.assert_allclose(shares, np.exp(2 * s) / g**2, atol=0.02)
    np.testing.assert_allclose(shares, np.interp(np.exp(s) / g, result.r, result.share[0]), atol=0.01)


def test_share_of_lyapunov_exponents_below_the_edge():
    """g < 1: the exponents of W^t are ln|lambda|, so that a share e^(2 s)/g^2 lies below s (known answers)."""
    g, N = 0.7, 80
    W = rg.Network.init("vanilla", 0, N, scheme="gaussian", gain=g, seed=2).W[0]
    exponents = rg.lyapunov_of(np.broadcast_to(W, (1500, N, N))).exponents
    law = rg.circular_law(rg.weight_spectrum(linear(W, 1).net))
    s = np.log(g) - np.array([0.1, 0.3, 0.7])
    shares = np.mean(np.ravel(exponents)[:, None] < s, axis=0)
    # moduli that are close take longer than the run to part: a few exponents lie between them
    np.testing.assert_allclose(shares, np.interp(np.exp(s - law.log_radius), law.r, law.share[0]), atol=3 / N)
    np.testing.assert_allclose(shares, np.exp(2 * s) / g**2, atol=0.06)


@numba.njit
def times(s, x, p):
    n = s.size
    return x.reshape(n, n) @ s


def test_circular_law_of_a_product_of_independent_matrices():
    """The m-th roots of the moduli fill the disc evenly; without the root three quarters would lie within 1/2."""
    n, m, rng = 120, 4, np.random.default_rng(1)
    scales = np.array([1.0, 3.0, 0.2, 7.0])
    A = rng.standard_normal((m, n, n)) / np.sqrt(n) * scales[:, None, None]

    def jacobian(s, x, p):
        return x.reshape(n, n)

    system = rg.System(times, n, n_inputs=n * n, jacobian=jacobian)
    product = rg.product_spectrum(rg.rollout(system, A.reshape(m, n * n)), lags=[1, m])
    result = rg.circular_law(product)
    np.testing.assert_allclose(product.log_circular_radius[1], np.log(scales).sum(), atol=0.05)
    np.testing.assert_allclose(result.log_radius[1], np.log(scales).mean(), atol=0.02)
    assert (result.distance < 0.12).all()
    assert result.outermost[1] == pytest.approx(1, abs=0.1)
    raw = np.exp(product.log_magnitude[1] - product.log_circular_radius[1])
    assert np.mean(raw < 0.5) > 0.6 and result.share[1][50] == pytest.approx(0.25, abs=0.1)
    # where it is known, distance is that of all r, not of the listed ones alone
    listed = np.nanmax(np.abs(result.share - result.law), axis=1)
    assert (result.distance >= listed - 1e-12).all() and (result.distance <= listed + 2 / n + 0.02).all()


def test_lost_eigenvalues_are_counted_but_not_placed():
    Q, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((5, 5)))
    product = rg.product_spectrum(linear(Q @ np.diag([1, 0.9, 0.8, 0.3, 0.1]) @ Q.T, 40), lags=[40])
    assert list(np.isnan(product.log_magnitude[0])) == [False, False, False, True, True]
    result = rg.circular_law(product)
    R = np.sqrt(np.mean(np.square([1, 0.9, 0.8, 0.3, 0.1])))
    floor = np.exp(product.log_floor[0] / 40) / R
    for r, share in zip(result.r, result.share[0], strict=True):
        if r < floor:
            assert np.isnan(share)
        else:
            assert share == np.mean(np.array([1, 0.9, 0.8, 0.3, 0.1]) / R <= r)
    assert 0.3 / R < floor < 0.8 / R


def test_bad_arguments():
    traj = make_case("vanilla", lengths=UNEVEN).traj
    for change, message in (
        ({"lags": [0]}, r"lags is 0; it must be in 1…5"),
        ({"lags": [6]}, r"lags is 6; it must be in 1…5"),
        ({"time": 3, "lags": [4]}, r"lags is 4; it must be in 1…3"),
        ({"time": 0}, r"time is 0; it must be in 1…5"),
        ({"sample": 3}, r"sample is 3; it must be in 0…2"),
    ):
        with pytest.raises(ValueError, match=message):
            rg.product_spectrum(traj, **change)
    with pytest.raises(ValueError, match=r"spectrum is ndarray; it must come from weight_spectrum"):
        rg.circular_law(np.eye(3))


def test_figures():
    traj = make_case("lstm", T=40).traj
    product = rg.product_spectrum(traj)
    title = product.plot().get_title(loc="left").replace("\n", " ")
    assert title.startswith("At lag 40 the norm grows by") and "eigenvalues are known" in title
    law = rg.circular_law(rg.weight_spectrum(traj.net))
    assert law.plot().get_title(loc="left").startswith("W, i: a share")
    assert rg.circular_law(product).plot().get_title(loc="left").startswith("Φ, lag = 1: a share")


def test_eigenvalues_that_are_zero_are_known():
    net = rg.Network.from_parameters("linear", {"W": np.zeros((1, 3, 3)), "b": np.zeros((1, 3))})
    title = rg.product_spectrum(rg.rollout(net, steps=5)).plot().get_title(loc="left").replace("\n", " ")
    assert "the spectral radius by -∞; 3 of 3 eigenvalues are known" in title
