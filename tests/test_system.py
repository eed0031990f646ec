"""User-written systems: known maps, Jacobians to machine precision, and the same gradients by every route."""

import mpmath
import numba
import numpy as np
import pytest

import rnngrad as rg


def logistic_map(s, x, p):
    return (p[0] * s[0] * (1 - s[0]),)


def henon(s, x, p):
    return np.array([1 - p[0] * s[0] * s[0] + s[1], p[1] * s[0]])


def squash(s, x, p):
    return 1 / (1 + np.exp(-p[0] * s))


@numba.njit
def lorenz_field(s, p):
    return np.array([p[0] * (s[1] - s[0]), s[0] * (p[1] - s[2]) - s[1], s[0] * s[1] - p[2] * s[2]])


def lorenz_step(s, x, p):
    h = 0.01
    k1 = lorenz_field(s, p)
    k2 = lorenz_field(s + h / 2 * k1, p)
    k3 = lorenz_field(s + h / 2 * k2, p)
    k4 = lorenz_field(s + h * k3, p)
    return s + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)


def driven(s, x, p):
    return np.array([np.tanh(p[0] * s[1] + x[0]), np.sin(p[1] * s[0]) * x[1]])


def lorenz_jacobian_flow(s, p):
    """Jacobian of the Runge-Kutta step by its own product rule, in NumPy."""

    def field(s):
        return np.array([p[0] * (s[1] - s[0]), s[0] * (p[1] - s[2]) - s[1], s[0] * s[1] - p[2] * s[2]])

    def A(s):
        return np.array([[-p[0], p[0], 0], [p[1] - s[2], -1, -s[0]], [s[1], s[0], -p[2]]])

    h, eye = 0.01, np.eye(3)
    k1, K1 = field(s), A(s)
    k2, K2 = field(s + h / 2 * k1), A(s + h / 2 * k1) @ (eye + h / 2 * K1)
    k3, K3 = field(s + h / 2 * k2), A(s + h / 2 * k2) @ (eye + h / 2 * K2)
    K4 = A(s + h * k3) @ (eye + h * K3)
    return eye + h / 6 * (K1 + 2 * K2 + 2 * K3 + K4)


def test_note_002_fixed_point():
    system = rg.System(squash, 1, params=0.5)
    states = rg.rollout(system, s0=[2.0], steps=100).states[:, 0, 0, 0]
    np.testing.assert_allclose(states[[1, 2]], [0.7310586, 0.5903772], atol=2e-6)
    from_below = rg.rollout(system, s0=[-50.0], steps=100).states[-1, 0, 0, 0]
    # the fixed point solves s = logistic(s / 2); the note prints .5708
    assert abs(states[-1] - 1 / (1 + np.exp(-states[-1] / 2))) < 1e-15
    assert abs(states[-1] - from_below) < 1e-15
    assert abs(states[-1] - 0.5708) < 1e-4


def test_jacobians_are_exact():
    trajectory = rg.rollout(rg.System(henon, 2, [1.4, 0.3]), s0=[0.1, 0.1], steps=200)
    s = trajectory.states[:-1, 0, 0]
    expected = np.zeros((200, 2, 2))
    expected[:, 0, 0], expected[:, 0, 1], expected[:, 1, 0] = -2.8 * s[:, 0], 1, 0.3
    np.testing.assert_allclose(rg.jacobians(trajectory)[:, 0], expected, rtol=1e-15, atol=1e-15)

    p = np.array([10.0, 28.0, 8 / 3])
    trajectory = rg.rollout(rg.System(lorenz_step, 3, p), s0=[1.0, 2.0, 20.0], steps=50)
    expected = np.array([lorenz_jacobian_flow(s, p) for s in trajectory.states[:-1, 0, 0]])
    np.testing.assert_allclose(rg.jacobians(trajectory)[:, 0], expected, rtol=1e-13, atol=1e-15)


