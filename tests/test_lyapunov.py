"""Lyapunov exponents against closed forms, published values, and QR in plain NumPy; intervals against repetition."""

import numba
import numpy as np
import pytest
import scipy.signal
from cases import CELLS
from scipy.signal import lfilter
from scipy.special import psi

import rnngrad as rg
from rnngrad.analysis.batch_means import mean_interval
from rnngrad.analysis.exponents import kaplan_yorke
from rnngrad.analysis.lyapunov import lyapunov_along
from rnngrad.dynamics.frames import Carried, carry, orthonormalize, random_frames
from rnngrad.dynamics.jacobian import local_jacobians
from rnngrad.dynamics.stack import StackJacobians

compiled_only = pytest.mark.skipif(numba.config.DISABLE_JIT, reason="takes minutes where nothing is compiled")


def henon(s, x, p):
    return np.array([1 - p[0] * s[0] * s[0] + s[1], p[1] * s[0]])


def logistic_map(s, x, p):
    return np.array([p[0] * s[0] * (1 - s[0])])


def standard_map(s, x, p):
    momentum = (s[1] + p[0] * np.sin(s[0])) % (2 * np.pi)
    return np.array([(s[0] + momentum) % (2 * np.pi), momentum])


def standard_map_jacobian(s, x, p):
    slope = p[0] * np.cos(s[0])
    return np.array([[1 + slope, 1.0], [slope, 1.0]])


def lorenz(s, x, p):
    def f(u):
        return np.array([10 * (u[1] - u[0]), u[0] * (28 - u[2]) - u[1], u[0] * u[1] - 8 / 3 * u[2]])

    h = p[0]
    k1 = f(s)
    k2 = f(s + h / 2 * k1)
    k3 = f(s + h / 2 * k2)
    k4 = f(s + h * k3)
    return s + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)


def repeated_qr(J, Q):
    """log|R_ii| of every step (T, k) for J (T, N, N) and orthonormal columns Q (N, k), by LAPACK."""
    logs = []
    for one in J:
        Q, R = np.linalg.qr(one @ Q)
        logs.append(np.log(np.abs(np.diag(R))))
    return np.array(logs)


def matrices(T, N, seed=0):
    return np.random.default_rng(seed).standard_normal((T, N, N))


def zeroed(cell, **changes):
    net = rg.Network.init(cell, n_inputs=1, n_hidden=4)
    return net.replace(**{name: np.zeros_like(value) for name, value in net.parameters.items()} | changes)


# ---------------------------------------------------------------- the same numbers by plain QR


@pytest.mark.parametrize("cell", CELLS)
def test_frames_of_every_cell_are_those_of_plain_qr(case, cell):
    drawn = case(cell, T=30, lengths=None, scale=0.7)
    jacobians, J = local_jacobians(drawn.traj), rg.jacobians(drawn.traj)
    k = 3
    frames = random_frames(3, k, drawn.net.state_shape, np.float64, np.random.default_rng(1))
    start = frames.reshape(3, k, -1).copy()
    logs = carry(jacobians, Carried.start(frames), 0, 3, 10)
    for b in range(3):
        expected = repeated_qr(J[:, b], start[b].T).reshape(3, 10, k).sum(axis=1)
        np.testing.assert_allclose(logs[:, b], expected, atol=1e-9)  # eps 2^22 for each QR


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-9), ("float32", 1e-3)])
@pytest.mark.parametrize(("N", "k"), [(1, 1), (3, 2), (16, 16), (17, 5), (40, 40)])
def test_bare_products_are_those_of_plain_qr(N, k, dtype, tolerance):
    J = (matrices(40, N) / np.sqrt(N)).astype(dtype)
    frames = random_frames(1, k, (1, N), dtype, np.random.default_rng(2))
    start = frames.reshape(k, N).T.astype(np.float64)
    logs = carry(rg.dynamics.system.DenseJacobians(None, J[:, None], "cpu"), Carried.start(frames), 0, 1, 40)
    expected = repeated_qr(J.astype(np.float64), start).sum(axis=0)
    np.testing.assert_allclose(logs[0, 0], expected, atol=40 * tolerance)


