"""Fixed points against the equations of the cells in torch, mpmath, and a plain NumPy Anderson iteration."""

import functools
import math

import mpmath
import numpy as np
import oracles
import pytest
from cases import CELLS, make_case

import rnngrad as rg
from rnngrad.fixedpoint.solve import METHODS

torch = oracles.torch


def settled(cell, scale=0.5, dtype="float64", **sizes):
    """A network that is small enough to have an attracting fixed point, and inputs (B, m)."""
    drawn = make_case(cell, scale=scale, dtype=dtype, T=1, **sizes)
    return drawn, drawn.x[0]


def step(drawn, s, x):
    """f(s, x) by torch, (B, S, n)."""
    P = {name: oracles.tensor(a) for name, a in drawn.params.items()}
    alpha = None if drawn.alpha is None else oracles.tensor(drawn.alpha)
    s, x = (oracles.tensor(np.asarray(a, dtype=np.float64)) for a in (s, x))
    return oracles.step(drawn.cell, P, s, x, drawn.net.activation, alpha).numpy()


def scalar(w, b=0.0, activation="tanh", cell="vanilla"):
    net = rg.Network.init(cell, 0, 1, activation=None if cell == "linear" else activation)
    return net.replace(W=np.array([[[w]]]), b=np.array([[b]]))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("cell", CELLS)
def test_residual_is_that_of_the_equations(cell, method):
    drawn, x = settled(cell)
    fp = rg.solve_fixed_point(drawn.net, x, method=method)
    assert fp.status.tolist() == ["converged"] * 3 and (fp.residual <= 1e-10).all()
    away = np.linalg.norm((step(drawn, fp.s, x) - fp.s).reshape(3, -1), axis=1)
    np.testing.assert_allclose(away, fp.residual, atol=1e-14)  # sums of a few terms of order 1
    again = rg.rollout(drawn.net, x[None], s0=fp.s)
    np.testing.assert_allclose(fp.y, again.y[0], atol=1e-9)
    assert fp.h.shape == (3, 4) and fp.history.shape == (fp.iterations.max() + 1, 3)
    for b in range(3):
        assert np.isfinite(fp.history[: fp.iterations[b] + 1, b]).all()
        assert np.isnan(fp.history[fp.iterations[b] + 1 :, b]).all()
        assert fp.history[fp.iterations[b], b] == fp.residual[b]


@pytest.mark.parametrize("cell", CELLS)
def test_jacobian_and_its_spectral_radius(cell):
    drawn, x = settled(cell)
    fp = rg.solve_fixed_point(drawn.net, x, tol=1e-13)
    for b in range(3):
        shape = fp.s[b].shape
        own = torch.autograd.functional.jacobian(functools.partial(torch_step, drawn, x[b]), torch.tensor(fp.s[b]))
        J = own.reshape(math.prod(shape), -1).numpy()
        np.testing.assert_allclose(fp.jacobian[b], J, atol=1e-13)
        np.testing.assert_allclose(fp.spectral_radius[b], np.abs(np.linalg.eigvals(J)).max(), rtol=1e-9)
        np.testing.assert_allclose(fp.condition[b], np.linalg.cond(np.eye(len(J)) - J), rtol=1e-9)
    picard = rg.solve_fixed_point(drawn.net, x, method="picard", tol=1e-12)
    assert (picard.contraction < 1).all()


def torch_step(drawn, x, s):
    P = {name: oracles.tensor(a) for name, a in drawn.params.items()}
    alpha = None if drawn.alpha is None else oracles.tensor(drawn.alpha)
    return oracles.step(drawn.cell, P, s, oracles.tensor(x), drawn.net.activation, alpha)


def linear(W):
    return rg.Network.init("linear", 0, len(W)).replace(W=W[None])


def test_spectral_radius_by_arnoldi(monkeypatch):
    """Random matrices with more rows than Arnoldi vectors, whose leading pair hides behind others."""
    from rnngrad.fixedpoint import spectrum

    n = 202
    matrices = [np.random.default_rng(seed).standard_normal((n, n)) / np.sqrt(n) for seed in (1, 8)]
    dense = [rg.solve_fixed_point(linear(W), max_iterations=1).spectral_radius for W in matrices]
    monkeypatch.setattr(spectrum, "_DENSE", 1)
    for W, radius in zip(matrices, dense, strict=True):
        found = rg.solve_fixed_point(linear(W), max_iterations=1).spectral_radius
        np.testing.assert_allclose(found, radius, rtol=1e-10)


