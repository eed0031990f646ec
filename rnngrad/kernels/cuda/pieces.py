"""Arrays on their way to the GPU and back: a job in pieces that fit the free memory.

A launcher states what it needs for one sample (or row, or step) and what every piece needs beside it. NumPy arrays are
uploaded, computed with and downloaded piece by piece. Arrays that lie on the device are used where they are, and a job
that has them is not cut. Nothing that a kernel computes depends on how a job is cut.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ... import _cuda
from .block import TILE


@dataclass(frozen=True)
class Operand:
    """An array of a launch: ``axis`` is the one that is cut (None: every piece needs all of it)."""

    array: Any
    axis: int | None = None
    read: bool = True
    written: bool = False

    @property
    def resident(self) -> bool:
        """Whether it lies on the device already."""
        return _cuda.is_device_array(self.array)

    @property
    def bytes_each(self) -> int:
        """Bytes to find for one place along the axis, or for the whole array."""
        if self.resident:
            return 0
        size = self.array.shape[self.axis] if self.axis is not None else 1
        return self.array.nbytes // max(size, 1)

    def part(self, start: int, stop: int) -> Any:
        """The piece of the NumPy array."""
        if self.axis is None:
            return self.array
        return self.array[(slice(None),) * self.axis + (slice(start, stop),)]

    def on_device(self, start: int, stop: int) -> Any:
        """The piece as a device array."""
        if self.resident:
            return self.array
        part = self.part(start, stop)
        return _cuda.upload(part) if self.read else _cuda.empty(part.shape, part.dtype)


def whole(array: Any) -> Operand:
    """Read by every piece."""
    return Operand(array)


def read(array: Any, axis: int) -> Operand:
    """Read, cut along an axis; along one of length 1 (a constant that does not vary) it is not cut."""
    return Operand(array, axis if array.shape[axis] != 1 else None)


def written(array: Any, axis: int) -> Operand:
    """Written, every element of it."""
    return Operand(array, axis, read=False, written=True)


def changed(array: Any, axis: int) -> Operand:
    """Read and written."""
    return Operand(array, axis, written=True)


def fitting(count: int, operands: list[Operand], scratch: tuple[int, int] = (0, 0)) -> int:
    """How many of ``count`` places along the cut axis fit into the free memory at once; 0 if none does.

    ``scratch`` are bytes beside the operands: of every piece, and for each place.
    """
    each = scratch[1] + sum(o.bytes_each for o in operands if o.axis is not None)
    fixed = scratch[0] + sum(o.bytes_each for o in operands if o.axis is None)
    free = _cuda.free_bytes() - fixed
    if any(o.resident and o.axis is not None for o in operands):
        return count
    if free < each:
        return 0
    return count if each * count <= free else int(free // max(each, 1))


def refuse(what: str, operands: list[Operand], scratch: tuple[int, int] = (0, 0), multiple: int = 1) -> MemoryError:
    """The error of a job of which not even the smallest piece, so many places, fits."""
    need = scratch[0] + sum(o.bytes_each for o in operands if o.axis is None)
    need += multiple * (scratch[1] + sum(o.bytes_each for o in operands if o.axis is not None))
    together = f", with {multiple} of them together," if multiple > 1 else ""
    has = _cuda.free_bytes() / 2**20
    return MemoryError(
        f"{what}{together} needs {need / 2**20:.4g} MiB of GPU memory at once, and {has:.4g} MiB are "
        "free: free some, take a smaller network, or use backend='cpu'"
    )


def run(
    launch: Callable[..., None],
    count: int,
    operands: list[Operand],
    what: str,
    scratch: tuple[int, int] = (0, 0),
    multiple: int = 1,
) -> None:
    """``launch(start, stop, *device arrays)`` for consecutive pieces of ``count`` places, multiples of so many."""
    if not count:
        return
    size = fitting(count, operands, scratch)
    if size < count:
        size = size // multiple * multiple
    if not size:
        raise refuse(what, operands, scratch, multiple)
    kept = [o.on_device(0, 0) if o.axis is None else None for o in operands]
    for start, stop in spans(count, size):
        arrays = [whole if whole is not None else o.on_device(start, stop) for o, whole in zip(operands, kept)]
        launch(start, stop, *arrays)
        for operand, array in zip(operands, arrays):
            if operand.written and not operand.resident:
                _cuda.download(array, operand.part(start, stop))
        if stop < count:  # two pieces at once may not fit
            del arrays, array
            _cuda.release()


def spans(count: int, size: int) -> Iterator[tuple[int, int]]:
    """Consecutive (start, stop) of ``size`` at most."""
    for start in range(0, count, size):
        yield start, min(start + size, count)


def blocks_and_rows(count: int, fits: int) -> tuple[int, int]:
    """(blocks, rows of each) for ``count`` independent rows: no more than keep every multiprocessor busy."""
    wanted = -(-count // _cuda.processors())
    rows = min(-(-wanted // TILE) * TILE, fits)
    return -(-count // rows), rows


def blocks_with_room(wanted: int, bytes_each: int) -> int:
    """Blocks whose scratch takes no more than a quarter of the free memory, ``wanted`` at most and one at least."""
    return max(1, int(min(wanted, _cuda.free_bytes() / 4 // max(bytes_each, 1))))


def in_time(consts: np.ndarray, half: int) -> tuple[np.ndarray, np.ndarray]:
    """Constants of the first ``half`` steps and of the others; the same where they do not vary."""
    return (consts, consts) if len(consts) == 1 else (consts[:half], consts[half:])


def transposed(weights: np.ndarray) -> np.ndarray:
    """W[g, i, j] as (n, G n): row j holds what unit j sends to every gate of every unit."""
    gates, n, _ = weights.shape
    return np.ascontiguousarray(weights.transpose(2, 0, 1)).reshape(n, gates * n)