@pytest.mark.parametrize(("dtype", "graded"), [("float64", 9), ("float64", 0), ("float32", 3), ("float32", 0)])
def test_factors_of_one_qr(dtype, graded):
    """R^T Q gives the frame back and Q is orthonormal, over several panels of vectors and of a frame that is graded."""
    k, N, eps = 37, 41, float(np.finfo(dtype).eps)
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.standard_normal((2, N, k)))[0].swapaxes(1, 2)
    mixed = np.linalg.qr(rng.standard_normal((2, k, k)))[0] * np.logspace(0, -graded, k)  # rows close to one another
    Y, exponents = (mixed @ basis).astype(dtype), rng.integers(-3, 4, (2, k)).astype(np.int64)
    Q, R, shift, _ = orthonormalize(Y, exponents)
    np.testing.assert_allclose(Q @ Q.swapaxes(1, 2), np.broadcast_to(np.eye(k), (2, k, k)), atol=4 * N * eps)
    again = np.ldexp(R.swapaxes(1, 2).astype(float) @ Q, shift[..., None])
    expected = np.ldexp(Y.astype(float), exponents[..., None])
    np.testing.assert_allclose(again, expected, atol=4 * N * eps * 2**3)
    assert (np.triu(R) == R).all()


def test_a_lost_vector_is_replaced():
    Y = np.random.default_rng(1).standard_normal((1, 5, 6))
    Y[0, 3] = Y[0, 0] + Y[0, 1]
    Q, R, _, stretch = orthonormalize(Y, np.zeros((1, 5), np.int64))
    np.testing.assert_allclose(Q[0] @ Q[0].T, np.eye(5), atol=1e-13)
    assert R[0, 3, 3] == 0 and (np.diag(R[0])[[0, 1, 2, 4]] > 0).all() and stretch[0] >= 2**40


def test_steps_that_suddenly_stretch_are_taken_again():
    rng = np.random.default_rng(2)
    turns = np.linalg.qr(rng.standard_normal((300, 3, 3)))[0]
    J = turns * np.where(np.arange(300) < 150, 1, np.array([[1.0], [0.1], [1e-3]]))[..., :, None].swapaxes(0, 1)
    frames = random_frames(1, 3, (1, 3), "float64", rng)
    start = frames[0, :, 0].T.copy()
    carried = Carried.start(frames)
    logs = carry(rg.dynamics.system.DenseJacobians(None, J[:, None].copy(), "cpu"), carried, 0, 1, 300)[0, 0]
    assert carried.lost_at[0] == -1 and carried.log_stretch[0] <= 22 * np.log(2)
    np.testing.assert_allclose(logs, repeated_qr(J, start).sum(axis=0), atol=300 * 1e-9)


def test_a_stack_steps_as_its_dense_jacobians():
    stack = rg.Stack.init("gru", 2, 4, n_layers=2, seed=3)
    traj = rg.rollout(stack, np.random.default_rng(0).standard_normal((60, 2, 2)))
    assert isinstance(local_jacobians(traj), StackJacobians)
    frames = random_frames(2, 8, (1, 8), np.float64, np.random.default_rng(4))
    start = frames.reshape(2, 8, 8).copy()
    logs = carry(local_jacobians(traj), Carried.start(frames), 0, 6, 10).sum(axis=0)
    J = rg.jacobians(traj)
    for b in range(2):
        np.testing.assert_allclose(logs[b], repeated_qr(J[:, b], start[b].T).sum(axis=0), atol=60e-9)
    spectrum = rg.lyapunov_spectrum(stack, np.random.default_rng(0).standard_normal((200, 2)), k=2)
    assert spectrum.exponents.shape == (1, 2) and spectrum.state_size == 8


@compiled_only
def test_the_sum_of_all_exponents_is_the_mean_log_determinant():
    for N, B in ((4, 1), (12, 3)):
        J = matrices(1000 * B, N, seed=N).reshape(1000, B, N, N)
        spectrum = rg.lyapunov_of(J)
        expected = np.linalg.slogdet(J)[1].mean(axis=0)
        np.testing.assert_allclose(spectrum.exponents.sum(axis=1), expected, atol=1e-10)


