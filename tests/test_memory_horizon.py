"""Memory horizon and time constants against closed forms."""

import json

import numpy as np
import oracles
import pytest
from cases import CELLS, UNEVEN, make_case
from systems import linear, orthogonal, probe, zero

import rnngrad as rg
from rnngrad.analysis import memory, products, time_constants
from rnngrad.losses import squared_error


def test_horizon_of_an_exponential_decay():
    """||dL_t/ds_{t-lag}|| = a^lag ||dL_t/ds_t||: below eps from the first lag beyond ln eps/ln a."""
    a, T = 0.8, 60
    traj = linear(a * orthogonal(4), T=T)
    result = memory.memory_horizon(traj, probe(traj), eps=1e-3)
    exact = int(np.floor(np.log(1e-3) / np.log(a))) + 1
    times = result.times
    np.testing.assert_array_equal(result.censored[0], times < exact)
    np.testing.assert_array_equal(result.horizon[0], np.where(times < exact, times, exact))
    assert result.median == exact and (result.quartiles == exact).all()


def test_horizon_that_is_never_reached_is_reported_as_such():
    traj = linear(orthogonal(4), T=30)
    result = memory.memory_horizon(traj, probe(traj), times=[20, 30])
    assert result.censored.all() and result.median == np.inf and result.longest == 30
    assert result.horizon.tolist() == [[20, 30]]
    assert json.loads(json.dumps(result.to_dict()))["median"] == "inf"


def test_median_horizon_accounts_for_the_censored():
    """Kaplan-Meier by hand: 3, 5, >5, 8, >8 → S(3) = 4/5, S(5) = 3/5, S(8) = 3/10."""
    value, event = np.array([3.0, 5, 5, 8, 8]), np.array([True, True, False, True, False])
    assert memory._survival_quantiles(value, event, (0.2, 0.3, 0.5, 0.75)) == [3, 5, 8, np.inf]


@pytest.mark.parametrize("eps", [0.0, -1.0, 2.0, "x"])
def test_eps_out_of_range_is_refused(eps):
    traj = linear(orthogonal(2))
    with pytest.raises(ValueError, match="eps"):
        memory.memory_horizon(traj, probe(traj), eps)


def gated(gates, T):
    """GRU without recurrent weights whose sample b copies a constant share gates[b] of its state."""
    net = rg.Network.init("gru", 1, 2, seed=0)
    U = np.zeros_like(net.U)
    U[net.cell.gates.index("u")] = 1.0
    net = net.replace(W=0 * net.W, U=U, b=0 * net.b)
    logits = np.log(gates) - np.log1p(-np.asarray(gates))
    return rg.rollout(net, np.broadcast_to(logits[:, None], (T, len(gates), 1)))


def test_spread_over_time_and_over_the_batch():
    """u^lag < eps from floor(ln eps/ln u) + 1 on, for every sample by itself; the medians by hand."""
    gates, T, eps = np.array([0.5, 0.8, 0.9]), 100, 0.01
    traj = gated(gates, T)
    loss = squared_error(np.ones_like(traj.y), np.arange(T)[:, None] != np.array([3, 3, -1]))
    result = memory.memory_horizon(traj, loss, eps)
    exact = np.floor(np.log(eps) / np.log(gates)) + 1
    np.testing.assert_array_equal(exact, [7, 21, 44])
    np.testing.assert_array_equal(result.by_sample, exact)
    np.testing.assert_array_equal(result.horizon[:, -1], exact)
    assert result.by_time[-1] == 21 and result.median == 21
    assert result.by_time[9] == np.inf  # ten steps are enough for one of the three samples to fall, not for half
    assert np.isinf(result.by_time[3])  # one sample with a loss, and it is still above eps
    only = squared_error(np.ones_like(traj.y), np.arange(T) >= 50)
    assert np.isnan(memory.memory_horizon(traj, only, eps).by_time[:50]).all()


@pytest.mark.parametrize("alpha", [0.5, 0.1, 0.02])
def test_leaky_integrator_in_closed_form(alpha):
    """s <- (1 - alpha) s + alpha(U x + b): horizon, chain, gradient and leak all follow from 1 - alpha."""
    net = rg.Network.init("continuous", 1, 3, dt=alpha, tau=1.0, activation="identity", seed=0)
    traj = rg.rollout(net.replace(W=0 * net.W), np.random.default_rng(0).standard_normal((500, 2, 1)))
    loss = squared_error(np.ones_like(traj.y))
    rate = np.log(1 - alpha)
    horizon = memory.memory_horizon(traj, loss, eps=1e-3)
    assert horizon.median == np.floor(np.log(1e-3) / rate) + 1
    constants = rg.time_constants(traj, loss)
    for fit in (constants.chain, constants.gradient):
        np.testing.assert_allclose(fit.rate, rate, rtol=1e-11)
        np.testing.assert_allclose(fit.quartiles, rate, rtol=1e-11)
        np.testing.assert_allclose(fit.tau, -1 / rate, rtol=1e-11)
        assert fit.deviation < 1e-9 and (fit.first, fit.last) == (fit.first, 500) and 250 <= fit.first < 300
    np.testing.assert_allclose(constants.leak_tau, -1 / rate, rtol=1e-12)


