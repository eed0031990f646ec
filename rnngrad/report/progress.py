"""Progress of a job: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

#: Called with (stage, share of the whole job that is done).
Progress = Callable[[str, float], Any]


class Plan:
    """Stages with weights; tells the listener which one runs and how much of the whole is done."""

    def __init__(self, stages: dict[str, float], listener: Progress | None) -> None:
        self._listener = listener
        total = sum(stages.values())
        self._share = {name: weight / total for name, weight in stages.items()}
        self._before = dict(zip(stages, [0.0, *_running(self._share.values())], strict=False))

    def __call__(self, stage: str, share: float = 0.0) -> None:
        """``share`` of the stage is done."""
        if self._listener is not None:
            self._listener(stage, self._before[stage] + share * self._share[stage])

    def done(self) -> None:
        if self._listener is not None:
            self._listener("done", 1.0)


class Bar:
    """A tqdm bar on a terminal, a line per stage elsewhere; both on standard error."""

    def __init__(self, stream: Any = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._stage: str | None = None
        self._bar: Any = None
        if self._stream.isatty():
            from tqdm import tqdm

            self._bar = tqdm(
                total=100, file=self._stream, leave=False, bar_format="{desc:<34}{bar} {percentage:3.0f} % {elapsed}"
            )

    def __call__(self, stage: str, done: float) -> None:
        if self._bar is not None:
            self._bar.set_description_str(stage, refresh=stage != self._stage)
            self._bar.update(100 * done - self._bar.n)
        elif stage not in (self._stage, "done"):
            print(f"rnngrad: {stage}", file=self._stream, flush=True)
        self._stage = stage

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def _running(values: Any) -> list[float]:
    out, total = [], 0.0
    for value in values:
        total += value
        out.append(total)
    return out
