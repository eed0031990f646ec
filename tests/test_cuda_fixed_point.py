"""CUDA's iterations to fixed points, run by Numba's simulator, against the CPU kernels, LAPACK and the reference.

As in ``test_cuda_simulator.py``: the tests run in a process of their own that has the simulator.
"""

import numpy as np
import pytest
import reference
from cases import CELLS, assert_close, assert_gradients, make_case
from simulated import DTYPES, SIMULATED, inside, sessions

import rnngrad as rg
from rnngrad import _cuda
from rnngrad.analysis.settling import settling
from rnngrad.dynamics.jacobian import local_jacobians
from rnngrad.fixedpoint.solve import ended, history_arrays
from rnngrad.kernels import cpu

#: residuals that leave room above rounding: iterations end at the same k
REACHED = {"float64": 1e-6, "float32": 1e-4}
METHODS = {"picard": {}, "anderson": {"window": 2}, "anderson, damped": {"window": 3, "damping": 0.6}}
overflows = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of interpreted kernels

if SIMULATED:
    from rnngrad.kernels import cuda
    from rnngrad.kernels.cuda import block, pieces


test_in_the_simulator, _ = sessions(__file__)


# ---------------------------------------------------------------- forward


def drawn(cell, dtype="float64", **sizes):
    """A network that is small enough to have an attracting fixed point."""
    return make_case(cell, scale=0.4, dtype=dtype, T=1, **sizes)


def solved(case, backend, method="anderson", **options):
    options = {"tol": REACHED[case.net.dtype.name], "backend": backend, **METHODS.get(method, {}), **options}
    return rg.solve_fixed_point(case.net, case.x[0], method.split(",")[0], **options)


def assert_same_bits(found, expected):
    for name in ("s", "h", "y", "residual", "iterations", "history", "status", "cycle"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)


@inside
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("cell", "method"),
    [*((cell, method) for cell in CELLS for method in list(METHODS)[:2]), ("lstm", list(METHODS)[2])],
)
def test_iterations_are_those_of_the_cpu(cell, method, dtype):
    case = drawn(cell, dtype)
    cpu_fp, fp = (solved(case, backend, method, max_iterations=12) for backend in ("cpu", "cuda"))
    np.testing.assert_array_equal(fp.status, cpu_fp.status)
    np.testing.assert_array_equal(fp.iterations, cpu_fp.iterations)
    assert fp.s.dtype == case.net.dtype and fp.history.dtype == np.float64
    # what rounding makes of Anderson's small least-squares problem stays below its residual
    assert_close(fp.s, cpu_fp.s, DTYPES[dtype])
    assert_close(fp.history[:3], cpu_fp.history[:3], DTYPES[dtype])
    assert ((fp.residual <= REACHED[dtype]) == fp.converged).all()
    image = [
        reference.step(cell, case.params, s.astype(float), x.astype(float), case.net.activation, case.alpha)
        for s, x in zip(fp.s, case.x[0], strict=True)
    ]
    rounding = 32 * np.finfo(dtype).eps
    np.testing.assert_allclose(np.linalg.norm((image - fp.s).reshape(3, -1), axis=1), fp.residual, atol=rounding)


@inside
@pytest.mark.parametrize("dtype", DTYPES)
def test_anderson_on_a_linear_map_ends_with_the_krylov_space(dtype):
    """Also with a window that holds more changes than there are directions: what depends on others is left out."""
    rng = np.random.default_rng(0)
    net = rg.Network.init("linear", 2, 3).replace(W=1.5 * rng.standard_normal((1, 3, 3))).astype(dtype)
    x = rng.standard_normal((5, 2)).astype(dtype)
    tol = 2e-4 if dtype == "float32" else 1e-9
    fp = rg.solve_fixed_point(net, x, window=6, tol=tol, max_iterations=12, backend="cuda")
    A = np.eye(3) - net.W[0].astype(float)
    truth = np.linalg.solve(A, (x @ net.U[0].T + net.b[0]).T.astype(float)).T
    assert fp.converged.all() and (fp.iterations <= 7).all() and fp.spectral_radius[0] > 1
    np.testing.assert_allclose(fp.h, truth, rtol=0, atol=2 * tol * np.linalg.norm(np.linalg.inv(A), 2))


