"""Bad arguments raise ValueError, and the message names the argument, what it was, and what it must be."""

import numpy as np
import pytest
import reference
from cases import CELLS, make_case

import rnngrad as rg
from rnngrad import _cuda

CASE = make_case("lstm", n=4, m=3, p=2, T=5, B=3)
NET, X, S0 = CASE.net, CASE.x, CASE.s0
ONE = make_case("vanilla", n=4, m=3, p=0, T=5, B=1)
LOSS = rg.losses.squared_error(np.zeros((5, 3, 2)))


def spoiled(a, index, value):
    a = np.array(a)
    a[index] = value
    return a


def parameters(**changes):
    """Parameters of the LSTM, some of them changed; None takes one away."""
    return {name: a for name, a in {**NET.parameters, **changes}.items() if a is not None}


def make(cell="lstm", changes=None, **options):
    return lambda: rg.Network.from_parameters(cell, parameters(**(changes or {})), **options)


def init(*args, **options):
    return lambda: rg.Network.init(*(args or ("lstm", 3, 4, 2)), **options)


def rollout(x=X, *args, net=NET, **options):
    return lambda: rg.rollout(net, x, *args, **options)


def chain(method, *args, **options):
    return lambda: getattr(rg.jacobian_chain(CASE.traj), method)(*args, **options)


def truncated(*args, **options):
    return lambda: rg.truncated_bptt(CASE.traj, LOSS, *args, **options)


