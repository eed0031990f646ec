"""Verdicts on networks built to vanish, to explode and to be healthy."""

import re

import numpy as np
import pytest
from cases import CELLS, make_case
from systems import linear, orthogonal

import rnngrad as rg
from rnngrad.analysis import lag_ranges, reach, verdict, words
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


def with_bias(net, gate, value):
    """The network with another bias of one gate."""
    b = net.b.copy()
    b[net.cell.gates.index(gate)] = value
    return net.replace(b=b)


def faint(net):
    """The network with next to nothing in its recurrent and input weights: its gates stand at their biases."""
    return net.replace(**{k: 0.05 * v for k, v in net.parameters.items() if k[0] in "WU"})


def test_small_weights_vanish_and_the_advised_start_mends_it():
    """sigma_max(W) = 0.7: no input can help; an orthogonal W of the singular values advised arrives."""
    net = rg.Network.init("vanilla", 3, 8, 2, seed=0)
    result = judged(random_input(net.replace(W=0.7 * net.W), scale=0.01))
    assert result.label == "vanishing"
    assert any("cannot grow" in reason for reason in result.reasons)
    assert kinds(result) == ["initialization", "architecture", "window"]
    assert result.numbers["target_lam"] == 1
    assert result.numbers["horizon"] <= np.ceil(np.log(verdict.LOST) / np.log(0.7)) + 2
    assert (
        judged(random_input(net.replace(W=orthogonal(8)[None] * result.numbers["target_lam"]), scale=0.01)).label
        == "healthy"
    )


def test_saturation_vanishes_and_smaller_inputs_mend_it():
    net = rg.Network.init("vanilla", 3, 16, 2, seed=0)
    result = judged(random_input(net, scale=20.0))
    assert result.label == "vanishing" and kinds(result)[0] == "inputs"
    assert result.numbers["saturated"] > verdict.SATURATED
    assert any("% of the values are saturated" in reason for reason in result.reasons)
    assert judged(random_input(net, scale=0.01)).label == "healthy"


def test_expanding_network_explodes_and_is_told_where_to_clip():
    """||Phi|| = g^lag: growth passes 1000 and 10 at known lags, and the norm truncated there is where to clip."""
    for traj in (linear(1.2 * orthogonal(5), T=150), linear(2.0 * orthogonal(5), T=30)):
        loss = squared_error(np.ones_like(traj.y))
        result = judged(traj)
        assert result.label == "exploding" and kinds(result) == ["clip", "initialization", "window"]
        growth_per_step = np.log(np.linalg.norm(traj.net.W[0], 2))
        assert result.numbers["grown_lag"] == np.ceil(np.log(verdict.GROWN) / growth_per_step)
        window = result.numbers["clip_window"]
        assert window == np.ceil(np.log(10) / growth_per_step)
        pieces = rg.truncation_bias(traj, loss, [int(window)])
        np.testing.assert_allclose(result.numbers["clip"], pieces.norm[0], rtol=1e-12)
        np.testing.assert_allclose(result.numbers["full_norm"], pieces.full_norm, rtol=1e-12)
        assert words.short(result.numbers["clip"]) in result.remedies[0].advice
        assert result.numbers["clip"] < 0.2 * result.numbers["full_norm"]


def test_past_norms_say_where_to_clip():
    traj = linear(1.2 * orthogonal(5), T=150)
    result = judged(traj, norms=[1.0, 2.0, 3.0, 4.0, 1e6])
    assert result.numbers["clip"] == 3 and result.numbers["largest_norm"] == 1e6
    assert "at 3, the median of the 5 norms given" in result.remedies[0].advice
    for wrong in ([], [-1.0, 2.0], [[1.0]], [np.nan]):
        with pytest.raises(ValueError, match="norms"):
            judged(traj, norms=wrong)


def test_an_explosion_beyond_floats_has_a_verdict_too():
    net = linear(10.0 * orthogonal(2)).net
    result = judged(rg.rollout(net, np.zeros((400, 1, 2))))
    assert result.label == "exploding" and np.isnan(result.numbers["full_norm"])
    assert np.isfinite(result.numbers["clip"]) and "the whole of it" not in result.remedies[0].advice
    np.testing.assert_allclose(result.numbers["median_log_ratio"], 100 * np.log(10), rtol=1e-12)


def test_chaotic_network_explodes():
    net = rg.Network.init("vanilla", 3, 64, 2, scheme="gaussian", gain=3.0, seed=0)
    result = judged(random_input(net, scale=0.1))
    assert result.label == "exploding" and result.numbers["lam"] > 5


@pytest.mark.parametrize(
    ("bias", "label"), [(-6.0, "vanishing"), (0.0, "vanishing"), (1.0, "vanishing"), (5.0, "healthy")]
)
def test_forget_bias_decides_on_an_lstm(bias, label):
    """f = s(bias): 100 steps keep f^100, more than a thousandth from bias 2.64 on."""
    net = faint(rg.Network.init("lstm", 3, 16, 2, forget_bias=bias, seed=0))
    result = judged(random_input(net))
    assert result.label == label
    np.testing.assert_allclose(result.numbers["leak_median"], 1 / (1 + np.exp(-bias)), rtol=0.01)
    assert any("The gate f is closed" in reason for reason in result.reasons) == (bias < -4.6)
    if label == "vanishing":
        assert kinds(result)[0] == "gate bias" and "window" in kinds(result)


