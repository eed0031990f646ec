"""Systems of a user, and chains of dense Jacobians, on CUDA: by Numba's simulator, against the CPU and closed forms.

As in ``test_cuda_simulator.py``: the tests run in a process of their own that has the simulator.
"""

import numpy as np
import pytest
from cases import assert_close, assert_gradients
from simulated import DTYPES, SIMULATED, inside, sessions

import rnngrad as rg
from rnngrad import _cuda
from rnngrad.dynamics.frames import Carried, carry, random_frames
from rnngrad.dynamics.system import DenseJacobians
from rnngrad.fixedpoint.solve import history_arrays

if SIMULATED:
    from rnngrad.kernels.cuda import pieces


test_in_the_simulator, _ = sessions(__file__)


# ---------------------------------------------------------------- systems


def logistic_map(s, x, p):
    return (p[0] * s[0] * (1 - s[0]),)


def henon(s, x, p):
    return 1 - p[0] * s[0] * s[0] + s[1], p[1] * s[0]


def henon_jacobian(s, x, p):
    return (-2 * p[0] * s[0], 1.0), (p[1], 0)


def field(u, v, w, p):
    return p[0] * (v - u), u * (p[1] - w) - v, u * v - p[2] * w


def lorenz(s, x, p):
    """A Runge-Kutta step."""
    u, v, w, h = s[0], s[1], s[2], 0.01
    a, b, c = field(u, v, w, p)
    a2, b2, c2 = field(u + h / 2 * a, v + h / 2 * b, w + h / 2 * c, p)
    a3, b3, c3 = field(u + h / 2 * a2, v + h / 2 * b2, w + h / 2 * c2, p)
    a4, b4, c4 = field(u + h * a3, v + h * b3, w + h * c3, p)
    h = h / 6
    return u + h * (a + 2 * a2 + 2 * a3 + a4), v + h * (b + 2 * b2 + 2 * b3 + b4), w + h * (c + 2 * c2 + 2 * c3 + c4)


def network(out, s, x, p):
    """tanh(P s), and the input to the first unit."""
    n = s.size
    for i in range(n):
        total = x[0] if i == 0 else 0.0 * s[0]
        for j in range(n):
            total += p[i * n + j] * s[j]
        out[i] = np.tanh(total)


def network_jacobian(out, s, x, p):
    new = np.empty(s.size)
    network(new, s, x, p)
    for i in range(s.size):
        for j in range(s.size):
            out[i, j] = (1 - new[i] * new[i]) * p[i * s.size + j]


WEIGHTS = 1.3 * np.random.default_rng(7).standard_normal(36) / np.sqrt(6)

#: name -> (f, jacobian, parameters, inputs, range of initial states)
SYSTEMS = {
    "logistic": (logistic_map, None, [3.9], 0, (0.1, 0.9)),
    "henon": (henon, None, [1.4, 0.3], 0, (-0.1, 0.1)),
    "henon, its jacobian": (henon, henon_jacobian, [1.4, 0.3], 0, (-0.1, 0.1)),
    "lorenz": (lorenz, None, [10.0, 28.0, 8 / 3], 0, (1.0, 15.0)),
    "network": (network, None, WEIGHTS, 1, (-1.0, 1.0)),
    "network, its jacobian": (network, network_jacobian, WEIGHTS, 1, (-1.0, 1.0)),
}
N = {"logistic": 1, "henon": 2, "lorenz": 3, "network": 6}


def drawn(name, T=6, B=3, uneven=False):
    """(system, x, s0, lengths)."""
    f, jacobian, params, m, (low, high) = SYSTEMS[name]
    rng, n = np.random.default_rng(0), N[name.split(",")[0]]
    lengths = np.array([T, 1, T - 2][:B]) if uneven else None
    system = rg.System(f, n, params, jacobian, n_inputs=m)
    return system, rng.standard_normal((T, B, m)), rng.uniform(low, high, (B, 1, n)), lengths


def on(name, backend, **options):
    system, x, s0, lengths = drawn(name, **options)
    return rg.rollout(system, x, s0, lengths, backend=backend)


