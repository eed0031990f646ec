"""Figures drawn while the analysis goes on: by a second process, for Matplotlib holds Python's lock throughout.

Half of the time of a report is spent on its figures. What the other process cannot draw, for whatever reason, is drawn
here, by the same code, and its errors are raised here.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl

from .._jit import num_threads
from .drawing import Picture

_PROGRAM = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from rnngrad.report.painter import serve; serve()"


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
        self._process = _start() if num_threads() > 1 else None
        self._feeder = threading.Thread(target=self._feed, name="rnngrad-painter", daemon=True)
        if self._process is not None:
            self._feeder.start()

    def __enter__(self) -> Painter:
        return self

    def __exit__(self, *_: object) -> None:
        with self._news:
            self._closing = True
            self._waiting.clear()
            self._news.notify_all()
        if self._process is not None:
            self._process.kill()
            self._feeder.join()
            self._process.wait()
            for stream in (self._process.stdin, self._process.stdout):
                assert stream is not None
                with contextlib.suppress(OSError):  # for what was not sent to a process that is gone
                    stream.close()

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
        if self._process is not None:
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

    def _feed(self) -> None:
        """Give the other process one picture after the other."""
        try:
            self._send(_settings())
            while True:
                with self._news:
                    self._news.wait_for(lambda: self._waiting or self._closing)
                if (picture := self._next(last=False)) is None:
                    return
                self._refused.append(picture)  # until it is drawn
                try:
                    task = pickle.dumps((self._folder, picture))
                except (pickle.PicklingError, AttributeError, TypeError):
                    continue  # it holds what cannot be sent, such as a user's local function
                self._send(task)
                written = self._receive()
                if written is not None:
                    self._refused.pop()
                    self._keep(picture, written)
        except (OSError, EOFError, pickle.UnpicklingError):
            return  # the process is gone: the rest is drawn here

    def _send(self, task: bytes) -> None:
        assert self._process is not None and self._process.stdin is not None
        pickle.dump(task, self._process.stdin)
        self._process.stdin.flush()

    def _receive(self) -> dict[str, Any] | None:
        assert self._process is not None and self._process.stdout is not None
        written: dict[str, Any] | None = pickle.load(self._process.stdout)
        return written


def _start() -> subprocess.Popen[bytes] | None:
    if not sys.executable:  # Python inside another program
        return None
    command = [sys.executable, "-c", _PROGRAM, json.dumps(sys.path)]
    try:
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    except OSError:
        return None


def _settings() -> bytes:
    """Matplotlib's settings where they are not the usual ones."""
    usual = mpl.rcParamsDefault
    changed = {name: value for name, value in mpl.rcParams.items() if name != "backend" and value != usual[name]}
    return pickle.dumps(changed)


def serve() -> None:
    """The other process: draw what comes in, until nothing more can come."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # its end is the caller's matter
    source, sink = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what anything prints must not get between the answers
    mpl.rcParams.update(pickle.loads(pickle.load(source)))
    while True:
        try:
            task = pickle.load(source)
        except EOFError:
            return
        try:
            folder, picture = pickle.loads(task)
            written = picture.write(folder)
        except Exception:  # is met again, and raised, where the picture came from
            written = None
        pickle.dump(written, sink)
        sink.flush()
