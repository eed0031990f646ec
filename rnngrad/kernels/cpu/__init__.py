"""CPU kernels: parallel over batch tiles or rows, one BLAS thread inside each.

A factory per cell and activation (``rollout``, ``backprop``, ``factors``, ``curvature``, ``output``); plain kernels
elsewhere.
"""

from .backprop import backprop
from .chain import adjoint_chain
from .curvature import curvature
from .jacobian import dense, factors
from .output import output, output_vjp
from .pointwise import gated_slope, update, update_vjp
from .products import affine, column_sums, input_adjoint, outer
from .rollout import rollout
from .scaling import fold
from .system import dense_chain, system_derivatives, system_jacobian, system_rollout
from .tangent import tangent_chain

__all__ = [
    "adjoint_chain",
    "affine",
    "backprop",
    "column_sums",
    "curvature",
    "dense",
    "dense_chain",
    "factors",
    "fold",
    "gated_slope",
    "input_adjoint",
    "outer",
    "output",
    "output_vjp",
    "rollout",
    "system_derivatives",
    "system_jacobian",
    "system_rollout",
    "tangent_chain",
    "update",
    "update_vjp",
]
