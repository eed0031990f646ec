"""Bias and cosine of truncated gradients against torch with detached states, and against closed forms."""

import matplotlib.pyplot as plt
import numpy as np
import oracles
import pytest
from cases import CELLS, UNEVEN, make_case
from detached import segments_of, truncated_by_detach
from systems import linear, orthogonal

import rnngrad as rg
from rnngrad.losses import squared_error


def flat(grads, names):
    return np.concatenate([np.ravel(grads[name]) for name in names])


def angle(g, full):
    if not g.any():  # no biases at all; or a gate that acts a step later, within a window of one
        return np.nan
    return g @ full / (np.linalg.norm(g) * np.linalg.norm(full))


def leaky(a, T, weights="last"):
    """h = a h + x with one unit, and the loss of the last step: dL/db = (h_T - z) sum_d a^d."""
    traj = linear(np.array([[a]]), T=T)
    return traj, squared_error(traj.y + 1.0, weights)


@pytest.mark.parametrize("lengths", [None, UNEVEN], ids=["even", "uneven"])
@pytest.mark.parametrize("k1", [1, 2])
@pytest.mark.parametrize("cell", CELLS)
def test_bias_and_cosine_are_those_of_detached_states(cell, k1, lengths):
    drawn = make_case(cell, n=3, m=2, lengths=lengths)
    target = drawn.rng.standard_normal((5, 3, 2))
    result = rg.truncation_bias(drawn.traj, squared_error(target), k1=k1)
    assert result.windows.tolist() == list(range(k1, 6)) and result.k1 == k1
    full = oracles.bptt(*drawn.args, oracles.squared_error(target), **drawn.kwargs)
    names = list(drawn.params)
    g = flat(full, names)
    np.testing.assert_allclose(result.full_norm, np.linalg.norm(g), rtol=1e-12)
    for i, window in enumerate(result.windows):
        cut = truncated_by_detach(drawn, target, segments_of(k1, int(window), 5))
        g_w = flat(cut, names)
        np.testing.assert_allclose(result.norm[i], np.linalg.norm(g_w), rtol=1e-11)
        np.testing.assert_allclose(result.bias[i], np.linalg.norm(g_w - g) / np.linalg.norm(g), rtol=0, atol=1e-11)
        np.testing.assert_allclose(result.cosine[i], angle(g_w, g), rtol=0, atol=1e-11)
        for name in names:
            own, whole = flat(cut, [name]), flat(full, [name])
            if not whole.any():
                assert np.isnan(result.parameter_bias[name][i])
                continue
            expected = np.linalg.norm(own - whole) / np.linalg.norm(whole)
            np.testing.assert_allclose(result.parameter_bias[name][i], expected, rtol=0, atol=1e-11)
            np.testing.assert_allclose(result.parameter_cosine[name][i], angle(own, whole), rtol=0, atol=1e-11)


def test_a_window_that_ends_in_the_middle_of_a_walk_is_as_if_it_were_alone():
    """Windows with gaps, of a stack that reads its own output; every one against a walk of its own."""
    net = rg.Stack.init(["lstm", "gru"], 2, [3, 4], 2, feedback=True, seed=0)
    rng = np.random.default_rng(0)
    traj = rg.rollout(net, rng.standard_normal((9, 2, net.m)))
    loss = squared_error(rng.standard_normal(traj.y.shape))
    full = dict(rg.bptt(traj, loss).parameters())
    result = rg.truncation_bias(traj, loss, [2, 5, 9])
    assert set(result.parameter_bias) == set(result.parameters) == set(full)
    for i, window in enumerate((2, 5, 9)):
        cut = dict(rg.truncated_bptt(traj, loss, window=window).parameters())
        expected = np.linalg.norm(flat(cut, full) - flat(full, full)) / np.linalg.norm(flat(full, full))
        np.testing.assert_allclose(result.bias[i], expected, rtol=0, atol=1e-12)
    assert result.bias[2] < 1e-12 and result.cosine[2] > 1 - 1e-12
    assert (result.parameter_bias["V"][:2] > 1e-6).all()  # what is fed back gives the readout a memory


@pytest.mark.parametrize("a", [0.9, -0.8, 0.5])
def test_bias_of_a_leaky_unit_in_closed_form(a):
    """g_w = e sum_{d < w} a^d of g = e sum_{d < T} a^d: bias |a|^w |1 - a^(T-w)|/(1 - a^T)."""
    T = 200
    traj, loss = leaky(a, T)
    result = rg.truncation_bias(traj, loss, np.arange(1, T + 1), parameters=["b"])
    w = result.windows
    expected = np.abs(a**w - a**T) / (1 - a**T)
    np.testing.assert_allclose(result.bias, expected, rtol=1e-9, atol=1e-14)
    np.testing.assert_array_equal(result.bias, result.parameter_bias["b"])
    np.testing.assert_allclose(result.cosine, 1, atol=1e-12)


