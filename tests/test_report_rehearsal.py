"""Kernels compiled ahead by the second process of a report are those that the job needs, and change nothing."""

import json
import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from numba.core import config
from reports import held, network, sequence

import rnngrad as rg
from rnngrad import _cache
from rnngrad._jit import kernel
from rnngrad.report import example, job, measure, painter, rehearsal
from rnngrad.report.painter import Painter

pytestmark = pytest.mark.skipif(bool(config.DISABLE_JIT), reason="nothing is compiled")

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


def test_the_example_needs_what_was_rehearsed():
    needed, rehearsed = asked("example_done"), asked("example_rehearsed")
    assert len(needed) > 20 and needed <= rehearsed, needed - rehearsed


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


# ---------------------------------------------------------------- the second process


def counted(key):
    """A new kernel; ``key`` is its name in the cache."""

    @kernel(key, tasks=lambda x: 1)
    def run(start, stop, x):
        for i in range(x.size):
            x[i] += 1

    return run


def rehearsed(folder, key):
    """What a process has to say: the numbers of a kernel that it compiles."""
    _cache.cache_folder = lambda: folder
    x = np.zeros(3)
    counted(key)(x)
    (folder / "said").write_text(f"{x.tolist()}")


def broken():
    raise ArithmeticError("out of luck")


@pytest.fixture
def two(monkeypatch, tmp_path):
    monkeypatch.setattr(painter, "num_threads", lambda: 2)
    monkeypatch.setattr(_cache, "cache_folder", lambda: tmp_path)
    return tmp_path


def over(one):
    """Wait until nothing is rehearsed any more."""
    with one._news:
        assert one._news.wait_for(lambda: one._rehearsal is None, timeout=120)


def test_a_missing_kernel_starts_the_rehearsal(two):
    (two / "other").mkdir()
    with Painter(two) as one:
        one.rehearse(rehearsed, two / "other", "ahead")
        counted("missing")(np.zeros(3))
        over(one)
        assert one.finish(lambda share: None) == []
    assert (two / "other" / "said").read_text() == "[1.0, 1.0, 1.0]"
    assert any("ahead" in path.name for path in (two / "other").iterdir())


def test_nothing_is_rehearsed_where_nothing_is_missing(two):
    counted("kept")(np.zeros(3))
    with Painter(two) as one:
        one.rehearse(rehearsed, two, "ahead")
        counted("kept")(np.zeros(3))  # another one of the same name: it is loaded
        assert not one._missed and one._rehearsal is not None
    counted("after")(np.zeros(3))
    assert not one._missed, "it listens after its end"
    assert not (two / "said").exists()


def test_a_kernel_that_is_not_kept_starts_nothing(two):
    @kernel("never kept", tasks=lambda x: 1, cached=False)
    def run(start, stop, x):
        x[0] = 1

    with Painter(two) as one:
        one.rehearse(rehearsed, two, "ahead")
        run(np.zeros(1))
        assert not one._missed


def test_a_rehearsal_that_fails_is_told_and_fails_nothing(two, caplog):
    with caplog.at_level(logging.WARNING), Painter(two) as one:
        one.rehearse(broken)
        counted("missing")(np.zeros(3))
        over(one)
        assert one.finish(lambda share: None) == []
    (record,) = caplog.records
    assert "could not be compiled ahead (ArithmeticError: out of luck)" in record.getMessage()


def test_a_process_that_ends_while_it_rehearses_is_told(two, caplog):
    with caplog.at_level(logging.WARNING), Painter(two) as one:
        one.rehearse(forever, two)
        counted("missing")(np.zeros(3))
        wait_for(two / "began")
        one._second.kill()
        one._feeder.join(timeout=60)
        assert one.finish(lambda share: None) == []
    (record,) = caplog.records
    assert "the second process ended" in record.getMessage()


def test_the_end_of_a_job_does_not_wait_for_a_rehearsal(two, caplog):
    with caplog.at_level(logging.WARNING), Painter(two) as one:
        one.rehearse(forever, two)
        counted("missing")(np.zeros(3))
        wait_for(two / "began")
        assert one.finish(lambda share: None) == []
    assert not caplog.records and one._second.process.poll() is not None


def forever(folder):
    (folder / "began").touch()
    threading.Event().wait()


def wait_for(path):
    while not path.exists():
        time.sleep(0.01)


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