def test_spectral_radius_where_arnoldi_breaks_down(monkeypatch):
    from rnngrad.fixedpoint import spectrum

    monkeypatch.setattr(spectrum, "_DENSE", 1)
    blind = np.zeros((70, 70))
    blind[0, 1:3] = 1, -1  # J 1 = 0, J^2 = 0
    for W, radius in ((np.zeros((70, 70)), 0), (0.5 * np.eye(70), 0.5), (blind, 0)):
        fp = rg.solve_fixed_point(linear(W))
        np.testing.assert_allclose(fp.spectral_radius, radius, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_scalar_tanh(method):
    """h = tanh(2 h + 0.1) from 1, to the precision of the residual over 1 - w (1 - h^2)."""
    with mpmath.workdps(30):
        h = float(mpmath.findroot(lambda h: h - mpmath.tanh(2 * h + mpmath.mpf("0.1")), 0.97))
    fp = rg.solve_fixed_point(scalar(2.0, 0.1), method=method, s0=[1.0], tol=1e-13)
    slope = 2 * (1 - h * h)
    assert abs(fp.h[0, 0] - h) <= (1e-13 + 4e-16) / (1 - slope)
    np.testing.assert_allclose(fp.spectral_radius, slope, rtol=1e-10)
    assert fp.condition[0] == 1.0  # a single number
    if method == "picard":
        np.testing.assert_allclose(fp.contraction, slope, rtol=1e-2)


def anderson(f, s, window, damping, count):
    """Residuals of Anderson's iteration with a least-squares solver: slow and plain."""
    states, images, out = [], [], []
    for _ in range(count):
        states.append(s)
        images.append(f(s) - s)
        out.append(np.linalg.norm(images[-1]))
        kept = min(len(states) - 1, window)
        s = s + damping * images[-1]
        if kept:
            dS = np.diff(np.stack(states[-kept - 1 :]), axis=0).T
            dR = np.diff(np.stack(images[-kept - 1 :]), axis=0).T
            gamma = np.linalg.lstsq(dR, images[-1], rcond=None)[0]
            s = s - (dS + damping * dR) @ gamma
    return np.array(out)


@pytest.mark.parametrize(("window", "damping"), [(1, 1.0), (3, 1.0), (5, 0.6)])
def test_anderson(window, damping):
    drawn, x = settled("lstm", scale=0.8)
    fp = rg.solve_fixed_point(drawn.net, x, window=window, damping=damping)
    for b in range(3):
        count = min(fp.iterations[b], 12)
        truth = anderson(
            lambda s, b=b: step(drawn, s.reshape(1, 2, 4), x[b : b + 1]).ravel(), np.zeros(8), window, damping, count
        )
        # the normal equations see the condition number squared: about half of the digits
        np.testing.assert_allclose(fp.history[:count, b], truth, rtol=1e-4)


def test_anderson_on_a_linear_map_ends_with_the_krylov_space():
    rng = np.random.default_rng(0)
    net = rg.Network.init("linear", 2, 4).replace(W=rng.standard_normal((1, 4, 4)))
    x = rng.standard_normal((5, 2))
    fp = rg.solve_fixed_point(net, x, window=6, tol=1e-9)
    truth = np.linalg.solve(np.eye(4) - net.W[0], (x @ net.U[0].T + net.b[0]).T).T
    assert fp.converged.all() and (fp.iterations <= 7).all() and fp.spectral_radius[0] > 1
    np.testing.assert_allclose(fp.h, truth, atol=1e-7)


def test_damping_of_picard():
    """h = -2 h + 3: plain iteration diverges, half steps shrink the distance by |1 - 3/2| each."""
    net = scalar(-2.0, 3.0, cell="linear")
    assert rg.solve_fixed_point(net, method="picard").status[0] == "diverged"
    fp = rg.solve_fixed_point(net, method="picard", damping=0.5)
    np.testing.assert_allclose(fp.h, 1.0, atol=1e-10)
    np.testing.assert_allclose(fp.contraction, 0.5, rtol=1e-10)


def test_every_sample_has_its_status():
    """One batch in which every sample fails in another way; those that can are solved."""

    def f(s, x, p):
        return np.array([p[0] * np.log(1 + s[0]) + x[0]])

    system = rg.System(f, 1, params=[1.0], n_inputs=1)
    x = np.array([[1.0], [1.0], [1.0], [-0.5]])  # h = log(1 + h) - 0.5 has no solution
    s0 = np.array([[[3.0]], [[-2.0]], [[np.nan]], [[2.0]]])
    fp = rg.solve_fixed_point(system, x, "picard", s0=s0)
    assert fp.status.tolist() == ["converged", "outside", "invalid", "diverged"]
    truth = float(mpmath.findroot(lambda h: h - mpmath.log(1 + h) - 1, 2.1))
    np.testing.assert_allclose(fp.h[0], truth, atol=1e-9)
    with pytest.raises(rg.ConvergenceError, match=r"3 of 4 samples are not at a fixed point: sample 1 is 'outside'"):
        fp.require_converged()


@pytest.mark.parametrize(
    ("net", "options", "status", "cycle"),
    [
        (scalar(-3.0), {"method": "picard", "s0": [0.2]}, "oscillating", 2),
        (scalar(2.0, cell="linear", b=1.0), {"method": "picard"}, "diverged", 0),
        (scalar(0.99, 0.5), {"method": "picard", "max_iterations": 2}, "limit", 0),
        (scalar(0.5, 0.5), {"method": "picard", "tol": 1e-30, "s0": [0.3]}, None, 0),
        (scalar(1.0, cell="linear", b=1.0), {"method": "newton"}, "singular", 0),
    ],
)
def test_status(net, options, status, cycle):
    fp = rg.solve_fixed_point(net, **options)
    if status is None:  # the residual is rounding, or exactly 0
        assert fp.status[0] in ("rounding", "converged") and fp.residual[0] < 1e-15
    else:
        assert fp.status[0] == status
        with pytest.raises(rg.ConvergenceError, match=f"sample 0 is '{status}'"):
            fp.require_converged()
    assert fp.cycle[0] == cycle


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("w", [-0.999, -1.001])
def test_a_slow_spiral_is_no_cycle(w, dtype):
    """It comes back to (1 - w^2) / |1 - w| = 1e-3 of a step after two of them, nearer or further each time."""
    net = scalar(w, 1.0, cell="linear").astype(dtype)
    fp = rg.solve_fixed_point(net, method="picard", tol=1e-4 if w > -1 else 1e-6, max_iterations=1000)
    assert fp.status.tolist() == ["limit"] and fp.cycle.tolist() == [0]
    np.testing.assert_allclose(fp.contraction, -w, atol=1e-4)
    if w > -1:
        assert rg.solve_fixed_point(net, method="picard", tol=1e-4, max_iterations=20_000).converged.all()


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("w", [-1.05, -1.5, -3.0])
def test_cycles(w, dtype):
    """h <- tanh(w h) settles on +-h*, for w near -1 by a factor of about 1 - 2 (|w| - 1) a step."""
    fp = rg.solve_fixed_point(scalar(w).astype(dtype), method="picard", s0=np.array([0.2], dtype), tol=1e-6)
    assert fp.status.tolist() == ["oscillating"] and fp.cycle.tolist() == [2]


@pytest.mark.parametrize("method", METHODS)
def test_tolerance_below_rounding(method):
    drawn, x = settled("gru", n=12)
    fp = rg.solve_fixed_point(drawn.net, x, method=method, tol=1e-25)
    assert set(fp.status) <= {"rounding", "converged"}  # a residual can come out as 0
    assert method != "anderson" or "rounding" in fp.status
    assert (fp.residual < 1e-14).all() and (fp.iterations < 500).all()


@pytest.mark.parametrize("method", METHODS)
def test_float32(method):
    drawn, x = settled("lstm", dtype="float32")
    fp = rg.solve_fixed_point(drawn.net, x, method=method, tol=2e-6)
    assert fp.s.dtype == fp.h.dtype == np.float32 and fp.converged.all()
    wide = rg.solve_fixed_point(drawn.net.astype("float64"), x.astype(np.float64))
    np.testing.assert_allclose(fp.s, wide.s, atol=2e-5)


@pytest.mark.parametrize("method", ["picard", "anderson"])
def test_a_sample_does_not_see_the_others(method):
    drawn, _ = settled("mgu", n=5, B=1)
    x = np.random.default_rng(0).standard_normal((19, 3))
    together = rg.solve_fixed_point(drawn.net, x, method=method)
    for b in (0, 7, 8, 18):
        alone = rg.solve_fixed_point(drawn.net, x[b], method=method)
        np.testing.assert_array_equal(alone.s[0], together.s[b])


def test_bad_arguments():
    drawn, x = settled("gru")
    net = drawn.net
    stack = rg.Stack.init("gru", 3, 4, n_layers=2)
    masked = rg.rollout(net, x[None], dropout=rg.Dropout(0.5)).net
    for arguments, options, message in (
        ((net, x, "euler"), {}, r"method is 'euler'; it must be one of"),
        ((net, x), {"tol": 0.0}, r"tol is 0.0; it must be in \(0"),
        ((net, x), {"window": 0}, r"window is 0; it must be in 1…50"),
        ((net, x), {"damping": 1.5}, r"damping is 1.5; it must be in \(0"),
        ((net, x), {"max_iterations": 0}, r"max_iterations is 0; it must be at least 1"),
        ((net, x[:, :2]), {}, r"x has shape \(3, 2\); it must have shape \(B, 3\)"),
        ((net, np.zeros((4, 2, 3))), {}, r"x has shape \(4, 2, 3\); it must be \(B, m\) or \(m,\)"),
        ((net, x), {"s0": np.zeros((2, 1, 4))}, r"s0 has shape \(2, 1, 4\); it must have shape \(3, 1, 4\)"),
        ((net, x[:0]), {}, r"x has shape \(0, 3\); it must hold one sample or more"),
        ((net, x[0]), {"s0": np.zeros((0, 1, 4))}, r"s0 has shape \(0, 1, 4\); it must hold one sample or more"),
        ((net, x), {"s0": np.zeros(5)}, r"s0 has shape \(5,\); it must have shape \(4,\)"),
        ((net, np.full((3, 3), np.nan)), {}, r"x is nan at index"),
        ((stack, x), {}, r"net is Stack; it must be a Network"),
        ((masked, x), {}, r"net holds a mask that changes"),
    ):
        with pytest.raises(ValueError, match=message):
            rg.solve_fixed_point(*arguments, **options)
