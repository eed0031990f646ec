"""Files of named arrays, ``.safetensors`` and ``.npz``: names first, arrays on request, nothing ever executed."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .. import _checks

PICKLED = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle")
_UNREADABLE = (ValueError, OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)
METADATA = ("cell", "activation", "dt", "stack")  # text in .safetensors, scalars among the arrays in .npz


class Container(Protocol):
    """An open file: its array names, its metadata, and one array at a time with the name of its stored dtype."""

    @property
    def keys(self) -> tuple[str, ...]: ...

    @property
    def metadata(self) -> Mapping[str, str]: ...

    def array(self, key: str) -> tuple[NDArray, str]: ...


class Npz:
    """NumPy's archive of arrays."""

    keys: tuple[str, ...]
    metadata: Mapping[str, str]

    def __init__(self, path: Path) -> None:
        if not zipfile.is_zipfile(path):
            raise ValueError(f"{path} is not an .npz archive (made by numpy.savez)")
        self._path = path
        try:
            with np.load(path, allow_pickle=False) as archive:
                names = tuple(archive.files)
        except _UNREADABLE as error:
            raise ValueError(f"{path} cannot be read as an .npz archive: {error}") from error
        self.metadata = {name: str(self.array(name)[0]) for name in METADATA if name in names}
        self.keys = tuple(name for name in names if name not in METADATA)

    def array(self, key: str) -> tuple[NDArray, str]:
        try:
            with np.load(self._path, allow_pickle=False) as archive:
                value = archive[key]
        except _UNREADABLE as error:  # damaged, or Python objects (a pickle)
            raise ValueError(f"{key!r} in {self._path} cannot be read: {error}") from error
        if not isinstance(value, np.ndarray):
            raise ValueError(f"{key!r} in {self._path} is not an array")
        return value, value.dtype.newbyteorder("=").name


class Safetensors:
    """A safetensors file: a JSON header, then raw numbers."""

    keys: tuple[str, ...]
    metadata: Mapping[str, str]

    def __init__(self, path: Path) -> None:
        self._path = path
        self._library = _safetensors()
        try:
            with self._library.safe_open(path, "np") as file:
                self.keys = tuple(file.keys())
                self.metadata = dict(file.metadata() or {})
                self._dtypes = {key: _DTYPES.get(name := file.get_slice(key).get_dtype(), name) for key in self.keys}
        except self._library.SafetensorError as error:
            raise ValueError(f"{path} is not a safetensors file, or it is damaged: {error}") from error

    def array(self, key: str) -> tuple[NDArray, str]:
        dtype = self._dtypes[key]
        if dtype == "bfloat16":
            return self._bfloat16(key), dtype
        if dtype not in _DTYPES.values():
            raise ValueError(f"{key!r} in {self._path} has dtype {dtype}; it must be float64 or float32")
        with self._library.safe_open(self._path, "np") as file:
            return file.get_tensor(key), dtype

    def _bfloat16(self, key: str) -> NDArray[np.float32]:
        """Widened to float32, exactly: NumPy has no bfloat16, which is the upper half of a float32."""
        raw = self._path.read_bytes()
        entry = dict(self._library.deserialize(raw))[key]
        bits = np.frombuffer(entry["data"], dtype="<u2").astype(np.uint32) << np.uint32(16)
        return bits.view(np.float32).reshape(entry["shape"])


_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def open_container(path: str | os.PathLike[str]) -> Container:
    """The file, opened by its suffix.

    Raises
    ------
    ValueError
        The suffix is neither ``.safetensors`` nor ``.npz`` (pickles are refused), or the file is not what it says.
    FileNotFoundError
        There is no such file.
    """
    path = Path(path)
    kind = _suffix(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}" + (" (it is a folder)" if path.is_dir() else ""))
    return Safetensors(path) if kind == ".safetensors" else Npz(path)


def write_container(path: str | os.PathLike[str], arrays: Mapping[str, NDArray], metadata: Mapping[str, str]) -> None:
    """Write named arrays with text beside them, in the format of the path's suffix."""
    path = Path(path)
    if _suffix(path) == ".safetensors":
        _safetensors()
        from safetensors.numpy import save_file

        save_file({name: np.ascontiguousarray(value) for name, value in arrays.items()}, path, dict(metadata))
        return
    with path.open("wb") as file:
        np.savez(file, **arrays, **{name: np.array(text) for name, text in metadata.items()})  # type: ignore[arg-type]


def to_precision(name: str, value: NDArray, stored: str, dtype: Any) -> NDArray:
    """The array in float64 or float32: as stored, or converted where ``dtype`` asks for it; all of it finite."""
    if not stored.startswith(("float", "bfloat", "longdouble")):
        raise ValueError(f"{name} has dtype {stored}; it must be float64 or float32")
    if dtype is None and stored not in ("float64", "float32"):
        raise ValueError(
            f"{name} has dtype {stored}, and this version computes in float64 or float32; "
            "give dtype='float64' or dtype='float32' to convert it"
        )
    to = _checks.float_dtype(stored if dtype is None else dtype)
    _checks.finite(name, value)
    with np.errstate(over="ignore"):
        value = value.astype(to, copy=False)
    _checks.finite(f"{name} as {to.name}", value)  # a large float64 is infinite in float32
    return value


def _suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix in PICKLED:
        raise ValueError(
            f"{path} is a {suffix} file, which holds a pickle and can run any code when opened; rnngrad loads none. "
            "Convert it once, where you trust it: safetensors.torch.save_file(model.state_dict(), 'model.safetensors')"
        )
    return str(_checks.choice("suffix of path", suffix, (".safetensors", ".npz")))


def _safetensors() -> ModuleType:
    try:
        import safetensors
    except ImportError as error:
        raise ImportError(
            ".safetensors files need the package safetensors; install the extra: pip install 'rnngrad[safetensors]'"
        ) from error
    return safetensors
