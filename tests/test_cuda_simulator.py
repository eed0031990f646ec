"""Every CUDA kernel, run by Numba's simulator, against the NumPy reference and the CPU kernels.

The simulator is chosen when Numba is imported, so ``test_in_the_simulator`` runs this very file in a process of its
own, and the other tests are left out where the simulator is not on.
"""

import dataclasses
import itertools
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import reference
from cases import CELLS, LOSSES, SHAPES, UNEVEN, assert_close, assert_gradients, make_case, random_target
from simulated import DTYPES, inside, sessions

import rnngrad as rg
from rnngrad import _cuda

slow = [pytest.mark.slow]


test_in_the_simulator, test_in_the_simulator_at_length = sessions(__file__)


# ---------------------------------------------------------------- truth


def reference_jacobians(case):
    """J (T, B, N, N) by complex steps of the reference, and identities where a sequence has ended."""
    T, B, _ = case.x.shape
    S, n = case.net.state_shape
    states = reference.rollout(*case.args, **case.kwargs)
    J = np.zeros((T, B, S * n, S * n))
    for t in range(T):
        for b in range(B):
            if t >= case.ends[b]:
                J[t, b] = np.eye(S * n)
                continue
            for j in range(S * n):
                s = states[t, b].astype(complex)
                s.reshape(-1)[j] += 1e-30j
                moved = reference.step(
                    case.cell, case.params, s, case.x[t, b].astype(float), case.net.activation, case.alpha
                )
                J[t, b, :, j] = moved.imag.ravel() / 1e-30
    return J


def on(case, backend):
    return rg.rollout(case.net, case.x, case.s0, case.lengths, backend=backend)


def loss_of(case, traj):
    target = np.random.default_rng(3).standard_normal(traj.y.shape).astype(case.net.dtype)
    return rg.losses.squared_error(target, weights=np.linspace(0.5, 1.5, traj.T).astype(case.net.dtype))


def kernel_results(case, traj):
    """Everything that the kernels make of one trajectory, by name."""
    chain, rng, net = rg.jacobian_chain(traj), np.random.default_rng(5), case.net
    found = {"states": traj.states, "h": traj.h, "y": traj.y, "a": traj.a, "a2": traj.a2}
    found |= {"J": rg.jacobians(traj), "to": chain.all_to(traj.T), "from": chain.all_from(0)}
    R, D = 2 * traj.B + 1, traj.T - 1
    rows, sample = rng.standard_normal((R, net.S, net.n)).astype(net.dtype), np.arange(R) % traj.B
    for name, at, walk in (("adjoint", traj.T, chain.jacobians.adjoint), ("tangent", 1, chain.jacobians.tangent)):
        out = rng.standard_normal((D, R, net.S, net.n)).astype(net.dtype), np.zeros((D, R), np.int64)
        dz = rng.standard_normal((D, R, traj.a.shape[2], net.n)).astype(net.dtype)
        dz2 = rng.standard_normal((D, R, traj.a2.shape[2], net.n)).astype(net.dtype)
        walk(rows, np.zeros(R, np.int64), sample, at, D, out=out, dz=dz, dz2=dz2)
        found |= {f"driven {name}": out[0], f"driven {name}, dz": dz, f"driven {name}, dz2": dz2}
    grads = rg.bptt(traj, loss_of(case, traj))
    return found | dict(grads.parameters()) | {"x": grads.x, "s": grads.s}


def assert_parity(case, rtol):
    expected = kernel_results(case, on(case, "cpu"))
    found = kernel_results(case, on(case, "cuda"))
    for name, truth in expected.items():
        assert found[name].dtype == truth.dtype
        assert_close(found[name], truth, rtol, name)


# ---------------------------------------------------------------- every cell


@inside
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS)
def test_kernels_say_what_the_reference_says(cell, dtype):
    case = make_case(cell, lengths=UNEVEN, dtype=dtype)
    rtol, traj = DTYPES[dtype], on(case, "cuda")
    assert_close(traj.states, reference.rollout(*case.args, **case.kwargs), rtol, "states")
    J = reference_jacobians(case)
    assert_close(rg.jacobians(traj), J, rtol, "J")
    product = np.broadcast_to(np.eye(J.shape[-1]), J.shape[1:])
    for step in J[1:]:
        product = step @ product
    assert_close(rg.jacobian_chain(traj).product(traj.T, 1), product, 10 * rtol, "product")


@inside
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS)
def test_kernels_say_what_the_cpu_says(cell, dtype):
    assert_parity(make_case(cell, lengths=UNEVEN, dtype=dtype), DTYPES[dtype])


@inside
@pytest.mark.slow
@pytest.mark.parametrize("shape", [*SHAPES, {"n": 8, "m": 5, "T": 10, "B": 6}], ids=str)
@pytest.mark.parametrize("cell", CELLS)
def test_shapes(cell, shape):
    case = make_case(cell, **shape)
    if shape["T"] > 1:
        assert_parity(case, 1e-12)
    else:
        assert_close(on(case, "cuda").states, on(case, "cpu").states, 1e-13)
        assert_close(rg.jacobians(on(case, "cuda")), rg.jacobians(on(case, "cpu")), 1e-13)


@inside
@pytest.mark.slow
@pytest.mark.parametrize(
    ("cell", "activation"), [(c, a) for c in CELLS for a in rg.CELLS[c].activations if a != rg.CELLS[c].activation]
)
def test_activations(cell, activation):
    assert_parity(make_case(cell, activation, lengths=UNEVEN), 1e-12)


@inside
@pytest.mark.parametrize("cell", ["lstm", "gru", "gru_reset_before"])
@pytest.mark.parametrize("policy", ["step", "sequence"])
def test_dropout_masks(cell, policy):
    case = make_case(cell, lengths=UNEVEN)
    grads = []
    for backend in ("cpu", "cuda"):
        dropout = rg.Dropout(0.4, policy=policy, seed=1)
        traj = rg.rollout(case.net, case.x, case.s0, case.lengths, dropout=dropout, backend=backend)
        grads.append((traj, rg.bptt(traj, loss_of(case, traj)), rg.jacobians(traj)))
    assert_close(grads[1][0].states, grads[0][0].states, 1e-13)
    assert_gradients(grads[1][1], grads[0][1], 1e-12)
    assert_close(grads[1][2], grads[0][2], 1e-13)


@inside
def test_layers_in_both_directions():
    x = np.random.default_rng(0).standard_normal((5, 3, 2))
    for cells, both in ((["lstm", "gru"], True), (["gru_delayed", "mgu"], False)):
        stack = rg.Stack.init(cells, n_inputs=2, n_hidden=[3, 2], n_outputs=2, bidirectional=both, seed=0)
        loss = rg.losses.squared_error(np.ones((5, 3, 2)))
        cpu, cuda = (rg.rollout(stack, x, lengths=UNEVEN, backend=backend) for backend in ("cpu", "cuda"))
        expected, found = (dict(rg.bptt(traj, loss).parameters()) for traj in (cpu, cuda))
        for name, value in expected.items():
            assert_close(found[name], value, 1e-12, name)
        if not both:
            assert_close(rg.jacobian_chain(cuda).product(5, 0), rg.jacobian_chain(cpu).product(5, 0), 1e-12)
            assert_close(rg.jacobian_chain(cuda).all_from(1), rg.jacobian_chain(cpu).all_from(1), 1e-12)


@inside
@pytest.mark.parametrize("cell", ["lstm", "gru_delayed"])
def test_what_reaches_the_last_state_from_beyond_passes_through_padding(cell):
    from rnngrad.gradients.bptt import backpropagate

    case = make_case(cell, lengths=UNEVEN)
    last = case.rng.standard_normal(case.s0.shape)
    gh = case.rng.standard_normal((5, 3, 4)) * (np.arange(5)[:, None, None] < case.ends[:, None])
    cpu, cuda = (backpropagate(on(case, backend), gh, last) for backend in ("cpu", "cuda"))
    assert_gradients(cuda, cpu, 1e-12)
    np.testing.assert_array_equal(cuda.s[4, 1], last[1])


