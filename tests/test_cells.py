"""Every cell's units: partial derivatives against complex steps of the equations, values against the reference.

The complex step runs the units' own Python source with the activations replaced by the complex ones of ``reference``,
so it sees every slip in a ``*_vjp``; a slip in the equations themselves shows against ``reference`` and ``oracles``.
"""

from types import FunctionType

import numpy as np
import pytest
import reference
from cases import CELLS, PAIRS, assert_close

import rnngrad as rg
from rnngrad import _math

STEP = 1e-30
NAMES = {number: name for name, number in _math.ACTIVATIONS.items()}


def source(unit):
    """The Python function behind a unit (itself when Numba is off)."""
    return getattr(unit, "py_func", unit)


# What units import from rnngrad._math, for complex numbers; the slopes are not taken from here.
COMPLEX = {
    source(_math.logistic): reference.logistic,
    source(_math.logistic_slope): lambda z: (reference.logistic(z), reference.logistic(-z), None),
    source(_math.tanh): np.tanh,
    source(_math.phi): lambda kind, z: reference.ACTIVATIONS[NAMES[kind]](z),
    source(_math.phi_slope): lambda kind, z: (reference.ACTIVATIONS[NAMES[kind]](z), None),
}


def complex_version(unit):
    """The same source over complex numbers: its globals that are units are replaced, through every call."""
    function = source(unit)
    patched = dict(function.__globals__)
    for name, value in function.__globals__.items():
        called = source(value)
        if not isinstance(called, FunctionType) or name == function.__name__:
            continue
        if called in COMPLEX:
            patched[name] = COMPLEX[called]
        elif called.__module__.startswith("rnngrad.cells") and name in function.__code__.co_names:
            patched[name] = complex_version(value)
    return FunctionType(function.__code__, patched, function.__name__)


def slopes(function, phi, arguments, which, k):
    """d function(phi, *arguments, k)[row]/d arguments[which][column] by complex steps, as [row, column]."""
    out = []
    for column in range(len(arguments[which])):
        shifted = [tuple(map(complex, values)) for values in arguments]
        shifted[which] = tuple(z + 1j * STEP * (i == column) for i, z in enumerate(shifted[which]))
        value = function(phi, *shifted, k)
        out.append(np.imag(value if isinstance(value, tuple) else (value,)) / STEP)
    return np.array(out).T


def points(spec, count=25):
    """Random (s, a, a2, k) of one unit."""
    rng = np.random.default_rng(len(spec.name))
    for _ in range(count):
        yield (
            tuple(map(float, rng.standard_normal(spec.n_states))),
            tuple(map(float, rng.standard_normal(len(spec.gates)))),
            tuple(map(float, rng.standard_normal(len(spec.gates2)))),
            tuple(map(float, rng.uniform(0.1, 1, len(spec.constants)))),
        )


def basis(count):
    return [tuple(map(float, row)) for row in np.eye(count)]


def vjp_rows(spec, phi, s, a, a2, k):
    """ds'/ds, ds'/da, ds'/da2 by update_vjp, one cotangent per row."""
    rows = [source(spec.module.update_vjp)(phi, s, a, a2, k, g) for g in basis(spec.n_states)]
    return [np.array([row[part] for row in rows]) for part in range(3)]


@pytest.mark.parametrize(("cell", "activation"), PAIRS)
def test_update_vjp_is_the_derivative_of_update(cell, activation):
    spec, phi = rg.CELLS[cell], _math.ACTIVATIONS[activation]
    update = complex_version(spec.module.update)
    for s, a, a2, k in points(spec):
        actual = vjp_rows(spec, phi, s, a, a2, k)
        for which, part in enumerate(actual):
            if part.size:
                expected = slopes(update, phi, (s, a, a2), which, k)
                np.testing.assert_allclose(part, expected, rtol=1e-12, atol=1e-12)
        g = tuple(np.random.default_rng(3).standard_normal(spec.n_states))
        for part, value in zip(actual, source(spec.module.update_vjp)(phi, s, a, a2, k, g), strict=True):
            np.testing.assert_allclose(value, np.array(g) @ part, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("cell", "activation"), [pair for pair in PAIRS if rg.CELLS[pair[0]].two_stage])
