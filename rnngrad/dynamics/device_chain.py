"""The chain of a trajectory that lies on the GPU: products and norms are made there and stay there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import _checks, _cuda
from .._arrays import copied
from ..device_input import device_array
from ..errors import ConvergenceError
from ..kernels import backend as find_backend
from .chain import JacobianChain, jacobian_chain, sample_chain
from .device import DeviceTrajectory
from .scaled import Norm

_Block = tuple[str, str] | None


class DeviceJacobianChain(JacobianChain):
    """Products of the Jacobians of a :class:`rnngrad.DeviceTrajectory`: the methods of :class:`rnngrad.JacobianChain`.

    Products, log-norms, singular values, ``vjp`` and ``jvp`` are device arrays, with ``__cuda_array_interface__``; u
    and v are given on the GPU. What comes to the host is whether a number is out of range, and of singular values how
    far each sample was stretched between two QRs; and the Jacobian of a step that lost a direction, once.
    """

    _place = staticmethod(_cuda.upload)

    def product(self, t: int, k: int, *, block: _Block = None) -> Any:
        """Phi(t, k), or a block of it, as a device array (B, rows, columns); see :class:`rnngrad.JacobianChain`."""
        t, k = _checks.pair(t, k, self.T)
        rows, columns = self._slices(block)
        y = self._unit_rows(rows)
        R = y.shape[0]
        y, exponent = self._walk(self.jacobians.adjoint, y, _zeros(R), t, t - k, -1)
        out = _folded(copied(y).reshape(R, self.N), copied(exponent)).reshape(self.B, R // self.B, self.N)
        if columns != slice(0, self.N):
            out = find_backend("cuda").contiguous(out[:, :, columns])
        return _done(out)

    def all_from(self, k: int) -> Any:
        """Phi(t, k) for t = k … T, a device array (T-k+1, B, N, N)."""
        _, k = _checks.pair(self.T, k, self.T)
        out = self._stacked(self.jacobians.tangent, k, self.T - k, first=0)
        shape = (self.T - k + 1, self.B, self.N, self.N)
        return _done(find_backend("cuda").swapped(out.reshape(shape[0] * self.B, self.N, self.N)).reshape(shape))

    def all_to(self, t: int) -> Any:
        """Phi(t, k) for k = 0 … t, a device array (t+1, B, N, N)."""
        t, _ = _checks.pair(t, 0, self.T)
        return _done(self._stacked(self.jacobians.adjoint, t, t, first=t).reshape(t + 1, self.B, self.N, self.N))

    def vjp(self, u: Any, t: int, k: int) -> Any:
        """u Phi(t, k) for a device array u (B, S, n)."""
        t, k = _checks.pair(t, k, self.T)
        return self._carried(self.jacobians.adjoint, "u", u, t, t - k, -1)

    def jvp(self, v: Any, t: int, k: int) -> Any:
        """Phi(t, k) v for a device array v (B, S, n)."""
        t, k = _checks.pair(t, k, self.T)
        return self._carried(self.jacobians.tangent, "v", v, k, t - k, 1)

    def log_norm(self, t: int, k: int, ord: Norm = 2, *, block: _Block = None) -> Any:
        """ln ||Phi(t, k)|| per sample, a device array (B,) of float64."""
        t, k = _checks.pair(t, k, self.T)
        first = min(k, self.T - 1)
        part = self.jacobians.between(first, max(t, first + 1))
        out = self._device_norms(part, [t - k], t - k, ord, block)
        return _done(find_backend("cuda").contiguous(out[:, :, :1]).reshape(self.B))

    def log_norms_to(self, t: int, ord: Norm = 2, *, block: _Block = None) -> Any:
        """ln ||Phi(t, k)|| for k = 0 … t, a device array (B, t+1) of float64."""
        t, _ = _checks.pair(t, 0, self.T)
        return _done(self._device_norms(self.jacobians, [t], t, ord, block).reshape(self.B, t + 1))

    def log_norms_at(self, times: Any, ord: Norm = 2, *, block: _Block = None) -> Any:
        """ln ||Phi(t, k)|| for R times t and every k, a device array (B, R, T+1) of float64; NaN where k > t."""
        at = [_checks.pair(t, 0, self.T)[0] for t in times]
        return _done(find_backend("cuda").swapped(self._device_norms(self.jacobians, at, self.T, ord, block), False))

    def log_norms(self, ord: Norm = 2, *, block: _Block = None, progress: Callable[[float], Any] | None = None) -> Any:
        """ln ||Phi(t, k)|| for every pair, a device array (B, T+1, T+1) of float64; NaN where k > t.

        Raises
        ------
        ConvergenceError
            A largest singular value was not found; ``ord="fro"`` does not need them.
        """
        out = self.log_norms_at(range(self.T + 1), ord, block=block)
        if progress is not None:
            progress(1.0)
        return out

    # -- how ---------------------------------------------------------------------------------------------------

    def _unit_rows(self, rows: slice) -> Any:
        S, n = self._row
        return find_backend("cuda").unit_rows(
            self.B, rows.start, rows.stop - rows.start, S, n, self.trajectory.net.dtype
        )

    def _stacked(self, step: Any, at: int, steps: int, first: int) -> Any:
        """All rows of a walk from the identity at ``at``, which takes the place ``first``: (steps+1) B N rows."""
        rows = self._unit_rows(slice(0, self.N))
        R = rows.shape[0]
        out = _cuda.empty((steps + 1, *rows.shape), rows.dtype)
        exponents = _cuda.empty((steps + 1, R), np.int64)
        out[first].copy_to_device(rows)
        exponents[first].copy_to_device(_zeros(R))
        if steps:
            walked = slice(0, steps) if first else slice(1, steps + 1)
            step(rows, _zeros(R), self._samples(R), at, steps, out=(out[walked], exponents[walked]))
        return _folded(out.reshape((steps + 1) * R, self.N), exponents.reshape((steps + 1) * R))

    def _carried(self, step: Any, name: str, given: Any, at: int, count: int, sign: int) -> Any:
        if not _cuda.is_device_array(given):
            raise ValueError(f"{name} is a {type(given).__name__} on the host; it must lie on the GPU as traj does")
        shape = (self.B, *self._row)
        given = device_array(name, given, shape, self.trajectory.net.dtype)
        rows, exponent = _cuda.empty(shape, given.dtype), _zeros(self.B)
        rows.copy_to_device(given)
        find_backend("cuda").normalize(rows, exponent)  # one product cannot overflow it then
        y, e = self._walk(step, rows, exponent, at, count, sign)
        return _done(_folded(copied(y).reshape(self.B, self.N), copied(e)).reshape(shape))

    def _device_norms(self, jacobians: Any, times: list[int], last: int, ord: Norm, block: _Block) -> Any:
        """ln ||Phi(t, k)|| for the given t and k = 0 … last, (times, B, last+1)."""
        _checks.choice("ord", ord, (2, "fro"))
        rows, columns = self._slices(block)
        eye = np.eye(self.N, dtype=self.trajectory.net.dtype)[rows].reshape(-1, *self._row)
        out, at = _cuda.empty((len(times), self.B, last + 1), np.float64), np.array(times)
        jacobians.norms(out, at, eye, (columns.start, columns.stop), ord == 2)
        if find_backend("cuda").unsettled(out, at):
            raise ConvergenceError(
                "the largest singular value of a product was not found by Lanczos steps; ask for ord='fro', or for the "
                "norms of traj.to_host(), which finds it by another way"
            )
        return out


def _zeros(count: int) -> Any:
    return _cuda.upload(np.zeros(count, np.int64))


def _folded(rows: Any, exponent: Any) -> Any:
    """rows (R, N) times 2^exponent (R,), in place."""
    if find_backend("cuda").fold(rows, exponent):
        exponents = np.empty(exponent.shape, np.int64)
        _cuda.download(exponent, exponents)
        raise OverflowError(
            f"the product has entries above 2^{int(exponents.max()) - 1}, beyond {np.dtype(rows.dtype).name}; use "
            "log_norm"
        )
    return rows


def _done(array: Any) -> Any:
    """The array when it is written: whoever reads it in place is told of no stream to wait for."""
    _cuda.synchronize()
    return array


@sample_chain.register
@jacobian_chain.register
def device_chain(traj: DeviceTrajectory) -> DeviceJacobianChain:
    """The chain on the GPU."""
    return DeviceJacobianChain(traj)  # type: ignore[arg-type]