@inside
def test_analyses_that_are_made_of_products():
    case = make_case("lstm", lengths=UNEVEN)
    cpu, cuda = on(case, "cpu"), on(case, "cuda")
    loss = loss_of(case, cpu)
    np.testing.assert_allclose(
        rg.gradient_flow(cuda, loss).log_norm, rg.gradient_flow(cpu, loss).log_norm, rtol=0, atol=1e-11
    )
    for options in ({"window": 3}, {"k1": 2, "k2": 3}):
        assert_gradients(rg.truncated_bptt(cuda, loss, **options), rg.truncated_bptt(cpu, loss, **options), 1e-12)
    assert_gradients(rg.rtrl(cuda, loss), rg.rtrl(cpu, loss), 1e-12, names={"W", "U", "b", "V", "c"})
    u = np.random.default_rng(0).standard_normal(cpu.states.shape[1:])
    chains = rg.jacobian_chain(cpu), rg.jacobian_chain(cuda)
    assert_close(chains[1].vjp(u, 5, 0), chains[0].vjp(u, 5, 0), 1e-12)
    assert_close(chains[1].jvp(u, 5, 0), chains[0].jvp(u, 5, 0), 1e-12)
    np.testing.assert_allclose(chains[1].log_norm(5, 1), chains[0].log_norm(5, 1), atol=1e-12)


# ---------------------------------------------------------------- where operands lie, pieces, threads


def everything(cell, dtype="float64", **options):
    case = make_case(cell, **{"lengths": UNEVEN, "dtype": dtype, **options})
    return kernel_results(case, on(case, "cuda"))


def assert_same(found, expected):
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


@inside
@pytest.mark.parametrize("cell", ["lstm", "gru_delayed"])
def test_weights_in_shared_memory_or_not(cell, monkeypatch):
    from rnngrad.kernels.cuda import block

    expected, levels = everything(cell), set()
    place = block.placement

    def noted(*args):
        levels.add(place(*args)[0])
        return place(*args)

    monkeypatch.setattr(block, "placement", noted)
    for limit in (0, 700, 1 << 20):
        monkeypatch.setattr(_cuda, "shared_limit", lambda limit=limit: limit)
        assert_same(everything(cell), expected)
    assert levels == {block.GLOBAL, block.SHARED, block.WEIGHTS_SHARED}


@inside
@pytest.mark.parametrize(
    ("options", "free", "cut"),
    [({}, 6000.0, "samples"), ({"T": 20, "B": 1, "lengths": [17]}, 2500.0, "steps")],
    ids=["samples", "steps"],
)
def test_a_job_larger_than_the_memory_is_cut(options, free, cut, monkeypatch):
    from rnngrad.kernels.cuda import pieces

    expected, spans, halves = everything("gru_reset_before", **options), [], []
    in_spans, in_time = pieces.spans, pieces.in_time

    def noted(count, size):
        spans.append((count, size))
        return in_spans(count, size)

    monkeypatch.setattr(pieces, "spans", noted)
    monkeypatch.setattr(pieces, "in_time", lambda *args: halves.append(args) or in_time(*args))
    monkeypatch.setattr(_cuda, "free_bytes", lambda: free)
    monkeypatch.setattr(_cuda, "processors", lambda: 1)
    assert_same(everything("gru_reset_before", **options), expected)
    assert any(size < count for count, size in spans) and bool(halves) == (cut == "steps")


@inside
def test_what_does_not_fit_at_all_is_refused_with_the_numbers(monkeypatch):
    monkeypatch.setattr(_cuda, "free_bytes", lambda: 500.0)
    case = make_case("lstm")
    with pytest.raises(MemoryError, match=r"needs .* MiB of GPU memory at once, and 0.0004768 MiB are free.*'cpu'"):
        on(case, "cuda")


@inside
def test_results_do_not_depend_on_threads_blocks_or_the_run(monkeypatch):
    expected = everything("lstm", B=9, lengths=[5, 3, 1, 4, 5, 2, 1, 5, 5])
    for threads, processors in ((1, 1), (3, 7), (4, 2)):
        monkeypatch.setattr(_cuda, "threads", lambda items, threads=threads: threads)
        monkeypatch.setattr(_cuda, "processors", lambda processors=processors: processors)
        assert_same(everything("lstm", B=9, lengths=[5, 3, 1, 4, 5, 2, 1, 5, 5]), expected)


@inside
@pytest.mark.parametrize("dtype", DTYPES)
def test_sums_over_many_steps_and_samples(dtype, monkeypatch):
    from rnngrad.kernels.cuda import products

    monkeypatch.setattr(products, "_ROWS", 16)
    rng = np.random.default_rng(0)
    da, x = rng.standard_normal((70, 3, 5)).astype(dtype), rng.standard_normal((70, 11)).astype(dtype)
    whole = np.einsum("rc,rm->cm", da.reshape(70, 15)[:, 2:13], x[:, :9])
    assert_close(products.outer(da, 2, 11, x, 9), whole, DTYPES[dtype])
    assert_close(products.column_sums(da), da.sum(axis=0), DTYPES[dtype])
    again = products.outer(da, 2, 11, x, 9)
    monkeypatch.setattr(_cuda, "free_bytes", lambda: 9000.0)
    np.testing.assert_array_equal(products.outer(da, 2, 11, x, 9), again)


@inside
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("runs", [[(0, 10), (12, 3)], [(4, 5)], []], ids=str)
def test_two_sums_of_one_factor(dtype, runs):
    """The same as on the CPU, which makes both at once; without columns there is nothing."""
    from rnngrad.kernels import cpu
    from rnngrad.kernels.cuda import products

    rng = np.random.default_rng(0)
    da, e, x = (rng.standard_normal((70, size)).astype(dtype) for size in (15, 5, 11))
    sides = (e, 5, [(0, 15)]), (x, 11, runs)
    for found, expected in zip(products.outers(da, *sides), cpu.outers(da, *sides), strict=True):
        assert found.shape == expected.shape
        assert_close(found, expected, DTYPES[dtype])


# ---------------------------------------------------------------- exponents


@inside
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("factor", [1e-30, 1e-9, 1e9, 1e30])
def test_rows_beyond_the_range_of_floats(dtype, factor):
    case = make_case("linear", T=9, dtype=dtype)
    net = case.net.replace(W=(factor * case.net.W).astype(dtype), b=0 * case.net.b)
    walks = []
    for backend in ("cpu", "cuda"):
        jacobians = rg.jacobian_chain(rg.rollout(net, 0 * case.x, 0 * case.s0, backend=backend)).jacobians
        rows, none = np.eye(4, dtype=dtype).reshape(4, 1, 4), np.zeros(4, np.int64)
        walks.append((*jacobians.adjoint(rows, none, none, 9, 9), *jacobians.tangent(rows, none, none, 0, 9)))
    for found, expected in zip(walks[1], walks[0]):
        if expected.dtype.kind == "i":
            np.testing.assert_array_equal(found, expected)
            if factor in (1e-30, 1e30):
                assert np.abs(expected).max() > (300 if dtype == "float32" else 500)
        else:
            assert_close(found, expected, DTYPES[dtype])


@inside
@pytest.mark.parametrize("dtype", DTYPES)
def test_exponents_of_numbers(dtype):
    from rnngrad.kernels.cuda import block

    T, info = np.dtype(dtype).type, np.finfo(dtype)
    values = [T(v) for v in (1, -1, 0.75, 2.0**-40, -(2.0**50), info.max, info.tiny)]
    values += [T(info.smallest_subnormal), T(info.tiny) / T(4)]
    for value in values:
        assert block.exponent_of(block.exponent_key(value), value) == np.frexp(np.float64(value))[1]
    keys = [block.exponent_key(v) for v in sorted(values, key=abs)]
    assert keys == sorted(keys) and block.exponent_key(T(0)) == 0 < keys[0]
    for value in (T(np.inf), T(np.nan)):
        assert block.exponent_key(value) > keys[-1] and block.exponent_of(block.exponent_key(value), value) == 0
    for exponent in (-200, -1, 0, 3, 100):
        small = T(0.75)
        assert block.times_power(small, exponent) == np.ldexp(small, exponent)


# ---------------------------------------------------------------- second derivatives


def second_derivatives(case, backend, pairs=2):
    """Products with the Hessian and the Gauss-Newton matrix, (K, P) each, from several directions at once."""
    traj = on(case, backend)
    curvature = rg.Curvature(traj, loss_of(case, traj))
    v = np.random.default_rng(7).standard_normal((pairs, curvature.size)).astype(case.net.dtype)
    return curvature.hessian(v), curvature.gauss_newton(v)