def test_a_sample_does_not_depend_on_its_batch():
    J = matrices(300 * 3, 6).reshape(300, 3, 6, 6)
    frames = random_frames(3, 6, (1, 6), np.float64, np.random.default_rng(0))
    dense = rg.dynamics.system.DenseJacobians
    together = carry(dense(None, J, "cpu"), Carried.start(frames.copy()), 0, 10, 30)
    alone = carry(dense(None, J[:, 1:2].copy(), "cpu"), Carried.start(frames[1:2].copy()), 0, 10, 30)
    np.testing.assert_array_equal(together[:, 1], alone[:, 0])


# ---------------------------------------------------------------- exact answers


def test_normal_matrices_have_the_logarithms_of_their_eigenvalues():
    lam = np.array([1.5, -1.0, 0.5, 0.01])
    Q = np.linalg.qr(matrices(1, 4)[0])[0]
    spectrum = rg.lyapunov_of(np.broadcast_to(Q @ np.diag(lam) @ Q.T, (500, 4, 4)), transient=100)
    np.testing.assert_allclose(spectrum.exponents[0], np.log(np.abs(lam)), atol=1e-10)
    rotations = rg.lyapunov_of(np.broadcast_to(Q, (5000, 4, 4)))
    np.testing.assert_allclose(rotations.exponents, 0, atol=1e-14)
    assert rotations.steps_per_qr[0] > 10  # nothing to correct: QRs are far apart
    assert rotations.kaplan_yorke[0] == pytest.approx(4) or rotations.exponents.sum() < 0


def test_factors_beyond_the_range_of_floats():
    for scale in (1e150, 1e-150):
        lam = scale * np.array([1.0, 1e-3, 1e-9])
        exponents = rg.lyapunov_of(np.broadcast_to(np.diag(lam), (400, 3, 3)), transient=50).exponents[0]
        np.testing.assert_allclose(exponents, np.log(lam), rtol=1e-12)


def test_gru_without_weights():
    spectrum = rg.lyapunov_spectrum(zeroed("gru"), steps=200)
    np.testing.assert_allclose(spectrum.exponents, -np.log(2), atol=1e-13)
    assert spectrum.kaplan_yorke[0] == 0


def test_lstm_without_weights_has_exponents_of_minus_infinity():
    b = np.zeros((4, 4))
    b[1] = 1
    spectrum = rg.lyapunov_spectrum(zeroed("lstm", b=b), steps=200)
    np.testing.assert_allclose(spectrum.exponents[0, :4], -np.log1p(np.exp(-1)), atol=1e-13)
    assert (spectrum.exponents[0, 4:] == -np.inf).all()
    assert np.isnan(spectrum.stderr[0, 4:]).all() and (spectrum.stderr[0, :4] < 1e-12).all()
    assert spectrum.lost_at[0] == 0


def test_a_zero_jacobian_is_minus_infinity_and_no_error():
    spectrum = rg.lyapunov_of(np.zeros((50, 3, 3)))
    assert (spectrum.exponents == -np.inf).all() and spectrum.kaplan_yorke[0] == 0


def test_what_rounding_swallows_is_said():
    J = np.broadcast_to(np.diag([1.0, 1e-30]) @ np.array([[1.0, 0.3], [0.2, 1.0]]), (40, 2, 2))
    with pytest.warns(rg.PrecisionWarning, match="step 0 of sample 0"):
        assert rg.lyapunov_of(J).exponents[0, 1] == -np.inf


def test_what_is_no_number_is_an_error_after_a_lost_direction_too():
    J = np.ones((60, 8, 8))
    J[40] *= 1.7e308
    with pytest.raises(OverflowError, match="step 40"):
        rg.lyapunov_of(J)


