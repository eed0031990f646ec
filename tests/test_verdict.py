"""Verdicts on networks built to vanish, to explode and to be healthy."""

import re

import numpy as np
import pytest
from cases import CELLS, make_case
from systems import linear, orthogonal

import rnngrad as rg
from rnngrad.analysis import reach, verdict, words
from rnngrad.losses import squared_error


def judged(traj, **options):
    return verdict.verdict(traj, squared_error(np.ones_like(traj.y)), **options)


def random_input(net, T=150, scale=1.0):
    return rg.rollout(net, scale * np.random.default_rng(2).standard_normal((T, 2, net.m)))


def kinds(result):
    return [remedy.kind for remedy in result.remedies]


def test_orthogonal_linear_network_is_healthy():
    result = judged(linear(orthogonal(5), T=150))
    assert result.label == "healthy" and not result.remedies
    assert "arrives" in result.summary


def test_contracting_network_vanishes_and_is_told_that_no_input_can_help():
    net = rg.Network.init("vanilla", 3, 8, 2, seed=0)
    result = judged(random_input(net.replace(W=0.7 * net.W)))
    assert result.label == "vanishing"
    assert any("cannot grow" in reason for reason in result.reasons)
    assert {"initialization", "architecture", "window"} <= set(kinds(result))
    assert result.numbers["target_lam"] == 1


def test_saturated_network_vanishes_because_of_its_inputs():
    net = rg.Network.init("vanilla", 3, 16, 2, seed=0)
    result = judged(random_input(net, scale=20.0))
    assert result.label == "vanishing" and kinds(result)[0] == "inputs"
    assert result.numbers["saturated"] > verdict.SATURATED


def test_expanding_network_explodes_and_is_told_to_clip():
    for traj in (linear(1.2 * orthogonal(5), T=150), linear(2.0 * orthogonal(5), T=30)):
        result = judged(traj)
        assert result.label == "exploding" and kinds(result)[0] == "clip"
        growth_per_step = np.linalg.norm(traj.net.W[0], 2)
        assert result.numbers["grown_lag"] == np.ceil(np.log(verdict.GROWN) / np.log(growth_per_step))


def test_chaotic_network_explodes():
    net = rg.Network.init("vanilla", 3, 64, 2, scheme="gaussian", gain=3.0, seed=0)
    result = judged(random_input(net, scale=0.1))
    assert result.label == "exploding" and result.numbers["lam"] > 5


def test_forgetful_lstm_vanishes_and_the_advised_bias_mends_it():
    net = rg.Network.init("lstm", 3, 16, 2, forget_bias=0.0, seed=0)
    net = net.replace(W=0.05 * net.W, U=0.05 * net.U)
    result = judged(random_input(net))
    assert result.label == "vanishing" and kinds(result)[0] == "gate bias"
    b = net.b.copy()
    b[net.cell.gates.index("f")] += result.numbers["gate_shift"] + 1
    mended = judged(random_input(net.replace(b=b)))
    assert mended.label == "healthy"


def test_the_wanted_lag_decides():
    traj = linear(0.9 * orthogonal(4), T=150)
    assert judged(traj, wanted=20).label == "healthy"
    assert judged(traj, wanted=100).label == "vanishing"
    with pytest.raises(ValueError, match="wanted"):
        judged(traj, wanted=151)


def test_a_reach_that_does_not_get_there_is_refused():
    traj = linear(orthogonal(3), T=20)
    loss = squared_error(np.zeros_like(traj.y), weights=np.arange(20) < 5)
    measured = reach.gradient_reach(traj, loss)
    with pytest.raises(ValueError, match="no reference step"):
        verdict.verdict(traj, loss, reach=measured, wanted=9)


def test_dead_relu_network_has_exactly_no_gradient():
    net = rg.Network.init("vanilla", 1, 4, activation="relu", seed=0)
    traj = rg.rollout(net.replace(b=np.full((1, 4), -9.0)), np.zeros((30, 1, 1)))
    result = judged(traj)
    assert result.label == "vanishing" and "exactly 0" in result.summary


@pytest.mark.parametrize("cell", CELLS)
def test_every_number_of_a_verdict_is_among_its_numbers(cell):
    """Each number in the text is one of ``numbers`` or ``thresholds``, as the text writes it."""
    for scale in (0.5, 2.0):
        result = judged(make_case(cell, n=8, T=60, scale=scale).traj)
        values = [*result.numbers.values(), *result.thresholds.values()]
        known = {words.short(v) for v in values} | {words.factor(v).lstrip("×") for v in values}
        known |= {f"{v:.0f}" for v in values} | {f"{v:g}" for v in values} | {"1"}  # "1 - alpha"
        for number in re.findall(r"(?<![\w.])\d[\d.]*(?:e[+-]?\d+)?", str(result)):
            assert number.rstrip(".") in known, (number, str(result))


def test_verdict_of_a_users_system():
    system = rg.System(lambda s, x, p: (1 - p[0] * s[0] * s[0] + s[1], p[1] * s[0]), n_state=2, params=[1.4, 0.3])
    result = judged(rg.rollout(system, steps=200))
    assert result.label == "exploding" and kinds(result) == ["clip", "window"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.99954, "0.99954"), (1.0046, "1.0046"), (1.0, "1"), (0.5, "0.5"), (1234.5, "1234"), (3.2e-7, "3.2e-07")],
)
def test_numbers_in_prose(value, text):
    assert words.short(value) == text


def test_factors_in_prose_are_right_beyond_floats():
    assert words.factor(-2000.0) == "×2.6e-869"
    assert words.factor(np.log(9.96) - 20 * np.log(10)) == "×1.0e-19"
    assert words.factor(-np.inf) == "exactly 0"
