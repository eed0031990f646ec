"""Initial weights: recurrent matrices by scheme, input and readout matrices by fan-in.

Every function returns one (n, n) matrix; sources are named where the scheme comes from a paper.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from . import _checks


def identity(n: int, rng: np.random.Generator) -> NDArray:
    """IRNN: W = I (Le, Jaitly & Hinton 2015); meant for relu units with zero bias."""
    return np.eye(n)


def np_rnn(n: int, rng: np.random.Generator) -> NDArray:
    """W = (A A^T/n + I)/lambda_max with A ~ N(0, 1): largest eigenvalue 1, all others below (Talathi & Vartak 2016)."""
    A = rng.standard_normal((n, n))
    B = A @ A.T / n + np.eye(n)
    return B / np.linalg.eigvalsh(B)[-1]


def orthogonal(n: int, rng: np.random.Generator) -> NDArray:
    """Haar-distributed orthogonal matrix (Saxe et al. 2014)."""
    Q, R = np.linalg.qr(rng.standard_normal((n, n)))
    return Q * np.sign(np.diag(R))


def xavier(n: int, rng: np.random.Generator) -> NDArray:
    """N(0, 2/(fan_in + fan_out)) = N(0, 1/n) (Glorot & Bengio 2010)."""
    return rng.standard_normal((n, n)) / np.sqrt(n)


def he(n: int, rng: np.random.Generator) -> NDArray:
    """N(0, 2/n) (He et al. 2015)."""
    return rng.standard_normal((n, n)) * np.sqrt(2 / n)


def uniform(n: int, rng: np.random.Generator) -> NDArray:
    """U(-1/sqrt(n), 1/sqrt(n)): PyTorch's default."""
    return rng.uniform(-1, 1, (n, n)) / np.sqrt(n)


def gaussian(n: int, rng: np.random.Generator, gain: float = 1.0) -> NDArray:
    """N(0, gain^2/n): random network of gain g (Sompolinsky, Crisanti & Sommers 1988)."""
    return gain * rng.standard_normal((n, n)) / np.sqrt(n)


def spectral_radius(n: int, rng: np.random.Generator, radius: float = 1.0) -> NDArray:
    """Gaussian matrix scaled so that its largest |eigenvalue| is ``radius``."""
    W = rng.standard_normal((n, n)) / np.sqrt(n)
    return W * (radius / np.abs(np.linalg.eigvals(W)).max())


SCHEMES = {
    "orthogonal": orthogonal,
    "xavier": xavier,
    "he": he,
    "uniform": uniform,
    "gaussian": gaussian,
    "spectral_radius": spectral_radius,
    "identity": identity,
    "irnn": identity,
    "np_rnn": np_rnn,
}

#: schemes that take one more number, and its name
OPTIONS = {"gaussian": "gain", "spectral_radius": "radius"}


def recurrent(scheme: str, gates: int, n: int, rng: np.random.Generator, option: float | None) -> NDArray:
    """(gates, n, n): one matrix per gate."""
    _checks.choice("scheme", scheme, tuple(SCHEMES))
    extra = {}
    if option is not None:
        if scheme not in OPTIONS:
            raise ValueError(f"gain is {option}; scheme {scheme!r} takes none (only {', '.join(OPTIONS)} do)")
        extra[OPTIONS[scheme]] = _checks.number("gain", option, 0.0)
    return np.stack([SCHEMES[scheme](n, rng, **extra) for _ in range(gates)])


def feedforward(rows: int, columns: int, rng: np.random.Generator) -> NDArray:
    """N(0, 1/columns) matrix for inputs and readout."""
    return rng.standard_normal((rows, columns)) / np.sqrt(max(columns, 1))
