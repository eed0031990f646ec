"""Products with the Hessian and the Gauss-Newton matrix against torch differentiated twice."""

import dataclasses
from types import SimpleNamespace

import mpmath
import numpy as np
import oracles
import pytest
import test_dropout as dropped
import test_registration as registration
from cases import CELLS, LOSSES, SHAPES, UNEVEN, assert_close, make_losses
from stacks import MIXES, forward, make_stack_case

import rnngrad as rg
from rnngrad import _dual
from rnngrad._math import ACTIVATIONS

torch = oracles.torch

RTOL = 1e-11  # of products that torch rounds, too; the largest seen is 1e-14
LENGTHS = pytest.mark.parametrize("lengths", [None, UNEVEN], ids=["even", "uneven"])
PAIRS = [  # the others are among the slow tests: each is a kernel to compile
    *((cell, rg.CELLS[cell].activation) for cell in CELLS),
    *(("mgu", phi) for phi in ACTIVATIONS if phi != "tanh"),
]


def product(loss, P, v):
    """H v by name, by autograd of the gradient times v; loss is a scalar tensor of the leaves P."""
    leaves = [a for a in P.values() if a.numel()]
    grads = torch.autograd.grad(loss, leaves, create_graph=True, allow_unused=True)
    along = [torch.tensor(v[name]) for name, a in P.items() if a.numel()]
    terms = [(g * d).sum() for g, d in zip(grads, along, strict=True) if g is not None and g.requires_grad]
    found = torch.autograd.grad(sum(terms), leaves, allow_unused=True) if terms else [None] * len(leaves)
    every = iter(found)
    return {name: next(every) if a.numel() else None for name, a in P.items()}


def assert_product(actual, expected, rtol=RTOL):
    """By name, each to rtol of the largest entry of all: blocks that cancel to 0 have no digits of their own."""
    scale = max(float(a.abs().max()) for a in expected.values() if a is not None)
    for name, value in expected.items():
        value = np.zeros(actual[name].shape) if value is None else value.numpy()
        assert actual[name].shape == value.shape
        if value.size:
            assert np.abs(actual[name] - value).max() <= rtol * scale, name


def leaves(params):
    return {name: oracles.tensor(np.array(a)).requires_grad_() for name, a in params.items()}


def direction(rng, params):
    return {name: rng.standard_normal(np.shape(a)) for name, a in params.items()}


def check(drawn, *loss, rtol=RTOL):
    ours, truth = make_losses(drawn, oracles, *loss)
    P, v = leaves(drawn.params), direction(drawn.rng, drawn.params)
    v = {name: a.astype(drawn.net.dtype).astype(float) for name, a in v.items()}
    x, s0 = drawn.x.astype(float), drawn.s0.astype(float)
    expected = product(oracles.loss_value(drawn.cell, P, x, s0, truth, **drawn.kwargs), P, v)
    given = {name: a.astype(drawn.net.dtype) for name, a in v.items()}
    actual = rg.hessian_vector_product(drawn.traj, ours, given)
    assert {a.dtype for a in actual.values()} == {drawn.net.dtype}
    assert_product(actual, expected, rtol)


@LENGTHS
@pytest.mark.parametrize(("cell", "activation"), PAIRS)
def test_hessian_is_that_of_autograd(case, cell, activation, lengths):
    check(case(cell, activation, lengths=lengths), "cross_entropy")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cell", "activation"),
    [(cell, phi) for cell in CELLS for phi in rg.CELLS[cell].activations if (cell, phi) not in PAIRS],
)
def test_hessian_with_every_activation(case, cell, activation):
    check(case(cell, activation, lengths=UNEVEN))


@pytest.mark.parametrize("cell", ["vanilla", "lstm", "gru_delayed", "mrnn", "continuous"])
def test_single_precision(case, cell):
    check(case(cell, dtype="float32", lengths=UNEVEN), rtol=1e-5)


@LENGTHS
@pytest.mark.parametrize("cell", CELLS)
def test_without_readout(case, cell, lengths):
    check(case(cell, p=0, lengths=lengths))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("cell", CELLS)
def test_degenerate_shapes(case, cell, shape):
    check(case(cell, **shape))


