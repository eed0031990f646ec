"""Sums over rows against exact ones, and the vectors in which kernels work."""

import math
import platform

import numpy as np
import pytest
from numba.core import config

from rnngrad import _math
from rnngrad._compiler import VECTOR_BYTES
from rnngrad._jit import inner, kernel
from rnngrad.kernels.cpu.sums import dot, square_distance

SIZES = [0, 1, 2, 3, 7, 8, 9, 15, 16, 31, 33, 64, 100, 257]


@kernel("sums", tasks=lambda out, x, y: 1, cached=False)
def sums(start, stop, out, x, y):
    out[0], out[1] = dot(x, y), square_distance(x, y)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("n", SIZES)
def test_sums_are_those_of_exact_arithmetic(n, dtype):
    rng = np.random.default_rng(n)
    x, y = (rng.standard_normal(n).astype(dtype) * 10.0 ** rng.integers(-3, 4) for _ in range(2))
    x, y = x.astype(dtype), y.astype(dtype)
    out = np.empty(2)
    sums(out, x, y)
    products = [float(a) * float(b) for a, b in zip(x, y, strict=True)]
    squares = [float(a - b) ** 2 for a, b in zip(x, y, strict=True)]  # the difference is the dtype's
    for found, terms in zip(out, (products, squares), strict=True):
        assert abs(found - math.fsum(terms)) <= (n + 1) * np.finfo(float).eps * math.fsum(map(abs, terms))


def test_a_sum_does_not_lose_what_is_not_a_number():
    for bad in (np.nan, np.inf):
        for at in (0, 5, 16):
            x = np.ones(17)
            x[at] = bad
            out = np.empty(2)
            sums(out, x, np.ones(17))
            assert not np.isfinite(out).any(), (bad, at)


@pytest.mark.skipif(bool(config.DISABLE_JIT), reason="nothing is compiled")
@pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="registers of x86 are looked for")
def test_kernels_fill_vector_registers():
    """Where LLVM would fill half of them, as it does for Intel's processors, this fails without our asking for all."""
    register = {64: "zmm", 32: "ymm", 16: "xmm"}[VECTOR_BYTES]

    @inner("tanh in vectors", cached=False)
    def activate(out, x):
        for i in range(out.size):
            out[i] = _math.tanh(x[i])

    @kernel("tanh in vectors", tasks=lambda out, x: 1, cached=False)
    def run(start, stop, out, x):
        for i in range(x.size):
            out[i] = _math.tanh(x[i])
        activate(out, x)

    run(np.empty(20), np.zeros(20))
    for compiled in (run.compiled, activate):
        (code,) = compiled.inspect_asm().values()
        divided = [line for line in code.splitlines() if "divpd" in line]
        assert any(register in line for line in divided), "activations are not computed in whole registers"


def test_a_forced_function_has_no_order_of_its_own():
    with pytest.raises(ValueError, match="forced into its callers"):
        inner(forced=True, in_any_order=True)
