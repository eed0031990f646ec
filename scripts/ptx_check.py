"""Compile every cell's units for a CUDA GPU, without one, and look at what comes out.

    pip install -e '.[cuda]' && python scripts/ptx_check.py [--cc 9.0]

For each cell, activation and dtype a small kernel calls the units that the CPU kernels call. Checked: it compiles, the
float32 code holds no float64 instruction, nothing is approximate or flushes subnormals, and (where ``ptxas`` is on the
PATH) it assembles without register spills.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile

import numpy as np

if not hasattr(np, "row_stack"):  # numba-cuda still asks for the name that NumPy 2.5 dropped
    np.row_stack = np.vstack

from numba import cuda, types

from rnngrad._math import ACTIVATIONS
from rnngrad.cells import CELLS, VARIANTS, Cell
from rnngrad.kernels.tuples import PUT, TAKE


def make_kernel(cell: Cell, phi: int):
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


def assemble(ptx: str, cc: tuple[int, int]) -> str:
    """What ptxas says of registers; raises on spills or errors. Empty without ptxas."""
    if shutil.which("ptxas") is None:
        return ""
    with tempfile.NamedTemporaryFile("w", suffix=".ptx") as file:
        file.write(ptx)
        file.flush()
        command = ["ptxas", f"-arch=sm_{cc[0]}{cc[1]}", "-v", "-o", os.devnull, file.name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"ptxas: {done.stderr}")
    spills = [int(n) for n in re.findall(r"(\d+) bytes spill", done.stderr)]
    if any(spills):
        raise SystemExit(f"ptxas reports register spills: {done.stderr}")
    registers = re.search(r"Used (\d+) registers", done.stderr)
    return f"{registers.group(1)} registers" if registers else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cc", default="9.0", help="compute capability (default 9.0)")
    cc = tuple(int(part) for part in parser.parse_args().cc.split("."))
    import numba.cuda.dispatcher as dispatcher

    # kernels that call device functions ask for the current device; only its capability is needed to compile
    device = type("Device", (), {"compute_capability": cc})()
    dispatcher.get_current_device = lambda: device
    count = 0
    for name, cell in (CELLS | VARIANTS).items():
        for activation in cell.activations:
            for dtype in (types.float64, types.float32):
                matrix = dtype[:, ::1]
                signature = types.void(*[matrix] * 6)
                kernel = make_kernel(cell, ACTIVATIONS[activation])
                ptx, _ = cuda.compile(kernel, signature, device=False, abi="numba", cc=cc)
                doubles = len(re.findall(r"\.f64", ptx))
                if dtype == types.float32 and doubles:
                    raise SystemExit(f"{name}, {activation}: {doubles} float64 instructions in float32 code")
                loose = sorted(set(re.findall(r"\S+\.(?:approx|ftz)\S*", ptx)))
                if loose:
                    raise SystemExit(f"{name}, {activation}, {dtype}: inexact instructions {', '.join(loose)}")
                registers = assemble(ptx, cc)
                count += 1
                print(f"{name:18s} {activation:9s} {dtype}: {len(ptx.splitlines())} lines {registers}", flush=True)
    print(f"{count} kernels compile for sm_{cc[0]}{cc[1]}; float32 code is pure")


if __name__ == "__main__":
    sys.exit(main())