@inside
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS)
def test_second_derivatives_are_those_of_the_cpu(cell, dtype):
    case = make_case(cell, n=3, T=5, lengths=UNEVEN, dtype=dtype)
    cpu, cuda = (second_derivatives(case, backend) for backend in ("cpu", "cuda"))
    for found, expected, what in zip(cuda, cpu, ("Hessian", "Gauss-Newton"), strict=True):
        assert found.dtype == case.net.dtype
        assert_close(found, expected, DTYPES[dtype], what)


@inside
@pytest.mark.slow
@pytest.mark.parametrize(
    ("cell", "activation"), [(c, a) for c in CELLS for a in rg.CELLS[c].activations if a != rg.CELLS[c].activation]
)
def test_second_derivatives_with_every_activation(cell, activation):
    case = make_case(cell, activation, n=3, lengths=UNEVEN)
    for found, expected in zip(second_derivatives(case, "cuda"), second_derivatives(case, "cpu"), strict=True):
        assert_close(found, expected, 1e-12)


@inside
def test_second_derivatives_of_masked_networks_and_of_layers():
    case = make_case("gru", T=6, lengths=[6, 4, 2])
    stack = rg.Stack.init(["gru_delayed", "mgu"], n_inputs=3, n_hidden=[3, 2], n_outputs=2, bidirectional=True, seed=0)
    for net, dropout in ((case.net, rg.Dropout(0.4, policy="step", seed=1)), (stack, None)):
        found = []
        for backend in ("cpu", "cuda"):
            traj = rg.rollout(net, case.x, lengths=case.lengths, dropout=dropout, backend=backend)
            curvature = rg.Curvature(traj, loss_of(case, traj))
            v = np.random.default_rng(7).standard_normal((1, curvature.size))
            found.append(curvature.hessian(v))
        assert_close(found[1], found[0], 1e-12)


@inside
@pytest.mark.parametrize("cell", ["gru_delayed", "continuous", "mgu"])
def test_the_kernel_of_second_derivatives_in_pieces(cell, monkeypatch):
    """Adjoints that do not end where a sequence does, as no loss makes them."""
    from rnngrad.kernels import backend
    from rnngrad.kernels.cuda import pieces

    case, rng, K = make_case(cell, n=2, T=6, lengths=[6, 4, 2]), np.random.default_rng(0), 2
    traj = on(case, "cpu")
    shapes = traj.states.shape, traj.a.shape, traj.a2.shape, traj.h.shape

    def drawn(*which, rows=1):
        return [rng.standard_normal((shapes[i][0], rows * shapes[i][1], *shapes[i][2:])) for i in which]

    moved, charged, adjoints = drawn(0, 1, 2, rows=K), drawn(3, 3, 3, rows=K), drawn(0, 3, 3, 3)
    start = drawn(0, 1, 2, rows=K)
    rest = (moved, charged, (traj.states, traj.a, traj.a2), adjoints, traj.lengths, case.net.unit_constants)
    spans, in_spans = [], pieces.spans
    monkeypatch.setattr(pieces, "spans", lambda *args: spans.append(args) or in_spans(*args))
    found = []
    for name, free in (("cpu", 0.0), ("cuda", 1e9), ("cuda", 2000.0)):
        monkeypatch.setattr(_cuda, "free_bytes", lambda free=free: free)
        found.append([array.copy() for array in start])
        backend(name).curvature(case.net.cell, case.net.phi)(*found[-1], *rest)
    assert any(size < count for count, size in spans)
    for cpu, whole, cut in zip(*found, strict=True):
        assert_close(whole, cpu, 1e-13)
        np.testing.assert_array_equal(cut, whole)


# ---------------------------------------------------------------- singular values


def rotated(rows, exponents, backend):
    """(logarithms, sweeps) of one call of the kernel."""
    from rnngrad.kernels import backend as kernels

    out, sweeps = np.empty(rows.shape[:2]), np.empty(len(rows), np.int64)
    kernels(backend).graded_singular_values(out, rows.copy(), exponents.copy(), sweeps)
    return out, sweeps


@inside
@pytest.mark.parametrize("N", [1, 2, 5, pytest.param(8, marks=pytest.mark.slow)])
def test_singular_values_of_rows_with_exponents(N):
    rng = np.random.default_rng(N)
    rows = rng.standard_normal((4, N, N)) * np.exp(rng.normal(0, 2, (4, N, 1)))
    for spread in (0, 8):
        exponents = rng.integers(-spread, spread + 1, (4, N))
        exact = np.log(np.linalg.svd(np.ldexp(rows, exponents[..., None]), compute_uv=False))
        found, sweeps = rotated(rows, exponents, "cuda")
        np.testing.assert_allclose(found, exact, rtol=0, atol=1e-9)
        assert (sweeps <= 12).all()
    far = rng.integers(-5000, 5000, (4, N))
    found, _ = rotated(rows, far, "cuda")
    np.testing.assert_allclose(found, rotated(rows, far, "cpu")[0], rtol=1e-13, atol=1e-12)
    assert (np.diff(found) <= 0).all()
    if N > 2:
        rows = rng.integers(-9, 10, (4, N, N)).astype(float)
        rows[:, N - 1] = rows[:, 0] + rows[:, 1]  # without rounding
        values = rotated(rows, 0 * far, "cuda")[0]
        assert np.isfinite(values[:, : N - 1]).all() and (values[:, N - 1] == -np.inf).all()
        assert (rotated(0 * rows, far, "cuda")[0] == -np.inf).all()


@inside
def test_singular_values_do_not_depend_on_memory_threads_or_pieces(monkeypatch):
    rng = np.random.default_rng(0)
    rows, exponents = rng.standard_normal((3, 5, 5)), rng.integers(-900, 900, (3, 5))
    expected = rotated(rows, exponents, "cuda")
    for limit, threads in ((1 << 20, 1), (0, 3)):
        monkeypatch.setattr(_cuda, "shared_limit", lambda limit=limit: limit)
        monkeypatch.setattr(_cuda, "threads", lambda items, threads=threads: threads)
        monkeypatch.setattr(_cuda, "free_bytes", lambda limit=limit: 500.0 if limit else 3000.0)
        for found, value in zip(rotated(rows, exponents, "cuda"), expected, strict=True):
            np.testing.assert_array_equal(found, value)


@inside
def test_singular_values_of_more_rows_than_are_scaled_at_once(monkeypatch):
    from rnngrad.kernels.cuda import block

    for name in ("singular_values", "block"):
        module = sys.modules[f"rnngrad.kernels.cuda.{name}"]
        monkeypatch.setattr(module, "MOST_ROWS", block.TILE)
        monkeypatch.setattr(module, "KEYS", 2 * block.TILE)
    rng = np.random.default_rng(1)
    rows, exponents = rng.standard_normal((2, 7, 7)), rng.integers(-900, 900, (2, 7))
    np.testing.assert_allclose(
        rotated(rows, exponents, "cuda")[0], rotated(rows, exponents, "cpu")[0], rtol=1e-13, atol=1e-12
    )


@inside
@pytest.mark.parametrize(
    ("cell", "dtype"),
    [
        pytest.param(cell, dtype, marks=[] if (cell, dtype) in (("gru", "float64"), ("mgu", "float32")) else slow)
        for cell in CELLS
        for dtype in DTYPES
    ],
)
def test_singular_values_of_chains_are_those_of_the_cpu(cell, dtype, copied):
    case = make_case(cell, n=2, T=6, B=2, lengths=[6, 2], dtype=dtype)
    cpu, cuda = (rg.jacobian_chain(on(case, backend)) for backend in ("cpu", "cuda"))
    # Jacobians in float32 are those of either backend: a few eps for each step and the smallest value
    found, expected = cuda.log_singular_values(6, 0), cpu.log_singular_values(6, 0)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9 if dtype == "float64" else 1e-3)
    chain = rg.jacobian_chain(on_device(case))
    copied.clear()
    there = chain.log_singular_values(6, 0)
    # of two samples: stretches, sweeps, what became of their frames; one Jacobian where a frame lost a direction
    assert max(copied) <= 8 * max(2 * 4, case.net.N**2) < chain.trajectory.states.nbytes
    np.testing.assert_array_equal(host(there), found)
    np.testing.assert_array_equal(host(chain.log_singular_values(3, 3)), 0)