@pytest.mark.parametrize("rho", [0.5, 0.95, 1.0, 1.1])
def test_linear_network_decays_at_its_spectral_radius(rho):
    Q = orthogonal(4)
    traj = linear(Q @ np.diag([rho, -0.5 * rho, 0.3 * rho, 0.1 * rho]) @ Q.T, T=300)
    constants = rg.time_constants(traj, squared_error(traj.y - 1.0))
    np.testing.assert_allclose(constants.chain.rate, np.log(rho), atol=1e-12)
    np.testing.assert_allclose(constants.gradient.rate, np.log(rho), atol=1e-9)  # the other directions are gone
    assert constants.leaks == {} and constants.state == "" and constants.leak_rate.size == 0
    if rho >= 1:
        assert constants.chain.tau == np.inf or rho == 1.0
    else:
        np.testing.assert_allclose(constants.chain.tau, -1 / np.log(rho), rtol=1e-9)


def test_non_normal_network_is_fitted_past_its_transient():
    """||W^l|| of a Jordan block grows before it falls; the longer half of the lags has the slope of the powers."""
    W = np.array([[0.9, 10.0], [0.0, 0.9]])
    fit = rg.time_constants(linear(W, T=200)).chain
    lags = products.log_spaced(200, 24)
    lags = lags[lags >= 100]
    powers = [np.log(np.linalg.norm(np.linalg.matrix_power(W, lag), 2)) for lag in lags]
    np.testing.assert_allclose(fit.rate, np.polyfit(lags, powers, 1)[0], rtol=1e-9)
    assert (fit.first, fit.last) == (lags[0], 200)
    assert np.log(0.9) < fit.rate < np.log(0.9) + 1 / 100  # ||W^l|| = O(l 0.9^l)


def test_fit_by_hand():
    lags = np.arange(9)
    lines = -np.outer([1.0, 2.0, 4.0, 5.0], lags) + 0.0
    lines[3, 6:] = np.nan  # a line that does not span the fit has no slope of its own
    fit = time_constants.decay(lags, lines)
    assert (fit.first, fit.last) == (4, 8)
    np.testing.assert_allclose(fit.quartiles, [-3.0, -1.5])
    median = -np.array([2.0, 2.0, 2.0, 2.0, 2.0]) * lags[4:]
    median[:2] = -4.0 * lags[4:6]  # of four values the one that half of them do not exceed; of three the middle one
    slope, start = np.polyfit(lags[4:], median, 1)
    np.testing.assert_allclose(fit.rate, slope)
    np.testing.assert_allclose(fit.deviation, np.sqrt(np.mean((median - start - slope * lags[4:]) ** 2)))
    assert np.isnan(time_constants.decay(lags[:1], lines[:, :1]).rate)
    assert np.isnan(time_constants.decay(lags, np.full((2, 9), np.nan)).rate)


def test_lstm_with_zero_weights_forgets_at_the_rate_of_its_forget_gate():
    """log||c -> c|| = lag ln s(1) exactly, and so do the unit's own leak and the slope of the chain."""
    traj, rate = zero("lstm", T=40, forget=1.0), -np.log1p(np.exp(-1.0))
    np.testing.assert_allclose(rate, -0.313262, atol=1e-6)
    chain = rg.jacobian_chain(traj)
    for lag in (1, 7, 40):
        np.testing.assert_allclose(chain.log_norm(40, 40 - lag, block=("c", "c")), lag * rate)
    constants = rg.time_constants(traj)
    assert constants.state == "c" and constants.gradient is None
    np.testing.assert_allclose(constants.leak_tau, -1 / rate)
    np.testing.assert_allclose(constants.chain.rate, rate)


def test_gru_with_zero_weights_halves_its_state():
    constants = rg.time_constants(zero("gru", T=20))
    np.testing.assert_allclose(constants.chain.rate, -np.log(2))
    np.testing.assert_allclose(constants.leak_rate, -np.log(2))


def test_closed_gates_keep_nothing():
    """alpha = 1 leaves 1 - alpha = 0: a rate of -inf and a time constant of 0, not an error."""
    constants = rg.time_constants(rg.rollout(rg.Network.init("continuous", 1, 3, dt=1.0, tau=1.0), np.zeros((6, 1, 1))))
    assert (constants.leak_rate == -np.inf).all() and (constants.leak_tau == 0).all()