def test_inner_vjp_is_the_derivative_of_inner(cell, activation):
    spec, phi = rg.CELLS[cell], _math.ACTIVATIONS[activation]
    inner = complex_version(spec.module.inner)
    for s, a, _, k in points(spec):
        for g in (1.0, -0.7):
            actual = source(spec.module.inner_vjp)(phi, s, a, k, g)
            for which, part in enumerate(actual):
                expected = g * slopes(inner, phi, (s, a), which, k)[0]
                np.testing.assert_allclose(part, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("unit", ["emit", "output"])
@pytest.mark.parametrize(("cell", "activation"), PAIRS)
def test_emit_and_output_vjp(cell, activation, unit):
    spec, phi = rg.CELLS[cell], _math.ACTIVATIONS[activation]
    if spec.emits_state if unit == "emit" else spec.outputs_state:
        assert not hasattr(spec.module, unit), f"{cell} has {unit}, which its declaration hides"
        return
    function = complex_version(getattr(spec.module, unit))
    for s, _, _, k in points(spec):
        for g in (1.0, -0.7):
            actual = source(getattr(spec.module, unit + "_vjp"))(phi, s, k, g)
            expected = g * slopes(function, phi, (s,), 0, k)[0]
            np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("cell", CELLS)
def test_declared_structure_is_the_structure(cell):
    """A declared zero is zero everywhere (kernels skip it), and what is declared non-zero is so somewhere."""
    spec = rg.CELLS[cell]
    phi = _math.ACTIVATIONS[spec.activation]
    declared = {"state": spec.update_by_state, "gate": spec.update_by_gate, "gate2": spec.update_by_gate2}
    seen = {name: np.zeros(np.shape(table), bool) for name, table in declared.items()}
    inner_seen = [np.zeros(spec.n_states, bool), np.zeros(len(spec.gates), bool)]
    for s, a, a2, k in points(spec):
        for name, part in zip(declared, vjp_rows(spec, phi, s, a, a2, k), strict=True):
            seen[name] |= part.reshape(seen[name].shape) != 0
        if spec.two_stage:
            for flags, part in zip(inner_seen, source(spec.module.inner_vjp)(phi, s, a, k, 1.0), strict=True):
                flags |= np.array(part) != 0
    for name, table in declared.items():
        np.testing.assert_array_equal(seen[name], np.array(table, bool).reshape(seen[name].shape), err_msg=name)
    if spec.two_stage:
        np.testing.assert_array_equal(inner_seen[0], np.array(spec.inner_by_state, bool))
        np.testing.assert_array_equal(inner_seen[1], np.array(spec.inner_by_gate, bool))


@pytest.mark.parametrize("cell", CELLS)
def test_declarations_fit_together(cell):
    spec = rg.CELLS[cell]
    S, P, P2 = spec.n_states, len(spec.gates), len(spec.gates2)
    assert spec.name == cell
    assert (np.shape(spec.update_by_state), np.shape(spec.update_by_gate)) == ((S, S), (S, P))
    assert [len(row) for row in spec.update_by_gate2] == [P2] * S
    assert (len(spec.inner_by_state), len(spec.inner_by_gate)) == (S, P)
    assert (len(spec.gate_kinds), len(spec.gate_kinds2)) == (P, P2)
    assert set(spec.gate_kinds + spec.gate_kinds2) <= {"gate", "value", "part"}
    assert spec.activation in spec.activations
    assert 0 < spec.recurrent <= P
    assert set(spec.inputs) | set(spec.biases) <= set(range(P))
    assert set(spec.inputs) | set(range(spec.recurrent)) == set(range(P)), "a pre-activation nothing feeds"


@pytest.mark.parametrize("cell", CELLS)
def test_shapes_and_names_are_those_of_the_reference(cell):
    spec, truth = rg.CELLS[cell], reference.CELLS[cell]
    assert spec.shapes(5, 3) == truth["shapes"](5, 3)
    assert spec.states == truth["state"]
    assert spec.activation == truth["default_activation"]


@pytest.mark.parametrize("cell", CELLS)
def test_one_step_is_that_of_the_reference(case, cell):
    drawn = case(cell, T=1, B=4, n=5)
    expected = reference.rollout(*drawn.args, **drawn.kwargs)
    assert_close(drawn.traj.states, expected, 1e-13)
