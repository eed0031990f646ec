"""Stacks that read their own output: against autograd, with the fed-back path in gradients, Jacobians and chains."""

import numpy as np
import oracles
import pytest
import stacks
from cases import assert_close
from stacks import MIXES, make_stack_case

import rnngrad as rg

torch = oracles.torch

RTOL = 1e-11
MIX = pytest.mark.parametrize("mix", MIXES, ids=lambda mix: "-".join(cell for cell, _ in mix))


def fed_back(mix, *, m=2, p=2, T=6, B=3, lengths=None, seed=0):
    """A case whose stack feeds its output back; s0, x as drawn for the m inputs that are left."""
    case = make_stack_case(mix, m=m + p, p=p, T=T, B=B, seed=seed, scale=0.8)
    case.stack = rg.Stack.from_layers(case.stack.layers, case.stack.V, case.stack.c, feedback=True)
    case.x = np.ascontiguousarray(case.x[..., :m])
    case.lengths = None if lengths is None else np.asarray(lengths)
    return case


def free_running(case, P, x, s0):
    """(y, joint states s_0 … s_T) by autograd, each output joined to the next input; tensors."""
    stack, joint, states, outputs = case.stack, s0[:, 0], [s0[:, 0]], []
    T, B = x.shape[:2]
    ends = np.full(B, T) if case.lengths is None else case.lengths
    y = torch.zeros(B, stack.p, dtype=torch.float64)
    for t in range(T):
        h, start, new = torch.cat([x[t], y], -1), 0, []
        for layer, (net,) in enumerate(stack.layers):
            s = joint[:, start : start + net.N].reshape(B, net.S, net.n)
            start += net.N
            params = stacks._layer_params(P, net, f"_l{layer}")
            s = oracles.step(net.cell.name, params, s, h, net.activation, stacks._alpha(net))
            h = stacks._heights(net, s)
            new.append(s.reshape(B, -1))
        joint = torch.where(torch.tensor(t < ends)[:, None], torch.cat(new, -1), joint)
        states.append(joint)
        y = h @ P["V"].mT + P["c"]
        outputs.append(y)
    return torch.stack(outputs), states


@pytest.mark.parametrize("lengths", [None, (6, 3, 1)], ids=["even", "uneven"])
@MIX
def test_feedback_against_autograd(mix, lengths):
    """Outputs, every gradient (V and c by way of what is fed back too) and chains of a free-running stack."""
    case = fed_back(mix, lengths=lengths)
    stack, traj = case.stack, case.traj
    P = stacks._leaves(stack)
    x, s0 = (oracles.tensor(a).requires_grad_() for a in (case.x, case.s0))
    y, states = free_running(case, P, x, s0)
    active = np.ones((6, 3), bool) if lengths is None else np.arange(6)[:, None] < case.lengths
    assert_close(traj.y[active], y.detach().numpy()[active], 1e-12, "y")
    z = case.rng.standard_normal(traj.y.shape)
    loss = oracles.squared_error(z)(y, torch.tensor(active))
    leaves = [*P.values(), x, s0]
    found = torch.autograd.grad(loss, leaves, retain_graph=True, allow_unused=True)  # b of mrnn is empty
    grads = rg.bptt(traj, rg.losses.squared_error(z))
    for name, leaf, value in zip([*P, "x", "s0"], leaves, found, strict=True):
        assert_close(getattr(grads, name), np.zeros(leaf.shape) if value is None else value.numpy(), 1e-11, name)

    # Phi(t, k) by autograd through everything between, the output of step k fed back included for k >= 1
    chain, N = rg.jacobian_chain(traj), stack.N
    J = rg.jacobians(traj)
    for t, k in ((6, 0), (5, 2), (2, 1)):
        Phi = oracles.product(J, t, k)
        assert_close(chain.product(t, k), Phi, RTOL, "chain of dense Jacobians")
        v = case.rng.standard_normal((3, 1, N))
        assert_close(chain.jvp(v, t, k)[:, 0], np.einsum("bij,bj->bi", Phi, v[:, 0]), RTOL, "jvp")
    weights = torch.tensor(case.rng.standard_normal((3, N)))
    total = torch.autograd.grad((weights * states[6]).sum(), s0)[0][:, 0]
    assert_close(np.einsum("bi,bij->bj", weights.numpy(), chain.product(6, 0)), total.numpy(), RTOL, "Phi(6, 0)")


