"""Bounds, reach, settling and truncation of trajectories that lie on the GPU: statistics alone come to the host.

In Numba's simulator; every number must be, bit for bit, that of ``backend="cuda"`` with arrays on the host.
"""

# ruff: noqa: F811  (``copied`` is a fixture of another file)

import numpy as np
import pytest
from cases import UNEVEN, make_case
from simulated import DTYPES, SIMULATED, inside, sessions
from test_cuda_simulator import copied, loss_of, on, on_device, to_device  # noqa: F401

import rnngrad as rg
from rnngrad import _cuda
from rnngrad.analysis.reach import steps_with_loss
from rnngrad.analysis.settling import held_inputs, settling
from rnngrad.analysis.step_bounds import step_bounds

if SIMULATED:
    from rnngrad.kernels import cpu, cuda

NUMBER = 8  # bytes


test_in_the_simulator, test_in_the_simulator_at_length = sessions(__file__)


def assert_same(found, expected):
    """Two results with the same numbers, to the bit."""
    found, expected = found.arrays(), expected.arrays()
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert type(found[name]) is type(value), name
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def assert_near(found, expected, tolerance):
    """Two results whose numbers differ by no more than their own size times the tolerance, or by the tolerance."""
    found, expected = found.arrays(), expected.arrays()
    for name, value in expected.items():
        if np.asarray(value).dtype.kind in "fc":
            np.testing.assert_allclose(found[name], value, rtol=tolerance, atol=tolerance, err_msg=name)


# ---------------------------------------------------------------- bounds


each = pytest.mark.parametrize(
    ("cell", "dtype"),
    [("vanilla", "float32"), ("continuous", "float64"), ("lstm", "float64"), ("mrnn", "float64"),
     ("gru_delayed", "float32"), ("gru_reset_before", "float64")],
)  # fmt: skip


@inside
@each
def test_bounds_of_steps(cell, dtype, copied):
    case = make_case(cell, n=3, T=5, lengths=UNEVEN, dtype=dtype)
    expected, traj = step_bounds(on(case, "cuda")), on_device(case)
    copied.clear()
    assert_same(step_bounds(traj), expected)
    S, gates = case.net.S, max(len(case.net.cell.gates), len(case.net.cell.gates2), case.net.S)
    assert max(copied) <= NUMBER * 5 * 3 * S * gates  # a number where the partials have one for each unit
    assert_near(expected, step_bounds(on(case, "cpu")), DTYPES[dtype])


@inside
@pytest.mark.parametrize(("cell", "dtype"), [("lstm", "float64"), ("vanilla", "float32")])
def test_bounds_of_growth(cell, dtype, copied):
    case = make_case(cell, n=5, T=4, B=2, lengths=[4, 2], dtype=dtype)
    expected, traj, N = rg.growth_bounds(on(case, "cuda"), times=[2, 4]), on_device(case), case.net.N
    copied.clear()
    assert_same(rg.growth_bounds(traj, times=[2, 4]), expected)
    assert max(copied) <= NUMBER * 4 * 2 * N < rg.jacobians(traj).nbytes // 2
    assert not np.isnan(expected.log_measured[:, 4]).any() and np.isnan(expected.log_measured[:, 3]).all()
    assert_near(expected, rg.growth_bounds(on(case, "cpu"), times=[2, 4]), 100 * DTYPES[dtype])
    every = rg.growth_bounds(traj, lower=False)
    np.testing.assert_array_equal(every.log_measured[:, [2, 4]], expected.log_measured[:, [2, 4]])
    assert np.isnan(every.log_lower[:, 4, 0]).all()


@inside
def test_jacobians_are_decomposed_in_pieces(copied, monkeypatch):
    from rnngrad.analysis.step_bounds import step_norms
    from rnngrad.dynamics import jacobian

    case = make_case("gru", n=3, T=5, B=2)
    traj, expected = on_device(case), step_norms(on(case, "cuda"))
    monkeypatch.setattr(jacobian, "_PIECE", 2 * 8 * 2 * 3 * 3)
    copied.clear()
    np.testing.assert_array_equal(step_norms(traj), expected)
    assert max(copied) == NUMBER * 2 * 2 * 3  # three values of two steps of two samples
    J = rg.jacobians(on(case, "cpu"))
    sigma = np.linalg.svd(J, compute_uv=False)
    np.testing.assert_allclose(np.exp(expected), np.moveaxis(sigma[..., [0, -1]], -1, 0), rtol=1e-12)


