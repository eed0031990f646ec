"""Memory that is kept between calls: aligned, never shared by two living arrays, bounded."""

import gc
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from rnngrad import _memory

LARGE = (300, 500)  # 1.2 MB of float64


@pytest.fixture(autouse=True)
def kept(monkeypatch):
    """A store of its own for each test."""
    store = _memory._Kept()
    monkeypatch.setattr(_memory, "_kept", store)
    return store


def address(array):
    return array.__array_interface__["data"][0]


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
@pytest.mark.parametrize("shape", [(0, 3), (1,), (3, 5), LARGE, (7, 1, 20001)], ids=str)
def test_an_array_like_any_other(shape, dtype):
    array = _memory.empty(shape, dtype)
    assert array.shape == shape
    assert array.dtype == dtype
    assert array.flags.c_contiguous and array.flags.writeable and array.flags.aligned
    assert address(array) % 64 == 0 or not array.size
    array[...] = 7
    assert (array == 7).all()
    assert _memory.empty_like(array).shape == shape


def test_memory_is_used_again_once_no_view_is_left():
    array = _memory.empty(LARGE, float)
    where, view = address(array), array[10:, ::2].T
    del array
    gc.collect()
    other = _memory.empty(LARGE, float)
    assert address(other) != where
    view[...] = 1
    other[...] = 2
    assert (view == 1).all()
    del view
    gc.collect()
    assert address(_memory.empty(LARGE, float)) == where


def test_living_arrays_never_share():
    arrays = [_memory.empty(LARGE, float) for _ in range(4)]
    for turn in range(20):
        arrays[turn % 4] = _memory.empty(LARGE, float)
        starts = sorted(address(array) for array in arrays)
        assert min(np.diff(starts)) >= arrays[0].nbytes


def test_a_block_of_another_size_is_left(kept):
    where = address(_memory.empty(LARGE, float))
    gc.collect()
    assert address(_memory.empty((300, 5000), float)) != where
    assert len(kept._blocks) >= 1


def test_what_is_kept_is_bounded(kept, monkeypatch):
    monkeypatch.setattr(_memory, "keep_bytes", lambda: 3_000_000)
    arrays = [_memory.empty(LARGE, float) for _ in range(5)]
    last = address(arrays[-1])
    while arrays:
        arrays.pop(0)
    gc.collect()
    assert len(kept._blocks) == 2
    assert kept._bytes == sum(block.size for block in kept._blocks) <= 3_000_000
    assert address(_memory.empty(LARGE, float)) == last  # the last used is the first to serve
    huge = _memory.empty((1000, 1000), float)
    del huge
    assert kept._bytes <= 3_000_000


def test_nothing_is_kept_if_told_so(kept, monkeypatch):
    monkeypatch.setattr(_memory, "keep_bytes", lambda: 0)
    array = _memory.empty(LARGE, float)
    del array
    gc.collect()
    assert not kept._blocks


def test_an_array_that_dies_while_another_is_taken(kept):
    """The garbage collector may run inside ``take``, on the thread that holds its lock: no deadlock, no double use."""
    array = _memory.empty(LARGE, float)
    with kept._lock:
        del array
        gc.collect()
    assert not kept._blocks


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["_kept", "keep_bytes"])
def test_an_array_may_outlive_the_module(kept, monkeypatch, name):
    array = _memory.empty(LARGE, float)
    monkeypatch.setattr(_memory, name, None)
    del array
    gc.collect()


@pytest.mark.filterwarnings("error")
def test_a_lease_that_an_interrupt_left_without_its_block(kept):
    lease = _memory._lease_of(64).from_address(address(np.zeros(8)))
    del lease
    gc.collect()
    assert not kept._blocks


def test_many_threads():
    failures = []

    def work(number):
        rng = np.random.default_rng(number)
        for _ in range(100):
            array = _memory.empty((int(rng.integers(100, 130)), 1000), float)
            array[...] = number
            if not (array == number).all():
                failures.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


@pytest.mark.parametrize("given", ["-1", "half", "1.5"])
def test_a_limit_that_is_no_number_of_megabytes(given):
    code = "from rnngrad import _memory; _memory.empty((1000, 1000), float)"
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "RNNGRAD_KEEP_MB": given},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert f"ValueError: RNNGRAD_KEEP_MB is '{given}'; it must be a number of megabytes, 0 or more" in run.stderr


def test_panels_are_kept_of_arrays_that_cannot_change_only():
    """What W is packed into lives as long as a network's W; of an array that may change it is made anew."""
    import gc

    from rnngrad import _gemm

    W = np.arange(2.0 * 5 * 5).reshape(2, 5, 5).copy()
    before = _gemm.pack(W).copy()
    W[0, 0, 0] = 7.0
    after = _gemm.pack(W)
    assert after[0, 0, 0] == 7.0 and before[0, 0, 0] == 0.0
    view = W.view()
    view.flags.writeable = False  # cannot be written, but changes with W
    _gemm.pack(view)
    W[0, 0, 0] = 8.0
    assert _gemm.pack(view)[0, 0, 0] == 8.0
    W.flags.writeable = False
    kept = _gemm.pack(W)
    assert _gemm.pack(W) is kept
    transposed = _gemm.pack(W, transposed=True)
    assert _gemm.pack(W, transposed=True) is transposed is not kept and _gemm.pack(W) is kept
    key = id(W)
    assert key in _gemm._packed
    del W, view
    gc.collect()
    assert key not in _gemm._packed
