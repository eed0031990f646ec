"""Gradients and second derivatives of trajectories that lie on the GPU: device in, device out, nothing big copied.

In Numba's simulator; every number must be, bit for bit, that of ``backend="cuda"`` with arrays on the host.
"""

# ruff: noqa: F811  (``copied`` is a fixture of another file)

import numpy as np
import pytest
from cases import CELLS, UNEVEN, make_case
from simulated import DTYPES, inside, sessions
from test_cuda_simulator import Lent, copied, host, loss_of, on, on_device, to_device  # noqa: F401

import rnngrad as rg
from rnngrad import _cuda

NUMBER = 8  # bytes
_QUICK = {("lstm", "float64"), ("gru_delayed", "float32"), ("continuous", "float64")}
each = pytest.mark.parametrize(
    ("cell", "dtype"),
    [
        pytest.param(cell, dtype, marks=[] if (cell, dtype) in _QUICK else [pytest.mark.slow])
        for cell in CELLS
        for dtype in DTYPES
    ],
)


test_in_the_simulator, test_in_the_simulator_at_length = sessions(__file__)


def both(cell, dtype="float64", **options):
    """A trajectory on the host, the same on the device, and a loss with its target on either side."""
    case = make_case(cell, **{"n": 3, "lengths": UNEVEN, "dtype": dtype, **options})
    traj = on(case, "cuda")
    loss = loss_of(case, traj)
    there = rg.losses.squared_error(to_device(loss.target), loss.weights)
    return traj, on_device(case), loss, there


def assert_same(found, truth, what=""):
    if truth.size:
        np.testing.assert_array_equal(host(found), truth, err_msg=what)


def assert_same_gradients(found, truth):
    assert isinstance(found, rg.DeviceGradients) and found.loss == pytest.approx(truth.loss, rel=1e-15)
    for name, value in vars(truth).items():
        if name != "loss" and value is not None and value.size:
            assert_same(getattr(found, name), value, name)


@inside
@each
def test_gradient_flow(cell, dtype, copied):
    traj, there, loss, loss_there = both(cell, dtype)
    truth = rg.gradient_flow(traj, loss)
    copied.clear()
    flow = rg.gradient_flow(there, loss_there)
    by_lag, pieces = flow.log_norm_by_lag(), [flow.pieces(*at) for at in ((5, 2), (3, 3))]
    assert max(copied) == NUMBER  # the loss; which steps have one is T = 5 bytes
    assert isinstance(flow, rg.DeviceGradientFlow)
    assert_same(flow.log_norm, truth.log_norm)
    assert_same(by_lag, truth.log_norm_by_lag())
    for found, at in zip(pieces, ((5, 2), (3, 3)), strict=True):
        for name, value in truth.pieces(*at).items():
            assert_same(found[name], value, name)
    back = flow.to_host()
    np.testing.assert_array_equal(back.log_norm, truth.log_norm)
    for name, value in truth.pieces(4, 1).items():
        np.testing.assert_array_equal(back.pieces(4, 1)[name], value)


@inside
def test_gradient_flow_of_few_steps_with_a_loss(copied):
    traj, there, loss, _ = both("gru", lengths=None)
    for weights in ([0, 1, 0, 0, 1], "last", np.zeros(5)):
        chosen = rg.losses.squared_error(loss.target, weights)
        assert_same(rg.gradient_flow(there, chosen).log_norm, rg.gradient_flow(traj, chosen).log_norm)
    flow = rg.gradient_flow(there, chosen)
    for ask in (flow.to_dict, flow.arrays, flow.plot, lambda: flow.save("flow.npz")):
        with pytest.raises(ValueError, match=r"the gradient flow lives on a GPU.*give to_host\(\)"):
            ask()


@inside
@each
def test_truncated_gradients(cell, dtype, copied):
    traj, there, loss, loss_there = both(cell, dtype)
    for options in ({"window": 3}, {"window": 9}, {"k1": 2, "k2": 3}, {"k1": 5, "k2": 5}):
        copied.clear()
        found = rg.truncated_bptt(there, loss_there, **options)
        assert max(copied) == NUMBER
        assert_same_gradients(found, rg.truncated_bptt(traj, loss, **options))


@inside
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", ["lstm", "gru_delayed", "continuous", "mrnn"])
def test_forward_gradients(cell, dtype, copied, monkeypatch):
    from rnngrad.gradients import rtrl

    monkeypatch.setattr(rtrl, "_COLUMNS", 7)
    traj, there, loss, loss_there = both(cell, dtype, n=2, m=2, p=2, T=4, B=2, lengths=[4, 2])
    copied.clear()
    found = rg.rtrl(there, loss_there)
    assert max(copied) == NUMBER
    assert_same_gradients(found, rg.rtrl(traj, loss))