def test_a_float32_network_is_resolved_as_one_in_float64():
    """One step of a chaotic network contracts directions by more than float32 can tell apart."""
    n = 24
    W = 3 / np.sqrt(n) * np.random.default_rng(3).standard_normal((1, n, n))
    net = rg.Network.init("vanilla", n_inputs=1, n_hidden=n).replace(W=W)
    x, s0 = np.zeros((60, 1)), np.random.default_rng(4).standard_normal(n)
    wide = rg.lyapunov_spectrum(net, x, s0=s0, transient=20)
    single = rg.lyapunov_spectrum(net.astype("float32"), x.astype("float32"), s0=s0.astype("float32"), transient=20)
    assert np.isfinite(single.exponents).all()
    traj = rg.rollout(net.astype("float32"), x.astype("float32"), s0=s0.astype("float32"))
    dense = rg.lyapunov_of(rg.jacobians(traj).astype(np.float64), transient=20)
    np.testing.assert_allclose(single.exponents.sum(), dense.exponents.sum(), atol=1e-3)  # J itself is rounded
    assert abs(single.exponents.sum() - wide.exponents.sum()) < 0.1 * n  # another trajectory of the same attractor
    stack = rg.Stack.init("gru", 1, 3, n_layers=2, dtype="float32")
    assert np.isfinite(rg.lyapunov_spectrum(stack, x.astype("float32"), transient=20).exponents).all()
    J = np.broadcast_to(np.diag([1.0, 1e-9]).astype("float32"), (50, 2, 2))
    np.testing.assert_allclose(rg.lyapunov_of(J, transient=10).exponents[0], [0, np.log(1e-9)], atol=1e-7)


def test_kaplan_yorke_by_hand():
    assert kaplan_yorke(np.array([0.5, -1.0]), 2) == pytest.approx(1.5)
    assert kaplan_yorke(np.array([0.5, -0.25, -1.0]), 3) == pytest.approx(2.25)
    assert kaplan_yorke(np.array([-0.1, -1.0]), 2) == 0
    assert kaplan_yorke(np.array([0.1, 0.0]), 2) == 2
    assert kaplan_yorke(np.array([0.1, -np.inf]), 2) == 1
    assert np.isnan(kaplan_yorke(np.array([0.5, 0.1]), 4))


# ---------------------------------------------------------------- published values, within the errors of the run


def within(spectrum, expected, errors=4.0):
    distance = np.abs(spectrum.exponents[0] - expected)
    assert (distance <= errors * spectrum.stderr[0] + 5e-5).all(), (distance, spectrum.stderr)


@compiled_only
def test_gaussian_products():
    N = 4
    spectrum = rg.lyapunov_of(matrices(20_000, N, seed=1), transient=100)
    exact = (np.log(2) + psi((N - np.arange(N)) / 2)) / 2
    np.testing.assert_allclose(exact, [0.55797, 0.36482, 0.05797, -0.63518], atol=5e-6)
    within(spectrum, exact)


@compiled_only
def test_logistic_map():
    within(rg.lyapunov_spectrum(rg.System(logistic_map, 1, 4.0), s0=[0.3], steps=20_000), np.log(2))


@compiled_only
def test_henon_map():
    system = rg.System(henon, 2, [1.4, 0.3])
    spectrum = rg.lyapunov_spectrum(system, s0=[0.1, 0.1], steps=40_000)
    within(spectrum, [0.41922, -1.62319])
    assert spectrum.exponents.sum() == pytest.approx(np.log(0.3), abs=1e-12)


def test_three_matrices_in_turn_tell_a_jacobian_from_its_transpose():
    """Of transposes the product is that of the reverse order, with the same determinant but other eigenvalues.

    (Two matrices would not do, nor the Hénon map, whose Jacobians are all similar to their transposes by one scaling.)
    """
    A, B, C = matrices(3, 3, seed=5)
    forward = np.log(np.sort(np.abs(np.linalg.eigvals(C @ B @ A)))[::-1]) / 3
    backward = np.log(np.sort(np.abs(np.linalg.eigvals(A @ B @ C)))[::-1]) / 3
    assert abs(forward[0] - backward[0]) > 0.02
    J = np.tile(np.stack([A, B, C]), (400, 1, 1))
    right, wrong = rg.lyapunov_of(J, transient=300), rg.lyapunov_of(J.swapaxes(-1, -2), transient=300)
    np.testing.assert_allclose(right.exponents[0], forward, atol=2e-3)
    np.testing.assert_allclose(wrong.exponents[0], backward, atol=2e-3)


