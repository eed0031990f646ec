"""A gated cell written outside the package: everything the built-in cells get, against autograd; faults are named."""

from types import SimpleNamespace

import numba
import numpy as np
import oracles
import pytest
from cases import assert_close

import rnngrad as rg
from rnngrad._math import logistic_slope, phi_slope

torch = oracles.torch


class Peephole:
    """LSTM whose gates f, i = logistic(a + c) see the cell: peepholes of weight one (Gers & Schmidhuber 2000)."""

    STATES = ("h", "c")
    GATES = ("i", "f", "v", "o")
    GATE_KINDS = ("gate", "gate", "value", "gate")
    UPDATE_BY_STATE = ((0, 1), (0, 1))
    UPDATE_BY_GATE = ((1, 1, 1, 1), (1, 1, 1, 0))

    def update(phi, s, a, a2, k):
        i, _, _ = logistic_slope(a[0] + s[1])
        f, _, _ = logistic_slope(a[1] + s[1])
        v, _ = phi_slope(phi, a[2])
        o, _, _ = logistic_slope(a[3])
        c = f * s[1] + i * v
        return o * phi_slope(phi, c)[0], c

    def update_vjp(phi, s, a, a2, k, g):
        T = type(g[0])
        i, _, di = logistic_slope(a[0] + s[1])
        f, _, df = logistic_slope(a[1] + s[1])
        v, dv = phi_slope(phi, a[2])
        o, _, do = logistic_slope(a[3])
        m, dm = phi_slope(phi, f * s[1] + i * v)
        gc = g[1] + g[0] * o * dm
        gi, gf = gc * v * di, gc * s[1] * df
        return (T(0.0), gc * f + gi + gf), (gi, gf, gc * i * dv, g[0] * m * do), ()


def torch_step(P, s, x):
    def gate(g, h):
        return h @ P["W"][g].mT + x @ P["U"][g].mT + P["b"][g]

    h, c = s[:, 0], s[:, 1]
    new = torch.sigmoid(gate(1, h) + c) * c + torch.sigmoid(gate(0, h) + c) * torch.tanh(gate(2, h))
    return torch.stack([torch.sigmoid(gate(3, h)) * torch.tanh(new), new], 1)


@pytest.fixture
def registered():
    """The cell for one test; the others do not see it."""
    rg.register_cell("peephole", Peephole, activations=("tanh",))
    yield
    del rg.CELLS["peephole"]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_registered_cell_is_like_any_other(registered, dtype, tmp_path):
    rng = np.random.default_rng(0)
    net = rg.Network.init("peephole", 3, 5, seed=1, dtype=dtype)
    x, s0 = rng.standard_normal((6, 4, 3)).astype(dtype), rng.standard_normal((4, 2, 5)).astype(dtype)
    traj = rg.rollout(net, x, s0)
    P = {name: oracles.tensor(np.array(a)).requires_grad_() for name, a in net.parameters.items()}
    xt, s0t = oracles.tensor(x).requires_grad_(), oracles.tensor(s0).requires_grad_()
    states = [s0t]
    for t in range(6):
        states.append(torch_step(P, states[-1], xt[t]))
    z = rng.standard_normal(traj.h.shape).astype(dtype)
    loss = ((torch.stack(states[1:])[:, :, 0] - oracles.tensor(z)) ** 2).sum() / 2
    rtol = 1e-11 if dtype == "float64" else 1e-5
    grads = rg.bptt(traj, rg.losses.squared_error(z))
    for name, value in zip([*P, "x", "s0"], torch.autograd.grad(loss, [*P.values(), xt, s0t]), strict=True):
        assert_close(getattr(grads, name), value.numpy(), rtol, name)
    assert_close(rg.rtrl(traj, rg.losses.squared_error(z)).W, grads.W, rtol, "rtrl")
    J, chain = rg.jacobians(traj), rg.jacobian_chain(traj)
    assert_close(chain.product(6, 1), oracles.product(J, 6, 1), rtol, "chain")
    assert chain.log_norm(6, 1, block=("c", "c")).shape == (4,)
    assert rg.saturation(traj).names[:2] == ("i", "f")
    M, blocks = rg.growth_bounds(traj).steps.blocks, J.reshape(6, 4, 2, 5, 2, 5).swapaxes(3, 4).astype(np.float64)
    assert (np.linalg.norm(blocks, 2, axis=(-2, -1)) <= M * (1 + rtol)).all()
    rg.save(net, tmp_path / "net.npz")
    np.testing.assert_array_equal(rg.load(tmp_path / "net.npz").W, net.W)
    stack = rg.Stack.init(["peephole", "gru"], 3, 4, dtype=dtype)
    assert rg.bptt(rg.rollout(stack, x), rg.losses.squared_error(z[..., :4])).W_l0.shape == (4, 4, 4)