F32 = np.float32
BAD = {
    # inputs
    "x of m+1": (rollout(np.zeros((5, 3, 4))), r"x has shape \(5, 3, 4\); it must have shape \(T, B, 3\)"),
    "x of m+1, one sequence": (rollout(np.zeros((5, 4))), r"x has shape \(5, 4\); it must have shape \(T, 3\)"),
    "x of one axis": (rollout(np.zeros(3)), r"x has shape \(3,\); it must have shape \(T, B, 3\)"),
    "x of four axes": (rollout(np.zeros((1, 5, 3, 3))), r"x has shape \(1, 5, 3, 3\); it must have shape \(T, B, 3\)"),
    "x empty in T": (rollout(np.zeros((0, 3, 3))), r"x has shape \(0, 3, 3\): an empty sequence; T and B must be"),
    "x empty in B": (rollout(np.zeros((5, 0, 3))), r"x has shape \(5, 0, 3\): an empty sequence"),
    "x empty, one sequence": (rollout(np.zeros((0, 3))), r"x has shape \(0, 1, 3\): an empty sequence"),
    "x float32 with float64": (rollout(X.astype(F32)), r"x has dtype float32; it must be float64 like the rest"),
    "x float64 with float32": (rollout(X, net=NET.astype("float32")), r"x has dtype float64; it must be float32"),
    "x complex": (rollout(X + 0j), r"x has dtype complex128; it must be real numbers"),
    "x of strings": (rollout(np.full((5, 3, 3), "a")), r"x has dtype <U1; it must be real numbers"),
    "x of objects": (rollout([[[None] * 3] * 3] * 5), r"x has dtype object; it must be real numbers"),
    "x ragged": (rollout([[[1.0, 2.0, 3.0]], [[1.0]]]), r"^x "),
    "x with a NaN": (rollout(spoiled(X, (1, 2, 0), np.nan)), r"x is nan at index \(1, 2, 0\) \(1 of 45 entries"),
    "x with an infinity": (rollout(spoiled(X, (4, 0, 1), -np.inf)), r"x is -inf at index \(4, 0, 1\)"),
    "x with a NaN, one sequence": (rollout(spoiled(X[:, 0], (3, 1), np.nan)), r"x is nan at index \(3, 1\)"),
    "neither x nor steps": (rollout(None), r"x is None and so is steps"),
    "x and steps": (rollout(X, steps=5), r"steps is 5 beside x"),
    "steps of none": (rollout(None, steps=0), r"steps is 0; it must be at least 1"),
    "steps not whole": (rollout(None, steps=2.0), r"steps is 2.0; it must be an integer"),
    # initial state
    "s0 of another shape": (rollout(X, np.zeros((3, 1, 4))), r"s0 has shape \(3, 1, 4\); it must .* \(3, 2, 4\)"),
    "s0 (n,) of an LSTM": (rollout(X, np.zeros(4)), r"s0 has shape \(4,\); it must have shape \(3, 2, 4\)"),
    "s0 float32": (rollout(X, S0.astype(F32)), r"s0 has dtype float32; it must be float64"),
    "s0 with a NaN": (rollout(X, spoiled(S0, (2, 1, 3), np.nan)), r"s0 is nan at index \(2, 1, 3\)"),
    "s0 ragged": (rollout(X, [[1.0], [1.0, 2.0]]), r"^s0 "),
    # lengths, backend
    "lengths ragged": (rollout(lengths=[[1], [1, 2]]), r"^lengths "),
    "lengths no numbers": (rollout(lengths="abc"), r"lengths has shape \(\) and dtype <U3; it must be 3 integers"),
    "lengths of 0": (rollout(lengths=[5, 0, 1]), r"lengths\[1\] is 0; it must be in 1…5 \(T = 5 steps\)"),
    "lengths beyond T": (rollout(lengths=[5, 5, 6]), r"lengths\[2\] is 6; it must be in 1…5"),
    "lengths of another count": (rollout(lengths=[5, 5]), r"lengths has shape \(2,\) .*; it must be 3 integers \(B,\)"),
    "lengths not whole": (rollout(lengths=[5.0, 5.0, 1.0]), r"lengths .*dtype float64; it must be 3 integers"),
    "unknown backend": (rollout(backend="tpu"), r"backend is 'tpu'; it must be one of 'auto', 'cpu', 'cuda'"),
    # networks
    "unknown cell": (make("elman"), r"cell is 'elman'; it must be one of vanilla, "),
    "cell no name": (init(["lstm"], 3, 4), r"^cell is \['lstm'\]; it must be one of"),
    "unknown activation": (make(activation="gelu"), r"activation is 'gelu'; it must be one of 'tanh', 'logistic'"),
    "activation of linear": (init("linear", 3, 4, activation="tanh"), r"activation is 'tanh'; .*one of 'identity'"),
    "no W": (make(changes={"W": None}), r"parameters lack 'W'; they hold \['U', 'V', 'b', 'c'\]"),
    "no b": (make(changes={"b": None}), r"'lstm' network must be .*; missing: \['b'\]"),
    "V without c": (make(changes={"c": None}), r"missing: \['c'\]"),
    "one too many": (make(changes={"W2": NET.W}), r"not among them: \['W2'\]"),
    "W of two axes": (make(changes={"W": NET.W[0]}), r"W has shape \(4, 4\); it must have shape \(4, n, n\)"),
    "W ragged": (make(changes={"W": [[1.0], [1.0, 2.0]]}), r"^W "),
    "U ragged": (make(changes={"U": [[1.0], [1.0, 2.0]]}), r"^U "),
    "W of three gates": (make(changes={"W": NET.W[:3]}), r"W has shape \(3, 4, 4\); it must have shape \(4, 4, 4\)"),
    "W not square": (make(changes={"W": NET.W[:, :, :3]}), r"W has shape \(4, 4, 3\); it must have shape \(4, 4, 4\)"),
    "W of no units": (make(changes={"W": np.zeros((4, 0, 0)), "U": np.zeros((4, 0, 3)), "b": np.zeros((4, 0)),
                                    "V": None, "c": None}), r"W has shape \(4, 0, 0\); n must be at least 1"),
    "W float16": (make(changes={"W": NET.W.astype("float16")}), r"dtype is dtype\('float16'\); it must be 'float64'"),
    "U of another m": (make(changes={"U": NET.U[:, :3]}), r"U has shape \(4, 3, 3\); it must have shape \(4, 4, 3\)"),
    "b of two axes too few": (make(changes={"b": NET.b[0]}), r"b has shape \(4,\); it must have shape \(4, 4\)"),
    "b float32": (make(changes={"b": NET.b.astype(F32)}), r"b has dtype float32; it must be float64 like the rest"),
    "c of another p": (make(changes={"c": np.zeros(3)}), r"c has shape \(3,\); it must have shape \(2,\) like"),
    "NaN in W": (make(changes={"W": spoiled(NET.W, (2, 1, 3), np.nan)}), r"W is nan at index \(2, 1, 3\) \(1 of 64"),
    "infinity in c": (make(changes={"c": [0, np.inf]}), r"c is inf at index \(1,\)"),
    "unknown scheme": (init(scheme="lecun"), r"scheme is 'lecun'; it must be one of 'orthogonal', 'xavier'"),
    "gain without use": (init(gain=2.0), r"gain is 2.0; scheme 'orthogonal' takes none"),
    "gain below 0": (init(scheme="gaussian", gain=-1.0), r"gain is -1.0; it must be in \[0"),
    "n_hidden of 0": (init("lstm", 3, 0), r"n_hidden is 0; it must be at least 1"),
    "n_inputs below 0": (init("lstm", -1, 4), r"n_inputs is -1; it must be at least 0"),
    "n_hidden not whole": (init("lstm", 3, 4.0), r"n_hidden is 4.0; it must be an integer"),
    "n_outputs a flag": (init("lstm", 3, 4, True), r"n_outputs is True; it must be an integer"),
    "unknown dtype": (init(dtype="float16"), r"dtype is 'float16'; it must be 'float64' or 'float32'"),
    "no dtype at all": (init(dtype="double precision"), r"dtype is 'double precision'; it must be"),
    "forget bias of a GRU": (init("gru", 3, 4, forget_bias=1.0), r"forget_bias is 1.0; only an LSTM"),
    "dt of an LSTM": (init(dt=0.1), r"dt and tau belong to continuous-time networks; cell is 'lstm'"),
    "dt of 0": (init("continuous", 3, 4, dt=0.0), r"dt is 0.0; it must be in \(0"),
    "alpha above 1": (init("continuous", 3, 4, dt=0.5, tau=[1, 0.4, 1, 1]), r"dt/tau is 0.5/0.4 at unit 1; .*\(0, 1\]"),
    "tau of words": (init("continuous", 3, 4, tau=["a", "b", "c", "d"]), r"^tau "),
    "tau of another n": (init("continuous", 3, 4, tau=[1, 1]), r"tau has shape \(2,\); it must have shape \(4,\)"),
    "replace by another shape": (lambda: NET.replace(W=np.zeros((4, 3, 3))), r"W has shape \(4, 3, 3\); .*\(4, 4, 4\)"),
    "replace what is not there": (lambda: NET.replace(W3=1), r"replace got \['W3'\]; a 'lstm' network has \['W'"),
    "replace by float32": (lambda: NET.replace(b=NET.b.astype(F32)), r"b has dtype float32; it must be float64"),
    "astype float16": (lambda: NET.astype("float16"), r"dtype is 'float16'"),
    "resample an LSTM": (lambda: NET.resample(0.1), r"resample needs a continuous-time network; cell is 'lstm'"),
    # chains
    "t before k": (chain("product", 2, 3), r"k is 3; it must be in 0…2"),
    "t beyond T": (chain("log_norm", 6, 0), r"t is 6; it must be in 0…5"),
    "k below 0": (chain("product", 2, -1), r"k is -1; it must be in 0…2"),
    "t not whole": (chain("product", 2.0, 1), r"t is 2.0; it must be an integer"),
    "all_from beyond T": (chain("all_from", 6), r"k is 6; it must be in 0…5"),
    "all_to below 0": (chain("all_to", -1), r"t is -1; it must be in 0…5"),
    "unknown norm": (chain("log_norm", 2, 1, ord=1), r"ord is 1; it must be one of 2, 'fro'"),
    "unknown norm of all": (chain("log_norms", ord="nuc"), r"ord is 'nuc'; it must be one of 2, 'fro'"),
    "unknown block": (chain("product", 2, 1, block=("h", "u")), r"block is \('h', 'u'\); .* pair .*\('h', 'c'\)"),
    "block no pair": (chain("product", 2, 1, block=3), r"block is 3; it must be a pair"),
    "block of one": (chain("log_norm", 2, 1, block=("h",)), r"block is \('h',\); it must be a pair"),
    "u of another shape": (chain("vjp", np.zeros((3, 4)), 2, 1), r"u has shape \(3, 4\); it must .* \(3, 2, 4\)"),
    "v of another precision": (chain("jvp", S0.astype(F32), 2, 1), r"v has dtype float32; it must be float64"),
    "v with a NaN": (chain("jvp", spoiled(S0, (0, 0, 0), np.nan), 2, 1), r"v is nan at index \(0, 0, 0\)"),
    # gradients
    "target of another p": (lambda: rg.bptt(CASE.traj, rg.losses.squared_error(np.zeros((5, 3, 3)))),
                            r"target has shape \(5, 3, 3\); it must have shape \(5, 3, 2\)"),
    "weights of another T": (lambda: rg.rtrl(CASE.traj, rg.losses.squared_error(np.zeros((5, 3, 2)), np.ones(4))),
                             r"weights has shape \(4,\); it must be \(5,\) or \(5, 3\)"),
    "target with a NaN": (lambda: rg.bptt(CASE.traj, rg.losses.squared_error(spoiled(LOSS.target, (1, 2, 0), np.nan))),
                          r"target is nan at index \(1, 2, 0\)"),
    "no loss": (lambda: rg.gradient_flow(CASE.traj, None), r"loss is NoneType; it must be made by rnngrad.losses"),
    "no window": (truncated(), r"give either window or both k1 and k2; got window=None, k1=None, k2=None"),
    "window and k1": (truncated(2, k1=1, k2=2), r"give either window or both"),
    "k1 alone": (truncated(k1=2), r"give either window or both k1 and k2"),
    "window of 0": (truncated(0), r"window is 0; it must be at least 1"),
    "window not whole": (truncated(1.5), r"window is 1.5; it must be an integer"),
    "k1 of 0": (truncated(k1=0, k2=2), r"k1 is 0; it must be at least 1"),
    "k2 below k1": (truncated(k1=3, k2=2), r"k2 is 2; it must be at least 3"),
    "piece at step 0": (lambda: rg.gradient_flow(CASE.traj, LOSS).pieces(2, 0), r"k is 0; it must be in 1…2"),
    "piece of no loss": (lambda: rg.gradient_flow(CASE.traj, LOSS).pieces(6, 1), r"t is 6; it must be in 1…5"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_bad_argument_is_named(what):
    call, message = BAD[what]
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("cell", CELLS)
def test_every_parameter_of_every_cell_is_checked(cell):
    params = reference.random_params(cell, 3, 2, 2)
    for name, value in params.items():
        if name not in ("W", "V") and value.size:  # their shapes say n and p
            with pytest.raises(ValueError, match=f"{name} has shape"):
                rg.Network.from_parameters(cell, {**params, name: np.concatenate([value, value])})
        with pytest.raises(ValueError, match=f"{name} has shape"):
            rg.Network.from_parameters(cell, {**params, name: value[..., None]})
        if value.size:
            hole = (0,) * value.ndim
            with pytest.raises(ValueError, match=f"{name} is nan at index") as caught:
                rg.Network.from_parameters(cell, {**params, name: spoiled(value, hole, np.nan)})
            assert str(hole) in str(caught.value)
    with pytest.raises(ValueError, match=r"missing: \['b'\]"):
        rg.Network.from_parameters(cell, {name: a for name, a in params.items() if name != "b"})


def test_cuda_is_refused_by_name_or_runs():
    if _cuda.missing() is None:
        np.testing.assert_allclose(rg.rollout(NET, X, backend="cuda").states, rg.rollout(NET, X).states, rtol=1e-12)
    else:
        with pytest.raises(rg.BackendError, match="cuda"):
            rg.rollout(NET, X, backend="cuda")


LAYOUTS = {
    "Fortran order": np.asfortranarray,
    "other byte order": lambda a: a.astype(a.dtype.newbyteorder()),
    "strided": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    "reversed twice": lambda a: np.ascontiguousarray(a[::-1])[::-1],
    "transposed": lambda a: np.ascontiguousarray(a.T).T,
    "read-only": lambda a: np.broadcast_to(a, a.shape),
    "list": lambda a: a.tolist(),
}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout_of_the_arrays_gives_the_same(layout, dtype):
    """float64 arrays only as lists: a list has no precision of its own."""
    change = LAYOUTS[layout]
    net = NET.astype(dtype)
    x, s0 = X.astype(dtype), S0.astype(dtype)
    changed = (
        net
        if layout == "list"
        else rg.Network.from_parameters("lstm", {k: change(a) for k, a in net.parameters.items()})
    )
    target = np.random.default_rng(0).standard_normal((5, 3, 2))
    expected, actual = rg.rollout(net, x, s0), rg.rollout(changed, change(x), change(s0))
    assert actual.states.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(actual.states, expected.states)
    a = rg.bptt(expected, rg.losses.squared_error(target))
    b = rg.bptt(actual, rg.losses.squared_error(change(target), change(np.arange(1.0, 6.0)[:, None] ** np.zeros(3))))
    for name in ("loss", "W", "U", "b", "V", "c", "x", "s"):
        np.testing.assert_array_equal(getattr(b, name), getattr(a, name), err_msg=name)
    u, v = np.random.default_rng(1).standard_normal((2, *s0.shape)).astype(dtype)
    for method, vector in (("vjp", u), ("jvp", v)):
        np.testing.assert_array_equal(
            getattr(rg.jacobian_chain(actual), method)(change(vector), 4, 1),
            getattr(rg.jacobian_chain(expected), method)(vector, 4, 1),
        )


def test_a_network_does_not_change():
    net = make_case("vanilla").net
    with pytest.raises(ValueError, match="read-only"):
        net.W[0, 0, 0] = 1.0
    with pytest.raises(AttributeError):
        net.activation = "relu"


@pytest.mark.parametrize("kind", ["int64", "int8", "bool"])
def test_whole_numbers_are_converted(kind):
    x = np.arange(15).reshape(5, 1, 3) % 2
    expected = rg.rollout(NET, x.astype(float)).states
    np.testing.assert_array_equal(rg.rollout(NET, x.astype(kind)).states, expected)