def multiplied(R, shifts, X, before, backend):
    """(rows, exponents) of one call of the kernel."""
    from rnngrad.kernels import backend as kernels

    out, exponents = np.empty(X.shape), np.empty(X.shape[:2], np.int64)
    kernels(backend).graded_product(out, exponents, R, shifts, X, before)
    return out, exponents


@inside
@pytest.mark.parametrize("N", [1, 5])
def test_a_triangular_factor_times_rows_with_exponents(N, monkeypatch):
    from rnngrad.kernels.cuda import graded

    rng = np.random.default_rng(N)
    R, X = np.triu(rng.standard_normal((3, N, N))), rng.standard_normal((3, N, N + 1))
    if N > 1:
        R[0, 3], X[1, 4], X[1, 2] = 0, 0, 0
    near = rng.integers(-9, 10, (2, 3, N))
    rows, exponents = multiplied(R, near[0], X, near[1], "cuda")
    exact = np.einsum("bij,bjl->bil", np.ldexp(R, near[0][:, None]), np.ldexp(X, near[1][..., None]))
    scale = np.abs(exact).max(axis=-1, keepdims=True)
    np.testing.assert_allclose(np.ldexp(rows, exponents[..., None]), exact, rtol=0, atol=1e-13 * scale.max())
    far = rng.integers(-4000, 4000, (2, 3, N))
    results = [multiplied(R, far[0], X, far[1], "cuda")]
    monkeypatch.setattr(graded, "_COLUMNS", 2)
    monkeypatch.setattr(_cuda, "threads", lambda items: 3)
    monkeypatch.setattr(_cuda, "free_bytes", lambda: 1.2 * (R[0].nbytes + 2 * X[0].nbytes + 24 * N))
    results.append(multiplied(R, far[0], X, far[1], "cuda"))
    for cpu, whole, other in zip(multiplied(R, far[0], X, far[1], "cpu"), *results, strict=True):
        np.testing.assert_allclose(whole, cpu, rtol=0, atol=1e-15)
        np.testing.assert_array_equal(other, whole)


def numbers(value):
    """All numbers of plain data, in order."""
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    if isinstance(value, (int, float)):
        return [float(value)]
    return [x for item in items for x in numbers(item)]


@inside
@pytest.mark.usefixtures("quick")
def test_the_report_is_that_of_the_cpu(tmp_path):
    net, x = rg.Network.init("gru", 1, 2, 1, seed=0), np.random.default_rng(0).standard_normal((14, 1, 1))
    pages = []
    for backend in ("cpu", "cuda"):
        rg.report(net, x, out=tmp_path / backend, backend=backend)
        pages.append(numbers(json.loads((tmp_path / backend / "report.json").read_text())["networks"]))
    assert len(pages[0]) > 100
    np.testing.assert_allclose(pages[1], pages[0], rtol=1e-6, atol=1e-9)


# ---------------------------------------------------------------- batch normalisation


def normalised(dtype="float64", training=True, T=4, B=6, n=2):
    """(network, x, s0) with random gammas, in training or inference mode."""
    rng = np.random.default_rng(0)
    net = rg.BatchNormLSTM.init(2, n, 2, seed=0, dtype=dtype)
    new = {name: rng.uniform(0.2, 1.5, getattr(net, name).shape) for name in ("gamma_h", "gamma_x", "gamma_c")}
    new |= {"beta_c": rng.standard_normal(n), "b": rng.standard_normal((4, n)), "W": rng.standard_normal((4, n, n))}
    net = net.replace(**{name: value.astype(dtype) for name, value in new.items()})
    x, s0 = rng.standard_normal((T, B, 2)).astype(dtype), rng.standard_normal((B, 2, n)).astype(dtype)
    if not training:
        net = net.with_statistics(rg.rollout(net, x[::-1], s0), 3)
    return net, x, s0


def of_the_batch(net, x, s0, backend, jacobians=True):
    """Everything that the kernels make of a batch-normalised network, by name."""
    traj = rg.rollout(net, x, s0, backend=backend)
    names = ("states", "y", "a", "h_hat", "x_hat", "c_hat", "h_std", "x_std", "c_std")
    found = {name: getattr(traj, name) for name in names} | vars(traj.statistics)
    target = np.random.default_rng(1).standard_normal(traj.y.shape).astype(net.dtype)
    grads = rg.bptt(traj, rg.losses.squared_error(target))
    found |= dict(grads.parameters()) | {f"dL/d{name}": getattr(grads, name) for name in ("x", "s", "s0")}
    return found | ({"J": rg.full_jacobians(traj), "own": rg.jacobians(traj)} if jacobians else {})


@inside
@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_batch_normalisation_is_that_of_the_cpu(dtype, training):
    args = normalised(dtype, training)
    expected, found = (of_the_batch(*args, backend) for backend in ("cpu", "cuda"))
    for name, value in expected.items():
        assert found[name].dtype == value.dtype == np.dtype(dtype), name
        assert_close(found[name], value, DTYPES[dtype], name)


@inside
def test_batch_normalisation_in_pieces_of_large_batches_and_by_any_threads(monkeypatch):
    from rnngrad.kernels.cuda import batchnorm

    args = normalised(B=35, T=2)  # more samples than a sum has parts
    expected, whole = (of_the_batch(*args, backend, jacobians=False) for backend in ("cpu", "cuda"))
    for name, value in expected.items():
        assert_close(whole[name], value, 1e-12, name)
    args, halves, plain = normalised(T=8, B=2), [], batchnorm._in_time
    whole = of_the_batch(*args, "cuda")
    monkeypatch.setattr(batchnorm, "_in_time", lambda count, *rest: halves.append(count) or plain(count, *rest))
    for free, threads in ((6000.0, 4), (2**30, 1), (2**30, 3)):
        monkeypatch.setattr(_cuda, "free_bytes", lambda free=free: free)
        monkeypatch.setattr(_cuda, "threads", lambda items, threads=threads: threads)
        assert_same(of_the_batch(*args, "cuda"), whole)
        if free == 6000.0:
            assert {8, 4} <= set(halves)


# ---------------------------------------------------------------- what there is no kernel for


@inside
def test_what_has_no_kernel_is_refused_and_never_run_on_the_cpu():
    """Parts of a step that CUDA has in one kernel with the rest of it."""
    from rnngrad.kernels import cpu, cuda

    assert cpu.gated_slope
    with pytest.raises(rg.BackendError, match="no CUDA kernel for gated slope; use backend='cpu'"):
        cuda.gated_slope  # noqa: B018


def assert_norms(case, **options):
    cpu, cuda = (rg.jacobian_chain(on(case, backend)) for backend in ("cpu", "cuda"))
    cuda._norms_one_by_one = None  # what the kernel leaves open would be found there
    found, expected = cuda.log_norms(**options), cpu.log_norms(**options)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 if case.net.dtype == np.float64 else 1e-5)


@inside
@pytest.mark.parametrize(
    ("cell", "dtype"),
    [
        ("lstm", "float64"),
        ("gru_delayed", "float32"),
        pytest.param("gru_delayed", "float64", marks=pytest.mark.slow),
        pytest.param("vanilla_s", "float64", marks=pytest.mark.slow),
    ],
)
def test_norms_of_all_products(cell, dtype):
    case = make_case(cell, n=3, T=5, lengths=UNEVEN, dtype=dtype)
    assert_norms(case, ord="fro")
    assert_norms(case)
    states = rg.CELLS[cell].states
    assert_norms(case, block=(states[0], states[-1]))


@inside
def test_norms_beyond_the_range_of_floats_of_zero_products_and_without_shared_memory(monkeypatch):
    case = make_case("linear", n=3, T=5)
    b = 0 * case.net.b
    at_rest = {"b": b, "W": np.diag([1e200, 1e-200, 0.0])[None]}
    case = dataclasses.replace(case, net=case.net.replace(**at_rest), x=0 * case.x, s0=0 * case.s0)
    assert_norms(case)
    norms = rg.jacobian_chain(on(case, "cuda")).log_norms()
    np.testing.assert_allclose(norms[:, 5, 0], 1000 * np.log(10))
    case = dataclasses.replace(case, net=case.net.replace(W=np.triu(np.ones((3, 3)), 1)[None]))
    assert_norms(case)
    assert np.isneginf(rg.jacobian_chain(on(case, "cuda")).log_norms()[:, 5, 0]).all()
    for limit in (0, 700):
        monkeypatch.setattr(_cuda, "shared_limit", lambda limit=limit: limit)
        assert_norms(make_case("gru", n=3, T=3, B=1))