@inside
@pytest.mark.parametrize("shape", [(7, 1, 1, 5), (7, 1, 4, 5), (7, 3, 3, 5), (7, 3, 2, 5), (7, 5, 1, 40), (1, 2, 2, 1)])
def test_norms_of_units_are_those_of_their_matrices(shape, monkeypatch):
    """Also of matrices without full rank, beyond the range of squares, and whatever threads and memory there are."""
    rng = np.random.default_rng(0)
    P = rng.standard_normal(shape)
    if shape[0] > 1:
        P[0], P[1], P[2], P[3] = P[0] * 1e-200, P[1] * 1e200, 0, 1
        P[4, -1] = 3 * P[4, 0]
        P[5, 0, 0, 0], P[6, 0, 0, 0] = np.nan, np.inf
    for columns in {1, shape[2]}:
        used = P[:, :, :columns]
        scale = np.abs(used[:5]).max(axis=(1, 2, 3), keepdims=True)
        matrices = np.moveaxis(used[:5] / np.where(scale > 0, scale, 1), 3, 1)
        truth = np.linalg.norm(matrices, 2, axis=(2, 3)).max(axis=1) * scale[:, 0, 0, 0]
        results = []
        for kernels in (cpu, cuda):
            out = np.empty(len(P))
            kernels.unit_norms(out, P, columns)
            np.testing.assert_allclose(out[:5], truth[:5], rtol=1e-14)
            assert shape[0] == 1 or (np.isnan(out[5]) and out[6] == np.inf)
            results.append(out)
        for threads, limit in ((1, 1 << 20), (3, 400)):  # 400 bytes: few lanes
            monkeypatch.setattr(_cuda, "threads", lambda items, threads=threads: threads)
            monkeypatch.setattr(_cuda, "shared_limit", lambda limit=limit: limit)
            cuda.unit_norms(out, P, columns)
            np.testing.assert_array_equal(out, results[1])
        monkeypatch.undo()
        monkeypatch.setattr(_cuda, "free_bytes", lambda: 3.0 * NUMBER * (1 + P[0].size))
        cuda.unit_norms(out, P, columns)
        np.testing.assert_array_equal(out, results[1])
        monkeypatch.undo()


# ---------------------------------------------------------------- reach


def both(cell, dtype="float64", **options):
    """A trajectory on the host, the same on the device, and a loss with its target on either side."""
    case = make_case(cell, **{"n": 3, "lengths": UNEVEN, "dtype": dtype, **options})
    traj = on(case, "cuda")
    loss = loss_of(case, traj)
    return traj, on_device(case), loss, rg.losses.squared_error(to_device(loss.target), loss.weights)


@inside
@each
def test_reach_of_gradients(cell, dtype, copied):
    traj, there, loss, loss_there = both(cell, dtype)
    for options in ({}, {"times": [2, 5], "max_lag": 3}, {"times": [4], "max_lag": 0}):
        expected = rg.gradient_reach(traj, loss, **options)
        copied.clear()
        assert_same(rg.gradient_reach(there, loss_there, **options), expected)
        assert set(copied) == {NUMBER, expected.log_norm.nbytes}  # the loss, and the result
    cpu = rg.gradient_reach(rg.rollout(traj.net, traj.x, traj.states[0], traj.lengths, backend="cpu"), loss, **options)
    assert_near(expected, cpu, DTYPES[dtype])


@inside
def test_horizons_and_rates_of_gradients(copied):
    traj, there, loss, loss_there = both("lstm", n=2, T=6, B=2, lengths=None)
    part, options = [0, 0, 0, 1, 0, 1], {"first": 2, "last": 6, "sample": 1}
    asks = {
        "horizon": lambda of, loss: rg.memory_horizon(of, loss, eps=0.1),
        "map": lambda of, loss: rg.gradient_map(of, loss, **options),
        "rates": lambda of, loss: rg.time_constants(of, loss),
    }
    for name, ask in asks.items():
        expected = ask(traj, loss)
        copied.clear()
        assert_same(ask(there, loss_there), expected)
        assert max(copied) <= NUMBER * 2 * 6 * 7, name  # of each sample, step and lag
    chosen, chosen_there = (rg.losses.squared_error(of.target, part) for of in (loss, loss_there))
    copied.clear()
    assert steps_with_loss(there, chosen_there).tolist() == [4, 6]
    assert max(copied) == NUMBER
    assert steps_with_loss(traj, chosen).tolist() == [4, 6]


@inside
@pytest.mark.slow
def test_the_verdict_on_gradients(copied):
    case = make_case("gru", T=14, n=5, m=2, B=2)
    there, here = on_device(case), on(case, "cuda")
    loss = loss_of(case, here)
    expected = rg.verdict(here, loss)
    copied.clear()
    found = rg.verdict(there, loss)
    assert max(copied) <= 15 * 15 * 2 * NUMBER  # norms of all pairs; of weights and states, nothing
    assert found.to_dict() == expected.to_dict() and str(found) == str(expected)


@inside
@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")  # of the interpreted kernel
def test_reach_beyond_the_range_of_floats():
    traj, there, loss, loss_there = both("linear", T=9, lengths=None)
    net = traj.net.replace(W=1e-80 * traj.net.W)
    small, small_there = (rg.rollout(net, of.x, of.states[0], backend="cuda") for of in (traj, there))
    expected = rg.gradient_reach(small, loss)
    assert_same(rg.gradient_reach(small_there, loss_there), expected)
    assert expected.log_norm[0, 8, 9] < -1500
    flow = rg.gradient_flow(small, loss).log_norm
    for lag in range(10):
        there = np.diagonal(flow, -lag, 1, 2)[:, 1 if lag == 0 else 0 :]
        np.testing.assert_allclose(expected.log_norm[:, max(lag, 1) - 1 :, lag], there, rtol=1e-12)