def test_cat_map():
    spectrum = rg.lyapunov_of(np.broadcast_to([[2.0, 1.0], [1.0, 1.0]], (400, 2, 2)), transient=50)
    np.testing.assert_allclose(spectrum.exponents[0], [0.962423650119207, -0.962423650119207], atol=1e-10)


@pytest.mark.slow
def test_standard_map_and_lorenz():
    # Orbits stick to the islands for 10^5 steps and more: one run knows too little of itself, so many are taken.
    s0 = 0.01 * np.random.default_rng(0).standard_normal((48, 1, 2)) % (2 * np.pi)
    spectrum = rg.lyapunov_spectrum(rg.System(standard_map, 2, 1.0, standard_map_jacobian), s0=s0, steps=300_000)
    assert np.abs(spectrum.exponents.sum(axis=1)).max() < 1e-10
    stderr = spectrum.exponents.std(axis=0, ddof=1) / np.sqrt(48)
    assert (np.abs(spectrum.mean()[0] - [0.10497, -0.10497]) <= 4 * stderr).all()
    h = 0.01
    spectrum = rg.lyapunov_spectrum(rg.System(lorenz, 3, h), s0=[1.0, 1.0, 20.0], steps=400_000)
    within(spectrum, h * np.array([0.9056, 0.0, -14.5723]))
    assert spectrum.exponents.sum() / h == pytest.approx(-13.6667, abs=1e-3)
    assert spectrum.kaplan_yorke[0] == pytest.approx(2.062, abs=0.002)


# ---------------------------------------------------------------- intervals


@pytest.mark.slow
def test_intervals_cover_the_logistic_map():
    s0 = np.random.default_rng(7).random((600, 1, 1))
    spectrum = rg.lyapunov_spectrum(rg.System(logistic_map, 1, 4.0), s0=s0, steps=8192)
    low, high = np.moveaxis(spectrum.interval[:, 0], -1, 0)
    assert 0.93 <= np.mean((low <= np.log(2)) & (np.log(2) <= high)) <= 0.97


@pytest.mark.slow
def test_intervals_cover_gaussian_products():
    N, B = 3, 600
    spectrum = rg.lyapunov_of(np.random.default_rng(8).standard_normal((4200, B, N, N)), transient=104)
    exact = (np.log(2) + psi((N - np.arange(N)) / 2)) / 2
    low, high = np.moveaxis(spectrum.interval, -1, 0)
    cover = np.mean((low <= exact) & (exact <= high), axis=0)
    assert ((cover >= 0.93) & (cover <= 0.97)).all(), cover


@pytest.mark.slow
def test_intervals_cover_a_driven_lstm():
    net = rg.Network.init("lstm", n_inputs=2, n_hidden=5, seed=1, scheme="gaussian", gain=2.0)
    rng = np.random.default_rng(9)
    runs = rg.lyapunov_spectrum(net, rng.standard_normal((5320, 800, 2)), k=3, transient=200)
    truth = rg.lyapunov_spectrum(net, rng.standard_normal((20_200, 200, 2)), k=3, transient=200)
    exact, interval = truth.mean()
    assert (np.diff(interval, axis=-1)[:, 0] < 0.2 * np.diff(runs.interval, axis=-1)[..., 0].mean(axis=0)).all()
    low, high = np.moveaxis(runs.interval, -1, 0)
    cover = np.mean((low <= exact) & (exact <= high), axis=0)
    assert ((cover >= 0.93) & (cover <= 0.97)).all(), cover


@compiled_only
@pytest.mark.parametrize(("memory", "steps"), [(0.97, 4000), (0.99, 20_000), (-0.9, 2000), (0.0, 16)])
def test_intervals_cover_products_with_a_memory(memory, steps):
    """Logarithms that are an autoregression, whose memory can be longer than a block; the exponent is 0."""
    noise = np.random.default_rng(12).standard_normal((steps + 1000, 1000))
    logs = lfilter([1.0], [1.0, -memory], noise, axis=0)[1000:]
    spectrum = rg.lyapunov_of(np.exp(logs)[..., None, None])
    low, high = np.moveaxis(spectrum.interval[:, 0], -1, 0)
    assert 0.925 <= np.mean((low <= 0) & (high >= 0)) <= 0.975
    sigma = spectrum.exponents[:, 0].std()
    assert np.sqrt(np.mean(spectrum.stderr**2)) == pytest.approx(sigma, rel=0.08)


