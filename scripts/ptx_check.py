"""Compile every CUDA kernel without a GPU, and look at what comes out.

    pip install -e '.[cuda]' && python scripts/ptx_check.py [--cc 8.0 9.0] [--verbose]

Every kernel for every cell and dtype, with its operands in global and in shared memory, and every cell's formulae with
every activation in float32. Checked: it compiles, the float32 code holds no float64 instruction, nothing is approximate
or flushes subnormals, floats are not added atomically; and, where ``ptxas`` is on the PATH, it assembles without
register spills or stack, within 48 KB of static shared memory. The registers of every kernel are printed.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from rnngrad import _cuda

cuda = _cuda.load()

from numba import njit, types

from rnngrad._math import ACTIVATIONS
from rnngrad.cells import CELLS, LSTM_SCALED, VARIANTS, Cell
from rnngrad.kernels.cuda import (
    batchnorm,
    chain,
    covariant,
    diagonals,
    frames,
    graded,
    jacobian,
    large,
    norms,
    products,
    resident,
    rows,
    scaling,
    system,
    weights,
)
from rnngrad.kernels.cuda.backprop import make as make_backprop
from rnngrad.kernels.cuda.curvature import make as make_curvature
from rnngrad.kernels.cuda.curvature import make_charged
from rnngrad.kernels.cuda.fixed_point import make_cell as make_fixed_point
from rnngrad.kernels.cuda.fixed_point import make_linear
from rnngrad.kernels.cuda.linear import make as make_newton
from rnngrad.kernels.cuda.loss import make as make_loss
from rnngrad.kernels.cuda.loss import make_curvature as make_loss_curvature
from rnngrad.kernels.cuda.loss import make_one_hot, make_outside
from rnngrad.kernels.cuda.orthonormalize import make as make_qr
from rnngrad.kernels.cuda.output import make_output, make_output_vjp
from rnngrad.kernels.cuda.overlap import make_largest, make_sums, make_tops
from rnngrad.kernels.cuda.rollout import make as make_rollout
from rnngrad.kernels.cuda.singular_values import make as make_rotations
from rnngrad.kernels.cuda.statistics import make_normalize, make_through
from rnngrad.kernels.cuda.unit_norms import make as make_unit_norms
from rnngrad.kernels.cuda.unit_sums import make as make_unit_sums
from rnngrad.kernels.tuples import PUT, TAKE
from rnngrad.kernels.user import UserFunction
from rnngrad.loss_terms import TERMS
from rnngrad.unit_terms import LOG_MAGNITUDE, SQUARE

_STATIC_SHARED = 48 * 1024

#: arguments of the kernels: f3 is a C-contiguous array of the dtype with 3 axes (a3 any), r1 of float32, i2 of int64
#: (l2 any),
#: u1 of uint8, c2 of complex128; i, b, f are scalars; what is in brackets is a tuple
_FACTORS = "f5 f5 f5 f4 f4 f4"
_MASKS = "u2 u2 u2 u1 u1 u1"
_SYSTEM = {"factored": f"{_FACTORS} f1 f1 {_MASKS} i i b", "dense": "f4"}
ARGUMENTS = {
    "unit": "f2 f2 f2 f2 f2 f2",
    "rollout": "f4 f3 f4 f4 f3 f3 f1 f1 i1 f4 f1 i",
    "backprop": "f4 f3 f4 f4 f3 f4 f4 f4 f1 f1 i1 f4 f1 i",
    "factors": f"{_FACTORS} f4 f4 f4 i1 f4 i",
    "output": "f3 f4 f4",
    "output_vjp": "f4 f3 f4 f4",
    "curvature": "f4 f4 f4 f4 f4 f4 f3 f3 f4 f4 f4 f4 f3 f3 i1 f4 i",
    "curvature of outputs": "f4 f4 f3 f4 f3 f4",
    "covariant": "f3 f2 f4 f3 f4 f4 i3 i i f",
    "covariant of float32": "f3 f2 r4 f3 r4 r4 i3 i i f",
    "unit norms": "f1 f4 i i",
    "unit norms of float32": "f1 r4 i i",
    "unit sums": "f3 f4 i i i1 i f f f",
    "unit sums of float32": "f3 r4 i i i1 i f f f",
    "dense": f"f4 {_FACTORS} f1 f1 f1 f1 i i",
    "chain edge": f"f4 i2 f3 i1 i1 f4 f4 ( {_SYSTEM['factored']} ) f1 i",
    "chain between": f"f4 f3 i1 f4 f4 ( {_SYSTEM['factored']} ) f1 i",
    "orthonormalize": "f3 f1 f1 f1 i2 i1 f1 i",
    "fixed_point": "f3 i1 i1 ( f3 f3 i1 f1 f1 f4 f4 f4 f3 f3 ) f2 f4 f3 f3 f3 f2 f1 i i i i i f f f",
    "newton": "f2 u1 f1 f1",
    "singular values": "f2 f3 f1 i2 i1 i1 f1 i f",
    "graded product": "f3 i1 f3 i2 f3 i2 u2",
    "live rows": "u2 f3",
    "normalize batch": "f3 f2 f2 f2 f3 f2 f2 f b i i",
    "through batch": "f3 f3 f1 f3 f2 i i i i b",
    "batchnorm cell state": "f4 f3 f4 f3 f3 f2 f2 f2 i",
    "batchnorm update": "f4 f4 f2 f2 f1 f1 i",
    "batchnorm slope": "f3 f4 f3 f4 f3 f1 f1 i i i i b",
    "batchnorm adjoint": "f4 f4 f4 f3 f3 f4 f4 f3 f2 f1 f1 i i i i",
    "system rollout": "f4 f3 f3 f1 i1 i i",
    "system derivatives": "f4 f4 f3 f1 i1 c2 i i i",
    "system jacobian": "f4 f4 f3 f1 i1 i i i",
    "system fixed_point": "f3 i1 i1 ( f2 f1 i i ) f2 f4 f3 f3 f3 f2 f1 i i i i i f f f",
    "product": "f1 f1 f1 f1 i i i i i i i i i i i i i b b",
    "sum": "f1 f1 i",
    "copy": "f3 a3 i1",
    "packed 1": "f1 a1",
    "packed 2": "f2 a2",
    "in float64": "f1 r1",
    "in float32": "r1 f1",
    "fill": "f1 f",
    "put rows": "f2 i1 f2 i1 f1",
    "row norms": "f1 f2 i1",
    "overlap tops": "f1 f1 f1",
    "overlap tops of float32": "f1 r1 r1",
    "largest": "f1 f1",
    "overlap sums": "f1 f1 f1 f1",
    "overlap sums of float32": "f1 r1 r1 f1",
    "changing": "u1 f3",
    "through diagonals": "f4 f4 f5",
    "weight drive": "f4 f2 i1 i1 i1",
    "charge columns": "f1 f2 f3",
    "curvature of loss": "f3 f3 f3 f3 f2",
    "first not finite": "i1 f3",
    "swapped": "f3 f3",
    "unit rows": "f3 i i",
    "unsettled": "i1 f3 i1",
    "fold": "f2 i1 i1",
    "normalize": "f3 i1",
    "loss": "f2 f3 f3 f3 f2",
    "one hot": "f3 i1 l2 f2",
    "outside": "i1 f3 f2 f f",
}
for _form, _arguments in _SYSTEM.items():
    ARGUMENTS |= {
        f"{_form} chain": f"f4 i2 f3 i1 i1 f4 f4 ( {_arguments} ) f1 i i",
        f"{_form} frames": f"f3 f1 f3 f1 f3 f1 f3 i3 i1 i2 i2 i2 f2 f1 f1 i1 f3 ( {_arguments} ) f1 i i i",
        f"{_form} norms": f"f3 i1 f3 f1 f3 f3 f1 f1 f1 f1 f1 i2 i2 i1 f3 ( {_arguments} ) f1 i i i i b",
        f"{_form} fixed_point": f"f3 i1 i1 ( f3 i1 {_arguments} ) f2 f4 f3 f3 f3 f2 f1 i i i i i f f f",
    }


@dataclass(frozen=True)
class Compiled:
    """PTX of one kernel."""

    name: str
    dtype: np.dtype
    ptx: str


def henon(s, x, p):
    return 1 - p[0] * s[0] * s[0] + s[1], p[1] * s[0]


def henon_jacobian(out, s, x, p):
    out[0, 0] = -2 * p[0] * s[0]
    out[0, 1] = 1.0
    out[1, 0] = p[1]
    out[1, 1] = 0.0


@njit
def lorenz_field(u, v, w, p):
    return p[0] * (v - u), u * (p[1] - w) - v, u * v - p[2] * w


def lorenz_step(s, x, p):
    """A Runge-Kutta step of Lorenz' equations."""
    u, v, w, h = s[0], s[1], s[2], 0.01
    a, b, c = lorenz_field(u, v, w, p)
    a2, b2, c2 = lorenz_field(u + h / 2 * a, v + h / 2 * b, w + h / 2 * c, p)
    a3, b3, c3 = lorenz_field(u + h / 2 * a2, v + h / 2 * b2, w + h / 2 * c2, p)
    a4, b4, c4 = lorenz_field(u + h * a3, v + h * b3, w + h * c3, p)
    h = h / 6
    return u + h * (a + 2 * a2 + 2 * a3 + a4), v + h * (b + 2 * b2 + 2 * b3 + b4), w + h * (c + 2 * c2 + 2 * c3 + c4)


