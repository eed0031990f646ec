"""What the experiments share: --seed, --out, and numbers and pictures written together."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from rnngrad._results import Result
from rnngrad.figures import style
from rnngrad.figures.files import write


def count(low: int = 1) -> Callable[[str], int]:
    """What argparse makes an argument with: an integer of at least ``low``."""

    def integer(text: str) -> int:
        if int(text) < low:
            raise argparse.ArgumentTypeError(f"{text}; it must be at least {low}")
        return int(text)

    return integer


def parser(description: str) -> argparse.ArgumentParser:
    """Parser with --seed and --out; ``description`` is the module's docstring."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--seed", type=count(0), default=0, help="of every random number (default: %(default)s)")
    made.add_argument(
        "--out", type=Path, default=Path("figures"), help="folder, made if need be (default: %(default)s)"
    )
    return made


def save(
    out: Path,
    name: str,
    parts: Sequence[Result],
    size: tuple[float, float] = style.SIZE,
    columns: int | None = None,
) -> None:
    """Write name.png, name.svg and name.npz into ``out``, and print what the figure says."""
    out.mkdir(parents=True, exist_ok=True)
    files, titles = write(out, name, parts, size, columns)
    print(*titles, f"wrote {', '.join(str(out / file) for file in files.values())}", sep="\n")
