"""Where trajectories under a held input go; what the report says of it is tested beside the report."""

import numpy as np
import pytest
from reports import ROOT, held, sequence, shifted, two_units

import rnngrad as rg
from rnngrad.analysis.settling import _starts, held_inputs, settling
from rnngrad.report import measure


def test_points_of_the_cycle():
    s = settling(rg.rollout(shifted(-2.0), steps=60))
    np.testing.assert_allclose(np.sort(s.cycles[0].s.ravel()), [1 - ROOT, 1 + ROOT], rtol=1e-8)
    assert s.end_length.tolist() == [2] and s.portrait is None
    assert len(s.spectrum.cycles) == 1 and np.isnan(s.spectrum.end)
    assert s.spectrum.plot().get_title(loc="left") == "1 of 2 eigenvalues lie on or outside the unit circle"


def test_larger_states_have_fewer_starts(monkeypatch):
    traj = rg.rollout(two_units(), held())
    monkeypatch.setattr(measure, "_SEARCH_COST", 20 * 40 * 8)
    monkeypatch.setattr(measure, "_FOLLOW_COST", 200 * 36 * 4)
    (one,) = measure._settled(traj)[1]
    assert one.starts == 2 + 20 and one.steps == 200


def test_wrong_arguments():
    net = two_units()
    changing = rg.rollout(net, sequence(T=5, m=1))
    with pytest.raises(ValueError, match=r"the input of traj changes in time"):
        held_inputs(changing)
    with pytest.raises(ValueError, match=r"the samples \[0, 1\] of traj do not hold one input all the time"):
        settling(changing)
    two = rg.rollout(net, np.tile([0.3, -0.2], (5, 1))[..., None])
    with pytest.raises(ValueError, match=r"do not hold one input"):
        settling(two)
    with pytest.raises(ValueError, match=r"samples is 2"):
        settling(two, [2])
    assert [group.tolist() for group in held_inputs(two)] == [[0], [1]]
    assert settling(two, [1], starts=0).x.tolist() == [-0.2]


def test_the_search_is_repeatable_and_has_a_seed():
    traj = rg.rollout(two_units(), held())
    one, again, other = settling(traj), settling(traj), settling(traj, seed=1)
    np.testing.assert_array_equal(one.points.end, again.points.end)
    assert not np.array_equal(one.points.end, other.points.end) or not np.array_equal(
        one.points.iterations, other.points.iterations
    )


def test_starts_are_states_of_the_samples_every_second_with_noise_of_their_size():
    """Another sample, far larger, has no part in them."""
    rng = np.random.default_rng(3)
    s0 = rng.standard_normal((4, 1, 2)) * np.array([1.0, 50.0, 1.0, 50.0])[:, None, None]
    net = rg.Network.init("vanilla", 1, 2, activation="identity", seed=0)
    traj, samples = rg.rollout(net, np.zeros((9, 4, 1)), s0), np.array([1, 3])
    found = _starts(traj, samples, 6, np.random.default_rng(7))
    at, draw = np.round(np.linspace(0, 9, 6)).astype(int), np.random.default_rng(7)
    size = np.sqrt(np.mean(traj.states[:, samples] ** 2))
    amount = np.exp(draw.uniform(np.log(0.1 * size), np.log(max(size, 1.0)), 6)) * (np.arange(6) % 2)
    noisy = traj.states[at, samples[np.arange(6) % 2]] + amount[:, None, None] * draw.standard_normal((6, 1, 2))
    expected = np.concatenate([traj.states[-1, samples], traj.states[0, samples], noisy])
    np.testing.assert_allclose(found, expected, rtol=1e-13)