def network(out, s, x, p):
    """out = z / (1 + z^2) of z = P s."""
    n = s.size
    for i in range(n):
        total = 0.0 * s[0]
        for j in range(n):
            total += p[i * n + j] * s[j]
        out[i] = total / (1 + total * total)


EXAMPLES = {
    "henon": UserFunction(henon, (2,), "tuple"),
    "lorenz": UserFunction(lorenz_step, (3,), "tuple"),
    "network": UserFunction(network, (6,), "written"),
}
HENON_JACOBIAN = UserFunction(henon_jacobian, (2, 2), "written")


def kernels(dtype: np.dtype) -> Iterator[tuple[str, str, Any]]:
    """(key of ARGUMENTS, name, body) of every kernel."""
    for cell in (CELLS | VARIANTS).values():
        phi = ACTIVATIONS[cell.activation]
        for level in (0, 1, 2) if cell.name == "lstm" else (2,):
            where = ("global", "scratch shared", "shared")[level]
            yield "rollout", f"rollout {cell.name}, {where}", make_rollout(cell, phi, dtype, level).body
            yield "backprop", f"backprop {cell.name}, {where}", make_backprop(cell, phi, dtype, level).body
            yield "fixed_point", f"fixed_point {cell.name}, {where}", make_fixed_point(cell, phi, dtype, level).body
        yield "factors", f"factors {cell.name}", jacobian.make_factors(cell, phi, dtype).body
        if not cell.outputs_state:
            yield "output", f"output {cell.name}", make_output(cell, phi).body
            yield "output_vjp", f"output_vjp {cell.name}", make_output_vjp(cell, phi).body
        if dtype == np.float64:  # dual numbers are in no other
            for activation in cell.activations:
                how, phi = f"{cell.name}, {activation}", ACTIVATIONS[activation]
                yield "curvature", f"curvature {how}", make_curvature(cell, phi).body
                if not cell.outputs_state:
                    yield "curvature of outputs", f"curvature of outputs {how}", make_charged(cell, phi).body
        for activation in cell.activations if dtype == np.float32 else ():  # which is where literals can go wrong
            yield "unit", f"unit {cell.name}, {activation}", make_unit(cell, ACTIVATIONS[activation])
    yield "dense", "dense", jacobian.make_dense(dtype).body
    for form in _SYSTEM:
        for level, where in enumerate(("global", "scratch shared", "shared")):
            for forward, name in ((False, f"{form} adjoint"), (True, f"{form} tangent")):
                for driven in (False, True) if level == 2 and form == "factored" else (False,):
                    how = f"{where}{', driven' if driven else ''}"
                    yield f"{form} chain", f"{name} chain, {how}", chain.make(form, forward, dtype, level, driven).body
                body = make_linear(form, forward, dtype, level).body
                yield f"{form} fixed_point", f"{name} fixed_point, {where}", body
        if dtype == np.float64:  # frames and norms are in no other
            yield f"{form} frames", f"{form} frames, shared", frames.make(form, dtype, 2).body
            yield f"{form} norms", f"{form} norms, shared", norms.make(form, 2).body
    for forward, name in ((False, "adjoint of many units"), (True, "tangent of many units")):
        for driven in (False, True):
            how = ", driven" if driven else ""
            yield "chain edge", f"{name}, ends of steps{how}", large.make_edge(forward, dtype, driven).body
            yield "chain between", f"{name}, within{how}", large.make_between(forward, dtype, driven).body
    yield "newton", "newton directions", make_newton(dtype).body
    for level, where in enumerate(("global", "shared")):
        yield "orthonormalize", f"orthonormalize, {where}", make_qr(dtype, level).body
    if dtype == np.float64:  # singular values are in no other
        for level, where in enumerate(("global", "shared")):
            yield "singular values", f"singular values, {where}", make_rotations(level).body
        yield "graded product", "graded product", graded.make().body
        for key in ("covariant", "covariant of float32"):  # coefficients are in no other
            yield key, f"{key.replace('covariant', 'covariant vectors')}", covariant.make().body
        for suffix in ("", " of float32"):
            yield f"overlap tops{suffix}", f"overlap tops{suffix}", make_tops().body
            yield f"overlap sums{suffix}", f"overlap sums{suffix}", make_sums().body
        yield "largest", "overlap, largest of all parts", make_largest().body
        for key in ("unit norms", "unit norms of float32"):
            yield key, key, make_unit_norms().body
        for key in ("unit sums", "unit sums of float32"):  # float64 whatever the network's precision
            for kind in (*ACTIVATIONS.values(), LOG_MAGNITUDE, SQUARE):
                yield key, f"{key}, kind {kind}", make_unit_sums(kind).body
        yield "in float64", "in float64", resident.make_wide().body
        yield "in float32", "in float32", resident.make_wide().body
        for logarithm in (True, False):
            yield "row norms", f"row {'log-norms' if logarithm else 'lengths'}", rows.make_norms(logarithm).body
        yield "charge columns", "charge columns", weights.make_charge().body
        yield "unsettled", "unsettled norms", norms.make_unsettled().body
        yield from user_kernels()
    tanh = ACTIVATIONS["tanh"]
    yield "normalize batch", "batchnorm normalize", make_normalize(dtype).body
    yield "through batch", "batchnorm through", make_through(dtype).body
    yield "batchnorm cell state", "batchnorm cell state", batchnorm.make_cell_state(LSTM_SCALED, tanh, dtype).body
    yield "batchnorm update", "batchnorm update", batchnorm.make_update(LSTM_SCALED, tanh).body
    yield "batchnorm slope", "batchnorm slope", batchnorm.make_slope(tanh).body
    yield "batchnorm adjoint", "batchnorm adjoint", batchnorm.make_adjoint(LSTM_SCALED, tanh).body
    yield "product", "product", products.make(dtype, 16).body
    yield "sum", "sum", products.make_sum().body
    yield "copy", "copy", resident.make_copy(dtype).body
    for axes in (1, 2):
        yield f"packed {axes}", f"copy of {axes} ax{'i' if axes == 1 else 'e'}s", resident.make_packed(axes).body
    yield "first not finite", "first not finite", resident.make_first().body
    for last in (True, False):
        yield "swapped", f"swapped {'last' if last else 'first'} axes", resident.make_permuted(last).body
    yield "unit rows", "unit rows", resident.make_unit_rows(dtype).body
    yield "live rows", "live rows", graded.make_live(dtype).body
    yield "changing", "inputs that change", rows.make_changing().body
    yield "fill", "fill", resident.make_fill().body
    for more in (False, True):
        how = "added" if more else "put"
        for scaled in (False, True):
            yield "put rows", f"rows {how}{', scaled' if scaled else ''}", rows.make_put(more, scaled).body
        yield "through diagonals", f"through diagonals, {how}", diagonals.make(dtype, more).body
    yield "weight drive", "weight drive", weights.make_drive(dtype).body
    yield "fold", "fold", scaling.make_fold(dtype).body
    yield "normalize", "normalize", scaling.make_normalize(dtype).body
    for kind in TERMS:
        yield "loss", f"loss {kind}", make_loss(kind, dtype).body
        yield "curvature of loss", f"curvature of loss {kind}", make_loss_curvature(kind, dtype).body
    yield "one hot", "labels as rows of the identity", make_one_hot(dtype).body
    yield "outside", "targets out of range", make_outside(dtype).body


