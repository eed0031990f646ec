"""Forward passes against the NumPy reference, the torch oracle, torch's own modules, and numbers done by hand."""

import numpy as np
import pytest
import reference
from cases import CELLS, PAIRS, SHAPES, UNEVEN, assert_close

import rnngrad as rg


def reference_outputs(case, states):
    """h (T,B,n) and y (T,B,p) of the reference at those states."""
    activation = case.net.activation
    h = [[reference.output(case.cell, s, activation) for s in batch] for batch in states[1:]]
    y = [[reference.readout(case.cell, case.params, s, activation) for s in batch] for batch in states[1:]]
    return np.array(h), np.array(y)


@pytest.mark.parametrize("lengths", [None, UNEVEN], ids=["even", "uneven"])
@pytest.mark.parametrize(("cell", "activation"), PAIRS)
def test_states_and_outputs_are_those_of_the_reference(case, cell, activation, lengths):
    drawn = case(cell, activation, lengths=lengths)
    expected = reference.rollout(*drawn.args, **drawn.kwargs)
    h, y = reference_outputs(drawn, expected)
    assert_close(drawn.traj.states, expected, 1e-12, "states")
    assert_close(drawn.traj.h, h, 1e-12, "h")
    assert_close(drawn.traj.y, y, 1e-12, "y")
    np.testing.assert_array_equal(drawn.traj.states[0], drawn.s0)
    np.testing.assert_array_equal(drawn.traj.lengths, drawn.ends)
    np.testing.assert_array_equal(drawn.traj.diverged, -1)


@pytest.mark.parametrize("cell", CELLS)
def test_both_oracles_say_the_same(case, cell):
    import oracles

    drawn = case(cell, lengths=UNEVEN)
    assert_close(oracles.rollout(*drawn.args, **drawn.kwargs), reference.rollout(*drawn.args, **drawn.kwargs), 1e-13)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("cell", CELLS)
def test_degenerate_shapes(case, cell, shape):
    drawn = case(cell, **shape)
    expected = reference.rollout(*drawn.args, **drawn.kwargs)
    assert_close(drawn.traj.states, expected, 1e-12)
    assert drawn.traj.y.shape == (shape["T"], shape["B"], shape["p"] or shape["n"])
    if not shape["p"]:
        np.testing.assert_array_equal(drawn.traj.y, drawn.traj.h)


@pytest.mark.parametrize("cell", CELLS)
def test_single_precision(case, cell):
    drawn = case(cell, dtype="float32", lengths=UNEVEN)
    expected = reference.rollout(*drawn.args, **drawn.kwargs)
    h, y = reference_outputs(drawn, expected)
    for name, truth in (("states", expected), ("h", h), ("y", y)):
        actual = getattr(drawn.traj, name)
        assert actual.dtype == np.float32
        assert_close(actual, truth, 1e-5, name)


@pytest.mark.parametrize(
    ("cell", "n", "T", "B"), [("lstm", 40, 30, 37), ("gru", 33, 20, 60), ("gated_unit", 6, 70, 17)]
)
def test_sizes_beyond_one_tile_of_the_kernels(case, cell, n, T, B):
    """More samples than a tile (8 or 16), more rows of input than a piece (512), n on either side of 32."""
    lengths = np.random.default_rng(0).integers(1, T + 1, B)
    drawn = case(cell, n=n, T=T, B=B, lengths=lengths)
    assert_close(drawn.traj.states, reference.rollout(*drawn.args, **drawn.kwargs), 1e-12)


@pytest.mark.parametrize("cell", CELLS)
def test_forms_of_the_initial_state(case, cell):
    drawn = case(cell)
    one = drawn.s0[1]
    expected = rg.rollout(drawn.net, drawn.x, np.repeat(one[None], 3, axis=0)).states
    np.testing.assert_array_equal(rg.rollout(drawn.net, drawn.x, one).states, expected)
    if drawn.net.S == 1:
        np.testing.assert_array_equal(rg.rollout(drawn.net, drawn.x, one[0]).states, expected)
    zeros = rg.rollout(drawn.net, drawn.x, np.zeros_like(drawn.s0)).states
    np.testing.assert_array_equal(rg.rollout(drawn.net, drawn.x).states, zeros)


@pytest.mark.parametrize("cell", CELLS)
def test_one_sequence_keeps_its_batch_axis(case, cell):
    drawn = case(cell, B=1)
    flat = rg.rollout(drawn.net, drawn.x[:, 0], drawn.s0)
    assert flat.B == 1
    np.testing.assert_array_equal(flat.states, drawn.traj.states)
    np.testing.assert_array_equal(flat.y, drawn.traj.y)


def test_steps_without_input_are_steps_of_zero_input(case):
    net = case("lstm").net
    alone, zero = rg.rollout(net, steps=4), rg.rollout(net, np.zeros((4, 1, 3)))
    np.testing.assert_array_equal(alone.states, zero.states)
    assert np.abs(alone.states[1:]).min() > 0


@pytest.mark.parametrize("share", [0.0, 0.3])
@pytest.mark.parametrize(
    ("cell", "activation"), [("vanilla", "tanh"), ("vanilla", "relu"), ("lstm", "tanh"), ("gru", "tanh")]
)
def test_torch_modules_say_the_same(case, cell, activation, share):
    import oracles

    torch = oracles.torch
    drawn = case(cell, activation, n=5, T=8)
    module = oracles.to_torch_module(cell, drawn.params, activation, share)
    state = torch.tensor(drawn.s0).transpose(0, 1).contiguous()  # (S, B, n): torch's layers come first
    start = (state[:1], state[1:]) if cell == "lstm" else state
    with torch.no_grad():
        out, last = module(torch.tensor(drawn.x), start)
    assert_close(drawn.traj.h, out.numpy(), 1e-13)
    if cell == "lstm":
        assert_close(drawn.traj.states[-1, :, 1], last[1][0].numpy(), 1e-13)
    loaded = oracles.from_torch_state_dict(cell, module.state_dict())
    again = rg.rollout(rg.Network.from_parameters(cell, loaded, activation=activation), drawn.x, drawn.s0)
    assert_close(again.h, out.numpy(), 1e-13)


