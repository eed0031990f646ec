"""Batch-normalised LSTM against torch.nn.functional.batch_norm in a hand-unrolled LSTM, and folded at inference."""

import numpy as np
import oracles
import pytest
from cases import assert_close

import rnngrad as rg
from rnngrad.analysis.lyapunov import lyapunov_along
from rnngrad.dynamics.chain import sample_chain

torch = oracles.torch
batch_norm = torch.nn.functional.batch_norm

T, B, n, m, p = 5, 6, 4, 3, 2
EPS = 1e-5


def drawn(dtype="float64", seed=0, n=n, m=m, p=p, T=T, B=B):
    """(network with random gammas, x, s0)"""
    rng = np.random.default_rng(seed)
    net = rg.BatchNormLSTM.init(m, n, p, seed=seed, dtype=dtype, eps=EPS)
    new = {name: rng.uniform(0.2, 1.5, getattr(net, name).shape) for name in ("gamma_h", "gamma_x", "gamma_c")}
    new |= {"beta_c": rng.standard_normal(n), "b": rng.standard_normal((4, n)), "W": rng.standard_normal((4, n, n))}
    net = net.replace(**{name: value.astype(dtype) for name, value in new.items()})
    x, s0 = rng.standard_normal((T, B, m)), rng.standard_normal((B, 2, n))
    return net, x.astype(dtype), s0.astype(dtype)


