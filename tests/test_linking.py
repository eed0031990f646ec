"""How compiled functions get into each other: inlined, or compiled once and called by a symbol."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numba.core import config

import rnngrad as rg
from rnngrad import _cache, _math
from rnngrad._jit import inner, kernel, unit
from rnngrad._linking import required

ROOT = str(Path(_math.__file__).parents[1])

pytestmark = pytest.mark.skipif(bool(config.DISABLE_JIT), reason="nothing is compiled")


def one_task(*args):
    return 1


def double(x, add, scale):
    for i in range(x.size):
        x[i] = 2 * x[i] * scale + (1 if add else 0)


def kernel_of(step, name):
    @kernel(name, tasks=one_task, cached=False)
    def run(start, stop, x, add):
        step(x, add, 3)
        step(x, False, 1)

    return run


def test_what_two_kernels_share_is_compiled_once():
    shared = inner("shared", cached=False)(double)
    first, second = kernel_of(shared, "first"), kernel_of(shared, "second")
    x, y = np.arange(4.0), np.arange(4.0)
    first(x, True)
    second(y, False)
    np.testing.assert_array_equal(x, 2 * (2 * np.arange(4.0) * 3 + 1))
    np.testing.assert_array_equal(y, 2 * (2 * np.arange(4.0) * 3))
    assert len(shared.signatures) == 1, "constants in a call made types of their own"
    ((code,), (other,)) = (run.compiled.overloads.values() for run in (first, second))
    assert required(code.library) == required(other.library) and len(required(code.library)) == 1
    defined = {function.name for function in code.library.get_defined_functions()}
    assert not any("double" in name for name in defined), "the callee's code is in its caller"


def test_closures_of_one_name_are_told_apart():
    """Two functions that are not kept on disk may have one name, as those around a user's function do."""

    def make(value):
        @inner(cached=False)
        def step(x):
            x[0] = value

        return step

    def caller(step):
        @kernel("closure", tasks=one_task, cached=False)
        def run(start, stop, x):
            step(x)

        return run

    one, two = make(1.0), make(2.0)
    values = []
    for step in (one, two, one):  # the last kernel is compiled when both are known
        x = np.zeros(1)
        caller(step)(x)
        values.append(x[0])
    assert values == [1.0, 2.0, 1.0]


def test_a_closure_needs_a_key():
    """Without one it would be kept on disk under the name of every other closure of its factory."""
    value = 1.0

    def step(x):
        x[0] = value

    with pytest.raises(ValueError, match="step is a closure without a key"):
        inner()(step)
    inner("key")(step)


def test_inlined_functions_leave_nothing_to_link():
    add = inner("forced", forced=True)(double)
    run = kernel_of(add, "inlining")
    x = np.arange(3.0)
    run(x, True)
    np.testing.assert_array_equal(x, 2 * (2 * np.arange(3.0) * 3 + 1))
    (code,) = run.compiled.overloads.values()
    assert required(code.library) == []


def test_units_run_from_python_and_inner_functions_do_not():
    assert _math.tanh(0.5) == pytest.approx(np.tanh(0.5), rel=1e-15)
    assert unit(lambda a, b: a - b)(5, 3) == 2
    step = inner("python", cached=False)(double)
    with pytest.raises(TypeError, match="double.*called by compiled functions only"):
        step(np.zeros(1), True, 1)


SCRIPT = """
import sys
import numpy as np
from rnngrad._jit import inner, kernel

@inner()
def low(x):
    for i in range(x.size):
        x[i] += 1

@inner()
def high(x):
    low(x)
    low(x)

@kernel("outermost", tasks=lambda x: 1)
def run(start, stop, x):
    high(x)

x = np.zeros(3)
run(x)
print(x.tolist(), sum(run.compiled.stats.cache_hits.values()))
"""


def test_kept_code_finds_what_it_calls(tmp_path):
    """A second process loads what the first one compiled, callees first; a callee whose file is lost is compiled."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    path = os.pathsep.join([ROOT, os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "RNNGRAD_CACHE_DIR": str(tmp_path / "cache")}

    def run():
        done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, check=True)
        return done.stdout.split("]")

    def kept():
        return {p.name: p.stat().st_mtime_ns for p in (tmp_path / "cache").rglob("*.nbc")}

    assert run() == ["[2.0, 2.0, 2.0", " 0\n"]
    files = kept()
    assert len(files) == 3
    assert run() == ["[2.0, 2.0, 2.0", " 1\n"]
    assert kept() == files
    for lost in ("low", "high"):
        (file,) = [p for p in (tmp_path / "cache").rglob("*.nbc") if f".{lost}[" in p.name or f"{lost}-" in p.name]
        file.unlink()
        assert run() == ["[2.0, 2.0, 2.0", " 1\n"]
    assert kept().keys() == files.keys()


def test_the_digest_covers_every_module_with_compiled_code():
    """A module that decorates with, or makes code for, the compiler."""
    package = Path(rg.__file__).parent
    known = {path.relative_to(package).as_posix() for path in _cache.sources()}
    marks = re.compile(r"^\s*@(unit|inner|kernel|intrinsic)\b|^from llvmlite import ir", re.MULTILINE)
    compiled = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if "cuda" not in path.parts and marks.search(path.read_text())
    }
    assert {"_tile.py", "unit_terms.py", "cells/lstm.py", "kernels/cpu/chain.py"} <= compiled <= known
