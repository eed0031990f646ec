"""Loops around a user's function: a thread runs it for one sample, or for one direction of a complex step.

Kernels are compiled once per process and function; what cannot be compiled is said before anything is launched. No
array is passed with more entries than it has on the CPU, also where there are none.
"""

import functools

import numpy as np

from ... import _cuda
from ...errors import BackendError
from ..user import COMPLEX_STEP
from . import pieces, steps
from .fixed_point import iterate_on
from .fixed_point import make as make_iteration

cuda = _cuda.load()

_DTYPE = np.dtype(np.float64)
_WARP = 32  # samples of a block, so that a few of them already keep all multiprocessors busy


class UserKernel:
    """A kernel around a user's function, compiled ahead of its launch; ``body`` as of any kernel."""

    def __init__(self, user, kernel, derived=False):
        self.body = kernel.body
        self._user, self._kernel, self._derived = user, kernel, derived

    def __call__(self, blocks, threads, shared, *args):
        try:
            self._kernel.compile(*args)
        except Exception as error:  # of Numba, NVVM or the linker, by what the function asks for
            raise _refused(self._user, self._derived, str(error) or type(error).__name__) from error
        self._kernel(blocks, threads, shared, *args)


def _refused(user, derived, why):
    name, result = ("jacobian", "a tuple of rows") if len(user.shape) == 2 else ("f", "a tuple of numbers")
    how, other = (" for complex numbers, as the complex step needs,", ", give jacobian=") if derived else ("", "")
    first = next(line for line in why.splitlines() if line.strip()).strip().rstrip(".")
    return BackendError(
        f"backend is 'cuda', but {name} cannot be compiled for CUDA{how}: {first}; write it as {name}(s, x, params) "
        f"that returns {result}, or as {name}(out, s, x, params) that writes to out, without arrays of its own, of "
        f"what Numba compiles for CUDA{other}, or use backend='cpu'"
    )


@functools.cache
def written(user):
    """The function on the device, as ``call(out, s, x, params)``."""
    if user.gives == "array":
        raise _refused(user, False, "it makes an array, and there is no memory to be had")
    return user.into(_cuda.function(user.source), _cuda.function)


@functools.cache
def make_rollout(user):
    """Kernel ``run(states, s0, x, params, lengths, m, q)``: m, q are the sizes of x and params."""
    call = written(user)

    @_cuda.Kernel
    def run(states, s0, x, params, lengths, m, q):
        B, n = states.shape[1], states.shape[3]
        for b in range(cuda.grid(1), B, cuda.gridsize(1)):
            for i in range(n):
                states[0, b, 0, i] = s0[b, 0, i]
            for t in range(states.shape[0] - 1):
                if t < lengths[b]:
                    call(states[t + 1, b, 0], states[t, b, 0], x[t, b, :m], params[:q])
                else:
                    for i in range(n):
                        states[t + 1, b, 0, i] = states[t, b, 0, i]

    return UserKernel(user, run)


