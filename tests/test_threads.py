"""Results do not depend on threads, or on what was compiled before; compiled kernels are reused by later processes."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from cases import make_case

import rnngrad as rg
from rnngrad import _jit

HERE = Path(__file__).parent

#: sizes with several tasks for every kernel; short work stays on one thread, so ``all_threads`` lowers that limit
LARGE = (
    {"cell": "lstm", "n": 24, "T": 60, "B": 20, "m": 5},
    {"cell": "gru_reset_before", "n": 40, "T": 12, "B": 37, "m": 33},
)


def results(sizes):
    """Every kind of result of one large network, by name."""
    case = make_case(**sizes, scale=0.5, lengths=np.random.default_rng(0).integers(1, sizes["T"] + 1, sizes["B"]))
    loss = rg.losses.squared_error(np.random.default_rng(1).standard_normal((sizes["T"], sizes["B"], 2)))
    traj, chain = case.traj, rg.jacobian_chain(case.traj)
    grads, short = rg.bptt(traj, loss), rg.truncated_bptt(traj, loss, window=4)
    found = {"states": traj.states, "y": traj.y, "jacobians": rg.jacobians(traj)}
    found |= {"to": chain.all_to(8), "from": chain.all_from(sizes["T"] - 6)}
    found |= {"flow": rg.gradient_flow(traj, loss).log_norm, "loss": np.array(grads.loss)}
    v = np.random.default_rng(2).standard_normal((6, sum(g.size for _, g in grads.parameters())))
    found |= {"hessian": rg.hessian_vector_product(traj, loss, v)}
    found |= {"gauss_newton": rg.gauss_newton_vector_product(traj, loss, v)}
    for prefix, g in (("", grads), ("short ", short)):
        found |= {prefix + name: value for name, value in g.parameters()} | {prefix + "s": g.s, prefix + "x": g.x}
    return found


def python(code, **environment):
    """Standard output of a fresh interpreter that runs ``code`` here."""
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent)]), **environment},
        cwd=HERE, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.fixture
def all_threads(monkeypatch):
    """Every kernel with several tasks uses several threads."""
    monkeypatch.setattr(_jit, "_PARALLEL_WORK", 0)
    monkeypatch.setattr(_jit, "num_threads", lambda: 3)


def test_every_kernel_is_shared_out(all_threads, monkeypatch):
    """The tests below would compare nothing otherwise."""
    shared, run = {}, _jit._run

    def spy(compiled, args, count, threads, pieces):
        name = getattr(compiled, "py_func", compiled).__rnngrad_key__.split("-")[0]
        shared[name] = max(shared.get(name, 0), threads)
        run(compiled, args, count, threads, pieces)

    monkeypatch.setattr(_jit, "_run", spy)
    for sizes in LARGE:
        results(sizes)
    assert {
        "affine",
        "rollout",
        "backprop",
        "outers",
        "factors",
        "adjoint_chain",
        "tangent_chain",
        "dense",
        "curvature",
    } <= set(shared)
    assert set(shared.values()) == {3}, shared


def test_short_work_stays_on_one_thread(monkeypatch):
    calls, run = [], _jit._run
    monkeypatch.setattr(_jit, "num_threads", lambda: 3)
    monkeypatch.setattr(_jit, "_run", lambda *args: (calls.append(args[3]), run(*args)))
    make_case("lstm", T=40, B=17).traj.states  # noqa: B018
    assert set(calls) == {1}
    calls.clear()
    make_case("lstm", T=400, B=170).traj.states  # noqa: B018
    assert 3 in calls


@pytest.mark.slow
def test_results_do_not_depend_on_the_number_of_threads(tmp_path):
    code = """
import numpy as np, test_threads
from rnngrad import _jit
_jit._PARALLEL_WORK = 0
for i, sizes in enumerate(test_threads.LARGE):
    np.savez(f"FOLDER/{_jit.num_threads()}-{i}.npz", **test_threads.results(sizes))
"""
    for threads in (1, 2, 3):
        python(code.replace("FOLDER", tmp_path.as_posix()), RNNGRAD_NUM_THREADS=str(threads))
    for i in range(len(LARGE)):
        one = np.load(tmp_path / f"1-{i}.npz")
        for threads in (2, 3):
            other = np.load(tmp_path / f"{threads}-{i}.npz")
            assert set(other.files) == set(one.files)
            for name in one.files:
                np.testing.assert_array_equal(other[name], one[name], err_msg=f"{name}, {threads} threads")


@pytest.mark.parametrize("given", ["0", "-1", "two", "1.5"])
def test_a_number_of_threads_that_is_none_is_refused(given):
    code = """
