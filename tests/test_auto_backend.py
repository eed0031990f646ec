"""What backend="auto" is: by a planted measurement, by a broken one, and by none."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from simulated import inside, outside, session

import rnngrad as rg
from rnngrad import _cache, _cuda, _jit, calibration, doctor
from rnngrad.cli import main
from rnngrad.dynamics.work import chain_work, gradient_work
from rnngrad.kernels import choice

SLOW, FAST = [1e-3, 0, 1e-9, 0], [1e-4, 1e-6, 1e-11, 1e-10]
NET = rg.Network.init("lstm", 3, 4, 2, seed=0)
X = np.zeros((5, 2, 3))
WORK = choice.Work(10, 1e9, 1e6, "float64")


@outside
def test_in_the_simulator():
    session(__file__, seconds=600)


@pytest.fixture
def card(tmp_path, monkeypatch):
    """``card(text)``: a device whose measurement is that text, in a folder of its own; None for no measurement."""
    monkeypatch.setattr(_cache, "cache_folder", lambda: tmp_path / "digest")
    monkeypatch.setattr(_cuda, "missing", lambda: None)
    monkeypatch.setattr(_cuda, "device_model", lambda: "Some Card, sm_90")
    choice.measured.cache_clear()

    def plant(text):
        path = tmp_path / f"backends-1-Some-Card-sm-90-{_jit.num_threads()}-threads.json"
        if text is not None:
            path.write_text(text)
        return path

    yield plant
    choice.measured.cache_clear()


def told(cpu, cuda):
    """The text of a measurement with these coefficients."""
    each = {"cpu": cpu, "cuda": cuda}
    return json.dumps({"coefficients": {"float64": each, "float32": {"cpu": SLOW, "cuda": SLOW}}})


def test_cuda_is_taken_where_it_is_predicted_to_be_clearly_faster(card):
    card(told(SLOW, FAST))
    assert choice.automatic(lambda: WORK) == "cuda"
    cpu, cuda = choice.measured().seconds(WORK)
    assert (cpu, cuda) == pytest.approx((1e-3 + 1, 1e-4 + 1e-5 + 1e-2 + 1e-4))
    assert choice.automatic(lambda: choice.Work(10, 1e9, 1e6, "float32")) == "cpu"  # no faster there
    assert choice.automatic(lambda: choice.Work(2000, 1e5, 1e3, "float64")) == "cpu"  # many short steps
    assert choice.automatic(lambda: None) == "cpu"  # a job that nobody knows
    assert choice.explained().startswith("CUDA where it is predicted to be 1.5 times as fast")


@pytest.mark.parametrize(("times", "backend"), [(1.49, "cpu"), (1.51, "cuda")])
def test_a_little_faster_is_not_enough(card, times, backend):
    card(told([times, 0, 0, 0], [1, 0, 0, 0]))
    assert choice.automatic(lambda: WORK) == backend


def test_another_device_other_threads_or_no_device(card, monkeypatch):
    card(told(SLOW, FAST))
    for change in (
        lambda patch: patch.setattr(_cuda, "device_model", lambda: "Other Card, sm_80"),
        lambda patch: patch.setattr(_jit, "num_threads", lambda: 1000),
        lambda patch: patch.setattr(_cuda, "missing", lambda: "there is none"),
    ):
        with monkeypatch.context() as patch:
            change(patch)
            choice.measured.cache_clear()
            assert choice.automatic(lambda: WORK) == "cpu" and choice.explained().startswith("the CPU: ")
    choice.measured.cache_clear()
    assert choice.automatic(lambda: WORK) == "cuda"


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "{}", told([1, 2, 3], FAST), told([-1, 0, 0, 0], FAST), told([0, 0, 0, 0], FAST)]
    + [told([math.nan, 0, 0, 0], FAST), told(["a", 0, 0, 0], FAST)],
)
def test_a_broken_measurement_is_named_once_and_not_followed(card, text):
    path = card(text)
    with pytest.warns(UserWarning, match="holds no measurement of the backends") as said:
        assert choice.automatic(lambda: WORK) == "cpu"
    assert str(path) in str(said[0].message) and "rnngrad doctor --measure" in str(said[0].message)
    assert choice.automatic(lambda: WORK) == "cpu" and len(said) == 1


def test_without_a_measurement_nothing_of_cuda_is_asked_for(card, monkeypatch):
    def asked():
        raise AssertionError("CUDA was asked for")

    card(None)
    monkeypatch.setattr(_cuda, "missing", asked)
    assert rg.rollout(NET, X).backend == "cpu"
    code = "import sys, numpy, rnngrad as rg; n = rg.Network.init('lstm', 3, 4, 2, seed=0); "
    code += "rg.rollout(n, numpy.zeros((5, 2, 3))); sys.exit('numba.cuda' in sys.modules)"
    root = str(Path(rg.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0


def test_work_is_counted_from_the_arrays():
    T, B = 6, 3
    for cell in ("lstm", "gru_reset_before", "continuous"):
        net = rg.Network.init(cell, 2, 5, 4, seed=0)
        traj = rg.rollout(net, np.zeros((T, B, 2)), backend="cpu")
        arrays = traj.x, traj.states[1:], traj.a, traj.a2, traj.emitted, traj.inner
        weights = [net.parameters[name].size for name in ("W", "U", "W2", "U2") if name in net.parameters]
        work = gradient_work(net, T, B)
        assert work.terms == (1, T, 3 * T * B * sum(weights), sum(array.nbytes for array in arrays))
        factors = rg.jacobian_chain(traj).jacobians
        nbytes = sum(array.nbytes for array in factors.arrays) + T * B * net.N**2 * 8
        recurrent = net.parameters["W"].size + (net.parameters["W2"].size if net.cell.two_stage else 0)
        assert chain_work(net, T, B).terms == (1, T, T * B * net.N * recurrent, nbytes)
    stack = rg.Stack.init(["lstm", "gru"], 2, [5, 3], seed=0)
    parts = [gradient_work(layer, T, B) for row in stack.layers for layer in row]
    assert gradient_work(stack, T, B).terms[1:] == tuple(map(sum, zip(*(part.terms[1:] for part in parts))))


def test_what_not_every_kernel_takes_stays_on_the_cpu(card):
    card(told([1, 1, 1, 1], [1e-9, 0, 0, 0]))
    square = rg.System(lambda s, x, p: s * s, 2)
    for net in (square, rg.BatchNormLSTM.init(3, 4, seed=0), rg.Stack.init(["lstm"], 0, 4, 3, feedback=True)):
        assert rg.rollout(net, np.zeros((4, 2, net.m))).backend == "cpu"


def test_a_fit_finds_what_the_times_are_made_of():
    rng = np.random.default_rng(0)
    terms = np.column_stack([np.ones(9), *10 ** rng.uniform(1, 9, (3, 9))])
    for c in ([1e-4, 1e-6, 1e-11, 1e-10], [0, 1e-6, 0, 1e-10]):
        np.testing.assert_allclose(calibration.fit(terms, terms @ c), c, rtol=1e-8, atol=1e-18)
    noise = np.exp(rng.normal(0, 0.1, 9))
    found = calibration.fit(terms, terms @ c * noise)
    assert (found >= 0).all() and np.abs(np.log(terms @ found / (terms @ c))).max() < 0.3


def test_measuring_without_a_device_says_so(capsys, monkeypatch):
    monkeypatch.setattr(_cuda, "missing", lambda: "there is no device")
    monkeypatch.setattr(doctor, "self_tests", lambda: iter(()))
    assert main(["doctor", "--measure"]) == 2
    out, err = capsys.readouterr()
    assert "backend auto   the CPU: there is no device" in out
    assert err.count("\n") == 1 and "--measure: backend is 'cuda', but there is no device" in err


@inside
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_what_is_measured_is_kept_and_followed(tmp_path, monkeypatch):
    monkeypatch.setattr(_cache, "cache_folder", lambda: tmp_path / "digest")
    monkeypatch.setattr(calibration, "_BEST_OF", 1)
    choice.measured.cache_clear()
    assert choice.explained().startswith("the CPU: simulator is not measured; rnngrad doctor --measure")
    assert rg.rollout(NET, X).backend == "cpu"
    lines = []
    path = calibration.measure(lines.append, ((2, 2, 1), (2, 4, 1), (3, 2, 2)), ((2, 2, 1),))
    kept = json.loads(path.read_text())
    assert kept["device"] == "simulator" and len(kept["jobs"]) == 8 and len(lines) == 8 + 4 + 1
    assert all(row["cpu"] < row["cuda"] for row in kept["jobs"])  # threads of Python are no card
    assert choice.measured().coefficients["float32"]["cuda"] == tuple(kept["coefficients"]["float32"]["cuda"])
    assert rg.rollout(NET, X).backend == "cpu"
    each = {"cpu": [1.0, 0, 0, 0], "cuda": [0.1, 0, 0, 0]}
    choice.keep({"float64": each, "float32": each}, [])
    traj, expected = rg.rollout(NET, X), rg.rollout(NET, X, backend="cuda")
    assert traj.backend == "cuda" and rg.rollout(NET, X, backend="cpu").backend == "cpu"
    assert rg.jacobian_chain(traj).jacobians.backend == "cuda"
    np.testing.assert_array_equal(rg.jacobian_chain(traj).product(5, 0), rg.jacobian_chain(expected).product(5, 0))
    choice.measured.cache_clear()
