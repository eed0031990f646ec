"""One gradient, computed in every way there is: they agree to rounding; the truncated ones are checked by detach."""

import numpy as np
import oracles
import pytest
from cases import CELLS, PAIRS, SHAPES, UNEVEN, assert_close, assert_gradients, make_losses
from detached import segments_of, truncated_by_detach

import rnngrad as rg
from rnngrad.dynamics.scaled import log_norms

RECURRENT = ("W", "U", "b", "W2", "U2", "b2")
LENGTHS = pytest.mark.parametrize("lengths", [None, UNEVEN], ids=["even", "uneven"])


def sum_of_pieces(flow, net, T):
    """sum over 1 <= k <= t <= T of dL_t/ds_t Phi(t, k) d+s_k/dw, for recurrent parameters and x."""
    total = {}
    for t in range(1, T + 1):
        for k in range(1, t + 1):
            for name, piece in flow.pieces(t, k).items():
                total[name] = total.get(name, 0) + piece
    assert set(total) == {"x", *(name for name in RECURRENT if getattr(net, name) is not None)}
    return total


@LENGTHS
@pytest.mark.parametrize(("cell", "activation"), PAIRS)
def test_all_ways_agree(case, cell, activation, lengths):
    """BPTT = RTRL = sum of the (t, k) pieces = truncated BPTT with a full window."""
    drawn = case(cell, activation, n=3, m=2, lengths=lengths)
    loss, _ = make_losses(drawn, oracles)
    traj, T = drawn.traj, 5
    grads = rg.bptt(traj, loss)
    forward = rg.rtrl(traj, loss)
    assert forward.x is forward.s is None
    assert_gradients(forward, {n: g for n, g in vars(grads).items() if g is not None and n not in ("x", "s")}, 1e-12)
    for name, total in sum_of_pieces(rg.gradient_flow(traj, loss), drawn.net, T).items():
        assert_close(total, getattr(grads, name), 1e-12, name)
    for sizes in (
        {"window": T},
        {"window": T + 3},
        {"k1": 1, "k2": T},
        {"k1": 2, "k2": T + 9},
        {"k1": T + 2, "k2": T + 2},
    ):
        assert_gradients(rg.truncated_bptt(traj, loss, **sizes), grads, 1e-12)


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape["m"]], ids=str)
@pytest.mark.parametrize("cell", CELLS)
def test_all_ways_agree_on_degenerate_shapes(case, cell, shape):
    drawn = case(cell, **shape)
    loss, _ = make_losses(drawn, oracles)
    grads = rg.bptt(drawn.traj, loss)
    forward = rg.rtrl(drawn.traj, loss)
    assert_gradients(forward, {n: g for n, g in vars(grads).items() if g is not None and n not in ("x", "s")}, 1e-12)
    assert_gradients(rg.truncated_bptt(drawn.traj, loss, window=shape["T"]), grads, 1e-12)
    for name, total in sum_of_pieces(rg.gradient_flow(drawn.traj, loss), drawn.net, shape["T"]).items():
        assert_close(total, getattr(grads, name), 1e-12, name)


@pytest.mark.parametrize("cell", CELLS)
def test_networks_without_inputs(case, cell):
    drawn = case(cell, m=0, B=2)
    loss, truth = make_losses(drawn, oracles)
    expected = oracles.bptt(*drawn.args, truth, **drawn.kwargs)
    forward = rg.rtrl(drawn.traj, loss)
    assert_gradients(forward, {n: g for n, g in expected.items() if n not in ("x", "s")}, 1e-11)
    assert_gradients(rg.truncated_bptt(drawn.traj, loss, window=5), expected, 1e-11)


@pytest.mark.parametrize("cell", CELLS)
def test_all_ways_agree_in_single_precision(case, cell):
    drawn = case(cell, n=3, m=2, dtype="float32", lengths=UNEVEN)
    loss, truth = make_losses(drawn, oracles)
    expected = oracles.bptt(*drawn.args, truth, **drawn.kwargs)
    forward, truncated = rg.rtrl(drawn.traj, loss), rg.truncated_bptt(drawn.traj, loss, window=5)
    assert_gradients(forward, {n: g for n, g in expected.items() if n not in ("x", "s")}, 1e-5)
    assert_gradients(truncated, expected, 1e-5)
    for name, total in sum_of_pieces(rg.gradient_flow(drawn.traj, loss), drawn.net, 5).items():
        assert_close(total, expected[name], 1e-5, name)
    assert {g.dtype for grads in (forward, truncated) for _, g in grads.parameters()} == {np.dtype("float32")}


@pytest.mark.parametrize("cell", CELLS)
def test_a_shorter_window_differs(case, cell):
    drawn = case(cell)
    loss, _ = make_losses(drawn, oracles)
    full = rg.bptt(drawn.traj, loss)
    for p in range(1, 5):
        short = rg.truncated_bptt(drawn.traj, loss, window=p)
        assert np.abs(short.W - full.W).max() > 1e-6 * np.abs(full.W).max()
        assert_close(short.V, full.V, 1e-15)  # the readout has no memory to cut


# ---------------------------------------------------------------- truncation, defined by detach