@functools.cache
def system_rollout(user):
    """Kernel ``launch(states, x, params, lengths)``: states[t + 1] = f(states[t], x[t], params)."""
    kernel = make_rollout(user)

    def launch(states, x, params, lengths):
        T, B, m = x.shape
        operands = [pieces.written(states, 1), pieces.read(states[0], 0), pieces.read(x, 1)]
        operands += [pieces.whole(params), pieces.read(lengths, 0)]
        if T > 1 and not pieces.fitting(B, operands):  # not even one sample: half of the steps, then the others
            half = T // 2
            launch(states[: half + 1], x[:half], params, lengths)
            launch(states[half:], x[half:], params, lengths - half)
            return

        def piece(start, stop, *arrays):
            threads = _cuda.threads(min(stop - start, _WARP))
            kernel(-(-(stop - start) // threads), threads, 0, *arrays, m, params.size)

        pieces.run(piece, B, operands, "a rollout")

    return launch


@functools.cache
def make_derivatives(user, which):
    """Kernel ``run(J, states, x, params, lengths, room, t0, m, q)``; room[threads, width + n] is complex."""
    call = written(user)

    @_cuda.Kernel
    def run(J, states, x, params, lengths, room, t0, m, q):
        count, B, n, width = J.shape
        own = room[cuda.grid(1)]
        moved, new = own[:width], own[width:]
        for item in range(cuda.grid(1), count * B * width, cuda.gridsize(1)):
            t, b, j = item // (B * width), item // width % B, item % width
            if t0 + t < lengths[b]:
                s, u, p = states[t, b, 0], x[t, b, :m], params[:q]
                for i in range(width):
                    moved[i] = s[i] if which == 0 else u[i] if which == 1 else p[i]
                moved[j] += 1j * COMPLEX_STEP
                if which == 0:
                    call(new, moved, u, p)
                elif which == 1:
                    call(new, s, moved, p)
                else:
                    call(new, s, u, moved)
                for i in range(n):
                    J[t, b, i, j] = new[i].imag / COMPLEX_STEP
            else:  # a padded step copies the state
                for i in range(n):
                    J[t, b, i, j] = 1.0 if which == 0 and i == j else 0.0

    return UserKernel(user, run, derived=True)


@functools.cache
def system_derivatives(user, which):
    """Kernel ``launch(J, states, x, params, lengths)``: J[t, b, i, j] = df_i/d(argument ``which``)_j."""
    kernel = make_derivatives(user, which)

    def launch(J, states, x, params, lengths):
        T, B, n, width = J.shape
        if not J.size:
            return
        threads = _cuda.threads(B * width)
        bytes_each = threads * (width + n) * np.dtype(np.complex128).itemsize
        blocks = pieces.blocks_with_room(min(-(-T * B * width // threads), 16 * _cuda.processors()), bytes_each)

        def piece(start, stop, *arrays):
            count = min(blocks, -(-(stop - start) * B * width // threads))
            room = _cuda.empty((count * threads, width + n), np.complex128)
            kernel(count, threads, 0, *arrays, room, start, x.shape[2], params.size)

        operands = _along(J, states, x, params, lengths)
        pieces.run(piece, T, operands, "the derivatives of one step", (blocks * bytes_each, 0))

    return launch


@functools.cache
def make_jacobian(user):
    """Kernel ``run(J, states, x, params, lengths, t0, m, q)``."""
    call = written(user)

    @_cuda.Kernel
    def run(J, states, x, params, lengths, t0, m, q):
        count, B, n, _ = J.shape
        for item in range(cuda.grid(1), count * B, cuda.gridsize(1)):
            t, b = item // B, item % B
            if t0 + t < lengths[b]:
                call(J[t, b], states[t, b, 0], x[t, b, :m], params[:q])
            else:
                for i in range(n):
                    for j in range(n):
                        J[t, b, i, j] = 1.0 if i == j else 0.0

    return UserKernel(user, run)


@functools.cache
def system_jacobian(user):
    """Kernel ``launch(J, states, x, params, lengths)`` around a user's own Jacobian."""
    kernel = make_jacobian(user)

    def launch(J, states, x, params, lengths):
        T, B, _, _ = J.shape

        def piece(start, stop, *arrays):
            threads = _cuda.threads(min((stop - start) * B, _WARP))
            kernel(-(-(stop - start) * B // threads), threads, 0, *arrays, start, x.shape[2], params.size)

        pieces.run(piece, T, _along(J, states, x, params, lengths), "the Jacobians of one step")

    return launch


def _along(J, states, x, params, lengths):
    """Operands of a derivative, cut in time."""
    operands = [pieces.written(J, 0), pieces.read(states[:-1], 0), pieces.read(x, 0)]
    return [*operands, pieces.whole(params), pieces.whole(lengths)]


@functools.cache
def make_fixed_point(user, level):
    """Kernel of ``system_fixed_point``; system = (x, params, m, q)."""
    call = written(user)

    @_cuda.function
    def apply(pair, first, count, rows, system, where):
        x, params, m, q = system
        cuda.syncthreads()  # a thread has a sample here, and units of all of them elsewhere
        for r in range(cuda.threadIdx.x, count, cuda.blockDim.x):
            b = first + r
            call(pair[1, b, 0], pair[0, b, 0], x[b, :m], params[:q])
        cuda.syncthreads()

    return UserKernel(user, make_iteration(_DTYPE, steps.begin("dense", _DTYPE, level), apply))


@functools.cache
def system_fixed_point(user):
    """Kernel ``launch(s, residuals, iterations, ends, settings, (x, params))``; see the CPU's."""

    def launch(s, residuals, iterations, ends, settings, system):
        x, params = system
        iterate_on(
            functools.partial(make_fixed_point, user), s, residuals, iterations, ends, settings,
            [pieces.read(x, 0), pieces.whole(params)], 0, 0, lambda count: [], (x.shape[1], params.size),
            "the iteration of one sample",
        )  # fmt: skip

    return launch