def truth(traj):
    """States and ds'/ds by Python, one step after the other."""
    f, (T, B) = traj.net.map.source, traj.x.shape[:2]
    n, states = traj.net.n, traj.states[:, :, 0].copy()

    def step(s, x):
        if traj.net.map.gives == "written":
            out = np.empty(n, s.dtype)
            f(out, s, x, traj.net.params)
            return out
        return np.array(f(s, x, traj.net.params))

    J = np.broadcast_to(np.eye(n), (T, B, n, n)).copy()
    for b in range(B):
        for t in range(T):
            states[t + 1, b] = step(states[t, b], traj.x[t, b]) if t < traj.lengths[b] else states[t, b]
            for j in range(n if t < traj.lengths[b] else 0):
                moved = states[t, b].astype(complex)
                moved[j] += 1e-40j
                J[t, b, :, j] = step(moved, traj.x[t, b]).imag / 1e-40
    return states[:, :, None], J


@inside
@pytest.mark.parametrize("name", SYSTEMS)
def test_states_and_jacobians(name):
    traj, cpu = (on(name, backend, uneven=True) for backend in ("cuda", "cpu"))
    states, J = truth(traj)
    assert_close(traj.states, states, 1e-13, "states")
    assert_close(rg.jacobians(traj), J, 1e-12, "J")
    assert_close(traj.states, cpu.states, 1e-13)
    assert_close(rg.jacobians(traj), rg.jacobians(cpu), 1e-13)
    for which in ("parameter_jacobians", "input_jacobians"):
        found, expected = (getattr(each.net, which)(each) for each in (traj, cpu))
        assert_close(found, expected, 1e-13, which)
        assert (found[2:, 1] == 0).all()  # a padded step depends on nothing else


@inside
@pytest.mark.parametrize("name", ["logistic", "henon", "lorenz", "network"])
def test_chains(name):
    traj, cpu = (on(name, backend) for backend in ("cuda", "cpu"))
    (found, expected), J = (rg.jacobian_chain(each) for each in (traj, cpu)), truth(traj)[1]
    product = np.broadcast_to(np.eye(traj.net.n), J.shape[1:])
    for step in J[1:]:
        product = step @ product
    T, u = traj.T, np.random.default_rng(1).standard_normal(traj.states.shape[1:])
    assert_close(found.product(T, 1), product, 1e-12, "product")
    assert_close(found.all_to(T), expected.all_to(T), 1e-12)
    assert_close(found.all_from(1), expected.all_from(1), 1e-12)
    assert_close(found.vjp(u, T, 1)[:, 0], np.einsum("bi,bij->bj", u[:, 0], product), 1e-12)
    assert_close(found.jvp(u, T, 1)[:, 0], np.einsum("bij,bj->bi", product, u[:, 0]), 1e-12)
    for ord in (2, "fro"):
        norms = found.log_norms(ord)
        np.testing.assert_allclose(norms, expected.log_norms(ord), rtol=0, atol=1e-11)
        np.testing.assert_allclose(norms[:, T, 1], np.log(np.linalg.norm(product, ord, axis=(1, 2))), atol=1e-11)
    values = found.log_singular_values(T, 0)
    np.testing.assert_allclose(values, expected.log_singular_values(T, 0), atol=1e-10)
    np.testing.assert_allclose(
        values.sum(axis=1), np.log(np.abs(np.linalg.det(J))).sum(axis=0), atol=1e-9
    )  # as the volume


@inside
def test_lyapunov_exponents_and_covariant_vectors():
    system = drawn("henon")[0]
    options = {"steps": 60, "transient": 10, "s0": [[0.1, 0.1]]}
    found, expected = (rg.lyapunov_spectrum(system, backend=backend, **options) for backend in ("cuda", "cpu"))
    np.testing.assert_allclose(found.exponents, expected.exponents, rtol=0, atol=1e-10)
    np.testing.assert_allclose(np.sum(found.exponents, axis=-1), np.log(0.3), atol=1e-11)
    found, expected = (rg.covariant_vectors(on("lorenz", backend, T=10, B=1)) for backend in ("cuda", "cpu"))
    np.testing.assert_allclose(found.log_growth, expected.log_growth, atol=1e-9)
    np.testing.assert_allclose(np.abs(found.vectors), np.abs(expected.vectors), atol=1e-9)