@pytest.mark.parametrize("kind", ["white", "undone", "remembered"])
def test_standard_errors_are_those_of_known_series(kind):
    """Mean squares over 400 series: sigma^2/M, 2 sigma^2/M^2 of differences, and sigma^2 (1 + r)/(1 - r)/M of AR(1)."""
    M, R, r = 256, 400, 0.6
    e = np.random.default_rng(0).standard_normal((M + 201, R))
    if kind == "white":
        values, exact = e[:M], 1 / M
    elif kind == "undone":
        values, exact = np.diff(e[: M + 1], axis=0), 2 / M**2
    else:
        values, exact = scipy.signal.lfilter([1], [1, -r], e, axis=0)[201:], 1 / (1 - r) ** 2 / M
    error, half = mean_interval(values)
    assert 0.75 < np.mean(error**2) / exact < 1.35
    assert 0.92 < np.mean(np.abs(values.mean(axis=0)) <= half) <= 0.98


def test_the_mean_over_samples_has_an_interval_of_its_own():
    J = np.random.default_rng(3).standard_normal((200, 30, 2, 2))
    spectrum = rg.lyapunov_of(J)
    middle, interval = spectrum.mean()
    np.testing.assert_allclose(middle, spectrum.exponents.mean(axis=0))
    spread = spectrum.exponents.std(axis=0, ddof=1) / np.sqrt(30)
    np.testing.assert_allclose(interval[:, 1] - middle, 2.045229642132703 * spread)  # t of 29 degrees of freedom
    with pytest.raises(ValueError, match="one sample"):
        rg.lyapunov_of(J[:, 0]).mean()


# ---------------------------------------------------------------- how a run is made


def test_history_ends_at_the_exponents_and_pieces_do_not_matter(monkeypatch):
    net = rg.Network.init("vanilla", n_inputs=2, n_hidden=6, scheme="gaussian", gain=1.5)
    x = np.random.default_rng(0).standard_normal((700, 2, 2))
    whole = rg.lyapunov_spectrum(net, x, transient=90)
    assert (whole.steps, whole.transient) == (610, 90)
    np.testing.assert_allclose(whole.history[-1], whole.exponents, atol=1e-13)
    assert whole.lengths.sum() == 610 and len(whole.local) == len(whole.lengths)
    from rnngrad.analysis import lyapunov

    monkeypatch.setattr(lyapunov, "_PIECE", 2 * 32 * 6 * 8 * 23)  # 23 steps at a time
    pieces = rg.lyapunov_spectrum(net, x, transient=90)
    np.testing.assert_allclose(pieces.exponents, whole.exponents, atol=1e-9)


@compiled_only
def test_leading_exponents_are_those_of_all():
    net = rg.Network.init("gru", n_inputs=1, n_hidden=6)
    x = np.random.default_rng(0).standard_normal((3000, 1))
    few, all_ = rg.lyapunov_spectrum(net, x, k=2), rg.lyapunov_spectrum(net, x)
    np.testing.assert_allclose(few.exponents[0], all_.exponents[0, :2], atol=5e-3)  # other frames to begin with
    assert np.isnan(few.kaplan_yorke[0]) or few.exponents.sum() < 0


def test_saved_and_drawn(tmp_path):
    spectrum = rg.lyapunov_of(matrices(300, 3))
    held = np.load(spectrum.save(tmp_path / "spectrum.npz"))
    for name in ("exponents", "stderr", "interval", "history", "kaplan_yorke", "lengths"):
        assert name in held
    np.testing.assert_array_equal(held["stderr"], spectrum.stderr)
    assert "exponent" in spectrum.plot().get_ylabel()