@LENGTHS
@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("weights", [None, "last", "steps", "mask"])
@pytest.mark.parametrize("kind", LOSSES)
def test_losses_and_weights(case, kind, weights, reduction, lengths):
    check(case("lstm", p=3, lengths=lengths), kind, weights, reduction)


@LENGTHS
@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("cell", ["vanilla", "lstm", "gru_delayed", "mrnn", "continuous"])
def test_gauss_newton_is_made_of_dense_jacobians(case, cell, kind, lengths):
    """J^T H J from torch's Jacobian of the outputs and torch's Hessian of the loss with respect to them."""
    drawn = case(cell, n=3, m=2, T=4, B=2, lengths=None if lengths is None else (4, 2))
    ours, truth = make_losses(drawn, oracles, kind, "steps")
    names, sizes = list(drawn.params), [a.size for a in drawn.params.values()]

    def outputs(flat):
        parts = flat.split(sizes)
        P = {name: part.view(drawn.params[name].shape) for name, part in zip(names, parts, strict=True)}
        s = oracles.states(cell, P, drawn.x, drawn.s0, **drawn.kwargs)
        return torch.stack([oracles.readout(cell, P, s_t, drawn.net.activation) for s_t in s[1:]])

    flat = oracles.tensor(rg.flatten_parameters(drawn.net, drawn.net.parameters))
    y, active = outputs(flat), oracles.active_steps(4, 2, drawn.lengths)
    J = torch.autograd.functional.jacobian(outputs, flat).reshape(y.numel(), -1)
    H = torch.autograd.functional.hessian(lambda z: truth(z, active), y).reshape(y.numel(), -1)
    expected = (J.T @ H @ J).numpy()
    curvature = rg.Curvature(drawn.traj, ours)
    assert_close(curvature.gauss_newton(np.eye(sum(sizes))), expected, RTOL)
    for v in drawn.rng.standard_normal((3, sum(sizes))):
        assert v @ rg.gauss_newton_vector_product(drawn.traj, ours, v) >= -1e-12 * np.abs(expected).max() * (v @ v)
    pushed = curvature.outputs(np.eye(sum(sizes)))
    where = np.broadcast_to(active[..., None].numpy(), pushed.shape)
    expected = J.numpy().T.reshape(pushed.shape)
    assert_close(np.where(where, pushed, 0), np.where(where, expected, 0), RTOL)


@pytest.mark.parametrize("cell", CELLS)
def test_both_matrices_are_symmetric(case, cell):
    drawn = case(cell, lengths=UNEVEN)
    curvature = rg.Curvature(drawn.traj, make_losses(drawn, oracles, "binary_cross_entropy")[0])
    u, v = drawn.rng.standard_normal((2, curvature.size))
    for multiply in (curvature.hessian, curvature.gauss_newton):
        Hu, Hv = multiply(np.stack([u, v]))
        assert abs(u @ Hv - v @ Hu) <= 1e-12 * np.linalg.norm(u) * np.linalg.norm(Hv)


@pytest.mark.parametrize("cell", ["lstm", "gru_reset_before", "continuous"])
def test_forms_of_v(case, cell):
    drawn = case(cell)
    net, traj, (loss, _) = drawn.net, drawn.traj, make_losses(drawn, oracles)
    size = sum(a.size for a in drawn.params.values())
    V = drawn.rng.standard_normal((3, size))
    for multiply in (rg.hessian_vector_product, rg.gauss_newton_vector_product):
        product = multiply(traj, loss, V)
        assert product.shape == (3, size)
        for v, expected in zip(V, product, strict=True):
            assert_close(multiply(traj, loss, v), expected, 1e-13)
        named = multiply(traj, loss, rg.unflatten_parameters(net, V[0]))
        assert list(named) == list(net.parameters)
        assert_close(rg.flatten_parameters(net, named), product[0], 1e-13)
        gradient = rg.bptt(traj, loss)
        by_gradient = multiply(traj, loss, gradient)
        assert_close(by_gradient["U"], multiply(traj, loss, dict(gradient.parameters()))["U"], 0)
        alone = multiply(traj, loss, {"U": named["U"]})
        rest = multiply(traj, loss, {name: 0 * a if name == "U" else a for name, a in net.parameters.items()})
        whole = multiply(traj, loss, dict(net.parameters) | {"U": named["U"]})
        for name in net.parameters:
            assert_close(alone[name] + rest[name], whole[name], 1e-12, name)
        # linear to the last bit under powers of two, however far from 1
        np.testing.assert_array_equal(multiply(traj, loss, np.ldexp(V[0], -900)), np.ldexp(product[0], -900))
        np.testing.assert_array_equal(multiply(traj, loss, 0 * V[0]), 0)
    many = rg.unflatten_parameters(net, V)
    assert many["W"].shape == (3, *net.W.shape)
    np.testing.assert_array_equal(rg.flatten_parameters(net, {"b": many["b"][1]})[: net.W.size], 0)


