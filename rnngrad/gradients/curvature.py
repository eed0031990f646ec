"""Second derivatives of a loss with respect to the parameters, as products with vectors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _cuda
from .._arrays import concatenated, contiguous, empty_beside, on_host, placed_beside
from ..device_input import taken
from ..dynamics.device import DeviceTrajectory
from ..dynamics.placed import add, all_finite, finished, take_rows
from ..dynamics.rollout import Trajectory, input_runs
from ..dynamics.scaled import scaled, unscaled
from ..dynamics.stack import StackTrajectory, reverse
from ..dynamics.system import System
from ..kernels import backend as find_backend
from ..losses import Loss
from ..network import READOUT
from ..registration import check_second_derivatives
from ..stack import DIRECTIONS
from .assemble import evaluate, output_adjoint, readout_gradients, to_inputs
from .flat import checked, flattened, named_parameters, unflatten_parameters
from .second_order import Adjoint, Linearized, Tangent, add_to_direction, of_direction


def hessian_vector_product(traj: Any, loss: Loss, v: Any) -> Any:
    """H v, H = d^2L/dtheta^2 the Hessian of a loss with respect to all parameters of a network.

    Exact, by the R-operator (Pearlmutter 1994): one tangent pass forward and one adjoint pass back, at about five
    times the cost of a gradient, whatever the number of parameters. The second derivative of relu is 0, at its kink
    too.

    Parameters
    ----------
    traj : Trajectory, DeviceTrajectory or StackTrajectory
        Of a network, or of a stack of networks without feedback (both directions are fine).
    loss : Loss
        From :mod:`rnngrad.losses`.
    v : mapping, gradients, or array (P,) or (K, P)
        A direction in the space of the parameters: arrays by name, of the parameters' shapes (those left out are 0); or
        one flat vector in the order of :func:`rnngrad.flatten_parameters`, or K of them. On the GPU if the trajectory
        is there.

    Returns
    -------
    dict of ndarray, or ndarray (P,) or (K, P)
        Of the form of v, in the network's dtype. Of a DeviceTrajectory device arrays; the loss, and whether a number
        is not finite, come to the host.

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
    return curvature.in_form_of(v, curvature.hessian(v))


def gauss_newton_vector_product(traj: Any, loss: Loss, v: Any) -> Any:
    """G v, G = sum_t J_t^T (d^2l/dy_t^2) J_t with J_t = dy_t/dtheta: the Hessian without the curvature of the network.

    The loss's own second derivative is that with respect to the outputs y: softmax and cross-entropy count as one
    convex function, so G is positive semidefinite for every loss here (Schraudolph 2002; Martens & Sutskever 2011).

    Parameters, returns and errors are those of :func:`hessian_vector_product`.
    """
    curvature = Curvature(traj, loss)
    return curvature.in_form_of(v, curvature.gauss_newton(v))