def test_pieces_beyond_the_square_of_floats_are_still_right():
    """h = 10 h + b from 0 with error -1: g_w = -sum_{d < w} 10^d, rows of which carry a power of two."""
    net = linear(np.array([[10.0]])).net
    traj = rg.rollout(net, np.zeros((250, 1, 1)))
    result = rg.truncation_bias(traj, squared_error(np.ones((250, 1, 1)), "last"), [1, 200, 249], parameters=["b"])
    sums = np.array([float((10**w - 1) // 9) for w in (1, 200, 249, 250)])
    np.testing.assert_allclose(result.norm, sums[:3], rtol=1e-12)
    np.testing.assert_allclose(result.full_norm, sums[3], rtol=1e-12)
    np.testing.assert_allclose(result.bias, 1 - sums[:3] / sums[3], rtol=1e-12)


@pytest.mark.parametrize("wanted", [0.1, 0.01, 1e-3])
def test_smallest_window_of_a_leaky_unit(wanted):
    """|a|^w <= wanted from w = ln wanted/ln a on, found to the step by the search between two of the 48 windows."""
    a, T = 0.93, 500
    traj, loss = leaky(a, T)
    result = rg.truncation_bias(traj, loss, wanted=wanted, parameters=["b"])
    assert result.smallest == np.ceil(np.log(wanted) / np.log(a))
    assert len(result.windows) < 100 and result.windows[0] == 1 and result.windows[-1] == T
    assert result.at(int(result.smallest))["bias"] <= wanted < result.at(int(result.smallest) - 1)["bias"]


@pytest.mark.parametrize(("criterion", "wanted"), [("bias", 0.3), ("bias", 0.03), ("cosine", 0.98), ("cosine", 0.999)])
@pytest.mark.parametrize("seed", range(3))
def test_the_search_finds_what_looking_at_every_window_finds(criterion, wanted, seed):
    net = rg.Network.init("vanilla", 2, 6, 1, scheme="spectral_radius", gain=0.95, seed=seed)
    rng = np.random.default_rng(seed)
    traj = rg.rollout(net, 0.3 * rng.standard_normal((120, 1, 2)))
    loss = squared_error(rng.standard_normal((120, 1, 1)), "last")
    options = {"wanted": wanted, "criterion": criterion, "parameters": ["W"]}
    every = rg.truncation_bias(traj, loss, np.arange(1, 121), **options)
    good = every.bias <= wanted if criterion == "bias" else every.cosine >= wanted
    expected = every.windows[np.flatnonzero(~good)[-1] + 1]
    assert every.smallest == expected > 1
    found = rg.truncation_bias(traj, loss, **options)
    assert found.smallest == expected and len(found.windows) < 60


def test_every_answer_can_be_found():
    """Also those beside one of the 48 windows."""
    a, T = 0.9, 100
    traj, loss = leaky(a, T)
    for answer in range(1, 41):
        assert rg.truncation_bias(traj, loss, wanted=a ** (answer - 0.5), parameters=["b"]).smallest == answer


def test_a_window_that_happens_to_be_good_is_not_the_smallest():
    """a = 1 and errors e_t such that the pieces of dL/db by lag are 1, 1, -1, 1: g_2 = g_4 = g, but g_3 is not."""
    traj = linear(np.ones((1, 1)), T=4)
    errors = np.array([0.0, 2.0, -2.0, 1.0])  # e_t = p_{t-1} - p_t
    result = rg.truncation_bias(traj, squared_error(traj.y - errors[:, None, None]), parameters=["b"])
    np.testing.assert_allclose(result.bias, [0.5, 0, 0.5, 0], atol=1e-15)
    assert result.smallest == 4


def test_no_window_may_be_good_enough():
    traj, loss = leaky(0.8, 60)
    result = rg.truncation_bias(traj, loss, [1, 2], wanted=0.01, parameters=["b"])
    assert result.smallest == np.inf and result.to_dict()["smallest"] == "inf"


def test_the_readout_has_no_memory_to_cut_and_may_be_left_out():
    traj = make_case("gru", T=9).traj
    loss = squared_error(np.ones_like(traj.y))
    whole = rg.truncation_bias(traj, loss)
    recurrent = rg.truncation_bias(traj, loss, parameters=["W", "U", "b"])
    assert whole.parameters == ("W", "U", "b", "V", "c") and recurrent.parameters == ("W", "U", "b")
    np.testing.assert_allclose(whole.parameter_bias["V"], 0, atol=1e-15)
    assert (recurrent.bias[:-1] > whole.bias[:-1]).all()


def test_gradients_that_are_tiny_keep_their_ratios():
    """The scale of the loss does not matter, down to where squares of the gradient would be 0."""
    traj = make_case("lstm", T=8).traj
    z = np.random.default_rng(0).standard_normal(traj.y.shape)
    results = [rg.truncation_bias(traj, squared_error(z, np.full(8, weight))) for weight in (1.0, 1e-200)]
    np.testing.assert_allclose(results[1].bias, results[0].bias, rtol=1e-9, atol=1e-14)
    np.testing.assert_allclose(results[1].cosine, results[0].cosine, rtol=1e-12)
    np.testing.assert_allclose(results[1].norm, 1e-200 * results[0].norm, rtol=1e-12)


def test_single_precision():
    drawn, single = (make_case("lstm", T=12, dtype=dtype) for dtype in ("float64", "float32"))
    target = np.random.default_rng(0).standard_normal(drawn.traj.y.shape)
    expected = rg.truncation_bias(drawn.traj, squared_error(target))
    actual = rg.truncation_bias(single.traj, squared_error(target.astype("float32")))
    np.testing.assert_allclose(actual.bias, expected.bias, rtol=0, atol=1e-5)
    np.testing.assert_allclose(actual.cosine, expected.cosine, rtol=0, atol=1e-5)


def test_a_zero_gradient_is_refused():
    traj = make_case("vanilla").traj
    for loss in (squared_error(traj.y), squared_error(0 * traj.y, np.zeros(5))):
        with pytest.raises(ValueError, match="full gradient is zero"):
            rg.truncation_bias(traj, loss)


def test_a_parameter_without_a_gradient_has_no_bias_and_hurts_nobody():
    """h_0 = 0 and a loss at step 1 only: W has no gradient at all."""
    net = rg.Network.init("vanilla", 2, 3, 1, seed=0)
    traj = rg.rollout(net, np.ones((4, 1, 2)))
    result = rg.truncation_bias(traj, squared_error(np.ones((4, 1, 1)), np.array([1, 0, 0, 0])))
    assert np.isnan(result.parameter_bias["W"]).all() and np.isnan(result.parameter_cosine["W"]).all()
    np.testing.assert_allclose(result.bias, 0, atol=1e-15)


def test_a_gradient_beyond_floats_is_refused():
    traj = rg.rollout(linear(10.0 * orthogonal(2)).net, np.zeros((400, 1, 2)))
    with pytest.raises(OverflowError, match="beyond float64"):
        rg.truncation_bias(traj, squared_error(np.ones_like(traj.y)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"windows": [0, 1]}, "windows is 0"),
        ({"windows": [6]}, "windows is 6"),
        ({"windows": []}, "windows"),
        ({"windows": [1.5]}, "windows"),
        ({"windows": [1], "k1": 2}, "windows is 1"),
        ({"k1": 0}, "k1"),
        ({"k1": 6}, "k1"),
        ({"wanted": 0.0}, "wanted"),
        ({"wanted": 1.5}, "wanted"),
        ({"criterion": "angle"}, "criterion"),
        ({"parameters": ["Q"]}, "parameters"),
        ({"parameters": []}, "parameters"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    traj = make_case("vanilla").traj
    with pytest.raises(ValueError, match=message):
        rg.truncation_bias(traj, squared_error(np.ones_like(traj.y)), **arguments)
    with pytest.raises(ValueError, match="window"):
        rg.truncation_bias(traj, squared_error(np.ones_like(traj.y)), [1, 2]).at(3)


@pytest.mark.parametrize("wanted", [0.1, 1e-30])
def test_result_is_saved_and_drawn(tmp_path, wanted):
    traj = make_case("gru", T=30).traj
    for k1 in (1, 5):
        result = rg.truncation_bias(traj, squared_error(np.ones_like(traj.y)), [5, 9, 20], k1=k1, wanted=wanted)
        with np.load(result.save(tmp_path / "x.npz"), allow_pickle=False) as file:
            np.testing.assert_array_equal(file["bias"], result.bias)
            np.testing.assert_array_equal(file["parameter_bias.W"], result.parameter_bias["W"])
        ax = result.plot()
        assert ax.get_xlabel() and ax.get_ylabel()
        said = ax.get_title(loc="left")
        assert said.startswith(
            "No window up to 20" if np.isinf(result.smallest) else f"A window of {result.smallest:.0f}"
        )
        ax.figure.savefig(tmp_path / "x.png")
        plt.close("all")
