"""rnngrad: how far do gradients travel in a recurrent network, and why?

Conventions, everywhere: inputs x are time-major (T, B, m); states are (T+1, B, S, n) with S state vectors per unit;
J_t = ds_t/ds_{t-1} has row = output; Phi(t, k) = ds_t/ds_k = J_t … J_{k+1}; parameters W (G, n, n), U (G, n, m),
b (G, n) have the gate axis first; float64 unless float32 is asked for; logarithms are natural.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Names and where they live; imported on first use, so that ``import rnngrad`` itself costs next to nothing.
_NAMES = {
    "Network": "network",
    "Stack": "stack",
    "Dropout": "dropout",
    "BatchNormLSTM": "batchnorm",
    "full_jacobians": "dynamics.batchnorm",
    "EncoderDecoder": "encoder_decoder",
    "encode_decode": "dynamics.encoder_decoder",
    "System": "dynamics.system",
    "CELLS": "cells",
    "register_cell": "registration",
    "rollout": "dynamics.rollout",
    "Trajectory": "dynamics.rollout",
    "StackTrajectory": "dynamics.stack",
    "jacobians": "dynamics.jacobian",
    "jacobian_chain": "dynamics.chain",
    "JacobianChain": "dynamics.chain",
    "bptt": "gradients.bptt",
    "Gradients": "gradients.assemble",
    "StackGradients": "gradients.stack",
    "truncated_bptt": "gradients.truncated",
    "rtrl": "gradients.rtrl",
    "gradient_flow": "gradients.flow",
    "GradientFlow": "gradients.flow",
    "growth_bounds": "analysis.bounds",
    "linear_recurrence": "analysis.linear",
    "mean_field": "analysis.mean_field",
    "edge_of_chaos": "analysis.mean_field",
    "phase_diagram": "analysis.phase_diagram",
    "memory_horizon": "analysis.memory",
    "saturation": "analysis.saturation",
    "time_constants": "analysis.time_constants",
    "gradient_reach": "analysis.reach",
    "layer_reach": "analysis.reach",
    "gradient_map": "analysis.reach",
    "singular_values": "analysis.products",
    "weight_spectrum": "analysis.spectra",
    "jacobian_spectrum": "analysis.spectra",
    "truncation_bias": "analysis.truncation",
    "verdict": "analysis.verdict",
    "fit": "training.fit",
    "teacher_forcing": "training.teacher_forcing",
    "triplets": "training.teacher_forcing",
    "exposure_gap": "training.teacher_forcing",
    "load": "interop.files",
    "save": "interop.files",
    "from_torch": "interop.torch",
    "report": "report.job",
    "ConvergenceError": "errors",
    "SingularError": "errors",
    "BackendError": "errors",
    "DivergenceWarning": "errors",
}
_MODULES = ("losses",)

__all__ = ["__version__", *_NAMES, *_MODULES]

if TYPE_CHECKING:
    from . import losses
    from .analysis.bounds import growth_bounds
    from .analysis.linear import linear_recurrence
    from .analysis.memory import memory_horizon
