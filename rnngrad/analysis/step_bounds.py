"""What bounds one step's ||J_t||_2: norms of the pointwise partials around W, as one number and by blocks of states."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._blas import one_blas_thread
from .._math import LIPSCHITZ
from .._results import Result
from ..dynamics.graded import log_singular_values
from ..dynamics.jacobian import FactoredJacobians, dense_pieces, jacobians, local_jacobians
from ..dynamics.unit_norms import unit_norms
from ..network import Network


@dataclass(frozen=True)
class StepBounds(Result):
    """Per-step bounds of ||J_t||_2, natural logarithms; a padded step has J = I and reads 0.

    Attributes
    ----------
    log_factored : ndarray (T, B)
        From the measured partials: the smaller of ||ds'/ds|| + ||ds'/da|| ||W|| ||de/ds|| (+ the second stage), the
        norm of each pointwise partial being its largest over the units, and of the norm of ``blocks``. For a vanilla
        network this is ln(gamma_t lambda) with gamma_t the largest |phi'| at step t.
    log_a_priori : ndarray (T, B)
        ln(gamma lambda), gamma = sup |phi'|: needs no trajectory. NaN for gated cells, which have none.
    blocks : ndarray (T, B, S, S)
        Bounds of the norms of J_t's blocks ds'_r/ds_c between state vectors (h, c, …), not logarithms; a padded step
        has the identity. See :func:`block_norms`.
    largest : ndarray (B, S, S)
        The largest of each entry of ``blocks`` over the steps of a sequence; for a vanilla network
        ``gamma_measured`` lambda.
    gamma, lam : float
        Lipschitz constant of the activation; largest singular value of W (all recurrent gates stacked). NaN for a
        user's system.
    gamma_measured : ndarray (B,)
        Largest |phi'| met along each sequence, where J is one activation around one matrix; else NaN.
    log_eigen_rate : float
        ln(gamma rho(W)), the rate of the folklore: asymptotic for a normal W, **not a bound**. NaN for gated cells.
    """

    log_factored: NDArray[np.float64]
    log_a_priori: NDArray[np.float64]
    blocks: NDArray[np.float64]
    largest: NDArray[np.float64]
    gamma: float
    lam: float
    gamma_measured: NDArray[np.float64]
    log_eigen_rate: float

    def over(self, log_steps: NDArray, times: NDArray, lags: NDArray) -> NDArray[np.float64]:
        """Sum of per-step logarithms over the ``lag`` steps that end at each time, (B, R, L); NaN where lag > t."""
        k = times[:, None] - lags
        sums, zeros = running(log_steps)
        t = np.broadcast_to(times[:, None], k.shape)
        out = sums[:, t] - sums[:, np.maximum(k, 0)]
        out[zeros[:, t] > zeros[:, np.maximum(k, 0)]] = -np.inf
        return np.where(k >= 0, out, np.nan)

    def block_bound(self, times: NDArray, last: int) -> NDArray[np.float64]:
        """log||M_t M_{t-1} … || over 0 … ``last`` steps that end at each ascending time, (B, R, last + 1)."""
        return log_norms_of_products(self.blocks, times, last)


def step_bounds(traj: Any) -> StepBounds:
    """Bounds of ||J_t|| from the pointwise partials around W; no singular value decomposition of a J_t.

    Of a Trajectory, StackTrajectory or DeviceTrajectory; along the last the norms of the partials are made on the GPU,
    and their few numbers for each step come to the host.

    A user's system or a stack is bounded by ||J_t|| itself, and its blocks (one for a system, every state vector of
    every layer for a stack) by their own norms.

    ||J|| <= ||ds'/ds|| + ||ds'/da|| ||W|| ||de/ds|| + ||ds'/da'|| ||W'|| (||dq/ds|| + ||dq/da|| ||W|| ||de/ds||).

    Raises
    ------
    ValueError
        The trajectory is not finite.
    """
    net, shape = traj.net, (traj.T, traj.B)
    ended = np.arange(traj.T)[:, None] >= traj.lengths
    if not isinstance(net, Network):
        blocks, log_norm = dense_block_norms(traj), step_norms(traj)[0]
        gamma, lam, eigen_rate = np.nan, np.nan, np.nan
        log_a_priori, measured = np.full(shape, np.nan), np.full(traj.B, np.nan)
    else:
        norms = partial_norms(local_jacobians(traj), *shape)
        lam = sigma_max(net.W)
        blocks = block_norms(net, norms)
        gamma, rate, eigen_rate = _a_priori(net)
        measured = np.full(traj.B, np.nan)
        if not np.isnan(rate):
            slopes = norms.update_a if net.cell.emits_state else norms.emit_s
            measured = np.max(np.where(ended, 0, slopes.entries.reshape(*shape, -1).max(axis=-1)), axis=0)
        with np.errstate(divide="ignore"):
            log_norm = np.log(np.minimum(_one_number(net, norms), _norms(blocks)))
            log_a_priori = np.where(ended, 0.0, np.log(rate))
            eigen_rate = float(np.log(eigen_rate))
    largest = np.max(np.where(ended[..., None, None], 0, blocks), axis=0)
    return StepBounds(log_norm, log_a_priori, blocks, largest, gamma, lam, measured, eigen_rate)


@dataclass(frozen=True)
class PartialNorms:
    """Norms of one kind of pointwise partials, (rows, columns) numbers for each unit; each the largest over the units.

    Attributes
    ----------
    entries : ndarray (T, B, rows, columns)
        Of every diagonal matrix by itself.
    rows : ndarray (T, B, rows)
        Of the diagonal matrices of a row side by side; columns without a recurrent part do not count.
    whole : ndarray (T, B)
        Of all of them together, such columns apart.
    """

    entries: NDArray[np.float64]
    rows: NDArray[np.float64]
    whole: NDArray[np.float64]


@dataclass(frozen=True)
class FactorNorms:
    """Norms of all pointwise partials of J_t, see :class:`rnngrad.dynamics.jacobian.FactoredJacobians`."""

    update_s: PartialNorms
    update_a: PartialNorms
    emit_s: PartialNorms
    update_a2: PartialNorms | None = None
    inner_s: PartialNorms | None = None
    inner_a: PartialNorms | None = None


def partial_norms(factors: FactoredJacobians, T: int, B: int) -> FactorNorms:
    """Norms of the pointwise partials along a trajectory, made where they lie; these few numbers are on the host."""
    cell, n = factors.net.cell, factors.net.n
    S, P, P2, G = cell.n_states, len(cell.gates), len(cell.gates2), cell.recurrent

    def of(partial: Any, rows: int, columns: int, counted: int) -> PartialNorms:
        as_matrices = ((T, B, rows, columns, 1, 1, n), (T, B, rows, 1, columns, n), (T, B, rows, columns, n))
        taken = (None, counted, counted)
        return PartialNorms(
            *(unit_norms(partial, shape, factors.backend, c) for shape, c in zip(as_matrices, taken, strict=True))
        )

    first = of(factors.update_s, S, S, S), of(factors.update_a, S, P, G), of(factors.emit_s, 1, S, S)
    if not cell.two_stage:
        return FactorNorms(*first)
    second = of(factors.update_a2, S, P2, P2), of(factors.inner_s, 1, S, S), of(factors.inner_a, 1, P, G)
    return FactorNorms(*first, *second)


def block_norms(net: Network, norms: FactorNorms) -> NDArray[np.float64]:
    """Bounds M of the norms of the blocks of J_t, (T, B, S, S): ||ds'_r/ds_c||_2 <= M[r, c].

    Every cell's Jacobian is, with D. the diagonal matrix of a pointwise partial over the units,

        J_rc = D(ds'_r/ds_c) + sum_g D(ds'_r/da_g) W_g D(de/ds_c) + sum_g D(ds'_r/da'_g) W'_g P_c,
        P_c  = D(dq/ds_c) + sum_g D(dq/da_g) W_g D(de/ds_c),

    and the norm of a diagonal matrix is its largest entry. So, by the triangle inequality,

        M_rc = max|ds'_r/ds_c| + w(ds'_r/da) max|de/ds_c| + w'(ds'_r/da') p_c,
        p_c  = max|dq/ds_c| + w(dq/da) max|de/ds_c|,

    where w(d) bounds ||sum_g D(d_g) W_g||: the smaller of sum_g max|d_g| ||W_g|| (gate by gate) and of
    max_i sqrt(sum_g d_gi^2) times the norm of the W_g on top of each other. For an LSTM this reads

        M = [[0, max|o phi'(c) f|], [0, max f]] + [w(dh'/da), w(dc'/da)]^T [1, 0].

    Blocks of a product obey ||(J J')_rc|| <= sum_j ||J_rj|| ||J'_jc||, so the entries of M_t … M_{k+1} bound the blocks
    of Phi(t, k), and its 2-norm bounds ||Phi(t, k)||_2: ||Phi v|| is at most the norm of the vector of the norms of its
    parts. Unlike a product of numbers this knows that what c sends to h does not come back to c in full.
    """
    emit = norms.emit_s.entries[:, :, 0]  # emit[T, B, S]
    M = norms.update_s.entries + _through(norms.update_a, net.W)[..., None] * emit[:, :, None]
    if norms.update_a2 is not None and norms.inner_s is not None and norms.inner_a is not None:
        p = norms.inner_s.entries[:, :, 0] + _through(norms.inner_a, net.W) * emit  # p[T, B, S]
        M += _through(norms.update_a2, net.W2)[..., None] * p[:, :, None]
    return M


def dense_block_norms(traj: Any) -> NDArray[np.float64]:
    """Norms of the blocks of J_t by decompositions, (T, B, S, S); the blocks are those of the net's state vectors."""
    J, parts = jacobians(traj).astype(np.float64), _partition(traj.net.blocks)
    with one_blas_thread():
        norms = [np.linalg.norm(J[..., row, column], ord=2, axis=(-2, -1)) for row in parts for column in parts]
    return np.stack(norms, axis=-1).reshape(traj.T, traj.B, len(parts), len(parts))


def _partition(blocks: dict[str, slice]) -> list[slice]:
    """The finest of the named blocks, in order (a stack names its layers and their state vectors)."""
    out: list[slice] = []
    for part in sorted(blocks.values(), key=lambda part: (part.start, part.stop)):
        if part.start == (out[-1].stop if out else 0):
            out.append(part)
    return out


def _through(norms: PartialNorms, W: NDArray) -> NDArray[np.float64]:
    """Bound (T, B, rows) of ||sum_g D(partial_g) W_g|| for partials (rows, gates), of which W acts on the first."""
    by_gate = norms.entries[..., : len(W)] @ np.array([sigma_max(one) for one in W])
    return np.minimum(by_gate, norms.rows * sigma_max(W))


def _one_number(net: Network, norms: FactorNorms) -> NDArray[np.float64]:
    """The bound of :func:`step_bounds`, (T, B)."""
    first = sigma_max(net.W) * norms.emit_s.whole
    total = norms.update_s.whole + norms.update_a.whole * first
    if norms.update_a2 is not None and norms.inner_s is not None and norms.inner_a is not None:
        total += norms.update_a2.whole * sigma_max(net.W2) * (norms.inner_s.whole + norms.inner_a.whole * first)
    return total


def _a_priori(net: Network) -> tuple[float, float, float]:
    """(gamma, gamma lambda, gamma rho) of cells that are one activation around one matrix; NaN for the others."""
    gamma = LIPSCHITZ[net.activation]
    if not net.cell.built_in or net.cell.n_states > 1 or net.cell.gates2 or net.cell.gate_kinds != ("value",):
        return gamma, np.nan, np.nan
    W = net.W[0].astype(np.float64)
    if net.alpha is None:
        return gamma, gamma * sigma_max(W), gamma * spectral_radius(W)
    alpha = net.alpha.astype(np.float64)  # where it is one number: (1 - alpha) + alpha gamma lambda
    rate = float(np.max(1 - alpha)) + float(np.max(alpha)) * gamma * sigma_max(W)
    return gamma, rate, spectral_radius(np.diag(1 - alpha) + gamma * alpha[:, None] * W)


def sigma_max(W: NDArray) -> float:
    """Largest singular value of a matrix, or of several (G, n, n) stacked on top of each other."""
    with one_blas_thread():
        return float(np.linalg.norm(W.reshape(-1, W.shape[-1]).astype(np.float64), ord=2))


def spectral_radius(W: NDArray) -> float:
    """Largest |eigenvalue|."""
    with one_blas_thread():
        return float(np.abs(np.linalg.eigvals(W.astype(np.float64))).max())


def _norms(matrices: NDArray) -> NDArray[np.float64]:
    """2-norms (…) of small matrices (…, S, S)."""
    return unit_norms(np.ascontiguousarray(matrices), (*matrices.shape, 1))


def step_norms(traj: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """ln sigma_max(J_t) and ln sigma_min(J_t), (T, B) each, by T B dense decompositions.

    Along a DeviceTrajectory they are made on the GPU, in pieces of 64 MB. A sigma_min within rounding of 0 reads -inf,
    so that it stays a bound from below.
    """
    local, (T, B, N) = local_jacobians(traj), (traj.T, traj.B, traj.net.N)
    pieces = (J.reshape(J.shape[0] * B, N, N) for J in dense_pieces(local, T, B))
    logs = np.concatenate([log_singular_values(J, local.backend) for J in pieces]).reshape(T, B, N)
    high, low = logs[..., 0], logs[..., -1]
    floor = np.log(N * np.finfo(traj.net.dtype).eps) + high
    return high, np.where(low > floor, low, -np.inf)


def log_norms_of_products(blocks: NDArray, times: NDArray, last: int) -> NDArray[np.float64]:
    """log||M_t M_{t-1} … M_{t-lag+1}||_2 of small nonnegative matrices M (T, B, S, S), by time and lag.

    Returns (B, R, last + 1) for ascending ``times`` (R,); NaN where lag > t. Products carry a power of two.
    """
    B, S = blocks.shape[1], blocks.shape[-1]
    out = np.full((B, len(times), last + 1), np.nan)
    out[:, :, 0] = 0
    product = np.broadcast_to(np.eye(S), (len(times), B, S, S)).copy()
    exponent = np.zeros((len(times), B), np.int64)
    for lag in range(1, last + 1):
        r = int(np.searchsorted(times, lag))  # the first time with so many steps before it
        if r == len(times):
            break
        new = product[r:] @ blocks[times[r:] - lag]
        shift = np.frexp(new.max(axis=(-2, -1)))[1]
        product[r:] = np.ldexp(new, -shift[..., None, None])
        exponent[r:] += shift
        with np.errstate(divide="ignore"):
            norms = np.log(_norms(product[r:])) + exponent[r:] * np.log(2.0)
        out[:, r:, lag] = norms.T
    return out


def log_ratio(log_bound: NDArray, log_measured: NDArray) -> NDArray[np.float64]:
    """ln(bound/measured), at least 0 but for rounding; 0 where both are zero."""
    with np.errstate(invalid="ignore"):
        return np.where(np.isneginf(log_bound) & np.isneginf(log_measured), 0, log_bound - log_measured)


def running(log_steps: NDArray) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Running sums (B, T+1) of the finite entries of log_steps (T, B), and the running count of zeros (-inf)."""
    start = ((1, 0), (0, 0))
    zero = np.isneginf(log_steps)
    return (
        np.pad(np.cumsum(np.where(zero, 0.0, log_steps), axis=0), start).T,
        np.pad(np.cumsum(zero, axis=0, dtype=np.int64), start).T,
    )
