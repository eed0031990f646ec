"""Memory horizon and time constants against closed forms."""

import json

import numpy as np
import pytest
from cases import make_case
from systems import linear, orthogonal, probe, zero

import rnngrad as rg
from rnngrad.analysis import memory


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


def test_lstm_with_zero_weights_forgets_at_the_rate_of_its_forget_gate():
    """log||c -> c|| = lag ln s(1) exactly, and so do the unit's own leak and the slope of the chain."""
    traj, rate = zero("lstm", T=40, forget=1.0), -np.log1p(np.exp(-1.0))
    np.testing.assert_allclose(rate, -0.313262, atol=1e-6)
    chain = rg.jacobian_chain(traj)
    for lag in (1, 7, 40):
        np.testing.assert_allclose(chain.log_norm(40, 40 - lag, block=("c", "c")), lag * rate)
    constants = memory.time_constants(traj)
    assert constants.state == "c"
    np.testing.assert_allclose(constants.leak_tau, -1 / rate)
    np.testing.assert_allclose(constants.chain_rate, rate)


def test_gru_with_zero_weights_halves_its_state():
    constants = memory.time_constants(zero("gru", T=20))
    np.testing.assert_allclose(constants.chain_rate, -np.log(2))
    np.testing.assert_allclose(constants.leak_rate, -np.log(2))


def test_leaks_of_the_other_cells():
    net = rg.Network.init("continuous", 1, 3, dt=0.2, tau=np.array([1.0, 2.0, 4.0]))
    state, rate = memory.leak_rates(rg.rollout(net, np.zeros((4, 1, 1))))
    assert state == "s"
    np.testing.assert_allclose(rate, np.log([0.8, 0.9, 0.95]))
    for cell in ("vanilla", "vanilla_s", "mrnn"):
        assert memory.leak_rates(make_case(cell).traj)[1].size == 0


def test_growth_has_no_time_constant_and_a_dead_chain_has_none_left():
    constants = memory.time_constants(linear(1.2 * orthogonal(3), T=30))
    np.testing.assert_allclose(constants.chain_rate, np.log(1.2))
    assert constants.chain_tau == np.inf and np.isnan(constants.gradient_rate)
    assert memory.time_constants(linear(np.zeros((2, 2)), T=8)).chain_rate == -np.inf
