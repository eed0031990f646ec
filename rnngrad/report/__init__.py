"""The main job: one folder that answers how far gradients travel in a network, and why.

``rnngrad.report`` is both this package and the function that does the job, so the package can be called.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

from .job import report

__all__ = ["report"]


class _Callable(ModuleType):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return report(*args, **kwargs)


# Importing a subpackage binds its name in the parent and would hide the function of the same name.
sys.modules[__name__].__class__ = _Callable