def test_a_default_torch_lstm_loaded_by_its_state_dict():
    import oracles

    torch = oracles.torch
    torch.manual_seed(0)
    module = torch.nn.LSTM(3, 6, dtype=torch.float64)
    net = rg.Network.from_parameters("lstm", oracles.from_torch_state_dict("lstm", module.state_dict()))
    x = np.random.default_rng(0).standard_normal((9, 2, 3))
    with torch.no_grad():
        out, _ = module(torch.tensor(x))
    assert_close(rg.rollout(net, x).h, out.numpy(), 1e-13)


def test_scalar_logistic_map_of_note_002():
    """s <- logistic(s/2) from s_0 = 2: .7310586, .5903783, … and the same limit .5708 from every start."""
    net = rg.Network.from_parameters(
        "vanilla", {"W": np.full((1, 1, 1), 0.5), "b": np.zeros((1, 1))}, activation="logistic"
    )
    starts = np.array([2.0, -40.0, 0.0, 1e6]).reshape(4, 1, 1)
    states = rg.rollout(net, np.zeros((100, 4, 0)), starts).states[:, :, 0, 0]
    np.testing.assert_allclose(states[1:3, 0], [0.7310586, 0.5903783], rtol=0, atol=5e-8)
    np.testing.assert_allclose(states[100], 0.5708, rtol=0, atol=1e-4)  # the note cuts the digits off
    limit = states[100, 0]
    assert limit == pytest.approx(1 / (1 + np.exp(-limit / 2)), rel=1e-15)
    np.testing.assert_allclose(states[100], limit, rtol=1e-15)


@pytest.mark.parametrize("tau", [0.5, [0.3, 0.5, 4.0]], ids=["scalar", "per unit"])
def test_continuous_time_resampled(tau):
    """alpha = dt/tau; alpha = 1 is the discrete s-form network."""
    rng = np.random.default_rng(0)
    params = reference.random_params("continuous", 3, 2, 0, rng)
    net = rg.Network.from_parameters("continuous", params, dt=0.3, tau=tau)
    np.testing.assert_allclose(net.alpha, 0.3 / np.asarray(tau) * np.ones(3), rtol=1e-15)
    fine = net.resample(0.1)
    np.testing.assert_allclose(fine.alpha, net.alpha / 3, rtol=1e-15)
    np.testing.assert_array_equal(fine.W, net.W)
    x, s0 = rng.standard_normal((6, 1, 2)), rng.standard_normal((1, 1, 3))
    expected = reference.rollout("continuous", params, x, s0, None, "tanh", fine.alpha)
    assert_close(rg.rollout(fine, x, s0).states, expected, 1e-13)
    whole = rg.Network.from_parameters("continuous", params, dt=0.3, tau=0.3)
    discrete = rg.Network.from_parameters("vanilla_s", params)
    assert_close(rg.rollout(whole, x, s0).states, rg.rollout(discrete, x, s0).states, 1e-15)


def diverging(T=1500, start=3):
    """Two samples of s <- 2 s; the second has an input that starts it at step ``start``."""
    net = rg.Network.from_parameters(
        "linear", {"W": np.full((1, 1, 1), 2.0), "U": np.ones((1, 1, 1)), "b": np.zeros((1, 1))}
    )
    x = np.zeros((T, 2, 1))
    x[start - 1, 1] = 1.0
    return net, x


def test_divergence_warning_names_the_step():
    net, x = diverging(start=3)  # s_t = 2^(t-3), the first infinity is 2^1024 at t = 1027
    with pytest.warns(rg.DivergenceWarning, match=r"step 1027 \(sample 1; 1 of 2"):
        traj = rg.rollout(net, x)
    np.testing.assert_array_equal(traj.diverged, [-1, 1027])
    assert np.isfinite(traj.states[1026]).all()
    for refuse in (rg.jacobians, rg.jacobian_chain, lambda traj: rg.bptt(traj, rg.losses.squared_error(x))):
        with pytest.raises(ValueError, match=r"not finite from step 1027 on \(sample 1\)"):
            refuse(traj)


@pytest.mark.filterwarnings("error")
def test_no_divergence_no_warning():
    net, x = diverging(T=1026)
    assert (rg.rollout(net, x[:900]).diverged == -1).all()


@pytest.mark.filterwarnings("error")
def test_finite_states_whose_sum_overflows_are_no_divergence():
    net, _ = diverging()
    assert (rg.rollout(net, np.zeros((1, 4, 1)), np.full((4, 1, 1), 8e307)).diverged == -1).all()


def test_network_and_input_are_left_alone(case):
    drawn = case("gru", lengths=UNEVEN)
    x, s0 = drawn.x.copy(), drawn.s0.copy()
    traj = rg.rollout(drawn.net, x, s0, drawn.lengths)
    np.testing.assert_array_equal(x, drawn.x)
    np.testing.assert_array_equal(s0, drawn.s0)
    s0[:] = 9
    np.testing.assert_array_equal(traj.states[0], drawn.s0)
