"""Every Numba decision in one place: flags, threads, and the launch of a kernel.

``unit`` marks a scalar function that kernels inline; ``inner`` a loop nest that they call; ``kernel`` one that is
launched from Python.
"""

from __future__ import annotations

import functools
import itertools
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import numba
from numba.core import config

from ._cache import KernelCache, cache_is_writable
from ._compiler import KernelCompiler
from ._linking import Inlined, Outlined

_FLAGS = {
    # Python division semantics put a branch in every loop that divides and stop it from vectorising.
    "error_model": "numpy",
    # x y + z may be rounded once (as CUDA does by default); nothing is reordered, no NaN or infinity assumed away.
    "fastmath": {"contract"},
}
_IN_ANY_ORDER = _FLAGS | {"fastmath": {"contract", "reassoc"}}


def unit(function):
    """Scalar function, inlined into the kernels that call it (CPU) and callable from device code (CUDA)."""
    if config.DISABLE_JIT:
        return function
    compiled = Inlined(function, _FLAGS)
    # numba-cuda takes over these options and reads any fastmath as all of it, approximate division included; the CPU
    # compiler holds its own reference.
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


def inner(*key, forced=False, cached=True, in_any_order=False):
    """Decorate a loop nest called by kernels: one thread, compiled once and called by name.

    ``key`` and ``cached`` as for :func:`kernel`; no key for a function of a module. ``forced`` inlines it into every
    caller: for what is so short that the call would count (with many arrays it costs a tenth of a microsecond), and
    compiled with each. ``in_any_order``: what it sums is added in vectors, in an order that depends on their width and
    nothing else, as it is compiled once.
    """

    if forced and in_any_order:
        raise ValueError("a function that is forced into its callers has no order of its own")

    def decorate(function):
        if function.__closure__ and cached and not key and not forced:
            raise ValueError(f"{function.__qualname__} is a closure without a key: another one would be taken for it")
        key_text = _name_apart(function, key)
        if config.DISABLE_JIT:
            return function
        if forced:
            return Inlined(function, _FLAGS)
        flags = _IN_ANY_ORDER if in_any_order else _FLAGS
        name = f"{function.__module__.removeprefix('rnngrad.')}.{function.__qualname__}"
        outlined = Outlined(function, flags, name if cached else None)
        if cached and cache_is_writable():
            function.__rnngrad_key__ = key_text
            outlined._cache = KernelCache(function)
        return outlined

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
            if cached and cache_is_writable():
                compiled._cache = KernelCache(function)

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
_PIECE_WORK = 100_000  # nanoseconds a piece should take: between two of them a thread waits for Python
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
