"""Encoder and decoder against autograd: outputs, every gradient, the chain across the bridge; free running too."""

import numpy as np
import oracles
import pytest
import stacks
from cases import assert_close
from stacks import make_stack_case

import rnngrad as rg
from rnngrad.training.optimizers import SGD, clip_norm

torch = oracles.torch

T_ENC, T_DEC, B = 5, 4, 3
KINDS = ("networks", "stacks", "both directions", "free running")


def make(kind, bridge, seed=0):
    """(EncoderDecoder, x, x_dec, s0, rng)"""
    rng = np.random.default_rng(seed)
    encoder = make_stack_case(
        (("lstm", 3), ("gru", 4)), p=0, T=T_ENC, B=B, bidirectional=kind == "both directions", seed=seed
    )
    decoder = make_stack_case((("gru", 4), ("lstm", 3)), m=5, p=2, T=T_DEC, B=B, seed=seed + 1, scale=0.8)
    enc, dec, x_dec = encoder.stack, decoder.stack, decoder.x
    if kind == "networks":
        enc = make_stack_case((("lstm", 4),), p=0, seed=seed).stack.layers[0][0]
        net = make_stack_case((("lstm", 4),), m=5, p=0, seed=seed + 1).stack.layers[0][0]
        dec = rg.Network.from_parameters(
            "lstm", dict(net.parameters) | {"V": rng.standard_normal((2, 4)), "c": rng.standard_normal(2)}
        )
    if kind == "free running":
        dec = rg.Stack.from_layers(dec.layers, dec.V, dec.c, feedback=True)
        x_dec = np.ascontiguousarray(x_dec[..., :3])
    M = d = None
    if bridge or enc.N != dec.N:
        M, d = 0.5 * rng.standard_normal((dec.N, enc.N)), rng.standard_normal(dec.N)
    net = rg.EncoderDecoder.join(enc, dec, M, d)
    return net, encoder.x, x_dec, rng.standard_normal((B, *enc.state_shape)), rng


def as_stack(net):
    """A one-layer network as a stack, which the oracle takes; names get the ending _l0."""
    if isinstance(net, rg.Stack):
        return net
    own = {name: value for name, value in net.parameters.items() if name not in ("V", "c")}
    return rg.Stack.from_layers([rg.Network.from_parameters(net.cell.name, own)], net.V, net.c)


def run_decoder(stack, P, x, s0):
    """(y, states s_0 … s_T as (B, N)), outputs fed back where the stack says so; tensors."""
    joint, states, outputs = s0, [s0], []
    y = torch.zeros(len(s0), stack.p, dtype=torch.float64)
    for t in range(len(x)):
        h, start, new = torch.cat([x[t], y], -1) if stack.feedback else x[t], 0, []
        for layer, (net,) in enumerate(stack.layers):
            s = joint[:, start : start + net.N].reshape(len(s0), net.S, net.n)
            start += net.N
            s = oracles.step(net.cell.name, stacks._layer_params(P, net, f"_l{layer}"), s, h, net.activation)
            h = stacks._heights(net, s)
            new.append(s.reshape(len(s0), -1))
        joint = torch.cat(new, -1)
        states.append(joint)
        y = h @ P["V"].mT + P["c"]
        outputs.append(y)
    return torch.stack(outputs), states


