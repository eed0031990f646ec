"""Fixed points of inputs and states that stay on the GPU: by Numba's simulator.

As in ``test_cuda_simulator.py``: the tests run in a process of their own that has the simulator. The truth is what the
same kernels make of arrays that are given on the host; those are tested against the CPU, LAPACK and the reference.
"""

import numpy as np
import pytest
import test_cuda_simulator
from cases import CELLS, assert_close, assert_gradients, make_case
from simulated import DTYPES, inside, sessions
from test_cuda_simulator import host, on_device, to_device

import rnngrad as rg
from rnngrad import _cuda
from rnngrad.dynamics import placed
from rnngrad.fixedpoint import find

copied = test_cuda_simulator.copied  # bytes of each copy to the host, where NumPy makes none by itself

REACHED = {"float64": 1e-9, "float32": 1e-4}
SMALL = {"float64": 1e-13, "float32": 1e-6}  # what another order of summation makes of a length
CELLS_HERE = [
    pytest.param(cell, marks=() if cell in ("vanilla", "lstm", "gru") else pytest.mark.slow) for cell in CELLS
]


test_in_the_simulator, test_in_the_simulator_at_length = sessions(__file__)


def drawn(cell, dtype="float64", **sizes):
    """A network that is small enough to have an attracting fixed point, of more numbers than it has samples."""
    return make_case(cell, scale=0.4, dtype=dtype, T=1, **{"n": 5, "m": 4, "B": 3, **sizes})


def assert_points(found, expected, dtype, to_the_bit=True):
    """The same fixed points, on the GPU and on the host."""
    for name in ("s", "h", "y"):
        value = getattr(found, name)
        assert not value.size or _cuda.is_device_array(value), name
        if to_the_bit:
            np.testing.assert_array_equal(host(value), getattr(expected, name), err_msg=name)
        else:
            assert_close(host(value), getattr(expected, name), SMALL[dtype])
    for name in ("iterations", "status", "cycle"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)
    np.testing.assert_allclose(found.history, expected.history, rtol=0, atol=10 * SMALL[dtype])


# ---------------------------------------------------------------- rows of states


@inside
@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_are_taken_moved_and_measured_where_they_lie(dtype):
    rng = np.random.default_rng(0)
    values, others = (rng.standard_normal((5, 2, 3)).astype(dtype) for _ in range(2))
    factors, to, source = np.array([0.5, -2.0, 3.0]), np.array([4, 0, 2]), np.array([1, 1, 3])
    expected = values.copy()
    expected[to] += (factors[:, None, None] * others[source]).astype(dtype)
    scaled = (3.0 * values).astype(dtype)
    for beside, read in ((np.array, np.asarray), (to_device, host)):
        out, more = beside(values), beside(others)
        placed.add_rows(out, to, more, source, factors)
        assert_close(read(out), expected, 4 * np.finfo(dtype).eps)
        np.testing.assert_array_equal(read(placed.times_rows(beside(values), 3.0)), scaled)
        np.testing.assert_array_equal(read(placed.minus(beside(values), more)), values - others)
        np.testing.assert_array_equal(read(placed.take_rows(more, source)), others[source])
        placed.add_products(out, more, beside(values))
        assert_close(read(out), expected + others * values, 8 * np.finfo(dtype).eps)
        eye = read(placed.unit_rows(out, 2, 2, 3))
        np.testing.assert_array_equal(eye.reshape(2, 6, 6), np.stack([np.eye(6, dtype=dtype)] * 2))


@inside
@pytest.mark.parametrize("dtype", DTYPES)
def test_lengths_of_rows_of_any_size(dtype):
    tiny, huge = np.finfo(dtype).tiny, np.finfo(dtype).max
    rows = np.array(
        [[3, -4.0], [0, 0], [3 * tiny, 4 * tiny], [0.3 * huge, 0.4 * huge], [np.inf, 1], [1, np.nan]], dtype
    )
    wanted = np.array([5, 0, 5 * float(tiny), 0.5 * float(huge), np.inf, np.nan])
    for given in (rows, to_device(rows)):
        np.testing.assert_allclose(placed.lengths(given), wanted, rtol=2 * np.finfo(dtype).eps)


# ---------------------------------------------------------------- solving


