"""Exponents, covariant vectors and spectra of arrays that stay on the GPU: by Numba's simulator.

As in ``test_cuda_simulator.py``: the tests run in a process of their own that has the simulator. The truth is what the
same kernels make of arrays that are given on the host, to the bit; those are tested against the CPU and closed forms.
"""

import dataclasses

import numpy as np
import pytest
import test_cuda_simulator
from cases import assert_close, make_case
from simulated import DTYPES, SIMULATED, inside, sessions
from test_cuda_simulator import host, on, on_device, to_device

import rnngrad as rg
from rnngrad import _cuda
from rnngrad._math import TANH
from rnngrad.analysis import lyapunov
from rnngrad.analysis.time_constants import leak_rates

if SIMULATED:
    from rnngrad.kernels.cuda import pieces

copied = test_cuda_simulator.copied  # bytes of each copy to the host, where NumPy makes none by itself


test_in_the_simulator, _ = sessions(__file__)


@pytest.fixture
def frames(monkeypatch):
    """The frames that exponents were measured with."""
    seen, measure = [], lyapunov.measure_exponents
    monkeypatch.setattr(
        lyapunov, "measure_exponents", lambda of, start, *rest: seen.append(start.frames) or measure(of, start, *rest)
    )
    return seen


def assert_equal(found, expected):
    """Two results with the same numbers, to the bit, all on the host."""
    assert type(found) is type(expected)
    for item in dataclasses.fields(expected):
        value = getattr(found, item.name)
        assert type(value) is type(getattr(expected, item.name)), item.name
        np.testing.assert_array_equal(value, getattr(expected, item.name), err_msg=item.name)


# ---------------------------------------------------------------- exponents


@inside
@pytest.mark.parametrize(
    ("cell", "dtype"), [("vanilla", "float64"), ("lstm", "float32"), ("gru_delayed", "float64")], ids=str
)
def test_exponents_of_inputs_on_the_device(cell, dtype, copied, frames, monkeypatch):
    case = make_case(cell, n=2, T=72, B=2, dtype=dtype)
    k, options = 2, {"k": 2, "transient": 8}
    expected = rg.lyapunov_spectrum(case.net, case.x, case.s0, backend="cuda", **options)
    copied.clear()
    found = rg.lyapunov_spectrum(case.net, to_device(case.x), to_device(case.s0), **options)
    assert_equal(found, expected)
    # a number for each of 16 blocks, and sample and direction; what became of each sample's frame, four
    assert max(copied) <= 8 * 2 * max(16 * k, 4) < case.x.nbytes // 2 and _cuda.is_device_array(frames[-1])
    start = rg.lyapunov_spectrum(case.net, to_device(case.x), case.s0, **options)
    assert_equal(start, expected)
    monkeypatch.setattr(lyapunov, "_piece", lambda net, B: 20)
    in_pieces = rg.lyapunov_spectrum(case.net, to_device(case.x), to_device(case.s0), **options)
    assert_equal(in_pieces, rg.lyapunov_spectrum(case.net, case.x, case.s0, backend="cuda", **options))
    assert_close(in_pieces.exponents, expected.exponents, 1e-6)


@inside
def test_a_random_start_is_that_of_inputs_on_the_host():
    case = make_case("gru", n=2, T=24, B=2)
    found = rg.lyapunov_spectrum(case.net, to_device(case.x), k=1, seed=3)
    assert_equal(found, rg.lyapunov_spectrum(case.net, case.x, k=1, seed=3, backend="cuda"))


@inside
@pytest.mark.parametrize("dtype", DTYPES)
def test_exponents_along_trajectories_on_the_device(dtype, copied, frames):
    case = make_case("lstm", n=2, T=72, B=2, dtype=dtype)
    traj, expected = on_device(case), lyapunov.lyapunov_along(on(case, "cuda"), 3, transient=8)
    copied.clear()
    assert_equal(lyapunov.lyapunov_along(traj, 3, transient=8), expected)
    assert max(copied) <= 8 * 2 * 16 * 3 < rg.jacobians(traj).nbytes // 2 and _cuda.is_device_array(frames[-1])


@inside
def test_a_direction_that_is_lost_on_the_device_costs_one_jacobian(copied):
    case = make_case("vanilla", "relu", n=4, T=20, B=1)  # units that are off: singular Jacobians
    expected, traj = lyapunov.lyapunov_along(on(case, "cuda"), transient=0), on_device(case)
    assert expected.lost_at[0] >= 0
    copied.clear()
    assert_equal(lyapunov.lyapunov_along(traj, transient=0), expected)
    assert max(copied) <= 8 * max(4 * 4, 20 * 4)


