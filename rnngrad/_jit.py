"""Every Numba decision in one place: flags, the compile cache, threads, and the launch of a kernel.

``unit`` marks a scalar function that kernels inline; ``kernel`` marks a loop nest that is launched from Python.
Compiled kernels are kept on disk in a folder named after a digest of the sources they come from, so an edited unit can
never be served from a stale file (Numba itself checks only the file that holds the outermost function).
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import os
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numba
from numba.core import config
from numba.core.caching import CompileResultCacheImpl, FunctionCache, IndexDataCacheFile, _CacheLocator

from ._compiler import KernelCompiler

_FLAGS = {
    # Python division semantics put a branch in every loop that divides and stop it from vectorising.
    "error_model": "numpy",
    # x y + z may be rounded once (as CUDA does by default); nothing is reordered, no NaN or infinity assumed away.
    "fastmath": {"contract"},
}

_PACKAGE = Path(__file__).parent


def _digest() -> str:
    """Hexadecimal digest of Numba's version and of every source that compiled code is made from."""
    digest = hashlib.sha256(numba.__version__.encode())
    own = ("_compiler.py", "_jit.py", "_gemm.py", "_math.py", "_dual.py", "loss_terms.py", "normalization.py")
    sources = [_PACKAGE / name for name in own]
    sources += sorted((_PACKAGE / "kernels").glob("*.py"))
    for folder in ("cells", "kernels/cpu"):
        sources += sorted((_PACKAGE / folder).rglob("*.py"))
    for path in sources:
        digest.update(path.relative_to(_PACKAGE).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


#: Taken at import: read any later, it could name sources that this process did not import.
SOURCE_DIGEST = _digest()


@functools.cache
def cache_folder() -> Path:
    """Folder of the compiled kernels; ``RNNGRAD_CACHE_DIR`` overrides the user's cache folder."""
    own = os.environ.get("RNNGRAD_CACHE_DIR")
    users = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rnngrad"
    return (Path(own) if own else users) / SOURCE_DIGEST


class _DigestLocator(_CacheLocator):
    """Where a kernel is kept: one folder per source digest, one file name per kernel key."""

    def __init__(self, py_func, py_file):
        self._key = py_func.__rnngrad_key__
        self._py_file = py_file  # Numba reads this name when it words a warning

    def get_cache_path(self):
        return str(cache_folder())

    def get_source_stamp(self):
        return SOURCE_DIGEST

    def get_disambiguator(self):
        return self._key

    @classmethod
    def from_function(cls, py_func, py_file):
        return cls(py_func, py_file)


class _KernelCacheImpl(CompileResultCacheImpl):
    _locator_classes = [_DigestLocator]


class _KernelFiles(IndexDataCacheFile):
    """One file per kernel and signature, named by a hash of its key.

    Numba numbers the files and keeps an index of the numbers; two processes that compile at once can leave an index
    that points to the other's file, that is, to code of another signature.
    """

    def save(self, key, data):
        self._save_data(self._name(key), (key, data))

    def load(self, key):
        try:
            stored, data = self._load_data(self._name(key))
        except FileNotFoundError:
            return None
        return data if stored == key else None

    def _name(self, key):
        return self._index_name.removesuffix("nbi") + hashlib.sha256(repr(key).encode()).hexdigest()[:16] + ".nbc"


class _KernelCache(FunctionCache):
    _impl_class = _KernelCacheImpl

    def __init__(self, py_func):
        super().__init__(py_func)
        self._cache_file = _KernelFiles(
            self._cache_path, self._impl.filename_base, self._impl.locator.get_source_stamp()
        )

    def _index_key(self, sig, codegen):
        # The key names the kernel and what it closes over; the digest in the folder's name covers the code.
        # Numba's own key pickles the closure, and a dispatcher never pickles to the same bytes twice.
        return sig, codegen.magic_tuple(), self._py_func.__rnngrad_key__


@functools.cache
def _cache_is_writable() -> bool:
    try:
        cache_folder().mkdir(parents=True, exist_ok=True)
        probe = cache_folder() / f".probe-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        warnings.warn(
            f"rnngrad cannot keep compiled kernels in {cache_folder()} ({error}); each process will compile anew. "
            "Set RNNGRAD_CACHE_DIR to a writable folder.",
            stacklevel=2,
        )
        return False
    return True


def unit(function):
    """Scalar function, inlined into the kernels that call it (CPU) and callable from device code (CUDA)."""
    compiled = numba.njit(**_FLAGS, forceinline=True)(function)
    if not config.DISABLE_JIT:
        # numba-cuda takes over these options and reads any fastmath as all of it, approximate division included;
        # the CPU compiler holds its own reference.
        compiled.targetoptions = {name: value for name, value in compiled.targetoptions.items() if name != "fastmath"}
    return compiled