@inside
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS_HERE)
def test_points_of_inputs_on_the_device(cell, dtype, copied, tmp_path):
    case = drawn(cell, dtype)
    options = {"tol": REACHED[dtype], "max_iterations": 60}
    expected = rg.solve_fixed_point(case.net, case.x[0], backend="cuda", **options)
    assert expected.converged.all()
    x = to_device(case.x[0])
    copied.clear()
    found = rg.solve_fixed_point(case.net, x, **options)
    # the history, and numbers of samples; no state
    assert max(copied) <= max(expected.history.nbytes, 8 * 3)
    assert isinstance(found, rg.DeviceFixedPoint)
    assert_points(found, expected, dtype)
    found.require_converged()
    assert _cuda.is_device_array(found.jacobian)
    np.testing.assert_array_equal(host(found.jacobian), expected.jacobian)
    np.testing.assert_array_equal(found.spectral_radius, expected.spectral_radius)
    np.testing.assert_array_equal(found.condition, expected.condition)
    back = found.to_host()
    assert type(back) is rg.FixedPoint and isinstance(back.traj.states, np.ndarray)
    np.testing.assert_array_equal(back.traj.states, expected.traj.states)
    with np.load(found.save(tmp_path / "points.npz")) as saved:
        np.testing.assert_array_equal(saved["s"], expected.s)


@inside
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("method", ["picard", "newton", "newton_krylov"])
def test_every_method_on_the_device(method, dtype, copied):
    case = drawn("gru", dtype)
    options = {"tol": REACHED[dtype], "method": method, "max_iterations": 60}
    expected = rg.solve_fixed_point(case.net, case.x[0], s0=case.s0, backend="cuda", **options)
    assert expected.converged.all()
    copied.clear()
    found = rg.solve_fixed_point(case.net, to_device(case.x[0]), s0=to_device(case.s0), **options)
    # the vectors of "newton_krylov" are SciPy's
    vectors = case.s0.nbytes if method == "newton_krylov" else 0
    assert max(copied) <= max(expected.history.nbytes, 8 * 3, vectors)
    assert_points(found, expected, dtype, to_the_bit=method == "picard")


@inside
def test_starts_and_inputs_on_either_side(copied):
    case = drawn("vanilla")
    expected = rg.solve_fixed_point(case.net, case.x[0], s0=case.s0, backend="cuda")
    for x, s0 in (
        (to_device(case.x[0]), case.s0),
        (case.x[0], to_device(case.s0)),
        (to_device(case.x), to_device(case.s0)),  # one step of a sequence
    ):
        assert_points(rg.solve_fixed_point(case.net, x, s0=s0), expected, "float64")
    x, s0 = np.asfortranarray(case.x[0]), np.asfortranarray(case.s0)  # copied where they lie
    assert_points(rg.solve_fixed_point(case.net, to_device(x.T).T, s0=to_device(s0.T).T), expected, "float64")
    steps = to_device(np.repeat(case.x[0, 1], 2))[::2]
    one = rg.solve_fixed_point(case.net, case.x[0, 1], backend="cuda")
    assert_points(rg.solve_fixed_point(case.net, steps), one, "float64")
    row = case.x[0, 1]
    alike = rg.solve_fixed_point(case.net, row, s0=case.s0, backend="cuda")
    assert_points(rg.solve_fixed_point(case.net, to_device(row), s0=to_device(case.s0)), alike, "float64")
    none = rg.solve_fixed_point(case.net, s0=case.s0, backend="cuda")
    assert_points(rg.solve_fixed_point(case.net, s0=to_device(case.s0)), none, "float64")


def two_ways():
    """h_1 = relu(4 h_1 + x_1), h_2 = relu(-2 h_2 + x_2): inputs to converge, grow and oscillate."""
    net = rg.Network.init("vanilla", 2, 2, activation="relu")
    net = net.replace(W=np.array([[[4.0, 0], [0, -2.0]]]), U=np.eye(2)[None], b=np.zeros((1, 2)))
    return net, np.array([[-1.0, -1.0], [1.1, -1.0], [-1.0, 1.0], [-1.0, -1.0]])