def two_ways():
    """h_1 = relu(4 h_1 + x_1), h_2 = relu(-2 h_2 + x_2): inputs to converge, grow and oscillate."""
    net = rg.Network.init("vanilla", 2, 2, activation="relu")
    net = net.replace(W=np.array([[[4.0, 0], [0, -2.0]]]), U=np.eye(2)[None], b=np.zeros((1, 2)))
    return net, np.array([[-1.0, -1.0], [1.1, -1.0], [-1.0, 1.0], [-1.0, -1.0], [-1.0, -1.0], [-1.0, 0.0]])


@inside
@overflows
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_sample_has_its_own_end(dtype):
    net, x = two_ways()
    net, x, s0 = net.astype(dtype), x.astype(dtype), np.zeros((6, 1, 2), dtype)
    s0[3], s0[4], s0[5] = np.nan, np.finfo(dtype).max, 0.25
    options = {"tol": 1e-5, "s0": s0, "max_iterations": 70}
    cpu_fp, fp = (rg.solve_fixed_point(net, x, "picard", backend=backend, **options) for backend in ("cpu", "cuda"))
    assert fp.status.tolist() == ["converged", "diverged", "oscillating", "invalid", "diverged", "converged"]
    np.testing.assert_array_equal(fp.cycle, [0, 0, 2, 0, 0, 0])
    for name in ("status", "iterations", "cycle", "s"):
        np.testing.assert_array_equal(getattr(fp, name), getattr(cpu_fp, name), err_msg=name)
    np.testing.assert_allclose(fp.history, cpu_fp.history, rtol=4 * np.finfo(dtype).eps)
    for b in (0, 1, 2, 5):
        alone = rg.solve_fixed_point(net, x[b], "picard", backend="cuda", **{**options, "s0": s0[b]})
        np.testing.assert_array_equal(alone.s[0], fp.s[b])
        np.testing.assert_array_equal(alone.history[:, 0], fp.history[: len(alone.history), b])


@inside
def test_a_state_that_is_no_number_ends_at_once_and_is_kept():
    net, x = two_ways()
    B = len(x)
    s, history = np.zeros((B, 1, 2)), history_arrays(30, B)
    s[2, 0, 1] = np.nan
    a, a2, none = x[:, None].copy(), np.zeros((B, 0, 2)), np.zeros((1, 1, 0, 2))
    cuda.fixed_point(net.cell, net.phi)(s, *history, (1e-9, 30, 2, 1.0, 1), a, a2, net.W, np.zeros((0, 2, 2)), none)
    residuals, iterations, ends = history
    assert iterations[2] == 0 and ends[2] == cuda.NOT_FINITE and np.isnan(residuals[0, 2])
    np.testing.assert_array_equal(s[2, 0], [0, np.nan])
    assert ends[0] == cuda.CONVERGED and (s[0] == 0).all()
    names = ("CONVERGED", "LIMIT", "NOT_FINITE", "STALLED")
    assert [getattr(cuda, name) for name in names] == [getattr(cpu, name) for name in names] == [0, 1, 2, 3]


@inside
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("window", [0, 2])
def test_a_residual_that_is_rounding_is_as_small_as_it_gets(window, dtype):
    """No residual is below a tolerance of -1: what ends the iteration is that it does not shrink."""
    case = drawn("vanilla", dtype, n=3)
    y, (residuals, iterations, ends), *_ = linear_iteration(case, "cuda", False, (-1.0, 200, window, 1.0, 4))
    assert (ends == cuda.STALLED).all() and (iterations >= 50).all()
    rounding = 32 * np.finfo(dtype).eps * np.sqrt(3) * np.maximum(1, np.linalg.norm(y[:, 0], axis=1))
    assert (residuals[iterations, np.arange(5)] <= rounding).all()


@inside
def test_a_tolerance_is_not_rounded_up():
    from rnngrad.kernels.cuda.fixed_point import _below

    for dtype in (np.dtype(np.float32), np.dtype(np.float64)):
        for value in (0.1, 1e-6, 1e-30, 1e-50, 1e300, 0.5, -1.0):
            number = float(_below(value, dtype))
            assert number <= value and (number == value or dtype == np.float32)
    assert float(_below(0.1, np.dtype(np.float32))) > 0.1 - 1e-8


# ---------------------------------------------------------------- adjoint and tangent


SAMPLE = np.array([2, 0, 1, 1, 0])  # of the rows, in no order


def linear_iteration(case, backend, forward, settings):
    """y <- y J + g, or y <- J y + g, from 0: (y, history, g, local Jacobians)."""
    net = case.net
    local = local_jacobians(rg.rollout(net, case.x, case.s0, backend=backend))
    g = np.random.default_rng(1).standard_normal((5, net.S, net.n)).astype(net.dtype)
    y, history = np.zeros_like(g), history_arrays(settings[1], 5)
    local.linear_fixed_point(y, history, settings, g, SAMPLE, forward)
    return y, history, g, local