def test_chain_is_the_product_and_never_overflows():
    trajectory = rg.rollout(rg.System(logistic_map, 1, 4.0), s0=[0.3], steps=20_000)
    chain = rg.jacobian_chain(trajectory)
    slopes = 4 - 8 * trajectory.states[:-1, 0, 0, 0]
    np.testing.assert_allclose(chain.log_norm(20_000, 0), np.log(np.abs(slopes)).sum(), rtol=1e-12)
    np.testing.assert_allclose(chain.product(9, 4)[0, 0, 0], np.prod(slopes[4:9]), rtol=1e-14)
    J = rg.jacobians(rg.rollout(rg.System(henon, 2, [1.4, 0.3]), s0=[0.1, 0.1], steps=12))[:, 0]
    chain = rg.jacobian_chain(rg.rollout(rg.System(henon, 2, [1.4, 0.3]), s0=[0.1, 0.1], steps=12))
    np.testing.assert_allclose(chain.product(7, 4)[0], J[6] @ J[5] @ J[4], rtol=1e-14)
    np.testing.assert_allclose(chain.all_from(4)[3, 0], J[6] @ J[5] @ J[4], rtol=1e-14)
    np.testing.assert_allclose(chain.all_to(7)[4, 0], J[6] @ J[5] @ J[4], rtol=1e-14)


def test_gradients_against_torch_and_each_other():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(4)
    T, B = 6, 3
    x, s0, z = rng.normal(size=(T, B, 2)), rng.normal(size=(B, 1, 2)), rng.normal(size=(T, B, 2))
    p = np.array([0.8, 1.3])
    system = rg.System(driven, 2, p, n_inputs=2)
    trajectory = rg.rollout(system, x, s0)
    loss = rg.losses.squared_error(z)
    grads = rg.bptt(trajectory, loss)

    X, P = torch.tensor(x, requires_grad=True), torch.tensor(p, requires_grad=True)
    S0 = torch.tensor(s0[:, 0], requires_grad=True)
    s, total = S0, 0.0
    for t in range(T):
        s = torch.stack([torch.tanh(P[0] * s[:, 1] + X[t, :, 0]), torch.sin(P[1] * s[:, 0]) * X[t, :, 1]], dim=1)
        total = total + 0.5 * ((s - torch.tensor(z[t])) ** 2).sum()
    total.backward()
    for ours, theirs in ((grads.params, P.grad), (grads.x, X.grad), (grads.s0[:, 0], S0.grad)):
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-11, atol=1e-13)
    assert abs(grads.loss - float(total.detach())) < 1e-12

    forward = rg.rtrl(trajectory, loss)
    np.testing.assert_allclose(forward.params, grads.params, rtol=1e-12)
    np.testing.assert_allclose(forward.s0, grads.s0, rtol=1e-12)
    flow = rg.gradient_flow(trajectory, loss)
    pieces = sum(flow.pieces(t, k)["params"] for t in range(1, T + 1) for k in range(1, t + 1))
    np.testing.assert_allclose(pieces, grads.params, rtol=1e-12)
    full = rg.truncated_bptt(trajectory, loss, window=T)
    np.testing.assert_allclose(full.params, grads.params, rtol=1e-12)
    short = rg.truncated_bptt(trajectory, loss, window=2)
    assert np.abs(short.params - grads.params).max() > 1e-3


def test_own_jacobian_is_used_and_checked():
    def kink(s, x, p):
        return np.abs(s) * p[0] - 1

    def slope(s, x, p):
        return np.diag(np.sign(s) * p[0])

    with pytest.raises(ValueError, match="jacobian="):
        rg.jacobians(rg.rollout(rg.System(kink, 2, 0.5), s0=[-1.0, 2.0], steps=4))
    trajectory = rg.rollout(rg.System(kink, 2, 0.5, jacobian=slope), s0=[-1.0, 2.0], steps=4)
    np.testing.assert_array_equal(rg.jacobians(trajectory)[0, 0], np.diag([-0.5, 0.5]))

    def transposed(s, x, p):
        return np.array([[-2 * p[0] * s[0], p[1]], [1.0, 0.0]])

    with pytest.raises(ValueError, match="transposed"):
        rg.jacobians(rg.rollout(rg.System(henon, 2, [1.4, 0.3], jacobian=transposed), s0=[0.1, 0.1], steps=4))


