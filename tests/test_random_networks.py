"""Random networks measured: the same numbers by plain NumPy, and the table of mean field against measurement."""

import numpy as np
import pytest

import rnngrad as rg
from rnngrad.analysis.random_networks import random_networks


def test_exponent_and_variance_by_plain_numpy():
    """A tangent vector stretched step by step; what is averaged starts after the transient."""
    result = random_networks([0.7, 2.5], n=30, seeds=(4, 5), steps=400, transient=100, bias_variance=0.2)
    assert result.lambda1.shape == result.q.shape == (2, 2)
    for i, g in enumerate((0.7, 2.5)):
        for j, seed in enumerate((4, 5)):
            rng = np.random.default_rng(seed)
            W = g * rng.standard_normal((30, 30)) / np.sqrt(30)
            b, h = np.sqrt(0.2) * rng.standard_normal(30), None
            h = rng.standard_normal(30)
            v, stretch, squares = np.ones(30) / np.sqrt(30), [], []
            for _ in range(500):
                a = W @ h + b
                h = np.tanh(a)
                v = (1 - h * h) * (W @ v)
                stretch.append(np.log(np.linalg.norm(v)))
                squares.append(np.mean(a * a))
                v /= np.linalg.norm(v)
            # in chaos two runs differ by rounding after a hundred steps, and their averages by the error of an average;
            # a pair of complex eigenvalues turns the vector, whose first and last angles count in 1/400
            assert abs(result.lambda1[i, j] - np.mean(stretch[100:])) < (0.01 if g < 1 else 6 * result.stderr[i, j])
            assert abs(result.q[i, j] / np.mean(squares[100:]) - 1) < (1e-9 if g < 1 else 0.1)
    np.testing.assert_array_equal(result.prediction.q, rg.mean_field([0.7, 2.5], bias_variance=0.2).q)
    theory = result.prediction.lambda1
    np.testing.assert_allclose(result.relative_error, (result.lambda1.mean(axis=1) - theory) / np.abs(theory))


@pytest.mark.slow
@pytest.mark.parametrize("n, g, tolerance", [(800, (2, 3, 5), 0.03), (1600, (1.5,), 0.10)])
def test_networks_have_the_exponent_of_mean_field(n, g, tolerance):
    """Near the edge of chaos a network needs more units: at g = 1.5 and n = 800 the mean is 9 % low."""
    result = random_networks(g, n=n)
    assert (np.abs(result.relative_error) < tolerance).all()
    np.testing.assert_allclose(result.q.mean(axis=1), result.prediction.q, rtol=tolerance)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"g": []}, "g is"),
        ({"seeds": ()}, "seeds is"),
        ({"seeds": 3}, "seeds is 3"),
        ({"n": 0}, "n_hidden is 0"),
        ({"g": -1.0}, "g is"),
    ],
)
def test_bad_arguments_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        random_networks(**{"g": [1.0], "n": 4, "steps": 20, **change})


def test_networks_are_drawn_over_the_theory(tmp_path):
    result = random_networks([0.5, 2.0], n=20, seeds=(0,), steps=50, transient=10)
    assert "within" in result.plot().get_title(loc="left")
    result.save(tmp_path / "networks.npz")


def test_where_the_theory_is_zero_or_minus_infinity_there_is_no_relative_error():
    result = random_networks([0.0, 0.5, 1.0], n=20, seeds=(0,), steps=50, transient=10)
    np.testing.assert_array_equal(np.isnan(result.relative_error), [True, False, True])
    off = np.abs(result.lambda1[1:, 0] - [np.log(0.5), 0]).max()
    assert f"within {off:.2g}" in result.plot().get_title(loc="left").replace("\n", " ")


@pytest.mark.parametrize(("activation", "word"), [("tanh", "chaotic"), ("identity", "unstable"), ("relu", "unstable")])
def test_only_bounded_states_are_called_chaotic(activation, word):
    assert word in rg.mean_field([0.5, 2.0], activation=activation).plot().get_title(loc="left")
    title = rg.phase_diagram([0.5, 2.0], [0.0, 1.0], activation=activation).plot().get_title(loc="left")
    assert ("delay chaos" in title) == (word == "chaotic") and ("chaos" in title) == (word == "chaotic")
