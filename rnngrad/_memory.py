"""Memory of results and of scratch: aligned for vector loads, and kept for the next call.

The system hands out fresh memory page by page, at the first touch, and zeroes each page: for the arrays of one
gradient this takes as long as a third of the arithmetic. So the memory of large arrays that are no longer used is
kept and given to the next ones, up to ``RNNGRAD_KEEP_MB`` megabytes (default 256; 0 keeps none). Arrays in use are
not counted, and an array is in use as long as any view of it lives.
"""

from __future__ import annotations

import ctypes
import functools
import math
import os
import threading
from collections import defaultdict, deque
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

_ALIGN = 64  # bytes of a cache line, and of the widest vector register
_LARGE = 1 << 16  # bytes from which memory is kept; below, NumPy's own small blocks are as fast


@functools.cache
def keep_bytes() -> int:
    """Bytes of unused memory that are kept at most."""
    given = os.environ.get("RNNGRAD_KEEP_MB", "256")
    if not given.isdigit():
        raise ValueError(f"RNNGRAD_KEEP_MB is {given!r}; it must be a number of megabytes, 0 or more")
    return int(given) << 20


def _address(array: Any) -> int:
    """Where its memory begins; ``array.ctypes.data`` takes three times as long."""
    return ctypes.addressof(ctypes.c_char.from_buffer(array))


class _Block:
    """Bytes, and where they lie (asking NumPy for that takes as long as the rest of an allocation)."""

    __slots__ = ("address", "bytes", "size")

    def __init__(self, size: int) -> None:
        self.bytes = np.empty(size, np.uint8)
        self.size = size
        self.address = _address(self.bytes)


class _Kept:
    """Unused blocks: all of them in the order in which they came, and those of each size."""

    def __init__(self) -> None:
        self._blocks: dict[_Block, None] = {}
        self._of: defaultdict[int, deque[_Block]] = defaultdict(deque)
        self._bytes = 0
        self._lock = threading.Lock()

    def take(self, size: int) -> _Block | None:
        """The block of exactly ``size`` bytes that was used last, or None."""
        keep_bytes()  # a setting that cannot be read is said here, not where an array dies
        with self._lock:
            if not (same := self._of.get(size)):
                return None
            block = same.pop()
            del self._blocks[block]
            self._bytes -= size
            return block

    def give(self, block: _Block) -> None:
        """Keep a block, and let the longest unused ones go when there are too many."""
        # Called when an array dies, which may be inside ``take`` on this very thread (the garbage collector): never
        # wait here. A block not kept is simply released.
        if block.size > keep_bytes() or not self._lock.acquire(blocking=False):
            return
        try:
            self._blocks[block] = None
            self._of[block.size].append(block)
            self._bytes += block.size
            while self._bytes > keep_bytes():
                oldest = next(iter(self._blocks))
                del self._blocks[oldest]
                self._of[oldest.size].popleft()  # of its own size it is the oldest too
                self._bytes -= oldest.size
        finally:
            self._lock.release()


_kept = _Kept()


class _Lease:
    """Owner of the memory of one array, which gives the block back when no view is left.

    NumPy keeps it as the base of the array. It is a ctypes array besides (``_lease_of``), as NumPy reads such a one's
    memory in a third of the time that an ``__array_interface__`` takes. A child process after a fork has copies of
    both, so blocks are never shared.
    """

    block: _Block | None = None

    def __del__(self) -> None:
        # the names are None when the interpreter ends, and there is no block yet where an interrupt comes first
        if _kept is not None and keep_bytes is not None and self.block is not None:
            _kept.give(self.block)


@functools.cache
def _lease_of(size: int) -> Any:
    """The kind of lease of so many bytes."""
    return type("_Lease", (_Lease, ctypes.c_char * size), {})


def _block_size(size: int) -> int:
    """Bytes of the block for ``size`` bytes: eight sizes per power of two, so that similar requests share."""
    step = 1 << max(size.bit_length() - 4, 0)
    return -(-size // step) * step + _ALIGN


def empty(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray:
    """An uninitialised C-contiguous array like ``numpy.empty``, aligned to 64 bytes."""
    if 0 in shape:
        return np.empty(shape, dtype)
    dtype = np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    if size < _LARGE:
        own = np.empty(size + _ALIGN, np.uint8)
        return np.ndarray(shape, dtype, own, -_address(own) % _ALIGN)
    wanted = _block_size(size)
    block = _kept.take(wanted)
    if block is None:
        block = _Block(wanted)
    lease = _lease_of(wanted - _ALIGN).from_address(block.address + -block.address % _ALIGN)
    lease.block = block
    return np.ndarray(shape, dtype, lease)


def empty_like(array: NDArray) -> NDArray:
    """An uninitialised C-contiguous array of the same shape and dtype."""
    return empty(array.shape, array.dtype)
