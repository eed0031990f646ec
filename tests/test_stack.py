"""Stacks against autograd: outputs, every gradient, joint Jacobians and chains; and PyTorch's own modules."""

import numpy as np
import oracles
import pytest
import stacks
from cases import UNEVEN, assert_close
from stacks import MIXES, make_stack_case

import rnngrad as rg
from rnngrad.training.optimizers import Adam

torch = oracles.torch

RTOL = 1e-11
MIX = pytest.mark.parametrize("mix", MIXES, ids=lambda mix: "-".join(cell for cell, _ in mix))
LENGTHS = pytest.mark.parametrize("lengths", [None, UNEVEN], ids=["even", "uneven"])
DIRECTIONS = pytest.mark.parametrize("bidirectional", [False, True], ids=["forward", "both"])
SHAPES = (
    {"m": 1, "p": 1, "T": 1, "B": 1},
    {"m": 0, "p": 0, "T": 4, "B": 2},
    {"m": 2, "p": 3, "T": 3, "B": 11},
)


def check(case, rtol=RTOL, weights=None):
    """bptt against autograd: the loss, y, every parameter, x, s0, and s of every layer and direction."""
    traj = case.traj
    z = case.rng.standard_normal(traj.y.shape).astype(traj.y.dtype)
    grads = rg.bptt(traj, rg.losses.squared_error(z, weights))
    expected = stacks.gradients(case, oracles.squared_error(z.astype(float), weights))
    active = np.ones(traj.y.shape[:2], bool) if case.lengths is None else np.arange(len(z))[:, None] < case.lengths
    assert_close(traj.y[active], expected.pop("y")[active], rtol, "y")
    for layer, row in enumerate(expected.pop("s")):
        for direction, s in enumerate(row):
            assert_close(grads.layers[layer][direction].s, s, rtol, f"s of layer {layer}, direction {direction}")
    assert {name for name, _ in grads.parameters()} | {"x", "s0", "loss"} == set(expected)
    for name, value in expected.items():
        assert_close(getattr(grads, name), value, rtol, name)
    return grads


@DIRECTIONS
@LENGTHS
@MIX
def test_every_gradient_is_that_of_autograd(mix, lengths, bidirectional):
    check(make_stack_case(mix, lengths=lengths, bidirectional=bidirectional))


@DIRECTIONS
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_degenerate_shapes(shape, bidirectional):
    check(make_stack_case(MIXES[0], bidirectional=bidirectional, **shape))


@DIRECTIONS
def test_weights_of_steps(bidirectional):
    check(make_stack_case(MIXES[2], bidirectional=bidirectional), weights=np.array([0, 1.5, 0, 0, 0.5]))


@DIRECTIONS
@MIX
def test_single_precision(mix, bidirectional):
    grads = check(make_stack_case(mix, dtype="float32", bidirectional=bidirectional, lengths=UNEVEN), rtol=2e-5)
    assert {value.dtype.name for _, value in grads.parameters()} == {"float32"}


def test_layers_of_one_and_of_two_directions():
    """[both] below [forward]: nothing demands the same directions everywhere."""
    both, one = (make_stack_case((("gru", 3),), m=m, bidirectional=b, p=0) for m, b in ((3, True), (6, False)))
    stack = rg.Stack.from_layers([both.stack.layers[0], one.stack.layers[0]])
    rng = np.random.default_rng(3)
    check(stacks.StackCase(stack, both.x, rng.standard_normal((3, 1, stack.N)), np.array(UNEVEN), rng))


# ---------------------------------------------------------------- PyTorch's own modules