@inside
def test_doctor_tests_cuda_too(monkeypatch):
    from rnngrad import doctor

    assert [(backend, passed) for backend, passed, _ in doctor.self_tests()] == [("cpu", True), ("cuda", True)]
    assert ("CUDA device", "simulator") in list(doctor.facts())
    plain = doctor.rollout
    monkeypatch.setattr(
        doctor,
        "rollout",
        lambda net, x, backend: plain(net, x * (1 + 1e-9 * (backend == "cuda")), backend=backend),
    )
    assert [passed for _, passed, _ in doctor.self_tests()] == [True, False]


# ---------------------------------------------------------------- frames


@inside
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("k", "N"), [(1, 5), (3, 4), (8, 8), (11, 13)])
def test_qr_of_frames(dtype, k, N, monkeypatch):
    from rnngrad.dynamics.frames import orthonormalize

    rng = np.random.default_rng(0)
    Y = rng.standard_normal((3, k, N)).astype(dtype)
    exponents = rng.integers(-3, 4, (3, k))
    given = np.ldexp(Y.astype(float), exponents[..., None])
    results = []
    for limit in (1 << 20, 0):
        monkeypatch.setattr(_cuda, "shared_limit", lambda limit=limit: limit)
        results.append(orthonormalize(Y, exponents, "cuda"))
    for first, second in zip(*results):
        np.testing.assert_array_equal(first, second)
    Q, R, shift, stretch = results[0]
    eps = np.finfo(dtype).eps
    assert Q.dtype == R.dtype == np.dtype(dtype)
    assert np.abs(Q @ Q.swapaxes(1, 2) - np.eye(k)).max() < 200 * eps * 2.0 ** max(stretch.max(), 1)
    back = np.ldexp(np.einsum("bjc,bjn->bcn", R.astype(float), Q.astype(float)), shift[..., None])
    assert_close(back, given, 20 * eps)
    assert (np.tril(R, -1) == 0).all() and (np.diagonal(R, axis1=1, axis2=2) > 0).all()
    for truth, found in zip(orthonormalize(Y, exponents, "cpu"), results[0]):
        if truth.dtype.kind == "f":
            assert_close(found, truth, 2000 * eps)
        else:
            np.testing.assert_array_equal(found, truth)


@inside
@pytest.mark.parametrize("dtype", DTYPES)
def test_qr_of_rows_that_depend_vanish_or_are_no_numbers(dtype):
    from rnngrad.dynamics.frames import orthonormalize

    rng = np.random.default_rng(1)
    Y = rng.standard_normal((4, 5, 6)).astype(dtype)
    Y[0, 3] = Y[0, 0] - Y[0, 1]
    Y[1, 0] = 0
    Y[2, 4, 2] = np.nan
    exponents = np.zeros((4, 5), np.int64)
    exponents[3, 2] = 40 if dtype == "float64" else 12  # stretched: goes through twice
    Q, R, _, stretch = orthonormalize(Y, exponents, "cuda")
    _, truth, _, expected = orthonormalize(Y, exponents, "cpu")
    np.testing.assert_array_equal(stretch, expected)
    assert stretch[0] == stretch[1] == 1 << 40 and stretch[2] == 1 << 41 and R[0, 3, 3] == R[1, 0, 0] == 0
    for b in (0, 1, 3):
        assert np.abs(Q[b] @ Q[b].T - np.eye(5)).max() < 50 * np.finfo(dtype).eps
    assert_close(R[3], truth[3], 1e4 * np.finfo(dtype).eps)


def assert_frames(case, steps, blocks, k, seed=0):
    from rnngrad.dynamics.frames import Carried, carry, random_frames
    from rnngrad.dynamics.jacobian import local_jacobians

    start = random_frames(case.x.shape[1], k, case.net.state_shape, np.float64, np.random.default_rng(seed))
    found = []
    for backend in ("cpu", "cuda"):
        carried = Carried.start(start.copy())
        jacobians = local_jacobians(on(case, backend)).in_float64()
        found.append((carry(jacobians, carried, 2, blocks, steps), carried))
    (logs, cpu), (logs_cuda, cuda) = found
    np.testing.assert_allclose(logs_cuda, logs, rtol=0, atol=1e-9)
    np.testing.assert_array_equal(cuda.lost_at, cpu.lost_at)
    np.testing.assert_array_equal(cuda.qrs, cpu.qrs)
    np.testing.assert_array_equal(cuda.interval, cpu.interval)
    np.testing.assert_allclose(cuda.log_stretch, cpu.log_stretch)
    np.testing.assert_allclose(cuda.frames, cpu.frames, rtol=0, atol=1e-8)


@inside
@pytest.mark.parametrize(
    "cell", [c if c in ("lstm", "vanilla_s", "gru_delayed") else pytest.param(c, marks=pytest.mark.slow) for c in CELLS]
)
def test_frames_are_carried_as_on_the_cpu(cell):
    net = rg.CELLS[cell]
    assert_frames(make_case(cell, n=3, T=10, B=2), steps=2, blocks=4, k=min(2, 3 * net.n_states))


@inside
def test_frames_with_padding_shared_weights_or_not_and_in_pieces(monkeypatch):
    case = make_case("lstm", n=3, T=10, B=3, lengths=[10, 7, 4])
    assert_frames(case, steps=6, blocks=1, k=1)  # the last steps of a block are fewer than were wanted
    for limit in (0, 5000, 1 << 20):
        monkeypatch.setattr(_cuda, "shared_limit", lambda limit=limit: limit)
        assert_frames(case, steps=4, blocks=2, k=6)
    monkeypatch.setattr(_cuda, "free_bytes", lambda: 16_000.0)
    assert_frames(case, steps=4, blocks=2, k=6)


@inside
def test_steps_that_stretch_too_far_are_taken_again():
    """Three steps of no stretch lengthen the interval, then each step stretches by 17 bits."""
    from rnngrad.dynamics.frames import Carried, carry, random_frames
    from rnngrad.dynamics.jacobian import local_jacobians

    case = make_case("linear", n=3, T=9, B=1)
    case = dataclasses.replace(case, net=case.net.replace(W=np.eye(3)[None]))
    start, found = random_frames(1, 3, (1, 3), np.float64, np.random.default_rng(0)), []
    for backend in ("cpu", "cuda"):
        jacobians, carried = local_jacobians(on(case, backend)), Carried.start(start.copy())
        jacobians.update_a[3:, 0, 0, 0] = [1.0, 1e-5, 1e-2]
        found.append((carry(jacobians, carried, 0, 1, 9), carried.qrs, carried.interval))
    np.testing.assert_allclose(found[1][0], found[0][0], rtol=0, atol=1e-9)
    np.testing.assert_array_equal(found[1][1:], found[0][1:])


@inside
def test_products_in_triangular_form_and_covariant_vectors_use_the_cuda_qr(monkeypatch):
    from rnngrad.kernels import cuda as kernels

    calls, qr = [], kernels.orthonormalize
    monkeypatch.setattr(kernels, "orthonormalize", lambda *args: calls.append("qr") or qr(*args))
    rg.jacobian_chain(on(make_case("vanilla", n=2, T=6, B=1), "cuda")).log_singular_values(6, 0)
    assert calls
    calls.clear()
    rg.covariant_vectors(on(make_case("vanilla", n=2, T=30, B=1), "cuda"), k=1, settle=2)
    assert calls


@inside
def test_frames_of_more_vectors_than_a_block_takes_at_once(monkeypatch):
    from rnngrad.kernels.cuda import block

    for name in ("frames", "orthonormalize", "block"):
        module = sys.modules[f"rnngrad.kernels.cuda.{name}"]
        monkeypatch.setattr(module, "MOST_ROWS", block.TILE)
        monkeypatch.setattr(module, "KEYS", 2 * block.TILE)
    case = make_case("linear", n=7, T=6, B=1)
    net = case.net.replace(W=np.diag([1e-9, 1e9, 1e160, 1e-160, 1e7, 1e-200, 1e90])[None], b=0 * case.net.b)
    assert_frames(dataclasses.replace(case, net=net, x=0 * case.x, s0=0 * case.s0), steps=2, blocks=2, k=7)