def user_kernels() -> Iterator[tuple[str, str, Any]]:
    """Kernels around functions of a user."""
    for name, user in EXAMPLES.items():
        yield "system rollout", f"system rollout, {name}", system.make_rollout(user).body
        for which, argument in enumerate(("s", "x", "params")):
            body = system.make_derivatives(user, which).body
            yield "system derivatives", f"system derivatives by {argument}, {name}", body
        for level, where in enumerate(("global", "shared")):
            body = system.make_fixed_point(user, level).body
            yield "system fixed_point", f"system fixed_point, {name}, {where}", body
    yield "system jacobian", "system jacobian, henon", system.make_jacobian(HENON_JACOBIAN).body


def signature(arguments: str, dtype: np.dtype) -> Any:
    """Numba's signature of a kernel."""
    number = types.float64 if dtype == np.float64 else types.float32
    element = {"f": number, "a": number, "l": types.int64, "r": types.float32, "i": types.int64, "u": types.uint8}
    element["c"] = types.complex128
    scalars = {"i": types.int64, "b": types.boolean, "f": number}
    whole: list[Any] = []
    found = whole
    for word in arguments.split():
        if word == "(":
            found = []
        elif word == ")":
            whole.append(types.Tuple(found))
            found = whole
        elif len(word) == 1:
            found.append(scalars[word])
        else:
            found.append(types.Array(element[word[0]], int(word[1:]), "A" if word[0] in "al" else "C"))
    return types.void(*whole)