@inside
@pytest.mark.parametrize("forward", [False, True], ids=["adjoint", "tangent"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS)
def test_linear_iterations(cell, dtype, forward):
    """They are sums over k of J^k g, each row's by itself, as far as it takes or is allowed."""
    case, limit = drawn(cell, dtype), 8
    settings = (0.05, limit, 0, 1.0, 4)
    expected, truth_history, *_ = linear_iteration(case, "cpu", forward, settings)
    y, (residuals, iterations, ends), g, local = linear_iteration(case, "cuda", forward, settings)
    assert y.dtype == case.net.dtype
    np.testing.assert_array_equal(ends, truth_history[2])
    np.testing.assert_array_equal(iterations, truth_history[1])
    assert_close(y, expected, DTYPES[dtype])
    J = local.dense()[0][SAMPLE].astype(float)
    J = J if forward else J.swapaxes(1, 2)
    for r in range(5):
        own = np.zeros(case.net.N)
        for k in range(iterations[r] + 1):
            image = J[r] @ own + g[r].ravel()
            size = np.linalg.norm(image - own)
            assert abs(residuals[k, r] - size) <= DTYPES[dtype] * residuals[: iterations[r] + 1, r].max()
            if k < iterations[r]:
                assert size > 0.05
                own = image
        assert_close(y[r].ravel(), own, 10 * DTYPES[dtype])
        assert ends[r] == (cuda.CONVERGED if size <= 0.05 else cuda.LIMIT)


@inside
@pytest.mark.parametrize("forward", [False, True], ids=["adjoint", "tangent"])
def test_linear_iterations_by_mixing(forward):
    """Where J has eigenvalues beyond the unit circle, too; within the directions that there are."""
    case = make_case("linear", n=3, T=1, scale=3.0)
    y, (_, iterations, ends), g, local = linear_iteration(case, "cuda", forward, (1e-9, 12, 4, 1.0, 4))
    J = local.dense()[0][SAMPLE]
    A = np.eye(3) - (J if forward else J.swapaxes(1, 2))
    assert (ends == cuda.CONVERGED).all() and (iterations <= 7).all()
    assert np.abs(np.linalg.eigvals(J)).max() > 1
    np.testing.assert_allclose(y.reshape(5, 3), np.linalg.solve(A, g.reshape(5, 3, 1))[..., 0], rtol=0, atol=1e-7)


@inside
@pytest.mark.parametrize("method", ["iteration", "lu", "neumann"])
@pytest.mark.parametrize("cell", ["vanilla", "gru_reset_before", "lstm"])
def test_implicit_gradients(cell, method):
    case = make_case(cell, scale=0.2, T=1, n=2, B=2)
    target = np.random.default_rng(1).standard_normal((2, case.net.p))
    loss, found = rg.losses.squared_error(target), []
    for backend in ("cpu", "cuda"):
        fp = solved(case, backend, "newton", tol=1e-12)
        assert fp.map.backend == backend and fp.converged.all()
        terms = {"terms": 5} if method == "neumann" else {"tol": 1e-8}
        found.append(rg.implicit_gradient(fp, loss, method, **terms))
    assert_gradients(found[1], found[0], 1e-9, {*case.net.parameters, "x", "z", "loss"})
    np.testing.assert_array_equal(found[1].iterations, found[0].iterations)


@inside
def test_implicit_gradients_of_float32():
    case = drawn("gru", "float32", n=2, B=2)
    loss = rg.losses.squared_error(np.ones((2, case.net.p), np.float32))
    found = [rg.implicit_gradient(solved(case, backend, tol=1e-5), loss, tol=1e-6) for backend in ("cpu", "cuda")]
    assert found[1].W.dtype == np.float32
    assert_gradients(found[1], found[0], 1e-5, {*case.net.parameters, "x", "z"})


# ---------------------------------------------------------------- Newton


@inside
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS)
def test_newton_directions(cell, dtype):
    case = make_case(cell, n=5, dtype=dtype, T=1)
    r = np.random.default_rng(1).standard_normal(case.s0.shape).astype(dtype)
    local = local_jacobians(rg.rollout(case.net, case.x, case.s0, backend="cuda"))
    d, regular = local.newton(r)
    A = np.eye(case.net.N) - local.dense()[0].astype(float)
    truth = np.linalg.solve(A, r.reshape(3, -1, 1).astype(float))[..., 0]
    allowed = 4 * case.net.N * np.finfo(dtype).eps * np.linalg.cond(A)
    assert regular.all() and d.dtype == dtype
    assert (np.abs(d.reshape(3, -1) - truth).max(axis=1) <= allowed * np.abs(truth).max(axis=1)).all()