@inside
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_singular_steps_and_steps_that_are_no_numbers():
    case = make_case("vanilla", "relu", n=4, T=9, B=2)
    assert_frames(case, steps=3, blocks=2, k=4)
    from rnngrad.dynamics.frames import Carried, carry, random_frames
    from rnngrad.dynamics.jacobian import local_jacobians

    jacobians = local_jacobians(on(make_case("linear", n=3, T=6, B=2), "cuda"))
    jacobians.update_a[3, 1] = np.inf
    start = random_frames(2, 2, (1, 3), np.float64, np.random.default_rng(0))
    with pytest.raises(OverflowError, match="sample 1 is not finite at step"):
        carry(jacobians, Carried.start(start), 0, 1, 6)


@inside
def test_lyapunov_exponents():
    net = rg.Network.init("gru", 1, 4, seed=3)
    x = np.random.default_rng(0).standard_normal((40, 1, 1))
    cpu, cuda = (rg.lyapunov_spectrum(net, x, transient=8, backend=backend) for backend in ("cpu", "cuda"))
    np.testing.assert_allclose(cuda.exponents, cpu.exponents, rtol=0, atol=1e-10)


@inside
@pytest.mark.slow
def test_the_check_for_a_card_runs_and_fails_where_a_kernel_is_wrong(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "scripts"))
    import gpu_check

    ask = ["gpu_check.py", "--inline", "--minutes", "10", "--out", str(tmp_path / "check")]
    monkeypatch.setattr(sys, "argv", ask)
    assert gpu_check.main() == 0
    report = json.loads((tmp_path / "check.json").read_text())
    checks = report["parity"] + report["device"] + report["pieces"]
    late = [what for what in report["left out"] if what.endswith("(no time)")]  # on a slow machine
    for name, count in (("parity", 20), ("device", 20), ("pieces", 2)):
        assert len(report[name]) == count or any(what.startswith(f"{name}: ") for what in late)
    assert report["parity"] and (report["timings"] or late) and all(row["passed"] for row in checks)
    assert f"All {len(checks)} checks passed" in (tmp_path / "check.md").read_text()
    right, parity = gpu_check.results, gpu_check.parity
    monkeypatch.setitem(gpu_check.SECTIONS, "parity", lambda: itertools.islice(parity(), 2))
    monkeypatch.setattr(
        gpu_check,
        "results",
        lambda *args, **masks: {k: v * (1 + 1e-4 * (args[-1] == "cuda")) for k, v in right(*args, **masks).items()},
    )
    monkeypatch.setattr(sys, "argv", [*ask, "--only", "parity"])
    assert gpu_check.main() == 1
    assert capsys.readouterr().out.count("FAIL") == 2


