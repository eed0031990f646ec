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
    "DeviceTrajectory": "dynamics.device",
    "StackTrajectory": "dynamics.stack",
    "jacobians": "dynamics.jacobian",
    "jacobian_chain": "dynamics.chain",
    "JacobianChain": "dynamics.chain",
    "DeviceJacobianChain": "dynamics.device_chain",
    "bptt": "gradients.bptt",
    "DeviceGradients": "gradients.assemble",
    "Gradients": "gradients.assemble",
    "StackGradients": "gradients.stack",
    "truncated_bptt": "gradients.truncated",
    "rtrl": "gradients.rtrl",
    "gradient_flow": "gradients.flow",
    "hessian_vector_product": "gradients.curvature",
    "gauss_newton_vector_product": "gradients.curvature",
    "Curvature": "gradients.curvature",
    "flatten_parameters": "gradients.flat",
    "unflatten_parameters": "gradients.flat",
    "DeviceGradientFlow": "gradients.flow",
    "GradientFlow": "gradients.flow",
    "solve_fixed_point": "fixedpoint.solve",
    "DeviceFixedPoint": "fixedpoint.result",
    "FixedPoint": "fixedpoint.result",
    "find_fixed_points": "fixedpoint.find",
    "fixed_point_portrait": "fixedpoint.portrait",
    "continue_fixed_point": "fixedpoint.continuation",
    "FixedPoints": "fixedpoint.find",
    "implicit_gradient": "fixedpoint.adjoint",
    "DeviceImplicitGradients": "fixedpoint.adjoint",
    "ImplicitGradients": "fixedpoint.adjoint",
    "growth_bounds": "analysis.bounds",
    "numerical_radius": "analysis.numerical_range",
    "linear_recurrence": "analysis.linear",
    "mean_field": "analysis.mean_field",
    "edge_of_chaos": "analysis.mean_field",
    "phase_diagram": "analysis.phase_diagram",
    "random_networks": "analysis.random_networks",
    "memory_horizon": "analysis.memory",
    "saturation": "analysis.saturation",
    "time_constants": "analysis.time_constants",
    "gradient_reach": "analysis.reach",
    "layer_reach": "analysis.reach",
    "gradient_map": "analysis.reach",
    "singular_values": "analysis.products",
    "hessian_operator": "analysis.hessian",
    "hessian_spectrum": "analysis.hessian",
    "weight_spectrum": "analysis.spectra",
    "jacobian_spectrum": "analysis.spectra",
    "product_spectrum": "analysis.product_spectrum",
    "circular_law": "analysis.circular_law",
    "truncation_bias": "analysis.truncation",
    "lyapunov_spectrum": "analysis.lyapunov",
    "lyapunov_of": "analysis.lyapunov",
    "covariant_vectors": "analysis.covariant",
    "LyapunovSpectrum": "analysis.exponents",
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
    "PrecisionWarning": "errors",
}
_MODULES = ("losses",)

__all__ = ["__version__", *_NAMES, *_MODULES]

if TYPE_CHECKING:
    from . import losses
    from .analysis.bounds import growth_bounds
    from .analysis.circular_law import circular_law
    from .analysis.covariant import covariant_vectors
    from .analysis.exponents import LyapunovSpectrum
    from .analysis.hessian import hessian_operator, hessian_spectrum
    from .analysis.linear import linear_recurrence
    from .analysis.lyapunov import lyapunov_of, lyapunov_spectrum
    from .analysis.mean_field import edge_of_chaos, mean_field
    from .analysis.memory import memory_horizon
    from .analysis.numerical_range import numerical_radius
    from .analysis.phase_diagram import phase_diagram
    from .analysis.product_spectrum import product_spectrum
    from .analysis.products import singular_values
    from .analysis.random_networks import random_networks
    from .analysis.reach import gradient_map, gradient_reach, layer_reach
    from .analysis.saturation import saturation
    from .analysis.spectra import jacobian_spectrum, weight_spectrum
    from .analysis.time_constants import time_constants
    from .analysis.truncation import truncation_bias
    from .analysis.verdict import verdict
    from .batchnorm import BatchNormLSTM
    from .cells import CELLS
    from .dropout import Dropout
    from .dynamics.batchnorm import full_jacobians
    from .dynamics.chain import JacobianChain, jacobian_chain
    from .dynamics.device import DeviceTrajectory
    from .dynamics.device_chain import DeviceJacobianChain
    from .dynamics.encoder_decoder import encode_decode
    from .dynamics.jacobian import jacobians
    from .dynamics.rollout import Trajectory, rollout
    from .dynamics.stack import StackTrajectory
    from .dynamics.system import System
    from .encoder_decoder import EncoderDecoder
    from .errors import BackendError, ConvergenceError, DivergenceWarning, PrecisionWarning, SingularError
    from .fixedpoint.adjoint import DeviceImplicitGradients, ImplicitGradients, implicit_gradient
    from .fixedpoint.continuation import continue_fixed_point
    from .fixedpoint.find import FixedPoints, find_fixed_points
    from .fixedpoint.portrait import fixed_point_portrait
    from .fixedpoint.result import DeviceFixedPoint, FixedPoint
    from .fixedpoint.solve import solve_fixed_point
    from .gradients.assemble import DeviceGradients, Gradients
    from .gradients.bptt import bptt
    from .gradients.curvature import Curvature, gauss_newton_vector_product, hessian_vector_product
    from .gradients.flat import flatten_parameters, unflatten_parameters
    from .gradients.flow import DeviceGradientFlow, GradientFlow, gradient_flow
    from .gradients.rtrl import rtrl
    from .gradients.stack import StackGradients
    from .gradients.truncated import truncated_bptt
    from .interop.files import load, save
    from .interop.torch import from_torch
    from .network import Network
    from .registration import register_cell
    from .report.job import report
    from .stack import Stack
    from .training.fit import fit
    from .training.teacher_forcing import exposure_gap, teacher_forcing, triplets


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        value = getattr(importlib.import_module(f".{_NAMES[name]}", __name__), name)
    elif name in _MODULES:
        value = importlib.import_module(f".{name}", __name__)
    else:
        raise AttributeError(f"module 'rnngrad' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
