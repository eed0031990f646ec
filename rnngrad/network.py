"""A network: one cell's parameters, an optional readout, and nothing that changes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import _checks, initialization
from ._math import ACTIVATIONS
from .cells import CELLS, VARIANTS, Cell

READOUT = ("V", "c")


@dataclass(frozen=True)
class Network:
    """A one-layer recurrent network with an optional linear readout y = V h + c.

    Build one with :meth:`init` or :meth:`from_parameters`; change it with :meth:`replace`. Arrays are read-only.

    Attributes
    ----------
    cell : Cell
        The recurrence (``cell.name``, ``cell.states``, ``cell.gates``).
    activation : str
        Candidate activation phi: tanh, logistic, relu, identity or softplus.
    W, U, b : ndarray (G, n, n), (G, n, m), (G, n)
        Recurrent, input and bias parameters, gate axis first. For "gru" b has a fourth row: rows 2 and 3 are the
        candidate's bias inside and outside the reset. For "mrnn" b is empty, (0, n).
    W2, U2, b2 : ndarray
        The same for the second product of two-stage cells; None for the others.
    V, c : ndarray (p, n), (p,)
        Readout; None without one (then y = h).
    constants : dict
        Per-unit constants, such as ``{"alpha": (n,)}``.
    dt, tau : float, ndarray (n,)
        Time step and time constants of a continuous-time network, alpha = dt/tau; None for the others.
    """

    cell: Cell
    activation: str
    parameters: Mapping[str, NDArray]
    constants: Mapping[str, NDArray] = field(default_factory=dict)
    dt: float | None = None
    tau: NDArray | None = None

    # -- making ------------------------------------------------------------------------------------------------

    @classmethod
    def init(
        cls,
        cell: str,
        n_inputs: int,
        n_hidden: int,
        n_outputs: int = 0,
        *,
        scheme: str = "orthogonal",
        gain: float | None = None,
        activation: str | None = None,
        forget_bias: float | None = None,
        dt: float | None = None,
        tau: float | NDArray | None = None,
        seed: int | np.random.Generator = 0,
        dtype: str = "float64",
    ) -> Network:
        """Random network.

        Parameters
        ----------
        cell : str
            One of ``rnngrad.CELLS``.
        n_inputs, n_hidden, n_outputs : int
            m, n, p. ``n_outputs=0`` makes no readout (y = h).
        scheme : str
            Recurrent weights: orthogonal, xavier, he, uniform, gaussian (with ``gain``), spectral_radius
            (with ``gain`` as the radius), irnn/identity, np_rnn. Inputs and readout are N(0, 1/fan_in), biases 0.
        forget_bias : float
            Bias of an LSTM's forget gate (default 1, Jozefowicz et al. 2015).
        dt, tau : float, float or (n,)
            Step and time constants of a continuous-time network (default 0.1 and 1); alpha = dt/tau in (0, 1].

        Raises
        ------
        ValueError
            An argument is out of range, or does not apply to the cell.
        """
        spec = find_cell(cell)
        m = _checks.integer("n_inputs", n_inputs, 0)
        n = _checks.integer("n_hidden", n_hidden, 1)
        p = _checks.integer("n_outputs", n_outputs, 0)
        number_type = _checks.float_dtype(dtype)
        rng = np.random.default_rng(seed)
        shapes = spec.shapes(n, m)
        parameters = {}
        for name, shape in shapes.items():
            if name.startswith("W"):
                parameters[name] = initialization.recurrent(scheme, shape[0], n, rng, gain)
            elif name.startswith("U"):
                parameters[name] = initialization.feedforward(shape[0] * n, m, rng).reshape(shape)
            else:
                parameters[name] = np.zeros(shape)
        if forget_bias is not None and spec.name != "lstm":
            raise ValueError(f"forget_bias is {forget_bias}; only an LSTM has a forget gate (cell is {cell!r})")
        if spec.name == "lstm":
            bias = 1.0 if forget_bias is None else _checks.number("forget_bias", forget_bias)
            parameters["b"][spec.gates.index("f")] = bias
        if p:
            parameters |= {"V": initialization.feedforward(p, n, rng), "c": np.zeros(p)}
        parameters = {name: value.astype(number_type) for name, value in parameters.items()}
        return cls.from_parameters(cell, parameters, activation=activation, dt=dt, tau=tau)

    @classmethod
    def from_parameters(
        cls,
        cell: str,
        parameters: Mapping[str, Any],
        *,
        activation: str | None = None,
        dt: float | None = None,
        tau: float | NDArray | None = None,
    ) -> Network:
        """Network from arrays named as in the class (W, U, b, then W2, U2, b2 and V, c where there are any).

        The dtype is that of W. Arrays are copied.
        """
        spec = find_cell(cell)
        activation = _checks.choice("activation", activation or spec.activation, spec.activations)
        if "W" not in parameters:
            raise ValueError(f"parameters lack 'W'; they hold {sorted(parameters)}")
        W = _checks.readable("W", parameters["W"])
        if W.ndim != 3:
            raise ValueError(f"W has shape {W.shape}; it must have shape ({spec.recurrent}, n, n)")
        dtype = W.dtype.newbyteorder("=") if W.dtype.kind == "f" else np.dtype("float64")
        _checks.float_dtype(dtype)
        n = W.shape[1]
        U = _checks.readable("U", parameters["U"]) if "U" in parameters else np.zeros((len(spec.inputs), n, 0), dtype)
        shapes: dict[str, tuple[Any, ...]] = dict(spec.shapes(n, U.shape[-1] if U.ndim == 3 else 0))
        if "V" in parameters or "c" in parameters:
            shapes |= {"V": ("p", n), "c": ("p",)}
        extra, missing = sorted(set(parameters) - set(shapes)), sorted(set(shapes) - set(parameters) - {"U"})
        if extra or missing:
            raise ValueError(
                f"parameters of a {spec.name!r} network must be {list(shapes)}"
                + (f"; missing: {missing}" if missing else "")
                + (f"; not among them: {extra}" if extra else "")
            )
        if n < 1:
            raise ValueError(f"W has shape {W.shape}; n must be at least 1")
        checked = {
            name: _frozen(_checks.array(name, parameters.get(name, U), shape, dtype)) for name, shape in shapes.items()
        }
        if "V" in checked and len(checked["V"]) != len(checked["c"]):
            rows = len(checked["V"])
            raise ValueError(f"c has shape {checked['c'].shape}; it must have shape ({rows},) like the rows of V")
        return cls(spec, activation, checked, *_time_constants(spec, n, dt, tau, dtype))

    def replace(self, **changes: Any) -> Network:
        """A copy with some parameters (or ``activation``) replaced; arrays are checked."""
        activation = changes.pop("activation", self.activation)
        dt, tau = changes.pop("dt", self.dt), changes.pop("tau", self.tau)
        unknown = sorted(set(changes) - set(self.cell.shapes(1, 1)) - set(READOUT))
        if unknown:
            known = [*self.cell.shapes(1, 1), *READOUT, "activation"]
            raise ValueError(f"replace got {unknown}; a {self.cell.name!r} network has {known}")
        for name, value in changes.items():
            if name in self.parameters:
                wanted = self.parameters[name]
                changes[name] = _checks.array(name, value, wanted.shape, wanted.dtype)
        parameters = {**self.parameters, **changes}
        net = Network.from_parameters(self.cell.name, parameters, activation=activation, dt=dt, tau=tau)
        return self._keep_constants(net)

    def astype(self, dtype: str) -> Network:
        """The same network in float64 or float32."""
        to = _checks.float_dtype(dtype)
        net = Network.from_parameters(
            self.cell.name,
            {name: value.astype(to) for name, value in self.parameters.items()},
            activation=self.activation,
            dt=self.dt,
            tau=self.tau,
        )
        return self._keep_constants(net)

    def _keep_constants(self, net: Network) -> Network:
        kept = {name: self.constants[name].astype(net.dtype) for name in net.constants if name != "alpha"}
        return dataclasses.replace(net, constants={**net.constants, **kept}) if kept else net

    def resample(self, dt: float) -> Network:
        """The same continuous-time network sampled with another step: alpha = dt/tau, weights unchanged (note 001)."""
        if "alpha" not in self.constants:
            raise ValueError(f"resample needs a continuous-time network; cell is {self.cell.name!r}")
        return self.replace(dt=dt)

    # -- reading -----------------------------------------------------------------------------------------------

    def __post_init__(self) -> None:
        names = ("W", "U", "b", "W2", "U2", "b2", *READOUT)
        vars(self).update({name: self.parameters.get(name) for name in names}, alpha=self.constants.get("alpha"))

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

    def __repr__(self) -> str:
        sizes = f"n_inputs={self.m}, n_hidden={self.n}, n_outputs={len(self.V) if self.V is not None else 0}"
        return f"Network({self.cell.name!r}, {sizes}, activation={self.activation!r}, dtype={self.dtype.name!r})"

    @cached_property
    def n(self) -> int:
        """Hidden units."""
        return self.W.shape[1]

    @cached_property
    def m(self) -> int:
        """Inputs."""
        return self.U.shape[2]

    @cached_property
    def p(self) -> int:
        """Outputs; n without a readout."""
        return self.n if self.V is None else self.V.shape[0]

    @cached_property
    def S(self) -> int:
        """State vectors per unit."""
        return self.cell.n_states

    @cached_property
    def N(self) -> int:
        """Full state size S n."""
        return self.S * self.n

    @cached_property
    def state_shape(self) -> tuple[int, int]:
        """(S, n), the shape of one sample's state."""
        return self.S, self.n

    @cached_property
    def blocks(self) -> dict[str, slice]:
        """Where each state vector ("h", "c") lies in the full state."""
        return {name: slice(i * self.n, (i + 1) * self.n) for i, name in enumerate(self.cell.states)}

    @cached_property
    def dtype(self) -> np.dtype:
        return self.W.dtype

    @cached_property
    def phi(self) -> int:
        """Number of the activation, as kernels know it."""
        return ACTIVATIONS[self.activation]

    # -- as kernels take it ------------------------------------------------------------------------------------

    @cached_property
    def full_bias(self) -> NDArray:
        """b of every pre-activation (P, n), 0 where it has none."""
        bias = np.zeros((len(self.cell.gates), self.n), self.dtype)
        bias[list(self.cell.biases)] = self.b
        return _frozen(bias)

    @cached_property
    def second_weights(self) -> NDArray:
        """W2, or an empty (0, n, n)."""
        return self.W2 if self.cell.two_stage else _frozen(np.zeros((0, self.n, self.n), self.dtype))

    @cached_property
    def unit_constants(self) -> NDArray:
        """Per-unit constants as (1, 1, K, n); the first two axes are time and batch where a constant varies."""
        values = [self.constants[name] for name in self.cell.constants]
        if not values:
            return _frozen(np.zeros((1, 1, 0, self.n), self.dtype))
        full = [value.reshape((1,) * (3 - value.ndim) + value.shape) for value in values]  # (n,) is (1, 1, n)
        return _frozen(np.stack(np.broadcast_arrays(*full), axis=2))


