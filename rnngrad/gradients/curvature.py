"""Second derivatives of a loss with respect to the parameters, as products with vectors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _checks
from .._memory import empty
from ..dynamics.rollout import Trajectory, input_runs
from ..dynamics.stack import StackTrajectory, reverse
from ..dynamics.system import System
from ..kernels import backend as find_backend
from ..losses import Loss
from ..network import READOUT
from ..registration import check_second_derivatives
from ..stack import DIRECTIONS
from .assemble import evaluate, output_adjoint, readout_gradients, to_inputs
from .flat import flatten_parameters, named_parameters, unflatten_parameters
from .second_order import Adjoint, Linearized, Tangent


def hessian_vector_product(traj: Any, loss: Loss, v: Any) -> Any:
    """H v, H = d^2L/dtheta^2 the Hessian of a loss with respect to all parameters of a network.

    Exact, by the R-operator (Pearlmutter 1994): one tangent pass forward and one adjoint pass back, at about five
    times the cost of a gradient, whatever the number of parameters. The second derivative of relu is 0, at its kink
    too.

    Parameters
    ----------
    traj : Trajectory or StackTrajectory
        Of a network, or of a stack of networks without feedback (both directions are fine).
    loss : Loss
        From :mod:`rnngrad.losses`.
    v : mapping, gradients, or array (P,) or (K, P)
        A direction in the space of the parameters: arrays by name, of the parameters' shapes (those left out are 0); or
        one flat vector in the order of :func:`rnngrad.flatten_parameters`, or K of them.

    Returns
    -------
    dict of ndarray, or ndarray (P,) or (K, P)
        Of the form of v, in the network's dtype.

    Raises
    ------
    ValueError
        v is not of the parameters' shapes; the loss does not fit; the trajectory is not finite; or it is of another
        kind (a system, outputs fed back, encoder and decoder, batch statistics).
    OverflowError
        The product is beyond the dtype.

    Notes
    -----
    For many products along the same trajectory keep a :class:`Curvature`.
    """
    curvature = Curvature(traj, loss)
    return curvature.in_form_of(v, curvature.hessian(curvature.flat(v)))


def gauss_newton_vector_product(traj: Any, loss: Loss, v: Any) -> Any:
    """G v, G = sum_t J_t^T (d^2l/dy_t^2) J_t with J_t = dy_t/dtheta: the Hessian without the curvature of the network.

    The loss's own second derivative is that with respect to the outputs y: softmax and cross-entropy count as one
    convex function, so G is positive semidefinite for every loss here (Schraudolph 2002; Martens & Sutskever 2011).

    Parameters, returns and errors are those of :func:`hessian_vector_product`.
    """
    curvature = Curvature(traj, loss)
    return curvature.in_form_of(v, curvature.gauss_newton(curvature.flat(v)))


class Curvature:
    """Hessian and Gauss-Newton matrix of a loss along one trajectory, for many products.

    Parameters
    ----------
    traj : Trajectory or StackTrajectory
    loss : Loss

    Attributes
    ----------
    size : int
        P, the number of parameters.
    dtype : dtype
    """

    def __init__(self, traj: Any, loss: Loss) -> None:
        rows = _layers(traj)
        self.value = evaluate(traj, loss)
        for row in rows:
            for layer in row:
                check_second_derivatives(layer.net.cell, layer.net.activation)
        self.traj, self.loss, self.net = traj, loss, traj.net
        self.rows = tuple(tuple(map(Linearized, row)) for row in rows)
        self.size, self.dtype = sum(a.size for a in named_parameters(traj.net).values()), traj.net.dtype
        single = isinstance(traj, Trajectory)
        self._endings = tuple(
            tuple("" if single else f"_l{i}{direction}" for direction in DIRECTIONS[: len(row)])
            for i, row in enumerate(rows)
        )

    # -- forms of v --------------------------------------------------------------------------------------------

    def flat(self, v: Any) -> NDArray:
        """v as (K, P)."""
        if hasattr(v, "parameters") or isinstance(v, Mapping):
            return flatten_parameters(self.net, v, "v")[None]
        shape = (self.size,) if np.ndim(v) < 2 else ("K", self.size)
        return np.atleast_2d(_checks.array("v", v, shape, self.dtype))

    def in_form_of(self, v: Any, product: NDArray) -> Any:
        """(K, P) in the form that v came in."""
        if hasattr(v, "parameters") or isinstance(v, Mapping):
            return unflatten_parameters(self.net, product[0])
        return product.reshape(np.shape(v))

    # -- products ----------------------------------------------------------------------------------------------

    def hessian(self, v: NDArray) -> NDArray:
        """H v of each row of v (K, P), as (K, P)."""
        return self._in_pieces(v, second=True)

    def gauss_newton(self, v: NDArray) -> NDArray:
        """G v of each row of v (K, P), as (K, P)."""
        return self._in_pieces(v, second=False)

    def outputs(self, v: NDArray) -> NDArray:
        """dy/dtheta v, the change of the outputs along each row of v (K, P): (K, T, B, p)."""
        return self._forward(unflatten_parameters(self.net, v))[2].swapaxes(0, 1)

    def _in_pieces(self, v: NDArray, second: bool) -> NDArray:
        """So many directions at once that their tangents fit in ``_MEMORY``."""
        one = sum(layer.traj.states.nbytes + 2 * layer.traj.a.nbytes for row in self.rows for layer in row)
        together = max(1, _MEMORY // one)
        parts = [self._product(v[first : first + together], second) for first in range(0, len(v), together)]
        return np.concatenate(parts) if parts else np.zeros_like(v)

    def _product(self, v: NDArray, second: bool) -> NDArray:
        if not v.any():
            return np.zeros_like(v)
        # by powers of two, so that the tangents start at a size near 1
        exponent = np.frexp(np.abs(v).max(axis=1))[1].astype(np.int32)[:, None]
        directions = unflatten_parameters(self.net, np.ldexp(v, -exponent))
        with np.errstate(over="ignore", invalid="ignore"):
            moved, dh, u = self._forward(directions)
            dy = self.loss.curvature(self.traj.y, u.swapaxes(0, 1), self.traj.lengths)  # (K, T, B, p)
            found, gh = self._through_readout(directions, dy, dh if second else None)

            def back(level: int, backward: int, own: NDArray) -> NDArray:
                layer, ending = self.rows[level][backward], self._endings[level][backward]
                if second:
                    way = (
                        self._own(directions, level, backward),
                        moved[level][backward],
                        self._adjoints[level][backward],
                    )
                    grads, dx = layer.differentiate_adjoint(*way, own)
                else:
                    grads, dx = layer.pull_back(own)
                found.update({name + ending: value for name, value in grads.items()})
                return dx

            for level in reversed(range(len(self.rows))):
                gh = self._descend(level, gh, back)
            flat = np.concatenate([found[name].reshape(len(v), -1) for name in named_parameters(self.net)], axis=1)
            product = np.ldexp(flat, exponent)
        if not np.isfinite(product).all():
            raise OverflowError(
                f"the product is beyond {self.dtype.name}: the tangents grow too large over {self.traj.T} steps; "
                "shorten the trajectory or scale the recurrent weights down"
            )
        return product

    # -- through the layers ------------------------------------------------------------------------------------

    def _own(self, directions: dict[str, NDArray], level: int, backward: int) -> dict[str, NDArray]:
        """The parameters of one direction of one layer, by their own names."""
        ending = self._endings[level][backward]
        return {
            name: directions[name + ending] for name in self.rows[level][backward].net.parameters if name not in READOUT
        }

    def _reversed(self, values: NDArray, backward: int) -> NDArray:
        """(T, R, …) in the order of time of a direction, or from it."""
        return reverse(values, np.tile(self.traj.lengths, values.shape[1] // self.traj.B)) if backward else values

    def _forward(self, directions: dict[str, NDArray]) -> tuple[list[list[Tangent]], NDArray, NDArray]:
        """Tangents of every layer, R{h} (T, K, B, n) of the top one, and R{y} (T, K, B, p)."""
        moved: list[list[Tangent]] = []
        dx: NDArray | None = None
        for level, row in enumerate(self.rows):
            parts = []
            for backward, layer in enumerate(row):
                given = None if dx is None else self._reversed(dx, backward)
                parts.append(layer.tangent(self._own(directions, level, backward), given))
            moved.append(parts)
            dx = np.concatenate([self._reversed(part.h, backward) for backward, part in enumerate(parts)], axis=-1)
        assert dx is not None
        T, B, K = self.traj.T, self.traj.B, dx.shape[1] // self.traj.B
        dh = dx.reshape(T, K, B, self.net.n)
        if self.net.V is None:
            return moved, dh, dh
        dy, affine = empty((T, K, B, self.net.p), self.dtype), find_backend(self.traj.backend).affine
        part, still = empty((T * B, 1, self.net.p), self.dtype), np.zeros((1, self.net.p), self.dtype)
        h = np.ascontiguousarray(self.traj.h).reshape(T * B, -1)
        for k in range(K):
            affine(part, np.ascontiguousarray(dh[:, k]).reshape(T * B, -1), self.net.V[None], still, _READOUT_RUNS)
            dy[:, k] = part.reshape(T, B, -1)
            affine(part, h, directions["V"][k : k + 1], directions["c"][k : k + 1], _READOUT_RUNS)
            dy[:, k] += part.reshape(T, B, -1)
        return moved, dh, dy

    def _through_readout(
        self, directions: dict[str, NDArray], dy: NDArray, dh: NDArray | None
    ) -> tuple[dict[str, NDArray], NDArray]:
        """Gradients of V and c (K, *shape), and what h is charged with (T, R, n), for charges dy (K, T, B, p).

        With dh = R{h} (T, K, B, n): also what comes of the readout's own change and of R{h}.
        """
        traj, found, charges = self.traj, [], []
        for k in range(len(dy)):
            own = readout_gradients(traj, np.ascontiguousarray(dy[k]))
            charge = output_adjoint(traj, np.ascontiguousarray(dy[k]))
            if dh is not None and self.net.V is not None:
                own["V"] = own["V"] + readout_gradients(traj, self.value.dy, dh[:, k])["V"]
                charge = charge + output_adjoint(traj, self.value.dy, directions["V"][k])
            found.append(own)
            charges.append(charge)
        return {name: np.stack([own[name] for own in found]) for name in found[0]}, np.concatenate(charges, axis=1)

    def _descend(self, level: int, gh: NDArray, back: Callable[[int, int, NDArray], NDArray]) -> NDArray:
        """Charges gh (T, R, n) to the outputs of a layer through ``back(level, backward, own)``: to its inputs."""
        received, start = [], 0
        for backward, layer in enumerate(self.rows[level]):
            own = np.ascontiguousarray(gh[..., start : start + layer.net.n])
            start += layer.net.n
            received.append(self._reversed(back(level, backward, self._reversed(own, backward)), backward))
        return sum(received[1:], received[0])

    @cached_property
    def _adjoints(self) -> list[list[Adjoint]]:
        """Of every layer, at the trajectory itself."""
        out: list[list[Adjoint]] = [[] for _ in self.rows]

        def back(level: int, backward: int, own: NDArray) -> NDArray:
            layer = self.rows[level][backward]
            out[level].append(layer.adjoint(own))
            return to_inputs(layer.traj, out[level][-1].da, out[level][-1].da2, layer.net.parameters)

        gh = output_adjoint(self.traj, self.value.dy)
        for level in reversed(range(len(self.rows))):
            gh = self._descend(level, gh, back)
        return out


_READOUT_RUNS = input_runs((0,))
_MEMORY = 2**24  # bytes of one array of tangents; there are about ten of them


def _layers(traj: Any) -> tuple[tuple[Trajectory, ...], ...]:
    """Layers of what has second derivatives here, or an error that names what has."""
    rows: tuple[tuple[Any, ...], ...] = ()
    if isinstance(traj, Trajectory):
        rows = ((traj,),)
    elif isinstance(traj, StackTrajectory) and not traj.net.feedback:
        rows = traj.layers
    if not rows or any(isinstance(layer.net, System) for row in rows for layer in row):
        feedback = " with feedback" if getattr(getattr(traj, "net", None), "feedback", False) else ""
        what = " of a System" if rows else feedback
        raise ValueError(
            f"traj is a {type(traj).__name__}{what}; second derivatives are there for a Network and for a Stack of "
            "networks without feedback (a batch-normalised network: fold it first, net.folded())"
        )
    return rows
