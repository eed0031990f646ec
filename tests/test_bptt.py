"""Backpropagation through time against torch autograd, torch's own modules, hand-made formulas and differences of L."""

import numpy as np
import oracles
import pytest
import reference
from cases import CELLS, LOSSES, PAIRS, SHAPES, UNEVEN, assert_close, assert_gradients, make_losses

import rnngrad as rg

torch = oracles.torch

RTOL = 1e-11
LENGTHS = pytest.mark.parametrize("lengths", [None, UNEVEN], ids=["even", "uneven"])


def check(drawn, *loss, rtol=RTOL):
    """bptt against autograd: the loss, every parameter, x, s0, and s at every step."""
    ours, truth = make_losses(drawn, oracles, *loss)
    grads = rg.bptt(drawn.traj, ours)
    expected = oracles.bptt(*drawn.args, truth, **drawn.kwargs)
    assert_gradients(grads, expected, rtol)
    assert {name for name, value in vars(grads).items() if value is not None} == set(expected)
    return grads


@LENGTHS
@pytest.mark.parametrize(("cell", "activation"), PAIRS)
def test_every_gradient_is_that_of_autograd(case, cell, activation, lengths):
    check(case(cell, activation, lengths=lengths))


@LENGTHS
@pytest.mark.parametrize("cell", CELLS)
def test_without_readout(case, cell, lengths):
    grads = check(case(cell, p=0, lengths=lengths))
    assert grads.V is grads.c is None


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("cell", CELLS)
def test_degenerate_shapes(case, cell, shape):
    check(case(cell, **shape))


@LENGTHS
@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("weights", [None, "last", "steps", "mask"])
@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("cell", ["lstm", "continuous"])
def test_losses_and_weights(case, cell, kind, weights, reduction, lengths):
    check(case(cell, p=3, lengths=lengths), kind, weights, reduction)


@LENGTHS
@pytest.mark.parametrize("cell", CELLS)
def test_single_precision(case, cell, lengths):
    drawn = case(cell, dtype="float32", lengths=lengths)
    grads = check(drawn, rtol=1e-5)
    assert {value.dtype for name, value in vars(grads).items() if name != "loss" and value is not None} == {
        np.dtype("float32")
    }


@pytest.mark.parametrize(
    ("cell", "n", "m", "T", "B"),
    [
        ("lstm", 6, 2, 60, 20),  # T B > 1024 rows: sums in pieces
        ("gru", 72, 3, 12, 5),  # G n^2 > 128^2: a large product cut by columns
        ("gru_delayed", 34, 5, 9, 35),  # tiles of 16 samples, n > 32
        ("gated_unit", 3, 90, 7, 11),
    ],
)
def test_sizes_beyond_one_piece_of_the_kernels(case, cell, n, m, T, B):
    lengths = np.random.default_rng(0).integers(1, T + 1, B)
    check(case(cell, n=n, m=m, T=T, B=B, lengths=lengths))


@pytest.mark.parametrize("cell", CELLS)
def test_parameters_are_those_of_the_network(case, cell):
    drawn = case(cell)
    grads = check(drawn)
    assert {name: g.shape for name, g in grads.parameters()} == {name: a.shape for name, a in drawn.params.items()}
    flat = np.concatenate([g.ravel() for _, g in grads.parameters()])
    assert grads.norm() == pytest.approx(np.linalg.norm(flat), rel=1e-14)


@pytest.mark.parametrize("cell", CELLS)
def test_complex_step_of_the_reference(case, cell):
    """d L/dw in a random direction of everything at once, by a complex step through the NumPy reference."""
    drawn = case(cell, lengths=UNEVEN)
    target = drawn.rng.standard_normal((5, 3, 2))
    grads = rg.bptt(drawn.traj, rg.losses.squared_error(target))
    directions = {name: drawn.rng.standard_normal(a.shape) for name, a in drawn.params.items()}
    dx, ds0 = drawn.rng.standard_normal(drawn.x.shape), drawn.rng.standard_normal(drawn.s0.shape)
    moved = {name: a + 1e-30j * directions[name] for name, a in drawn.params.items()}
    states = reference.rollout(cell, moved, drawn.x + 1e-30j * dx, drawn.s0 + 1e-30j * ds0, **drawn.kwargs)
    loss = 0
    for t in range(5):
        for b in range(3):
            if t < UNEVEN[b]:
                y = reference.readout(cell, moved, states[t + 1, b], drawn.net.activation)
                loss += np.sum((y - target[t, b]) ** 2) / 2
    expected = np.imag(loss) / 1e-30
    actual = sum(np.sum(getattr(grads, name) * d) for name, d in directions.items())
    actual += np.sum(grads.x * dx) + np.sum(grads.s0 * ds0)
    assert actual == pytest.approx(expected, rel=1e-11)


