"""CPU kernels: parallel over batch tiles or rows, one BLAS thread inside each.

A factory per cell and activation (``rollout``, ``backprop``, ``factors``, ``curvature``, ``output``); plain kernels
elsewhere.
"""

from .backprop import backprop
from .chain import adjoint_chain
from .curvature import curvature
from .frames import dense_frames, tangent_frames
from .jacobian import dense, factors
from .norms import chain_norms, dense_chain_norms
from .orthonormalize import orthonormalize
from .output import output, output_vjp
from .pointwise import gated_slope, update, update_vjp
from .products import affine, column_sums, input_adjoint, outer
from .rollout import rollout
from .scaling import fold
from .singular_values import SWEEPS, graded_singular_values
from .system import dense_chain, system_derivatives, system_jacobian, system_rollout
from .tangent import tangent_chain

__all__ = [
    "SWEEPS",
    "adjoint_chain",
    "affine",
    "backprop",
    "chain_norms",
    "column_sums",
    "curvature",
    "dense",
    "dense_chain",
    "dense_chain_norms",
    "dense_frames",
    "factors",
    "fold",
    "gated_slope",
    "graded_singular_values",
    "input_adjoint",
    "orthonormalize",
    "outer",
    "output",
    "output_vjp",
    "rollout",
    "system_derivatives",
    "system_jacobian",
    "system_rollout",
    "tangent_chain",
    "tangent_frames",
    "update",
    "update_vjp",
]
