"""Chains and products of many units by the library, which a stand-in plays here, against the kernels of our own."""

import dataclasses
import types
from pathlib import Path

import cublas
import numpy as np
import pytest
from cases import CELLS, UNEVEN, assert_close, make_case
from simulated import DTYPES, SIMULATED, inside, sessions

import rnngrad as rg
from rnngrad import _cuda

if SIMULATED:
    from rnngrad.kernels.cuda import library


test_in_the_simulator, _ = sessions(__file__)


@pytest.fixture
def made(monkeypatch):
    """With matrices of two rows taken for large, three rows at a time; the products that were made."""
    calls = cublas.Calls()
    monkeypatch.setattr(library, "FROM", 2)
    monkeypatch.setattr(library, "ROWS", 3)
    monkeypatch.setattr(library, "missing", lambda: None)
    monkeypatch.setattr(library, "load", lambda: cublas.module(calls))
    return calls


def local(case):
    return rg.jacobian_chain(rg.rollout(case.net, case.x, case.s0, case.lengths, backend="cuda")).jacobians


def chains(jacobians, driven):
    """Rows carried either way, with charges or without."""
    net, found = jacobians.net, {}
    R, D = 7, 4
    for name, at, walk in (("adjoint", 5, jacobians.adjoint), ("tangent", 1, jacobians.tangent)):
        rng = np.random.default_rng(6)
        rows = rng.standard_normal((R, net.S, net.n)).astype(net.dtype)
        given, sample = rng.integers(-9, 9, R), np.arange(R) % 3
        if not driven:
            found |= dict(zip((f"{name}, rows", f"{name}, exponents"), walk(rows, given, sample, at, D)))
            continue
        out = rng.standard_normal((D, R, net.S, net.n)).astype(net.dtype), np.zeros((D, R), np.int64)
        dz, dz2 = (
            rng.standard_normal((D, R, partial.shape[3], net.n)).astype(net.dtype)
            for partial in (jacobians.update_a, jacobians.update_a2)
        )
        walk(rows, given, sample, at, D, out=out, dz=dz, dz2=dz2)
        found |= {f"{name}, driven": out[0], f"{name}, exponents": out[1], f"{name}, dz": dz, f"{name}, dz2": dz2}
    return found


@inside
@pytest.mark.parametrize("driven", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS)
def test_chains_by_the_library_are_those_of_one_launch(cell, dtype, driven, made, monkeypatch):
    jacobians = local(make_case(cell, lengths=UNEVEN, dtype=dtype))
    made.clear()
    found = chains(jacobians, driven)
    assert made and max(n for _, n, _ in made) == 3  # rows of one product
    with monkeypatch.context() as patch:
        patch.setattr(library, "FROM", 1000)
        count = len(made)
        expected = chains(jacobians, driven)
        assert len(made) == count
    for name, truth in expected.items():
        assert_close(found[name], truth, DTYPES[dtype], name)
    assert {name for name in found if "exponents" in name} and found["adjoint, exponents"].shape == (4, 7)


@inside
@pytest.mark.parametrize("cell", ["lstm", "gru_reset_before"])
def test_chains_by_the_library_do_not_depend_on_pieces(cell, made, monkeypatch):
    from rnngrad.kernels.cuda import pieces

    jacobians = local(make_case(cell, lengths=UNEVEN))
    whole, sizes, fitting = chains(jacobians, False), [], pieces.fitting
    for fits in (4, 2):  # one product of rows at once; not even that, and so half of the steps, in all rows

        def few(count, operands, scratch=(0, 0), fits=fits):
            steps = operands[0].array.shape[0]
            held = fits if fits > 2 or steps > 1 else 3
            sizes.append(min(count, held))
            return min(fitting(count, operands, scratch), held)

        with monkeypatch.context() as patch:
            patch.setattr(pieces, "fitting", few)
            cut = chains(jacobians, False)
        for name, value in whole.items():
            np.testing.assert_array_equal(cut[name], value)
    assert 3 in sizes and 4 in sizes and 2 in sizes


@inside
def test_rows_of_one_product_that_do_not_fit_are_refused_with_the_numbers(made, monkeypatch):
    jacobians = local(make_case("vanilla"))
    rows = np.ones((7, 1, jacobians.net.n))
    monkeypatch.setattr(_cuda, "free_bytes", lambda: 600.0)
    with pytest.raises(MemoryError, match="one row of a chain of Jacobians, with 3 of them together, needs 0.00"):
        jacobians.adjoint(rows, np.zeros(7, np.int64), np.zeros(7, np.int64), 5, 5)


