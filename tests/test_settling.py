"""Where trajectories under a held input go; what the report says of it is tested beside the report."""

import numpy as np
import pytest
from reports import ROOT, held, sequence, shifted, two_units

import rnngrad as rg
from rnngrad.analysis.settling import held_inputs, settling
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
