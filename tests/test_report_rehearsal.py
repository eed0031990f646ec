"""Kernels compiled ahead by the second process of a report are those that the job needs, and change nothing."""

import json
import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from numba.core import config, event
from numba.core.caching import NullCache
from reports import held, network, sequence

import rnngrad as rg
from rnngrad import _cache
from rnngrad._jit import kernel
from rnngrad.report import example, job, measure, painter, rehearsal
from rnngrad.report.painter import Painter

compiled = pytest.mark.skipif(bool(config.DISABLE_JIT), reason="nothing is compiled")

SCRIPT = """
import json, sys
import numpy as np
sys.path[:] = json.loads(sys.argv[1])
from rnngrad import _cache
asked = set()
load = _cache.KernelCache.load_overload
def noted(self, sig, context):
    asked.add(repr((self._py_func.__module__, self._py_func.__rnngrad_key__, sig)))
    return load(self, sig, context)
_cache.KernelCache.load_overload = noted
import test_report_rehearsal
getattr(test_report_rehearsal, sys.argv[2])(*json.loads(sys.argv[3]))
print(json.dumps(sorted(asked)))
"""


def asked(function, *arguments):
    """The kernels, with argument types, that a function of this file looks for in the cache in a new process."""
    command = [sys.executable, "-c", SCRIPT, json.dumps(sys.path), function, json.dumps(arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


NETWORKS = {
    "lstm": lambda: network("lstm", n=24),
    "gru": lambda: network("gru", n=24, dtype="float32"),
    "continuous": lambda: network("continuous", n=24, activation="relu"),
    "stack": lambda: rg.Stack.init(["gru", "lstm"], 2, [12, 24], 3, seed=0),
    "bidirectional": lambda: rg.Stack.init("vanilla", 2, 24, 3, n_layers=2, bidirectional=True, seed=0),
    "held": lambda: rg.Network.init("vanilla", 1, 12, seed=0),
}


def example_rehearsed():
    example.rehearse()


def example_done():
    for cell in example.NETWORKS.values():
        one = example.train(cell, steps=1)
        measure.measure(*example._to_analyse(one.net, one.x, one.target, "cpu"))


def job_rehearsed(name):
    net = NETWORKS[name]()
    job.rehearse(rehearsal.in_small(net), (200, 3), name == "held")


def job_done(name):
    net = NETWORKS[name]()
    x = held(200, 3) if name == "held" else sequence(200, 3).astype(net.dtype)
    for part, loss in job.sections(rg.rollout(net, x), None).values():
        measure.measure(part, loss, measure.choose(part, loss), held=name == "held")


@compiled
def test_the_example_needs_what_was_rehearsed():
    needed, rehearsed = asked("example_done"), asked("example_rehearsed")
    assert len(needed) > 20 and needed <= rehearsed, needed - rehearsed


@compiled
@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_a_job_needs_what_was_rehearsed(name):
    needed, rehearsed = asked("job_done", name), asked("job_rehearsed", name)
    assert len(needed) > 15 and needed <= rehearsed, needed - rehearsed


@pytest.mark.parametrize("name", NETWORKS)
def test_a_small_network_is_of_the_same_kind(name):
    net = NETWORKS[name]()
    small = rehearsal.build(*rehearsal.in_small(net))
    kinds = [
        [[(one.cell.name, one.activation, one.N // one.n) for one in row] for row in getattr(this, "layers", [[this]])]
        for this in (net, small)
    ]
    assert kinds[0] == kinds[1] and type(small) is type(net) and small.dtype == net.dtype
    assert (small.V is None) == (net.V is None) and small.N < net.N


def test_what_is_not_kept_is_not_rehearsed():
    system = rg.System(lambda s, x, p: (0.5 * s[0],), n_state=1)
    assert rehearsal.in_small(system) is None
    assert rehearsal.pays("cpu") and not rehearsal.pays("cuda")


def test_the_last_analysis_is_rehearsed_first(monkeypatch):
    traj = rg.rollout(network(), sequence())
    loss = rg.losses.squared_error(np.zeros_like(traj.y))
    settings = measure.choose(traj, loss)
    made = []

    def noted(name, analysis):
        return lambda *arguments: made.append(name) or analysis(*arguments)

    listed = {name: (share, noted(name, analysis)) for name, (share, analysis) in measure._ANALYSES.items()}
    monkeypatch.setattr(measure, "_ANALYSES", listed)
    measure.measure(traj, loss, settings)
    measure.rehearse(traj, loss, settings)
    assert made == [*listed, *reversed(listed)]


# ---------------------------------------------------------------- the second process


def compiling(cache):
    """What Numba says when it begins to compile a function with that cache."""
    event.start_event("numba:compile", data={"dispatcher": SimpleNamespace(_cache=cache)})


def missing():
    """A kernel that is not in the cache is compiled."""
    compiling(object.__new__(_cache.KernelCache))


def said(folder):
    """What a process has to say: something in a folder."""
    (folder / "said").touch()


def broken():
    raise ArithmeticError("out of luck")


def forever(folder):
    said(folder)
    threading.Event().wait()


@pytest.fixture
def two(monkeypatch):
    monkeypatch.setattr(painter, "num_threads", lambda: 2)


def until(one, condition):
    with one._news:
        assert one._news.wait_for(condition, timeout=120)


def until_said(folder):
    end = time.monotonic() + 120
    while not (folder / "said").exists():
        assert time.monotonic() < end
        time.sleep(0.01)


def finished(one):
    """What ``finish`` gives, in time."""
    given = []
    thread = threading.Thread(target=lambda: given.append(one.finish(lambda share: None)))
    thread.start()
    thread.join(timeout=60)
    assert given == [[]]


def test_a_missing_kernel_starts_the_rehearsal(two, tmp_path):
    with Painter(tmp_path) as one:
        one.rehearse(said, tmp_path)
        missing()
        until(one, lambda: one._rehearsal is None)
        assert (tmp_path / "said").exists()
        finished(one)


@compiled
def test_kernels_that_are_kept_start_nothing(two, tmp_path, monkeypatch):
    monkeypatch.setattr(_cache, "cache_folder", lambda: tmp_path)

    def run(cached):
        @kernel("a kernel", tasks=lambda x: 1, cached=cached)
        def add(start, stop, x):
            x[0] += 1

        add(np.zeros(1))

    with Painter(tmp_path) as one:
        one.rehearse(said, tmp_path / "none")
        run(cached=False)
        assert not one._missed, "one that is never kept"
        run(cached=True)
        assert one._missed
    with Painter(tmp_path) as one:
        one.rehearse(said, tmp_path)
        run(cached=True)
        assert not one._missed, "one that was found"
    assert not (tmp_path / "said").exists()


def test_only_kernels_of_the_cache_count_and_only_in_time(two, tmp_path):
    with Painter(tmp_path) as one:
        missing()
        one.rehearse(said, tmp_path)
        assert not one._missed, "missed before there was anything to rehearse"
        compiling(NullCache())
        assert not one._missed
    missing()
    assert not one._missed and not (tmp_path / "said").exists()


def test_a_rehearsal_that_fails_is_told_and_fails_nothing(two, tmp_path, caplog):
    with caplog.at_level(logging.WARNING), Painter(tmp_path) as one:
        one.rehearse(broken)
        missing()
        until(one, lambda: one._rehearsal is None)
        finished(one)
    (record,) = caplog.records
    assert "could not be compiled ahead (ArithmeticError: out of luck)" in record.getMessage()


def test_a_process_that_ends_while_it_rehearses_is_told(two, tmp_path, caplog):
    with caplog.at_level(logging.WARNING), Painter(tmp_path) as one:
        one.rehearse(forever, tmp_path)
        missing()
        until_said(tmp_path)
        one._second.kill()
        one._feeder.join(timeout=60)
        finished(one)
    (record,) = caplog.records
    assert "the second process ended" in record.getMessage()


def test_the_end_of_a_job_does_not_wait_for_a_rehearsal(two, tmp_path, caplog):
    with caplog.at_level(logging.WARNING), Painter(tmp_path) as one:
        one.rehearse(forever, tmp_path)
        missing()
        until_said(tmp_path)
        finished(one)
    assert not caplog.records and one._second.process.poll() is not None


@compiled
@pytest.mark.slow
def test_a_first_report_is_the_same_by_two_processes(tmp_path):
    """Each from an empty cache; there both processes compile the same kernels at the same time now and then."""
    path = os.pathsep.join([str(Path(rg.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    np.savez(tmp_path / "net.npz", **network("gru", n=4).parameters, cell="gru")
    np.save(tmp_path / "x.npy", sequence())
    made, said, compiled = {}, {}, {}
    for threads in ("1", "2"):
        own = {"RNNGRAD_CACHE_DIR": str(tmp_path / f"cache {threads}"), "RNNGRAD_NUM_THREADS": threads}
        done = subprocess.run(
            [sys.executable, "-m", "rnngrad", "report", "net.npz", "--input", "x.npy", "--out", "out"],
            env={**os.environ, "PYTHONPATH": path, **own}, cwd=tmp_path, capture_output=True, text=True, check=True,
        )  # fmt: skip
        (tmp_path / "out").rename(tmp_path / threads)
        made[threads] = {file.name: file.read_bytes() for file in (tmp_path / threads).iterdir()}
        said[threads] = done.stderr
        compiled[threads] = {file.name for file in Path(own["RNNGRAD_CACHE_DIR"]).rglob("*.nbc")}
        assert not list(Path(own["RNNGRAD_CACHE_DIR"]).rglob("*.tmp*"))
    assert made["1"] == made["2"] and said["1"] == said["2"] and compiled["1"] <= compiled["2"]