@inside
def test_chains_by_the_library_leave_the_range_of_floats(made):
    case = make_case("linear", n=3, T=5)
    still = {"b": 0 * case.net.b, "W": np.diag([1e200, 1e-200, 0.0])[None]}
    case = dataclasses.replace(case, net=case.net.replace(**still), x=0 * case.x, s0=0 * case.s0)
    chain = rg.jacobian_chain(rg.rollout(case.net, case.x, case.s0, backend="cuda"))
    np.testing.assert_allclose(chain.log_norm(5, 0), 1000 * np.log(10))
    row, none = np.ones((1, 1, 3)), np.zeros(1, np.int64)
    for found, exponents in (
        chain.jacobians.adjoint(row, none, none, 5, 5),
        chain.jacobians.tangent(row, none, none, 0, 5),
    ):
        logs = np.sort(np.log2(found[:, 0, 0, 0]) + exponents[:, 0])  # in the order of time, either way
        np.testing.assert_allclose(logs, 200 * np.log2(10) * np.arange(1, 6), rtol=1e-13)
    assert made


@inside
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", ["lstm", "gru", "mrnn"])
def test_gradients_by_the_library(cell, dtype, made, monkeypatch):
    """Inputs in one run of gates and in two, biases, parameter gradients over several pieces of the sum."""
    from rnngrad.kernels.cuda import pieces, products

    case = make_case(cell, lengths=UNEVEN, dtype=dtype)
    monkeypatch.setattr(products, "_ROWS", 4)
    loss = rg.losses.squared_error(np.ones((5, 3, case.net.p), dtype))

    def gradients():
        traj = rg.rollout(case.net, case.x, case.s0, case.lengths, backend="cuda")
        grads = rg.bptt(traj, loss)
        return {"a": traj.a, "y": traj.y, "x": grads.x} | dict(grads.parameters())

    found = gradients()
    assert len(made) > 9 and max(n for _, n, _ in made) == 3
    sizes, fitting = [], pieces.fitting

    def few(count, *args):  # of the products over all steps and samples; the other jobs are whole
        sizes.append(min(count, 7))
        return min(fitting(count, *args), 7) if count > 7 else fitting(count, *args)

    monkeypatch.setattr(pieces, "fitting", few)
    cut = gradients()
    assert 7 in sizes
    monkeypatch.undo()
    assert not library.pays(1000)  # the simulator has no library
    for name, truth in gradients().items():
        np.testing.assert_array_equal(cut[name], found[name])
        assert_close(found[name], truth, DTYPES[dtype], name)


@inside
def test_what_is_missing_is_told(monkeypatch):
    assert "simulator" in library.explained() and not library.pays(10**6, 10**6)
    monkeypatch.setattr(library, "missing", library.missing.__wrapped__)
    monkeypatch.setattr(_cuda, "simulated", lambda: False)
    monkeypatch.setattr(_cuda, "_installed", lambda name: name != "cupy")
    assert library.explained() == ("by kernels of our own: CuPy is not installed (pip install 'rnngrad[cuda-blas]')")

    class Broken(types.SimpleNamespace):
        @property
        def cublas(self):
            raise ImportError("libcublas.so.13 is not there")

    monkeypatch.setattr(_cuda, "_installed", lambda name: True)
    monkeypatch.setattr(library, "load", lambda: types.SimpleNamespace(cuda=Broken()))
    assert "CuPy does not load: ImportError: libcublas.so.13" in library.explained()
    monkeypatch.setattr(library, "load", lambda: cublas.module(cublas.Calls()))
    assert library.explained() == "of 512 units and more by cuBLAS"
    assert library.pays(512, 600) and not library.pays(600, 511)


@inside
def test_the_check_for_a_card_compares_both(made, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "scripts"))
    import gpu_check

    rows = [row for _, _, job in gpu_check.by_library() for row in job()]
    assert len(rows) == 6 and all(row["passed"] and row["error"] > 0 for row in rows)
    assert made and library.FROM == 2
    right = library.multiply

    def wrong(out, *args, **options):
        right(out, *args, **options)
        values, (first, _) = out.copy_to_host(), args[7]
        values[first] += 1
        out.copy_to_device(values)

    monkeypatch.setattr(library, "multiply", wrong)
    rows = [row for _, _, job in gpu_check.by_library() for row in job()]
    assert not any(row["passed"] for row in rows)
    monkeypatch.undo()
    assert [row for _, _, job in gpu_check.by_library() for row in job()] == [
        {"left out": "products by the library (the simulator has no cuBLAS)"}
    ]
