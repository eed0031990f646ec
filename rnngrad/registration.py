"""Cells from outside the package: checked against their own derivatives, then treated like every other."""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

import numpy as np
from numba.core.dispatcher import Dispatcher
from numba.core.errors import NumbaError

from . import _checks
from ._dual import STEP as DUAL_STEP
from ._dual import dual
from ._jit import unit
from ._math import ACTIVATIONS
from .cells import CELLS, VARIANTS, Cell

_LARGEST = 4  # state vectors, gates of one product, or constants of a cell
_POINTS = 8  # at which the derivatives are compared with differences
_STEP = 1e-6


def register_cell(name: str, module: Any, *, activations: tuple[str, ...] | None = None, replace: bool = False) -> Cell:
    """Add a cell of your own to ``rnngrad.CELLS``; it gets everything that the built-in cells get.

    A cell is a module (or a class, or any object) of scalar functions in the form of :mod:`rnngrad.cells`::

        STATES = ("h",)                      # state vectors per unit; the first is what is emitted, unless emit says
        GATES = ("v",)                       # pre-activations a = W e + U x + b
        def update(phi, s, a, a2, k): ...    # (s'_1, …) from tuples of one unit's s, a, a2 and constants k
        def update_vjp(phi, s, a, a2, k, g): ...  # (g . ds'/ds, g . ds'/da, g . ds'/da2), tuples

    and, where it has them, GATES2 with inner, inner_vjp; EMITS_STATE = False with emit, emit_vjp; OUTPUTS_STATE = False
    with output, output_vjp; RECURRENT, INPUT, BIAS, CONSTANTS, ACTIVATION, UPDATE_BY_STATE and so on, as in the
    built-in cells. Functions are compiled by Numba: plain ones, or ``numba.njit`` ones without options. Write numbers
    as ``type(s[0])(2.0)``, so that float32 stays float32.

    Parameters
    ----------
    name : str
        What ``Network.init`` and files call it.
    module : module or object
    activations : tuple of str
        Activations phi it accepts; all by default.
    replace : bool
        Allow the name of an earlier registered cell (never of a built-in one).

    Returns
    -------
    Cell

    Raises
    ------
    ValueError
        The name is taken, a declaration or a function is missing, of the wrong size or does not compile, or a
        derivative disagrees with differences of its function; the message says which.
    """
    if not isinstance(name, str) or not name.isidentifier():
        raise ValueError(f"name is {name!r}; it must be an identifier such as 'my_cell'")
    taken = CELLS | VARIANTS
    if name in taken and not (replace and not taken[name].built_in):
        hint = "; replace=True replaces it" if not taken[name].built_in else ", a built-in cell"
        raise ValueError(f"name is {name!r}, which is taken{hint}")
    if not isinstance(activations, (tuple, list, type(None))):
        raise ValueError(f"activations is {activations!r}; it must be a tuple of names")
    activations = None if activations is None else tuple(activations)
    for activation in activations or ():
        _checks.choice("activations", activation, tuple(ACTIVATIONS))
    cell = Cell.from_module(name, _units(module), activations, built_in=False)
    _check_declarations(cell)
    rng = np.random.default_rng(0)
    try:
        for activation in cell.activations:
            for _ in range(_POINTS):
                _check_derivatives(cell, ACTIVATIONS[activation], rng, activation)
    except NumbaError as error:
        raise ValueError(f"a function of cell {name!r} does not compile: {error}") from error
    CELLS[name] = cell
    return cell


def _units(module: Any) -> ModuleType:
    """The module's declarations, and its functions as units."""
    values = {name: getattr(module, name) for name in dir(module) if not name.startswith("__")}
    missing = [name for name in ("STATES", "GATES") if name not in values]
    needed = ["update", "update_vjp"]
    needed += ["inner", "inner_vjp"] if values.get("GATES2") else []
    needed += ["emit", "emit_vjp"] if not values.get("EMITS_STATE", True) else []
    needed += ["output", "output_vjp"] if not values.get("OUTPUTS_STATE", True) else []
    missing += [function for function in needed if function not in values]
    if missing:
        raise ValueError(f"the cell lacks {', '.join(missing)}; see the form of rnngrad.cells")
    units = {}
    for function in needed:
        given = values[function]
        if not callable(given):
            raise ValueError(f"{function} is {given!r}; it must be a function")
        units[function] = unit(given.py_func if isinstance(given, Dispatcher) else given)
    out = ModuleType(getattr(module, "__name__", "cell"))
    vars(out).update({name: value for name, value in values.items() if name.isupper()} | units)
    return out