@pytest.mark.parametrize("lengths", [None, UNEVEN], ids=["even", "uneven"])
@pytest.mark.parametrize("cell", CELLS)
def test_leak_of_a_unit_is_what_is_left_without_recurrent_weights(cell, lengths):
    """At W = 0 the block ds'/ds of autograd is the diagonal of what a unit keeps by itself."""
    drawn = make_case(cell, n=4, lengths=lengths)
    for name in drawn.params:
        if name.startswith("W"):
            drawn.params[name][:] = 0
    net = drawn.net.replace(**{name: 0 * value for name, value in drawn.net.parameters.items() if name[0] == "W"})
    leaks = time_constants.leak_rates(rg.rollout(net, drawn.x, drawn.s0, drawn.lengths))
    expected = {
        "lstm": {"c"},
        "continuous": {"s"},
        "vanilla": set(),
        "linear": set(),
        "vanilla_s": set(),
        "mrnn": set(),
    }
    assert set(leaks) == expected.get(cell, {"h"})
    J = oracles.jacobians(*drawn.args, **drawn.kwargs)
    counted = np.arange(5)[:, None] < drawn.ends
    if cell in ("gru_delayed", "gated_unit"):
        counted &= np.arange(5)[:, None] > 0  # the gate of step 1 is not the network's
    for state, rate in leaks.items():
        where = drawn.net.blocks[state]
        block = J[:, :, where, where][counted]
        np.testing.assert_allclose(block * (1 - np.eye(4)), 0, atol=1e-15)
        np.testing.assert_allclose(rate, np.log(np.abs(np.diagonal(block, axis1=1, axis2=2))).mean(axis=0), rtol=1e-11)


@pytest.mark.parametrize("cell", ["gru_delayed", "gated_unit"])
def test_a_gate_of_the_zero_state_is_not_a_leak(cell):
    """Delayed gates start as part of s_0: at 0 the first step keeps nothing, and no bias could change that."""
    net = rg.Network.init(cell, 1, 3, 1, seed=0)
    still = net.replace(**{name: 0 * net.parameters[name] for name in ("W2", "U2", "b2")})
    traj = rg.rollout(still, np.random.default_rng(0).standard_normal((150, 1, 1)))
    np.testing.assert_allclose(rg.time_constants(traj).leak_rate, -np.log(2))
    advice = [r.advice for r in rg.verdict(traj, squared_error(0 * traj.y + 1)).remedies if r.kind == "gate bias"]
    assert "by about 2.64" in advice[0]  # logit(.001^(1/100)) - logit(1/2)
    np.testing.assert_array_equal(time_constants.leak_rates(rg.rollout(still, np.zeros((1, 1, 1))))["h"], -np.inf)


def test_layers_of_a_stack_leak_each_by_itself():
    rng = np.random.default_rng(0)
    for bidirectional, names in ((False, ["l0.c", "l1.h"]), (True, ["l0.c", "l0_reverse.c", "l1.h", "l1_reverse.h"])):
        net = rg.Stack.init(["lstm", "gru"], 2, [3, 5], seed=0, bidirectional=bidirectional)
        traj = rg.rollout(net, rng.standard_normal((30, 2, 2)))
        leaks = time_constants.leak_rates(traj)
        assert list(leaks) == names
        np.testing.assert_array_equal(leaks[names[-1]], time_constants.leak_rates(traj.layers[1][-1])["h"])
    stack = rg.rollout(rg.Stack.init(["lstm", "gru"], 2, [3, 5], seed=0), rng.standard_normal((30, 2, 2)))
    constants = rg.time_constants(stack, squared_error(0 * stack.y))
    assert constants.state == "l0.c, l1.h" and constants.leak_tau.shape == (8,)
    norms = rg.jacobian_chain(stack).log_norms_to(30)
    lags = products.log_spaced(30, 24)
    lags = lags[lags >= 15]
    slopes = [np.polyfit(lags, row[30 - lags], 1)[0] for row in norms]
    np.testing.assert_allclose(constants.chain.quartiles, np.quantile(slopes, (0.25, 0.75)), rtol=1e-9)
    horizon = memory.memory_horizon(stack, squared_error(0 * stack.y), eps=0.1)
    assert np.isfinite(horizon.median) and horizon.by_sample.shape == (2,)


def test_leaks_of_the_other_cells():
    net = rg.Network.init("continuous", 1, 3, dt=0.2, tau=np.array([1.0, 2.0, 4.0]))
    leaks = time_constants.leak_rates(rg.rollout(net, np.zeros((4, 1, 1))))
    np.testing.assert_allclose(leaks["s"], np.log([0.8, 0.9, 0.95]))
    system = rg.System(lambda s, x, p: (0.5 * s[0],), n_state=1)
    assert time_constants.leak_rates(rg.rollout(system, steps=3)) == {}


def test_growth_has_no_time_constant_and_a_dead_chain_has_none_left():
    constants = rg.time_constants(linear(1.2 * orthogonal(3), T=30))
    np.testing.assert_allclose(constants.chain.rate, np.log(1.2))
    assert constants.chain.tau == np.inf
    dead = rg.time_constants(linear(np.zeros((2, 2)), T=8)).chain
    assert dead.rate == -np.inf and dead.tau == 0


def test_a_loss_and_a_reach_are_one_too_many():
    traj = linear(orthogonal(2))
    with pytest.raises(ValueError, match="both"):
        rg.time_constants(traj, probe(traj), reach=rg.gradient_reach(traj, probe(traj)))