@pytest.fixture
def card_check(tmp_path, monkeypatch):
    """The check for a card with one section, ``section(jobs)``; ``report(*options)`` runs it."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "scripts"))
    import gpu_check

    class Check:
        module = gpu_check

        def section(self, jobs):
            monkeypatch.setattr(gpu_check, "SECTIONS", {**dict.fromkeys(gpu_check.SECTIONS, list), "parity": jobs})

        def report(self, *options):
            monkeypatch.setattr(sys, "argv", ["gpu_check.py", "--out", str(tmp_path / "check"), *options])
            status = gpu_check.main()
            return status, json.loads((tmp_path / "check.json").read_text()), (tmp_path / "check.md").read_text()

    return Check()


@inside
def test_the_check_for_a_card_reports_what_raises(card_check, monkeypatch):
    def good():
        yield {"case": "good", "value": 1.0}

    def bad():
        yield from good()
        raise ZeroDivisionError("of this job")

    def check():
        yield {"case": "check", "passed": True}

    card_check.section(lambda: [("late", 1e9, check)])
    assert card_check.report("--inline")[:1] == (1,), "a report that checked nothing"
    assert card_check.report("--inline")[1]["verdict"] == "Nothing was checked"
    assert card_check.report("--inline", "--only", "timings")[0] == 0
    card_check.section(lambda: [("in time", 0, check)])
    status, report, _ = card_check.report("--inline")
    assert status == 0 and report["verdict"] == "All 1 checks passed"

    card_check.section(lambda: [("first", 0, bad), ("second", 0, good), ("third", 1e9, good)])
    status, report, page = card_check.report("--inline")
    assert status == 1 and report["verdict"] == "1 checks failed" and len(report["parity"]) == 3
    assert "ZeroDivisionError: of this job" in report["parity"][1]["said"] and "ZeroDivisionError" in page
    assert report["left out"] == ["parity: third (no time)"]
    monkeypatch.setattr(card_check.module, "context_lost", lambda: True)
    status, report, page = card_check.report("--inline")
    assert status == 1 and len(report["parity"]) == 3 and "the CUDA context was lost" in page


@inside
def test_the_check_for_a_card_runs_the_sanitizer_of_the_toolkit_and_ends_it(card_check, tmp_path, monkeypatch):
    check, program = card_check.module, tmp_path / "bin" / "compute-sanitizer"
    program.parent.mkdir()
    program.write_text(
        f"#!{sys.executable}\nimport sys; print(sys.argv[2]); sys.exit(9 * (sys.argv[2] == 'racecheck'))"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    status, report, _ = card_check.report("--inline", "--only", "sanitize")
    assert status == 1 and report["facts"] and not report["parity"]
    found = [(row["case"], row["passed"], row["said"].strip()) for row in report["sanitize"]]
    assert found == [("racecheck", False, "racecheck"), ("memcheck", True, "memcheck")]
    program.write_text(f"#!{sys.executable}\nimport time; time.sleep(60)")
    monkeypatch.setattr(check, "SANITIZER", 0.5)
    (row,) = check.one_sanitizer(str(program), "memcheck")
    assert "not enough" in row["left out"]


@inside
def test_the_check_for_a_card_cuts_every_job_and_sees_where_none_was_cut(card_check, monkeypatch):
    check, shape = card_check.module, ("gru_delayed", 2, 1, 4, 3)
    for halved, B in ((False, 3), (True, 1)):
        (row,) = check.one_in_pieces("case", (*shape[:4], B), halved)
        assert row["passed"] and not row["not cut"]
        assert row["cuts"]["halves in time"] >= 8 if halved else row["cuts"]["a rollout"] == 3
    monkeypatch.setattr(sys.modules["rnngrad.kernels.cuda.pieces"], "spans", lambda count, size: [(0, count)])
    (row,) = check.one_in_pieces("case", shape, False)
    assert not row["passed"] and "a rollout" in row["not cut"]


@inside
def test_the_check_for_a_card_repeats_what_is_slow_less_often(card_check, monkeypatch):
    import _gpu_peers

    now = []
    monkeypatch.setattr(_gpu_peers.time, "perf_counter", lambda: now.pop(0))
    for seconds, repeats in ((0.1, 5), (4.0, 2), (300.0, 1)):
        now[:] = [0.0, seconds]
        assert _gpu_peers.repeats_after(lambda: None, lambda: None) == repeats


@inside
def test_the_check_for_a_card_measures_logarithms_absolutely_and_fails_where_there_is_no_number(card_check):
    def distance(name, found, truth):
        return card_check.module.distances({name: np.array(found)}, {name: np.array(truth)})[name]

    assert distance("J", [2.0, 1.0], [4.0, 1.0]) == 0.5
    assert distance("norms, logarithms", [2e-16, 0.0, -np.inf, np.nan], [1e-16, 0.0, -np.inf, np.nan]) <= 1e-16
    assert distance("norms, logarithms", [6.0], [4.0]) == 0.5
    for name, found, truth in (
        ("J", [np.nan, 1.0], [1.0, 1.0]),
        ("J", [np.nan, 1.0], [np.nan, 1.0]),
        ("norms, logarithms", [np.nan], [-np.inf]),
        ("norms, logarithms", [-np.inf, 0.0], [0.0, 0.0]),
    ):
        assert distance(name, found, truth) == np.inf


@inside
def test_the_check_for_a_card_reports_what_hangs_or_dies(card_check, monkeypatch):
    """Each process tells of one job, and then hangs, dies, or ends well."""
    ends = ["time.sleep(60)", "os._exit(139)", "sys.exit(0)"]
    code = (
        "import os, sys, time; first = {first}; stream = open({events!r}, 'a');"
        'print(\'{{"begin": "job %d", "at": %d}}\' % (first, first), file=stream, flush=True); {end}'
    )

    def command(section, first, events, clock):
        last = "sys.exit(0)" if section != "parity" else ends[first]
        return [sys.executable, "-c", code.format(first=first, events=str(events), end=last)]

    monkeypatch.setattr(card_check.module, "command", command)
    monkeypatch.setattr(card_check.module, "HANGS", 4.0)
    status, report, _ = card_check.report()
    assert status == 1 and report["verdict"] == "2 checks failed"
    said = [(row["case"], row["said"]) for row in report["parity"]]
    assert said[0][0] == "job 0" and "no answer for 4 s" in said[0][1]
    assert said[1] == ("job 1", "the process ended with exit status 139")


# ---------------------------------------------------------------- arrays that stay on the device


def to_device(array):
    return _cuda.load().to_device(array)


@inside
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", ["lstm", "gru_reset_before", "continuous", "mrnn"])
def test_device_arrays_stay_on_the_device(cell, dtype, monkeypatch):
    case = make_case(cell, lengths=UNEVEN, dtype=dtype)
    expected = on(case, "cuda")
    x, s0 = to_device(case.x), to_device(case.s0)
    copied = []
    download = _cuda.download
    monkeypatch.setattr(_cuda, "download", lambda array, into: copied.append(into.nbytes) or download(array, into))
    monkeypatch.setattr(_cuda, "free_bytes", lambda: 1500.0)  # of what is there already, nothing is cut
    traj = rg.rollout(case.net, x, s0, case.lengths)
    waited, synchronize = [], _cuda.synchronize
    monkeypatch.setattr(_cuda, "synchronize", lambda: waited.append("all") or synchronize())
    J = rg.jacobians(traj)
    assert waited
    assert isinstance(traj, rg.DeviceTrajectory) and max(copied) <= 8 * traj.B  # first steps that are not finite
    monkeypatch.undo()
    assert _cuda.is_device_array(J) and (traj.T, traj.B) == (expected.T, expected.B)
    for name in ("states", "h", "y", "a"):
        assert _cuda.is_device_array(getattr(traj, name))
        np.testing.assert_array_equal(getattr(traj, name).copy_to_host(), getattr(expected, name))
    np.testing.assert_array_equal(J.copy_to_host(), rg.jacobians(expected))
    back = traj.to_host()
    for name in ("x", "states", "h", "y", "a", "a2", "emitted", "inner", "lengths", "diverged"):
        np.testing.assert_array_equal(getattr(back, name), getattr(expected, name))
    loss = loss_of(case, back)
    assert_gradients(rg.bptt(back, loss), rg.bptt(expected, loss), 1e-15)


@pytest.fixture
def copied(monkeypatch):
    """Bytes of each copy from the device to the host, where NumPy makes none by itself."""
    sizes, kind = [], type(to_device(np.ones(1)))
    plain = kind.copy_to_host

    def counted(self, *args, **kwargs):
        sizes.append(self.nbytes)
        return plain(self, *args, **kwargs)

    def refused(self, *args, **kwargs):
        raise AssertionError("a device array was read by NumPy")

    monkeypatch.setattr(kind, "copy_to_host", counted)
    monkeypatch.setattr(kind, "copy_to_device", lambda self, of: np.copyto(self._ary, getattr(of, "_ary", of)))
    monkeypatch.setattr(kind, "__array__", refused, raising=False)
    return sizes


def on_device(case):
    return rg.rollout(case.net, to_device(case.x), to_device(case.s0), case.lengths)


def host(value):
    assert _cuda.is_device_array(value)
    return value.copy_to_host()


@inside
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS)
def test_gradients_of_device_arrays_stay_on_the_device(cell, dtype, copied):
    case = make_case(cell, lengths=UNEVEN, dtype=dtype)
    expected, traj = on(case, "cuda"), on_device(case)
    loss = loss_of(case, expected)
    copied.clear()
    grads = rg.bptt(traj, loss)
    assert copied == [8]  # the loss
    truth = rg.bptt(expected, loss)
    assert isinstance(grads, rg.DeviceGradients)
    assert grads.loss == pytest.approx(truth.loss, rel=1e-15)
    for name, value in vars(truth).items():
        if name != "loss" and value is not None and value.size:
            np.testing.assert_array_equal(host(getattr(grads, name)), value, err_msg=name)
    assert_gradients(grads.to_host(), truth, 1e-15)
    assert grads.norm() == truth.norm()


@inside
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("weights", [None, "last", "mask"])
@pytest.mark.parametrize("kind", LOSSES)
def test_losses_are_those_of_the_cpu(kind, weights, dtype, copied):
    case = make_case("vanilla", p=35, n=2, T=5, lengths=UNEVEN, dtype=dtype)  # more outputs than a sum has parts
    y = (3 * case.rng.standard_normal((5, 3, 35))).astype(dtype)
    target, name = random_target(case.rng, kind, y.shape)
    target = target if target.dtype.kind == "i" else target.astype(dtype)
    given = case.rng.random((5, 3)) * (case.rng.random((5, 3)) < 0.7) if weights == "mask" else weights
    steps = np.arange(1, 6)[:, None]
    counts = (steps == case.ends if weights == "last" else steps <= case.ends) & (weights != "mask" or given != 0)
    target[~counts] = -100 if target.dtype.kind == "i" else np.nan
    rtol = DTYPES[dtype] / 10
    for reduction in ("sum", "mean"):
        make = getattr(rg.losses, name)
        expected = make(target, given, reduction=reduction)(y, case.ends)
        there = make(to_device(target), given, reduction=reduction)
        ways = [(there, to_device(y)), (make(target, given, reduction=reduction), to_device(y))]
        for loss, at in ways:
            copied.clear()
            found = loss(at, case.ends)
            assert max(copied) == 8
            assert found.value == pytest.approx(expected.value, rel=rtol)
            assert_close(host(found.dy), expected.dy, rtol, "dy")
            assert_close(host(found.steps), expected.steps, rtol, "steps")
        same = make(target, given, reduction=reduction)(y, case.ends, backend="cuda")
        assert isinstance(same.dy, np.ndarray) and same.dy.dtype == y.dtype
        assert_close(same.dy, expected.dy, rtol)


@inside
def test_targets_on_the_device_that_do_not_fit():
    y = to_device(np.zeros((4, 3, 5)))
    hole, wide = np.zeros((4, 3, 5)), np.zeros((4, 3, 5))
    hole[2, 1, 4], wide[3, 0, 0] = np.nan, 1.5
    labels = np.zeros((4, 3), int)
    labels[1, 2] = 5
    for name, target, message in (
        ("squared_error", hole, r"target is not finite at index \(2, 1, …\)"),
        ("binary_cross_entropy", wide, r"target is not in \[0, 1\] at index \(3, 0, …\)"),
        ("cross_entropy", labels, r"target has a label out of range at index \(1, 2\); they must be in 0…4"),
        ("cross_entropy", -labels, r"target has a label out of range at index \(1, 2\)"),
        ("squared_error", np.zeros((4, 3, 6)), r"target has shape \(4, 3, 6\); it must have shape \(4, 3, 5\)"),
        ("squared_error", np.zeros((4, 3, 5), np.float32), "target has dtype float32; it must be float64"),
    ):
        with pytest.raises(ValueError, match=message):
            getattr(rg.losses, name)(to_device(target))(y)
    with pytest.raises(ValueError, match="target lives on a GPU, and the outputs do not"):
        rg.losses.squared_error(to_device(wide))(wide)
    with pytest.raises(ValueError, match="weights live on a GPU; they must be given on the host"):
        rg.losses.squared_error(wide, to_device(np.ones(4)))
    one = rg.losses.sum_of_squares(to_device(np.ones((4, 5))))(to_device(np.zeros((4, 1, 5))))
    assert one.value == 20


@inside
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS)
def test_chains_of_device_arrays_stay_on_the_device(cell, dtype, copied):
    case = make_case(cell, n=3, lengths=UNEVEN, dtype=dtype)
    chain, expected = rg.jacobian_chain(on_device(case)), rg.jacobian_chain(on(case, "cuda"))
    u = case.rng.standard_normal(case.s0.shape).astype(dtype)
    copied.clear()
    found = [chain.product(4, 1), chain.all_to(3), chain.all_from(2), chain.vjp(to_device(u), 4, 1)]
    found.append(chain.jvp(to_device(u), 4, 1))
    states = rg.CELLS[cell].states
    block = states[-1], states[0]
    found.append(chain.product(4, 1, block=block))
    assert max(copied) <= 8 * case.x.shape[1]  # whether a number is out of range
    truth = [expected.product(4, 1), expected.all_to(3), expected.all_from(2), expected.vjp(u, 4, 1)]
    truth += [expected.jvp(u, 4, 1), expected.product(4, 1, block=block)]
    for value, other in zip(found, truth, strict=True):
        assert_close(host(value), other, 4 * np.finfo(dtype).eps)
    np.testing.assert_array_equal(host(chain.product(2, 2)), expected.product(2, 2))
    np.testing.assert_array_equal(host(chain.all_from(5)), expected.all_from(5))
    with pytest.raises(ValueError, match="u is a ndarray on the host; it must lie on the GPU as traj does"):
        chain.vjp(u, 4, 1)


@inside
@pytest.mark.parametrize("dtype", DTYPES)
def test_norms_and_float64_of_device_arrays(dtype, copied):
    case = make_case("gru_delayed", n=2, T=4, lengths=[4, 2, 1], dtype=dtype)
    traj, expected = on_device(case), on(case, "cuda")
    chain, truth = rg.jacobian_chain(traj), rg.jacobian_chain(expected)
    for ord in (2, "fro"):
        for block in (None, ("r", "h")):
            copied.clear()
            found = chain.log_norms(ord, block=block)
            assert max(copied) == 8
            np.testing.assert_array_equal(host(found), truth.log_norms(ord, block=block))
            np.testing.assert_array_equal(
                host(chain.log_norms_to(3, ord, block=block)), truth.log_norms_to(3, ord, block=block)
            )
            for t, k in ((4, 1), (2, 2), (4, 4), (0, 0)):
                one = host(chain.log_norm(t, k, ord, block=block))
                np.testing.assert_allclose(
                    one, truth.log_norm(t, k, ord, block=block), rtol=0, atol=4e-6 if dtype == "float32" else 1e-12
                )
    wide, truth = (rg.jacobian_chain(of).jacobians.in_float64() for of in (traj, expected))
    assert wide.update_s.dtype == np.float64 and _cuda.is_device_array(wide.update_s)
    np.testing.assert_array_equal(wide.dense().copy_to_host(), truth.dense())


@inside
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_products_of_device_arrays_beyond_the_range_of_floats():
    case = make_case("linear", n=3, T=5)
    still = {"b": 0 * case.net.b, "W": np.diag([1e200, 1e-200, 0.0])[None]}
    case = dataclasses.replace(case, net=case.net.replace(**still), x=0 * case.x, s0=0 * case.s0)
    chain = rg.jacobian_chain(on_device(case))
    np.testing.assert_allclose(host(chain.log_norm(5, 0)), 1000 * np.log(10))
    np.testing.assert_array_equal(
        host(chain.log_norm(4, 0, block=("h", "h"), ord="fro")), host(chain.log_norms("fro"))[:, 4, 0]
    )
    with pytest.raises(OverflowError, match=r"entries above 2\^\d+, beyond float64; use log_norm"):
        chain.product(5, 0)
    assert host(chain.product(1, 0))[0, 0, 0] == 1e200
    tiny = np.full(case.s0.shape, 1e200)
    with pytest.raises(OverflowError):
        chain.vjp(to_device(tiny), 1, 0)
    tiny[:] = 1e300
    assert host(chain.jvp(to_device(1e-300 * tiny), 1, 0))[0, 0, 0] == 1e200


@inside
def test_norms_that_were_not_found_are_an_error(monkeypatch):
    from rnngrad.kernels import cuda as kernels

    chain = rg.jacobian_chain(on_device(make_case("vanilla", n=2, T=3)))
    monkeypatch.setattr(kernels, "chain_norms", lambda out, *rest: out.copy_to_device(np.full(out.shape, np.nan)))
    with pytest.raises(rg.ConvergenceError, match="was not found by Lanczos steps; ask for ord='fro'"):
        chain.log_norms()


class Lent:
    """Memory of the host that says it is a GPU's, by DLPack alone."""

    def __init__(self, array, kind=2):
        self.array, self.kind = array, kind

    def __dlpack_device__(self):
        return self.kind, 0

    def __dlpack__(self, stream):
        assert stream == 1
        return self.array.__dlpack__()