@DIRECTIONS
@LENGTHS
@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_torch_modules(kind, lengths, bidirectional):
    """Loaded from a module: outputs and gradients are the module's, packed sequences and initial states included."""
    torch.manual_seed(0)
    module = getattr(torch.nn, kind)(3, 4, num_layers=3, bidirectional=bidirectional, dtype=torch.float64)
    stack = rg.from_torch(module)
    rng = np.random.default_rng(1)
    x, T, B, D = rng.standard_normal((6, 4, 3)), 6, 4, 1 + bidirectional
    ends = np.full(B, T) if lengths is None else np.array([6, 1, 4, 3])
    states = [torch.tensor(rng.standard_normal((3 * D, B, 4)), requires_grad=True) for _ in range(1 + (kind == "LSTM"))]
    xt = torch.tensor(x, requires_grad=True)
    packed = torch.nn.utils.rnn.pack_padded_sequence(xt, torch.tensor(ends), enforce_sorted=False)
    out, _ = module(packed, tuple(states) if kind == "LSTM" else states[0])
    y, _ = torch.nn.utils.rnn.pad_packed_sequence(out, total_length=T)
    z = rng.standard_normal(tuple(y.shape))
    active = np.arange(T)[:, None] < ends
    loss = (torch.tensor(active)[..., None] * (y - torch.tensor(z)) ** 2).sum() / 2
    loss.backward()
    joint = np.stack([s.detach().numpy() for s in states], axis=2)  # [layer and direction, B, S, n]
    joint = joint.transpose(1, 0, 2, 3).reshape(B, 1, -1)
    traj = rg.rollout(stack, x, joint, ends)
    grads = rg.bptt(traj, rg.losses.squared_error(z))
    assert_close(traj.y[active], y.detach().numpy()[active], 1e-13, "y")
    assert grads.loss == pytest.approx(loss.item(), rel=1e-13)
    assert_close(grads.x, xt.grad.numpy(), 1e-12, "x")
    expected_s0 = np.stack([s.grad.numpy() for s in states], axis=2).transpose(1, 0, 2, 3).reshape(B, 1, -1)
    assert_close(grads.s0, expected_s0, 1e-12, "s0")
    for layer in range(3):
        for d, ending in enumerate(["", "_reverse"][:D]):
            part = grads.layers[layer][d]
            for name, wanted in (("W", "weight_hh"), ("U", "weight_ih")):
                value = getattr(module, f"{wanted}_l{layer}{ending}").grad.numpy()
                assert_close(getattr(part, name).reshape(value.shape), value, 1e-12, f"{wanted}_l{layer}{ending}")


# ---------------------------------------------------------------- joint Jacobians


@LENGTHS
@MIX
def test_joint_jacobians_are_those_of_autograd(mix, lengths):
    case = make_stack_case(mix, lengths=lengths)
    J = stacks.jacobians(case)
    assert_close(rg.jacobians(case.traj), J, RTOL)
    blocks = case.stack.blocks
    for upper in range(len(mix)):
        for lower in range(upper + 1, len(mix)):  # block lower-triangular
            assert not J[..., blocks[f"l{upper}"], blocks[f"l{lower}"]].any() or lengths is not None


@MIX
def test_chains_are_products_of_jacobians(mix):
    case = make_stack_case(mix, T=6, lengths=(6, 4, 2))
    J, chain = stacks.jacobians(case), rg.jacobian_chain(case.traj)
    u, v = case.rng.standard_normal((2, 3, 1, case.stack.N))
    for t, k in ((6, 0), (5, 2), (3, 3), (4, 3)):
        Phi = oracles.product(J, t, k)
        assert_close(chain.product(t, k), Phi, RTOL, f"product {t} {k}")
        assert_close(chain.vjp(u, t, k)[:, 0], np.einsum("bi,bij->bj", u[:, 0], Phi), RTOL, "vjp")
        assert_close(chain.jvp(v, t, k)[:, 0], np.einsum("bij,bj->bi", Phi, v[:, 0]), RTOL, "jvp")
        assert_close(chain.log_norm(t, k), np.log(np.linalg.norm(Phi, 2, axis=(1, 2))), 1e-10, "log_norm")
        row, column = f"l{len(mix) - 1}", "l0"
        block = Phi[:, case.stack.blocks[row], case.stack.blocks[column]]
        assert_close(chain.product(t, k, block=(row, column)), block, RTOL, "block")
    assert_close(chain.all_to(6), np.stack([oracles.product(J, 6, k) for k in range(7)]), RTOL, "all_to")
    assert_close(chain.all_from(1), np.stack([oracles.product(J, t, 1) for t in range(1, 7)]), RTOL, "all_from")


def test_chains_do_not_underflow():
    """20 000 steps of a contraction in both layers: log-norms of e^-10000 and below, by blocks too."""
    n, T, a, b = 2, 20_000, 0.5, 0.25
    nets = [
        rg.Network.from_parameters("linear", {"W": [g * np.eye(n)], "U": [np.eye(n)], "b": [np.zeros(n)]})
        for g in (a, b)
    ]
    traj = rg.rollout(rg.Stack.from_layers(nets), np.zeros((T, 1, n)))
    chain = rg.jacobian_chain(traj)
    assert chain.log_norm(T, 0, block=("l0", "l0"))[0] == pytest.approx(T * np.log(a), rel=1e-13)
    # block (1, 0) of [[a, 0], [a, b]]^T is a (a^T - b^T)/(a - b)
    assert chain.log_norm(T, 0, block=("l1", "l0"))[0] == pytest.approx(T * np.log(a) + np.log(a / (a - b)), rel=1e-13)


