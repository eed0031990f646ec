"""Mean field of random networks against printed numbers, mpmath, closed forms and measured networks."""

import mpmath
import numpy as np
import pytest

import rnngrad as rg
from rnngrad.analysis import mean_field as module
from rnngrad.analysis.gaussian import gaussian_rule, hermite_coefficients
from rnngrad.analysis.mean_field import edge_of_chaos, mean_field
from rnngrad.analysis.phase_diagram import phase_diagram

TABLE = {1.5: (0.793354, 1.139323, 0.065217), 2: (2.121474, 1.362673, 0.154724)}
TABLE |= {3: (6.305391, 1.859855, 0.310249), 5: (20.699367, 2.900421, 0.532428)}

EXACT = {
    "tanh": (mpmath.tanh, lambda z: mpmath.sech(z) ** 2),
    "logistic": (lambda z: 1 / (1 + mpmath.exp(-z)), lambda z: mpmath.sech(z / 2) ** 2 / 4),
    "relu": (lambda z: max(z, mpmath.mpf(0)), lambda z: mpmath.mpf(z > 0)),
    "identity": (lambda z: z, lambda z: mpmath.mpf(1)),
    "softplus": (lambda z: mpmath.log1p(mpmath.exp(z)), lambda z: 1 / (1 + mpmath.exp(-z))),
}


def average(f, q):
    """E[f(u)], u ~ N(0, q), with 25 digits."""
    with mpmath.workdps(25):
        q = mpmath.mpf(q)
        cuts = sorted(
            {sign * s for sign in (-1, 1) for s in (0, 1, 3, 10, 30, *(k * mpmath.sqrt(q) for k in (1, 4, 12)))}
        )
        cuts = [cut for cut in cuts if abs(cut) <= 12 * mpmath.sqrt(q)]
        total = mpmath.quad(lambda u: f(u) * mpmath.exp(-u * u / (2 * q)), cuts, maxdegree=8)
        return total / mpmath.sqrt(2 * mpmath.pi * q)


@pytest.mark.parametrize("g", TABLE)
def test_printed_numbers_of_tanh_networks(g):
    result = mean_field(g)
    assert (f"{result.q:.6f}", f"{result.chi:.6f}", f"{result.lambda1:.6f}") == tuple(f"{x:.6f}" for x in TABLE[g])
    assert isinstance(result.q, float) and result.critical == 1
    many = mean_field(list(TABLE))
    assert many.q.shape == (4,) and many.q[list(TABLE).index(g)] == result.q


@pytest.mark.parametrize(
    "activation, g, bias_variance",
    [
        ("tanh", 1.5, 0), ("tanh", 5, 0), ("tanh", 60, 0), ("tanh", 1.01, 0), ("tanh", 0.7, 0.3), ("tanh", 2, 1e-6),
        ("logistic", 3, 0), ("logistic", 40, 2), ("softplus", 0.5, 0), ("softplus", 1.3, 0.2), ("relu", 1.2, 0.5),
        ("identity", 0.9, 0.1),
    ],
)  # fmt: skip
def test_q_and_chi_solve_their_equations_to_1e_12(activation, g, bias_variance):
    result = mean_field(g, activation=activation, bias_variance=bias_variance)
    phi, slope = EXACT[activation]
    expected = g**2 * average(lambda u: phi(u) ** 2, result.q) + bias_variance
    assert abs(expected / result.q - 1) < 1e-12 and result.residual < 1e-12
    chi = g**2 * average(lambda u: slope(u) ** 2, result.q)
    assert abs(result.chi / chi - 1) < 1e-12
    np.testing.assert_allclose(result.lambda1, np.log(result.chi) / 2, rtol=1e-14, atol=1e-15)


def test_q_where_it_has_a_closed_form():
    np.testing.assert_allclose(mean_field(1.2, activation="relu", bias_variance=0.3).q, 0.3 / (1 - 0.72), rtol=1e-12)
    np.testing.assert_allclose(mean_field(0.6, activation="identity", bias_variance=2).q, 2 / 0.64, rtol=1e-12)
    still = mean_field([0, 0.5, 1.0])
    np.testing.assert_array_equal(still.q, 0)
    np.testing.assert_array_equal(still.chi, [0, 0.25, 1])
    np.testing.assert_array_equal(still.lambda1, [-np.inf, np.log(0.5), 0])
    for activation, chi in (("relu", 0.5), ("identity", 1.0)):  # linear along a ray: chi does not depend on q
        np.testing.assert_allclose(mean_field([0.1, 0.9, 3], activation=activation).chi, chi * np.square([0.1, 0.9, 3]))


