"""CPU kernels: parallel over batch tiles or rows, one BLAS thread inside each.

A factory per cell and activation (``rollout``, ``backprop``, ``factors``, ``curvature``, ``output``), or per kind
of loss; plain kernels elsewhere.
"""

from ..iteration import CONVERGED, LIMIT, NOT_FINITE, STALLED
from ..rotation import SWEEPS
from .backprop import backprop
from .chain import adjoint_chain
from .covariant import covariant_vectors
from .curvature import curvature
from .diagonals import through_diagonals
from .fixed_point import (
    adjoint_fixed_point,
    dense_adjoint_fixed_point,
    dense_tangent_fixed_point,
    fixed_point,
    system_fixed_point,
    tangent_fixed_point,
)
from .frames import dense_frames, tangent_frames
from .graded import graded_product
from .jacobian import dense, factors
from .linear import dense_newton_directions, newton_directions
from .loss import loss, loss_curvature
from .norms import chain_norms, dense_chain_norms
from .orthonormalize import orthonormalize
from .output import output, output_vjp
from .overlap import overlap
from .pointwise import gated_slope, update, update_vjp
from .products import affine, column_sums, input_adjoint, outer, outers
from .rollout import rollout
from .rows import changing, live_rows, put_rows, row_lengths, row_log_norms
from .scaling import fold
from .singular_values import graded_singular_values, log_singular_values
from .system import dense_chain, system_derivatives, system_jacobian, system_rollout
from .tangent import tangent_chain
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
    "chain_norms",
    "changing",
    "charge_columns",
    "column_sums",
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
    "fixed_point",
    "fold",
    "newton_directions",
    "gated_slope",
    "graded_product",
    "graded_singular_values",
    "input_adjoint",
    "live_rows",
    "log_singular_values",
    "loss",
    "loss_curvature",
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
    "system_derivatives",
    "system_fixed_point",
    "system_jacobian",
    "system_rollout",
    "tangent_chain",
    "tangent_fixed_point",
    "tangent_frames",
    "through_diagonals",
    "unit_norms",
    "unit_sums",
    "update",
    "update_vjp",
    "weight_drive",
]
