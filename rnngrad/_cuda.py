"""Every CUDA decision in one place: the import, what is missing, the chip's limits, compiling and launching.

Kernels are written in Numba's CUDA dialect and call the same scalar units as the CPU kernels. Nothing here is imported
unless CUDA is asked for. Floating point: no fast-math; x y + z may be rounded once (``fma``), as on the CPU; sums are
made in the order of their index by one thread each, and floats are never added atomically, so a second run gives the
same bits and results do not depend on the grid, the block, or where an operand lies.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import math
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from ._dlpack import CUDA_DEVICES, Lent, device_of
from .errors import BackendError

EXTRA = "pip install 'rnngrad[cuda]'"
_STATIC_SHARED = 48 * 1024  # bytes a block may have without asking for more
_RESERVED_SHARED = 2048  # bytes for the driver and for small arrays of fixed size
_THREADS = 256  # of a block at most
_SHARE = 0.9  # of the free memory that is planned with; the rest is for fragments


@functools.cache
def simulated() -> bool:
    """Whether Numba runs CUDA kernels as Python threads (NUMBA_ENABLE_CUDASIM=1)."""
    return os.environ.get("NUMBA_ENABLE_CUDASIM", "0") not in ("", "0")


@functools.cache
def load() -> Any:
    """The module ``numba.cuda``: what kernels call ``cuda``."""
    vars(np).setdefault("row_stack", np.vstack)  # numba-cuda still asks for the name that NumPy 2.5 dropped
    if not simulated() and _installed("_numba_cuda_redirector"):
        import _numba_cuda_redirector  # noqa: F401  # gives numba.cuda to the package, also without its .pth file
    from numba import cuda

    if simulated():
        return _Simulator(cuda)
    with contextlib.suppress(ImportError, AttributeError):
        from numba.cuda.core import config

        config.CUDA_LOW_OCCUPANCY_WARNINGS = 0  # small jobs are no fault of the user's
    with contextlib.suppress(ImportError, AttributeError):
        _complete_functions()
    return cuda


def _complete_functions() -> None:
    """Give numba-cuda the functions of NumPy that it can type and has no code for.

    Real exp, sqrt and their like are those of ``math``; what else it has for other targets serves as it is.
    """
    from numba.cuda.mathimpl import get_unary_impl_for_fn_and_ty
    from numba.cuda.np import ufunc_db
    from numba.cuda.ufuncs import ufunc_db as own

    def real(function: Any) -> Any:
        def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return get_unary_impl_for_fn_and_ty(function, signature.args[0])(context, builder, signature, args)

        return lower

    for ufunc in ufunc_db.get_ufuncs():
        if ufunc not in own():
            same = getattr(math, ufunc.__name__, None) if ufunc in (np.exp, np.expm1, np.log1p, np.sqrt) else None
            loops = dict(ufunc_db.get_ufunc_info(ufunc))
            own()[ufunc] = loops if same is None else loops | dict.fromkeys(("f->f", "d->d"), real(same))


class _Simulator:
    """``numba.cuda`` as the running kernel sees it.

    The simulator puts its own module into the globals of each function while that runs, and takes it out again under
    the feet of the other threads of the block; asked for by name at every use, it is always the right one.
    """

    def __init__(self, module: Any) -> None:
        from numba.cuda.simulator.kernel import _get_kernel_context

        self._module, self._running = module, _get_kernel_context

    def __getattr__(self, name: str) -> Any:
        return getattr(self._running() or self._module, name)


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # its parent is not there either
        return False


@functools.cache
def missing() -> str | None:
    """What keeps CUDA from running here, with what to do about it; None if nothing does."""
    if simulated():
        return None
    if not _installed("numba_cuda"):
        return f"the package numba-cuda is not installed ({EXTRA})"
    load()
    from numba.cuda.cudadrv.driver import driver

    try:
        driver.ensure_initialized()
        reason = driver.initialization_error
    except ImportError as error:  # what numba-cuda raises for a driver that does not start
        reason = str(error)
    if reason:
        no_device = "NO_DEVICE" in reason
        if not no_device:
            first = reason.strip().splitlines()[0].rstrip(".")
            return f"no NVIDIA driver could be loaded ({first}); install one for CUDA 13 (580 or later)"
    if reason or driver.get_device_count() == 0:
        seen = os.environ.get("CUDA_VISIBLE_DEVICES")
        hint = "" if seen is None else f" (CUDA_VISIBLE_DEVICES is {seen!r})"
        return f"the NVIDIA driver finds no CUDA device{hint}"
    from numba.cuda.cudadrv.nvvm import NVVM

    try:
        NVVM()
    except Exception as error:  # of several packages, by how it is missing
        first = next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".")
        return f"the compiler libNVVM of the CUDA toolkit could not be loaded: {first} ({EXTRA})"
    return None


def require() -> None:
    """Raise ``BackendError`` naming what is missing, if anything is."""
    reason = missing()
    if reason is not None:
        raise BackendError(f"backend is 'cuda', but {reason}; backend='cpu' needs none of it")


def device_model() -> str:
    """Name and compute capability of the current device."""
    if simulated():
        return "simulator"
    device = load().get_current_device()
    name = device.name.decode() if isinstance(device.name, bytes) else device.name
    major, minor = device.compute_capability
    return f"{name}, sm_{major}{minor}"


def device_name() -> str:
    """Name, compute capability and memory of the current device."""
    if simulated():
        return device_model()
    free, total = load().current_context().get_memory_info()
    return f"{device_model()}, {free / 2**30:.1f} of {total / 2**30:.1f} GiB free"


# ---------------------------------------------------------------- the chip


def shared_limit() -> int:
    """Bytes of dynamic shared memory that one block may have."""
    if simulated():
        return _STATIC_SHARED
    return int(load().get_current_device().MAX_SHARED_MEMORY_PER_BLOCK_OPTIN) - _RESERVED_SHARED


def processors() -> int:
    """Multiprocessors: blocks that run at once, at one block each."""
    return 2 if simulated() else int(load().get_current_device().MULTIPROCESSOR_COUNT)


def threads(items: int) -> int:
    """Threads of a block that has so many independent things to do."""
    if simulated():
        return min(max(items, 1), 4)  # each is a thread of Python
    return min(_THREADS, max(32, -(-items // 32) * 32))


def free_bytes() -> float:
    """Bytes of device memory to plan with."""
    if simulated():
        return math.inf
    release()
    return _SHARE * load().current_context().get_memory_info()[0]


# ---------------------------------------------------------------- compiling and launching


def function(body: Any) -> Any:
    """Decorate a function called by kernels, inlined into them."""
    return body if simulated() else load().jit(device=True, forceinline=True)(body)


class Kernel:
    """Decorate a kernel; launched as ``kernel(blocks, threads, shared, *args)``, ``shared`` being bytes.

    ``body`` is what was decorated, for compiling without a device.
    """

    def __init__(self, body: Any) -> None:
        self.body = body
        self._compiled = load().jit(body)
        self._allowed = 0

    def __call__(self, blocks: int, threads: int, shared: int, *args: Any) -> None:
        if not blocks:
            return
        if simulated():
            args = tuple(_seen_in_the_simulator(arg) for arg in args)
        with errors():
            if shared > max(_STATIC_SHARED - _RESERVED_SHARED, self._allowed):
                self._allow(shared, args)
            self._compiled[blocks, threads, 0, shared](*args)

    def compile(self, *args: Any) -> Any:
        """Compile and link for arguments of these types, now; the function as the driver has it."""
        if simulated():
            return None
        kernel = self._compiled.compile(tuple(self._compiled.typeof_pyval(arg) for arg in args))
        return kernel._codelibrary.get_cufunc()

    def _allow(self, shared: int, args: tuple[Any, ...]) -> None:
        """Let the kernel have more shared memory than is given to every kernel."""
        if simulated():
            return
        from cuda.bindings import driver as names
        from numba.cuda.cudadrv.driver import driver

        function = self.compile(*args)
        attribute = names.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        driver.cuKernelSetAttribute(attribute, shared, function.handle, function.device.id)
        self._allowed = shared


def _seen_in_the_simulator(arg: Any) -> Any:
    """An argument as its kernel sees it: the simulator prepares arrays, but not those of a tuple."""
    if not isinstance(arg, tuple):
        return arg
    from numba.cuda.simulator.cudadrv.devicearray import FakeCUDAArray, FakeWithinKernelCUDAArray

    return tuple(FakeWithinKernelCUDAArray(one) if isinstance(one, FakeCUDAArray) else one for one in arg)


@contextlib.contextmanager
def errors() -> Iterator[None]:
    """Turn what the driver says into our errors: no memory, or a device that is lost."""
    try:
        yield
    except Exception as error:
        kind = type(error)
        ours = kind.__name__ in ("CudaAPIError", "CudaDriverError")
        if kind.__module__.split(".")[0] not in ("cuda", "cupy_backends") and not ours:
            raise
        if "OUT_OF_MEMORY" in str(error):
            raise MemoryError(
                f"the GPU ran out of memory, {free_bytes() / 2**20:.0f} MiB are free; another process may hold the rest"
            ) from error
        raise BackendError(f"the CUDA device failed, and no result was kept: {error}") from error


# ---------------------------------------------------------------- memory


def is_device_array(value: Any) -> bool:
    """Whether the value lives in the memory of a GPU, by ``__cuda_array_interface__`` or by DLPack."""
    if isinstance(value, np.ndarray):
        return False
    if type(value).__name__ == "FakeCUDAArray" if simulated() else hasattr(value, "__cuda_array_interface__"):
        return True
    where = device_of(value)
    return where is not None and where[0] in CUDA_DEVICES


def as_device_array(value: Any) -> Any:
    """The same memory as Numba's device array, after the stream that it says it was written on, or after all."""
    if simulated():
        return value if not hasattr(value, "__dlpack__") else _borrowed_by_the_simulator(Lent(value))
    with errors():
        if not hasattr(value, "__cuda_array_interface__"):
            return load().as_cuda_array(Lent(value))
        if "stream" not in value.__cuda_array_interface__:  # it may have been written on any
            load().synchronize()
        return load().as_cuda_array(value)