@inside
def test_arrays_lent_by_dlpack_alone():
    case = make_case("gru", T=6, dtype="float32")
    every = np.repeat(case.x, 2, axis=0)
    for x in (case.x, every[::2], np.asfortranarray(case.x)):
        traj = rg.rollout(case.net, Lent(x), Lent(case.s0))
        assert isinstance(traj, rg.DeviceTrajectory)
        np.testing.assert_array_equal(host(traj.states), on(case, "cuda").states)
    target = np.random.default_rng(0).integers(0, 2, (6, 3))
    found = rg.bptt(traj, rg.losses.cross_entropy(Lent(target)))
    assert_gradients(found.to_host(), rg.bptt(on(case, "cuda"), rg.losses.cross_entropy(target)), 1e-6)
    with pytest.raises(ValueError, match="x has dtype int64; it must be float32"):
        rg.rollout(case.net, Lent(np.ones((6, 3, 3), np.int64)))
    assert _cuda.is_device_array(Lent(case.x))
    assert not _cuda.is_device_array(Lent(case.x, kind=1)) and not _cuda.is_device_array(case.x)


@inside
def test_device_arrays_of_the_simulator_have_no_more_than_those_of_a_card():
    array = to_device(np.ones((2, 3)))
    for name in ("astype", "sum", "max", "any", "fill"):
        with pytest.raises(AttributeError, match=name):
            getattr(array, name)
    with pytest.raises(TypeError):
        array + array
    assert array[0].shape == (3,) and array.reshape(6).size == 6 and array.is_c_contiguous()


@inside
def test_device_arrays_that_are_not_contiguous_are_copied_there():
    case = make_case("gru", T=6)
    every = np.repeat(case.x, 2, axis=0)
    traj = rg.rollout(case.net, to_device(every)[::2], case.s0, backend="cuda")
    np.testing.assert_array_equal(traj.states.copy_to_host(), on(case, "cuda").states)


@inside
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_device_arrays_that_do_not_fit():
    case = make_case("lstm")
    net, x = case.net, case.x
    hole = x.copy()
    hole[3, 1, 2] = np.nan
    for value, message in (
        (hole, r"x is not finite at index \(3, 1, …\)"),
        (x[:, 0], r"x has shape \(5, 3\); it must have shape \(T, B, 3\)"),
        (x.astype(np.float32), "x has dtype float32; it must be float64 as net is"),
    ):
        with pytest.raises(ValueError, match=message):
            rg.rollout(net, to_device(np.ascontiguousarray(value)))
    with pytest.raises(ValueError, match="x lives on a GPU, and backend is 'cpu'"):
        rg.rollout(net, to_device(x), backend="cpu")
    with pytest.raises(ValueError, match="batch_first, dropout and steps are for NumPy arrays"):
        rg.rollout(net, to_device(x), batch_first=True)
    with pytest.raises(ValueError, match="net is a Stack; on a GPU it must be a Network"):
        rg.rollout(rg.Stack.init(["lstm"], n_inputs=3, n_hidden=[4], seed=0), to_device(x))
    with pytest.warns(rg.DivergenceWarning, match=r"at step 2 \(sample 0; 3 of 3"):
        linear = make_case("linear").net
        traj = rg.rollout(linear.replace(W=1e200 * linear.W), to_device(x), to_device(1e10 + 0 * case.s0[:, :1]))
    np.testing.assert_array_equal(traj.diverged, 2)
    with pytest.raises(ValueError, match="not finite from step 2"):
        rg.jacobians(traj)