@pytest.mark.parametrize(("cell", "gate"), [("lstm", "f"), ("gru", "u"), ("gru_reset_before", "u"), ("mgu", "f")])
def test_the_advised_bias_mends_a_forgetful_network(cell, gate):
    """By the shift, with a little more since the median unit only just gets there; and drawn anew by chrono."""
    net = faint(rg.Network.init(cell, 3, 16, 2, seed=0, **({"forget_bias": 0.0} if cell == "lstm" else {})))
    result = judged(random_input(net))
    sign = -1 if cell == "mgu" else 1
    assert result.label == "vanishing" and kinds(result)[0] == "gate bias"
    needed = np.log(1e-3 ** (1 / 100)) - np.log1p(-(1e-3 ** (1 / 100)))
    np.testing.assert_allclose(result.numbers["gate_shift"], needed, atol=0.1)  # from a bias of 0
    assert result.remedies[0].advice.startswith("Raise" if sign > 0 else "Lower")
    assert judged(random_input(with_bias(net, gate, sign * (result.numbers["gate_shift"] + 0.5)))).label == "healthy"
    np.testing.assert_allclose(result.numbers["chrono_bias"], sign * np.log(99))
    drawn = sign * np.log(np.random.default_rng(0).uniform(1, result.numbers["chrono_range"], 16))
    assert judged(random_input(with_bias(net, gate, drawn))).label == "healthy"


def test_leaky_units_are_told_their_time_constant():
    """1 - alpha = 1/2 forgets in 10 steps; a dt/tau of 1 - 0.001^(1/100) keeps a thousandth over 100 of them."""
    net = rg.Network.init("continuous", 3, 8, 2, dt=0.5, tau=1.0, seed=0)
    net = net.replace(W=0.01 * net.W)
    result = judged(random_input(net))
    assert result.label == "vanishing" and kinds(result)[0] == "time constant"
    np.testing.assert_allclose(result.numbers["tau_needed"], 0.5 / (1 - 1e-3**0.01), rtol=1e-12)
    assert judged(random_input(net.replace(tau=1.2 * result.numbers["tau_needed"]))).label == "healthy"


def test_the_window_of_a_vanishing_network_is_good_to_what_it_says():
    traj = random_input(rg.Network.init("vanilla", 3, 8, 2, scheme="spectral_radius", gain=0.8, seed=1))
    result = judged(traj)
    assert result.label == "vanishing"
    loss = squared_error(np.ones_like(traj.y))
    full = rg.bptt(traj, loss)
    for window, good in ((int(result.numbers["window"]), True), (int(result.numbers["window"]) - 1, False)):
        cut = rg.truncated_bptt(traj, loss, window=window)
        gap = sum(np.sum((getattr(cut, name) - getattr(full, name)) ** 2) for name in "WUb")
        norm = sum(np.sum(getattr(full, name) ** 2) for name in "WUb")
        assert (np.sqrt(gap / norm) <= verdict.WINDOW_BIAS) == good


def test_the_wanted_lag_decides():
    traj = linear(0.9 * orthogonal(4), T=150)
    assert judged(traj, wanted=20).label == "healthy"
    assert judged(traj, wanted=100).label == "vanishing"
    with pytest.raises(ValueError, match="wanted"):
        judged(traj, wanted=151)


# ---------------------------------------------------------------- ranges of lags


def ranges_of(median, rare=None):
    median = np.asarray(median, dtype=float)
    return lag_ranges.lag_ranges(np.arange(len(median)), median, np.asarray(median if rare is None else rare, float))


def test_ranges_are_decades_up_to_what_was_measured():
    assert [(r.first, r.last) for r in ranges_of(np.zeros(1151))] == [(1, 10), (11, 100), (101, 1000), (1001, 1150)]
    assert [(r.first, r.last) for r in ranges_of(np.zeros(12))] == [(1, 10), (11, 11)]
    assert [(r.first, r.last) for r in ranges_of(np.append(np.zeros(8), [np.nan] * 5))] == [(1, 7)]
    assert ranges_of([0.0]) == ()


def test_each_range_has_its_own_label_and_rate():
    """exp(-0.3 lag) is below 1/1000 from lag 24 on: 23.03 = ln 1000/0.3."""
    first, second = ranges_of(-0.3 * np.arange(51))
    assert (first.label, second.label) == ("healthy", "vanishing")
    assert np.isnan(first.since) and second.since == 24
    np.testing.assert_allclose([first.log_rate, second.log_rate], -0.3)
    np.testing.assert_allclose([first.log_median, second.log_median], [-3.0, -15.0])
    assert str(first) == "1–10 healthy" and str(second) == "11–50 vanishing from 24 on"