def _check_declarations(cell: Cell) -> None:
    S, P, P2 = cell.n_states, len(cell.gates), len(cell.gates2)
    for what, names in (
        ("STATES", cell.states),
        ("GATES", cell.gates),
        ("GATES2", cell.gates2),
        ("CONSTANTS", cell.constants),
    ):
        if isinstance(names, str) or not all(isinstance(name, str) for name in names):
            raise ValueError(f"{what} is {names!r}; it must be a tuple of names")
        if len(names) > _LARGEST or (not names and what in ("STATES", "GATES")):
            raise ValueError(
                f"{what} has {len(names)} names; there must be 1 to {_LARGEST} (GATES2, CONSTANTS may be 0)"
            )
    if not 1 <= cell.recurrent <= P:
        raise ValueError(f"RECURRENT is {cell.recurrent}; it must be in 1…{P}, the number of GATES")
    for what, rows in (("INPUT", cell.inputs), ("BIAS", cell.biases)):
        if sorted(set(rows)) != list(rows) or any(not 0 <= row < P for row in rows):
            raise ValueError(f"{what} is {rows!r}; it must be increasing numbers of GATES, 0…{P - 1}")
    for what, mask, shape in (
        ("UPDATE_BY_STATE", cell.update_by_state, (S, S)),
        ("UPDATE_BY_GATE", cell.update_by_gate, (S, P)),
        ("UPDATE_BY_GATE2", cell.update_by_gate2, (S, P2)),
        ("INNER_BY_STATE", cell.inner_by_state, (S,)),
        ("INNER_BY_GATE", cell.inner_by_gate, (P,)),
        ("GATE_KINDS", cell.gate_kinds, (P,)),
        ("GATE_KINDS2", cell.gate_kinds2, (P2,)),
    ):
        if np.shape(mask) != shape:
            raise ValueError(f"{what} has shape {np.shape(mask)}; it must have shape {shape}")
    if set(cell.constants) - {"alpha", "mask", "scale", "shift"}:
        raise ValueError(f"CONSTANTS is {cell.constants!r}; known are 'alpha' (dt/tau), 'mask', 'scale' and 'shift'")
    _checks.choice("ACTIVATION", cell.activation, cell.activations)


def _check_derivatives(cell: Cell, phi: int, rng: np.random.Generator, activation: str) -> None:
    """Every companion ``f_vjp`` against central differences of f, and the declared zeros against it."""
    S, P, P2 = cell.n_states, len(cell.gates), len(cell.gates2)
    s, a, a2, k = (tuple(rng.standard_normal(size).tolist()) for size in (S, P, P2, len(cell.constants)))
    k = tuple(0.2 + 0.6 / (1 + abs(value)) for value in k)
    module = cell.module
    by_update = (cell.update_by_state, cell.update_by_gate, cell.update_by_gate2)
    checks: list[tuple[str, Any, Any, int, Any]] = [("update", (s, a, a2), (k,), S, by_update)]
    if cell.two_stage:
        checks.append(("inner", (s, a), (k,), 0, ((cell.inner_by_state,), (cell.inner_by_gate,))))
    if not cell.emits_state:
        checks.append(("emit", (s,), (k,), 0, None))
    if not cell.outputs_state:
        checks.append(("output", (s,), (k,), 0, None))
    for name, moving, fixed, results, masks in checks:
        function, vjp = getattr(module, name), getattr(module, name + "_vjp")
        there = f"{name} of cell {cell.name!r} ({activation})"

        def value(
            arguments: Any, function: Any = function, fixed: Any = fixed, results: int = results, there: str = there
        ) -> Any:
            out = function(phi, *arguments, *fixed)
            if results and not isinstance(out, tuple):
                raise ValueError(f"{there} returns {out!r}; it must return a tuple of {results} numbers")
            return np.array(out if results else (out,), dtype=float)

        if value(moving).shape != (max(results, 1),):
            raise ValueError(f"{there} returns {value(moving).size} numbers; it must return {max(results, 1)}")
        for row in range(max(results, 1)):
            g = tuple(float(row == i) for i in range(results)) if results else 1.0
            found = vjp(phi, *moving, *fixed, g)
            found = (found,) if len(moving) == 1 else found
            sizes = [len(part) for part in moving]
            shaped = isinstance(found, tuple) and all(isinstance(part, tuple) for part in found)
            if not shaped or [len(part) for part in found] != sizes:
                raise ValueError(
                    f"{name}_vjp of cell {cell.name!r} returns {found!r}; it must return tuples of {sizes}"
                )
            for i, part in enumerate(moving):
                for j in range(len(part)):
                    expected = _difference(value, moving, i, j)[row]
                    if not abs(found[i][j] - expected) <= 1e-5 * max(1.0, abs(expected)):  # NaN is no agreement
                        raise ValueError(
                            f"{name}_vjp of cell {cell.name!r} ({activation}) gives {found[i][j]:.6g} for result "
                            f"{row}, argument {['s', 'a', 'a2'][i]}[{j}]; differences of {name} give {expected:.6g}"
                        )
                    if masks is not None and not masks[i][row][j] and found[i][j] != 0:
                        raise ValueError(
                            f"cell {cell.name!r} declares that result {row} of {name} does not depend on "
                            f"{['s', 'a', 'a2'][i]}[{j}], but its derivative is {found[i][j]:.6g}"
                        )