@MIX
def test_bptt_is_the_chain_sum_and_the_full_window(mix):
    """Through the layers' own adjoints, or through joint Jacobians: one gradient."""
    case = make_stack_case(mix, lengths=UNEVEN)
    traj = case.traj
    loss = rg.losses.squared_error(case.rng.standard_normal(traj.y.shape))
    grads, flow = rg.bptt(traj, loss), rg.gradient_flow(traj, loss)
    full = rg.truncated_bptt(traj, loss, window=5)
    pieces = [flow.pieces(t, k) for t in range(1, 6) for k in range(1, t + 1)]
    for layer in range(len(mix)):
        for name, value in grads.layers[layer][0].parameters():
            total = sum(getattr(piece["layers"][layer][0], name) for piece in pieces)
            assert_close(total, value, 1e-12, f"{name}_l{layer}")
            assert_close(getattr(full.layers[layer][0], name), value, 1e-12, f"{name}_l{layer}, window")
        assert_close(full.layers[layer][0].s, grads.layers[layer][0].s, 1e-12, "s")
    assert_close(full.x, grads.x, 1e-12, "x")
    assert_close(full.s0, grads.s0, 1e-12, "s0")
    short = rg.truncated_bptt(traj, loss, window=2)
    assert np.abs(short.x - grads.x).max() > 1e-3 * np.abs(grads.x).max()


def test_a_backward_direction_has_chains_of_its_own():
    case = make_stack_case((("lstm", 3), ("gru", 2)), bidirectional=True, lengths=UNEVEN)
    traj = case.traj
    backward = traj.layers[1][1]
    J = rg.jacobians(backward)
    assert_close(rg.jacobian_chain(backward).product(5, 2), oracles.product(J, 5, 2), RTOL)
    with pytest.raises(ValueError, match=r"layer 0 runs in both directions, so the stack has no joint Jacobian"):
        rg.jacobian_chain(traj)
    loss = rg.losses.squared_error(np.zeros_like(traj.y))
    for reach in (rg.gradient_reach, rg.layer_reach, rg.gradient_flow):
        with pytest.raises(ValueError, match=r"layer 0 runs in both directions"):
            reach(traj, loss)
    with pytest.raises(ValueError, match=r"no joint states; ask for .* traj\.layers\[0\]\[0\] \(forward\)"):
        _ = traj.states


def test_reach_by_layer_is_the_norm_of_its_part():
    """Against rows carried by autograd's joint Jacobians; the whole is the reach of the joint state."""
    case = make_stack_case(MIXES[1], T=6)
    traj, T, N = case.traj, 6, case.stack.N
    loss = rg.losses.squared_error(case.rng.standard_normal(traj.y.shape))
    J, flow = stacks.jacobians(case), rg.gradient_flow(traj, loss)
    by_layer, whole = rg.layer_reach(traj, loss), rg.gradient_reach(traj, loss)
    for t in range(1, T + 1):
        for lag in range(t + 1):
            rows = np.einsum("bi,bij->bj", flow.direct[t - 1, :, 0], oracles.product(J, t, t - lag))
            expected = np.log(np.linalg.norm(rows, axis=1))
            assert_close(whole.log_norm[:, t - 1, lag], expected, 1e-10, "whole")
            for name, values in by_layer.log_norm.items():
                part = np.linalg.norm(rows[:, case.stack.blocks[name]], axis=1)
                assert_close(np.exp(values[:, t - 1, lag]), part, 1e-10, f"{name} t={t} lag={lag}")
    assert_close(by_layer.log_start, whole.log_norm[..., 0], 0)
    assert np.isneginf(by_layer.log_norm["l0"][..., 0]).all()  # the output is made of the top layer
    assert rows.shape == (3, N)
    with pytest.raises(ValueError, match=r"traj is Trajectory; layer_reach takes the trajectory of a Stack"):
        rg.layer_reach(traj.layers[0][0], loss)


# ---------------------------------------------------------------- the class


