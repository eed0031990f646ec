"""Figures drawn while the analysis goes on: by a second process, for Matplotlib holds Python's lock throughout.

Half of the time of a report is spent on its figures. What the other process cannot draw, for whatever reason, is drawn
here, by the same code, and its errors are raised here. Before the first figure is there, the other process has nothing
to draw: where kernels are missing, it rehearses (see ``rehearsal``).
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl

from .._jit import num_threads
from .drawing import Picture
from .rehearsal import Missed, rehearse
from .second import GONE, Second, pack

_log = logging.getLogger(__name__)
_UNREHEARSED = "rnngrad: kernels could not be compiled ahead (%s); they are compiled when they are needed"


class Painter:
    """Writes pictures into a folder, two at a time where there are two processors; a context manager."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        self._names: list[str] = []
        self._waiting: deque[Picture] = deque()  # the other process begins at the left, this one at the right
        self._refused: list[Picture] = []
        self._drawn: dict[str, dict[str, Any]] = {}
        self._news = threading.Condition()
        self._closing = False
        self._rehearsal: bytes | None = None
        self._missed = self._rehearsing = False
        self._misses = Missed(self._miss)
        self._second = _start() if num_threads() > 1 else None
        self._feeder = threading.Thread(target=self._feed, name="rnngrad-painter", daemon=True)
        if self._second is not None:
            self._feeder.start()

    def __enter__(self) -> Painter:
        self._misses.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._misses.__exit__()
        with self._news:
            self._closing = True
            self._waiting.clear()
            self._news.notify_all()
        if self._second is not None:
            self._second.kill()
            self._feeder.join()
            self._second.close()

    def rehearse(self, job: Callable[..., Any], *arguments: Any) -> None:
        """From now on, if a kernel is compiled here, let the other process call what goes through the job in small."""
        with self._news:
            self._rehearsal = pack(rehearse, job, *arguments)
            self._missed = False

    def add(self, listed: list[Picture]) -> int:
        """Pictures to be drawn, from now on; returns how many."""
        with self._news:
            self._names += [picture.name for picture in listed]
            self._waiting.extend(listed)
            self._news.notify_all()
        return len(listed)

    def finish(self, tick: Callable[[float], Any]) -> list[dict[str, Any]]:
        """What the page needs of every picture, in the order they were added; ``tick(share)`` as they are drawn."""
        with self._news:
            self._closing = True
            self._news.notify_all()
        while (picture := self._next(last=True)) is not None:
            self._keep(picture, picture.write(self._folder))
            tick(len(self._drawn) / len(self._names))
        if self._second is not None:
            if self._rehearsing:  # for what is over
                self._second.kill()
            self._feeder.join()
        for picture in self._refused:
            self._keep(picture, picture.write(self._folder))
        tick(1.0)
        return [self._drawn[name] for name in self._names]

    def _next(self, last: bool) -> Picture | None:
        with self._news:
            if not self._waiting:
                return None
            return self._waiting.pop() if last else self._waiting.popleft()

    def _keep(self, picture: Picture, written: dict[str, Any]) -> None:
        with self._news:
            self._drawn[picture.name] = written
            self._news.notify_all()

    def _miss(self) -> None:
        with self._news:
            self._missed = True
            self._news.notify_all()

    def _due(self) -> bool:
        """Whether the other process should rehearse now."""
        return self._missed and self._rehearsal is not None and not self._closing

    def _feed(self) -> None:
        """Give the other process one thing to do after the other."""
        assert self._second is not None
        try:
            self._second.call(pack(_settle, _settings()))
            while True:
                with self._news:
                    self._news.wait_for(lambda: self._waiting or self._closing or self._due())
                    self._rehearsing = self._due()
                if self._rehearsing:
                    self._rehearse()
                    continue
                if (picture := self._next(last=False)) is None:
                    return
                self._refused.append(picture)  # until it is drawn
                try:
                    task = pack(picture.write, self._folder)
                except ValueError:
                    continue
                written, failed = self._second.call(task)
                if failed is None:  # else it fails again, and raises, here
                    self._refused.pop()
                    self._keep(picture, written)
        except GONE:
            return  # the process is gone: the rest is drawn here

    def _rehearse(self) -> None:
        assert self._second is not None and self._rehearsal is not None
        try:
            _, failed = self._second.call(self._rehearsal)
        except GONE as error:
            if not self._closing:
                _log.warning(_UNREHEARSED, f"the second process ended: {type(error).__name__}")
            raise
        if failed is not None:
            _log.warning(_UNREHEARSED, failed)
        with self._news:
            self._rehearsal, self._rehearsing = None, False
            self._news.notify_all()


def _start() -> Second | None:
    try:
        return Second()
    except OSError:
        return None  # everything is drawn here


def _settle(changed: Any) -> None:
    mpl.rcParams.update(changed)


def _settings() -> dict[str, Any]:
    """Matplotlib's settings where they are not the usual ones."""
    usual = mpl.rcParamsDefault
    return {name: value for name, value in mpl.rcParams.items() if name != "backend" and value != usual[name]}