class Curvature:
    """Hessian and Gauss-Newton matrix of a loss along one trajectory, for many products.

    Parameters
    ----------
    traj : Trajectory, DeviceTrajectory or StackTrajectory
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
        single = isinstance(traj, _OF_ONE)
        self._endings = tuple(
            tuple("" if single else f"_l{i}{direction}" for direction in DIRECTIONS[: len(row)])
            for i, row in enumerate(rows)
        )

    # -- forms of v --------------------------------------------------------------------------------------------

    def flat(self, v: Any) -> Any:
        """v as (K, P), where the trajectory lies."""
        if hasattr(v, "parameters") or isinstance(v, Mapping):
            return flattened(self.net, v, "v", self._beside).reshape(1, self.size)
        v = taken("v", v) if _cuda.is_device_array(v) else v
        shape = (self.size,) if np.ndim(v) < 2 else ("K", self.size)
        found = checked("v", v, shape, self.dtype, self._beside)
        return found.reshape(1, self.size) if found.ndim < 2 else found

    def in_form_of(self, v: Any, product: Any) -> Any:
        """(K, P) in the form that v came in."""
        if hasattr(v, "parameters") or isinstance(v, Mapping):
            return {name: finished(value) for name, value in unflatten_parameters(self.net, product[0]).items()}
        return product.reshape(taken("v", v).shape if _cuda.is_device_array(v) else np.shape(v))

    @property
    def _beside(self) -> Any:
        """An array that lies where all others do; of a stack on the host."""
        return getattr(self.traj, "x", None)

    # -- products ----------------------------------------------------------------------------------------------

    def hessian(self, v: Any) -> Any:
        """H v of each row of v (K, P), as (K, P)."""
        return self._in_pieces(self.flat(v), second=True)

    def gauss_newton(self, v: Any) -> Any:
        """G v of each row of v (K, P), as (K, P)."""
        return self._in_pieces(self.flat(v), second=False)

    def of_host(self, rows: NDArray, *, second: bool) -> NDArray:
        """H v, or G v, of rows of v (K, P) on the host, wherever the trajectory lies: what solvers on the host need."""
        return on_host(self._in_pieces(placed_beside(self._beside, rows), second))

    def outputs(self, v: Any) -> Any:
        """dy/dtheta v, the change of the outputs along each row of v (K, P): (K, T, B, p)."""
        u = self._forward(unflatten_parameters(self.net, self.flat(v)))[2]  # (T, R, p)
        T, B, p = self.traj.T, self.traj.B, self.net.p
        K = u.shape[1] // B
        order = np.arange(T * K).reshape(T, K).T.ravel()
        return finished(take_rows(u.reshape(T * K, B, p), order).reshape(K, T, B, p))

    def _in_pieces(self, v: Any, second: bool) -> Any:
        """So many directions at once that their tangents fit in ``_MEMORY``."""
        one = sum(layer.traj.states.nbytes + 2 * layer.traj.a.nbytes for row in self.rows for layer in row)
        together, K = max(1, _MEMORY // one), v.shape[0]
        parts = [self._product(v[first : first + together], second) for first in range(0, K, together)]
        return finished(concatenated(parts)) if parts else np.zeros_like(v)

    def _product(self, v: Any, second: bool) -> Any:
        mantissas, exponent = scaled(v)  # so that the tangents start at a size near 1
        directions = unflatten_parameters(self.net, mantissas)
        with np.errstate(over="ignore", invalid="ignore"):
            moved, dh, u = self._forward(directions)
            dy = self.loss.curvature(self.traj.y, u, self.traj.lengths, self.traj.backend)  # (T, R, p)
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
                for column, more in zip(found, grads, strict=True):
                    column.update({name + ending: value for name, value in more.items()})
                return dx

            for level in reversed(range(len(self.rows))):
                gh = self._descend(level, gh, back)
            product = unscaled(concatenated([self._joined(column) for column in found]), exponent)
        if not all_finite(product):
            raise OverflowError(
                f"the product is beyond {self.dtype.name}: the tangents grow too large over {self.traj.T} steps; "
                "shorten the trajectory or scale the recurrent weights down"
            )
        return product

    def _joined(self, column: dict[str, NDArray]) -> NDArray:
        """Arrays of the parameters' shapes as one row (1, P)."""
        parts = [column[name].reshape(own.size) for name, own in named_parameters(self.net).items() if own.size]
        return concatenated(parts).reshape(1, self.size)

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
        """Tangents of every layer, R{h} (T, R, n) of the top one, and R{y} (T, R, p)."""
        moved: list[list[Tangent]] = []
        dx: NDArray | None = None
        for level, row in enumerate(self.rows):
            parts = []
            for backward, layer in enumerate(row):
                given = None if dx is None else self._reversed(dx, backward)
                parts.append(layer.tangent(self._own(directions, level, backward), given))
            moved.append(parts)
            dx = _side_by_side([self._reversed(part.h, backward) for backward, part in enumerate(parts)])
        assert dx is not None
        T, B, R = self.traj.T, self.traj.B, dx.shape[1]
        K = R // B
        if self.net.V is None:
            return moved, dx, dx
        n, p, affine = self.net.n, self.net.p, find_backend(self.traj.backend).affine
        dy, part = empty_beside(dx, (T, R, p), self.dtype), empty_beside(dx, (T * B, 1, p), self.dtype)
        still, h = np.zeros((1, p), self.dtype), contiguous(self.traj.h).reshape(T * B, n)
        affine(dy.reshape(T * R, 1, p), dx.reshape(T * R, n), self.net.V[None], still, _READOUT_RUNS)
        for k in range(K):
            V, c = (contiguous(directions[name][k : k + 1]) for name in ("V", "c"))
            affine(part, h, V, c, _READOUT_RUNS)
            add_to_direction(dy, k, K, part.reshape(T, B, p))
        return moved, dx, dy

    def _through_readout(
        self, directions: dict[str, NDArray], dy: NDArray, dh: NDArray | None
    ) -> tuple[list[dict[str, NDArray]], NDArray]:
        """Gradients of V and c of every direction, and what h is charged with (T, R, n), for charges dy (T, R, p).

        With dh = R{h} (T, R, n): also what comes of the readout's own change and of R{h}.
        """
        traj, found, K = self.traj, [], dy.shape[1] // self.traj.B
        gh = output_adjoint(traj, dy)
        for k in range(K):
            own = readout_gradients(traj, of_direction(dy, k, K))
            if dh is not None and self.net.V is not None:
                add(own["V"], readout_gradients(traj, self.value.dy, of_direction(dh, k, K))["V"])
                add_to_direction(gh, k, K, output_adjoint(traj, self.value.dy, contiguous(directions["V"][k])))
            found.append(own)
        return found, gh

    def _descend(self, level: int, gh: NDArray, back: Callable[[int, int, NDArray], NDArray]) -> NDArray:
        """Charges gh (T, R, n) to the outputs of a layer through ``back(level, backward, own)``: to its inputs."""
        received, start = [], 0
        for backward, layer in enumerate(self.rows[level]):
            own = gh if layer.net.n == gh.shape[2] else np.ascontiguousarray(gh[..., start : start + layer.net.n])
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


def _side_by_side(parts: list[NDArray]) -> NDArray:
    """Outputs of the directions of a layer."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)


_OF_ONE = (Trajectory, DeviceTrajectory)
_READOUT_RUNS = input_runs((0,))
_MEMORY = 2**24  # bytes of one array of tangents; there are about ten of them


def _layers(traj: Any) -> tuple[tuple[Any, ...], ...]:
    """Layers of what has second derivatives here, or an error that names what has."""
    rows: tuple[tuple[Any, ...], ...] = ()
    if isinstance(traj, _OF_ONE):
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