@pytest.mark.parametrize(
    ("J", "says"),
    [
        (np.zeros((50, 2, 2)), "λ₁ = −∞: a step forgets everything"),
        (np.broadcast_to(2 * np.eye(2), (5, 2, 2)), "λ₁ = 0.693 per step; too few steps for an interval"),
        (np.broadcast_to(2 * np.eye(2), (50, 2, 2)), "nearby states part"),
        (np.full((50, 3, 1, 1), 0.5), "Sample 0: λ₁ = -0.693 ± 0 per step: nearby states meet"),
        (np.ones((50, 3, 1, 1)), "at the edge"),
    ],
)
def test_the_title_claims_no_more_than_was_measured(J, says):
    assert says in rg.lyapunov_of(J).plot().get_title(loc="left").replace("\n", " ")


def test_exponents_along_a_trajectory_are_those_of_the_network():
    net = rg.Network.init("gru", n_inputs=2, n_hidden=4)
    x = np.random.default_rng(0).standard_normal((200, 2, 2))
    along = lyapunov_along(rg.rollout(net, x), 3)
    direct = rg.lyapunov_spectrum(net, x, s0=np.zeros((2, 1, 4)), k=3)
    np.testing.assert_allclose(along.exponents, direct.exponents, atol=1e-12)
    assert along.transient == direct.transient and (along.lengths == direct.lengths).all()
    with pytest.raises(ValueError, match="equal length"):
        lyapunov_along(rg.rollout(net, x, lengths=[200, 100]))


def test_the_figure_says_what_the_interval_allows():
    for gain, said in ((0.5, "nearby states meet"), (3.0, "nearby states part")):
        net = rg.Network.init("vanilla", 0, 40, scheme="gaussian", gain=gain)
        assert said in rg.lyapunov_spectrum(net, steps=300, k=3).plot().get_title(loc="left")


def test_progress_is_told():
    shares = []
    rg.lyapunov_spectrum(zeroed("gru"), steps=64, progress=shares.append)
    assert shares[-1] == 1 and shares == sorted(shares)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x": np.zeros((10, 1))}, "x has 10 steps"),
        ({"x": np.zeros((100, 1)), "steps": 10}, "steps is 10 beside x"),
        ({"x": np.zeros((100, 1)), "transient": 90}, "transient is 90"),
        ({"x": np.full((100, 1), np.nan)}, "x"),
        ({"k": 5}, "k is 5"),
        ({"k": 0}, "k is 0"),
        ({"steps": 3}, "steps is 3"),
        ({"s0": np.zeros((2, 1, 4)), "samples": 3}, "samples is 3"),
        ({"s0": np.zeros(3)}, "s0"),
        ({"seed": None}, "seed is None"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        rg.lyapunov_spectrum(zeroed("gru"), **arguments)


def test_bad_matrices_and_systems():
    with pytest.raises(ValueError, match="matrices has shape"):
        rg.lyapunov_of(np.zeros((10, 3, 2)))
    with pytest.raises(ValueError, match="matrices"):
        rg.lyapunov_of(np.full((10, 2, 2), np.inf))
    with pytest.raises(ValueError, match="net is int"):
        rg.lyapunov_spectrum(3)


@compiled_only
def test_a_system_that_diverges_is_an_error():
    with pytest.warns(rg.DivergenceWarning), pytest.raises(ValueError, match="not finite from step"):
        rg.lyapunov_spectrum(rg.System(logistic_map, 1, 4.5), s0=[0.3], steps=1000)


def test_where_a_run_diverges_is_counted_from_its_start(monkeypatch):
    """1.4^t passes the range of float64, 2^1024, at the step 1024 ln 2/ln 1.4 = 2109.5, in the last piece of many."""
    from rnngrad.analysis import lyapunov

    monkeypatch.setattr(lyapunov, "_PIECE", 32 * 2 * 8 * 100)
    net = rg.Network.from_parameters("linear", {"W": 1.4 * np.eye(2)[None], "b": np.zeros((1, 2))})
    with pytest.warns(rg.DivergenceWarning), pytest.raises(ValueError, match="not finite from step 2110 on"):
        rg.lyapunov_spectrum(net, s0=[1.0, 1.0], steps=3000)
