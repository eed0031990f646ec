"""What is said when CUDA cannot run: the package, driver or device that is missing, and the extra to install."""

import os
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

import rnngrad as rg
import rnngrad.device_input
import rnngrad.dynamics.device
from rnngrad import _cuda

NET = rg.Network.init("lstm", 3, 4, 2, seed=0)
X = np.zeros((5, 2, 3))
ROOT = str(Path(rg.__file__).parents[1])  # the package may not be installed
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([ROOT, os.environ.get("PYTHONPATH", "")])}


@pytest.fixture(name="absent")
def absent_fixture(monkeypatch):
    """``absent(package=…, driver=…, devices=…)``: a machine with these; the answer is not remembered."""

    def load_compiler():
        return None

    def lose_compiler():
        raise RuntimeError("Failure finding libnvvm.so.\nLooked in")

    def pretend(*, package=True, toolkit=True, reason=None, devices=1):
        driver = types.SimpleNamespace(
            ensure_initialized=lambda: None, initialization_error=reason, get_device_count=lambda: devices
        )
        found = types.ModuleType("numba.cuda.cudadrv.driver")
        found.driver = driver
        monkeypatch.setattr(_cuda, "load", lambda: None)
        monkeypatch.setitem(sys.modules, "numba.cuda.cudadrv.driver", found)
        compiler = types.ModuleType("numba.cuda.cudadrv.nvvm")
        compiler.NVVM = load_compiler if toolkit else lose_compiler
        monkeypatch.setitem(sys.modules, "numba.cuda.cudadrv.nvvm", compiler)
        monkeypatch.setattr(_cuda, "_installed", {"numba_cuda": package}.__getitem__)
        monkeypatch.setattr(_cuda, "simulated", lambda: False)
        monkeypatch.setattr(_cuda, "missing", _cuda.missing.__wrapped__)

    return pretend


@pytest.mark.parametrize(
    ("machine", "message"),
    [
        ({"package": False}, r"numba-cuda is not installed \(pip install 'rnngrad\[cuda\]'\)"),
        (
            {"reason": "CUDA driver library cannot be found.\nEnsure that"},
            r"no NVIDIA driver .*library cannot be found\)",
        ),
        ({"toolkit": False}, r"libNVVM .*: Failure finding libnvvm.so \(pip install 'rnngrad\[cuda\]'\)"),
        ({"devices": 0}, "finds no CUDA device"),
        ({"reason": "CUDA_ERROR_NO_DEVICE (100)", "devices": 0}, "finds no CUDA device"),
    ],
    ids=["package", "driver", "toolkit", "device", "device, as the driver says it"],
)
def test_what_is_missing_is_named(absent, machine, message):
    absent(**machine)
    with pytest.raises(rg.BackendError, match=rf"backend is 'cuda', but .*{message}.*backend='cpu'"):
        rg.rollout(NET, X, backend="cuda")


def test_devices_that_are_hidden_are_told(absent, monkeypatch):
    absent(devices=0)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    with pytest.raises(rg.BackendError, match="CUDA_VISIBLE_DEVICES is '-1'"):
        rg.rollout(NET, X, backend="cuda")


def test_a_failing_driver_is_our_error_and_no_memory_is_memory_error(monkeypatch):
    class CudaAPIError(Exception):
        pass

    monkeypatch.setattr(_cuda, "free_bytes", lambda: 3 * 2.0**20)
    with pytest.raises(MemoryError, match="3 MiB are free"), _cuda.errors():
        raise CudaAPIError("[2] CUDA_ERROR_OUT_OF_MEMORY")
    with pytest.raises(rg.BackendError, match="device failed.*LAUNCH_FAILED"), _cuda.errors():
        raise CudaAPIError("[719] CUDA_ERROR_LAUNCH_FAILED")
    with pytest.raises(ZeroDivisionError), _cuda.errors():
        raise ZeroDivisionError