@inside
def test_gradients():
    for name in ("henon", "network"):
        traj, cpu = (on(name, backend, uneven=True) for backend in ("cuda", "cpu"))
        loss = rg.losses.squared_error(np.ones_like(cpu.y))
        assert_gradients(rg.bptt(traj, loss), rg.bptt(cpu, loss), 1e-12)
    assert_gradients(rg.rtrl(traj, loss), rg.rtrl(cpu, loss), 1e-12, names={"params", "s0"})
    np.testing.assert_allclose(
        rg.gradient_flow(traj, loss).log_norm, rg.gradient_flow(cpu, loss).log_norm, rtol=0, atol=1e-11
    )


# ---------------------------------------------------------------- fixed points


def contracting(out, s, x, p):
    """A network that has one fixed point."""
    network(out, s, x, p)
    for i in range(s.size):
        out[i] = 0.5 * out[i] + 0.1


@inside
@pytest.mark.parametrize(
    ("method", "options"), [("picard", {}), ("anderson", {"window": 2}), ("newton", {}), ("newton_krylov", {})]
)
def test_fixed_points(method, options):
    system = rg.System(contracting, 6, WEIGHTS, n_inputs=1)
    x, tol = np.array([[0.3], [-1.0], [2.0], [0.0], [0.7]]), 1e-8
    found, expected = (
        rg.solve_fixed_point(system, x, method, tol=tol, backend=backend, **options) for backend in ("cuda", "cpu")
    )
    assert found.converged.all()
    np.testing.assert_array_equal(found.iterations, expected.iterations)
    assert_close(found.s, expected.s, 1e-9 if method == "newton_krylov" else 1e-12)
    image = rg.rollout(system, x[None], found.s).states[1]
    assert np.linalg.norm((image - found.s)[:, 0], axis=1).max() <= 2 * tol
    loss = rg.losses.squared_error(np.zeros((1, 5, 6)))
    gradients = [rg.implicit_gradient(fp, loss) for fp in (found, expected)]
    assert_gradients(*gradients, 1e-7 if method == "newton_krylov" else 1e-10, names={"params", "x", "loss"})


@inside
def test_all_fixed_points_and_cycles():
    system, starts = rg.System(henon, 2, [1.4, 0.3]), np.random.default_rng(0).uniform(-1.5, 1.5, (12, 2))
    x = (-0.7 + np.array([-1, 1]) * np.sqrt(0.49 + 4 * 1.4)) / 2.8  # 1 - 1.4 x^2 + 0.3 x = x
    for period in (1, 2):
        found = rg.find_fixed_points(system, starts, period=period, backend="cuda")
        expected = rg.find_fixed_points(system, starts, period=period, backend="cpu")
        np.testing.assert_allclose(found.s, expected.s, atol=1e-10)
        if period == 1:
            np.testing.assert_allclose(np.sort(found.s[:, 0, 0]), x, atol=1e-10)


@inside
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of interpreted functions
def test_a_state_that_leaves_the_numbers():
    system = rg.System(logistic_map, 1, [4.0])
    first = next(t for t in range(20) if not np.isfinite(rg.rollout(system, s0=[2.0], steps=20).states[t]))
    traj = rg.rollout(system, s0=[2.0], steps=20, backend="cuda")
    found, expected = (
        rg.solve_fixed_point(system, s0=[2.0], method="picard", backend=backend) for backend in ("cuda", "cpu")
    )
    assert traj.diverged[0] == first
    assert found.status.tolist() == expected.status.tolist() == ["diverged"]


# ---------------------------------------------------------------- dense kernels, in both dtypes


SAMPLE = np.array([2, 0, 1, 1, 0, 2, 2])  # of the rows, in no order


