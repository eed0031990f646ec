"""Small networks and inputs to report on."""

import numpy as np
import pytest

import rnngrad as rg
from rnngrad.report import painter

ROOT = 0.957504024  # h = tanh(2 h)
SLOPE = 2 * (1 - ROOT**2)


def network(cell="lstm", n=4, m=2, **options):
    return rg.Network.init(cell, m, n, 1, seed=0, **options)


def sequence(T=60, B=2, m=2, seed=0):
    return np.random.default_rng(seed).standard_normal((T, B, m))


def two_units():
    """h1 = tanh(2 h1), at rest in 0 when it starts there; h2 = tanh(h2/2 + x), a contraction."""
    net = rg.Network.init("vanilla", 1, 2, seed=0)
    return net.replace(W=np.diag([2.0, 0.5])[None], U=np.array([[[0.0], [1.0]]]), b=np.zeros((1, 2)))


def shifted(weight):
    """h = tanh(weight h) for s = h + 1: a trajectory from s = 0 moves."""
    return rg.System(lambda s, x, p: (np.tanh(p[0] * (s[0] - 1)) + 1,), n_state=1, params=[weight])


def held(T=60, B=1, value=0.3, m=1, dtype="float64"):
    return np.full((T, B, m), value, dtype)


@pytest.fixture(autouse=True, scope="module")
def one_process():
    """Reports of tests are short: a second process that draws would begin when they end."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(painter, "num_threads", lambda: 1)
        yield