def test_nothing_of_it_is_kept_on_disk(registered, monkeypatch):
    """Its source may change between processes, and no digest of ours would tell."""
    from rnngrad.kernels.cpu import backprop, factors, rollout

    cell = rg.CELLS["peephole"]
    assert not cell.built_in and rg.CELLS["lstm"].built_in
    for make in (rollout, backprop, factors):
        kernel = make(cell, 0)
        runs = (
            [kernel]
            if hasattr(kernel, "compiled")
            else [c.cell_contents for c in kernel.__closure__ if c.cell_contents]
        )
        caches = [type(getattr(run.compiled, "_cache", None)).__name__ for run in runs if hasattr(run, "compiled")]
        assert caches and set(caches) <= {"NullCache", "NoneType"}


def test_replacing(registered):
    with pytest.raises(ValueError, match=r"'peephole', which is taken; replace=True replaces it"):
        rg.register_cell("peephole", Peephole)
    assert rg.register_cell("peephole", Peephole, activations=("tanh",), replace=True) is rg.CELLS["peephole"]
    with pytest.raises(ValueError, match=r"'lstm', which is taken, a built-in cell"):
        rg.register_cell("lstm", Peephole, replace=True)


def test_compiled_functions_are_taken():
    own = vars(Peephole) | {name: numba.njit(getattr(Peephole, name)) for name in ("update", "update_vjp")}
    rg.register_cell("jitted", SimpleNamespace(**own), activations=("tanh",))
    try:
        net = rg.Network.init("jitted", 1, 2)
        assert np.isfinite(rg.rollout(net, np.ones((3, 1, 1))).h).all()
    finally:
        del rg.CELLS["jitted"]


right, right_vjp = numba.njit(Peephole.update), numba.njit(Peephole.update_vjp)


def wrong_vjp(phi, s, a, a2, k, g):
    ds, da, none = right_vjp(phi, s, a, a2, k, g)
    return ds, (da[1], da[0], da[2], da[3]), none


def short_vjp(phi, s, a, a2, k, g):
    ds, da, none = right_vjp(phi, s, a, a2, k, g)
    return ds, (da[0], da[1], da[2]), none


def nan_vjp(phi, s, a, a2, k, g):
    ds, da, none = right_vjp(phi, s, a, a2, k, g)
    return ds, (da[0] * np.nan, da[1], da[2], da[3]), none


def scalar_vjp(phi, s, a, a2, k, g):
    return g[0]


def scalar_update(phi, s, a, a2, k):
    return 1.0


def one_state(phi, s, a, a2, k):
    return (right(phi, s, a, a2, k)[0],)


def no_numba(phi, s, a, a2, k):
    return open("x")


FAULTS = [
    ({"update_vjp": None}, r"update_vjp is None; it must be a function"),
    (
        {"update_vjp": wrong_vjp},
        r"update_vjp of cell 'faulty' \(tanh\) gives .* for result 0, argument a\[0\]; differences",
    ),
    ({"update_vjp": short_vjp}, r"it must return tuples of \[2, 4, 0\]"),
    ({"update": one_state}, r"update of cell 'faulty' \(tanh\) returns 1 numbers; it must return 2"),
    pytest.param(
        {"update": no_numba},
        r"a function of cell 'faulty' does not compile",
        marks=pytest.mark.skipif(numba.config.DISABLE_JIT, reason="nothing is compiled"),
    ),
    ({"update_vjp": nan_vjp}, r"gives nan for result 0"),
    ({"update_vjp": scalar_vjp}, r"it must return tuples of \[2, 4, 0\]"),
    ({"update": scalar_update}, r"returns 1.0; it must return a tuple of 2 numbers"),
    ({"UPDATE_BY_STATE": ((0, 0), (0, 1))}, r"declares that result 0 of update does not depend on s\[1\]"),
    ({"UPDATE_BY_GATE": ((1, 1, 1, 1),)}, r"UPDATE_BY_GATE has shape \(1, 4\); it must have shape \(2, 4\)"),
    ({"GATES": ("a", "b", "c", "d", "e")}, r"GATES has 5 names; there must be 1 to 4"),
    ({"STATES": "h"}, r"STATES is 'h'; it must be a tuple of names"),
    ({"RECURRENT": 5}, r"RECURRENT is 5; it must be in 1…4"),
    ({"INPUT": (1, 0)}, r"INPUT is \(1, 0\); it must be increasing"),
    ({"EMITS_STATE": False}, r"the cell lacks emit, emit_vjp"),
    ({"CONSTANTS": ("beta",)}, r"CONSTANTS is \('beta',\); known are 'alpha'"),
    ({"ACTIVATION": "sine"}, r"ACTIVATION is 'sine'"),
]