@inside
@each
def test_second_derivatives(cell, dtype, copied):
    traj, there, loss, loss_there = both(cell, dtype)
    curvature, truth = rg.Curvature(there, loss_there), rg.Curvature(traj, loss)
    rng = np.random.default_rng(7)
    for K in (1, 2):
        v = rng.standard_normal((K, truth.size)).astype(dtype)
        v[0, : truth.size // 2] *= 1e4
        given = to_device(v)
        copied.clear()
        found = [getattr(curvature, name)(given) for name in ("hessian", "gauss_newton", "outputs")]
        assert max(copied) == NUMBER  # whether a number is not finite
        np.testing.assert_array_equal(host(given), v)
        for name, value in zip(("hessian", "gauss_newton", "outputs"), found, strict=True):
            assert_same(value, getattr(truth, name)(v), name)


@inside
@pytest.mark.parametrize("name", ["hessian_vector_product", "gauss_newton_vector_product"])
def test_directions_in_every_form(name, copied):
    traj, there, loss, loss_there = both("gru_delayed")
    product = getattr(rg, name)
    grads, grads_there = rg.bptt(traj, loss), rg.bptt(there, loss_there)
    flat = rg.flatten_parameters(traj.net, grads)
    copied.clear()
    assert_same(rg.flatten_parameters(there.net, grads_there), flat)
    found, one = product(there, loss_there, grads_there), product(there, loss_there, to_device(flat))
    few = product(there, loss_there, {"W": grads_there.W, "c": grads_there.c})
    assert copied.count(flat.nbytes) == 1  # the vector that was read above
    assert sorted(copied)[-2] == 3 * NUMBER < flat.nbytes  # where each row of units of a direction is not finite
    assert_same(one, product(traj, loss, flat))
    assert_same(product(there, loss_there, Lent(flat)), product(traj, loss, flat))
    for values, given in ((found, grads), (few, {"W": grads.W, "c": grads.c})):
        for key, value in product(traj, loss, given).items():
            assert_same(values[key], value, key)
    for key, value in rg.unflatten_parameters(traj.net, to_device(np.stack([flat, 2 * flat]))).items():
        assert_same(value, rg.unflatten_parameters(traj.net, np.stack([flat, 2 * flat]))[key], key)


@inside
@pytest.mark.parametrize("make", ["squared_error", "sum_of_squares", "cross_entropy", "binary_cross_entropy"])
def test_second_derivatives_of_losses(make, copied):
    case = make_case("lstm", n=2, p=35, lengths=UNEVEN)  # more outputs than a sum has parts
    traj, there = on(case, "cuda"), on_device(case)
    target = np.random.default_rng(2).random(traj.y.shape)
    truth, found = (getattr(rg.losses, make)(of) for of in (target, to_device(target)))
    u = np.random.default_rng(3).standard_normal((traj.T, 2 * traj.B, 35))
    copied.clear()
    value = found.curvature(there.y, to_device(u), there.lengths)
    assert max(copied) == NUMBER
    assert_same(value, truth.curvature(traj.y, u, traj.lengths, "cuda"))
    np.testing.assert_allclose(host(value), truth.curvature(traj.y, u, traj.lengths, "cpu"), rtol=1e-12, atol=1e-15)


@inside
def test_spectrum_of_the_hessian(copied):
    traj, there, loss, loss_there = both("vanilla", n=2, m=2, p=1, T=3, B=2, lengths=None)
    operator, truth = (rg.hessian_operator(*of, matrix="gauss_newton") for of in ((there, loss_there), (traj, loss)))
    v = np.random.default_rng(0).standard_normal((operator.shape[0], 2))
    copied.clear()
    np.testing.assert_array_equal(operator @ v, truth @ v)
    assert max(copied) == v.nbytes
    options = {"leading": 2, "probes": 2, "steps": 3}
    found, expected = rg.hessian_spectrum(there, loss_there, **options), rg.hessian_spectrum(traj, loss, **options)
    for name, value in expected.arrays().items():
        np.testing.assert_array_equal(found.arrays()[name], value, err_msg=name)


@inside
@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")  # of the interpreted kernel
def test_rows_beyond_the_range_of_floats(copied):
    traj, there, loss, loss_there = both("linear", T=9, lengths=None)
    net = traj.net.replace(W=1e-80 * traj.net.W)
    small, small_there = (rg.rollout(net, of.x, of.states[0], backend="cuda") for of in (traj, there))
    flow = rg.gradient_flow(small_there, loss_there)
    assert_same(flow.log_norm, rg.gradient_flow(small, loss).log_norm)
    assert host(flow.log_norm)[0, 9, 0] < -1500
    v = np.full((1, rg.Curvature(traj, loss).size), 1e300)
    for name in ("hessian", "gauss_newton"):
        with pytest.raises(OverflowError, match="the product is beyond float64"):
            getattr(rg.Curvature(there, loss_there), name)(to_device(1e7 * v))


@inside
def test_what_lies_on_the_wrong_side_is_refused():
    traj, there, loss, loss_there = both("gru")
    curvature, v = rg.Curvature(there, loss_there), np.ones(rg.Curvature(traj, loss).size)
    hole = v.copy()
    hole[7] = np.nan
    W = there.net.W
    for given, message in (
        (v, "v is a ndarray on the host; it must lie on the GPU as the rest does"),
        ({"W": W}, r"v\['W'\] is a ndarray on the host; it must lie on the GPU"),
        (to_device(v[1:]), "v has shape"),
        (to_device(v.astype(np.float32)), "v has dtype float32; it must be float64"),
        (to_device(hole), r"v is not finite at index \(7,\)"),
    ):
        with pytest.raises(ValueError, match=message):
            curvature.flat(given)
    columns = np.random.default_rng(0).standard_normal((v.size, 2))
    np.testing.assert_array_equal(host(curvature.flat(to_device(columns).T)), columns.T)  # copied there
    with pytest.raises(ValueError, match="v is a ndarray on the host"):
        curvature.gauss_newton(v[None])
    for given in (to_device(v), {"W": to_device(W)}):
        with pytest.raises(ValueError, match=r"v.* lives on a GPU, and this is computed from arrays on the host"):
            rg.hessian_vector_product(traj, loss, given)
    with pytest.raises(ValueError, match="target lives on a GPU, and the outputs do not"):
        rg.gradient_flow(traj, loss_there)
    assert _cuda.is_device_array(there.x)
