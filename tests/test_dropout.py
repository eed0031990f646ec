"""Recurrent dropout: masked networks against autograd, masks by policy and seed, and a memory that does not fade."""

import numpy as np
import oracles
import pytest
import reference
from cases import UNEVEN, assert_close

import rnngrad as rg

torch = oracles.torch

CELLS = ("lstm", "gru", "gru_reset_before")


def masked_step(cell, P, s, x, m):
    """Next state (B, S, n) with the value times m, from the equations of Semeniuta et al.; tensors."""

    def gate(g, h, two=""):
        return h @ P["W" + two][g].mT + x @ P["U" + two][g].mT + P["b" + two][g]

    h, sigma = s[:, 0], torch.sigmoid
    if cell == "lstm":
        c = sigma(gate(1, h)) * s[:, 1] + sigma(gate(0, h)) * (torch.tanh(gate(2, h)) * m)
        return torch.stack([sigma(gate(3, h)) * torch.tanh(c), c], 1)
    r, u = sigma(gate(0, h)), sigma(gate(1, h))
    if cell == "gru":
        v = torch.tanh(r * (h @ P["W"][2].mT + P["b"][2]) + x @ P["U"][2].mT + P["b"][3])
    else:
        v = torch.tanh(gate(0, r * h, "2"))
    return (u * h + (1 - u) * (v * m))[:, None]


def drawn(cell, dropout, *, n=4, T=5, B=3, lengths=None, dtype="float64"):
    """(network, trajectory with dropout, x, s0)"""
    rng = np.random.default_rng(5)
    params = {k: a.astype(dtype) for k, a in reference.random_params(cell, n, 3, 0, rng, 1.0).items() if k not in "Vc"}
    net = rg.Network.from_parameters(cell, params)
    x, s0 = rng.standard_normal((T, B, 3)).astype(dtype), rng.standard_normal((B, net.S, n)).astype(dtype)
    return net, rg.rollout(net, x, s0, lengths, dropout=dropout), x, s0


@pytest.mark.parametrize("lengths", [None, UNEVEN], ids=["even", "uneven"])
@pytest.mark.parametrize("policy", ["step", "sequence"])
@pytest.mark.parametrize("inverted", [True, False])
@pytest.mark.parametrize("cell", CELLS)
def test_masked_network_against_autograd(cell, policy, inverted, lengths):
    dropout = rg.Dropout(0.4, policy, seed=3, inverted=inverted)
    net, traj, x, s0 = drawn(cell, dropout, lengths=lengths)
    T, B, n = traj.h.shape
    m = dropout.masks(T, B, n)
    assert 0 < (m == 0).mean() < 1
    P = {name: oracles.tensor(np.array(a)).requires_grad_() for name, a in net.parameters.items()}
    xt, s0t = (oracles.tensor(a).requires_grad_() for a in (x, s0))
    ends = np.full(B, T) if lengths is None else np.array(lengths)
    states = [s0t]
    for t in range(T):
        new = masked_step(cell, P, states[-1], xt[t], oracles.tensor(m[min(t, len(m) - 1)]))
        states.append(torch.where(torch.tensor(t < ends)[:, None, None], new, states[-1]))
    assert_close(traj.states, torch.stack(states).detach().numpy(), 1e-13, "states")
    z = np.random.default_rng(0).standard_normal((T, B, n))
    active = torch.tensor(np.arange(T)[:, None] < ends)
    h = torch.stack([s[:, 0] for s in states[1:]])
    loss = (active[..., None] * (h - torch.tensor(z)) ** 2).sum() / 2
    found = torch.autograd.grad(loss, [*P.values(), xt, s0t, *states])
    grads = rg.bptt(traj, rg.losses.squared_error(z))
    for name, value in zip([*P, "x", "s0"], found, strict=False):
        assert_close(getattr(grads, name), value.numpy(), 1e-11, name)
    assert_close(grads.s, np.stack([g.numpy() for g in found[len(P) + 2 :]]), 1e-11, "s")
    full = rg.truncated_bptt(traj, rg.losses.squared_error(z), window=T)
    assert_close(full.W, grads.W, 1e-12, "chain sum")
    assert_close(rg.rtrl(traj, rg.losses.squared_error(z)).W, grads.W, 1e-12, "rtrl")


def test_masks():
    one = rg.Dropout(0.25, seed=1)
    m = one.masks(400, 30, 20)
    np.testing.assert_array_equal(np.unique(m), [0, 4 / 3])
    # mean 1, variance 1/3 over 240 000 draws: five standard errors
    assert abs(m.mean() - 1) < 5 * np.sqrt(1 / 3 / m.size)
    assert not np.array_equal(m[0], m[1])
    np.testing.assert_array_equal(m, rg.Dropout(0.25, seed=1).masks(400, 30, 20))
    assert not np.array_equal(m, rg.Dropout(0.25, seed=2).masks(400, 30, 20))
    assert not np.array_equal(m, one.masks(400, 30, 20, stream=1))
    assert rg.Dropout(0.25, "sequence").masks(400, 3, 20).shape == (1, 3, 20)
    np.testing.assert_array_equal(np.unique(rg.Dropout(0.25, inverted=False).masks(50, 3, 20)), [0, 1])
    assert one.masks(2, 3, 4, "float32").dtype == np.float32