def test_padding_has_no_gradient(case):
    drawn = case("lstm", lengths=UNEVEN)
    grads = check(drawn)
    for b, length in enumerate(UNEVEN):
        np.testing.assert_array_equal(grads.x[length:, b], 0)
        np.testing.assert_array_equal(grads.s[length + 1 :, b], 0)
        assert np.abs(grads.s[length, b]).max() > 0
        assert np.abs(grads.x[:length, b]).min() > 0


def test_two_step_network_of_note_002_by_hand():
    """y_t = V h_t + c, h_t = tanh(W h_{t-1} + U x_t + b), L = 1/2 ||Y - Z||^2, two steps: every gradient by hand."""
    rng = np.random.default_rng(2)
    n, m, p = 3, 2, 2
    W, U, b = rng.standard_normal((n, n)), rng.standard_normal((n, m)), rng.standard_normal(n)
    V, c, h0 = rng.standard_normal((p, n)), rng.standard_normal(p), rng.standard_normal(n)
    x, z = rng.standard_normal((2, m)), rng.standard_normal((2, p))
    h1 = np.tanh(W @ h0 + U @ x[0] + b)
    h2 = np.tanh(W @ h1 + U @ x[1] + b)
    e1, e2 = V @ h1 + c - z[0], V @ h2 + c - z[1]
    dh2_dh1 = np.diag(1 - h2**2) @ W
    g2 = V.T @ e2
    g1 = V.T @ e1 + dh2_dh1.T @ g2
    a2, a1 = (1 - h2**2) * g2, (1 - h1**2) * g1
    net = rg.Network.from_parameters("vanilla", {"W": W[None], "U": U[None], "b": b[None], "V": V, "c": c})
    traj = rg.rollout(net, x, h0)
    grads = rg.bptt(traj, rg.losses.squared_error(z))
    assert grads.loss == pytest.approx((e1 @ e1 + e2 @ e2) / 2, rel=1e-14)
    assert_close(rg.jacobians(traj)[1, 0], dh2_dh1, 1e-14)
    assert_gradients(grads, {
        "V": np.outer(e1, h1) + np.outer(e2, h2),
        "c": e1 + e2,
        "W": (np.outer(a1, h0) + np.outer(a2, h1))[None],
        "U": (np.outer(a1, x[0]) + np.outer(a2, x[1]))[None],
        "b": (a1 + a2)[None],
        "x": np.stack([U.T @ a1, U.T @ a2])[:, None],
        "s0": (W.T @ a1)[None, None],
        "s": np.stack([W.T @ a1, g1, g2])[:, None, None],
    }, 1e-13)  # fmt: skip


@pytest.mark.parametrize("share", [0.0, 0.4])
@pytest.mark.parametrize(
    ("cell", "activation"), [("vanilla", "tanh"), ("vanilla", "relu"), ("lstm", "tanh"), ("gru", "tanh")]
)
def test_torch_modules_have_the_same_gradients(case, cell, activation, share):
    drawn = case(cell, activation, n=5, T=7)
    module = oracles.to_torch_module(cell, drawn.params, activation, share)
    x = torch.tensor(drawn.x, requires_grad=True)
    state = torch.tensor(drawn.s0).transpose(0, 1).contiguous().requires_grad_()
    target = drawn.rng.standard_normal((7, 3, 2))
    out, _ = module(x, (state[:1], state[1:]) if cell == "lstm" else state)
    y = out @ torch.tensor(drawn.params["V"]).T + torch.tensor(drawn.params["c"])
    loss = ((y - torch.tensor(target)) ** 2).sum()
    loss.backward()
    grads = rg.bptt(drawn.traj, rg.losses.sum_of_squares(target))
    weights = {name: a.grad for name, a in module.named_parameters()}
    n, m, ones = 5, 3, {"vanilla": 1, "lstm": 4, "gru": 3}[cell]
    bias_ih, bias_hh = weights["bias_ih_l0"].reshape(ones, n), weights["bias_hh_l0"].reshape(ones, n)
    b = bias_ih
    if cell == "gru":
        b = torch.stack([bias_ih[0], bias_ih[1], bias_hh[2], bias_ih[2]])
    assert_gradients(grads, {
        "loss": loss.item(),
        "W": weights["weight_hh_l0"].reshape(ones, n, n),
        "U": weights["weight_ih_l0"].reshape(ones, n, m),
        "b": b,
        "x": x.grad,
        "s0": state.grad.transpose(0, 1),
    }, 1e-12)  # fmt: skip


def test_gradient_refuses_what_is_not_a_loss(case):
    drawn = case("vanilla")
    with pytest.raises(ValueError, match=r"loss is ndarray; it must be made by rnngrad\.losses"):
        rg.bptt(drawn.traj, np.zeros((5, 3, 2)))