from rnngrad import _jit
try:
    _jit.num_threads()
except ValueError as error:
    print(error)
"""
    message = python(code, RNNGRAD_NUM_THREADS=given)
    assert message.strip() == f"RNNGRAD_NUM_THREADS is {given!r}; it must be a positive integer"


def test_calls_from_several_threads_equal_serial_ones(all_threads):
    jobs = LARGE * 4
    serial = [results(sizes) for sizes in LARGE] * 4
    with ThreadPoolExecutor(4) as pool:
        concurrent = list(pool.map(results, jobs))
    for sizes, expected, actual in zip(jobs, serial, concurrent, strict=True):
        for name, value in expected.items():
            np.testing.assert_array_equal(actual[name], value, err_msg=f"{sizes['cell']} {name}")


def test_a_failing_share_raises_here():
    """An exception in another thread's share reaches the caller, after all shares have ended."""
    ended = []

    def share(start, stop, out):
        ended.append(start)
        if start:
            raise ZeroDivisionError("share")

    with pytest.raises(ZeroDivisionError, match="share"):
        _jit._run(share, (np.zeros(1),), 4, 2)
    assert len(ended) == len(set(ended)), "a piece was done twice"
    assert set(ended) <= {0, 1, 2, 3} and max(ended) > 0


# ---------------------------------------------------------------- the compile cache

RUN = """
import json
import numpy as np
import rnngrad as rg
from cases import make_case
from rnngrad import _cache
sums = {}
for cell in json.loads("CELLS"):
    case = make_case(cell)
    grads = rg.bptt(case.traj, rg.losses.squared_error(np.ones_like(case.traj.y)))
    sums[cell] = case.traj.states.tobytes().hex() + "".join(g.tobytes().hex() for _, g in grads.parameters())
print(json.dumps({"folder": str(_cache.cache_folder()), "states": sums}))
"""


def run_cells(cells, folder):
    code = RUN.replace("CELLS", json.dumps(cells).replace('"', '\\"'))
    return json.loads(python(code, RNNGRAD_CACHE_DIR=str(folder)))


def files(folder):
    """{name: (bytes, time of change in ns)} of every file of a cache."""
    return {p.name: (p.stat().st_size, p.stat().st_mtime_ns) for p in Path(folder).iterdir()}


@pytest.mark.slow
def test_a_second_process_compiles_nothing(tmp_path):
    first = run_cells(["vanilla"], tmp_path)
    assert Path(first["folder"]).parent == tmp_path
    kept = files(first["folder"])
    assert {"nbc"} == {name.rsplit(".", 1)[1] for name in kept}
    second = run_cells(["vanilla"], tmp_path)
    assert second == first
    assert files(first["folder"]) == kept


@pytest.mark.slow
def test_kernels_from_the_cache_do_not_mix_with_others(tmp_path):
    """Kernels compiled by separate processes and loaded together, in any order, are still their own.

    The closures of two cells' kernels have the same names; if their compiled symbols had too, the one that came
    first would serve both.
    """
    run_cells(["lstm"], tmp_path)  # compiles what all cells share, so that the next two start alike
    alone = run_cells(["vanilla"], tmp_path)["states"]
    together = run_cells(["linear", "vanilla"], tmp_path)["states"]  # the first is compiled, the second loaded
    assert together["vanilla"] == alone["vanilla"]
    assert run_cells(["vanilla", "linear"], tmp_path)["states"] == together


@pytest.mark.slow
def test_an_unwritable_cache_is_said_and_survived(tmp_path):
    blocked = tmp_path / "file"
    blocked.touch()  # a file where the folder should be
    code = """
import warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import rnngrad as rg
    print(rg.rollout(rg.Network.init("vanilla", 1, 2), steps=1).states.shape)
print(*[w.message for w in caught if "RNNGRAD_CACHE_DIR" in str(w.message)])
"""
    shape, message = python(code, RNNGRAD_CACHE_DIR=str(blocked)).splitlines()
    assert shape == "(2, 1, 1, 2)"
    assert "cannot keep compiled kernels" in message
    assert message.count("Set RNNGRAD_CACHE_DIR to a writable folder") == 1