@pytest.mark.parametrize("cell", CELLS)
def test_no_dropout_and_the_expectation(cell):
    net, traj, x, s0 = drawn(cell, rg.Dropout(0.0))
    plain = rg.rollout(net, x, s0)
    np.testing.assert_array_equal(traj.states, plain.states)
    np.testing.assert_array_equal(rg.rollout(net, x, s0, dropout=rg.Dropout(0.5).expectation()).states, plain.states)
    scaled = rg.rollout(net, x, s0, dropout=rg.Dropout(0.5, inverted=False).expectation())
    np.testing.assert_array_equal(scaled.net.constants["mask"], np.full((1, 1, 4), 0.5))
    assert np.abs(scaled.states - plain.states).max() > 1e-3


def test_the_memory_of_a_cell_is_not_dropped():
    """Along its own path c -> c the LSTM passes on the forget gates' product, whatever is masked."""
    n, T = 3, 30
    rng = np.random.default_rng(0)
    zero, one = np.zeros((4, n, n)), np.zeros((4, n))
    one[1] = 3.0  # forget gates 0.95; no recurrent weights, so the only way from c to c is the cell's own
    net = rg.Network.from_parameters("lstm", {"W": zero, "U": rng.standard_normal((4, n, 2)) * 0, "b": one})
    traj = rg.rollout(net, rng.standard_normal((T, 1, 2)), dropout=rg.Dropout(0.9, seed=1))
    chain = rg.jacobian_chain(traj)
    kept = T * np.log(1 / (1 + np.exp(-3.0)))
    assert chain.log_norm(T, 0, block=("c", "c"))[0] == pytest.approx(kept, rel=1e-12)


def test_stacks_draw_masks_of_their_own():
    stack = rg.Stack.init(["lstm", "gru"], 2, 4, bidirectional=True)
    x = np.random.default_rng(0).standard_normal((6, 3, 2))
    dropout = rg.Dropout(0.5, seed=2)
    traj = rg.rollout(stack, x, dropout=dropout)
    masks = [one.net.constants["mask"] for row in traj.layers for one in row]
    assert len({m.tobytes() for m in masks}) == 4
    again = rg.rollout(stack, x, dropout=dropout)
    np.testing.assert_array_equal(traj.h, again.h)
    grads = rg.bptt(traj, rg.losses.squared_error(np.zeros_like(traj.h)))
    step, rng = 1e-6, np.random.default_rng(1)
    W = np.array(stack.U_l0_reverse)
    direction = rng.standard_normal(W.shape)
    values = [
        0.5 * np.sum(rg.rollout(stack.replace(U_l0_reverse=W + sign * step * direction), x, dropout=dropout).h ** 2)
        for sign in (1, -1)
    ]
    slope = np.sum(grads.U_l0_reverse * direction)
    assert (values[0] - values[1]) / (2 * step) == pytest.approx(slope, rel=1e-6)


def test_masks_stay_with_a_changed_network():
    net, traj, _, _ = drawn("lstm", rg.Dropout(0.5))
    mask = traj.net.constants["mask"]
    np.testing.assert_array_equal(traj.net.replace(b=np.array(net.b)).constants["mask"], mask)
    changed = traj.net.astype("float32").constants["mask"]
    assert changed.dtype == np.float32
    np.testing.assert_array_equal(changed, mask.astype(np.float32))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": 1.0}, r"rate is 1; it must be in \[0, 1\)"),
        ({"rate": -0.1}, r"rate is -0.1"),
        ({"rate": 1.5}, r"rate is 1.5"),
        ({"rate": float("nan")}, r"rate is nan"),
        ({"rate": 0.5, "policy": "batch"}, r"policy is 'batch'"),
        ({"rate": 0.5, "seed": -1}, r"seed is -1"),
    ],
)
def test_bad_input(options, message):
    with pytest.raises(ValueError, match=message):
        rg.Dropout(**options)


def test_cells_without_a_value_to_mask():
    net = rg.Network.init("vanilla", 2, 3)
    with pytest.raises(ValueError, match=r"the cell is 'vanilla', it must be one of lstm, gru, gru_reset_before"):
        rg.rollout(net, np.zeros((2, 1, 2)), dropout=rg.Dropout(0.5))


def test_masks_fit_one_rollout_only(tmp_path):
    _, traj, x, _ = drawn("lstm", rg.Dropout(0.5))
    with pytest.raises(ValueError, match=r"net holds a mask for 5 steps of 3 samples; x has 4 steps of 3"):
        rg.rollout(traj.net, x[:4])
    with pytest.raises(
        ValueError, match=r"net holds the masks of one rollout; save the network that dropout was given"
    ):
        rg.save(traj.net, tmp_path / "net.npz")
    loss = rg.losses.squared_error(np.ones_like(traj.h))
    assert rg.verdict(traj, loss, wanted=3).label in ("vanishing", "exploding", "healthy")
