"""CUDA kernels: the names and arguments of the CPU's; NumPy arrays in and out, in pieces that fit the GPU's memory.

What has no kernel here yet is refused by name: nothing runs on the CPU instead.
"""

from __future__ import annotations

from typing import Any

from ...errors import BackendError
from ..iteration import CONVERGED, LIMIT, NOT_FINITE, STALLED
from ..rotation import SWEEPS
from .backprop import backprop
from .batchnorm import batchnorm_backprop, batchnorm_jacobian, batchnorm_rollout
from .chain import adjoint_chain, dense_chain, tangent_chain
from .covariant import covariant_vectors
from .curvature import curvature
from .diagonals import through_diagonals
from .fixed_point import (
    adjoint_fixed_point,
    dense_adjoint_fixed_point,
    dense_tangent_fixed_point,
    fixed_point,
    tangent_fixed_point,
)
from .frames import dense_frames, tangent_frames
from .graded import graded_product
from .jacobian import dense, factors
from .linear import dense_newton_directions, newton_directions
from .loss import first_outside, loss, loss_curvature, one_hot, total
from .norms import chain_norms, dense_chain_norms, unsettled
from .orthonormalize import orthonormalize
from .output import output, output_vjp
from .overlap import overlap
from .products import affine, column_sums, input_adjoint, outer, outers
from .resident import contiguous, fill, first_not_finite, in_dtype, in_float64, swapped, unit_rows
from .rollout import rollout
from .rows import changing, live_rows, put_rows, row_lengths, row_log_norms
from .scaling import fold, normalize, times_powers
from .singular_values import graded_singular_values, log_singular_values
from .statistics import normalize_batch, through_batch
from .system import system_derivatives, system_fixed_point, system_jacobian, system_rollout
from .unit_norms import unit_norms
from .unit_sums import unit_sums
from .weights import charge_columns, weight_drive

__all__ = [
    "CONVERGED",
    "LIMIT",
    "NOT_FINITE",
    "STALLED",
    "SWEEPS",
    "adjoint_chain",
    "adjoint_fixed_point",
    "affine",
    "backprop",
    "batchnorm_backprop",
    "batchnorm_jacobian",
    "batchnorm_rollout",
    "chain_norms",
    "changing",
    "charge_columns",
    "column_sums",
    "contiguous",
    "covariant_vectors",
    "curvature",
    "dense",
    "dense_adjoint_fixed_point",
    "dense_chain",
    "dense_chain_norms",
    "dense_frames",
    "dense_newton_directions",
    "dense_tangent_fixed_point",
    "factors",
    "fill",
    "first_not_finite",
    "first_outside",
    "fixed_point",
    "fold",
    "graded_product",
    "graded_singular_values",
    "in_dtype",
    "in_float64",
    "input_adjoint",
    "live_rows",
    "log_singular_values",
    "loss",
    "loss_curvature",
    "newton_directions",
    "normalize",
    "normalize_batch",
    "one_hot",
    "orthonormalize",
    "outer",
    "outers",
    "output",
    "output_vjp",
    "overlap",
    "put_rows",
    "rollout",
    "row_lengths",
    "row_log_norms",
    "swapped",
    "system_derivatives",
    "system_fixed_point",
    "system_jacobian",
    "system_rollout",
    "tangent_chain",
    "tangent_fixed_point",
    "tangent_frames",
    "through_batch",
    "through_diagonals",
    "times_powers",
    "total",
    "unit_rows",
    "unit_norms",
    "unit_sums",
    "unsettled",
    "weight_drive",
]


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    raise BackendError(
        f"backend is 'cuda', but this version has no CUDA kernel for {name.replace('_', ' ')}; use backend='cpu'"
    )