def test_many_directions_in_pieces(case, monkeypatch):
    drawn = case("gru", lengths=UNEVEN)
    curvature = rg.Curvature(drawn.traj, make_losses(drawn, oracles)[0])
    V = drawn.rng.standard_normal((7, curvature.size))
    whole = curvature.hessian(V), curvature.gauss_newton(V)
    one = drawn.traj.states.nbytes + 2 * drawn.traj.a.nbytes
    monkeypatch.setattr("rnngrad.gradients.curvature._MEMORY", 3 * one)
    for found, expected in zip((curvature.hessian(V), curvature.gauss_newton(V)), whole, strict=True):
        np.testing.assert_array_equal(found, expected)
    assert curvature.hessian(V[:0]).shape == (0, curvature.size)


@LENGTHS
@pytest.mark.parametrize("bidirectional", [False, True], ids=["forward", "both"])
@pytest.mark.parametrize("mix", MIXES, ids=lambda mix: "-".join(cell for cell, _ in mix))
def test_stacks(mix, bidirectional, lengths):
    drawn = make_stack_case(mix, bidirectional=bidirectional, lengths=lengths)
    z = drawn.rng.standard_normal((5, 3, 2))
    P = leaves(dict(drawn.stack.parameters()))
    y, _ = forward(drawn.stack, P, oracles.tensor(drawn.x), oracles.tensor(drawn.s0), lengths)
    loss = oracles.squared_error(z)(y, oracles.active_steps(5, 3, lengths))
    v = direction(drawn.rng, dict(drawn.stack.parameters()))
    ours = rg.losses.squared_error(z)
    assert_product(rg.hessian_vector_product(drawn.traj, ours, v), product(loss, P, v))
    # where every output is met, the Hessian is the Gauss-Newton matrix
    met = rg.losses.squared_error(drawn.traj.y)
    second, first = (
        multiply(drawn.traj, met, v) for multiply in (rg.hessian_vector_product, rg.gauss_newton_vector_product)
    )
    for name in v:
        assert_close(second[name], first[name], 1e-12, name)


@pytest.mark.parametrize("cell", dropped.CELLS)
def test_masked_cells(cell):
    dropout = rg.Dropout(0.4, "step", seed=3)
    net, traj, x, s0 = dropped.drawn(cell, dropout)
    T, B, n = traj.h.shape
    m, z = dropout.masks(T, B, n), np.random.default_rng(0).standard_normal((T, B, n))
    P, states = leaves(net.parameters), [oracles.tensor(s0)]
    for t in range(T):
        states.append(dropped.masked_step(cell, P, states[-1], oracles.tensor(x[t]), oracles.tensor(m[t])))
    h = torch.stack([s[:, 0] for s in states[1:]])
    v = direction(np.random.default_rng(1), net.parameters)
    expected = product(((h - torch.tensor(z)) ** 2).sum() / 2, P, v)
    assert_product(rg.hessian_vector_product(traj, rg.losses.squared_error(z), v), expected)