@pytest.mark.parametrize("bridge", [False, True], ids=["identity", "bridge"])
@pytest.mark.parametrize("lengths", [None, (5, 2, 4)], ids=["even", "uneven"])
@pytest.mark.parametrize("kind", KINDS)
def test_against_autograd(kind, lengths, bridge):
    net, x, x_dec, s0, rng = make(kind, bridge)
    traj = rg.encode_decode(net, x, x_dec, s0, lengths)
    enc, dec = as_stack(net.encoder), as_stack(net.decoder)
    P, Q = stacks._leaves(enc), stacks._leaves(dec)
    xt, xd, st = (oracles.tensor(a).requires_grad_() for a in (x, x_dec, s0.reshape(B, 1, -1)))
    ends = None if lengths is None else np.array(lengths)
    _, kept = stacks.forward(enc, P, xt, st, ends)
    last = torch.cat([one[-1].reshape(B, -1) for row in kept for one in row], -1)
    leaves = {**{f"e {k}": v for k, v in P.items()}, **{f"d {k}": v for k, v in Q.items()}}
    leaves |= {"x": xt, "x_dec": xd, "s0": st}
    start = last
    if net.M is not None:
        leaves |= {"M": oracles.tensor(net.M).requires_grad_(), "bias": oracles.tensor(net.d).requires_grad_()}
        start = last @ leaves["M"].mT + leaves["bias"]
    y, states = run_decoder(dec, Q, xd, start)
    assert_close(traj.y, y.detach().numpy(), 1e-12, "y")
    z = rng.standard_normal(traj.y.shape)
    loss = ((y - torch.tensor(z)) ** 2).sum() / 2
    every = [node for row in kept for one in row for node in one]
    found = torch.autograd.grad(loss, [*leaves.values(), *every], retain_graph=True, allow_unused=True)
    found = [np.zeros(tuple(a.shape)) if g is None else g.numpy() for a, g in zip([*leaves.values(), *every], found)]
    truth = dict(zip(leaves, found, strict=False))
    grads = rg.bptt(traj, rg.losses.squared_error(z))
    assert grads.loss == pytest.approx(loss.item(), rel=1e-12)
    ours = {"x": grads.encoder.x, "x_dec": grads.decoder.x, "s0": grads.encoder.s0.reshape(B, 1, -1)}
    ours |= {"M": grads.M, "bias": grads.d}
    for side, part, single in (("e", grads.encoder, net.encoder), ("d", grads.decoder, net.decoder)):
        ending = "" if isinstance(single, rg.Stack) else "_l0"
        ours |= {f"{side} {n}{ending if n not in 'Vc' else ''}": value for n, value in part.parameters()}
    for name, value in truth.items():
        assert_close(ours[name], value, 1e-11, name)
    if kind == "networks":
        assert_close(grads.encoder.s, np.stack(found[len(leaves) :]), 1e-11, "encoder s")
    names = [name for name, _ in grads.parameters()]
    assert names[0].startswith("encoder.W") and ("M" in names) == (net.M is not None)

    if kind == "both directions":
        with pytest.raises(ValueError, match=r"runs in both directions, so the stack has no joint Jacobian"):
            rg.jacobian_chain(traj)
        return
    # the chain: u ds^dec_t/ds^enc_k, by autograd from the decoder's state at t to the encoder's states at k
    chain = rg.jacobian_chain(traj)
    u = rng.standard_normal((B, net.decoder.N))
    for t, k in ((4, 0), (2, 3), (0, 5), (3, 5), (1, 0)):
        Phi = chain.product(t, k)
        assert Phi.shape == (B, net.decoder.N, net.encoder.N)
        if k == 0:
            expected = torch.autograd.grad((oracles.tensor(u) * states[t]).sum(), st, retain_graph=True)[0][:, 0]
        else:
            J, T = rg.jacobians(traj.encoder), T_ENC
            dec0 = rg.jacobian_chain(traj.decoder).product(t, 0)
            bridge_matrix = np.eye(net.encoder.N) if net.M is None else net.M
            expected = torch.tensor(np.einsum("bi,bij,jk,bkl->bl", u, dec0, bridge_matrix, oracles.product(J, T, k)))
        assert_close(np.einsum("bi,bij->bj", u, Phi), expected.numpy(), 1e-11, f"Phi({t}, {k})")
        assert_close(chain.log_norm(t, k), np.log(np.linalg.norm(Phi, 2, axis=(1, 2))), 1e-10)
        assert_close(np.exp(chain.log_norms_to(t)[:, k]), np.linalg.norm(Phi, 2, axis=(1, 2)), 1e-10)


