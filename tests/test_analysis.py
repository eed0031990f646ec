"""Spectra and saturation against closed forms and against what they claim; every result saved and drawn."""

import json

import matplotlib.pyplot as plt
import numpy as np
import pytest
from cases import CELLS, UNEVEN, make_case
from systems import linear, orthogonal, probe, zero

import rnngrad as rg
from rnngrad import figures
from rnngrad.analysis import (
    comparison,
    growth,
    memory,
    products,
    reach,
    saturation,
    spectra,
    step_bounds,
    time_constants,
    verdict,
)
from rnngrad.analysis.activations import ACTIVATIONS
from rnngrad.kernels import backend as kernels
from rnngrad.losses import last_step, squared_error
from rnngrad.unit_terms import LOG_MAGNITUDE

rng = np.random.default_rng(0)


# ---------------------------------------------------------------- products and reach


@pytest.mark.parametrize("cell", CELLS)
def test_singular_values_are_those_of_the_chain(cell):
    traj = make_case(cell, n=3, T=40).traj
    result = products.singular_values(traj, times=[5, 40], lags=[0, 1, 17, 40])
    chain = rg.jacobian_chain(traj)
    for r, t in enumerate((5, 40)):
        for i, lag in enumerate((0, 1, 17, 40)):
            if lag > t:
                assert np.isnan(result.log_values[:, r, i]).all()
                continue
            expected = chain.log_singular_values(t, t - lag)
            np.testing.assert_allclose(result.log_norm[:, r, i], expected[:, 0], rtol=1e-9, atol=1e-9)
            # those near the rounding of the product differ between two orders of multiplication
            kept = expected > expected[:, :1] - 20
            np.testing.assert_allclose(result.log_values[:, r, i][kept], expected[kept], rtol=1e-5, atol=1e-5)


def test_orthogonal_w_every_singular_value_is_one_at_every_lag():
    result = products.singular_values(linear(orthogonal(5), T=30))
    assert result.lags[0] == 0 and result.lags[-1] == 30
    np.testing.assert_allclose(result.log_values, 0, atol=1e-12)