def test_folded_batch_normalisation():
    """The cell behind it, h = o tanh(scale c + shift), by name."""
    rng = np.random.default_rng(0)
    n, T, B = 3, 4, 2
    scale, shift = rng.standard_normal((2, n))
    plain = rg.Network.init("lstm", 2, n, seed=1)
    net = rg.Network.from_parameters("lstm_scaled", dict(plain.parameters))
    net = dataclasses.replace(net, constants={"scale": scale, "shift": shift})
    x, z = rng.standard_normal((T, B, 2)), rng.standard_normal((T, B, n))
    traj = rg.rollout(net, x)
    P, sigma = leaves(plain.parameters), torch.sigmoid
    h = c = torch.zeros(B, n, dtype=torch.float64)
    loss = 0
    for t in range(T):
        i, f, v, o = (h @ P["W"][g].mT + oracles.tensor(x[t]) @ P["U"][g].mT + P["b"][g] for g in range(4))
        c = sigma(f) * c + sigma(i) * torch.tanh(v)
        h = sigma(o) * torch.tanh(oracles.tensor(scale) * c + oracles.tensor(shift))
        loss = loss + ((h - oracles.tensor(z[t])) ** 2).sum() / 2
    v = direction(rng, plain.parameters)
    assert_product(rg.hessian_vector_product(traj, rg.losses.squared_error(z), v), product(loss, P, v))


@pytest.fixture
def register():
    """``register(name, cell)`` for one test."""
    known = set(rg.CELLS)
    yield lambda name, cell: rg.register_cell(name, cell, activations=("tanh",))
    for name in set(rg.CELLS) - known:
        del rg.CELLS[name]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_registered_cell(register, dtype):
    register("peephole", registration.Peephole)
    rng = np.random.default_rng(0)
    net = rg.Network.init("peephole", 3, 5, seed=1, dtype=dtype)
    x, s0 = rng.standard_normal((6, 4, 3)).astype(dtype), rng.standard_normal((4, 2, 5)).astype(dtype)
    z = rng.standard_normal((6, 4, 5)).astype(dtype)
    traj, loss = rg.rollout(net, x, s0), rg.losses.squared_error(z)
    P, states = leaves(net.parameters), [oracles.tensor(s0)]
    for t in range(6):
        states.append(registration.torch_step(P, states[-1], oracles.tensor(x[t])))
    truth = ((torch.stack(states[1:])[:, :, 0] - oracles.tensor(z)) ** 2).sum() / 2
    v = {name: a.astype(dtype).astype(float) for name, a in direction(rng, net.parameters).items()}
    given = {name: a.astype(dtype) for name, a in v.items()}
    rtol = RTOL if dtype == "float64" else 1e-5
    assert_product(rg.hessian_vector_product(traj, loss, given), product(truth, P, v), rtol)
    curvature = rg.Curvature(traj, loss)
    u, w = rng.standard_normal((2, curvature.size)).astype(dtype)
    Hu, Hw = curvature.hessian(np.stack([u, w])).astype(float)
    assert abs(u @ Hw - w @ Hu) <= rtol * np.linalg.norm(u) * np.linalg.norm(Hw)


class OneState:
    STATES, GATES, UPDATE_BY_STATE = ("h",), ("a",), ((0,),)


def cell_of(update, update_vjp):
    return SimpleNamespace(
        **{k: v for k, v in vars(OneState).items() if k.isupper()}, update=update, update_vjp=update_vjp
    )


def sine(phi, s, a, a2, k):
    return (np.sin(a[0]),)


def sine_vjp(phi, s, a, a2, k, g):
    return (type(g[0])(0.0),), (g[0] * np.cos(a[0]),), ()


def bent(phi, s, a, a2, k):
    return (abs(a[0]) * a[0],)


def bent_vjp(phi, s, a, a2, k, g):
    return (type(g[0])(0.0),), (type(g[0])(2.0) * abs(a[0]) * g[0],), ()


def compared(phi, s, a, a2, k):
    return (a[0] if a[0] > type(a[0])(0.0) else type(a[0])(0.0),)


def compared_vjp(phi, s, a, a2, k, g):
    return (type(g[0])(0.0),), (g[0] if a[0] > type(a[0])(0.0) else type(g[0])(0.0),), ()


