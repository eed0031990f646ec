"""How compiled functions get into each other: copied into the caller, or called by name.

Numba compiles every function by itself, then links its code into each caller and optimises all of it again, at every
level of calls: a product that ten kernels share is compiled a dozen times. Here a function is one of two things. An
``Inlined`` one is only translated; its code is optimised where it ends up. An ``Outlined`` one is compiled once for its
argument types, and its callers hold the name of a symbol. The name is the same in every process, so callers can be
kept on disk; what they refer to is loaded before they are (``required``, ``provide``).
"""

from __future__ import annotations

import copy
import functools
import hashlib
import itertools
from typing import Any

import llvmlite.binding as llvm
import numba
from numba.core import sigutils, types
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import CPUDispatcher

from ._compiler import InlinedCompiler, KernelCompiler

_PREFIX = "rnngrad:"
_outlined: dict[str, Outlined] = {}  # by name: all whose callers may be kept on disk
_symbols: dict[str, tuple[str, Any]] = {}  # symbol -> (name in ``_outlined``, argument types)
_count = itertools.count()


class _Called(CPUDispatcher):
    """A function called by compiled ones, under a key of the compiler's own for each tuple of argument types."""

    def __init__(self, function: Any, options: dict[str, Any], pipeline: Any) -> None:
        bare = {"nopython": True, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
        super().__init__(function, targetoptions=options | bare, pipeline_class=pipeline)
        self._options = options
        self._keys: dict[Any, Any] = {}

    def get_call_template(self, args: Any, kws: Any) -> Any:
        """Numba's, but a constant in the call is no type of its own."""
        return super().get_call_template(tuple(map(types.unliteral, args)), kws)

    def compile(self, sig: Any) -> Any:
        """As any dispatcher does, and make the code known under its key."""
        with global_compiler_lock:
            entry = super().compile(sig)
            args = tuple(sigutils.normalize_signature(sig)[0])
            if args not in self._keys:
                self._keys[args] = self._publish(args, self.overloads[args])
        return entry

    def _publish(self, args: Any, code: Any) -> Any:
        raise NotImplementedError

    def get_overload(self, sig: Any) -> Any:
        """The key under which the compiler finds what a call becomes."""
        return self._keys[tuple(sigutils.normalize_signature(sig)[0])]


class Inlined(_Called):
    """A function copied into those that call it; from Python it runs as well, compiled anew."""

    def __init__(self, function: Any, options: dict[str, Any]) -> None:
        super().__init__(function, options | {"forceinline": True}, InlinedCompiler)

    def __call__(self, *args: Any) -> Any:
        return self._by_itself(*args)

    @functools.cached_property
    def _by_itself(self) -> Any:
        return numba.njit(**self._options)(self.py_func)

    def add_overload(self, cres: Any) -> None:
        """Keep a compilation, of which there is nothing that Python could call."""
        self.overloads[tuple(cres.signature.args)] = cres

    def _publish(self, args: Any, code: Any) -> Any:
        self.targetctx.insert_user_function((self, args), code.fndesc, [code.library])
        return self, args


class Outlined(_Called):
    """A function compiled once; ``name`` identifies it in all processes, without one its callers are not kept."""

    def __init__(self, function: Any, options: dict[str, Any], name: str | None) -> None:
        super().__init__(function, options, KernelCompiler)
        self._name = name or str(next(_count))
        if name is not None:
            _outlined[name] = self

    def __call__(self, *args: Any) -> Any:
        raise TypeError(f"{self.py_func.__qualname__} is called by compiled functions only")

    def _publish(self, args: Any, code: Any) -> Any:
        symbol = f"{_PREFIX}{self._name}:{hashlib.sha256(repr(args).encode()).hexdigest()[:16]}"
        described = copy.copy(code.fndesc)
        described.mangled_name = symbol
        llvm.add_symbol(symbol, code.library.get_pointer_to_function(code.fndesc.llvm_func_name))
        self.targetctx.insert_user_function(symbol, described, [])  # no library: nothing is linked into the caller
        _symbols[symbol] = (self._name, args)
        return symbol


def required(library: Any) -> list[tuple[str, Any]]:
    """(name, argument types) of the outlined functions that compiled code calls."""
    declared = (function.name for function in library._final_module.functions if function.is_declaration)
    return [_symbols[name] for name in declared if name in _symbols]


def provide(needed: list[tuple[str, Any]]) -> None:
    """Load or compile outlined functions, so that code which calls them can be linked."""
    for name, args in needed:
        _outlined[name].compile(args)