def _borrowed_by_the_simulator(lent: Lent) -> Any:
    """Memory of the host, lent as if it were that of a GPU, as a device array of the simulator."""
    address = {**lent.__cuda_array_interface__, "__class__": None}
    view = np.asarray(type("View", (), {"__array_interface__": address, "lent": lent})())
    return type(load().device_array(1))(view)


def address(array: Any) -> int:
    """Where a device array begins."""
    of = array._ary.__array_interface__ if simulated() else array.__cuda_array_interface__
    return int(of["data"][0])


def synchronize() -> None:
    """Wait for the device."""
    with errors():
        load().synchronize()


def empty(shape: tuple[int, ...], dtype: Any) -> Any:
    """An uninitialised device array; of one element where there would be none, since kernels take pointers."""
    if (
        0 in shape
    ):  # never read; the simulator alone checks indices on the way to a view, and warns of what is no number
        if simulated():
            return load().to_device(np.zeros(tuple(max(size, 1) for size in shape), dtype))
        shape = (1,) * len(shape)
    with errors():
        return load().device_array(shape, dtype)


def release() -> None:
    """Give the memory of arrays that nobody holds back to the device now."""
    if not simulated():
        load().current_context().memory_manager.deallocations.clear()  # those of the context are streams and events


def upload(array: Any) -> Any:
    """A device array with the values of a NumPy array."""
    if array.size == 0:
        return empty(array.shape, array.dtype)
    with errors():
        return load().to_device(np.ascontiguousarray(array))


def download(array: Any, into: Any) -> None:
    """Copy a device array into a NumPy array, contiguous or not."""
    if into.size:
        with errors():
            into[...] = array.copy_to_host()