def written(out, s, x, p):
    for i in range(out.size):
        out[i] = np.tanh(p[i] * s[(i + 1) % s.size] + x[0])


def written_jacobian(out, s, x, p):
    for i in range(s.size):
        for j in range(s.size):
            out[i, j] = 0.0
        j = (i + 1) % s.size
        out[i, j] = p[i] * (1 - np.tanh(p[i] * s[j] + x[0]) ** 2)


def test_a_function_that_writes_its_result():
    rng, p = np.random.default_rng(0), np.linspace(0.5, 1.5, 4)
    x, s0 = rng.standard_normal((6, 2, 1)), rng.standard_normal((2, 1, 4))
    plain = rg.System(lambda s, x, p: np.tanh(p * np.roll(s, -1) + x[0]), 4, p, n_inputs=1)
    states = np.concatenate([s0[None], np.zeros((6, 2, 1, 4))])
    for t in range(6):
        states[t + 1, :, 0] = np.tanh(p * np.roll(states[t, :, 0], -1, axis=-1) + x[t])
    expected = rg.rollout(plain, x, s0)
    slopes = p * (1 - states[1:, :, 0] ** 2)  # (T, B, n)
    J = np.zeros((6, 2, 4, 4))
    J[..., np.arange(4), (np.arange(4) + 1) % 4] = slopes
    for jacobian in (None, written_jacobian):
        traj = rg.rollout(rg.System(written, 4, p, jacobian, n_inputs=1), x, s0)
        np.testing.assert_allclose(traj.states, states, rtol=1e-13, atol=1e-15)
        np.testing.assert_allclose(rg.jacobians(traj), J, rtol=1e-12, atol=1e-15)
    for which in ("parameter_jacobians", "input_jacobians"):
        found, truth = (getattr(each.net, which)(each) for each in (traj, expected))
        np.testing.assert_allclose(found, truth, rtol=1e-13, atol=1e-15)
    fp, truth = (rg.solve_fixed_point(each, x[0], s0=s0) for each in (traj.net, plain))
    np.testing.assert_allclose(fp.s, truth.s, atol=1e-12)


def test_tuples_of_numbers_that_differ_in_kind():
    """Also where some depend on the argument that a derivative is by, and others do not; more than one leaf of them."""

    def mixed(s, x, p):
        return s[1], 2.0 * p[0], s[0] * s[0], x[0], 1, s[2] * p[0]

    def rows(s, x, p):
        zero = 0, 0, 0, 0, 0, 0
        return (0, 1.0, 0, 0, 0, 0), zero, (2 * s[0], 0, 0, 0, 0, 0), zero, zero, (0, 0, p[0], 0, 0, 0)

    s0, expected = np.arange(1.0, 7.0), np.zeros((6, 6))
    expected[0, 1], expected[2, 0], expected[5, 2] = 1, 2, 3
    for jacobian in (None, rows):
        traj = rg.rollout(rg.System(mixed, 6, [3.0], jacobian, n_inputs=1), np.full((1, 1), 7.0), s0)
        np.testing.assert_array_equal(traj.states[1, 0, 0], [2, 6, 1, 7, 1, 9])
        np.testing.assert_array_equal(rg.jacobians(traj)[0, 0], expected)
        by_params, by_input = traj.net.parameter_jacobians(traj)[0, 0], traj.net.input_jacobians(traj)[0, 0]
        np.testing.assert_array_equal(by_params[:, 0], [0, 2, 0, 0, 0, 3])
        np.testing.assert_array_equal(by_input[:, 0], [0, 0, 0, 1, 0, 0])