@inside
def test_inputs_on_the_device_that_do_not_fit():
    case = make_case("gru", n=2, T=24, B=2)
    x = to_device(case.x)
    hole = case.x.copy()
    hole[3, 1, 2] = np.nan
    stack = rg.Stack.init(["gru"], n_inputs=3, n_hidden=[2], seed=0)
    for net, given, options, message in (
        (case.net, x, {"backend": "cpu"}, "x lives on a GPU, and backend is 'cpu'"),
        (stack, x, {}, "net is a Stack; on a GPU it must be a Network"),
        (case.net, to_device(hole), {}, r"x is not finite at index \(3, 1, …\)"),
        (case.net, x, {"s0": to_device(case.s0[:1])}, r"s0 has shape \(1, 1, 2\); it must have shape \(2, 1, 2\)"),
        (case.net, case.x, {"s0": to_device(case.s0)}, "s0 lives on a GPU"),
        (case.net, x, {"samples": 3}, "samples is 3, but x has 2"),
        (case.net, to_device(case.x[:10]), {}, "x has 10 steps; exponents take at least 16"),
    ):
        with pytest.raises(ValueError, match=message):
            rg.lyapunov_spectrum(net, given, **options)


# ---------------------------------------------------------------- covariant vectors


@inside
@pytest.mark.parametrize("settle", [0, 4])
@pytest.mark.parametrize(
    ("cell", "dtype"), [("vanilla", "float64"), ("lstm", "float32"), ("gru_delayed", "float64")], ids=str
)
def test_covariant_vectors_stay_on_the_device(cell, dtype, settle, copied, tmp_path):
    case = make_case(cell, n=2, T=20, B=2, dtype=dtype)
    expected, traj = rg.covariant_vectors(on(case, "cuda"), 2, settle=settle), on_device(case)
    copied.clear()
    found = rg.covariant_vectors(traj, 2, settle=settle)
    assert max(copied) == 8 * 2  # of two samples, whether a direction was lost
    for name in ("vectors", "log_growth", "exponents"):
        np.testing.assert_array_equal(host(getattr(found, name)), getattr(expected, name), err_msg=name)
    assert_equal(found.to_host(), expected)
    np.testing.assert_array_equal(found.angles, expected.angles)
    np.testing.assert_array_equal(found.angle_between(1), expected.angle_between(1))
    saved = np.load(found.save(tmp_path / "vectors.npz"))
    np.testing.assert_array_equal(saved["vectors"], expected.vectors)
    assert found.plot().get_title(loc="left") == expected.plot().get_title(loc="left")
    cpu = rg.covariant_vectors(on(case, "cpu"), 2, settle=settle)
    tolerance = 1e-9 if dtype == "float64" else 1e-3  # of directions that 20 steps have sorted
    np.testing.assert_allclose(expected.log_growth, cpu.log_growth, rtol=0, atol=tolerance)
    assert_close(expected.exponents, cpu.log_growth.mean(axis=0), tolerance)
    np.testing.assert_allclose(expected.vectors, cpu.vectors, rtol=0, atol=tolerance)


@inside
def test_a_direction_that_cannot_be_followed_back_on_the_device():
    case = make_case("linear", n=2, T=12, B=1)
    case = dataclasses.replace(case, net=case.net.replace(W=np.ones((1, 2, 2))))
    with pytest.raises(rg.SingularError, match=r"direction 1 of sample 0 to zero; ask for k <= 1"):
        rg.covariant_vectors(on_device(case), settle=1)


@inside
def test_coefficients_are_carried_back_in_pieces_and_by_any_threads(monkeypatch):
    from rnngrad.dynamics.frames import covariant, orthonormalize

    rng = np.random.default_rng(0)
    M, B, k, N = 7, 3, 3, 5
    Q = np.stack([orthonormalize(rng.standard_normal((B, k, N)), np.zeros((B, k), np.int64))[0] for _ in range(M + 1)])
    R = np.triu(rng.standard_normal((M, B, k, k))) + 3 * np.eye(k)
    shifts, C = rng.integers(-30, 30, (M, B, k)), np.triu(rng.standard_normal((B, k, k))) + 3 * np.eye(k)
    calls, run = [], pieces.run
    monkeypatch.setattr(pieces, "run", lambda *args: calls.append("") or run(*args))
    for states in (M + 1, 3):
        expected = covariant(C.copy(), Q, R, shifts, states, "cpu")
        results = [covariant(C.copy(), Q, R, shifts, states, "cuda")]
        for threads in (1, 3):
            monkeypatch.setattr(_cuda, "threads", lambda items, threads=threads: threads)
            results.append(covariant(C.copy(), Q, R, shifts, states, "cuda"))
        for free in (5000.0, 1700.0):  # two samples at once; half of the steps of one, and less
            calls.clear()
            monkeypatch.setattr(_cuda, "free_bytes", lambda free=free: free)
            results.append(covariant(C.copy(), Q, R, shifts, states, "cuda"))
            assert (len(calls) > 1) == (free == 1700.0)
        monkeypatch.setattr(_cuda, "free_bytes", lambda: np.inf)
        for found, truth in zip(zip(*results), expected):
            assert_close(found[0], truth, 1e-13)
            for other in found[1:]:
                np.testing.assert_array_equal(other, found[0])


# ---------------------------------------------------------------- spectra


