"""A folder that appears whole or not at all, and replaces only what an earlier report wrote."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

INDEX = "index.html"
NUMBERS = "report.json"


@contextmanager
def new_folder(out: Path, force: bool) -> Iterator[Path]:
    """Give an empty folder beside ``out`` to fill; it becomes ``out`` when the block ends without an exception.

    Raises
    ------
    FileExistsError
        ``out`` is there and not an empty folder, and ``force`` is False or it holds more than a report.
    OSError
        The folder cannot be made.
    """
    out = out.resolve()
    check_free(out, force)
    out.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{out.name}.partial-", dir=out.parent))
    try:
        yield work
        umask = os.umask(0)
        os.umask(umask)
        work.chmod(0o777 & ~umask)  # mkdtemp makes folders that only their owner may read
        check_free(out, force)
        _put(work, out)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def check_free(out: Path, force: bool) -> None:
    """Raise ``FileExistsError`` if ``out`` may not be written."""
    if not out.exists():
        return
    if not out.is_dir():
        raise FileExistsError(f"{out} exists and is not a folder")
    if not any(out.iterdir()):
        return
    foreign = _foreign(out)
    if foreign is not None:
        raise FileExistsError(f"{out} exists and {foreign}, so it is not replaced; choose another folder")
    if not force:
        raise FileExistsError(f"{out} exists already; give --force (force=True) to replace the report in it")


def _foreign(folder: Path) -> str | None:
    """What keeps a folder from being a report and nothing else; None where it is one."""
    try:
        made = json.loads((folder / NUMBERS).read_text(encoding="utf-8"))
        files = set(made["files"]) if made["made_by"] == "rnngrad" else None
    except (OSError, ValueError, KeyError, TypeError):
        files = None
    if files is None:
        return "holds no report of rnngrad"
    extra = sorted(item.name for item in folder.iterdir() if item.name not in files)
    return f"holds {extra[0]!r}, which rnngrad did not write" if extra else None


def _put(work: Path, out: Path) -> None:
    """Rename ``work`` to ``out``; what was there comes back if that fails."""
    if not out.exists():
        work.rename(out)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{out.name}.replaced-", dir=out.parent)) / out.name
    out.rename(old)
    try:
        work.rename(out)
    except OSError:
        old.rename(out)
        raise
    finally:
        if out.exists():
            shutil.rmtree(old.parent, ignore_errors=True)
