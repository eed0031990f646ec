"""Teacher forcing: independent triplets, the same gradient by recursion and by autograd, and the gap it leaves."""

import numpy as np
import oracles
import pytest
from cases import assert_close

import rnngrad as rg
from rnngrad.training.optimizers import Adam

torch = oracles.torch


def output_recurrent(n=5, m=2, p=3, dtype="float64", seed=0):
    """y_t = V tanh(U [x_t; y_{t-1}] + b) + c: nothing recurs but the output (note 000)."""
    rng = np.random.default_rng(seed)
    params = {"W": np.zeros((1, n, n)), "U": rng.standard_normal((1, n, m + p)), "b": rng.standard_normal((1, n))}
    net = rg.Network.from_parameters("vanilla", {name: a.astype(dtype) for name, a in params.items()})
    V, c = rng.standard_normal((p, n)).astype(dtype), rng.standard_normal(p).astype(dtype)
    return rg.Stack.from_layers([net], V, c, feedback=True)


def data(T=6, B=4, m=2, p=3, dtype="float64"):
    rng = np.random.default_rng(1)
    return rng.standard_normal((T, B, m)).astype(dtype), rng.standard_normal((T, B, p)).astype(dtype)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_triplets_have_the_gradient_of_the_recursion_and_of_autograd(dtype):
    stack, (x, z) = output_recurrent(dtype=dtype), data(dtype=dtype)
    rtol = 1e-12 if dtype == "float64" else 1e-5
    traj, targets = rg.triplets(stack, x, z)
    assert traj.T == 1 and traj.B == 24 and traj.y.shape == (1, 24, 3)
    grads = rg.bptt(traj, rg.losses.squared_error(targets))
    forced = rg.teacher_forcing(stack, x, z)
    assert_close(traj.y.reshape(z.shape), forced.y, rtol, "y")
    by_recursion = rg.bptt(forced, rg.losses.squared_error(z))
    P = {name: oracles.tensor(np.array(a)).requires_grad_() for name, a in stack.parameters()}
    before = np.concatenate([np.zeros_like(z[:1]), z[:-1]])
    loss = 0
    for t in range(6):  # one triplet after the other: no state, nothing carried
        u = oracles.tensor(np.concatenate([x[t], before[t]], -1))
        y = torch.tanh(u @ P["U_l0"][0].mT + P["b_l0"][0]) @ P["V"].mT + P["c"]
        loss = loss + ((y - oracles.tensor(z[t])) ** 2).sum() / 2
    wanted = ["U_l0", "b_l0", "V", "c"]
    truth = torch.autograd.grad(loss, [P[name] for name in wanted])
    for name, value in zip(wanted, truth, strict=True):
        assert_close(getattr(grads, name), value.numpy(), 1e-11 if dtype == "float64" else 1e-5, name)
        assert_close(getattr(by_recursion, name), getattr(grads, name), rtol * 10, f"{name} by recursion")


def test_free_running_has_another_gradient_and_a_chain():
    """Without the teacher the output path carries gradients: J = D U_y V, and it is not the triplets' gradient."""
    stack, (x, z) = output_recurrent(), data()
    traj = rg.rollout(stack, x)
    net = stack.layers[0][0]
    J = rg.jacobians(traj)
    expected = (1 - traj.h**2)[1:, :, :, None] * (np.array(net.U[0][:, 2:]) @ stack.V)
    assert_close(J[1:], expected, 1e-12)
    free = rg.bptt(traj, rg.losses.squared_error(z))
    forced = rg.bptt(rg.teacher_forcing(stack, x, z), rg.losses.squared_error(z))
    assert np.abs(free.U_l0 - forced.U_l0).max() > 1e-2 * np.abs(forced.U_l0).max()
    assert not rg.jacobians(rg.teacher_forcing(stack, x, z)).any()  # no propagation through time at all


def test_exposure_gap():
    """A network trained on the truth alone: no gap at step 1, and one later; the figure says what the numbers say."""
    rng = np.random.default_rng(0)
    t = np.arange(60)[:, None] * 0.3 + rng.uniform(0, 6, 8)
    z = np.sin(t)[..., None]
    stack = rg.Stack.init("gru", 0, 8, 1, n_layers=1, feedback=True)
    forced, optimizer = stack.teacher_forced(), Adam(lr=0.02)
    for _ in range(60):
        traj = rg.teacher_forcing(rg.Stack.from_layers(forced.layers, forced.V, forced.c, feedback=True), None, z)
        forced, optimizer = optimizer.step(forced, rg.bptt(traj, rg.losses.squared_error(z, reduction="mean")))
    trained = rg.Stack.from_layers(forced.layers, forced.V, forced.c, feedback=True)
    gap = rg.exposure_gap(trained, None, z)
    assert gap.forced[0] == pytest.approx(gap.free[0], rel=1e-12)
    expected = np.sqrt(np.mean((rg.rollout(trained, steps=60, s0=np.zeros((8, 1, 8))).y - z) ** 2, axis=(1, 2)))
    assert_close(gap.free, expected, 1e-12)
    assert gap.free[20:].mean() > 1.5 * gap.forced[20:].mean()
    assert "running free" in gap.plot().get_title(loc="left")


GATED, PLAIN = (rg.Stack.init(cell, 2, 4, 3, n_layers=1, feedback=True) for cell in ("gru", "vanilla"))
OWN = output_recurrent()
BAD = [
    (lambda x, z: rg.triplets(GATED, x, z), r"layer 0 carries a state from step to step"),
    (lambda x, z: rg.triplets(PLAIN, x, z), r"layer 0 carries a state from step to step"),
    (lambda x, z: rg.teacher_forcing(OWN.teacher_forced(), x, z), r"it must be a Stack with feedback=True"),
    (lambda x, z: rg.teacher_forcing(OWN, x, z[:3]), r"target has shape \(3, 4, 3\) beside x \(6, 4, 2\)"),
    (lambda x, z: rg.teacher_forcing(OWN, x, z[..., :2]), r"target has shape"),
    (lambda x, z: rg.exposure_gap(OWN, x * np.nan, z), r"x is nan"),
]


@pytest.mark.parametrize(("make", "message"), BAD, ids=range(len(BAD)))
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make(*data())