def _name_apart(function, key):
    """Give a closure a name of its own; return the key as text.

    Machine symbols are made of the name, the argument types and a count that each process starts anew. Two closures
    of one factory, one compiled here and one loaded from the cache of another process, could otherwise share a symbol,
    and the linker would call the wrong one.
    """
    text = "-".join(str(part) for part in key)
    function.__qualname__ += f"[{text}]"
    return text


def inner(*key, forced=False):
    """Decorate a loop nest called by a kernel: one thread, compiled into its caller.

    ``key`` says what a closure holds, as for :func:`kernel`; none for a function of a module. ``forced`` inlines it
    whatever its size: a call with many arrays costs a tenth of a microsecond, which counts in a loop over short steps.
    """

    def decorate(function):
        _name_apart(function, key)
        return numba.njit(**_FLAGS, nogil=True, forceinline=forced)(function)

    return decorate


def kernel(*key, tasks, work=lambda out, *rest: out.size, cached=True):
    """Decorate a loop nest ``f(start, stop, *arrays)`` over independent tasks, launched from Python as ``f(*arrays)``.

    ``tasks(*arrays)`` counts them. The range is split over threads of our own (the compiled code holds no lock and the
    tasks do not meet), which compiles three times faster than Numba's parallel mode, works with every threading
    layer and from any Python thread, and survives a fork. What a task does must not depend on how many threads
    there are. ``key`` names what the closure holds, for the compile cache; ``cached=False`` where it holds a user's
    function. ``work(*arrays)`` is roughly how many nanoseconds one thread takes in float64 (by default one for each
    element of the first array): short jobs are not worth a second thread. ``MULTIPLY_ADDS`` of a product are one
    nanosecond.
    """

    def decorate(function):
        function.__rnngrad_key__ = _name_apart(function, key)
        compiled = function
        if not config.DISABLE_JIT:
            compiled = numba.njit(**_FLAGS, nogil=True, pipeline_class=KernelCompiler)(function)
            if cached and _cache_is_writable():
                compiled._cache = _KernelCache(function)

        @functools.wraps(function)
        def launch(*args):
            count = tasks(*args)
            time = work(*args) * args[0].itemsize / 8
            threads = max(min(num_threads(), count), 1) if time >= _PARALLEL_WORK else 1
            _run(compiled, args, count, threads, int(time / (_PIECE_WORK * threads)))

        launch.compiled = compiled
        return launch

    return decorate


MULTIPLY_ADDS = 25
_PARALLEL_WORK = 200_000  # nanoseconds below which one thread is faster (waking another takes 50 to 100 us)


@functools.cache
def num_threads() -> int:
    """Threads used by kernels: ``RNNGRAD_NUM_THREADS``, else Numba's setting, else the processors of this process."""
    given = os.environ.get("RNNGRAD_NUM_THREADS")
    if given is None:
        return config.NUMBA_NUM_THREADS
    if not given.isdigit() or int(given) < 1:
        raise ValueError(f"RNNGRAD_NUM_THREADS is {given!r}; it must be a positive integer")
    return int(given)


def _run(compiled, args, count, threads, pieces=1):
    """Call ``compiled(start, stop, *args)`` on consecutive pieces of the tasks, each thread taking the next one.

    ``pieces`` for each thread, if they are few, so that a slow thread does not hold up the rest.
    """
    if threads <= 1:
        if count:
            compiled(0, count, *args)
        return
    pieces = min(count, min(max(pieces, 1), _PIECES) * threads)
    cuts = [count * i // pieces for i in range(pieces + 1)]
    taken = itertools.count()

    def work():
        while (i := next(taken)) < pieces:
            compiled(cuts[i], cuts[i + 1], *args)

    futures = [_pool().submit(work) for _ in range(threads - 1)]
    try:
        work()
    finally:
        for future in futures:  # the arrays must not be released while a thread writes them
            future.exception()
    for future in futures:
        future.result()


_PIECES = 4  # at most
_PIECE_WORK = 400_000  # nanoseconds a piece should take: between two of them a thread waits for Python
_pools: dict[int, ThreadPoolExecutor] = {}
_pools_lock = threading.Lock()


def _pool() -> ThreadPoolExecutor:
    """The worker threads of this process (a forked child makes its own)."""
    pid = os.getpid()
    with _pools_lock:
        if pid not in _pools:
            _pools.clear()
            _pools[pid] = ThreadPoolExecutor(max(num_threads() - 1, 1), thread_name_prefix="rnngrad")
        return _pools[pid]