@inside
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", ["vanilla", "gru_reset_before"])
def test_spectra_of_trajectories_on_the_device(cell, dtype, copied):
    case = make_case(cell, n=3, T=24, B=2, dtype=dtype)
    traj, expected = on_device(case), on(case, "cuda")
    of_one = {"sample": 1}
    for ask in (
        lambda of: rg.jacobian_spectrum(of, **of_one),
        lambda of: rg.product_spectrum(of, **of_one),
        lambda of: rg.product_spectrum(of, time=9, lags=[1, 9], **of_one),
    ):
        truth = ask(expected)
        copied.clear()
        assert_equal(ask(traj), truth)
        assert max(copied) <= 8 * 3**2  # one matrix at a time
    truth = rg.singular_values(expected, times=[3, 8], lags=[0, 3, 8])
    copied.clear()
    assert_equal(rg.singular_values(traj, times=[3, 8], lags=[0, 3, 8]), truth)
    assert max(copied) <= 8 * 2 * 4


# ---------------------------------------------------------------- units


@inside
@pytest.mark.parametrize(
    ("cell", "activation", "dtype"),
    [
        ("vanilla", "softplus", "float64"),
        ("vanilla", "logistic", "float64"),
        ("vanilla", "relu", "float32"),
        ("continuous", "identity", "float64"),
        ("lstm", "tanh", "float64"),
        ("gru_delayed", "tanh", "float32"),
    ],
)
def test_units_of_trajectories_on_the_device(cell, activation, dtype, copied):
    case = make_case(cell, activation, n=3, T=30, B=3, lengths=[30, 17, 1], dtype=dtype, scale=2.0)
    traj, expected, cpu = on_device(case), on(case, "cuda"), on(case, "cpu")
    levels = {"low_level": 0.2, "high_level": 0.8, "value_level": 0.8}
    copied.clear()
    found, leaks = rg.saturation(traj, **levels), leak_rates(traj)
    assert set(copied) <= {8 * 4 * 3}  # four numbers for each unit
    assert_equal(found, rg.saturation(expected, **levels))
    truth = rg.saturation(cpu, **levels)
    for name in ("low", "high", "mean", "slope"):
        np.testing.assert_allclose(getattr(found, name), getattr(truth, name), rtol=DTYPES[dtype], atol=DTYPES[dtype])
    at_the_ends = {"identity": (False, False), "relu": (True, False), "softplus": (True, False)}
    assert (truth.low.any(), truth.high.any()) == at_the_ends.get(activation, (True, True))
    for name, rates in leak_rates(cpu).items():
        np.testing.assert_array_equal(leaks[name], leak_rates(expected)[name])
        np.testing.assert_allclose(leaks[name], rates, rtol=0, atol=100 * DTYPES[dtype])


@inside
def test_time_constants_along_trajectories_on_the_device(copied):
    case = make_case("gru", n=2, T=12, B=2)
    traj, expected = on_device(case), rg.time_constants(on(case, "cuda"))
    copied.clear()
    found = rg.time_constants(traj)
    assert max(copied) <= 8 * 2 * 4
    assert found.chain.rate == expected.chain.rate
    np.testing.assert_array_equal(found.leak_rate, expected.leak_rate)


@inside
def test_sums_over_steps_in_pieces_and_by_any_threads(monkeypatch):
    from rnngrad.kernels import cuda as kernels

    rng, lengths = np.random.default_rng(0), np.array([50, 20, 41])
    z = 2 * rng.standard_normal((50, 3, 2, 5))
    arguments = (z, 1, 1, lengths, (0.2, 0.8, 0.8))
    valid = (np.arange(50)[:, None] >= 1) & (np.arange(50)[:, None] < lengths)
    value = np.tanh(z[:, :, 1][valid])
    truth = np.stack([value < -0.8, value > 0.8, value, 1 - value**2]).sum(axis=1)
    expected = kernels.unit_sums(TANH)(*arguments)
    np.testing.assert_allclose(expected, truth, rtol=1e-13)
    for threads in (1, 3):
        monkeypatch.setattr(_cuda, "threads", lambda items, threads=threads: threads)
        np.testing.assert_array_equal(kernels.unit_sums(TANH)(*arguments), expected)
    monkeypatch.setattr(_cuda, "free_bytes", lambda: 8.0 * (64 * 4 * 5 + 7 * z[0].size))
    np.testing.assert_array_equal(kernels.unit_sums(TANH)(*arguments), expected)


# ---------------------------------------------------------------- what is not computed there


@inside
@pytest.mark.usefixtures("copied")
def test_what_is_computed_from_arrays_on_the_host_names_them():
    case = make_case("vanilla", n=2, T=6, B=2)
    x, s = to_device(case.x[0, 0]), np.zeros(2)
    for ask in (
        lambda: rg.continue_fixed_point(lambda p: case.net, s, 0.0, 1.0, x=x),
        lambda: rg.continue_fixed_point(lambda p: case.net, to_device(s), 0.0, 1.0),
    ):
        with pytest.raises(ValueError, match="lives on a GPU, and this is computed from arrays on the host"):
            ask()
