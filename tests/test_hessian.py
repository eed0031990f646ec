"""Spectra of Hessians: leading eigenvalues against dense ones of torch, Lanczos quadrature against exact measures."""

import functools

import numpy as np
import oracles
import pytest
import scipy.sparse.linalg
from cases import UNEVEN, assert_close, make_case, make_losses

import rnngrad as rg
from rnngrad.analysis import hessian

torch = oracles.torch


def dense(drawn, truth):
    """The Hessian (P, P) by torch."""
    names, sizes = list(drawn.params), [a.size for a in drawn.params.values()]

    def loss(flat):
        parts = flat.split(sizes)
        P = {name: part.view(drawn.params[name].shape) for name, part in zip(names, parts, strict=True)}
        return oracles.loss_value(*drawn.args[:1], P, *drawn.args[2:], truth, **drawn.kwargs)

    flat = oracles.tensor(rg.flatten_parameters(drawn.net.astype("float64"), drawn.params))
    return torch.autograd.functional.hessian(loss, flat).numpy()


def drawn_with_hessian(cell="lstm", dtype="float64", **sizes):
    drawn = make_case(cell, dtype=dtype, lengths=UNEVEN, **sizes)
    loss, truth = make_losses(drawn, oracles, "binary_cross_entropy")
    return drawn.traj, loss, dense(drawn, truth)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_operator(dtype):
    traj, loss, H = drawn_with_hessian(dtype=dtype)
    operator = rg.hessian_operator(traj, loss)
    rtol = 1e-11 if dtype == "float64" else 1e-5
    assert operator.shape == H.shape and operator.dtype == np.float64
    V = np.random.default_rng(0).standard_normal((len(H), 3))
    assert_close(operator @ V, H @ V, rtol)
    assert_close(operator @ V[:, 0], H @ V[:, 0], rtol)
    assert_close(operator.H @ V[:, 0], H @ V[:, 0], rtol)
    assert_close(operator @ (1e-60 * V[:, 0]), 1e-60 * (H @ V[:, 0]), rtol)
    G = rg.hessian_operator(traj, loss, matrix="gauss_newton")
    assert_close(G @ V, rg.gauss_newton_vector_product(traj, loss, V.T.astype(dtype)).T, rtol)
    with pytest.raises(ValueError, match=r"the vector is nan at index"):
        operator @ np.full(len(H), np.nan)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("cell", "leading"), [("lstm", 5), ("mgu", 3), ("lstm", 90), ("lstm", 138)])
def test_leading_eigenvalues(cell, leading, dtype):
    traj, loss, H = drawn_with_hessian(cell, dtype, n=4, m=3)
    truth = np.linalg.eigvalsh(H)
    result = rg.hessian_spectrum(traj, loss, leading=leading, probes=2, steps=8)
    kept = truth[np.argsort(-np.abs(truth))[:leading]]
    error = np.abs(result.eigenvalues - np.sort(kept)[::-1]).max()
    assert error <= (1e-11 if dtype == "float64" else 1e-5) * np.abs(truth).max()
    assert result.residuals.max() <= (1e-9 if dtype == "float64" else 1e-4) * np.abs(truth).max()
    assert result.size == len(H) and result.loss == pytest.approx(loss(traj.y, traj.lengths).value)
    assert result.network == f"{cell}, 4 units"


def test_quadrature_is_exact_for_polynomials():
    rng = np.random.default_rng(0)
    A = rng.standard_normal((30, 30))
    A += A.T
    starts = rng.standard_normal((3, 30))
    starts /= np.linalg.norm(starts, axis=1)[:, None]
    nodes, weights = hessian.quadrature(lambda rows: rows @ A, starts, 6, 2e-16)
    scale = np.linalg.norm(A, 2)
    for power in range(12):  # 6 nodes integrate polynomials up to degree 11
        moment = np.einsum("kp,pq,kq->k", starts, np.linalg.matrix_power(A / scale, power), starts)
        np.testing.assert_allclose(np.sum(weights * (nodes / scale) ** power, axis=1), moment, atol=1e-13)
    nodes, weights = hessian.quadrature(lambda rows: rows @ A, starts, 30, 2e-16)
    for own in nodes:
        np.testing.assert_allclose(own, np.linalg.eigvalsh(A), atol=1e-11 * scale)


