"""What every result can do: become plain data, be saved, be drawn."""

from __future__ import annotations

import importlib
import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Result:
    """Base of the frozen dataclasses that analyses return.

    A field declared with ``metadata={"saved": False}`` (such as the trajectory a result came from) is left out of
    :meth:`to_dict` and :meth:`save`; properties named in ``DERIVED`` are written with the fields.
    """

    DERIVED: ClassVar[tuple[str, ...]] = ()

    def to_dict(self) -> dict[str, Any]:
        """The result as plain data that JSON can hold.

        Arrays become nested lists, complex ones a pair {"real", "imag"}; NaN becomes None, an infinity "inf" or "-inf".
        """
        return {name: plain(value) for name, value in self._saved()}

    def arrays(self) -> dict[str, NDArray]:
        """The result as named arrays, as :meth:`save` writes them; a nested name is joined by a dot."""
        out: dict[str, NDArray] = {}
        for name, value in self._saved():
            _collect(out, name, value)
        return out

    def save(self, path: Any) -> Path:
        """Write the numbers to ``path``: arrays by name for .npz, plain data for .json.

        Raises
        ------
        ValueError
            The name ends in neither.
        """
        path = Path(path)
        if path.suffix == ".npz":
            np.savez_compressed(path, allow_pickle=False, **self.arrays())
        elif path.suffix == ".json":
            path.write_text(json.dumps(self.to_dict(), allow_nan=False) + "\n", encoding="utf-8")
        else:
            raise ValueError(f"path is {str(path)!r}; it must end in .npz or .json")
        return path

    def plot(self, ax: Any = None) -> Any:
        """Draw the result on Matplotlib axes (new ones without ``ax``) and return them."""
        # Figures stand on a floor above the results, so they are found by name and only when one is wanted.
        return importlib.import_module("rnngrad.figures").plot(self, ax)

    def _saved(self) -> list[tuple[str, Any]]:
        names = [item.name for item in fields(self) if item.metadata.get("saved", True)]
        return [(name, getattr(self, name)) for name in (*names, *self.DERIVED)]


def plain(value: Any) -> Any:
    """Plain data of any value a result holds; see :meth:`Result.to_dict`."""
    if isinstance(value, Result):
        return value.to_dict()
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray) and value.dtype.kind == "c":
        return {"real": plain(value.real), "imag": plain(value.imag)}
    if isinstance(value, (np.ndarray, np.generic)):
        return plain(value.tolist())
    if isinstance(value, float) and not np.isfinite(value):
        return None if np.isnan(value) else "inf" if value > 0 else "-inf"
    if isinstance(value, complex):
        return {"real": plain(value.real), "imag": plain(value.imag)}
    return value


def _collect(out: dict[str, NDArray], name: str, value: Any) -> None:
    if isinstance(value, Result):
        value = value.arrays()
    if isinstance(value, dict):
        for key, item in value.items():
            _collect(out, f"{name}.{key}", item)
    elif value is not None:
        array = np.asarray(value)
        if array.dtype.kind == "O":  # a ragged or mixed value would need pickle
            array = np.array(json.dumps(plain(value)))
        out[name] = array
