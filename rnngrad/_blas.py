"""BLAS threads, where NumPy decomposes many small matrices."""

import functools
from contextlib import AbstractContextManager
from typing import Any

from threadpoolctl import ThreadpoolController


@functools.cache
def _pools() -> ThreadpoolController:
    return ThreadpoolController()


def one_blas_thread() -> AbstractContextManager[Any]:
    """One BLAS thread for many small decompositions: several wait for one another, for seconds on a busy machine."""
    return _pools().limit(limits=1, user_api="blas")