def test_quadrature_ends_with_the_krylov_space():
    """Three distinct eigenvalues make three nodes, and an isolated one is found once however many steps are taken."""
    values = np.repeat([1.0, 2.0, -5.0], 10)
    start = np.full((1, 30), 1 / np.sqrt(30))
    nodes, weights = hessian.quadrature(lambda rows: rows * values, start, 9, 2e-16)
    assert np.isnan(nodes[0, 3:]).all() and (weights[0, 3:] == 0).all()
    np.testing.assert_allclose(nodes[0, :3], [-5, 1, 2], rtol=1e-13)
    np.testing.assert_allclose(weights[0, :3], 1 / 3, rtol=1e-13)
    values = np.append(np.linspace(0, 1, 299), 1e4)
    start = np.random.default_rng(0).standard_normal((2, 300))
    start /= np.linalg.norm(start, axis=1)[:, None]
    nodes, weights = hessian.quadrature(lambda rows: rows * values, start, 100, 2e-16)
    for i in range(2):  # without full orthogonalisation there are copies of it
        assert np.count_nonzero(nodes[i] > 2) == 1
        assert weights[i][nodes[i] > 2].sum() == pytest.approx(start[i, -1] ** 2, rel=1e-10)


def test_many_probes_in_pieces(monkeypatch):
    values = np.random.default_rng(0).standard_normal(50)
    starts = np.random.default_rng(1).choice([-1.0, 1.0], (7, 50)) / np.sqrt(50)
    whole = hessian.quadrature(lambda rows: rows * values, starts, 10, 2e-16)
    monkeypatch.setattr(hessian, "_MEMORY", 3 * 50 * 8 * 11)
    pieces = hessian.quadrature(lambda rows: rows * values, starts, 10, 2e-16)
    for one, other in zip(whole, pieces, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)


def test_density_and_counts_agree_with_all_eigenvalues():
    """Within the errors that are given with them: 48 probes, and a band of 4 standard errors."""
    traj, loss, H = drawn_with_hessian("vanilla")
    truth, P = np.linalg.eigvalsh(H), len(H)
    result = rg.hessian_spectrum(traj, loss, probes=48, steps=P, seed=3)
    spread = np.exp(-0.5 * ((result.grid - truth[:, None]) / result.width) ** 2) / (result.width * np.sqrt(2 * np.pi))
    rounding = 1e-9 * spread.mean(axis=0).max()
    assert (np.abs(result.density - spread.mean(axis=0)) <= 4 * result.density_error + rounding).all()
    assert np.trapezoid(result.density, result.grid) == pytest.approx(1, abs=1e-3)
    kept = (result.levels > 1e-5 * np.abs(truth).max())[:, None]
    for found, error, expected in (
        (result.above, result.above_error, truth > result.levels[:, None]),
        (result.below, result.below_error, truth < -result.levels[:, None]),
    ):
        off = np.abs(found - expected.sum(axis=1)) > 4 * error + 1e-9
        assert not (off & kept[:, 0]).any()
    assert result.above[0] > 5 and result.below[0] > 5
    assert abs(result.trace - np.trace(H)) <= 4 * result.trace_error
    again = rg.hessian_spectrum(traj, loss, probes=48, steps=P, seed=3)
    np.testing.assert_array_equal(again.nodes, result.nodes)
    np.testing.assert_array_equal(again.eigenvalues, result.eigenvalues)
    assert rg.hessian_spectrum(traj, loss, probes=2, steps=4, width=0.7).width == 0.7


def test_errors_cover():
    """The trace lies within two standard errors of 16 probes in 93.6 % of 300 runs (Student, 4 deviations)."""
    A = np.random.default_rng(0).standard_normal((40, 40))
    A += A.T
    rng, hits = np.random.default_rng(1), 0
    for _ in range(300):
        starts = rng.choice([-1.0, 1.0], (16, 40)) / np.sqrt(40)
        nodes, weights = hessian.quadrature(lambda rows: rows @ A, starts, 4, 2e-16)
        mean, error = hessian._mean(40 * np.sum(nodes * weights, axis=1))
        hits += abs(mean - np.trace(A)) <= 2 * error
    assert abs(hits / 300 - 0.936) < 4 * np.sqrt(0.936 * 0.064 / 300)