def test_formulae_of_a_registered_cell(register):
    """Analytic functions of NumPy are differentiated; what is not analytic is refused, never differentiated wrongly."""
    rng = np.random.default_rng(0)
    x, z = rng.standard_normal((4, 2, 3)), rng.standard_normal((4, 2, 2))

    def drawn(name, *functions):
        register(name, cell_of(*functions))
        net = rg.Network.init(name, 3, 2, seed=1)
        return net, rg.rollout(net, x), rg.losses.squared_error(z)

    net, traj, loss = drawn("sine", sine, sine_vjp)
    P, h, truth = leaves(net.parameters), torch.zeros(2, 2, dtype=torch.float64), 0
    for t in range(4):
        h = torch.sin(h @ P["W"][0].mT + oracles.tensor(x[t]) @ P["U"][0].mT + P["b"][0])
        truth = truth + ((h - oracles.tensor(z[t])) ** 2).sum() / 2
    v = direction(rng, net.parameters)
    assert_product(rg.hessian_vector_product(traj, loss, v), product(truth, P, v))
    _, traj, loss = drawn("bent", bent, bent_vjp)
    with pytest.raises(ValueError, match=r"derivative of update_vjp of cell 'bent' \(tanh\) is .* no abs"):
        rg.hessian_vector_product(traj, loss, np.ones(12))
    _, traj, loss = drawn("compared", compared, compared_vjp)
    with pytest.raises(ValueError, match=r"update_vjp of cell 'compared' \(tanh\) does not run on complex numbers"):
        rg.hessian_vector_product(traj, loss, np.ones(12))


def test_squared_error_is_quadratic_in_the_readout():
    """H over (V, c) is sum_t [h; 1][h; 1]^T for each output, whatever the network."""
    rng = np.random.default_rng(0)
    net = rg.Network.init("linear", 2, 3, 2, seed=1)
    traj = rg.rollout(net, rng.standard_normal((6, 2, 2)))
    dV, dc = rng.standard_normal((2, 3)), rng.standard_normal(2)
    found = rg.hessian_vector_product(traj, rg.losses.squared_error(rng.standard_normal((6, 2, 2))), {"V": dV, "c": dc})
    h = traj.h.reshape(-1, 3)
    dy = h @ dV.T + dc
    assert_close(found["V"], dy.T @ h, 1e-13)
    assert_close(found["c"], dy.sum(axis=0), 1e-13)


def test_what_has_no_curvature():
    """relu is piecewise linear and one step of it has no product of weights: only the outer product is left."""
    rng = np.random.default_rng(0)
    net = rg.Network.init("vanilla", 2, 3, activation="relu", seed=1)
    traj = rg.rollout(net, rng.standard_normal((1, 4, 2)), rng.standard_normal((4, 1, 3)))
    loss = rg.losses.squared_error(rng.standard_normal((1, 4, 3)))
    v = rng.standard_normal(3 * 3 + 3 * 2 + 3)
    assert_close(rg.hessian_vector_product(traj, loss, v), rg.gauss_newton_vector_product(traj, loss, v), 1e-13)
    off = rg.losses.squared_error(np.zeros((1, 4, 3)), weights=np.zeros(1))
    np.testing.assert_array_equal(rg.hessian_vector_product(traj, off, v), 0)


@pytest.mark.parametrize("x", [0.0, 1e-9, -0.3, 2.0, -15.0, 25.0, -40.0, 100.0])
def test_dual_numbers_of_the_activations(x):
    """First and second derivatives to relative accuracy, also where the function saturates; 1 - 2s cancels at 0."""
    z, step = complex(x, 3.0 * _dual.STEP), _dual.STEP
    with mpmath.workdps(500):
        e, one = mpmath.mpf(x), mpmath.mpf(1)
        s = one / (one + mpmath.exp(-e))
        truths = {
            "tanh": (mpmath.sech(e) ** 2, -2 * mpmath.tanh(e) * mpmath.sech(e) ** 2),
            "logistic": (s * (1 - s), s * (1 - s) * (1 - 2 * s)),
            "softplus": (s, s * (1 - s)),
            "relu": (float(x > 0), 0),
            "identity": (1, 0),
        }
        for name, wanted in truths.items():
            value, slope = _dual._phi_slope(ACTIVATIONS[name], z)
            again = _dual._phi(ACTIVATIONS[name], z)
            assert value == again and value.real == _dual._math.phi(ACTIVATIONS[name], x)
            first, second = value.imag / step / 3, slope.imag / step / 3
            for found, true in ((first, wanted[0]), (slope.real, wanted[0]), (second, wanted[1])):
                true = float(true)
                assert abs(found - true) <= 1e-14 * abs(true) + (1e-16 if abs(x) < 1 else 0), (name, found, true)
        s_, co, slope = _dual._logistic_slope(z)
        assert s_.imag == -co.imag and slope.real == _dual._math.logistic_slope(x)[2]