def unrolled(P, x, s0, given=None):
    """(y, states s_0 … s_T) by torch; ``given`` holds statistics for every step, else those of the batch are used."""

    def norm(z, gamma, beta, t, name):
        mean, var = (None, None) if given is None else (given[f"{name}_mean"][t], given[f"{name}_var"][t])
        return batch_norm(z, mean, var, gamma.reshape(-1), beta, training=given is None, eps=EPS)

    states, outputs = [s0], []
    for t in range(len(x)):
        h, c = states[-1][:, 0], states[-1][:, 1]
        by_h = norm(h @ P["W"].reshape(-1, h.shape[1]).T, P["gamma_h"], None, t, "h")
        by_x = norm(x[t] @ P["U"].reshape(-1, x.shape[2]).T, P["gamma_x"], None, t, "x")
        i, f, v, o = (by_h + by_x + P["b"].reshape(-1)).chunk(4, dim=1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(v)
        h = torch.sigmoid(o) * torch.tanh(norm(c, P["gamma_c"], P["beta_c"], t, "c"))
        states.append(torch.stack([h, c], 1))
        outputs.append(states[-1][:, 0] @ P["V"].T + P["c"])  # by way of s_t, the one node all later things hang on
    return torch.stack(outputs), states


def leaves(net):
    return {name: oracles.tensor(np.array(a)).requires_grad_() for name, a in net.parameters()}


def statistics(net, steps=None):
    """Some batches of training, gathered."""
    batches = [rg.rollout(net, drawn(seed=seed)[1], drawn(seed=seed)[2]) for seed in (1, 2, 3)]
    return batches, net.with_statistics(batches, steps)


def given(inference, T=T):
    """The statistics of an inference network for T steps, as tensors with one axis of features."""
    at = np.minimum(np.arange(T), len(inference.statistics.c_mean) - 1)
    return {name: oracles.tensor(value[at].reshape(T, -1)) for name, value in vars(inference.statistics).items()}


@pytest.mark.parametrize("weights", [None, "last"])
@pytest.mark.parametrize("mode", ["training", "inference"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_every_gradient_is_that_of_autograd(dtype, mode, weights):
    net, x, s0 = drawn(dtype)
    fixed = None
    if mode == "inference":
        net = statistics(drawn()[0], 3)[1] if dtype == "float64" else net.with_statistics(rg.rollout(net, x, s0))
        fixed = given(net)
    P = leaves(net)
    xt, st = (oracles.tensor(a).requires_grad_() for a in (x, s0))
    y, states = unrolled(P, xt, st, fixed)
    traj = rg.rollout(net, x, s0)
    rtol = 1e-11 if dtype == "float64" else 2e-5
    assert_close(traj.y, y.detach().numpy(), rtol, "y")
    assert_close(traj.states, torch.stack(states).detach().numpy(), rtol, "states")
    z = np.random.default_rng(4).standard_normal(traj.y.shape)
    loss = oracles.squared_error(z, np.eye(T)[-1] if weights else None)(y, torch.ones(T, B, dtype=bool))
    found = torch.autograd.grad(loss, [*P.values(), xt, st, *states], allow_unused=True)
    grads = rg.bptt(traj, rg.losses.squared_error(z.astype(dtype), weights))
    assert grads.loss == pytest.approx(loss.item(), rel=rtol)
    for name, value in zip([*P, "x", "s0"], found, strict=False):
        assert_close(getattr(grads, name), value.numpy(), rtol, name)
    expected = [np.zeros((B, 2, n)) if g is None else g.numpy() for g in found[len(P) + 2 :]]
    assert_close(grads.s, np.stack(expected), rtol, "s")
    assert {name for name, _ in grads.parameters()} == set(P)


def test_the_full_jacobian_couples_the_batch():
    """ds_t/ds_{t-1} of all samples together, by autograd; its diagonal blocks; products; and nothing off it later."""
    net, x, s0 = drawn()
    traj = rg.rollout(net, x, s0)
    P = {name: oracles.tensor(np.array(a)) for name, a in net.parameters()}
    full = rg.full_jacobians(traj)
    N = net.N
    for t in range(T):

        def one_step(s, t=t):
            return unrolled(P, oracles.tensor(x[t : t + 1]), s.reshape(B, 2, n))[1][1].reshape(-1)

        point = oracles.tensor(traj.states[t].reshape(-1))
        assert_close(full[t], torch.autograd.functional.jacobian(one_step, point).numpy(), 1e-11, f"step {t}")
    blocks = full.reshape(T, B, N, B, N)
    off = blocks[:, 0, :, 1]
    assert np.abs(off).max() > 1e-3  # sample 1 moves sample 0
    own = rg.jacobians(traj)
    for b in range(B):
        np.testing.assert_array_equal(own[:, b], blocks[:, b, :, b])
    chain = rg.jacobian_chain(traj)
    Phi = full[4] @ full[3] @ full[2]
    assert_close(chain.product(5, 2)[0], Phi, 1e-12, "product")
    block = chain.product(5, 2, block=("c_b0", "h_b3"))[0]
    assert_close(block, Phi[n : 2 * n, 3 * N : 3 * N + n], 1e-12, "from sample 3 to sample 0")
    assert_close(chain.log_norm(5, 2), np.log([np.linalg.norm(Phi, 2)]), 1e-12, "log_norm")
    inference = statistics(net)[1]
    later = rg.full_jacobians(rg.rollout(inference, x, s0)).reshape(T, B, N, B, N)
    assert not later[:, 0, :, 1].any()


@pytest.mark.parametrize("steps", [1, 3, None])
def test_inference_folds_into_an_lstm(steps):
    """Step by step the network with fixed statistics is a plain one: same states, same Jacobians."""
    net, x, s0 = drawn()
    inference = statistics(net, steps)[1]
    traj = rg.rollout(inference, x, s0)
    s = s0
    for t in range(T):
        plain = inference.folded(t + 1)
        step = rg.rollout(plain, x[t : t + 1], s)
        assert_close(step.states[1], traj.states[t + 1], 1e-12, f"state {t + 1}")
        assert_close(rg.jacobians(step)[0], rg.jacobians(traj)[t], 1e-11, f"J {t + 1}")
        s = traj.states[t + 1]
    last = inference.folded()
    np.testing.assert_array_equal(last.W, inference.folded(100).W)
    if steps == 1:  # the same statistics at every step: one network for the whole sequence
        assert_close(rg.rollout(last, x, s0).states, traj.states, 1e-12)
        assert_close(rg.rollout(last, x, s0).y, traj.y, 1e-12)


def test_without_normalising_the_cell_it_is_the_lstm_of_torch():
    """gamma_c/sigma = 1 and beta_c = mean: what is left is W, U, b alone."""
    net, x, s0 = drawn()
    inference = statistics(net, 1)[1]
    s = inference.statistics
    plain = inference.replace(gamma_c=np.sqrt(s.c_var[0] + EPS), beta_c=s.c_mean[0]).folded()
    lstm = rg.Network.from_parameters("lstm", dict(plain.parameters))
    assert_close(rg.rollout(lstm, x, s0).states, rg.rollout(plain, x, s0).states, 1e-13)


def test_statistics_are_those_of_the_batches():
    net, _, _ = drawn()
    batches, inference = statistics(net)
    h = np.einsum("gij,bj->bgi", net.W, batches[0].states[2, :, 0])  # W h of the third step
    assert_close(batches[0].statistics.h_mean[2], h.mean(axis=0), 1e-12)
    assert_close(batches[0].statistics.h_var[2], h.var(axis=0, ddof=1), 1e-12)
    assert_close(batches[0].statistics.c_var[4], batches[0].states[5, :, 1].var(axis=0, ddof=1), 1e-12)
    mean = np.mean([batch.statistics.x_mean for batch in batches], axis=0)
    assert_close(inference.statistics.x_mean, mean, 1e-12)
    shorter = net.with_statistics(batches, 3).statistics
    assert shorter.x_mean.shape == (3, 4, n)
    assert_close(shorter.x_mean[:2], mean[:2], 1e-12)
    assert_close(shorter.x_mean[2], mean[2:].mean(axis=0), 1e-12)
    assert net.with_statistics(batches).training().statistics is None


def test_gamma_starts_at_a_tenth():
    net = rg.BatchNormLSTM.init(3, 4)
    for gamma in (net.gamma_h, net.gamma_x, net.gamma_c):
        assert (gamma == 0.1).all()
    assert not net.beta_c.any()


NET, X, _ = drawn()
BAD = [
    (lambda: rg.rollout(NET, X[:, :1]), r"x has a batch of 1; batch normalisation in training mode needs at least 2"),
    (lambda: rg.rollout(NET, X, lengths=[5, 5, 5, 5, 5, 4]), r"takes sequences of one length"),
    (lambda: rg.rollout(NET, X[..., :2]), r"x has shape"),
    (lambda: NET.folded(), r"no statistics yet"),
    (lambda: NET.replace(gamma_c=np.ones(3)), r"gamma_c has shape \(3,\); it must have shape \(4,\)"),
    (lambda: NET.replace(gamma_h=np.full((4, 4), np.nan)), r"gamma_h is nan"),
    (lambda: rg.BatchNormLSTM.from_lstm(rg.Network.init("gru", 2, 3)), r"it must be a Network with the cell 'lstm'"),
    (lambda: rg.BatchNormLSTM.init(2, 3, eps=0.0), r"eps is 0"),
    (lambda: NET.with_statistics([rg.rollout(NET, X), rg.rollout(NET, X[:3])]), r"are of \[3, 5\] steps"),
    (lambda: rg.gradient_flow(rg.rollout(NET, X), rg.losses.squared_error(np.zeros((5, 6, 2)))), r"batch-normalised"),
    (lambda: rg.rtrl(rg.rollout(NET, X), rg.losses.squared_error(np.zeros((5, 6, 2)))), r"BatchNormTrajectory; rtrl"),
    (lambda: rg.rollout(NET, X, dropout=rg.Dropout(0.5)), r"net is a BatchNormLSTM; it must be a Network or a Stack"),
]


@pytest.mark.parametrize(("make", "message"), BAD, ids=range(len(BAD)))
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_analyses_of_one_sample_refuse_a_coupled_batch():
    net, x, s0 = drawn()
    traj = rg.rollout(net, x, s0)
    for analysis in (rg.singular_values, rg.growth_bounds, rg.time_constants):
        with pytest.raises(ValueError, match=r"in training mode, whose samples are no systems of their own"):
            analysis(traj)


def test_chains_of_one_sample_with_fixed_statistics_know_both_states():
    """h and c are two vectors of the state: norms and exponents are those of the dense Jacobians."""
    net, x, s0 = drawn(T=30)
    traj = rg.rollout(statistics(net, 1)[1], x, s0)
    J = rg.jacobians(traj)
    truth = [np.log(np.linalg.norm(J[3, b] @ J[2, b] @ J[1, b], 2)) for b in range(B)]
    np.testing.assert_allclose(sample_chain(traj).log_norms_at([4])[:, 0, 1], truth, rtol=1e-12)
    found, expected = lyapunov_along(traj, transient=10), rg.lyapunov_of(J, transient=10)
    np.testing.assert_array_equal(found.exponents, expected.exponents)


def test_a_folded_network_is_saved_with_its_constants(tmp_path):
    net, x, s0 = drawn()
    plain = statistics(net, 1)[1].folded()
    for name in ("net.npz", "net.safetensors"):
        rg.save(plain, tmp_path / name)
        loaded = rg.load(tmp_path / name)
        np.testing.assert_array_equal(rg.rollout(loaded, x, s0).states, rg.rollout(plain, x, s0).states)
    stack = rg.Stack.from_layers([rg.Network.from_parameters("gru", dict(rg.Network.init("gru", 3, 3).parameters))])
    assert isinstance(stack, rg.Stack)
    loss = rg.losses.squared_error(np.ones((T, B, p)))
    assert rg.verdict(rg.rollout(plain, x, s0), loss, wanted=3).numbers["leak_median"] > 0


def test_precision():
    net = drawn()[0].astype("float32")
    assert {value.dtype.name for _, value in net.parameters()} == {"float32"}
    with pytest.raises(ValueError, match=r"hold one of a single sample, or in inference mode"):
        statistics(drawn()[0])[1].with_statistics(rg.rollout(statistics(drawn()[0])[1], X))