def directions_of(A, r):
    """A^-1 r of matrices (B, N, N) by the kernel, by way of a linear network with J = I - A for each."""
    B, N, _ = A.shape
    x, regular = r.copy(), np.ones(B, np.bool_)
    for b in range(B):  # W is shared by the samples of a launch
        nothing = np.zeros((1, 1, 1, 0, N), A.dtype), np.zeros((1, 1, 0, N), A.dtype), np.zeros((1, 1, 0, N), A.dtype)
        same, one = np.zeros((1, 1, 1, 1, N), A.dtype), np.ones((1, 1, 1, 1, N), A.dtype)
        W = np.ascontiguousarray((np.eye(N) - A[b])[None]).astype(A.dtype)
        with np.errstate(invalid="ignore", over="ignore"):
            cuda.newton_directions(
                x[b : b + 1], regular[b : b + 1], same, one, *nothing, one[:, :, 0], W, np.zeros((0, N, N), A.dtype)
            )
    return x, regular


@inside
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("N", [1, 2, 8, 9, 17])
def test_elimination_with_pivots(N, dtype):
    """Zeros on the diagonal, rows of very different size, and more than one block of columns."""
    rng = np.random.default_rng(N)
    A = rng.standard_normal((3, N, N)) * 10.0 ** rng.uniform(-1, 1, (3, N, 1))
    if N > 1:
        A[:, np.arange(N), np.arange(N)] = 0
    A = (np.eye(N) - (np.eye(N) - A).astype(dtype)).astype(dtype)  # what a Jacobian in the dtype leaves of it
    r = rng.standard_normal((3, N)).astype(dtype)
    d, regular = directions_of(A, r)
    assert regular.all()
    eps = np.finfo(dtype).eps
    for b in range(3):
        backward = np.abs(A[b].astype(float) @ d[b] - r[b]).max()  # of elimination with pivots, whatever the condition
        assert backward <= 50 * N * eps * np.abs(A[b]).max() * np.abs(d[b]).max()


@inside
@overflows
@pytest.mark.parametrize("N", [2, 9])
def test_singular_and_not_finite_are_said(N):
    rng = np.random.default_rng(N)
    A = rng.standard_normal((4, N, N))
    A[1] = np.outer(rng.integers(1, 9, N), rng.integers(1, 9, N)) / 4
    A[2, N - 1, 0] = np.nan
    A[3, 0, N - 1] = np.inf
    r = rng.standard_normal((4, N))
    d, regular = directions_of(A, r)
    np.testing.assert_array_equal(regular, [True, False, False, False])
    np.testing.assert_array_equal(d[1:], r[1:])
    np.testing.assert_allclose(A[0] @ d[0], r[0], atol=1e-11 * np.linalg.cond(A[0]))


@inside
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("method", ["newton", "newton_krylov"])
def test_newton(method, dtype):
    case = drawn("gru_delayed", dtype, n=2)
    cpu_fp, fp = (solved(case, backend, method) for backend in ("cpu", "cuda"))
    assert fp.converged.all()
    np.testing.assert_array_equal(fp.iterations, cpu_fp.iterations)
    assert_close(fp.s, cpu_fp.s, DTYPES[dtype])


@inside
def test_all_fixed_points():
    net = rg.Network.init("vanilla", 0, 2).replace(W=np.array([[[2.0, 0.3], [0.1, 1.5]]]), b=np.zeros((1, 2)))
    starts = np.random.default_rng(0).uniform(-1.2, 1.2, (12, 2))
    expected, points = (rg.find_fixed_points(net, starts, backend=backend) for backend in ("cpu", "cuda"))
    assert len(points) == len(expected) >= 5
    np.testing.assert_allclose(points.s, expected.s, atol=1e-9)
    np.testing.assert_array_equal(points.unstable, expected.unstable)
    none = rg.find_fixed_points(net, starts[:0], backend="cuda")
    assert len(none) == 0 and len(none.status) == 0


# ---------------------------------------------------------------- where operands lie, pieces, threads, what is refused