def test_errors(case):
    drawn = case("lstm")
    traj, (loss, _) = drawn.traj, make_losses(drawn, oracles)
    size = sum(a.size for a in drawn.params.values())
    for multiply in (rg.hessian_vector_product, rg.gauss_newton_vector_product):
        with pytest.raises(
            ValueError, match=r"v holds \['Q'\]; the network's parameters are \['W', 'U', 'b', 'V', 'c'\]"
        ):
            multiply(traj, loss, {"Q": np.ones(3)})
        with pytest.raises(ValueError, match=r"v\['b'\] has shape \(3,\); it must have shape \(4, 4\)"):
            multiply(traj, loss, {"b": np.ones(3)})
        with pytest.raises(ValueError, match=r"v\['b'\] has dtype float32; it must be float64"):
            multiply(traj, loss, {"b": np.ones((4, 4), np.float32)})
        with pytest.raises(ValueError, match=rf"v has shape \(3,\); it must have shape \({size},\)"):
            multiply(traj, loss, np.ones(3))
        with pytest.raises(ValueError, match=r"v is nan at index \(0, 1\)"):
            multiply(traj, loss, np.where(np.arange(2 * size).reshape(2, size) == 1, np.nan, 1.0))
        with pytest.raises(ValueError, match=r"loss is int; it must be made by rnngrad\.losses"):
            multiply(traj, 3, np.ones(size))
        with pytest.raises(ValueError, match=r"traj is a Network; second derivatives are there for"):
            multiply(drawn.net, loss, np.ones(size))
    with pytest.raises(ValueError, match=r"values is list; it must map names"):
        rg.flatten_parameters(drawn.net, [1.0])
    with pytest.raises(ValueError, match=r"flat has shape \(2,\)"):
        rg.unflatten_parameters(drawn.net, np.ones(2))


def test_trajectories_without_second_derivatives():
    rng = np.random.default_rng(0)
    x, fed = rng.standard_normal((4, 2, 3)), rg.Stack.init("gru", 3, 4, 2, n_layers=1, feedback=True)
    decoder = rg.Stack.init("gru", 0, 4, 2, n_layers=1, feedback=True)
    model = rg.EncoderDecoder.join(rg.Stack.init("gru", 3, 4, n_layers=1), decoder)
    system = rg.System(lambda s, x, p: (p[0] * s[0], s[1]), 2, 0.5, n_inputs=3)
    normed = rg.BatchNormLSTM.init(3, 4)
    trajectories = {
        r"StackTrajectory with feedback": rg.rollout(fed, x),
        r"Trajectory of a System": rg.rollout(system, x),
        r"BatchNormTrajectory": rg.rollout(normed, x),
        r"EncoderDecoderTrajectory": rg.encode_decode(model, x, steps=3),
    }
    for what, traj in trajectories.items():
        with pytest.raises(ValueError, match=rf"traj is a {what}; second derivatives are there for a Network and"):
            rg.Curvature(traj, rg.losses.squared_error(np.zeros(traj.y.shape)))


def test_what_is_beyond_the_range():
    net = rg.Network.init("linear", 1, 2, scheme="identity", seed=0)
    net = net.replace(W=net.W * 1e3)
    traj = rg.rollout(net, np.ones((60, 1, 1)), s0=[[[0.0, 0.0]]])
    assert np.isfinite(traj.h).all()
    with pytest.raises(
        OverflowError, match=r"the product is beyond float64: the tangents grow too large over 60 steps"
    ):
        rg.hessian_vector_product(traj, rg.losses.squared_error(traj.h), np.ones(8))