@pytest.mark.parametrize("forward", [False, True])
def test_iterations_of_states_of_two_vectors(forward):
    """As a cycle of an LSTM has them: its Jacobian is a product, and dense."""
    from rnngrad.dynamics.system import DenseJacobians
    from rnngrad.fixedpoint.linear import iteration

    rng = np.random.default_rng(0)
    J, g, at = 0.2 * rng.standard_normal((1, 3, 4, 4)), rng.standard_normal((5, 2, 2)), np.array([2, 0, 1, 1, 0])
    z, _, done = iteration(DenseJacobians(None, J, "cpu"), g, at, 200, 1e-14, forward=forward)
    A = np.eye(4) - J[0, at]
    expected = np.linalg.solve(A if forward else A.swapaxes(1, 2), g.reshape(5, 4, 1))
    assert done.all()
    np.testing.assert_allclose(z.reshape(5, 4, 1), expected, rtol=1e-11, atol=1e-12)


def half_written(out, s, x, p):
    out[0] = s[0]


def test_bad_functions():
    with pytest.raises(ValueError, match=r"f does not write out\[1\]; it must write all of out"):
        rg.System(half_written, 2)
    forms = r"they must be \(s, x, params\) or \(out, s, x, params\)"
    with pytest.raises(ValueError, match=rf"f has the parameters \(s, x\); {forms}"):
        rg.System(lambda s, x: s, 1)
    with pytest.raises(ValueError, match=rf"jacobian has the parameters \(s\); {forms}"):
        rg.System(logistic_map, 1, 0.5, jacobian=lambda s: s)
    traj = rg.rollout(rg.System(logistic_map, 1, 0.5, jacobian=lambda s, x, p: s), s0=[0.5], steps=2)
    with pytest.raises(
        ValueError, match=r"jacobian returns shape \(1,\) of float64; it must return 1 x 1 real numbers"
    ):
        rg.jacobians(traj)
    with pytest.raises(ValueError, match="it must return 3 real numbers"):
        rg.System(henon, 3, [1.4, 0.3])
    with pytest.raises(ValueError, match="f does not run"):
        rg.System(lambda s, x, p: p["a"] * s, 1, 0.5)
    with pytest.raises(ValueError, match="f is 3; it must be a function"):
        rg.System(3, 1)
    with pytest.raises(ValueError, match="n_state is 0; it must be at least 1"):
        rg.System(henon, 0)


def test_linear_recurrence_in_closed_form():
    from rnngrad.analysis.linear import linear_recurrence

    W = np.array([[1, 0, 0, 0.4], [0.9, 0, 0.6, 0.5], [0, 0, 0, 0.3], [0, 0.8, 0, 0.7]])  # note 001
    h0 = np.array([1.0, -2.0, 0.5, 3.0])
    tau = np.array([0, 1, 7, 40])
    expected = np.array([np.linalg.matrix_power(W, t) @ h0 for t in tau])
    np.testing.assert_allclose(linear_recurrence(W, h0, tau), expected, rtol=1e-11)
    net = rg.Network.from_parameters("linear", {"W": W[None], "U": np.zeros((1, 4, 0)), "b": np.zeros((1, 4))})
    states = rg.rollout(net, s0=h0, steps=40).states[:, 0, 0]
    np.testing.assert_allclose(states[tau], expected, rtol=1e-12)
    with pytest.raises(rg.SingularError, match="defective"):
        linear_recurrence(np.array([[0.9, 10.0], [0.0, 0.9]]), [1.0, 1.0], 5)


def test_matrix_power_is_rounded_once():
    from rnngrad.analysis.linear import matrix_power

    W = np.array([[1, 0, 0, 0.4], [0.9, 0, 0.6, 0.5], [0, 0, 0, 0.3], [0, 0.8, 0, 0.7]])
    with mpmath.workdps(100):
        power = mpmath.matrix(W.tolist()) ** 30
        expected = [[float(power[i, j]) for j in range(4)] for i in range(4)]
    np.testing.assert_array_equal(matrix_power(W, 30).values, expected)
    np.testing.assert_array_equal(matrix_power(W, 0).values, np.eye(4))
    for bad, message in (((W[:3], 1), "square"), ((W, -1), "lag is -1"), ((W, 0.5), "lag is 0.5")):
        with pytest.raises(ValueError, match=message):
            matrix_power(*bad)