def everything(cell="gru_delayed", B=5):
    """What every kernel makes of one network."""
    case, found = drawn(cell, n=2, B=B), {}
    net, settings = case.net, (1e-6, 4, 2, 0.9, 4)
    shapes = ((B, len(gates), net.n) for gates in (net.cell.gates, net.cell.gates2))
    a, a2 = (np.random.default_rng(2).standard_normal(shape) for shape in shapes)
    s, history = case.s0.copy(), history_arrays(4, B)
    cuda.fixed_point(net.cell, net.phi)(s, *history, settings, a, a2, net.W, net.second_weights, net.unit_constants)
    found |= {"s": s, "iterations": history[1], "residuals": ended(*history[:2])}
    for forward in (False, True):
        y, history, _, local = linear_iteration(case, "cuda", forward, settings)
        found |= {f"y {forward}": y, f"iterations {forward}": history[1]}
    return found | {"d": local.newton(case.s0)[0]}


def assert_same(found, expected):
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


@inside
def test_where_trajectories_settle(monkeypatch):
    """The searches of a held input run where the trajectory did."""
    net, x = rg.Network.init("vanilla", 1, 2, seed=0), np.full((20, 1, 1), 0.1)
    found = {}
    for backend in ("cpu", "cuda"):
        traj = rg.rollout(net, x, s0=np.full((1, 1, 2), 0.3), backend=backend)
        if backend == "cuda":
            monkeypatch.setattr(cpu, "rollout", None)
        found[backend] = settling(traj, starts=4, max_steps=60)
    on_cpu, on_cuda = found["cpu"], found["cuda"]
    assert on_cuda.outcome == on_cpu.outcome and on_cuda.searched == on_cpu.searched > 0
    assert_close(on_cuda.points.s, on_cpu.points.s, 1e-12)
    assert_close(on_cuda.last_speed, on_cpu.last_speed, 1e-9)


@inside
def test_weights_in_shared_memory_or_not(monkeypatch):
    expected, levels = everything(), set()
    place = block.placement

    def noted(itemsize, weights, row, limit):
        if limit == 1:  # of the scratch, but not of the weights beside it
            limit = itemsize * row * block.TILE
        levels.add(place(itemsize, weights, row, limit)[0])
        return place(itemsize, weights, row, limit)

    monkeypatch.setattr(block, "placement", noted)
    for limit in (0, 1, 1 << 20):
        monkeypatch.setattr(_cuda, "shared_limit", lambda limit=limit: limit)
        assert_same(everything(), expected)
    assert levels == {block.GLOBAL, block.SHARED, block.WEIGHTS_SHARED}


@inside
def test_a_job_larger_than_the_memory_is_cut(monkeypatch):
    expected, cut = everything(), set()
    run = pieces.run

    def noted(launch, count, operands, what, *rest, **more):
        cut.add(what) if count > 2 else None
        run(launch, count, operands, what, *rest, **more)

    monkeypatch.setattr(pieces, "run", noted)
    monkeypatch.setattr(pieces, "fitting", lambda count, *rest: min(count, 2))
    assert_same(everything(), expected)
    assert cut >= {f"the {what}" for what in (
        "iteration of one sample", "iteration of one row", "Newton direction of one sample"
    )}  # fmt: skip


@inside
def test_what_does_not_fit_at_all_is_refused_with_the_numbers(monkeypatch):
    case = drawn("lstm", n=2, B=2)
    local = local_jacobians(rg.rollout(case.net, case.x, case.s0, backend="cuda"))
    monkeypatch.setattr(_cuda, "free_bytes", lambda: 2000.0)
    with pytest.raises(MemoryError, match="one sample needs .* MiB of GPU memory at once"):
        solved(case, "cuda")
    monkeypatch.setattr(_cuda, "free_bytes", lambda: 500.0)
    with pytest.raises(MemoryError, match="one row needs .* MiB of GPU memory at once"):
        local.linear_fixed_point(case.s0, history_arrays(9, 2), (0.1, 9, 0, 1.0, 4), case.s0, np.arange(2), False)
    with pytest.raises(MemoryError, match="Newton direction of one sample needs .* MiB of GPU memory at once"):
        local.newton(case.s0)


@inside
def test_results_do_not_depend_on_threads_blocks_or_the_run(monkeypatch):
    expected = everything()
    for threads, processors in ((1, 1), (3, 7)):
        monkeypatch.setattr(_cuda, "threads", lambda items, threads=threads: threads)
        monkeypatch.setattr(_cuda, "processors", lambda processors=processors: processors)
        assert_same(everything(), expected)