def test_a_variance_that_grows_without_bound_is_infinite():
    for activation, limit in (("relu", 0.5), ("softplus", 0.5), ("identity", 1.0)):
        result = mean_field(2.0, activation=activation, bias_variance=0.1)
        assert result.q == np.inf and np.isnan(result.correlation)
        np.testing.assert_allclose(result.lambda1, np.log(4 * limit) / 2)
    assert np.isnan(mean_field(1.0, activation="identity").q) and mean_field(1.0, activation="identity").chi == 1


@pytest.mark.parametrize("activation", EXACT)
@pytest.mark.parametrize("bias_variance", [0, 0.05, 1.5])
def test_chi_is_one_at_the_edge_of_chaos(activation, bias_variance):
    g = edge_of_chaos(activation, bias_variance)
    expected = {"relu": np.sqrt(2), "softplus": np.sqrt(2), "identity": 1.0}.get(activation)
    if expected is None and (activation, bias_variance) != ("tanh", 0):
        result = mean_field([0.99 * g, g, 1.01 * g], activation=activation, bias_variance=bias_variance)
        assert result.chi[0] < 1 < result.chi[2] and abs(result.chi[1] - 1) < 1e-12
        slope = EXACT[activation][1]
        assert abs(g**2 * average(lambda u: slope(u) ** 2, result.q[1]) - 1) < 1e-12
    else:
        np.testing.assert_allclose(g, expected or 1.0, rtol=1e-14)


@pytest.mark.parametrize("g, bias_variance, activation", [(1.8, 0.1, "tanh"), (2.5, 1.0, "tanh"), (14, 0, "logistic")])
def test_correlation_is_the_fixed_point_of_its_map(g, bias_variance, activation):
    """C and its slope by the trapezoidal rule in two dimensions, whose error is e^(-2 pi^2/(2 sqrt(q) h)) here."""
    result = mean_field(g, activation=activation, bias_variance=bias_variance)
    phi = {"tanh": np.tanh, "logistic": lambda z: 1 / (1 + np.exp(-z))}[activation]
    slope = {"tanh": lambda z: np.cosh(z) ** -2.0, "logistic": lambda z: 0.25 * np.cosh(z / 2) ** -2.0}[activation]
    z = np.arange(-180, 181) * 0.05
    w = np.exp(-z * z / 2)
    w, c = w / w.sum(), result.correlation
    first, second = np.sqrt(result.q) * z[:, None], np.sqrt(result.q) * (c * z[:, None] + np.sqrt(1 - c * c) * z)
    again = (g**2 * (w @ (phi(first) * phi(second)) @ w) + bias_variance) / result.q
    np.testing.assert_allclose(again, c, rtol=1e-9)
    rate = g**2 * (w @ (slope(first) * slope(second)) @ w)
    np.testing.assert_allclose(np.exp(-1 / result.length), rate, rtol=1e-9)
    assert 0 < c < 1 and rate < 1 < result.chi


def test_correlation_length():
    ordered = mean_field([0.5, 0.9, 0.999])
    np.testing.assert_allclose(ordered.length, -1 / np.log(np.square([0.5, 0.9, 0.999])))
    np.testing.assert_array_equal(ordered.correlation, 1)
    assert mean_field(1.0).length == np.inf
    chaotic = mean_field(3.0)  # odd phi without bias: trajectories forget each other, C'(0) = g^2 E[phi']^2
    assert chaotic.correlation == 0
    expected = 9 * average(lambda u: mpmath.sech(u) ** 2, chaotic.q) ** 2
    np.testing.assert_allclose(chaotic.length, -1 / np.log(float(expected)), rtol=1e-10)
    assert np.isnan(mean_field(3.0, correlations=False).length)