@pytest.mark.filterwarnings("ignore::numba.core.errors.NumbaWarning")
@pytest.mark.parametrize(("change", "message"), FAULTS, ids=range(len(FAULTS)))
def test_faults_are_named_and_nothing_is_registered(change, message):
    own = {name: value for name, value in vars(Peephole).items() if not name.startswith("__")} | change
    with pytest.raises(ValueError, match=message):
        rg.register_cell("faulty", SimpleNamespace(**own), activations=("tanh",))
    assert "faulty" not in rg.CELLS


class Tripled:
    """s' = 3 a: one gate and no activation, so no bound of ours applies."""

    STATES, GATES = ("h",), ("a",)
    UPDATE_BY_STATE = ((0,),)
    CONSTANTS = ("alpha", "mask")

    def update(phi, s, a, a2, k):
        return (type(a[0])(3.0) * a[0],)

    def update_vjp(phi, s, a, a2, k, g):
        T = type(g[0])
        return (T(0.0),), (T(3.0) * g[0],), ()


def test_bounds_and_constants_of_a_registered_cell():
    rg.register_cell("tripled", Tripled, activations=("tanh",))
    try:
        net = rg.Network.init("tripled", 1, 2, dt=0.5, tau=2.0, seed=1)
        assert set(net.constants) == {"alpha", "mask"} == set(net.astype("float32").constants)
        traj = rg.rollout(net, 0.1 * np.ones((6, 1, 1)))
        bounds = rg.growth_bounds(traj)
        assert np.isnan(bounds.log_gamma_lambda[:, 1:, 0]).all()
        assert rg.verdict(traj, rg.losses.squared_error(np.ones((6, 1, 2))), wanted=3).label
    finally:
        del rg.CELLS["tripled"]


def test_names():
    for name in ("", "two words", 3):
        with pytest.raises(ValueError, match=r"it must be an identifier"):
            rg.register_cell(name, Peephole)
    with pytest.raises(ValueError, match=r"activations is 3; it must be a tuple of names"):
        rg.register_cell("fine", Peephole, activations=3)
    with pytest.raises(ValueError, match=r"activations is 'sine'"):
        rg.register_cell("fine", Peephole, activations=("sine",))


class Autonomous:
    """h <- tanh(W h + b), which no input drives."""

    STATES = ("h",)
    GATES = ("h",)
    INPUT = ()

    def update(phi, s, a, a2, k):
        return (phi_slope(phi, a[0])[0],)

    def update_vjp(phi, s, a, a2, k, g):
        return (type(g[0])(0.0),), (g[0] * phi_slope(phi, a[0])[1],), ()

    UPDATE_BY_STATE = ((0,),)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_cell_without_inputs(dtype):
    """What a vanilla network makes of inputs that are zero; U has no rows, and nothing depends on x."""
    rg.register_cell("autonomous", Autonomous, activations=("tanh",))
    try:
        rng = np.random.default_rng(0)
        driven = rg.Network.init("vanilla", 3, 5, seed=1, dtype=dtype)
        net = rg.Network.init("autonomous", 3, 5, dtype=dtype).replace(W=driven.W, b=driven.b)
        assert net.U.shape == (0, 5, 3)
        s0, z = rng.standard_normal((4, 1, 5)).astype(dtype), rng.standard_normal((6, 4, 5)).astype(dtype)
        loss, x = rg.losses.squared_error(z), np.zeros((6, 4, 3), dtype)
        wanted = rg.bptt(rg.rollout(driven, x, s0), loss)
        traj = rg.rollout(net, rng.standard_normal(x.shape).astype(dtype), s0)
        found = rg.bptt(traj, loss)
        rtol = 1e-13 if dtype == "float64" else 1e-5
        for name in ("W", "b", "s0", "s"):
            assert_close(getattr(found, name), getattr(wanted, name), rtol, name)
        assert found.U.shape == (0, 5, 3) and not found.x.any()
        assert_close(rg.rtrl(traj, loss).W, wanted.W, rtol, "rtrl")
        v = {name: rng.standard_normal(a.shape).astype(dtype) for name, a in net.parameters.items()}
        own = rg.hessian_vector_product(rg.rollout(driven, x, s0), loss, v | {"U": np.zeros_like(driven.U)})
        assert_close(rg.hessian_vector_product(traj, loss, v)["W"], own["W"], 10 * rtol, "Hessian")
    finally:
        rg.CELLS.pop("autonomous", None)