def test_feedback_is_a_part_of_the_jacobian():
    """For a vanilla network J = D (W + U V): exactly, from step 2 on; at step 1 the output before is given."""
    case = fed_back((("vanilla", 4),), m=1, p=2, lengths=None)
    (net,) = case.stack.layers[0]
    J = rg.jacobians(case.traj)
    h = case.traj.h
    slope = 1 - h**2
    W, UV = np.array(net.W[0]), np.array(net.U[0][:, 1:]) @ case.stack.V
    assert_close(J[1:], slope[1:, :, :, None] * (W + UV), 1e-12)
    assert_close(J[0], slope[0, :, :, None] * W, 1e-12)


def test_given_its_own_outputs_the_teacher_forced_stack_is_the_same():
    case = fed_back(MIXES[0])
    traj = case.traj
    before = np.concatenate([np.zeros_like(traj.y[:1]), traj.y[:-1]])
    forced = rg.rollout(case.stack.teacher_forced(), np.concatenate([case.x, before], -1), case.s0)
    np.testing.assert_array_equal(forced.y, traj.y)
    assert_close(traj.fed, before, 0)


def test_truncation_of_a_free_running_stack_differs():
    case = fed_back(MIXES[0])
    traj = case.traj
    loss = rg.losses.squared_error(case.rng.standard_normal(traj.y.shape))
    full, short = rg.bptt(traj, loss), rg.truncated_bptt(traj, loss, window=2)
    assert_close(rg.truncated_bptt(traj, loss, window=6).W_l0, full.W_l0, 1e-12)
    assert np.abs(short.W_l0 - full.W_l0).max() > 1e-3 * np.abs(full.W_l0).max()


def test_feedback_that_cannot_be():
    net = rg.Network.init("gru", 2, 4)
    with pytest.raises(
        ValueError, match=r"feedback is True, but layer 0 takes 2 inputs; it must take the p = 4 outputs"
    ):
        rg.Stack.from_layers([net], feedback=True)
    with pytest.raises(ValueError, match=r"feedback is True, but a layer runs backward"):
        rg.Stack.from_layers([[net, net]], np.ones((1, 8)), np.ones(1), feedback=True)
    assert rg.Stack.init("gru", 2, 4, 3, n_layers=2, feedback=True).m == 2


@pytest.mark.parametrize("policy", ["step", "sequence"])
def test_dropout_acts_alike_on_the_way_and_on_the_whole(policy):
    """The outputs fed back are those of the masked network at its own step."""
    stack = rg.Stack.init("lstm", 2, [3, 4], 2, feedback=True, seed=1)
    x = np.random.default_rng(0).standard_normal((6, 3, 2))
    traj = rg.rollout(stack, x, dropout=rg.Dropout(0.5, policy, seed=1))
    np.testing.assert_array_equal(traj.fed[1:], traj.y[:-1])
    loss = rg.losses.squared_error(np.ones_like(traj.y))
    W, step = np.array(stack.W_l0), 1e-6
    direction = np.random.default_rng(1).standard_normal(W.shape)
    values = [
        rg.bptt(
            rg.rollout(stack.replace(W_l0=W + sign * step * direction), x, dropout=rg.Dropout(0.5, policy, seed=1)),
            loss,
        )
        for sign in (1, -1)
    ]
    slope = np.sum(rg.bptt(traj, loss).W_l0 * direction)
    assert (values[0].loss - values[1].loss) / (2 * step) == pytest.approx(slope, rel=1e-7)


def test_a_sequence_that_has_ended_runs_no_further(recwarn):
    """Its continuation would overflow; what is fed at padded steps is 0, and the gradient is that of what ran."""
    net = rg.Network.init("linear", 2, 1).replace(W=np.full((1, 1, 1), 2.0), U=np.array([[[1.0, 10.0]]]))
    stack = rg.Stack.from_layers([net], feedback=True)
    long = rg.rollout(stack, np.ones((400, 2, 1)), lengths=[3, 2])
    short = rg.rollout(stack, np.ones((3, 2, 1)), lengths=[3, 2])
    assert not recwarn.list
    assert not long.fed[3:].any()
    grads = [rg.bptt(traj, rg.losses.squared_error(0 * traj.y)) for traj in (long, short)]
    np.testing.assert_array_equal(grads[0].U_l0, grads[1].U_l0)


def test_divergence_is_said_once_with_its_step():
    net = rg.Network.init("linear", 2, 1).replace(W=np.full((1, 1, 1), 2.0), U=np.array([[[1.0, 10.0]]]))
    with pytest.warns(rg.DivergenceWarning, match=r"at step 28\d") as caught:
        traj = rg.rollout(rg.Stack.from_layers([net], feedback=True), np.ones((400, 1, 1)))
    assert len(caught) == 1 and 280 <= traj.diverged[0] < 290