@inside
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of interpreted kernels
@pytest.mark.parametrize("method", ["picard", "newton"])
def test_every_sample_has_its_own_end_on_the_device(method):
    net, x = two_ways()
    s0 = np.zeros((4, 1, 2))
    s0[3] = np.nan
    options = {"tol": 1e-5, "max_iterations": 70, "method": method}
    expected = rg.solve_fixed_point(net, x, s0=s0, backend="cuda", **options)
    kept = to_device(s0)
    found = rg.solve_fixed_point(net, to_device(x), s0=kept, **options)
    assert_points(found, expected, "float64")
    if method == "picard":
        assert found.status.tolist() == ["converged", "diverged", "oscillating", "invalid"]
        np.testing.assert_array_equal(found.cycle, [0, 0, 2, 0])
    assert np.isnan(host(kept)[3]).all()  # what was given stays as it was
    with pytest.raises(rg.ConvergenceError, match="of 4 samples are not at a fixed point"):
        found.require_converged()


@inside
def test_fixed_points_on_the_device_that_cannot_be():
    case = drawn("gru")
    x, s0 = to_device(case.x[0]), to_device(case.s0)
    hole = case.x[0].copy()
    hole[1, 2] = np.inf
    system = rg.System(lambda s, x, params: s / 2, 5, n_inputs=4)
    for net, given, options, message in (
        (case.net, x, {"backend": "cpu"}, "x lives on a GPU, and backend is 'cpu'"),
        (case.net, case.x[0], {"backend": "cpu", "s0": s0}, "the start lives on a GPU, and backend is 'cpu'"),
        (system, x, {}, "net is a System; on a GPU it must be a Network"),
        (rg.Network.init("gru", 0, 5), None, {"s0": s0}, r"the start lives on a GPU, and net has no input \(m = 0\)"),
        (case.net, to_device(hole), {}, r"x is not finite at index \(1, 2\)"),
        (case.net, to_device(case.x[0, :, :2].copy()), {}, r"x has shape \(3, 2\); it must have shape \(B, 4\)"),
        (case.net, to_device(case.x[0].astype("float32")), {}, "x has dtype float32; it must be float64"),
        (case.net, x, {"s0": to_device(case.s0[:2])}, r"s0 has shape \(2, 1, 5\); it must have shape \(3, 1, 5\)"),
        (case.net, x, {"s0": to_device(case.s0[0])}, r"s0 has shape \(1, 5\); it must have shape \(3, 1, 5\)"),
    ):
        with pytest.raises(ValueError, match=message):
            rg.solve_fixed_point(net, given, **options)


# ---------------------------------------------------------------- gradients


def target_of(case, seed=3):
    return np.random.default_rng(seed).standard_normal((case.x.shape[1], case.net.p)).astype(case.net.dtype)


@inside
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS_HERE)
def test_implicit_gradients_stay_on_the_device(cell, dtype, copied):
    case = drawn(cell, dtype)
    target, options = target_of(case), {"tol": REACHED[dtype] / 10, "max_iterations": 100}
    fp = rg.solve_fixed_point(case.net, case.x[0], backend="cuda", **options)
    expected = rg.implicit_gradient(fp, rg.losses.squared_error(target))
    there = rg.solve_fixed_point(case.net, to_device(case.x[0]), **options)
    copied.clear()
    found = rg.implicit_gradient(there, rg.losses.squared_error(to_device(target)))
    # exponents and lengths, and residuals of iterations: numbers of samples, not of states or parameters
    assert max(copied) <= 8 * 3 * (int(expected.iterations.max()) + 40)
    assert isinstance(found, rg.DeviceImplicitGradients) and _cuda.is_device_array(found.z)
    for name, value in found.parameters():
        assert not value.size or _cuda.is_device_array(value), name
    assert _cuda.is_device_array(found.x) and found.x.shape == case.x[0].shape
    back = found.to_host()
    tol = 1e-9 if dtype == "float64" else 1e-5  # what a tol of 1e-10 leaves of z, with the other numbers around it
    assert_gradients(back, dict(expected.parameters()) | {"loss": expected.loss}, tol)
    assert_close(back.z, expected.z, 1e-9)  # what a tol of 1e-10 leaves
    assert_close(host(found.x), expected.x, tol)
    assert found.norm() == pytest.approx(expected.norm(), rel=1e-9 if dtype == "float64" else 1e-5)
    on_host = rg.implicit_gradient(there, rg.losses.squared_error(target))
    np.testing.assert_array_equal(host(on_host.W), host(found.W))