def test_replace_and_names():
    stack = make_stack_case(MIXES[0], bidirectional=True).stack
    W = 2 * np.array(stack.W_l1_reverse)
    changed = stack.replace(W_l1_reverse=W, V=3 * np.array(stack.V))
    np.testing.assert_array_equal(changed.layers[1][1].W, W)
    np.testing.assert_array_equal(changed.V, 3 * stack.V)
    np.testing.assert_array_equal(changed.W_l0, stack.W_l0)
    assert [name for name, _ in stack.parameters()][:6] == [
        "W_l0", "U_l0", "b_l0", "W_l0_reverse", "U_l0_reverse", "b_l0_reverse",
    ]  # fmt: skip
    with pytest.raises(ValueError, match=r"replace got \['W_l7'\]; this stack has \['W_l0'"):
        stack.replace(W_l7=W)
    with pytest.raises(AttributeError):
        _ = stack.W
    assert "lstm 3 + 3, gru 4 + 4 -> 2" in repr(stack)
    assert stack.astype("float32").dtype == np.float32


def test_init_is_reproducible_and_chains_sizes():
    stack = rg.Stack.init(["lstm", "vanilla"], 3, [5, 4], 2, bidirectional=True, seed=1)
    again = rg.Stack.init(["lstm", "vanilla"], 3, [5, 4], 2, bidirectional=True, seed=1)
    for (name, a), (_, b) in zip(stack.parameters(), again.parameters(), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=name)
    assert stack.layers[1][0].m == 10 and stack.V.shape == (2, 8)
    assert not np.array_equal(stack.W_l0, stack.W_l0_reverse)
    assert len(rg.Stack.init("gru", 1, 2, n_layers=3).layers) == 3


def test_a_stack_learns():
    """Training by name: the loss of a two-layer bidirectional stack falls."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((12, 16, 2))
    stack = rg.Stack.init("gru", 2, 6, 1, n_layers=2, bidirectional=True)
    target = np.roll(x, -1, axis=0)[..., :1]  # the next input: only the backward direction knows it
    fit = rg.fit(stack, x, target, steps=80, batch=16, optimizer=Adam(lr=0.02), clip=50.0)
    assert (fit.norm_history > 50).any() and (fit.norm_history < 50).any()  # clipped at some steps, not at others
    assert fit.loss_history[-10:].mean() < 0.5 * fit.loss_history[:3].mean()


A = rg.Network.init("gru", 3, 4)
BAD = [
    (lambda: rg.Stack.from_layers([]), r"layers is empty; a stack has at least one layer"),
    (lambda: rg.Stack.from_layers([A, A]), r"layers\[1\] takes 3 inputs; it must take 4, which layers\[0\] gives"),
    (
        lambda: rg.Stack.from_layers([[A, rg.Network.init("gru", 2, 4)]]),
        r"must take 3, which the layer's forward network",
    ),
    (lambda: rg.Stack.from_layers([[A, A, A]]), r"layers\[0\] must be a Network, a System, or a pair"),
    (lambda: rg.Stack.from_layers([A.astype("float32"), A]), r"layers\[1\] is float64; it must be float32"),
    (lambda: rg.Stack.from_layers([rg.Network.init("gru", 3, 2, 1)]), r"layers\[0\] has a readout V; only the stack"),
    (lambda: rg.Stack.from_layers([A], V=np.ones((2, 4))), r"c is missing; a readout has both V and c"),
    (lambda: rg.Stack.from_layers([A], np.ones((2, 3)), np.ones(2)), r"V has shape \(2, 3\)"),
    (lambda: rg.Stack.from_layers(A), r"it must be a list of networks or of pairs"),
    (lambda: rg.Stack.from_layers([3]), r"layers\[0\] must be a Network, a System"),
    (lambda: rg.Stack.init("gru", 2, 2.5, n_layers=2), r"n_hidden is 2.5"),
    (lambda: rg.Stack.init("gru", 2, 3), r"n_layers is None; give it, or a sequence"),
    (lambda: rg.Stack.init(["gru"], 2, [3, 3]), r"number of layers is told twice: cell 1, n_hidden 2"),
    (lambda: rg.Stack.init("grue", 2, 3, n_layers=1), r"cell is 'grue'"),
    (lambda: rg.rollout(rg.Stack.from_layers([A]), np.ones((2, 1, 4))), r"x has shape"),
    (
        lambda: rg.rollout(rg.Stack.from_layers([A]), np.ones((2, 1, 3)), np.ones((1, 1, 5))),
        r"s0 has shape \(1, 1, 5\)",
    ),
    (
        lambda: rg.rtrl(rg.rollout(rg.Stack.from_layers([A]), steps=3), rg.losses.squared_error(np.ones((3, 4)))),
        r"traj is StackTrajectory; rtrl takes one-layer networks",
    ),
]


@pytest.mark.parametrize(("make", "message"), BAD, ids=range(len(BAD)))
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# ---------------------------------------------------------------- a user's system as a layer


def leaky(s, x, q):
    """s' = 0.5 s + tanh-free polynomial of (s, x): works on complex numbers."""
    return np.array([0.5 * s[0] + q[0] * x[0] * s[1] + x[1], q[1] * s[1] + 0.3 * s[0] * s[0] + x[2]])