def _difference(value: Any, moving: Any, i: int, j: int) -> Any:
    ends = []
    for sign in (1, -1):
        moved = [list(part) for part in moving]
        moved[i][j] += sign * _STEP
        ends.append(value([tuple(part) for part in moved]))
    return (ends[0] - ends[1]) / (2 * _STEP)


@functools.cache
def check_second_derivatives(cell: Cell, activation: str) -> None:
    """Raise where the dual numbers that second derivatives come from do not fit the functions of a registered cell.

    Raises
    ------
    ValueError
        A ``*_vjp`` does not compile for complex numbers, or its dual number disagrees with its differences.
    """
    if cell.built_in:
        return
    rng, phi, where = np.random.default_rng(0), ACTIVATIONS[activation], f"of cell {cell.name!r} ({activation})"
    hint = (
        "second derivatives need formulae that are analytic in s, a, a2 and g: no abs, powers x ** 2 (write x * x) or "
        "comparisons but those of real parts (x.real > 0), and the scalar functions of rnngrad._math, cmath or NumPy"
    )
    for name, sizes in _vjp_sizes(cell).items():
        vjp, count = getattr(cell.module, name), cell.n_states if name == "update_vjp" else 0
        for _ in range(_POINTS):
            point, way = ([tuple(rng.standard_normal(size).tolist()) for size in sizes] for _ in range(2))
            k = tuple(rng.uniform(0.2, 0.8, len(cell.constants)).tolist())
            g = tuple(rng.standard_normal(count).tolist()) if count else float(rng.standard_normal())

            def value(vjp: Any, step: Any, point: Any = point, way: Any = way, k: Any = k, g: Any = g) -> Any:
                as_type = type(step)
                moved = [tuple(x + step * d for x, d in zip(*both)) for both in zip(point, way)]
                fixed = tuple(map(as_type, k)), tuple(map(as_type, g)) if isinstance(g, tuple) else as_type(g)
                return np.hstack([np.ravel(part) for part in vjp(phi, *moved, *fixed)])

            try:
                found = np.imag(value(dual(vjp), 1j * DUAL_STEP)) / DUAL_STEP
            except (NumbaError, TypeError, AttributeError, ValueError, OverflowError) as error:
                raise ValueError(f"{name} {where} does not run on complex numbers ({error}); {hint}") from error
            expected = (value(vjp, _STEP) - value(vjp, -_STEP)) / (2 * _STEP)
            off = ~(np.abs(found - expected) <= 1e-5 * np.maximum(1.0, np.abs(expected)))
            if off.any():
                i = int(np.argmax(off))
                raise ValueError(
                    f"the derivative of {name} {where} is {found[i]:.6g} by dual numbers and {expected[i]:.6g} by "
                    f"differences; {hint}"
                )


def _vjp_sizes(cell: Cell) -> dict[str, tuple[int, ...]]:
    """The cell's ``*_vjp`` functions, and the sizes of the tuples that they are functions of."""
    S, P, P2 = cell.n_states, len(cell.gates), len(cell.gates2)
    out: dict[str, tuple[int, ...]] = {"update_vjp": (S, P, P2)}
    if cell.two_stage:
        out["inner_vjp"] = (S, P)
    if not cell.emits_state:
        out["emit_vjp"] = (S,)
    if not cell.outputs_state:
        out["output_vjp"] = (S,)
    return out