def find_cell(name: str) -> Cell:
    """The cell of that name."""
    known = CELLS | VARIANTS
    if not isinstance(name, str) or name not in known:
        raise ValueError(f"cell is {name!r}; it must be one of {', '.join(CELLS)}")
    return known[name]


def _frozen(value: NDArray) -> NDArray:
    value = value.copy()
    value.flags.writeable = False
    return value


def _time_constants(
    cell: Cell, n: int, dt: Any, tau: Any, dtype: np.dtype
) -> tuple[dict[str, NDArray], float | None, NDArray | None]:
    """Constants, dt and tau (n,) of a continuous-time network; nothing for the others."""
    if "alpha" not in cell.constants:
        if dt is not None or tau is not None:
            raise ValueError(f"dt and tau belong to continuous-time networks; cell is {cell.name!r}")
        return _neutral(cell, n, dtype), None, None
    step = _checks.number("dt", 0.1 if dt is None else dt, 0.0, open_low=True)
    if tau is None or _checks.readable("tau", tau).ndim == 0:
        taus = np.full(n, _checks.number("tau", 1.0 if tau is None else tau, 0.0, open_low=True))
    else:
        taus = _checks.array("tau", _checks.numbers("tau", tau).astype(np.float64), (n,))
    if (taus <= 0).any() or (taus < step).any():
        i = int(np.argmin(taus))
        raise ValueError(f"alpha = dt/tau is {step:g}/{taus[i]:g} at unit {i}; it must be in (0, 1]")
    alpha = {"alpha": _frozen((step / taus).astype(dtype))}
    return alpha | _neutral(cell, n, dtype), step, _frozen(taus)


def _neutral(cell: Cell, n: int, dtype: np.dtype) -> dict[str, NDArray]:
    """Constants that change nothing: a mask that drops no unit, a scale of 1, a shift of 0."""
    makers = {"mask": np.ones, "scale": np.ones, "shift": np.zeros}
    return {name: _frozen(makers[name](n, dtype)) for name in cell.constants if name != "alpha"}