def make_unit(cell: Cell, phi: int):
    """Kernel over units i: all units of the cell and their adjoints, from columns of ``values`` to rows of ``out``."""
    unit = cell.module
    S, P, P2, K = cell.n_states, len(cell.gates), len(cell.gates2), len(cell.constants)
    take_s, take_a, take_a2, take_k = TAKE[S], TAKE[P], TAKE[P2], TAKE[K]
    put_s, put_a, put_a2 = PUT[S], PUT[P], PUT[P2]
    two_stage, emits_state = cell.two_stage, cell.emits_state
    update, update_vjp = unit.update, unit.update_vjp
    inner = unit.inner if two_stage else None
    inner_vjp = unit.inner_vjp if two_stage else None
    emit = None if emits_state else unit.emit
    emit_vjp = None if emits_state else unit.emit_vjp

    def run(s, a, a2, k, g, out):
        i = cuda.grid(1)
        if i >= s.shape[1]:
            return
        si, ai, a2i, ki, gi = take_s(s, i), take_a(a, i), take_a2(a2, i), take_k(k, i), take_s(g, i)
        put_s(out, 0, i, update(phi, si, ai, a2i, ki))
        ds, da, da2 = update_vjp(phi, si, ai, a2i, ki, gi)
        put_s(out, S, i, ds)
        put_a(out, 2 * S, i, da)
        put_a2(out, 2 * S + P, i, da2)
        row = 2 * S + P + P2
        if two_stage:
            out[row, i] = inner(phi, si, ai, ki)
            ds, da = inner_vjp(phi, si, ai, ki, gi[0])
            put_s(out, row + 1, i, ds)
            put_a(out, row + 1 + S, i, da)
            row += 1 + S + P
        if not emits_state:
            out[row, i] = emit(phi, si, ki)
            put_s(out, row + 1, i, emit_vjp(phi, si, ki, gi[0]))

    return run