# ---------------------------------------------------------------- settling


def held_trajectories(dtype="float64"):
    """Four samples of a network of two units, three of them under one input, on the host and on the device."""
    net = rg.Network.init("vanilla", 2, 2, seed=0, dtype=dtype)
    x = np.tile(np.array([[0.1, 0.2], [0.1, 0.2], [-0.3, 0.0], [0.1, 0.2]], dtype), (12, 1, 1))
    s0 = np.random.default_rng(1).standard_normal((4, 1, 2)).astype(dtype)
    return rg.rollout(net, x, s0, backend="cuda"), rg.rollout(net, to_device(x), to_device(s0))


@inside
@pytest.mark.parametrize("dtype", DTYPES)
def test_where_trajectories_settle(dtype, copied):
    traj, there = held_trajectories(dtype)
    for options in ({"starts": 5, "max_steps": 20, "search": False}, {"starts": 0, "max_steps": 20, "search": False}):
        expected = settling(traj, [0, 3], **options)
        copied.clear()
        assert_same(settling(there, [0, 3], **options), expected)
        item, followed = np.dtype(dtype).itemsize, 2 + (2 + options["starts"] if options["starts"] else 0)
        assert copied[:3] == [4 * 2 * item, 4, followed * 2 * item]  # first inputs, which change, and the starts
        if options["starts"]:
            assert copied[3] == NUMBER * 4 * 2 < there.states.nbytes  # sums for the units
    assert [group.tolist() for group in held_inputs(there)] == [[0, 1, 3], [2]]
    cpu = settling(rg.rollout(traj.net, traj.x, traj.states[0], backend="cpu"), [0, 3], **options)
    np.testing.assert_allclose(expected.distance, cpu.distance, atol=10 * DTYPES[dtype])


@inside
def test_inputs_on_the_device_that_are_not_held():
    traj, there = held_trajectories()
    with pytest.raises(ValueError, match=r"the samples \[0, 2\] of traj do not hold one input"):
        settling(there, [0, 2])
    x = traj.x.copy()
    x[5, 1, 1] += 1e-9  # neither the first step nor the last
    changing = rg.rollout(traj.net, to_device(x), traj.states[0])
    with pytest.raises(ValueError, match="the input of traj changes in time"):
        held_inputs(changing)
    with pytest.raises(ValueError, match=r"the samples \[0, 1\] of traj do not hold one input"):
        settling(changing, [0, 1])
    assert settling(changing, [0, 3], starts=0, max_steps=5, search=False).x.tolist() == [0.1, 0.2]


# ---------------------------------------------------------------- truncation


@inside
@pytest.mark.parametrize(
    ("cell", "dtype"), [("lstm", "float64"), ("gru_delayed", "float32"), ("gru_reset_before", "float64")]
)
def test_bias_of_truncation(cell, dtype, copied):
    traj, there, loss, loss_there = both(cell, dtype)
    host_traj = rg.rollout(traj.net, traj.x, traj.states[0], traj.lengths, backend="cpu")
    for options in ({}, {"windows": [2, 4], "k1": 2, "criterion": "cosine", "parameters": ["W", "b"]}):
        expected = rg.truncation_bias(traj, loss, **options)
        copied.clear()
        assert_same(rg.truncation_bias(there, loss_there, **options), expected)
        assert max(copied) == 4 * NUMBER  # sums
        assert_near(expected, rg.truncation_bias(host_traj, loss, **options), 10 * DTYPES[dtype])


@inside
def test_overlap_of_vectors(monkeypatch):
    """Against NumPy, also beyond the range of squares; whatever threads there are, the same."""
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 3001))
    for x, y in ((a, b), (1e-200 * a, 1e200 * b), (a, a), (0 * a, b), (a.astype(np.float32), b.astype(np.float32))):
        wide = x.astype(float), y.astype(float), x.astype(float) - y.astype(float)
        tops = np.array([np.abs(of).max() for of in wide])
        u, v, gap = (of / (top or 1) for of, top in zip(wide, tops, strict=True))
        sums = [u @ u, v @ v, gap @ gap, u @ v]
        for kernels in (cpu, cuda):
            found = kernels.overlap(x, y)
            np.testing.assert_array_equal(found[0], tops)
            np.testing.assert_allclose(found[1], sums, rtol=1e-12, atol=1e-10)
        monkeypatch.setattr(_cuda, "threads", lambda items: 3)
        for first, second in zip(cuda.overlap(to_device(x), to_device(y)), found, strict=True):
            np.testing.assert_array_equal(first, second)
        monkeypatch.undo()
    a[7] = np.nan
    assert all(np.isnan(kernels.overlap(a, b)[0][0]) for kernels in (cpu, cuda))


@inside
def test_a_gradient_that_is_zero_is_refused():
    _, there, _, _ = both("linear", T=4, lengths=None)
    with pytest.raises(ValueError, match="the full gradient is zero"):
        rg.truncation_bias(there, rg.losses.squared_error(there.y))