def test_an_array_of_another_device_is_refused(monkeypatch):
    class Elsewhere:
        __cuda_array_interface__ = {"shape": (5, 2, 3)}

        def __dlpack_device__(self):
            return 2, 1

    numba_cuda = types.SimpleNamespace(get_current_device=lambda: types.SimpleNamespace(id=0))
    monkeypatch.setattr(_cuda, "load", lambda: numba_cuda)
    monkeypatch.setattr(_cuda, "missing", lambda: None)
    for module in (rnngrad.device_input, rnngrad.dynamics.device):
        monkeypatch.setattr(module, "find_backend", lambda name: None)
    with pytest.raises(ValueError, match="x lives on GPU 1, and GPU 0 is the current one"):
        rg.rollout(NET, Elsewhere())


@pytest.mark.parametrize(("interface", "waits"), [({}, ["all", "import"]), ({"stream": 1}, ["import"])])
def test_an_array_that_names_no_stream_is_waited_for(monkeypatch, interface, waits):
    called = []
    numba_cuda = types.SimpleNamespace(
        synchronize=lambda: called.append("all"), as_cuda_array=lambda value: called.append("import")
    )
    monkeypatch.setattr(_cuda, "simulated", lambda: False)
    monkeypatch.setattr(_cuda, "load", lambda: numba_cuda)
    _cuda.as_device_array(types.SimpleNamespace(__cuda_array_interface__=interface))
    assert called == waits


def test_memory_is_given_back_by_what_keeps_it(monkeypatch):
    called = []

    def queue(name):
        return types.SimpleNamespace(deallocations=types.SimpleNamespace(clear=lambda: called.append(name)))

    context = types.SimpleNamespace(**vars(queue("context")), memory_manager=queue("memory"))
    monkeypatch.setattr(_cuda, "simulated", lambda: False)
    monkeypatch.setattr(_cuda, "load", lambda: types.SimpleNamespace(current_context=lambda: context))
    _cuda.release()
    assert "memory" in called


def test_an_array_on_a_gpu_without_cuda_says_what_is_missing(absent):
    class Device:
        __cuda_array_interface__ = {"shape": (5, 2, 3)}

    absent(package=False)
    with pytest.raises(rg.BackendError, match="numba-cuda is not installed"):
        rg.rollout(NET, Device())


def test_cuda_is_imported_in_one_place_and_only_when_asked_for():
    root = Path(rg.__file__).parent
    found = [path.name for path in root.rglob("*.py") if "from numba import cuda" in path.read_text()]
    assert found == ["_cuda.py"]
    code = "import sys, rnngrad as rg; rg.rollout, rg.bptt; sys.exit('numba.cuda' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, check=False).returncode == 0


def test_arrays_on_a_gpu_are_not_copied_without_a_word():
    """Also those that would: Numba's device arrays have ``__array__``."""

    class OnGpu:
        __cuda_array_interface__ = {"shape": (2, 3), "typestr": "<f8", "data": (0, False), "version": 3}

        def __array__(self, dtype=None, copy=None):
            return np.zeros((2, 3))

    for ask in (
        lambda: rg.rollout(NET, OnGpu()),
        lambda: rg.solve_fixed_point(NET, OnGpu()),
        lambda: rg.find_fixed_points(NET, OnGpu(), np.zeros(3)),
    ):
        with pytest.raises(rg.BackendError, match="^backend is 'cuda', but"):
            ask()
    for name, ask in (
        ("x", lambda: rg.continue_fixed_point(lambda p: NET, np.zeros(3), 0.0, 1.0, x=OnGpu())),
        ("matrices", lambda: rg.lyapunov_of(OnGpu())),
        ("W", lambda: NET.replace(W=OnGpu())),
        ("target", lambda: rg.Curvature(rg.rollout(NET, X), rg.losses.squared_error(OnGpu()))),
    ):
        with pytest.raises(ValueError, match=f"^{name} lives on a GPU"):
            ask()