def torch_leaky(s, x, q):
    return torch.stack(
        [0.5 * s[:, 0] + q[0] * x[:, 0] * s[:, 1] + x[:, 1], q[1] * s[:, 1] + 0.3 * s[:, 0] ** 2 + x[:, 2]], -1
    )


@pytest.mark.parametrize("place", ["below", "between", "above"])
def test_a_system_of_the_user_in_a_stack(place):
    """Gradients of its parameters and of the layers around it; joint Jacobians and chains through it."""
    rng = np.random.default_rng(0)
    system = rg.System(leaky, n_state=2, params=[0.4, 0.6], n_inputs=3)
    nets = [rg.Network.init("gru", m, 3, seed=m) for m in (3, 2)]
    layers = {"below": [system, nets[1]], "between": [nets[0], system, nets[1]], "above": [nets[0], system]}[place]
    width = layers[-1].n
    stack = rg.Stack.from_layers(layers, rng.standard_normal((2, width)), rng.standard_normal(2))
    T, B = 4, 3
    x, s0 = rng.standard_normal((T, B, 3)), 0.3 * rng.standard_normal((B, 1, stack.N))
    P = {name: oracles.tensor(np.array(a)).requires_grad_() for name, a in stack.parameters()}

    def one_step(joint, u):
        h, start, new = u, 0, []
        for layer, net in enumerate(layers):
            s = joint[:, start : start + net.N]
            start += net.N
            if net is system:
                h = torch_leaky(s, h, P[f"params_l{layer}"])
                new.append(h)
                continue
            params = {name: P[f"{name}_l{layer}"] for name in net.parameters}
            s = oracles.step("gru", params, s.reshape(len(s), 1, 3), h)
            h = s[:, 0]
            new.append(h)
        return torch.cat(new, -1), h

    xt, st = oracles.tensor(x).requires_grad_(), oracles.tensor(s0).requires_grad_()
    joint, states, outputs = st[:, 0], [st[:, 0]], []
    for t in range(T):
        joint, h = one_step(joint, xt[t])
        states.append(joint)
        outputs.append(h @ P["V"].mT + P["c"])
    z = rng.standard_normal((T, B, 2))
    loss = ((torch.stack(outputs) - torch.tensor(z)) ** 2).sum() / 2
    traj = rg.rollout(stack, x, s0)
    grads = rg.bptt(traj, rg.losses.squared_error(z))
    found = torch.autograd.grad(loss, [*P.values(), xt, st])
    for name, value in zip([*P, "x", "s0"], found, strict=True):
        assert_close(getattr(grads, name), value.numpy(), 1e-11, name)
    J = rg.jacobians(traj)
    for t in range(T):
        for b in range(B):
            point = states[t][b : b + 1].detach()
            truth = torch.autograd.functional.jacobian(lambda s, t=t, b=b: one_step(s, xt[t, b : b + 1])[0], point)
            assert_close(J[t, b], truth[0, :, 0].numpy(), 1e-11, f"J {t} {b}")
    chain = rg.jacobian_chain(traj)
    assert_close(chain.product(4, 1), oracles.product(J, 4, 1), RTOL)
    assert_close(chain.all_from(0)[-1], oracles.product(J, 4, 0), RTOL)
    full = rg.truncated_bptt(traj, rg.losses.squared_error(z), window=T)
    assert_close(full.x, grads.x, 1e-12)
    with pytest.raises(ValueError, match=r"a layer is a System, which computes in float64"):
        stack.astype("float32")
    with pytest.raises(ValueError, match=r"a user's function cannot be saved"):
        rg.save(stack, "never.npz")