def test_a_rate_is_that_within_its_own_range():
    lags = np.arange(41)
    parts = ranges_of(np.where(lags <= 10, -0.1 * lags, -1.0 - 0.5 * (lags - 10)))
    np.testing.assert_allclose([part.log_rate for part in parts], [-0.1, -0.5])


def test_a_gradient_that_comes_back_has_not_vanished():
    median = np.zeros(11)
    median[4:7] = -20
    assert ranges_of(median)[0].label == "healthy"
    median[9:] = -20
    assert ranges_of(median)[0].since == 9


def test_one_in_ten_is_enough_to_explode():
    rare = np.zeros(31)
    rare[15:18] = 7.0  # e^7 = 1097
    first, second, *_ = ranges_of(-0.01 * np.arange(31), rare)
    assert (first.label, second.label, second.since, second.log_rare) == ("healthy", "exploding", 15, 7.0)


def test_a_gradient_of_exactly_zero_vanishes_at_a_rate_of_minus_infinity():
    median = np.zeros(21)
    median[5:] = -np.inf
    for part in ranges_of(median):
        assert part.label == "vanishing" and part.log_rate == -np.inf
    assert ranges_of(median)[0].since == 5


def test_healthy_to_20_and_vanishing_beyond():
    """0.9^lag is below 1/1000 from lag 66 on: a network for dependencies of 20 steps, not of 100."""
    traj = linear(0.9 * orthogonal(4), T=150)
    loss = squared_error(np.ones_like(traj.y))
    result = verdict.verdict(traj, loss, wanted=20, reach=reach.gradient_reach(traj, loss))
    assert result.label == "healthy" and not result.remedies
    assert [r.label for r in result.ranges] == ["healthy", "vanishing", "vanishing"]
    assert [r.since for r in result.ranges[1:]] == [66, 101]
    np.testing.assert_allclose([r.log_rate for r in result.ranges], np.log(0.9), rtol=1e-9)
    assert result.reasons[0].startswith("By lag: 1–10 healthy, 11–100 vanishing from 66 on, 101–150 vanishing (×0.9")


def test_exploding_first_and_vanishing_later():
    """A non-normal W: ||W^l|| = 30000 l 0.5^(l-1) and more within a few steps, nothing after 60."""
    traj = linear(np.array([[0.5, 3e4], [0.0, 0.5]]), T=150)
    loss = squared_error(traj.y - np.array([1.0, 0.0]))
    result = verdict.verdict(traj, loss, reach=reach.gradient_reach(traj, loss))
    assert [r.label for r in result.ranges] == ["exploding", "vanishing", "vanishing"]
    assert result.ranges[0].since == 1 and result.label == "exploding"
    norms = [np.linalg.norm(np.array([1.0, 0.0]) @ np.linalg.matrix_power(traj.net.W[0], lag)) for lag in range(101)]
    assert result.ranges[1].since == 1 + np.flatnonzero(np.array(norms) >= 1e-3)[-1]


def test_one_step_in_ten_decides_and_only_up_to_the_wanted_lag():
    """A reach made by hand: one line in five grows by e^8 from lag 30 on, the others keep their size."""
    traj = linear(orthogonal(3), T=60)
    log_norm = np.zeros((1, 10, 61))
    log_norm[:, :2, 30:] = 8.0
    by_hand = reach.GradientReach(np.arange(51, 61), np.arange(61), log_norm)
    assert [judged(traj, reach=by_hand, wanted=lag).label for lag in (29, 30)] == ["healthy", "exploding"]
    ranges = judged(traj, reach=by_hand, wanted=20).ranges
    assert [(r.label, r.log_median) for r in ranges] == [("healthy", 0.0), ("exploding", 0.0)]
    assert ranges[1].since == 30


def test_stacks_are_judged_too():
    rng = np.random.default_rng(0)
    for feedback in (False, True):
        net = rg.Stack.init(["lstm", "gru"], 2, [4, 5], 2, feedback=feedback, seed=0)
        traj = rg.rollout(net, rng.standard_normal((60, 2, net.m)))
        result = judged(traj)
        assert result.label == "vanishing" and kinds(result)[0] == "gate bias" and kinds(result)[-1] == "window"
        assert "the gates that keep the state" in result.remedies[0].advice


def test_the_figure_says_what_the_verdict_says():
    traj = linear(0.9 * orthogonal(4), T=150)
    loss = squared_error(np.ones_like(traj.y))
    result = verdict.verdict(traj, loss, wanted=20, reach=reach.gradient_reach(traj, loss))
    said = result.plot().get_title(loc="left").replace("\n", " ")
    assert said == "Healthy at lag 20; lags 1–10 healthy, 11–100 vanishing from 66 on, 101–150 vanishing"
    assert result.to_dict()["ranges"][1]["since"] == 66


# ---------------------------------------------------------------- what else may come


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
        values += [v for part in result.ranges for v in vars(part).values() if not isinstance(v, str)]
        values += [abs(v) for v in values]
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
