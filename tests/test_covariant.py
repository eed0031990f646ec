"""Covariant Lyapunov vectors against eigenvectors, and against their definition."""

import numba
import numpy as np
import pytest

import rnngrad as rg


def linear_network(W, T, B=1):
    net = rg.Network.from_parameters("linear", {"W": np.asarray(W)[None], "b": np.zeros((1, len(W)))})
    return rg.rollout(net, steps=T, s0=np.zeros((B, 1, len(W))))


def alternating(s, x, p):
    # x says which of two matrices acts
    a = np.array([2.0 * s[0] + s[1], 0.5 * s[0] - 0.3 * s[1]])
    b = np.array([0.4 * s[0] - s[1], s[0] + 0.7 * s[1]])
    return x[0] * a + (1 - x[0]) * b


def sine(u, v):
    """Sine of the angle between the lines of unit vectors."""
    return np.linalg.norm(u - (u @ v) * v)


def test_of_a_constant_matrix_they_are_its_eigenvectors():
    P = np.array([[1.0, 0.9, 0.2], [0.1, 1.0, -0.5], [0.0, 0.3, 1.0]])  # far from orthogonal
    lam = np.array([1.3, -0.8, 0.3])
    vectors = rg.covariant_vectors(linear_network(P @ np.diag(lam) @ np.linalg.inv(P), 400))
    np.testing.assert_allclose(vectors.exponents[0], np.log(np.abs(lam)), atol=1e-11)
    np.testing.assert_allclose(np.linalg.norm(vectors.vectors, axis=-1), 1, atol=1e-13)
    for i in range(3):
        for t in (0, 100, 200):
            assert sine(vectors.vectors[t, 0, i], P[:, i] / np.linalg.norm(P[:, i])) < 1e-11
    unit = P / np.linalg.norm(P, axis=0)
    np.testing.assert_allclose(vectors.angles[100, 0], np.arccos(np.minimum(np.abs(unit.T @ unit), 1)), atol=1e-7)
    assert vectors.times[0] == 100 and vectors.times[-1] == 300


def test_of_two_matrices_in_turn_they_are_eigenvectors_of_the_products():
    x = np.tile([1.0, 0.0], 200)[:, None]
    vectors = rg.covariant_vectors(rg.rollout(rg.System(alternating, 2, n_inputs=1), x), settle=100)
    A, B = np.array([[2.0, 1.0], [0.5, -0.3]]), np.array([[0.4, -1.0], [1.0, 0.7]])
    for t in (0, 1, 100, 101):
        product = B @ A if t % 2 == 0 else A @ B  # the next two steps bring the vector back to its line
        values, columns = np.linalg.eig(product)
        for i, column in enumerate(columns[:, np.argsort(-np.abs(values))].T):
            assert sine(vectors.vectors[t, 0, i], column) < 1e-12


@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="takes minutes where nothing is compiled")
@pytest.mark.parametrize("cell", ["vanilla", "continuous", "gru", "lstm", "mgu"])
def test_each_is_mapped_onto_itself(case, cell):
    drawn = case(cell, n=3, T=1200, lengths=None, scale=1.5)
    k = 3
    vectors = rg.covariant_vectors(drawn.traj, k)
    J = rg.jacobians(drawn.traj)
    for t, now, after, log in zip(
        vectors.times, vectors.vectors, vectors.vectors[1:], vectors.log_growth, strict=False
    ):
        moved = np.einsum("bij,bcj->bci", J[t], now)
        length = np.linalg.norm(moved, axis=-1)
        np.testing.assert_allclose(np.log(length), log, atol=1e-9)
        rest = moved / length[..., None]
        cosine = np.abs(np.einsum("bci,bci->bc", rest, after))
        np.testing.assert_allclose(cosine, 1, atol=1e-12)
    # Over the same steps the sums differ by what the angles are at the two ends.
    spectrum = rg.lyapunov_spectrum(drawn.net, drawn.x[:900], s0=drawn.s0, k=k, transient=300)
    np.testing.assert_allclose(vectors.exponents, spectrum.exponents, atol=10 / 600)


def test_angle_between_expanding_and_contracting():
    W = np.array([[2.0, 1.0], [0.0, 0.5]])  # eigenvectors (1, 0) and (1, -1.5)
    vectors = rg.covariant_vectors(linear_network(W, 300))
    np.testing.assert_allclose(vectors.angle_between(1), np.arctan(1.5), atol=1e-12)
    with pytest.raises(ValueError, match="split is 2"):
        vectors.angle_between(2)


def test_drawn_and_saved(tmp_path):
    """Eigenvectors (1, 0), (1, -1.5), (0, 0, 1): 56.3 degrees between the first two, 90 to the third."""
    W = [[2.0, 1.0, 0.0], [0.0, 0.5, 0.0], [0.0, 0.0, 0.1]]
    vectors = rg.covariant_vectors(linear_network(W, 200))
    ax = vectors.plot()
    assert "v1 and v2 come closest: 56.3°" in ax.get_title(loc="left")
    drawn = ax.images[0].get_array().filled(np.nan)
    np.testing.assert_allclose(drawn[[0, 0, 1], [1, 2, 2]], [np.degrees(np.arctan(1.5)), 90, 90], atol=1e-6)
    assert np.isnan(np.diagonal(drawn)).all()
    assert vectors.save(tmp_path / "vectors.npz").exists()
    one = rg.covariant_vectors(linear_network(W, 200), k=1)
    assert "One covariant vector" in one.plot().get_title(loc="left")
    with pytest.raises(ValueError, match="one covariant vector"):
        one.angle_between(1)


def test_what_cannot_be_followed_is_an_error():
    with pytest.raises(rg.SingularError, match="ask for k <= 1"):
        rg.covariant_vectors(linear_network([[1.0, 1.0], [1.0, 1.0]], 40))
    for settle in (0, 5):  # also where the vectors only turn
        with pytest.raises(OverflowError, match="the Jacobian of sample 0 is not finite at step 0"):
            rg.covariant_vectors(linear_network(np.full((8, 8), 1.7e308), 12), 2, settle=settle)
    traj = linear_network(np.eye(2), 40)
    with pytest.raises(ValueError, match="settle is 20"):
        rg.covariant_vectors(traj, settle=20)
    with pytest.raises(ValueError, match="k is 3"):
        rg.covariant_vectors(traj, 3)
    with pytest.raises(ValueError, match="traj has 3 steps"):
        rg.covariant_vectors(linear_network(np.eye(2), 3))
    net = rg.Network.init("gru", n_inputs=1, n_hidden=2)
    with pytest.raises(ValueError, match="equal length"):
        rg.covariant_vectors(rg.rollout(net, np.zeros((10, 2, 1)), lengths=[10, 4]))