@pytest.mark.parametrize("bridge", [False, True])
@pytest.mark.parametrize("kind", ["networks", "stacks", "free running"])
def test_flow_across_the_bridge(kind, bridge):
    """||dL_t/ds_k|| on both sides, from the gradient of each step's loss alone."""
    net, x, x_dec, s0, rng = make(kind, bridge)
    traj = rg.encode_decode(net, x, x_dec, s0)
    z = rng.standard_normal(traj.y.shape)
    flow = rg.gradient_flow(traj, rg.losses.squared_error(z))
    chain = rg.jacobian_chain(traj)
    assert flow.encoder.shape == (B, T_DEC + 1, T_ENC + 1) and np.isnan(flow.encoder[:, 0]).all()
    for t in range(1, T_DEC + 1):
        weights = (np.arange(1, T_DEC + 1) == t).astype(float)
        grads = rg.truncated_bptt(traj.decoder, rg.losses.squared_error(z, weights), window=T_DEC)
        at_start = grads.s0.reshape(B, -1)
        assert_close(flow.decoder[:, t, 0], np.log(np.linalg.norm(at_start, axis=1)), 1e-10)
        back = net.back_across(at_start).reshape(B, -1)
        for k in range(T_ENC + 1):
            expected = np.einsum("bi,bij->bj", back, chain.encoder.product(T_ENC, k))
            assert_close(flow.encoder[:, t, k], np.log(np.linalg.norm(expected, axis=1)), 1e-10, f"t={t} k={k}")
    alone = rg.gradient_flow(traj.decoder, rg.losses.squared_error(z))
    np.testing.assert_array_equal(flow.decoder, alone.log_norm)
    ax = flow.plot()
    assert "encoder" in ax.get_xlabel()


def test_the_whole_gradient_is_what_the_encoder_receives():
    """dL/ds^enc_T, from BPTT, is the sum over the decoder's steps of what the flow measures one by one."""
    net, x, x_dec, s0, rng = make("stacks", True)
    traj = rg.encode_decode(net, x, x_dec, s0)
    loss = rg.losses.squared_error(rng.standard_normal(traj.y.shape), weights="last")
    grads, flow = rg.bptt(traj, loss), rg.gradient_flow(traj, loss)
    s0_norm = np.linalg.norm(grads.encoder.s0.reshape(B, -1), axis=1)
    assert_close(np.exp(flow.encoder[:, T_DEC, 0]), s0_norm, 1e-11)
    assert np.isneginf(flow.encoder[:, 1:T_DEC]).all()


N4, N5 = rg.Network.init("gru", 3, 4), rg.Network.init("gru", 3, 5)
READ = rg.Network.init("gru", 3, 4, 2)
BAD = [
    (
        lambda: rg.EncoderDecoder.join(N4, N5),
        r"encoder's state has 4 numbers and the decoder's 5; give a bridge M \(5, 4\)",
    ),
    (lambda: rg.EncoderDecoder.join(N4, N5, np.ones((4, 5))), r"M has shape \(4, 5\); it must have shape \(5, 4\)"),
    (lambda: rg.EncoderDecoder.join(N4, N4, d=np.ones(4)), r"d is given without M"),
    (lambda: rg.EncoderDecoder.join(READ, N4), r"encoder has a readout V, which nothing would read"),
    (lambda: rg.EncoderDecoder.join(N4, N4.astype("float32")), r"decoder is float32; it must be float64"),
    (lambda: rg.EncoderDecoder.join(N4, 3), r"decoder is int; it must be a Network or a Stack"),
    (lambda: rg.EncoderDecoder.join(N4, rg.Stack.from_layers([[N4, N4]])), r"decoder runs in both directions"),
    (
        lambda: rg.EncoderDecoder.join(rg.Stack.init("gru", 1, 2, n_layers=1, feedback=True), N4),
        r"encoder has feedback; it is given all its inputs",
    ),
    (lambda: rg.encode_decode(N4, np.ones((2, 3))), r"net is Network; it must be an EncoderDecoder"),
    (
        lambda: rg.encode_decode(rg.EncoderDecoder.join(N4, READ), np.ones((2, 2, 3)), np.ones((2, 1, 3))),
        r"x_decoder has a batch of 1; it must be 2",
    ),
    (
        lambda: rg.encode_decode(rg.EncoderDecoder.join(N4, READ), np.ones((2, 1, 3)), np.ones((2, 1, 3)), steps=5),
        r"steps is 5 beside x_decoder of 2 steps; the decoder runs as long as its inputs",
    ),
    (
        lambda: rg.encode_decode(
            rg.EncoderDecoder.join(N4, READ), np.ones((2, 1, 3)), np.ones((2, 1, 3)), lengths_decoder=[3]
        ),
        r"lengths",
    ),
    (
        lambda: rg.encode_decode(rg.EncoderDecoder.join(N4, READ), np.ones((2, 2, 3)), np.ones((2, 3))),
        r"x_decoder is one sequence \(T, m\); it must be \(T, 2, m\)",
    ),
    (
        lambda: rg.encode_decode(rg.EncoderDecoder.join(N4, READ), np.ones((2, 2, 3))),
        r"x is None and so is steps",
    ),
    (
        lambda: rg.jacobian_chain(
            rg.encode_decode(rg.EncoderDecoder.join(N4, READ), np.ones((2, 1, 3)), np.ones((2, 1, 3)))
        ).product(3, 0),
        r"t is 3",
    ),
]


