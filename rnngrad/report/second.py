"""A second Python process, which makes the calls it is sent, one after the other."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

#: What is raised when the process is gone.
GONE = (OSError, EOFError, pickle.UnpicklingError)

_PROGRAM = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from rnngrad.report.second import serve; serve()"


class Second:
    """The process, and the pipes to it."""

    def __init__(self) -> None:
        """Start it.

        Raises
        ------
        OSError
            It cannot be started.
        """
        if not sys.executable:
            raise OSError("this Python is part of another program")
        command = [sys.executable, "-c", _PROGRAM, json.dumps(sys.path)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def call(self, task: bytes) -> tuple[Any, str | None]:
        """Make a call (see ``pack``) there: (what it returns, None), or (None, what exception it met).

        Raises
        ------
        OSError, EOFError, pickle.UnpicklingError
            The process is gone.
        """
        assert self.process.stdin is not None and self.process.stdout is not None
        pickle.dump(task, self.process.stdin)
        self.process.stdin.flush()
        answer: tuple[Any, str | None] = pickle.load(self.process.stdout)
        return answer

    def kill(self) -> None:
        """End it at once; a ``call`` that waits for it raises."""
        self.process.kill()

    def close(self) -> None:
        """Leave nothing of it."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            with contextlib.suppress(OSError):  # for what was not sent to a process that is gone
                stream.close()


def pack(function: Callable[..., Any], *arguments: Any) -> bytes:
    """A call as it is sent.

    Raises
    ------
    ValueError
        It holds what cannot be sent, such as a user's local function.
    """
    try:
        return pickle.dumps((function, arguments))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ValueError(str(error)) from error


def serve() -> None:
    """The other process: make the calls that come in, until nothing more can come."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # its end is the caller's matter
    source, sink = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what anything prints must not get between the answers
    while True:
        try:
            task = pickle.load(source)
        except EOFError:
            return
        answer: tuple[Any, str | None]
        try:
            function, arguments = pickle.loads(task)
            answer = function(*arguments), None
        except Exception as error:  # what it means is known where the call came from
            answer = None, f"{type(error).__name__}: {error}"
        pickle.dump(answer, sink)
        sink.flush()