@LENGTHS
@pytest.mark.parametrize("cell", CELLS)
def test_window_is_detach_before_each_window(case, cell, lengths):
    drawn = case(cell, lengths=lengths)
    target = drawn.rng.standard_normal((5, 3, 2))
    for p in (1, 2, 4, 5):
        expected = truncated_by_detach(drawn, target, [(t, t, p) for t in range(1, 6)])
        actual = rg.truncated_bptt(drawn.traj, rg.losses.squared_error(target), window=p)
        assert_gradients(actual, expected, 1e-11)


@LENGTHS
@pytest.mark.parametrize("cell", CELLS)
def test_segments_are_detach_at_their_beginning(case, cell, lengths):
    drawn = case(cell, lengths=lengths)
    target = drawn.rng.standard_normal((5, 3, 2))
    for k1, k2 in ((1, 3), (2, 2), (2, 3), (3, 4), (4, 4), (2, 5), (5, 5)):
        expected = truncated_by_detach(drawn, target, segments_of(k1, k2, 5))
        actual = rg.truncated_bptt(drawn.traj, rg.losses.squared_error(target), k1=k1, k2=k2)
        assert_gradients(actual, expected, 1e-11)


# ---------------------------------------------------------------- gradient flow


@LENGTHS
@pytest.mark.parametrize("cell", CELLS)
def test_flow_is_the_gradient_of_each_loss_alone(case, cell, lengths):
    """log||dL_t/ds_k|| by autograd of L_t, and by the chain: dL_t/ds_t Phi(t, k)."""
    drawn = case(cell, lengths=lengths)
    target = drawn.rng.standard_normal((5, 3, 2))
    flow = rg.gradient_flow(drawn.traj, rg.losses.squared_error(target))
    chain = rg.jacobian_chain(drawn.traj)
    assert flow.log_norm.shape == (3, 6, 6)
    assert np.isnan(flow.log_norm[:, 0]).all()
    by_lag = flow.log_norm_by_lag()
    for t in range(1, 6):
        only_t = np.arange(1, 6) == t
        s = oracles.bptt(*drawn.args, oracles.squared_error(target, only_t.astype(float)), **drawn.kwargs)["s"]
        with np.errstate(divide="ignore"):
            expected = np.log(np.linalg.norm(s.reshape(6, 3, -1), axis=-1))  # [k, b]
            along = [np.linalg.norm(chain.vjp(s[t], t, k).reshape(3, -1), axis=-1) for k in range(t + 1)]
            np.testing.assert_allclose(flow.log_norm[:, t, : t + 1], np.log(along).T, atol=1e-11)
        np.testing.assert_allclose(flow.log_norm[:, t, : t + 1], expected[: t + 1].T, atol=1e-11)
        np.testing.assert_array_equal(by_lag[:, t - 1, : t + 1], flow.log_norm[:, t, t::-1])
        assert np.isnan(flow.log_norm[:, t, t + 1 :]).all()
        assert np.isnan(by_lag[:, t - 1, t + 1 :]).all()
    if lengths is not None:
        assert (flow.log_norm[2, 2:, 0] == -np.inf).all()  # a padded step has no loss


def test_flow_is_minus_infinity_where_there_is_no_loss(case):
    drawn = case("gru")
    flow = rg.gradient_flow(drawn.traj, rg.losses.squared_error(np.zeros((5, 3, 2)), [0, 1, 0, 0, 1]))
    for t in (1, 3, 4):
        np.testing.assert_array_equal(flow.log_norm[:, t, : t + 1], -np.inf)
    for t in (2, 5):
        assert np.isfinite(flow.log_norm[:, t, : t + 1]).all()


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("radius", [0.01, 100.0])
def test_flow_far_outside_the_range_of_floats(radius, dtype):
    """s <- rho Q s with orthogonal Q: ||dL_T/ds_k|| = rho^(T-k) ||dL_T/ds_T|| exactly."""
    T, n = 800, 4
    Q = np.linalg.qr(np.random.default_rng(0).standard_normal((n, n)))[0]
    net = rg.Network.from_parameters("linear", {"W": (radius * Q)[None].astype(dtype), "b": np.zeros((1, n), dtype)})
    traj = rg.rollout(net, np.zeros((T, 1, 0), dtype))
    flow = rg.gradient_flow(traj, rg.losses.squared_error(np.ones((T, 1, n)), "last"))
    lag = np.arange(T, -1, -1)
    expected = lag * np.log(radius) + np.log(2)
    tolerance = T * n * float(np.finfo(dtype).eps) + 1e-12
    np.testing.assert_allclose(flow.log_norm[0, T], expected, rtol=0, atol=tolerance)
    assert (flow.log_norm[0, 1, :2] == -np.inf).all()


@pytest.mark.parametrize("size", [1e-320, 1e-170, 1.0, 1e170, 1e300])
def test_log_norms_of_rows_whose_squares_leave_the_range(size):
    rows = np.array([[3.0, 0.0, -4.0], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]]) * size
    actual = log_norms(rows, np.array([10, 5, -2000]))
    top = [np.log(np.abs(row).max()) for row in rows[[0, 2]]]  # subnormals have few digits; their own value counts
    expected = [top[0] + np.log(1.25) + 10 * np.log(2), -np.inf, top[1] + 0.5 * np.log(3) - 2000 * np.log(2)]
    np.testing.assert_allclose(actual, expected, rtol=1e-6 if size == 1e-320 else 1e-14)
    single = log_norms(rows.astype("float32"), np.zeros(3, int)) if size == 1.0 else None
    assert single is None or abs(single[0] - np.log(5)) < 1e-7