def test_analyses_of_one_network_want_one_part():
    net, x, x_dec, s0, rng = make("stacks", True)
    traj = rg.encode_decode(net, x, x_dec, s0)
    loss = rg.losses.squared_error(np.zeros_like(traj.y))
    for analysis in (
        rg.jacobians, rg.singular_values, rg.growth_bounds, lambda t: rg.gradient_reach(t, loss),
        lambda t: rg.truncated_bptt(t, loss, window=2), lambda t: rg.verdict(t, loss), lambda t: rg.rtrl(t, loss),
        lambda t: rg.truncation_bias(t, loss),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"traj\.encoder\)? or .*traj\.decoder|EncoderDecoderTrajectory; rtrl"):
            analysis(traj)
    assert rg.gradient_reach(traj.decoder, loss).log_norm.shape[1] == T_DEC


@pytest.mark.parametrize(("make", "message"), BAD, ids=range(len(BAD)))
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_decoder_of_its_own_outputs_alone():
    """No inputs but what it said: the shortest free-running decoder, for more steps than the encoder had."""
    decoder = rg.Stack.init("gru", 0, 4, 2, n_layers=1, feedback=True)
    net = rg.EncoderDecoder.join(N4, decoder)
    traj = rg.encode_decode(net, np.ones((2, 3, 3)), steps=7)
    assert traj.y.shape == (7, 3, 2)
    assert np.isfinite(rg.bptt(traj, rg.losses.squared_error(np.zeros((7, 3, 2)))).norm())


def test_an_optimizer_steps_every_part():
    """Clipped gradients keep their direction; a step by name lowers the loss and moves every parameter."""
    net, x, x_dec, s0, rng = make("stacks", True)
    loss = rg.losses.squared_error(rng.standard_normal((T_DEC, B, 2)))
    grads = rg.bptt(rg.encode_decode(net, x, x_dec, s0), loss)
    clipped = clip_norm(grads, 1e-3)
    assert clipped.norm() == pytest.approx(1e-3, rel=1e-12)
    for (name, g), (_, small) in zip(grads.parameters(), clipped.parameters(), strict=True):
        assert_close(small * (grads.norm() / 1e-3), g, 1e-12, name)
    stepped, _ = SGD(lr=1.0).step(net, clipped)
    assert rg.bptt(rg.encode_decode(stepped, x, x_dec, s0), loss).loss < grads.loss
    np.testing.assert_array_equal(stepped.M, net.M - clipped.M)
    np.testing.assert_array_equal(stepped.decoder.W_l1, net.decoder.W_l1 - clipped.decoder.W_l1)
    with pytest.raises(ValueError, match=r"replace got \['W'\]"):
        net.replace(W=1)