def dense(dtype, n=5, T=4, B=3, scale=1.0):
    J = np.random.default_rng(3).standard_normal((T, B, n, n)) * scale / np.sqrt(n)
    return DenseJacobians(None, J.astype(dtype), "cuda")


def rows_of(dtype, n=5, S=1):
    return np.random.default_rng(4).standard_normal((len(SAMPLE), S, n // S)).astype(dtype)


@inside
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("large", [False, True])
def test_dense_chains(dtype, large):
    """Rows of any samples in any order; products that leave the range of floats carry an exponent."""
    widest = {"float64": 500, "float32": 60}[dtype]
    power = 1.5 * widest // 1 if large else 0
    scale = 2.0**power
    local, y, start = dense(dtype, scale=scale), rows_of(dtype), np.arange(len(SAMPLE)) - 3
    for walk, at, forward in ((local.adjoint, 4, False), (local.tangent, 1, True)):
        rows, exponents = walk(y, start, SAMPLE, at, 3)
        assert rows.dtype == dtype and np.abs(rows).astype(float).max() <= 2.0**widest
        current, e = y[:, 0].astype(float), start.copy()
        for d in range(3):
            J = (local.J.astype(float) / scale)[1 + d if forward else 3 - d, SAMPLE]
            current = np.einsum("rij,rj->ri", J, current) if forward else np.einsum("ri,rij->rj", current, J)
            slot = d if forward else 2 - d
            shift = exponents[slot] - e - (d + 1) * power
            assert_close(rows[slot, :, 0] * 2.0 ** shift[:, None], current, 4 * DTYPES[dtype])


@inside
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [1, 5, 11])
def test_dense_directions(dtype, n):
    local, r = dense(dtype, n, T=1, B=3), np.random.default_rng(4).standard_normal((3, 1, n)).astype(dtype)
    local.J[0, 1] = np.eye(n)
    kept = local.J.copy()
    d, regular = local.newton(r)
    np.testing.assert_array_equal(regular, [True, False, True])
    np.testing.assert_array_equal(local.J, kept)
    for b in (0, 2):
        A = np.eye(n) - local.J[0, b].astype(float)
        expected = np.linalg.solve(A, r[b, 0].astype(float))
        assert_close(d[b, 0], expected, DTYPES[dtype] * np.linalg.cond(A))
    np.testing.assert_array_equal(d[1], r[1])


@inside
@pytest.mark.parametrize("backend", ["cpu", "cuda"])
@pytest.mark.parametrize("S", [1, 2])
@pytest.mark.parametrize("forward", [False, True])
def test_dense_iterations(forward, S, backend):
    """Also of states of two vectors, as a cycle of an LSTM has them."""
    local, g = DenseJacobians(None, dense("float64", 6, T=1, scale=0.4).J, backend), rows_of("float64", 6, S)
    y, history = np.zeros_like(g), history_arrays(200, len(g))
    local.linear_fixed_point(y, history, (1e-13, 200, 0, 1.0, 4), g, SAMPLE, forward)
    A = np.eye(6) - local.J[0][SAMPLE]
    expected = np.linalg.solve(A if forward else A.swapaxes(1, 2), g.reshape(-1, 6, 1))
    assert_close(y.reshape(-1, 6), expected[..., 0], 1e-11)
    assert (history[2] == 0).all()


@inside
@pytest.mark.parametrize("dtype", DTYPES)
def test_dense_frames_and_norms(dtype):
    local = dense(dtype, T=7).in_float64()
    frames = random_frames(3, 3, (1, 5), np.float64, np.random.default_rng(0))
    start = frames[:, :, 0].swapaxes(1, 2).copy()
    carried = Carried.start(frames)
    logs = carry(local, carried, 1, 2, 3)
    for b in range(3):
        Q, total = start[b], np.zeros(3)
        for t in range(1, 7):
            Q, R = np.linalg.qr(local.J[t, b] @ Q)
            total += np.log(np.abs(np.diag(R)))
            Q = Q * np.sign(np.diag(R))
        np.testing.assert_allclose(logs[:, b].sum(axis=0), total, atol=1e-11)
        np.testing.assert_allclose(carried.frames[b, :, 0].T, Q, atol=1e-10)
    out, times = np.empty((2, 3, 8)), np.array([6, 2])
    local.norms(out, times, np.eye(5)[1:4].reshape(3, 1, 5), (0, 4), True)
    for i, t in enumerate(times):
        for b in range(3):
            product = np.eye(5)
            for k in range(t, -1, -1):
                assert abs(out[i, b, k] - np.log(max(np.linalg.norm(product[1:4, :4], 2), 1e-300))) < 1e-11
                product = product @ local.J[k - 1, b]
    assert np.isnan(out[0, :, 7]).all() and np.isnan(out[1, :, 3:]).all()


@inside
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
def test_chains_of_a_whole_batch_that_is_normalised(training, dtype):
    rng = np.random.default_rng(0)
    net, x, s0 = rg.BatchNormLSTM.init(1, 2, seed=1), rng.standard_normal((3, 3, 1)), rng.standard_normal((3, 2, 2))
    net = net.replace(gamma_h=rng.uniform(0.2, 1, (4, 2)))
    net = net if training else net.with_statistics(rg.rollout(net, x, s0), 3)
    args = net.astype(dtype), x.astype(dtype), s0.astype(dtype)
    found, expected = (rg.jacobian_chain(rg.rollout(*args, backend=backend)) for backend in ("cuda", "cpu"))
    J = rg.full_jacobians(rg.rollout(*args, backend="cpu")).astype(float)
    assert_close(found.product(3, 0)[0], J[2] @ J[1] @ J[0], 30 * DTYPES[dtype])
    assert_close(found.all_from(1), expected.all_from(1), 30 * DTYPES[dtype])
    atol = 100 * DTYPES[dtype]
    np.testing.assert_allclose(found.log_norms(), expected.log_norms(), atol=atol)
    np.testing.assert_allclose(found.log_norm(3, 0), expected.log_norm(3, 0), atol=atol)
    if dtype == "float64":
        np.testing.assert_allclose(
            found.log_singular_values(3, 0)[0, :6], expected.log_singular_values(3, 0)[0, :6], atol=1e-8
        )


# ---------------------------------------------------------------- pieces, threads, where operands lie


def everything():
    """What every kernel of a system makes, by name."""
    found = {}
    for name in ("henon, its jacobian", "network"):
        traj = on(name, "cuda", T=4, uneven=True)
        chain, local = rg.jacobian_chain(traj), dense("float64", traj.net.n, T=1, scale=0.4)
        found |= {(name, "states"): traj.states, (name, "J"): rg.jacobians(traj), (name, "to"): chain.all_to(traj.T)}
        found |= {(name, "from"): chain.all_from(0), (name, "params"): traj.net.parameter_jacobians(traj)}
        found[name, "norms"] = np.nan_to_num(chain.log_norms())
        frames = random_frames(traj.B, 2, (1, traj.net.n), np.float64, np.random.default_rng(3))
        found[name, "frames"] = carry(chain.jacobians, Carried.start(frames), 0, 1, traj.T)
        r = np.random.default_rng(4).standard_normal((3, 1, traj.net.n))
        found[name, "d"] = local.newton(r)[0]
        for forward in (False, True):
            y, history = r.copy(), history_arrays(5, 3)
            local.linear_fixed_point(y, history, (1e-9, 5, 0, 1.0, 4), r, np.array([2, 0, 1]), forward)
            found[name, forward] = y
    fp = rg.solve_fixed_point(
        rg.System(contracting, 6, WEIGHTS, n_inputs=1), np.array([[0.3], [-1.0], [2.0]]), tol=1e-2, backend="cuda"
    )
    return found | {"fp": fp.s}


def assert_same(found, expected):
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=str(name))