@inside
@pytest.mark.parametrize("method", ["neumann", "cg", "gmres", "bicgstab", "lu"])
def test_every_method_of_the_adjoint_takes_points_on_the_device(method):
    case = drawn("lstm")
    options, terms = {"tol": 1e-12}, {"terms": 3} if method == "neumann" else {}
    fp = rg.solve_fixed_point(case.net, case.x[0], backend="cuda", **options)
    loss = rg.losses.squared_error(target_of(case))
    expected = rg.implicit_gradient(fp, loss, method, **terms)
    found = rg.implicit_gradient(rg.solve_fixed_point(case.net, to_device(case.x[0]), **options), loss, method, **terms)
    assert _cuda.is_device_array(found.z) and found.method == method
    assert_close(host(found.z), expected.z, 1e-9)
    np.testing.assert_allclose(found.error, expected.error, atol=1e-9)
    assert_close(found.to_host().W, expected.W, 1e-9)


@inside
def test_a_singular_point_on_the_device_is_refused():
    """tanh(h) has the fixed point 0 where I - J is singular."""
    net = rg.Network.init("vanilla", 1, 2, 1, seed=0)
    net = net.replace(W=np.diag([1.0, 0.3])[None], U=np.zeros((1, 2, 1)), b=np.zeros((1, 2)))
    fp = rg.solve_fixed_point(net, to_device(np.zeros((1, 1))))
    for method in ("iteration", "lu"):
        with pytest.raises(rg.SingularError, match="I - J is singular at the fixed point of sample 0"):
            rg.implicit_gradient(fp, rg.losses.squared_error(np.ones((1, 1))), method, max_iterations=100)


# ---------------------------------------------------------------- finding


@inside
@pytest.mark.parametrize("period", [1, 2])
def test_points_are_found_from_starts_on_the_device(period, copied, monkeypatch):
    """h' = tanh(-3 h): unstable at 0, and a stable two-cycle."""
    net = rg.Network.init("vanilla", 1, 1).replace(W=np.full((1, 1, 1), -3.0), U=np.ones((1, 1, 1)), b=np.zeros((1, 1)))
    starts = np.linspace(-1.5, 1.5, 7)[:, None]
    starts[2] = np.nan
    expected = rg.find_fixed_points(net, starts, period=period, slow=False, backend="cuda")
    on_the_way, follow = [], find._follow

    def followed(*args):
        copied.clear()
        done = follow(*args)
        on_the_way.extend(copied)
        return done

    monkeypatch.setattr(find, "_follow", followed)
    found = rg.find_fixed_points(net, to_device(starts), period=period, slow=False)
    assert max(on_the_way) <= 8 * len(starts)  # a number of each start
    for name in ("status", "point", "cycle", "cycle_length", "iterations", "unstable"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)
    for name in ("s", "end", "jacobian", "eigenvalues", "residual"):
        value = getattr(found, name)
        assert isinstance(value, np.ndarray), name
        np.testing.assert_allclose(value, getattr(expected, name), rtol=1e-12, atol=1e-12, err_msg=name)
    assert len(found) == (1 if period == 1 else 3) and found.status[2] == "invalid"


@inside
def test_points_are_found_from_states_on_the_device():
    case = drawn("gru", n=3, m=2, B=2)
    traj, x = on_device(case), np.array([0.3, -0.2])
    states = traj.states.reshape(4, 1, 3)
    found = rg.find_fixed_points(case.net, states, to_device(x))
    expected = rg.find_fixed_points(case.net, host(states), x)
    assert len(expected) == 1
    np.testing.assert_array_equal(found.status, expected.status)
    np.testing.assert_allclose(found.s, expected.s, atol=1e-10)


@inside
def test_a_start_that_is_stuck_goes_down_to_a_slow_point_on_the_device():
    net = rg.Network.init("vanilla", 1, 1).replace(W=np.full((1, 1, 1), 2.0), U=np.ones((1, 1, 1)), b=np.zeros((1, 1)))
    starts, x = np.array([[-1.2], [0.9]]), np.array([0.6])  # beyond the fold, one root is left
    expected = rg.find_fixed_points(net, starts, x, max_iterations=40)
    assert expected.status.tolist() == ["slow", "converged"]
    found = rg.find_fixed_points(net, to_device(starts), to_device(x), max_iterations=40)
    np.testing.assert_array_equal(found.status, expected.status)
    np.testing.assert_allclose(found.s, expected.s, atol=1e-9)
    np.testing.assert_allclose(found.slow.s, expected.slow.s, atol=1e-6)
    with pytest.raises(ValueError, match="starts lives|starts has dtype float32"):
        rg.find_fixed_points(net, to_device(starts.astype("float32")), x)
