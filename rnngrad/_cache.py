"""The compile cache: compiled functions on disk, in a folder named after a digest of the sources they come from.

An edited unit can so never be served from a stale file (Numba itself checks only the file that holds the outermost
function).
"""

from __future__ import annotations

import functools
import hashlib
import os
import warnings
from pathlib import Path

import numba
from numba.core.caching import CompileResultCacheImpl, FunctionCache, IndexDataCacheFile, _CacheLocator

from ._linking import provide, required

_PACKAGE = Path(__file__).parent


def sources() -> list[Path]:
    """Every source that compiled code is made from."""
    own = "_cache _compiler _linking _jit _tile _gemm _math _dual loss_terms normalization unit_terms"
    found = [_PACKAGE / f"{name}.py" for name in own.split()]
    found += sorted((_PACKAGE / "kernels").glob("*.py"))
    for folder in ("cells", "kernels/cpu"):
        found += sorted((_PACKAGE / folder).rglob("*.py"))
    return found


def _digest() -> str:
    """Hexadecimal digest of Numba's version and of the sources."""
    digest = hashlib.sha256(numba.__version__.encode())
    for path in sources():
        digest.update(path.relative_to(_PACKAGE).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


#: Taken at import: read any later, it could name sources that this process did not import.
SOURCE_DIGEST = _digest()


@functools.cache
def cache_folder() -> Path:
    """Folder of the compiled kernels; ``RNNGRAD_CACHE_DIR`` overrides the user's cache folder."""
    own = os.environ.get("RNNGRAD_CACHE_DIR")
    users = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rnngrad"
    return (Path(own) if own else users) / SOURCE_DIGEST


class _DigestLocator(_CacheLocator):
    """Where a kernel is kept: one folder per source digest, one file name per kernel key."""

    def __init__(self, py_func, py_file):
        self._key = py_func.__rnngrad_key__
        self._py_file = py_file  # Numba reads this name when it words a warning

    def get_cache_path(self):
        return str(cache_folder())

    def get_source_stamp(self):
        return SOURCE_DIGEST

    def get_disambiguator(self):
        return self._key

    @classmethod
    def from_function(cls, py_func, py_file):
        return cls(py_func, py_file)


class _KernelCacheImpl(CompileResultCacheImpl):
    """Compiled code together with the names of the outlined functions that it calls."""

    _locator_classes = [_DigestLocator]

    def reduce(self, data):
        return required(data.library), super().reduce(data)

    def rebuild(self, target_context, data):
        needed, code = data
        provide(needed)
        return super().rebuild(target_context, code)


class _KernelFiles(IndexDataCacheFile):
    """One file per kernel and signature, named by a hash of its key.

    Numba numbers the files and keeps an index of the numbers; two processes that compile at once can leave an index
    that points to the other's file, that is, to code of another signature.
    """

    def save(self, key, data):
        self._save_data(self._name(key), (key, *data))

    def load(self, key):
        try:
            stored, needed, code = self._load_data(self._name(key))
        except FileNotFoundError:
            return None
        return (needed, code) if stored == key else None

    def _name(self, key):
        return self._index_name.removesuffix("nbi") + hashlib.sha256(repr(key).encode()).hexdigest()[:16] + ".nbc"


class KernelCache(FunctionCache):
    _impl_class = _KernelCacheImpl

    def __init__(self, py_func):
        super().__init__(py_func)
        self._cache_file = _KernelFiles(
            self._cache_path, self._impl.filename_base, self._impl.locator.get_source_stamp()
        )

    def _index_key(self, sig, codegen):
        # The key names the kernel and what it closes over; the digest in the folder's name covers the code.
        # Numba's own key pickles the closure, and a dispatcher never pickles to the same bytes twice.
        return sig, codegen.magic_tuple(), self._py_func.__rnngrad_key__


@functools.cache
def cache_is_writable() -> bool:
    try:
        cache_folder().mkdir(parents=True, exist_ok=True)
        probe = cache_folder() / f".probe-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        warnings.warn(
            f"rnngrad cannot keep compiled kernels in {cache_folder()} ({error}); each process will compile anew. "
            "Set RNNGRAD_CACHE_DIR to a writable folder.",
            stacklevel=2,
        )
        return False
    return True