@pytest.mark.parametrize("cell", CELLS)
def test_reach_is_the_gradient_flow_by_lag(cell):
    traj = make_case(cell, T=7, lengths=UNEVEN).traj
    loss = squared_error(np.ones_like(traj.y))
    expected = rg.gradient_flow(traj, loss).log_norm_by_lag()
    result = reach.gradient_reach(traj, loss)
    np.testing.assert_allclose(result.log_norm, expected, rtol=1e-9, atol=1e-9)
    some = reach.gradient_reach(traj, loss, times=[3, 6], max_lag=4)
    np.testing.assert_allclose(some.log_norm, expected[:, [2, 5], :5], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("cell", CELLS)
def test_gradient_never_outgrows_the_chain(cell):
    traj = make_case(cell, n=6, T=20).traj
    gradient = reach.gradient_reach(traj, probe(traj), times=[20])
    chain = products.singular_values(traj, times=[20], lags=np.arange(21))
    assert (gradient.log_ratio <= chain.log_norm + 1e-9).all()


def test_gradient_map_is_the_gradient_flow():
    traj = make_case("lstm", T=9).traj
    flow = rg.gradient_flow(traj, probe(traj)).log_norm
    np.testing.assert_allclose(reach.gradient_map(traj, probe(traj), sample=1).log_norm[1:], flow[1][1:], rtol=1e-9)
    part = reach.gradient_map(traj, probe(traj), first=4, last=8)
    np.testing.assert_allclose(part.log_norm, flow[0, 4:9, 4:9], rtol=1e-9)


def test_a_loss_at_the_last_step_only():
    traj = linear(0.5 * orthogonal(3), T=20)
    loss = squared_error(np.zeros_like(traj.y), weights=last_step)
    assert reach.steps_with_loss(traj, loss).tolist() == [20]
    result = memory.memory_horizon(traj, loss)
    assert np.isnan(result.horizon[0, :-1]).all()
    assert result.median == result.horizon[0, -1] == 10  # 2^-10 < 0.001 < 2^-9
    with pytest.raises(ValueError, match="no gradient at any step"):
        reach.steps_with_loss(traj, squared_error(traj.y))


# ---------------------------------------------------------------- spectra


def test_spectrum_of_a_normal_and_of_a_non_normal_matrix():
    non_normal = spectra.weight_spectrum(linear(np.array([[0.9, 10.0], [0.0, 0.9]])).net)
    np.testing.assert_allclose(non_normal.eigenvalues, 0.9, atol=1e-6)
    np.testing.assert_allclose(non_normal.radius, 0.9, atol=1e-6)
    np.testing.assert_allclose(non_normal.henrici, 10 / np.sqrt(100 + 2 * 0.81))
    np.testing.assert_allclose(non_normal.abscissa, 0.9 + 5)
    for W in (orthogonal(7), np.diag([1.0, -2.0, 3.0])):
        normal = spectra.weight_spectrum(linear(W).net)
        np.testing.assert_allclose(normal.henrici, 0, atol=1e-13)
        np.testing.assert_allclose(normal.radius, normal.sigma_max)


@pytest.mark.parametrize("n", [1, 2, 5, 40])
def test_schur_gives_eigenvalues_and_henricis_departure(n):
    A = np.random.default_rng(n).standard_normal((n, n))
    eigenvalues, departure = spectra.schur(A)
    expected = np.linalg.eigvals(A)
    np.testing.assert_allclose(np.sort(np.abs(eigenvalues)), np.sort(np.abs(expected)), rtol=1e-8)
    np.testing.assert_allclose(eigenvalues.sum(), np.trace(A), rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(departure**2, np.sum(A**2) - np.sum(np.abs(expected) ** 2), rtol=1e-6, atol=1e-9)


def test_circular_law():
    """Ginibre matrix: the disc of radius ||A||_F/sqrt(N) holds (nearly) all, half the radius a quarter of them."""
    net = rg.Network.init("vanilla", 1, 400, scheme="gaussian", gain=1.3, seed=1)
    spectrum = spectra.weight_spectrum(net)
    assert 1 < spectrum.radius[0] / 1.3 < 1.08
    np.testing.assert_allclose(spectrum.circular_radius, 1.3, rtol=0.01)
    assert abs(np.mean(np.abs(spectrum.eigenvalues) < 0.65) - 0.25) < 0.03


@pytest.mark.parametrize("cell", CELLS)
def test_jacobian_spectrum_is_that_of_the_dense_jacobians(cell):
    traj = make_case(cell, T=6).traj
    J = rg.jacobians(traj)
    result = spectra.jacobian_spectrum(traj, times=[2, 6], sample=1)
    assert result.labels == ("J, t = 2", "J, t = 6")
    for k, t in enumerate((2, 6)):
        np.testing.assert_allclose(result.sigma_max[k], np.linalg.norm(J[t - 1, 1], 2))
        expected = np.abs(np.linalg.eigvals(J[t - 1, 1])).max()
        np.testing.assert_allclose(result.radius[k], expected, rtol=1e-6, atol=1e-9)


def test_gates_have_a_spectrum_each():
    assert spectra.weight_spectrum(make_case("lstm").net).labels == ("W, i", "W, f", "W, v", "W, o")
    assert len(spectra.weight_spectrum(make_case("gru_reset_before").net).labels) == 3
    with pytest.raises(ValueError, match="Network"):
        spectra.weight_spectrum(None)


# ---------------------------------------------------------------- saturation


def test_saturated_units_are_counted_step_by_step():
    net = rg.Network.from_parameters("vanilla", {"W": np.zeros((1, 2, 2)), "U": np.ones((1, 2, 1)), "b": [[0.0, 9.0]]})
    x = np.array([0.0, 5.0, -5.0, 0.0, 0.0, 5.0, 0.0, 0.0])[:, None]
    result = saturation.saturation(rg.rollout(net, x))
    assert result.names == ("h",) and result.kinds == ("value",)
    np.testing.assert_allclose(result.low, [[1 / 8, 0]])
    np.testing.assert_allclose(result.high, [[2 / 8, 1]])
    np.testing.assert_allclose(result.share[0], [3 / 8, 1])


def test_zero_weights_gates_are_half_open_and_the_forget_gate_at_its_bias():
    result = saturation.saturation(zero("lstm", forget=5.0))
    assert result.names == ("i", "f", "v", "o")
    np.testing.assert_allclose(result.mean[[0, 3]], 0.5)
    np.testing.assert_allclose(result.mean[result.of("f")], 1 / (1 + np.exp(-5)))
    np.testing.assert_allclose(result.high[result.of("f")], 1)
    np.testing.assert_allclose(result.low, 0)


@pytest.mark.parametrize("cell", CELLS)
def test_every_cell_has_shares_between_0_and_1_and_parts_are_left_out(cell):
    case = make_case(cell, T=9, lengths=UNEVEN, scale=5.0)
    result = saturation.saturation(case.traj)
    assert not any("part" in kind for kind in result.kinds)
    assert ((result.share >= 0) & (result.share <= 1)).all()
    assert result.mean.shape == (len(result.names), case.net.n)


def test_padded_steps_do_not_count():
    case = make_case("gru", T=6, lengths=UNEVEN)
    alone = [saturation.saturation(rg.rollout(case.net, case.x[:n, [b]], case.s0[[b]])) for b, n in enumerate(UNEVEN)]
    expected = sum(n * part.mean for n, part in zip(UNEVEN, alone)) / sum(UNEVEN)
    np.testing.assert_allclose(saturation.saturation(case.traj).mean, expected)


def test_the_state_is_what_a_pre_activation_network_saturates_in():
    traj = make_case("continuous", T=5).traj
    np.testing.assert_allclose(saturation.saturation(traj).mean[0], np.tanh(traj.states[1:, :, 0]).mean(axis=(0, 1)))


@pytest.mark.parametrize("activation", ["logistic", "relu", "identity", "softplus"])
def test_each_activation_has_its_own_flat_ends(activation):
    net = rg.Network.from_parameters(
        "vanilla", {"W": np.zeros((1, 1, 1)), "U": np.ones((1, 1, 1)), "b": np.zeros((1, 1))}, activation=activation
    )
    result = saturation.saturation(rg.rollout(net, np.array([-9.0, 0.1, 9.0])[:, None]))
    expected = {"logistic": (1, 1), "relu": (1, 0), "identity": (0, 0), "softplus": (1, 0)}[activation]
    np.testing.assert_allclose((3 * result.low[0, 0], 3 * result.high[0, 0]), expected)


@pytest.mark.parametrize("activation", ["tanh", "logistic", "relu", "identity", "softplus"])
def test_shares_and_means_are_those_of_the_definition(activation):
    case = make_case("vanilla", activation, n=3, T=90, B=3, lengths=[90, 41, 1])
    found = saturation.saturation(case.traj, low_level=0.3, high_level=0.7, value_level=0.6)
    valid = np.arange(90)[:, None] < case.ends
    value, slope = ACTIVATIONS[activation](case.traj.a[:, :, 0][valid])
    none = np.zeros_like(slope)
    low, high = {
        "tanh": (value < -0.6, value > 0.6),
        "logistic": (value < 0.3, value > 0.7),
        "identity": (none, none),
    }.get(activation, (slope < 0.3, none))
    for name, of in (("low", low), ("high", high), ("mean", value), ("slope", slope)):
        np.testing.assert_allclose(getattr(found, name)[0], of.mean(axis=0), rtol=1e-12, atol=1e-14, err_msg=name)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_mean_logarithms_of_zero_of_tiny_and_of_no_numbers(dtype):
    info = np.finfo(dtype)
    z = np.array([0.0, info.smallest_subnormal, 3 * info.tiny / 4, -3e-5, 1.0, info.max, np.inf, np.nan], dtype)
    sums = kernels("cpu").unit_sums(LOG_MAGNITUDE)(z.reshape(1, 1, 1, -1), 0, 0, np.array([1]), (0.0, 0.0, 0.0))
    with np.errstate(divide="ignore"):
        np.testing.assert_allclose(sums[2], np.log(np.abs(z.astype(float))), rtol=1e-15)


# ---------------------------------------------------------------- every result: plain data, files, figures


def results(traj):
    loss = probe(traj)
    gradient = reach.gradient_reach(traj, loss)
    chain = products.singular_values(traj)
    steps = step_bounds.step_bounds(traj)
    constants = time_constants.time_constants(traj, reach=gradient, chain=chain)
    horizon = memory.horizon(gradient)
    by_lag = growth.growth_by_lag(gradient, chain, steps, constants, 1e-3)
    return [
        rg.growth_bounds(traj),
        gradient,
        reach.gradient_map(traj, loss),
        chain,
        spectra.weight_spectrum(traj.net),
        spectra.jacobian_spectrum(traj),
        saturation.saturation(traj),
        horizon,
        constants,
        by_lag,
        comparison.Comparison({"one": by_lag, "two": by_lag}, 3, "a lag", "steps", "a title"),
        verdict.verdict(traj, loss),
    ]


@pytest.mark.parametrize("cell", ["vanilla", "lstm", "mrnn"])
def test_results_are_saved_and_drawn(cell, tmp_path):
    for result in results(make_case(cell, T=12, n=3).traj):
        name = type(result).__name__
        json.dumps(result.to_dict(), allow_nan=False)
        result.save(tmp_path / f"{name}.json")
        with np.load(result.save(tmp_path / f"{name}.npz"), allow_pickle=False) as file:
            for key, value in result.arrays().items():
                np.testing.assert_array_equal(file[key], value)
        ax = result.plot()
        assert ax.get_title(loc="left")
        assert ax.figure.get_axes()
        if name not in ("Verdict",):
            assert ax.get_xlabel() and (ax.get_ylabel() or ax.get_yticklabels())
        ax.figure.savefig(tmp_path / f"{name}.png")
        other = plt.figure().add_subplot()
        assert result.plot(other) is other
        plt.close("all")
    with pytest.raises(ValueError, match="npz"):
        result.save(tmp_path / "x.pickle")


def test_gradient_flow_can_be_drawn_too():
    traj = make_case("gru").traj
    flow = rg.gradient_flow(traj, probe(traj))
    assert "teach" in flow.plot().get_title(loc="left")
    assert list(flow.to_dict()) == ["log_norm"]
    with pytest.raises(ValueError, match="no figure for int"):
        figures.plot(3)


def test_results_are_frozen():
    result = rg.growth_bounds(linear(orthogonal(2)))
    with pytest.raises(AttributeError):
        result.log_upper = None


@pytest.mark.slow
def test_bounds_and_products_of_a_large_float32_network():
    net = rg.Network.init("lstm", 8, 128, seed=0, dtype="float32")
    traj = rg.rollout(net, rng.standard_normal((60, 1, 8)).astype(np.float32))
    result = rg.growth_bounds(traj, times=[60], lower=False)
    row = result.log_measured[0, 60]
    assert (row <= result.log_upper[0, 60] + 1e-4).all()
    chain = products.singular_values(traj, lags=[60])
    np.testing.assert_allclose(chain.log_norm[0, 0, 0], row[0], rtol=1e-4)
