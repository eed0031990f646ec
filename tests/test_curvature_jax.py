"""Dense Hessians by jax.hessian in float64, of forward passes written here from the equations of the specification."""

import numpy as np
import pytest
from cases import assert_close, make_case

import rnngrad as rg

jax = pytest.importorskip("jax")
jnp = jax.numpy

ACTIVATIONS = {
    "tanh": jnp.tanh,
    "logistic": jax.nn.sigmoid,
    "identity": lambda z: z,
    "softplus": lambda z: jnp.logaddexp(z, 0.0),
}


def products(P, x, two=""):
    """(U x + b, and W) of one product, gate axis first."""
    return P["U" + two] @ x + P["b" + two], P["W" + two]


def vanilla(P, s, x, phi, alpha):
    drive, W = products(P, x)
    h = phi(drive[0] + W[0] @ s)
    return h, h


def vanilla_s(P, s, x, phi, alpha):
    drive, W = products(P, x)
    s = drive[0] + W[0] @ phi(s)
    return s, phi(s)


def continuous(P, s, x, phi, alpha):
    drive, W = products(P, x)
    s = (1 - alpha) * s + alpha * (drive[0] + W[0] @ phi(s))
    return s, phi(s)


def lstm(P, s, x, phi, alpha):
    drive, W = products(P, x)
    h, c = jnp.split(s, 2)
    i, f, v, o = drive + W @ h
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * phi(v)
    h = jax.nn.sigmoid(o) * phi(c)
    return jnp.concatenate([h, c]), h


def gru(P, s, x, phi, alpha):
    r, u = (jax.nn.sigmoid(P["W"][g] @ s + P["U"][g] @ x + P["b"][g]) for g in range(2))
    h = u * s + (1 - u) * phi(r * (P["W"][2] @ s + P["b"][2]) + P["U"][2] @ x + P["b"][3])
    return h, h


def gru_reset_before(P, s, x, phi, alpha):
    drive, W = products(P, x)
    r, u = jax.nn.sigmoid(drive + W @ s)
    drive, W = products(P, x, "2")
    h = u * s + (1 - u) * phi(drive[0] + W[0] @ (r * s))
    return h, h


def loss_of(step, net, x, s0, z, phi):
    """L of the flat parameters: logistic cross-entropy of every output."""

    def loss(flat):
        P, start = {}, 0
        for name, a in net.parameters.items():
            P[name] = flat[start : start + a.size].reshape(a.shape)
            start += a.size
        total = 0.0
        for b in range(x.shape[1]):
            s = jnp.asarray(s0[b].reshape(-1))
            for t in range(x.shape[0]):
                s, h = step(P, s, x[t, b], phi, None if net.alpha is None else jnp.asarray(net.alpha))
                y = P["V"] @ h + P["c"]
                total += jnp.sum(jnp.logaddexp(y, 0.0) - z[t, b] * y)
        return total

    return loss


@pytest.mark.parametrize(
    ("step", "activation"),
    [
        *((vanilla, activation) for activation in ACTIVATIONS),
        *((step, "tanh") for step in (vanilla_s, continuous, lstm, gru, gru_reset_before)),
        (continuous, "softplus"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_hessian_is_that_of_jax(step, activation):
    drawn = make_case(step.__name__, activation, n=3, m=2, T=3, B=2)
    z = drawn.rng.random((3, 2, 2))
    with jax.enable_x64(True):
        flat = jnp.asarray(rg.flatten_parameters(drawn.net, drawn.params))
        loss = loss_of(step, drawn.net, drawn.x, drawn.s0, z, ACTIVATIONS[activation])
        expected = np.asarray(jax.hessian(loss)(flat))
    assert expected.dtype == np.float64
    curvature = rg.Curvature(drawn.traj, rg.losses.binary_cross_entropy(z))
    assert_close(curvature.hessian(np.eye(curvature.size)), expected, 1e-11)
