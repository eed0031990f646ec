"""The chain Phi(t, k) = ds_t/ds_k = J_t J_{t-1} … J_{k+1}."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _checks
from .._memory import empty
from .graded import graded_products
from .jacobian import local_jacobians
from .rollout import Trajectory
from .scaled import Norm, ScaledMatrices, scaled

_ROWS_AT_ONCE = 32  # rows t of the heat map between two words about progress
_STEPS_AT_ONCE = 16  # products held at once where there is no kernel that forgets them


class JacobianChain:
    """Products of local Jacobians along a trajectory; factored, nothing dense until asked.

    Steps are numbered as the states: 0 <= k <= t <= T, and Phi(t, t) = I. Past a sequence's own length its Jacobians
    are identities.

    Notes
    -----
    Two routes, neither of which over- or underflows at any length:

    - ``product``, ``log_norm`` and what is made of them multiply out, with a power of two for each row (or column). The
      error is N eps for each step relative to the norm, times ||Phi(t, j)|| ||Phi(j, k)|| / ||Phi(t, k)|| where what
      came before and after step j cancels. Singular values below about N eps of the largest are lost.
    - ``log_singular_values`` keeps triangular factors, with a QR every few steps: every value to its own relative
      accuracy, however far it is below the largest, at ten times the cost and more.
    """

    _place: Callable[[Any], Any] = staticmethod(np.ascontiguousarray)  # brings an array to where the Jacobians lie

    def __init__(self, traj: Trajectory, jacobians: Any = None) -> None:
        if jacobians is None and getattr(traj, "coupled", False):
            raise ValueError(
                "traj is of a batch-normalised network in training mode, whose samples are no systems of their own; "
                "jacobian_chain(traj) gives the chain of the whole batch"
            )
        self.trajectory = traj
        self.jacobians = local_jacobians(traj) if jacobians is None else jacobians
        self.T, self.B = traj.T, traj.B
        self.N = traj.net.N
        self._row = traj.net.state_shape
        self._blocks = traj.net.blocks

    # -- products ----------------------------------------------------------------------------------------------

    def product(self, t: int, k: int, *, block: tuple[str, str] | None = None) -> NDArray:
        """Phi(t, k) as (B, N, N), or its (row, column) block such as ("c", "h").

        Raises
        ------
        ValueError
            Not 0 <= k <= t <= T, or no such block.
        OverflowError
            An entry is beyond the dtype.
        """
        t, k = _checks.pair(t, k, self.T)
        return self._block(self._last(t, k), block).dense()

    def all_from(self, k: int) -> NDArray:
        """Phi(t, k) for t = k … T, as (T-k+1, B, N, N): how a change at step k spreads."""
        _, k = _checks.pair(self.T, k, self.T)
        return self._scaled_from(k).dense()

    def all_to(self, t: int) -> NDArray:
        """Phi(t, k) for k = 0 … t, as (t+1, B, N, N) in the order of k: on what step t depends."""
        t, _ = _checks.pair(t, 0, self.T)
        return self._scaled_to(t).dense()

    def vjp(self, u: Any, t: int, k: int) -> NDArray:
        """u Phi(t, k) for u (B, S, n) at step t: the adjoint at step k."""
        t, k = _checks.pair(t, k, self.T)
        u = _checks.array("u", u, (self.B, *self._row), self.trajectory.net.dtype)
        y, e = self._walk(self.jacobians.adjoint, *scaled(u), t, t - k, -1)
        return ScaledMatrices(y.reshape(self.B, 1, self.N), e[:, None], -2).dense().reshape(u.shape)

    def jvp(self, v: Any, t: int, k: int) -> NDArray:
        """Phi(t, k) v for v (B, S, n) at step k: the tangent at step t."""
        t, k = _checks.pair(t, k, self.T)
        v = _checks.array("v", v, (self.B, *self._row), self.trajectory.net.dtype)
        y, e = self._walk(self.jacobians.tangent, *scaled(v), k, t - k, 1)
        return ScaledMatrices(y.reshape(self.B, 1, self.N), e[:, None], -2).dense().reshape(v.shape)

    # -- logarithms --------------------------------------------------------------------------------------------

    def log_norm(self, t: int, k: int, ord: Norm = 2, *, block: tuple[str, str] | None = None) -> NDArray[np.float64]:
        """Natural logarithm of ||Phi(t, k)|| (or of a block) per sample, (B,); -inf for a zero matrix."""
        t, k = _checks.pair(t, k, self.T)
        _checks.choice("ord", ord, (2, "fro"))
        return self._block(self._last(t, k), block).log_norm(ord)

    def log_norms_to(self, t: int, ord: Norm = 2, *, block: tuple[str, str] | None = None) -> NDArray[np.float64]:
        """log||Phi(t, k)|| for k = 0 … t, as (B, t+1)."""
        t, _ = _checks.pair(t, 0, self.T)
        return self.log_norms_at([t], ord, block=block)[:, 0, : t + 1]

    def log_norms_at(
        self, times: Sequence[int] | NDArray, ord: Norm = 2, *, block: tuple[str, str] | None = None
    ) -> NDArray[np.float64]:
        """log||Phi(t, k)|| for R times t and every k, as (B, R, T+1); NaN where k > t."""
        at = np.array([_checks.pair(t, 0, self.T)[0] for t in times], np.int64)
        return self._norms(at, ord, block).swapaxes(0, 1)

    def log_norms(
        self,
        ord: Norm = 2,
        *,
        block: tuple[str, str] | None = None,
        progress: Callable[[float], Any] | None = None,
    ) -> NDArray[np.float64]:
        """log||Phi(t, k)|| for every pair, as (B, T+1, T+1) indexed [b, t, k]; NaN where k > t.

        T^2/2 products of N x N matrices, one row t after the other, none of them kept: beyond the result, memory is
        that of a few matrices. The 2-norm costs about as much again, by Lanczos steps on Phi Phi^T; ``ord="fro"`` is
        within a factor sqrt(N) of it. ``progress`` is called with the share that is done.
        """
        out = np.full((self.B, self.T + 1, self.T + 1), np.nan)
        pairs, total = 0, (self.T + 1) * (self.T + 2) / 2
        for last in range(self.T, -1, -_ROWS_AT_ONCE):
            times = np.arange(last, max(last - _ROWS_AT_ONCE, -1), -1)  # long rows first: threads end together
            out[:, times] = self._norms(times, ord, block).swapaxes(0, 1)
            pairs += int((times + 1).sum())
            if progress is not None:
                progress(pairs / total)
        return out

    def log_singular_values(self, t: int, k: int) -> NDArray[np.float64]:
        """Natural logarithms of all singular values of Phi(t, k), descending, (B, N); -inf for a zero one.

        The product is carried in triangular form with a QR every few steps, so values far beyond the range of floats,
        and far below eps times the largest, are right: to about eps times the condition of a few Jacobians for each
        step. That takes directions which keep their order: of a chain that undoes what it did, J and then J^-1, the
        values hang on the last bits of the Jacobians.

        It costs 6 to 15 times ``log_norm`` for a chaotic tanh network of 128 to 16 units, and up to 60 times
        where every step stretches so much that it needs a QR of its own.

        Raises
        ------
        ValueError
            Not 0 <= k <= t <= T.
        OverflowError
            A Jacobian is not finite.

        Warns
        -----
        PrecisionWarning
            A Jacobian that is not singular shrank a direction below what rounding resolves: -inf stands for a value
            that is only very small.
        """
        t, k = _checks.pair(t, k, self.T)
        (product,) = graded_products(self.jacobians, self.B, self.trajectory.net, t, [t - k], self._place)
        return product.log_singular_values(self.jacobians.backend)

    # -- how ---------------------------------------------------------------------------------------------------

    def _room(self, steps: int) -> tuple[NDArray, NDArray]:
        """Rows (or columns) of N x N matrices at so many steps, (steps, B N, S, n), and their exponents."""
        rows = self.B * self.N
        return empty((steps, rows, *self._row), self.trajectory.net.dtype), empty((steps, rows), np.int64)

    def _begin(self, rows: NDArray, exponents: NDArray) -> tuple[NDArray, NDArray]:
        """Make them the identity of every sample."""
        rows.reshape(self.B, self.N, self.N)[:] = np.eye(self.N, dtype=rows.dtype)
        exponents[:] = 0
        return rows, exponents

    def _identity(self) -> tuple[NDArray, NDArray]:
        rows, exponents = self._room(1)
        return self._begin(rows[0], exponents[0])

    def _samples(self, rows: int) -> NDArray[np.int64]:
        return np.repeat(np.arange(self.B), rows // self.B)

    def _walk(self, step: Any, y: NDArray, e: NDArray, at: int, count: int, sign: int) -> tuple[NDArray, NDArray]:
        """The last of ``count`` steps, in pieces so that only a few intermediate results are kept."""
        sample = self._samples(len(y))
        while count > 0:
            piece = min(count, 16)
            out, exponents = step(y, e, sample, at, piece)
            last = 0 if sign < 0 else -1  # results are in the order of time
            y, e = out[last], exponents[last]
            at, count = at + sign * piece, count - piece
        return y, e

    def _last(self, t: int, k: int) -> ScaledMatrices:
        y, e = self._walk(self.jacobians.adjoint, *self._identity(), t, t - k, -1)
        return ScaledMatrices(y.reshape(self.B, self.N, self.N), e.reshape(self.B, self.N), -2)

    def _scaled_to(self, t: int) -> ScaledMatrices:
        shape = (t + 1, self.B, self.N)
        out, exponents = self._room(t + 1)
        rows, none = self._begin(out[t], exponents[t])
        if t:
            self.jacobians.adjoint(rows, none, self._samples(len(rows)), t, t, out=(out[:t], exponents[:t]))
        return ScaledMatrices(out.reshape(*shape, self.N), exponents.reshape(shape), -2)

    def _scaled_from(self, k: int) -> ScaledMatrices:
        steps = self.T - k
        shape = (steps + 1, self.B, self.N)
        out, exponents = self._room(steps + 1)
        columns, none = self._begin(out[0], exponents[0])
        if steps:
            results = out[1:], exponents[1:]
            self.jacobians.tangent(columns, none, self._samples(len(columns)), k, steps, out=results)
        return ScaledMatrices(out.reshape(*shape, self.N).swapaxes(-1, -2), exponents.reshape(shape), -1)

    def _norms(self, times: NDArray, ord: Norm, block: tuple[str, str] | None) -> NDArray[np.float64]:
        """log||Phi(t, k)|| for the given t and all k, (times, B, T+1)."""
        _checks.choice("ord", ord, (2, "fro"))
        out = np.empty((len(times), self.B, self.T + 1))
        rows, columns = self._slices(block)
        eye = np.eye(self.N, dtype=self.trajectory.net.dtype)[rows]
        if hasattr(self.jacobians, "norms"):
            span = range(self.N)[columns]
            self.jacobians.norms(out, times, eye.reshape(-1, *self._row), (span.start, span.stop), ord == 2)
        else:
            out[:] = np.nan
        whole = np.arange(self.T + 1) <= times[:, None]
        for i in np.flatnonzero((np.isnan(out) & whole[:, None]).any(axis=(1, 2))):  # by singular values, one by one
            self._norms_one_by_one(out[i], int(times[i]), ord, block)
        return out

    def _norms_one_by_one(self, out: NDArray, t: int, ord: Norm, block: tuple[str, str] | None) -> None:
        """out[b, k] = log||Phi(t, k)|| for k = 0 … t, a few steps at a time."""
        rows, exponent = self._identity()
        sample = self._samples(len(rows))
        shape = (self.B, self.N)
        out[:, t] = self._block(ScaledMatrices(rows.reshape(*shape, -1), exponent.reshape(shape), -2), block).log_norm(
            ord
        )
        while t:
            steps = min(t, _STEPS_AT_ONCE)
            results, exponents = self.jacobians.adjoint(rows, exponent, sample, t, steps)
            matrices = ScaledMatrices(results.reshape(steps, *shape, -1), exponents.reshape(steps, *shape), -2)
            out[:, t - steps : t] = self._block(matrices, block).log_norm(ord).T
            rows, exponent, t = results[0], exponents[0], t - steps

    def _slices(self, block: tuple[str, str] | None) -> tuple[slice, slice]:
        """Rows and columns of a block such as ("c", "h"); all of them for None."""
        if block is None:
            return slice(0, self.N), slice(0, self.N)
        if not isinstance(block, tuple) or len(block) != 2 or any(name not in self._blocks for name in block):
            raise ValueError(f"block is {block!r}; it must be a pair (row, column) of the states {tuple(self._blocks)}")
        return self._blocks[block[0]], self._blocks[block[1]]

    def _block(self, matrices: ScaledMatrices, block: tuple[str, str] | None) -> ScaledMatrices:
        if block is None:
            return matrices
        rows, columns = self._slices(block)
        kept = rows if matrices.axis == -2 else columns
        return ScaledMatrices(matrices.mantissa[..., rows, columns], matrices.exponent[..., kept], matrices.axis)


@functools.singledispatch
def jacobian_chain(traj: Any) -> Any:
    """The chain of a trajectory."""
    return JacobianChain(traj)


@functools.singledispatch
def sample_chain(traj: Any) -> JacobianChain:
    """The chain of each sample by itself, also of a batch that has one as a whole."""
    return JacobianChain(traj)