@inside
def test_results_do_not_depend_on_pieces_threads_or_memory(monkeypatch):
    expected, cut, halved = everything(), set(), []
    for threads, processors, limit in ((1, 1, 0), (3, 7, 1 << 20)):
        with monkeypatch.context() as patch:
            patch.setattr(_cuda, "threads", lambda items, threads=threads: threads)
            patch.setattr(_cuda, "processors", lambda processors=processors: processors)
            patch.setattr(_cuda, "shared_limit", lambda limit=limit: limit)
            assert_same(everything(), expected)
    run, fitting = pieces.run, pieces.fitting

    def noted(launch, count, operands, what, *rest, **more):
        cut.add(what) if count > 2 else None
        run(launch, count, operands, what, *rest, **more)

    with monkeypatch.context() as patch:
        patch.setattr(pieces, "run", noted)
        patch.setattr(pieces, "fitting", lambda count, *rest: min(count, 2))
        assert_same(everything(), expected)
    assert cut >= {
        "a rollout", "the derivatives of one step", "the Jacobians of one step", "one row of a chain of Jacobians",
        "the norms of one sample", "the frame of one sample", "the iteration of one sample", "the iteration of one row",
        "the Newton direction of one sample",
    }  # fmt: skip

    def in_halves(count, operands, *rest):  # asked for outside of a run: nothing fits but single steps
        steps = operands[0].array.shape[0]
        if operands[0].axis == 1 and steps > 2:
            halved.append(steps)
            return 0
        return fitting(count, operands, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(pieces, "fitting", in_halves)
        found = in_time()
    assert halved
    assert_same(found, {name: expected[name] for name in found})


def in_time():
    """What is halved in time."""
    found = {}
    for name in ("henon, its jacobian", "network"):
        traj = on(name, "cuda", T=4, uneven=True)
        found |= {(name, "states"): traj.states, (name, "to"): rg.jacobian_chain(traj).all_to(traj.T)}
        found[name, "from"] = rg.jacobian_chain(traj).all_from(0)
    return found


@inside
def test_what_does_not_fit_is_refused_with_the_numbers(monkeypatch):
    traj = on("network", "cuda")
    monkeypatch.setattr(_cuda, "free_bytes", lambda: 300.0)
    with pytest.raises(MemoryError, match="derivatives of one step needs .* MiB of GPU memory at once"):
        rg.jacobians(traj)
    with pytest.raises(MemoryError, match="a rollout needs .* MiB"):
        on("network", "cuda", T=1)


# ---------------------------------------------------------------- what cannot run there


def allocates(s, x, p):
    return np.array([p[0] * s[0]])


@inside
def test_a_function_that_makes_an_array_is_refused():
    system = rg.System(allocates, 1, [0.5])
    message = r"f cannot be compiled for CUDA: it makes an array.*returns a tuple of numbers.*f\(out, s, x, params\)"
    with pytest.raises(rg.BackendError, match=message):
        rg.rollout(system, s0=[0.1], steps=3, backend="cuda")
    with pytest.raises(rg.BackendError, match=message):
        rg.solve_fixed_point(system, s0=[0.5], method="picard", backend="cuda")
    given = rg.System(logistic_map, 1, [3.9], jacobian=lambda s, x, p: np.array([[p[0] * (1 - 2 * s[0])]]))
    with pytest.raises(rg.BackendError, match=r"jacobian cannot be compiled.*jacobian\(out, s, x, params\)"):
        rg.jacobians(rg.rollout(given, s0=[0.1], steps=3, backend="cuda"))


@inside
def test_what_the_compiler_refuses_is_said_with_the_form_to_use(monkeypatch):
    def refuse(self, *args):
        raise KeyError("<ufunc 'frexp'>")

    system = rg.System(henon, 2, [1.4, 0.3])
    traj = rg.rollout(system, s0=[0.1, 0.1], steps=3, backend="cuda")
    monkeypatch.setattr(_cuda.Kernel, "compile", refuse)
    with pytest.raises(rg.BackendError, match="f cannot be compiled for CUDA: .*frexp.*or use backend='cpu'"):
        rg.rollout(system, s0=[0.1, 0.1], steps=3, backend="cuda")
    with pytest.raises(rg.BackendError, match="for complex numbers, as the complex step needs.*give jacobian="):
        rg.jacobians(traj)