def check(compiled: Compiled) -> None:
    """Raise ``SystemExit`` if the code is not what was promised."""
    doubles = len(re.findall(r"\.f64", compiled.ptx))
    if compiled.dtype == np.float32 and doubles:
        raise SystemExit(f"{compiled.name}: {doubles} float64 instructions in float32 code")
    loose = sorted(set(re.findall(r"\S+\.(?:approx|ftz)\S*", compiled.ptx)))
    if loose:
        raise SystemExit(f"{compiled.name}, {compiled.dtype}: inexact instructions {', '.join(loose)}")
    if re.search(r"\b(?:atom|red)\.\S*f(?:32|64)", compiled.ptx):
        raise SystemExit(f"{compiled.name}, {compiled.dtype}: floats are added atomically")


def assemble(compiled: Compiled, cc: tuple[int, int]) -> str:
    """What ptxas says of registers and shared memory; raises on spills, stack or errors."""
    with tempfile.NamedTemporaryFile("w", suffix=".ptx") as file:
        file.write(compiled.ptx)
        file.flush()
        command = ["ptxas", f"-arch=sm_{cc[0]}{cc[1]}", "-v", "-o", os.devnull, file.name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    name = f"{compiled.name}, {compiled.dtype}, sm_{cc[0]}{cc[1]}"
    if done.returncode:
        raise SystemExit(f"ptxas on {name}: {done.stderr}")
    if any(int(n) for n in re.findall(r"(\d+) bytes (?:spill|stack)", done.stderr)):
        raise SystemExit(f"{name}: register spills or stack: {done.stderr}")
    registers, shared = re.search(r"Used (\d+) registers", done.stderr), re.search(r"(\d+) bytes smem", done.stderr)
    static = int(shared.group(1)) if shared else 0
    if static > _STATIC_SHARED:
        raise SystemExit(f"{name}: {static} bytes of static shared memory")
    return f"sm_{cc[0]}{cc[1]} {registers.group(1) if registers else '?'} registers, {static} B static shared"


def job(dtype: str, share: int, shares: int, only: str, capabilities: list[tuple[int, int]]) -> list[str]:
    """Compile and check every ``shares``-th kernel of a dtype; a line on each."""
    import numba.cuda.dispatcher as dispatcher

    # PTX of the lowest capability is assembled for all: it is what they have in common
    lowest = min(capabilities)
    # kernels that call device functions ask for the current device; only its capability is needed to compile
    device = type("Device", (), {"compute_capability": lowest})()
    dispatcher.get_current_device = lambda: device
    lines = []
    for i, (key, name, body) in enumerate(kernels(np.dtype(dtype))):
        if only not in name or i % shares != share:
            continue
        ptx, _ = cuda.compile(body, signature(ARGUMENTS[key], np.dtype(dtype)), device=False, abi="numba", cc=lowest)
        compiled = Compiled(name, np.dtype(dtype), ptx)
        check(compiled)
        # the formulae are assembled as parts of the kernels
        found = [assemble(compiled, cc) for cc in capabilities] if key != "unit" and shutil.which("ptxas") else []
        lines.append(f"{name:40s} {dtype}: {len(ptx.splitlines())} lines; {'; '.join(found)}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cc", nargs="+", default=["8.0", "9.0"], help="compute capabilities (default 8.0 9.0)")
    parser.add_argument("--only", default="", help="kernels whose name holds the word")
    options = parser.parse_args()
    capabilities = [tuple(int(part) for part in cc.split(".")) for cc in options.cc]
    start, shares = time.perf_counter(), max(1, (os.cpu_count() or 2) // 2)
    with ProcessPoolExecutor(2 * shares, mp_context=multiprocessing.get_context("spawn")) as pool:
        jobs = [
            pool.submit(job, dtype, share, shares, options.only, capabilities)
            for dtype in ("float64", "float32")
            for share in range(shares)
        ]
        lines = [line for done in jobs for line in done.result()]
    print("\n".join(sorted(lines)))
    assembled = "" if shutil.which("ptxas") else " (no ptxas on the PATH: not assembled)"
    where = " and ".join(f"sm_{cc.replace('.', '')}" for cc in options.cc)
    print(f"{len(lines)} kernels compile for {where}{assembled}; float32 code is pure; ", end="")
    print(f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    sys.exit(main())