def test_zero_matrix():
    traj = make_case("gru").traj
    loss = rg.losses.squared_error(np.zeros(traj.y.shape), weights=np.zeros(5))
    result = rg.hessian_spectrum(traj, loss, leading=3)
    np.testing.assert_array_equal(result.eigenvalues, 0)
    np.testing.assert_array_equal(result.above + result.below, 0)
    assert result.trace == result.trace_error == 0


def test_gauss_newton_of_a_linear_readout():
    """Over V and c alone it is the second moment of [h; 1], once for each output; all else is held fixed by x = 0."""
    net = rg.Network.init("linear", 0, 3, 2, seed=0)
    net = net.replace(V=0 * net.V)  # no way from W and b to y
    traj = rg.rollout(net, steps=6, s0=np.random.default_rng(0).standard_normal((4, 1, 3)))
    rows = np.concatenate([traj.h, np.ones((6, 4, 1))], axis=-1).reshape(-1, 4)
    loss = rg.losses.squared_error(np.zeros((6, 4, 2)))
    expected = np.sort(np.repeat(np.linalg.eigvalsh(rows.T @ rows), 2))[::-1]
    result = rg.hessian_spectrum(traj, loss, matrix="gauss_newton", leading=20, probes=2, steps=4)
    np.testing.assert_allclose(result.eigenvalues[:8], expected, rtol=1e-12)
    np.testing.assert_allclose(result.eigenvalues[8:], 0, atol=1e-12 * expected[0])


def test_no_convergence_is_an_error(monkeypatch):
    traj, loss, _ = drawn_with_hessian()
    impatient = functools.partial(scipy.sparse.linalg.eigsh, maxiter=1, ncv=12)
    monkeypatch.setattr(hessian.scipy.sparse.linalg, "eigsh", impatient)
    with pytest.raises(rg.ConvergenceError, match=r"of the 8 leading eigenvalues of a 138 x 138 matrix converged"):
        rg.hessian_spectrum(traj, loss)


def test_bad_arguments():
    traj, loss, H = drawn_with_hessian()
    for change, message in (
        ({"matrix": "fisher"}, r"matrix is 'fisher'; it must be one of 'hessian', 'gauss_newton'"),
        ({"leading": 0}, rf"leading is 0; it must be in 1…{len(H)}"),
        ({"leading": len(H) + 1}, rf"leading is {len(H) + 1}; it must be in"),
        ({"probes": 1}, r"probes is 1; it must be at least 2"),
        ({"steps": 1}, r"steps is 1; it must be at least 2"),
        ({"width": 0.0}, r"width is 0.0; it must be in \(0"),
    ):
        with pytest.raises(ValueError, match=message):
            rg.hessian_spectrum(traj, loss, **change)


def test_figure(tmp_path):
    traj, loss, H = drawn_with_hessian()
    result = rg.hessian_spectrum(traj, loss, leading=len(H))
    title = result.plot().get_title(loc="left").replace("\n", " ")
    assert "lstm, 4 units: Hessian, largest eigenvalue" in title
    truth = np.linalg.eigvalsh(H)
    assert f"{int(np.sum(truth < -1e-5 * np.abs(truth).max()))} of 138 directions curve down" in title
    assert "none negative" in rg.hessian_spectrum(traj, loss, matrix="gauss_newton").plot().get_title(loc="left")
    assert result.save(tmp_path / "h.npz").exists()


@pytest.mark.filterwarnings("error")
def test_figure_of_a_zero_matrix():
    traj, _, _ = drawn_with_hessian()
    flat = rg.losses.squared_error(np.zeros(traj.y.shape), np.zeros(traj.T))
    assert "none negative" in rg.hessian_spectrum(traj, flat).plot().get_title(loc="left")