@pytest.mark.parametrize("variance", [1e-12, 0.01, 1, 30, 1e4, 1e12])
def test_gaussian_rule(variance):
    u, w = gaussian_rule(variance)
    np.testing.assert_allclose([w.sum(), w @ u**2, w @ u**4], [1, variance, 3 * variance**2], rtol=1e-13)
    np.testing.assert_allclose(w @ np.abs(u), np.sqrt(2 * variance / np.pi), rtol=1e-13)


def test_hermite_series_of_a_step_and_of_an_exponential():
    u, w = gaussian_rule(1.0)
    series = hermite_coefficients(np.exp(0.5 * u), u, w)
    expected = [np.exp(1 / 8) * 0.5**k / np.sqrt(float(mpmath.factorial(k))) for k in range(30)]
    np.testing.assert_allclose([next(series) for _ in range(30)], expected, atol=1e-13)
    series = hermite_coefficients(np.sign(u), u, w)
    squares = np.square([next(series) for _ in range(400)])
    c = 0.7  # E[sign sign] = 2/pi arcsin c
    np.testing.assert_allclose(squares @ c ** np.arange(400), 2 / np.pi * np.arcsin(c), rtol=1e-12)


def test_what_cannot_be_solved_is_said(monkeypatch):
    monkeypatch.setattr(module, "_RANGE", 1.0)
    with pytest.raises(rg.ConvergenceError, match="variance at g = 50"):
        mean_field(50)
    monkeypatch.undo()
    monkeypatch.setattr(module, "_TERMS", 32)
    with pytest.raises(rg.ConvergenceError, match="terms of its series"):
        mean_field(1.2, bias_variance=0.01)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"g": -1}, "g is"), ({"g": np.nan}, "g is nan"), ({"g": [[1.0]]}, "g is"), ({"g": []}, "g is"),
        ({"activation": "sin"}, "activation is 'sin'"), ({"bias_variance": -0.1}, "bias_variance is -0.1"),
    ],
)  # fmt: skip
def test_bad_arguments_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        mean_field(**{"g": 1.0, **change})


def test_phase_diagram_is_mean_field_on_a_grid():
    result = phase_diagram([0.5, 1.5, 3.0], [0.0, 0.5])
    for m, sigma in enumerate((0.0, 0.5)):
        np.testing.assert_array_equal(result.lambda1[m], mean_field([0.5, 1.5, 3.0], bias_variance=sigma**2).lambda1)
        assert result.critical[m] == edge_of_chaos("tanh", sigma**2)
    with pytest.raises(ValueError, match="sigma_b is"):
        phase_diagram([1.0], [-1.0])


def test_results_are_drawn(tmp_path):
    theory = mean_field(np.linspace(0.5, 3, 5))
    assert "1" in theory.plot().get_title(loc="left")
    assert phase_diagram([0.5, 1.5, 3.0], [0.0, 0.5]).plot().get_xlabel()
    theory.save(tmp_path / "theory.json")


def test_gain_sweep_is_the_reach_of_each_network():
    from rnngrad.analysis.gain_sweep import gain_sweep

    result = gain_sweep([0.8, 1.6], n=20, lag=5, samples=2, transient=10, seed=3)
    assert result.log_ratio.shape == (2, 3, 6) and (result.log_ratio[:, :, 0] == 0).all()
    W = np.random.default_rng(3).standard_normal((20, 20)) / np.sqrt(20)
    rng = np.random.default_rng(3)
    s = rng.standard_normal((2, 1, 20))[:, 0]
    states = [s]
    for _ in range(20):
        states.append(np.tanh(states[-1] @ (1.6 * W).T))
    target = rng.standard_normal((20, 2, 20))
    ratios = []
    for t in range(15, 21):
        row = start = states[t] - target[t - 1]
        for k in range(t, t - 5, -1):
            row = (row * (1 - states[k] ** 2)) @ (1.6 * W)
        ratios += list(np.log(np.linalg.norm(row, axis=1) / np.linalg.norm(start, axis=1)))
    expected = np.quantile(ratios, (0.1, 0.5, 0.9), method="inverted_cdf")
    np.testing.assert_allclose(result.log_ratio[1, :, 5], expected, rtol=1e-10)
