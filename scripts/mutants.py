"""Plant faults in the package, one at a time, and check that the tests notice.

    python scripts/mutants.py                 every mutant
    python scripts/mutants.py --only lstm     those whose name holds the word
    python scripts/mutants.py --tests lyapunov,chain   with the test files whose name holds one of the words
    python scripts/mutants.py --json out.json results as data

Each mutant is a copy of the package in which one piece of text was replaced. The tests run on it interpreted
(NUMBA_DISABLE_JIT=1): the same kernels and units, without minutes of compiling. A mutant is killed when tests fail;
survivors are listed, and the exit status is 1 if fewer than 95 % were killed.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TESTS = [  # the quick ones first: most mutants die there
    "tests/test_cells.py",
    "tests/test_losses.py",
    "tests/test_bounds.py",
    "tests/test_mean_field.py",
    "tests/test_numerical_range.py",
    "tests/test_random_networks.py",
    "tests/test_system.py",
    "tests/test_rollout.py",
    "tests/test_gradients_agree.py",
    "tests/test_jacobian.py",
    "tests/test_lyapunov.py",
    "tests/test_covariant.py",
    "tests/test_chain_singular_values.py",
    "tests/test_heat_map.py",
    "tests/test_bptt.py",
    "tests/test_curvature.py",
    "tests/test_hessian.py",
    "tests/test_spectra.py",
    "tests/test_bad_input.py",
    "tests/test_properties.py",
    "tests/test_stack.py",
    "tests/test_feedback.py",
    "tests/test_dropout.py",
    "tests/test_encoder_decoder.py",
    "tests/test_teacher_forcing.py",
    "tests/test_batchnorm.py",
    "tests/test_interop_stacks.py",
    "tests/test_truncation_bias.py",
    "tests/test_memory_horizon.py",
    "tests/test_verdict.py",
    "tests/test_backends.py",
    "tests/test_cuda_simulator.py",
    "tests/test_cuda_device_gradients.py",
    "tests/test_cuda_fixed_point.py",
    "tests/test_cuda_system.py",
    "tests/test_newton_directions.py",
    "tests/test_fixed_point_solve.py",
    "tests/test_fixed_point_adjoint.py",
    "tests/test_fixed_point_find.py",
    "tests/test_fixed_point_curves.py",
    "tests/test_settling.py",
    "tests/test_report_fixed_points.py",
]

#: (name, file in rnngrad/, text, replacement); the text must occur in the file, and its first occurrence is replaced.
MUTANTS = [
    # cells: values
    ("lstm: input and forget gate swapped", "cells/lstm.py", "logistic(a[1]) * s[1] + logistic(a[0])", "logistic(a[0]) * s[1] + logistic(a[1])"),
    ("lstm: output gate dropped", "cells/lstm.py", "return logistic(a[3]) * activate(phi, scale * c + shift), c", "return activate(phi, scale * c + shift), c"),
    ("gru: copy and update swapped", "cells/gru.py", "return (u * s[0] + w * (m", "return (w * s[0] + u * (m"),
    ("gru: reset before instead of after", "cells/gru.py", "activate(phi, r * a[2] + a[3])),)", "activate(phi, r * (a[2] + a[3]))),)"),
    ("gru_reset_before: reset gate ignored", "cells/gru_reset_before.py", "return logistic(a[0]) * s[0]", "return s[0] + 0 * a[0]"),
    ("gru_delayed: u and r swapped in the state", "cells/gru_delayed.py", "return inner(phi, s, a, k), logistic(a2[0]), logistic(a2[1])", "return inner(phi, s, a, k), logistic(a2[1]), logistic(a2[0])"),
    ("gated_unit: copies where it should update", "cells/gated_unit.py", "return s[1] * s[0] + (T(1.0) - s[1]) * activate", "return (T(1.0) - s[1]) * s[0] + s[1] * activate"),
    ("mgu: keep and write swapped", "cells/mgu.py", "return (keep * s[0] + f * activate", "return (f * s[0] + keep * activate"),
    ("mrnn: factors added", "cells/mrnn.py", "return a[0] * a[1]", "return a[0] + a[1]"),
    ("continuous: leak dropped", "cells/continuous.py", "return ((T(1.0) - k[0]) * s[0] + k[0] * a[0],)", "return (k[0] * a[0],)"),
    ("vanilla_s: activation not applied before W", "cells/vanilla_s.py", "return activate(phi, s[0])", "return s[0]"),
    # cells: derivatives
    ("vanilla: slope dropped", "cells/vanilla.py", "(g[0] * phi_slope(phi, a[0])[1],)", "(g[0],)"),
    ("lstm: c's own path to h dropped", "cells/lstm.py", "gc = g[1] + g[0] * o * dr * scale", "gc = g[1]"),
    ("lstm: forget gate's derivative uses v", "cells/lstm.py", "gc * s[1] * df", "gc * v * df"),
    ("lstm: wrong sign on the output gate", "cells/lstm.py", "g[0] * r * do", "-g[0] * r * do"),
    ("gru: update gate's derivative has the wrong sign", "cells/gru.py", "g[0] * (s[0] - m * v) * du", "g[0] * (m * v - s[0]) * du"),
    ("gru: recurrent part of the candidate loses r", "cells/gru.py", "gv * r, gv)", "gv, gv)"),
    ("gru_reset_before: dq/dh loses r", "cells/gru_reset_before.py", "return (g * r,), ", "return (g,), "),
    ("gru_delayed: emit's partials swapped", "cells/gru_delayed.py", "return g * s[2], T(0.0), g * s[0]", "return g * s[0], T(0.0), g * s[2]"),
    ("gated_unit: gate's partial dropped", "cells/gated_unit.py", "return (g * s[1], g * (s[0] - v))", "return (g * s[1], T(0.0))"),
    ("mgu: forget factor in ds dropped", "cells/mgu.py", "return (g[0] * keep,)", "return (g[0],)"),
    ("mrnn: factor partials swapped", "cells/mrnn.py", "(g * a[1], g * a[0])", "(g * a[0], g * a[1])"),
    ("continuous: alpha dropped from da", "cells/continuous.py", "(k[0] * g[0],), ()", "(g[0],), ()"),
    ("lstm: declared zero that is none", "cells/lstm.py", "UPDATE_BY_GATE = ((1, 1, 1, 1)", "UPDATE_BY_GATE = ((1, 1, 1, 0)"),
    # activations
    ("relu: slope 1 below zero", "_math.py", "else (T(0.0), T(0.0))", "else (T(0.0), T(1.0))"),
    ("softplus: slope of tanh", "_math.py", "return softplus(x), logistic(x)", "return softplus(x), tanh(x)"),
    ("logistic: tails swapped", "_math.py", "s = small if x < T(0.0) else large", "s = large if x < T(0.0) else small"),
    ("tanh: slope of the logistic", "_math.py", "T(4.0) * e * r * r", "e * r * r"),
    # kernels
    ("rollout: padding keeps running", "kernels/cpu/rollout.py", "if t >= lengths[b]:", "if t > lengths[b]:"),
    ("rollout: W not transposed", "kernels/cpu/rollout.py", "pack(W, transposed=True), pack(W2", "pack(W.swapaxes(1, 2).copy(), transposed=True), pack(W2"),
    ("rollout: second product skipped", "kernels/cpu/rollout.py", "if two_stage:\n            inner_rows", "if False:\n            inner_rows"),
    ("backprop: W transposed", "kernels/cpu/backprop.py", "pack(W), pack(W2)", "pack(W.swapaxes(1, 2).copy()), pack(W2)"),
    ("backprop: output adjoint one step late", "kernels/cpu/backprop.py", "gh[t, b0:b1]", "gh[max(t - 1, 0), b0:b1]"),
    ("backprop: the state's own path dropped", "kernels/cpu/backprop.py", "copy_rows(g_new[b], row, 0)", "copy_rows(g_new[b], 0 * row, 0)"),
    ("backprop: dq does not reach the first gates", "kernels/cpu/backprop.py", "da[b, r, i] += d[r]", "da[b, r, i] += 0 * d[r]"),
    ("backprop: wrong state kept for the derivative", "kernels/cpu/backprop.py", "s, g_new = states[t, b0:b1]", "s, g_new = states[t + 1, b0:b1]"),
    ("factors: padded step is zero", "kernels/cpu/jacobian.py", "update_s[b, r, r] = one", "update_s[b, r, r] = zero"),
    ("dense: transposed", "kernels/cpu/jacobian.py", "row[j] += factor * W[g, i, j] * es[c, j]", "row[j] += factor * W[g, j, i] * es[c, j]"),
    ("dense: second stage dropped", "kernels/cpu/jacobian.py", "row[j] += factor * product", "row[j] += 0 * product"),
    ("chain: one step too far", "kernels/cpu/chain.py", "own, t_from + d if forward else t_from - 1 - d)", "own, t_from + d if forward else max(t_from - 2 - d, 0))"),
    ("chain: inner partial of the gates dropped", "kernels/cpu/steps.py", "_spread(z, dq, inner_a[t], in_a, sample)", "_spread(z, dq, inner_a[t], 0 * in_a, sample)"),
    ("chain: sample of the first row for all", "kernels/cpu/rowwise.py", "first = sample[r] *", "first = sample[0] *"),
    ("chain: a run of rows goes on into the next sample", "kernels/cpu/rowwise.py", "and sample[end] == sample[r]", "and True"),
    ("chain: partials read across", "kernels/cpu/rowwise.py", "(c, k) if transposed else (k, c)", "(k, c) if transposed else (c, k)"),
    ("chain: what stands in the rows stays", "kernels/cpu/rowwise.py", "fresh = not more", "fresh = False"),
    ("chain: exponent forgotten", "kernels/cpu/chain.py", "exponents[place, r] = counts[r - r0]", "exponents[place, r] = 0"),
    ("tangent: J of the step before", "kernels/cpu/chain.py", "own, t_from + d if forward else", "own, max(t_from + d - 1, 0) if forward else"),
    ("tangent: own state path dropped", "kernels/cpu/steps.py", "through(new, v, update_s[t], by_s, sample, True, False)", "new[:] = 0"),
    ("outer: last piece of rows lost", "kernels/cpu/products.py", "end = min(R, r0 + chunk)", "end = min(R - 1, r0 + chunk)"),
    ("affine: bias dropped", "kernels/cpu/products.py", "out[r, first + c] = bias[c]", "out[r, first + c] = 0"),
    ("input_adjoint: overwritten by the last run", "kernels/cpu/products.py", "if not more:\n            for r", "if True:\n            for r"),
    ("outer: blocks of columns all at the first", "kernels/cpu/products.py", "out = parts[piece, c0:]", "out = parts[piece, 0:]"),
    ("rescale: exponent not kept", "kernels/cpu/scaling.py", "exponents[r] += exponent", "pass"),
    ("rescale: small rows overlooked", "kernels/cpu/scaling.py", "if least - bias >= -w and greatest - bias <= w:\n            return True\n    least", "if greatest - bias <= w:\n            return True\n    least"),
    ("fold: wrong direction", "kernels/cpu/scaling.py", "_multiply(flat, r * n, n, exponent[r])", "_multiply(flat, r * n, n, -exponent[r])"),
    ("fold: overflow not seen", "kernels/cpu/scaling.py", "overflow[r // ROWS] = 1", "pass"),
    ("column_sums: first row lost", "kernels/cpu/products.py", "for r in range(piece * chunk, min", "for r in range(piece * chunk + 1, min"),
    ("dense_chain: transposed", "kernels/cpu/system.py", "J[i, k] if transposed else J[k, i]", "J[k, i] if transposed else J[i, k]"),
    ("lstm dropout: mask ignored in the derivative", "cells/lstm.py", "gc * i * (m * dv)", "gc * i * dv"),
    ("gru dropout: mask on the copied state", "cells/gru.py", "return (u * s[0] + w * (m *", "return (m * u * s[0] + w * (m *"),
    ("gru_reset_before dropout: mask ignored in du", "cells/gru_reset_before.py", "(s[0] - m * v) * du", "(s[0] - v) * du"),
    ("dropout: masks of one layer in all", "dropout.py", "stream + i)", "0)"),
    ("dropout: same mask at every step", "dropout.py", 'T if self.policy == "step" else 1', "1"),
    ("curvature: slope of tanh has no slope", "_dual.py", "complex(slope, -2.0 * t * slope * z.imag)", "complex(slope, 0.0)"),
    ("curvature: slope of the logistic with the wrong sign", "_dual.py", "(co - s) * change", "(s - co) * change"),
    ("curvature: a called unit is not twinned", "_dual.py", "return _DUALS[value] if value in _DUALS else dual(value)", "return _DUALS.get(value, value)"),
    ("curvature: padded steps charge", "kernels/cpu/curvature.py", "if t >= lengths[b]:", "if t > lengths[b]:"),
    ("curvature: adjoint of the step before", "kernels/cpu/curvature.py", "_lift(g_row, gs[t + 1, b], still)", "_lift(g_row, gs[t, b], still)"),
    ("curvature: sample of the first direction for all", "kernels/cpu/curvature.py", "b = r % B", "b = min(r, B - 1)"),
    ("curvature: second stage dropped", "kernels/cpu/curvature.py", "                    _add(ds[t, r], out, 0)\n                    _add(da[t, r], out, S)\n", "                    pass\n"),
    ("curvature: charges to the first product lost", "kernels/cpu/steps.py", "through(z, y, update_a[t], by_a, sample, False, driven)", "through(z, y, update_a[t], by_a, sample, False, False)"),
    ("curvature: charges to the states lost", "kernels/cpu/steps.py", "through(new, y, update_s[t], by_s, sample, False, driven)", "through(new, y, update_s[t], by_s, sample, False, False)"),
    ("curvature: direction's own weights not in the adjoint", "gradients/second_order.py", "add_to_first_states(ds[:-1], de)", "pass"),
    ("curvature: moved state not in the outer product", "gradients/second_order.py", "add(out[name], more)", "pass"),
    ("curvature: change of the readout does not reach h", "gradients/curvature.py", 'add_to_direction(gh, k, K, output_adjoint(traj, self.value.dy, contiguous(directions["V"][k])))', "pass"),
    ("curvature: backward layers in the order of x", "gradients/curvature.py", "given = None if dx is None else self._reversed(dx, backward)", "given = dx"),
    ("loss: second derivative of the softmax without its outer product", "loss_terms.py", "total * p * (u - mean)", "total * p * u"),
    ("loss: weights not in the second derivative", "kernels/cpu/loss.py", "found[i] = w * bend(", "found[i] = T(scale) * bend("),
    ("hessian: Lanczos vectors orthogonal to the last two only", "analysis/hessian.py", "for _ in range(2):  #", "for _ in range(0):  #"),
    ("hessian: weights are the components, not their squares", "analysis/hessian.py", "vectors[0] ** 2", "abs(vectors[0])"),
    ("hessian: the end of a Krylov space is not seen", "analysis/hessian.py", "live = j + 1, live & ~ended", "live = counts[ended], live"),
    ("hessian: error of one probe, not of the mean", "analysis/hessian.py", "by_probe.std(axis=0, ddof=1) / np.sqrt(len(by_probe))", "by_probe.std(axis=0, ddof=1)"),
    ("hessian: largest instead of largest in magnitude", "analysis/hessian.py", 'which="LM"', 'which="LA"'),
    ("hessian: Gauss-Newton asked for, Hessian taken", "analysis/hessian.py", 'second = matrix == "hessian"', "second = True"),
    ("spectra: lost eigenvalues are kept", "analysis/product_spectrum.py", "lost = np.abs(values) <= uncertainty", "lost = np.abs(values) < 0"),
    ("spectra: power of two forgotten", "analysis/product_spectrum.py", "np.log(np.abs(eigenvalues)) + scale[:, None]", "np.log(np.abs(eigenvalues))"),
    ("spectra: first sample for all", "analysis/product_spectrum.py", "np.full(N, sample), time", "np.full(N, 0), time"),
    ("spectra: size of the last factor alone", "analysis/product_spectrum.py", "total += _log_frobenius", "total = _log_frobenius"),
    ("spectra: no root of a product's moduli", "analysis/circular_law.py", "np.exp((logs - log_radius[:, None]) / order[:, None])", "np.exp(logs - log_radius[:, None])"),
    ("spectra: lost eigenvalues are not counted", "analysis/circular_law.py", 'side="right") + lost', 'side="right")'),
    # stacks
    ("stack: a layer reads the step before", "dynamics/stack.py", "reverse(h, lengths) if backward else np.ascontiguousarray(h)", "reverse(h, lengths) if backward else np.roll(h, 1, axis=0)"),
    ("stack: backward ignores lengths", "dynamics/stack.py", "np.where(t < lengths, lengths - 1 - t, t)", "T - 1 - t + 0 * lengths"),
    ("stack: backward output not put back in order", "dynamics/stack.py", "reverse(traj.h, lengths) if backward else traj.h", "traj.h"),
    ("stack: directions swapped on the way up", "dynamics/stack.py", "np.concatenate(outputs, axis=-1)", "np.concatenate(outputs[::-1], axis=-1)"),
    ("stack: nothing passes down within a step", "dynamics/stack.py", "g = g + self.outputs[layer][t, sample] * carried[:, None]", "pass"),
    ("stack: adjoint of the step before", "dynamics/stack.py", "carried = part.to_inputs(g, (t, sample)) if layer", "carried = part.to_inputs(g, (max(t - 1, 0), sample)) if layer"),
    ("stack: second stage of inputs dropped", "dynamics/jacobian.py", "kernels.input_adjoint(dx, da2, net.U2", "0 and kernels.input_adjoint(dx, da2, net.U2"),
    ("stack: a system's inputs transposed in samples", "dynamics/system.py", '"ri,rim->rm", g[:, 0], self.inputs[at]', '"ri,rim->rm", g[:, 0], self.inputs[at][::-1]'),
    ("stack: a system passes no tangent of its inputs on", "dynamics/system.py", "return (moved + np.einsum", "return (moved + 0 * np.einsum"),
    ("stack: exponents of a layer lost", "dynamics/stack.py", "    exponent += top\n", "    exponent += 0\n"),
    ("stack: exponents of layers not made common", "dynamics/stack.py", "np.clip(shift - top, -4000, 0)", "np.clip(0 * shift, -4000, 0)"),
    ("stack: tangent ignores the layer below", "dynamics/stack.py", "dx = np.sum(self.outputs[layer][t, sample] * result, axis=1)", "dx = 0 * np.sum(self.outputs[layer][t, sample] * result, axis=1)"),
    ("stack: backward adjoints not put in order", "gradients/bptt.py", "reverse(own, traj.lengths) if backward else own", "own"),
    ("stack: second direction's share of x dropped", "gradients/bptt.py", "sum(received[1:], received[0])", "received[0]"),
    ("stack: explicit part stops at the top layer", "gradients/stack.py", "g = g + jacobians.outputs[layer] * gx[:, :, None]", "pass"),
    ("stack: loss enters the lowest layer", "gradients/stack.py", 'traj.net.blocks[f"l{len(traj.layers) - 1}"]] = top', 'traj.net.blocks["l0"]] = top'),
    ("stack: output fed back from the first step on", "dynamics/stack.py", "np.zeros_like(slopes[-1][:1]), slopes[-1][:-1]", "slopes[-1][:1], slopes[-1][:-1]"),
    ("stack: masks of the first step all the way", "dynamics/stack.py", "v[t : t + 1] if v.ndim == 3", "v[:1] if v.ndim == 3"),
    ("stack: an ended sequence is still fed back", "dynamics/stack.py", "np.where((t + 1 < lengths)[:, None], step.y[0], 0)", "step.y[0]"),
    ("stack: feedback of the same step", "dynamics/stack.py", "np.concatenate([np.zeros_like(slopes[-1][:1]), slopes[-1][:-1]])", "slopes[-1]"),
    ("stack: fed-back adjoint lost", "dynamics/stack.py", "return (self.before[at] * dh[:, None])", "return (0 * self.before[at] * dh[:, None])"),
    ("stack: tangent of the fed-back output lost", "dynamics/stack.py", "dh if self.net.V is None else dh @ self.net.V.T", "0 * (dh if self.net.V is None else dh @ self.net.V.T)"),
    ("stack: V not charged with what is fed back", "gradients/stack.py", "dy[:-1] += x[1:, :, traj.net.m :]", "dy[:-1] += 0"),
    ("stack: own output fed back a step late", "dynamics/stack.py", "fed[t + 1] = np.where", "fed[t] = np.where"),
    ("encoder_decoder: bridge transposed", "encoder_decoder.py", "flat @ self.M).reshape", "flat @ self.M.T).reshape"),
    ("encoder_decoder: first state handed over", "dynamics/encoder_decoder.py", "return traj.states[-1]", "return traj.states[0]"),
    ("encoder_decoder: gradient does not cross", "gradients/bptt.py", "assign(gs[traj.T], 0 if last is None else last)", "assign(gs[traj.T], 0)"),
    ("encoder_decoder: directions swapped at the bridge", "gradients/bptt.py", "                at += layer.net.N\n", "                at += 0\n"),
    ("encoder_decoder: chain skips the bridge", "dynamics/encoder_decoder.py", "dec = self.decoder._last(t, 0)", "dec = self.decoder._last(max(t, 1), 1)"),
    ("encoder_decoder: flow forgets the decoder's exponents", "gradients/encoder_decoder.py", "exponent = at_start.exponent + shift", "exponent = at_start.exponent + shift + 1"),
    ("encoder_decoder: bias of the bridge dropped", "encoder_decoder.py", "flat @ self.M.T + self.d", "flat @ self.M.T"),
    ("batchnorm: mean of the adjoint kept", "normalization.py", "return (g - mean_g - hat * mean_g_hat) / std", "return (g - hat * mean_g_hat) / std"),
    ("batchnorm: statistics held fixed in training", "dynamics/batchnorm.py", "if coupled else (0, 0)", "if False else (0, 0)"),
    ("batchnorm: cell's statistics held fixed", "dynamics/batchnorm.py", "+ by_norm - scale * dz", "+ 0 * by_norm"),
    ("batchnorm: eps dropped", "dynamics/batchnorm.py", "std[at] = np.sqrt(var + net.eps)", "std[at] = np.sqrt(var)"),
    ("batchnorm: beta_c's gradient through the products", "gradients/batchnorm.py", "beta_c=kernels.column_sums(dz", "beta_c=2 * kernels.column_sums(dz"),
    ("batchnorm: running variance stays biased", "dynamics/batchnorm.py", "unbiased = B / (B - 1) if B > 1 else 1.0", "unbiased = 1.0"),
    ("batchnorm: mean not folded into b", "batchnorm.py", "- by_x * s.x_mean[at]", ""),
    ("batchnorm: cell's mean not folded into the shift", "batchnorm.py", "self.beta_c - scale * s.c_mean[at]", "self.beta_c"),
    ("batchnorm: sample by sample, transposed", "dynamics/batchnorm.py", '"tbibj->tbij"', '"tbibj->tbji"'),
    ("layers: bias of the backward direction from the forward one", "interop/layout.py", '{part: f"{part}_l{layer}{reverse}" for part in PARTS}', '{part: f"{part}_l{layer}" + (reverse if "bias" not in part else "") for part in PARTS}'),
    # gradients and losses
    ("loss: mask ignored in the derivative", "kernels/cpu/loss.py", "out[i] = w * slope", "out[i] = slope"),
    ("loss: squared error without 1/2", "loss_terms.py", "square_bend, scale=0.5)", "square_bend, scale=1.0)"),
    ("truncated: window one too long", "gradients/truncated.py", "for d in range(done, min(window, T)):", "for d in range(done, min(window + 1, T)):"),
    ("truncated: segment loses its last loss", "gradients/truncated.py", "np.flatnonzero(at > starts)", "np.flatnonzero(at > starts + 1)"),
    ("truncated: a walk that goes on repeats a step", "gradients/truncated.py", "done = max(done, min(window, T))", "done = max(done, min(window, T) - 1)"),
    ("truncated: what arrives at s_0 is lost", "gradients/truncated.py", "add_rows(G, np.zeros(1, np.int64), y[:1])", "pass"),
    ("truncation: bias relative to the truncated gradient", "analysis/truncation.py", "(gap[0] / full[0]) * (gap[1] / full[1])", "(gap[0] / own[0]) * (gap[1] / own[1])"),
    ("truncation: smallest window that is good, not from which on", "analysis/truncation.py", "            break\n        smallest = window", "            continue\n        smallest = window"),
    ("truncation: the search stops one short", "analysis/truncation.py", "range(int(failing[-1]) + 1,", "range(int(failing[-1]) + 2,"),
    ("truncation: cosine without the norm of the whole", "analysis/truncation.py", "inner / (own[1] * full[1])", "inner / own[1]"),
    ("truncation: readout counted although left out", "analysis/truncation.py", "own[\"\"], gap[\"\"] = _together(own, self.chosen), _together(gap, self.chosen)", "own[\"\"], gap[\"\"] = _together(own, list(own)), _together(gap, list(gap))"),
    ("memory: spread over time is that of the batch", "analysis/memory.py", "medians([part.T for part in rows])", "medians(rows)"),
    ("memory: horizon one lag early", "analysis/memory.py", "np.where(censored, available, last + 1.0)", "np.where(censored, available, last + 0.0)"),
    ("memory: censored values count as ends", "analysis/memory.py", "_survival_quantiles(v[k], ~c[k], (0.5,))", "_survival_quantiles(v[k], c[k] | ~c[k], (0.5,))"),
    ("memory: fit over all lags, transient included", "analysis/time_constants.py", "(2 * lags >= last)", "(2 * lags >= 0)"),
    ("memory: padded steps count as perfect memory", "analysis/time_constants.py", "[:, None] < traj.lengths", "[:, None] < traj.T + 0 * traj.lengths"),
    ("memory: mean gate instead of mean logarithm", "analysis/time_constants.py", "np.log(np.abs(partials[:, :, s, s][counted].astype(np.float64))).mean(axis=0)", "np.log(np.abs(partials[:, :, s, s][counted].astype(np.float64)).mean(axis=0))"),
    ("memory: slopes of lines that end early", "analysis/time_constants.py", "np.isfinite(lines).all(axis=1)", "np.isfinite(lines).any(axis=1)"),
    ("verdict: median decides on explosions", "analysis/verdict.py", "label = label_of(median[at], rare[: at + 1])", "label = label_of(median[at], median[: at + 1])"),
    ("verdict: explosion beyond the wanted lag counts", "analysis/verdict.py", "label_of(median[at], rare[: at + 1])", "label_of(median[at], rare)"),
    ("verdict: clips at the whole norm", "analysis/verdict.py", "truncated_bptt(traj, loss, window=window).norm()", "full"),
    ("verdict: mean of the norms given", "analysis/verdict.py", "middle = np.median(norms)", "middle = np.mean(norms)"),
    ("verdict: readout dilutes the window's bias", "analysis/verdict.py", 'name not in ("V", "c") or', "name or"),
    ("verdict: shift from the longest unit", "analysis/remedies.py", 'logit(d["leak_needed"]) - logit(d["leak_median"])', 'logit(d["leak_needed"]) - logit(d["leak_longest"]) - 1'),
    ("verdict: chrono bias of the whole lag doubled", "analysis/remedies.py", 'd["chrono_range"] = d["wanted"] - 1', 'd["chrono_range"] = 2 * d["wanted"]'),
    ("verdict: minimal gated unit told to raise", "analysis/remedies.py", '"mgu": Leak("one minus the gate", "the gate", -1)', '"mgu": Leak("one minus the gate", "the gate", 1)'),
    ("verdict: time constant off by dt", "analysis/remedies.py", 'net.dt / (1 - d["leak_needed"])', '1 / (1 - d["leak_needed"])'),
    ("ranges: start one lag late", "analysis/lag_ranges.py", "first, end = end + 1, 10 * end", "first, end = end + 2, 10 * end"),
    ("ranges: vanishing since it first fell", "analysis/lag_ranges.py", "kept[-1] + 1 if kept.size else 0", "kept[0] * 0"),
    ("ranges: rate from the first lag", "analysis/lag_ranges.py", "before, last = inside[0] - 1, inside[-1]", "before, last = 0, inside[-1]"),
    ("flow: rows of later steps lost", "gradients/flow.py", "np.count_nonzero(live + 1 >= k)", "np.count_nonzero(live + 1 > k)"),
    ("rtrl: gradient one step early", "gradients/rtrl.py", "charge_columns(total, direct[t]", "charge_columns(total, direct[t - 1]"),
    ("explicit: inner part dropped", "dynamics/jacobian.py", "kernels.through_diagonals(*by_q, more=True)", "pass"),
    ("gradients: W and its transpose", "gradients/assemble.py", "reshape(recurrent, n, n),", "reshape(recurrent, n, n).swapaxes(1, 2),"),
    # bounds
    ("bounds: blocks multiplied in the wrong order", "analysis/step_bounds.py", "new = product[r:] @ blocks[times[r:] - lag]", "new = blocks[times[r:] - lag] @ product[r:]"),
    ("bounds: blocks of the step after", "analysis/step_bounds.py", "blocks[times[r:] - lag]", "blocks[np.minimum(times[r:] - lag + 1, len(blocks) - 1)]"),
    ("bounds: only the first gate counted", "analysis/step_bounds.py", "sigma_max(one) for one in W]", "sigma_max(W[0]) for one in W]"),
    ("bounds: gates not added", "analysis/step_bounds.py", "    return np.minimum(by_gate, pointwise_norm(partial[..., None, :, :]) * sigma_max(W))", "    return np.minimum(by_gate, np.abs(partial).max(axis=(-2, -1)) * sigma_max(W))"),
    ("bounds: inner partial of the states dropped", "analysis/step_bounds.py", "p = _largest(factors.inner_s) + ", "p = 0 * _largest(factors.inner_s) + "),
    ("bounds: largest blocks of the first step", "analysis/step_bounds.py", "largest = np.max(np.where(ended[..., None, None], 0, blocks), axis=0)", "largest = blocks[0]"),
    ("bounds: exponent of block products lost", "analysis/step_bounds.py", "exponent[r:] += shift", "exponent[r:] += 0 * shift"),
    ("bounds: squares underflow", "analysis/step_bounds.py", "np.abs(p).max(axis=(-3, -2, -1), initial=0)", "1 + 0 * np.abs(p).max(axis=(-3, -2, -1), initial=0)"),
    ("bounds: padded steps count", "analysis/bounds.py", "np.minimum(np.arange(T + 1), lengths[:, None])", "np.minimum(np.arange(T + 1), T + 0 * lengths[:, None])"),
    ("bounds: tightness of a loose bound", "analysis/bounds.py", "np.fmin(np.fmin(self.log_product, self.log_upper), self.log_block)", "self.log_upper"),
    ("numerical_range: only the Hermitian part of A itself", "analysis/numerical_range.py", "turned = np.exp(-1j * theta) * A", "turned = np.exp(0j * theta) * A"),
    ("numerical_range: corner at the left line", "analysis/numerical_range.py", "return float(np.hypot(along, across))", "return float(along)"),
    ("numerical_range: half of the angles dropped", "analysis/numerical_range.py", "(middle, right, height, at_right))", ")"),
    ("random_networks: biases left out", "analysis/random_networks.py", "np.sqrt(prediction.bias_variance) * rng", "0 * rng"),
    ("random_networks: the transient counted in q", "analysis/random_networks.py", ".a[transient:]", ".a"),
    ("random_networks: one network for all seeds", "analysis/random_networks.py", "rng = np.random.default_rng(seed)", "rng = np.random.default_rng(seeds[0])"),
    # Lyapunov exponents and singular values of long chains
    ("lyapunov: Jacobian transposed in the dense step", "kernels/cpu/steps.py", "\"dense\": (_dense(True)", "\"dense\": (_dense(False)"),
    ("heat map: Jacobian transposed in the dense step", "kernels/cpu/steps.py", "\"dense\": (_dense(False)", "\"dense\": (_dense(True)"),
    ("lyapunov: a state's path beside W overlooked", "kernels/cpu/steps.py", "and emits_state and not keeps", "and emits_state"),
    ("lyapunov: rows scaled by the next step", "kernels/cpu/steps.py", "_times_diagonal(new, new, system[0][t], sample)", "_times_diagonal(new, new, system[0][t - 1], sample)"),
    ("lyapunov: sample of the first frame for all", "kernels/cpu/frames.py", "np.full(k, b), interval[b]", "np.full(k, 0), interval[b]"),
    ("lyapunov: exponents of a block lost", "kernels/cpu/frames.py", "total[c] += exponents[c]", "total[c] += 0"),
    ("lyapunov: a stretch too far is accepted", "kernels/cpu/frames.py", "if stretch > limit and steps > 1:", "if False:"),
    ("lyapunov: the next block starts a step late", "kernels/cpu/frames.py", "t_from + block * length + done + d)", "t_from + block * length + done + max(d, 1) - (steps == 1))"),
    ("lyapunov: no number is not seen after a lost direction", "kernels/cpu/frames.py", "if stretch == NOT_FINITE:\n", "if stretch == NOT_FINITE and found[b, 0] < 0:\n"),
    ("lyapunov: factors composed in the wrong order", "kernels/cpu/orthonormalize.py", "total += again[j, i] * R[i, c]", "total += R[j, i] * again[i, c]"),
    ("lyapunov: no second pass", "kernels/cpu/orthonormalize.py", "if dependent or stretch > stretch_limits(Y.itemsize)[1]:", "if False:"),
    ("lyapunov: what panels take out is not kept", "kernels/cpu/orthonormalize.py", "R[j0 + c, j0 + w + r] = C[r, c]", "R[j0 + c, j0 + w + r] = 0"),
    ("lyapunov: blocks of vectors not orthogonal to each other", "kernels/cpu/orthonormalize.py", "C[r, c] = -C[r, c]", "C[r, c] = 0"),
    ("lyapunov: a column is not taken out of those after it", "kernels/cpu/orthonormalize.py", "taken[c] = -products[c] * square", "taken[c] = -products[c] * scale"),
    ("lyapunov: inner products before the columns change", "kernels/cpu/elimination.py", "            P[:rows] += np.outer(P[:rows, column], coefficients)\n            products[:] = P[:rows, following] @ P[:rows]", "            products[:] = P[:rows, following] @ P[:rows]\n            P[:rows] += np.outer(P[:rows, column], coefficients)"),
    ("lyapunov: a lost vector is not replaced", "kernels/cpu/orthonormalize.py", "        _fill(Y, work[3][0])\n", "        pass\n"),
    ("lyapunov: block lengths off by one", "analysis/exponents.py", "first = length + steps % length", "first = length + steps % length - (steps % length > 0)"),
    ("lyapunov: transient not discarded", "analysis/exponents.py", "if at + advance == transient:", "if at + advance == transient and False:"),
    ("lyapunov: dimension off by one", "analysis/exponents.py", "sums[j - 1] / -exponents[j]", "sums[j] / -exponents[j]"),
    ("lyapunov: exponents in the order of the frame", "analysis/exponents.py", "order = np.argsort(-logs.sum(axis=0), axis=-1", "order = np.argsort(0 * logs.sum(axis=0), axis=-1"),
    ("lyapunov: intervals know nothing of neighbours", "analysis/batch_means.py", "done = (correlation <= _CORRELATED) | (coarser < FEWEST)", "done = (correlation <= 2) | (coarser < FEWEST)"),
    ("lyapunov: variance by the high frequencies", "analysis/batch_means.py", "variance = p * gp + q * gq", "variance = q * gp + p * gq"),
    ("lyapunov: ends leak without a taper", "analysis/batch_means.py", "np.sin(np.pi * np.arange(1, M + 1) / (M + 1))[:, None]", "np.sqrt(0.5) * np.ones((M, 1))"),
    ("lyapunov: negative density not clipped", "analysis/batch_means.py", "np.where(p < 0, 0, np.where(q < 0, ca / aa, p))", "p"),
    ("covariant: R instead of its inverse", "analysis/covariant.py", "np.linalg.solve(R[i - 1].astype(np.float64), C)", "R[i - 1].astype(np.float64) @ C"),
    ("covariant: exponents of R forgotten", "analysis/covariant.py", "(top[:, None] - exponent[i - 1])[..., None]", "0 * (top[:, None] - exponent[i - 1])[..., None]"),
    ("covariant: frame of the step before", "analysis/covariant.py", '"bjc,bjn->bcn", C, Q[i])', '"bjc,bjn->bcn", C, Q[max(i - 1, 0)])'),
    ("chain_singular_values: the exponent of a zero row counts", "kernels/cpu/graded.py", "if live[j] and R[b, i, j] != 0:", "if R[b, i, j] != 0:"),
    ("chain_singular_values: R on the other side", "kernels/cpu/graded.py", "lowered(R[b, i, j], max", "lowered(R[b, j, i], max"),
    ("chain_singular_values: a random basis instead of the chain's", "dynamics/graded.py", "    carry(jacobians, Carried.start(frames), t - longest, 1, longest)\n", ""),
    ("chain_singular_values: exponent of a factor forgotten", "kernels/cpu/graded.py", "total[j] = shifts[b, j] + before[b, j]", "total[j] = before[b, j]"),
    ("chain_singular_values: a stretch too far is accepted", "dynamics/graded.py", "if most > _LIMIT and steps > 1:", "if False:"),
    ("chain_singular_values: rotation forgets the scale", "kernels/cpu/singular_values.py", "z = 2.0 ** -min(shift, 1000)", "z = 1.0"),
    ("chain_singular_values: one row of two is turned", "kernels/cpu/singular_values.py", "x[i] = c * u + s * z * z * v", "x[i] = c * u"),
    ("chain_singular_values: exponent not in the logarithm", "kernels/cpu/singular_values.py", "math.log(square) / 2 + e[i] * math.log(2.0)", "math.log(square) / 2 + e[0] * math.log(2.0)"),
    ("chain_singular_values: what cancellation leaves is kept", "kernels/cpu/singular_values.py", "e[i] - given[i] < floor or not", "not"),
    ("lyapunov: a regular Jacobian passes for singular", "dynamics/frames.py", "return bool(sigma[-1] <= 4 *", "return bool(True or sigma[-1] <= 4 *"),
    # mean field
    ("mean_field: bias variance left out of q", "analysis/mean_field.py", "1 - (g * g * _averages(activation, q)[0] + sigma2) / q", "1 - g * g * _averages(activation, q)[0] / q"),
    ("mean_field: exponent of the norm's square", "analysis/mean_field.py", "return 0.5 * float(np.log(chi))", "return float(np.log(chi))"),
    ("mean_field: edge at the variance without bias", "analysis/mean_field.py", "return (q - squared / slopes - sigma2) / q", "return (q - squared / slopes - 0.9 * sigma2) / q"),
    ("mean_field: bias left out of the correlation", "analysis/mean_field.py", "Polynomial(g * g * squares / q) + sigma2 / q", "Polynomial(g * g * squares / q)"),
    ("mean_field: correlation length from chi", "analysis/mean_field.py", "return c, _length(rate)", "return c, _length(1 / chi)"),
    ("mean_field: panels of the Gaussian alone", "analysis/gaussian.py", "cuts = np.concatenate([np.arange(0, _SIGMAS + 0.25, 0.5) * sigma, np.arange(_UNITS + 1)])", "cuts = np.arange(0, _SIGMAS + 0.25, 0.5) * sigma"),
    ("mean_field: series not normalised", "analysis/gaussian.py", "(z * this - np.sqrt(k - 1) * before) / np.sqrt(k)", "z * this - (k - 1) * before"),
    ("mean_field: kink seen from one side", "analysis/gaussian.py", "np.array([-_TINY, _TINY])", "np.array([_TINY, _TINY])"),
    ("mean_field: sweep with the wrong lags", "analysis/gain_sweep.py", "spaced(transient + lag, transient + 2 * lag, _REFERENCES)", "spaced(transient + lag + 1, transient + 2 * lag, _REFERENCES)"),
    # CUDA, in the simulator
    ("cuda_simulator: rollout: padding keeps running", "kernels/cuda/rollout.py", "if t < lengths[b]:", "if t <= lengths[b]:"),
    ("cuda_simulator: W not transposed", "kernels/cuda/pieces.py", "weights.transpose(2, 0, 1)", "weights.transpose(1, 0, 2)"),
    ("cuda_simulator: second weights read in the place of the first", "kernels/cuda/block.py", "(room, 0, room, size)", "(room, 0, room, 0)"),
    ("cuda_simulator: rollout: constants of the first step", "kernels/cuda/rollout.py", "tk = min(t, consts.shape[0] - 1)", "tk = 0"),
    ("cuda_simulator: rollout: what was emitted is not kept", "kernels/cuda/rollout.py", "                e[t, b, i] = value\n", "                pass\n"),
    ("cuda_simulator: rollout: lengths of the second half count from the start", "kernels/cuda/rollout.py", "lengths - half, late", "lengths, late"),
    ("cuda_simulator: rollout: a barrier left out", "kernels/cuda/rollout.py", "            cuda.syncthreads()\n            multiply(room, z, P2 * n", "            multiply(room, z, P2 * n"),
    ("cuda_simulator: backprop: output adjoint one step late", "kernels/cuda/backprop.py", "+= gh[t, b, i]", "+= gh[max(t - 1, 0), b, i]"),
    ("cuda_simulator: backprop: padding has an adjoint", "kernels/cuda/backprop.py", "if t < lengths[b]:\n                    ds, dg, dg2", "if t <= lengths[b]:\n                    ds, dg, dg2"),
    ("cuda_simulator: backprop: dq does not reach the first gates", "kernels/cuda/backprop.py", "da[t, b, p, i] += dg[p]", "da[t, b, p, i] += 0 * dg[p]"),
    ("cuda_simulator: backprop: first product without dq", "kernels/cuda/backprop.py", "                        for p in range(G):\n                            room[z", "                        for p in range(0):\n                            room[z"),
    ("cuda_simulator: factors: a padded step emits", "kernels/cuda/jacobian.py", "one if c == 0 and not padded else zero", "one if c == 0 else zero"),
    ("cuda_simulator: factors: pieces of steps forget where they begin", "kernels/cuda/jacobian.py", "padded = t0 + t >= lengths[b]", "padded = t >= lengths[b]"),
    ("cuda_simulator: dense: transposed", "kernels/cuda/jacobian.py", "W[(g * n + i) * n + j]", "W[(g * n + j) * n + i]"),
    ("cuda_simulator: dense: second stage dropped", "kernels/cuda/jacobian.py", "total += factor * W2K", "total += 0 * W2K"),
    ("cuda_simulator: chain: the same step again", "kernels/cuda/chain.py", "sample, t, system", "sample, 0, system"),
    ("cuda_simulator: chain: exponent forgotten", "kernels/cuda/chain.py", "= taken[item // n]", "= 0"),
    ("cuda_simulator: chain: inner partial of the gates dropped", "kernels/cuda/stages.py", "if in_a[p]:", "if False:"),
    ("cuda_simulator: chain: halves in time overlap", "kernels/cuda/chain.py", "half - 1 if forward else half", "half - 1 if forward else half - 1"),
    ("cuda_simulator: chain: charges to the states lost", "kernels/cuda/stages.py", "total = new[row, c, i] if driven else zero", "total = zero"),
    ("cuda_simulator: tangent: partials of the state transposed", "kernels/cuda/stages.py", "update_s[t, b, c, s, i] * v[row, s, i]", "update_s[t, b, s, c, i] * v[row, s, i]"),
    ("cuda_simulator: tangent: changes of the second product lost", "kernels/cuda/stages.py", "dz2[row, p, i] += room", "dz2[row, p, i] = room"),
    ("cuda_simulator: rescale: keys of two steps ago", "kernels/cuda/block.py", "        keys[other + r] = 0\n", "        pass\n"),
    ("cuda_simulator: rescale: exponents do not add up", "kernels/cuda/block.py", "exponents[r] += exponent", "exponents[r] = exponent"),
    ("cuda_simulator: exponent of a subnormal number", "kernels/cuda/block.py", "18446744073709551616.0))[0] - 64", "18446744073709551616.0))[0]"),
    ("cuda_simulator: placement: weights need no room", "kernels/cuda/block.py", "((WEIGHTS_SHARED, weights), (SHARED, 0))", "((SHARED, 0), (WEIGHTS_SHARED, weights))"),
    ("cuda_simulator: affine: bias dropped", "kernels/cuda/products.py", "value += bias[j]", "value += 0 * bias[j]"),
    ("cuda_simulator: outer: last row of a piece lost", "kernels/cuda/products.py", "min(depth, part * chunk + chunk)", "min(depth, part * chunk + chunk - 1)"),
    ("cuda_simulator: outer: the first piece alone", "kernels/cuda/products.py", "for p in range(1, count):", "for p in range(1, 1):"),
    ("cuda_simulator: pieces: only the first comes back", "kernels/cuda/pieces.py", "if operand.written and not operand.resident:", "if operand.written and not operand.resident and start == 0:"),
    ("cuda_simulator: qr: what panels take out is not kept", "kernels/cuda/orthonormalize.py", "= room[shared + item]", "= zero"),
    ("cuda_simulator: qr: no second pass", "kernels/cuda/orthonormalize.py", "if dependent or stretch > limit:", "if False:"),
    ("cuda_simulator: qr: a lost vector is not replaced", "kernels/cuda/orthonormalize.py", "            fill(y, start, k, N, room, at, flags)\n", "            pass\n"),
    ("cuda_simulator: qr: factors composed in the wrong order", "kernels/cuda/orthonormalize.py", "again[r0 + j * k + i] * R[r0 + i * k + c]", "R[r0 + j * k + i] * again[r0 + i * k + c]"),
    ("cuda_simulator: frames: exponents of steps forgotten", "kernels/cuda/frames.py", "total[c] += taken[c] + out", "total[c] += out"),
    ("cuda_simulator: frames: the end of a block shortens no interval", "kernels/cuda/frames.py", "wanted = longer if together == wanted else min(wanted, longer)", "wanted = longer"),
    ("cuda_simulator: frames: a stretch too far is accepted", "kernels/cuda/frames.py", "if stretch > limit and together > 1:", "if False:"),
    ("cuda_simulator: device: initial state not copied", "dynamics/device.py", "    states[0].copy_to_device(start)\n", "    states[0].copy_to_device(_cuda.upload(np.ones((B, net.S, n), dtype)))\n"),
    ("cuda_simulator: device: padding keeps its input", "kernels/cuda/resident.py", "if i < lengths[j] else zero", "if i <= lengths[j] else zero"),
    ("cuda_simulator: device: float64 of another number", "kernels/cuda/resident.py", "            out[i] = x[i]\n", "            out[i] = x[0]\n"),
    ("cuda_simulator: device: a NaN passes", "kernels/cuda/resident.py", "if not math.isfinite(x[i, j, k]):", "if math.isinf(x[i, j, k]):"),
    ("cuda_device_gradients: rows: put where they are to be added", "kernels/cuda/rows.py", "out[to[r], c] += values", "out[to[r], c] = values"),
    ("cuda_device_gradients: rows: the first ones, whatever was asked for", "kernels/cuda/rows.py", "out[to[r], c] = values[source[r], c]", "out[to[r], c] = values[r, c]"),
    ("cuda_device_gradients: a step with negative charges alone has no loss", "kernels/cuda/graded.py", "item % M] != zero:", "item % M] > zero:"),
    ("cuda_device_gradients: fill: the first number only", "kernels/cuda/resident.py", "            out[i] = value\n", "            out[0] = value\n"),
    ("cuda_device_gradients: flow: exponents of rows are not kept", "gradients/flow.py", "assign(exponent[:started], exponents[0])", "pass"),
    ("cuda_device_gradients: rows: mantissas that are not folded", "dynamics/scaled.py", 'find_backend("cuda").times_powers(rows.reshape(rows.shape[0], -1), exponent)', "pass"),
    ("cuda_device_gradients: directions: parameters of other columns", "gradients/flat.py", "[:, :, start:stop]).reshape", "[:, :, : stop - start]).reshape"),
    ("cuda_device_gradients: an overflow on the device passes", "dynamics/placed.py", "array.size, 1, 1)) < 0).all())", "array.size, 1, 1)) > -2).all())"),
    ("cuda_device_gradients: a copy to the host on the way", "gradients/truncated.py", "    return unscaled(out[0], exponents[0])", "    from .._arrays import on_host\n    on_host(rows)\n    return unscaled(out[0], exponents[0])"),
    ("cuda_device_gradients: loss: second derivative of the softmax without its mean", "kernels/cuda/loss.py", "bend(y[t, b, i], u[t, r, i], own, total, mean)", "bend(y[t, b, i], u[t, r, i], own, total, zero)"),
    ("cuda_simulator: row norms: the power taken out is lost", "kernels/cuda/rows.py", "(exponent[r] + shift) * _LN2", "exponent[r] * _LN2"),
    ("cuda_simulator: diagonals: sample 0 for all", "kernels/cuda/diagonals.py", "partial[t, r % B, s, p, i]", "partial[t, 0, s, p, i]"),
    ("cuda_simulator: diagonals: what was there is lost", "kernels/cuda/diagonals.py", "total = out[t, r, p, i] if more else zero", "total = zero"),
    ("cuda_simulator: rtrl: a weight drives other units", "kernels/cuda/weights.py", "unit[k] == i else zero", "unit[k] >= i else zero"),
    ("cuda_simulator: rtrl: charges of sample 0 for all", "kernels/cuda/weights.py", "more += direct[b, s]", "more += direct[0, s]"),
    ("rtrl: a weight drives other units", "kernels/cpu/weights.py", "dz[b, k, gate[k], unit[k]] = source", "dz[b, k, gate[k], 0] = source"),
    ("row norms: the power taken out is lost", "kernels/cpu/rows.py", "math.log(square) / 2.0 + exponent[r] * _LN2\n            continue", "math.log(square) / 2.0\n            continue"),
    ("diagonals: sample 0 for all", "kernels/cpu/diagonals.py", "b = r % B", "b = 0"),
    ("cuda_simulator: loss: shares of the softmax not divided", "kernels/cuda/loss.py", "own = share(y[t, b, i], top) / mass if normalized else zero\n                dy", "own = share(y[t, b, i], top) if normalized else zero\n                dy"),
    ("cuda_simulator: loss: components beyond the parts are lost", "kernels/cuda/loss.py", "                    own += term(", "                    own = term("),
    ("cuda_simulator: loss: what does not count is read", "kernels/cuda/loss.py", "if w == zero:  # the whole block\n                for i in range(cuda.threadIdx.x, p, cuda.blockDim.x):\n                    dy", "if False:\n                for i in range(cuda.threadIdx.x, p, cuda.blockDim.x):\n                    dy"),
    ("cuda_simulator: loss: a label beyond the outputs passes", "kernels/cuda/loss.py", "label >= p", "label > p"),
    ("cuda_simulator: loss: a target beyond its range passes", "kernels/cuda/loss.py", "low <= z <= high", "low <= z"),
    ("cuda_simulator: loss: of the host for arrays on the device", "losses.py", "            value = kernels.total(steps)\n", "            value = float(np.sum(steps))\n"),
    ("cuda_simulator: device: gradients of parameters on the host", "kernels/cuda/products.py", "    if stays:\n", "    if False:\n"),
    ("cuda_simulator: device: parts of a gradient in one place", "_arrays.py", "        at += part.shape[0]\n", ""),
    ("cuda_simulator: device chain: exponents are not put back", "kernels/cuda/scaling.py", "if exponent[r] != 0:", "if False:"),
    ("cuda_simulator: device chain: overflow is not seen", "kernels/cuda/scaling.py", "cuda.atomic.max(overflow, 0", "cuda.atomic.min(overflow, 0"),
    ("cuda_simulator: device chain: columns are rows", "kernels/cuda/resident.py", "                out[i, k, j] = x[i, j, k]\n", "                out[i, k, j] = x[i, k, j]\n"),
    ("cuda_simulator: device chain: vectors start beyond 1", "dynamics/device_chain.py", "        find_backend(\"cuda\").normalize(rows, exponent)  # one", "        # one"),
    ("cuda_simulator: device chain: rows of a block forgotten", "dynamics/device_chain.py", "self.B, rows.start, rows.stop", "self.B, 0, rows.stop"),
    ("cuda_simulator: device chain: a NaN is a norm", "kernels/cuda/norms.py", "if k <= times[i] and math.isnan", "if k < 0 and math.isnan"),
    ("cuda_simulator: dlpack: strides are bytes", "_dlpack.py", "tensor.strides[i] * dtype.itemsize", "tensor.strides[i]"),
    ("cuda_simulator: dlpack: on the host it is a device array as well", "_cuda.py", "where is not None and where[0] in CUDA_DEVICES", "where is not None"),
    ("cuda_simulator: curvature: change of what is charged to q lost", "kernels/cuda/curvature.py", "STEP * Rdq[t, r, i]", "0.0 * Rdq[t, r, i]"),
    ("cuda_simulator: curvature: padded steps bend", "kernels/cuda/curvature.py", "if t0 + t >= lengths[b]:", "if t0 + t > lengths[b]:"),
    ("cuda_simulator: curvature: pieces all start at the first step", "kernels/cuda/curvature.py", "if t0 + t >= lengths[b]:", "if t >= lengths[b]:"),
    ("cuda_simulator: curvature: adjoint of the state before", "kernels/cuda/curvature.py", "gs[1:], dq, de)", "gs[:-1], dq, de)"),
    ("cuda_simulator: curvature: rows of another sample", "kernels/cuda/curvature.py", "            b = r % B\n            if t0", "            b = r * B // R\n            if t0"),
    ("cuda_simulator: curvature: outputs of the state before", "kernels/cuda/curvature.py", "(Rs[1:], Rgh, states[1:], gh, consts)", "(Rs[1:], Rgh, states[:-1], gh, consts)"),
    ("cuda_simulator: singular values: a pair never meets", "kernels/cuda/singular_values.py", "for meeting in range(players - 1):", "for meeting in range(max(1, players - 2)):"),
    ("cuda_simulator: singular values: the smaller row is kept", "kernels/cuda/singular_values.py", "large, small = (i, j) if shift >= 0 else (j, i)", "large, small = i, j"),
    ("cuda_simulator: singular values: angle of the other order", "kernels/cuda/singular_values.py", "if shift >= 0 else rotation(d, a, g, z)", "if shift >= 0 else rotation(a, d, g, z)"),
    ("cuda_simulator: singular values: rounding is a value", "kernels/cuda/singular_values.py", "if exponents[item // M] - given[first + item // M] < floor:", "if False:"),
    ("cuda_simulator: singular values: exponents forgotten", "kernels/cuda/singular_values.py", "value = log(square) / 2.0 + exponents[i] * _LN2", "value = log(square) / 2.0"),
    ("cuda_simulator: singular values: those alike share a place", "kernels/cuda/singular_values.py", "== room[at + i] and j < i)", "== room[at + i] and j < 0)"),
    ("cuda_simulator: singular values: two rotations share their parts", "kernels/cuda/singular_values.py", "room[at + 3 * task + 1] = c", "room[at + 3 * task + 1] = a"),
    ("cuda_simulator: batchnorm: given statistics are not used", "kernels/cuda/statistics.py", "            if given:\n", "            if False:\n"),
    ("cuda_simulator: batchnorm: spread does not depend on the samples", "kernels/cuda/statistics.py", "                mean_g_hat = mean_of(parts, B)\n", "                mean_of(parts, B)\n"),
    ("cuda_simulator: batchnorm: norm of c passes nothing back", "kernels/cuda/batchnorm.py", "+ dc[to + r, b, i] - scale", "+ 0 * dc[to + r, b, i] - scale"),
    ("cuda_simulator: batchnorm: steps are not charged", "kernels/cuda/batchnorm.py", "            if charged:\n", "            if charged and t < 0:\n"),
    ("cuda_simulator: batchnorm: charge of the last state lost", "kernels/cuda/batchnorm.py", "_cuda.download(g[steps], gs[T])", "_cuda.download(last, gs[T])"),
    ("cuda_simulator: batchnorm: samples beyond the parts are lost", "kernels/cuda/statistics.py", "                    own += z[at + d, b, c]\n", "                    own = z[at + d, b, c]\n"),
    ("batchnorm: gammas of the two products exchanged", "normalization.py", "return gamma_h * h_hat + gamma_x * x_hat + b", "return gamma_x * h_hat + gamma_h * x_hat + b"),
    ("cuda_simulator: what has no kernel runs on the CPU", "kernels/cuda/__init__.py", "    raise BackendError(\n", "    from .. import cpu\n    return getattr(cpu, name)\n    raise BackendError(\n"),
    ("cuda_simulator: QR of a chain on the CPU", "dynamics/graded.py", "self.jacobians.backend\n", "\"cpu\"\n"),
    ("cuda_library: a transposed factor is taken as it lies", "kernels/cuda/library.py", "(_PLAIN, b_depth) if b_column == 1", "(_PLAIN, b_depth) if True"),
    ("cuda_library: every product from the first row on", "kernels/cuda/library.py", "at_a + (a0 + first * a_row) * size", "at_a + a0 * size"),
    ("cuda_library: cut within the rows of a product", "kernels/cuda/products.py", "return min(rows, library.ROWS) if any", "return 1 if any"),
    ("cuda_library: the bias is forgotten", "kernels/cuda/products.py", "more or bias is not None,", "more,"),
    ("cuda_library: exponents of the step before forgotten", "kernels/cuda/large.py", "exponent[first + r] if d < 2 else exponents[d - 2, first + r]", "exponent[first + r]"),
    ("cuda_library: factors of the step after", "kernels/cuda/large.py", "after(current, first, count, sample, steps - d, factors", "after(current, first, count, sample, max(steps - d - 1, 0), factors"),
    ("cuda_library: second products left out", "kernels/cuda/large.py", "        if P2:\n            library.multiply(room, room, W2, R, n, P2 * n", "        if False:\n            library.multiply(room, room, W2, R, n, P2 * n"),
    ("auto_backend: a little faster is enough", "kernels/choice.py", "if CLEARLY * cuda < cpu", "if cuda < cpu"),
    ("auto_backend: the backends exchanged", "kernels/choice.py", "cpu, cuda = measurement.seconds(work)", "cuda, cpu = measurement.seconds(work)"),
    ("auto_backend: negative times are taken", "kernels/choice.py", "math.isfinite(c) and c >= 0 for c", "math.isfinite(c) for c"),
    ("auto_backend: CUDA is asked for first", "kernels/choice.py", "if not any(folder().glob(f\"backends-{VERSION}-*.json\")) or _cuda.missing() is not None:", "if _cuda.missing() is not None or not any(folder().glob(f\"backends-{VERSION}-*.json\")):"),
    ("auto_backend: the trajectory forgets its backend", "dynamics/rollout.py", "chosen(backend, functools.partial(gradient_work, net, T, B))", "backend"),
    ("auto_backend: fed-back outputs on CUDA", "dynamics/work.py", "if getattr(net, \"feedback\", False) or not", "if not"),
    ("auto_backend: a fit to absolute errors", "calibration.py", "relative = terms / seconds[:, None]", "relative = terms / seconds.mean()"),
    ("cuda_simulator: the exponent of a zero row counts", "kernels/cuda/graded.py", "if live[b, j] and R[b, i, j] != 0.0:", "if R[b, i, j] != 0.0:"),
    ("cuda_simulator: exponent of a factor forgotten", "kernels/cuda/graded.py", "top[0] - shifts[b, j] - before[b, j]", "top[0] - before[b, j]"),
    ("cuda_simulator: a graded product leaves the device", "dynamics/device_chain.py", "_place = staticmethod(_cuda.upload)\n", "pass\n"),
    ("cuda_simulator: norms: exponents of rows left out", "kernels/cuda/norms.py", "top_of[r] = taken[r] + block.exponent_of(key, 1.0)", "top_of[r] = block.exponent_of(key, 1.0)"),
    ("cuda_simulator: norms: J of the step after", "kernels/cuda/norms.py", "sample, t - 1, system", "sample, t - (t > 1), system"),
    ("cuda_simulator: norms: columns of the block forgotten", "kernels/cuda/norms.py", "r, c = item // columns, first + item % columns", "r, c = item // columns, item % columns"),
    ("cuda_simulator: norms: last two Lanczos vectors not orthogonal", "kernels/cuda/norms.py", "Q[w + i] -= b[j - 1] * Q[q - R + i]", "Q[w + i] -= 0.0 * Q[q - R + i]"),
    ("backends: CUDA without a look at what is missing", "kernels/__init__.py", "        _cuda.require()\n", ""),
    ("cuda_fixed_point: residual of the image alone", "kernels/cuda/iterate.py", "residual = pair[1, b, c, i] - own", "residual = pair[1, b, c, i]"),
    ("cuda_fixed_point: changes of the step before", "kernels/cuda/iterate.py", "past[b, 2 + window + new, l] = residual - past[b, 1, l]", "past[b, 2 + window + new, l] = residual"),
    ("cuda_fixed_point: part of an inner product twice", "kernels/cuda/iterate.py", "for l in range(lane, N, _LANES):", "for l in range(max(lane - 1, 0), N, _LANES):"),
    ("cuda_fixed_point: every sample ends with the first", "kernels/cuda/iterate.py", "left += live[r]", "left = live[r]"),
    ("cuda_fixed_point: a sample that ended goes on", "kernels/cuda/iterate.py", "                    live[r] = 0\n", "                    live[r] = 1 if k < limit else 0\n"),
    ("cuda_fixed_point: what did not shrink is forgotten", "kernels/cuda/iterate.py", "0 if size < best[r] else since[r] + 1", "0"),
    ("cuda_fixed_point: a barrier left out", "kernels/cuda/iterate.py", "                room[at + task] = total\n        cuda.syncthreads()\n", "                room[at + task] = total\n"),
    ("cuda_fixed_point: mixed in the order of the ring", "kernels/cuda/iterate.py", "row = 2 + (k - 1 - j) % window", "row = 2 + j"),
    ("cuda_fixed_point: inner products with r in the order of the ring", "kernels/cuda/iterate.py", "room[own_sums + 2 + kept + (k - 1 - j) % window]", "room[own_sums + 2 + kept + j]"),
    ("cuda_fixed_point: no damping", "kernels/cuda/iterate.py", "past[b, 0, l] + beta * past[b, 1, l]", "past[b, 0, l] + past[b, 1, l]"),
    ("cuda_fixed_point: pre-activations pile up", "kernels/cuda/fixed_point.py", "a[0, b, p, i] = drive[b, p, i]", "a[0, b, p, i] += drive[b, p, i]"),
    ("cuda_fixed_point: right-hand side of another row", "kernels/cuda/fixed_point.py", "new[r, c, i] += g[r, c, i]", "new[r, c, i] += g[first, c, i]"),
    ("cuda_fixed_point: tangents iterate with the adjoint", "kernels/cuda/fixed_point.py", "steps.make(form, forward, dtype)", "steps.make(form, False, dtype)"),
    ("cuda_fixed_point: weights of the tangent not transposed", "kernels/cuda/steps.py", "pieces.transposed(w).ravel() if forward else w.ravel()", "w.ravel()"),
    ("cuda_fixed_point: a tolerance is rounded up", "kernels/cuda/fixed_point.py", "return number if float(number) <= value else", "return number if True else"),
    ("cuda_fixed_point: residuals of the first piece only", "kernels/cuda/fixed_point.py", "residuals[: last + 1, start:stop]", "residuals[: last + 1, : stop - start]"),
    ("cuda_fixed_point: newton: no pivots", "kernels/cuda/linear.py", "if value > top:", "if value > top and i == column:"),
    ("cuda_fixed_point: newton: blocks are not taken out of what follows", "kernels/cuda/linear.py", "N - k1, k1 - k0, N - k1", "N - k1, 0, N - k1"),
    ("cuda_fixed_point: newton: right-hand side not exchanged", "kernels/cuda/linear.py", "if cuda.threadIdx.x == 0:\n                        y[y0", "if cuda.threadIdx.x < 0:\n                        y[y0"),
    ("cuda_fixed_point: newton: any pivot will do", "kernels/cuda/linear.py", "if not top > least:", "if not top >= zero:"),
    ("cuda_fixed_point: newton: J instead of I - J", "kernels/cuda/linear.py", "(one if item // N == item % N else zero) - A[a0 + item]", "A[a0 + item]"),
    ("cuda_fixed_point: dependent changes are kept", "kernels/iteration.py", "if not pivot > least * gram[a, a]:", "if not pivot > -1e300:"),
    ("fixed_point_solve: Picard steps back", "kernels/cpu/fixed_point.py", "rb[i] = moved[i] - own[i]", "rb[i] = own[i] - moved[i]"),
    ("fixed_point_solve: Anderson mixes the states only", "kernels/cpu/fixed_point.py", "s[i] -= g * (steps[a, i] + beta * changes[a, i])", "s[i] -= g * steps[a, i]"),
    ("fixed_point_solve: Anderson in the order of the ring", "kernels/iteration.py", "a = (k - 1 - i) % window", "a = (k + i) % window"),
    ("fixed_point_solve: dependent rows are kept", "kernels/iteration.py", "if not pivot > least * gram[a, a]:", "if not pivot > -1e300:"),
    ("fixed_point_solve: stalled at rounding is not seen", "kernels/iteration.py", "since >= PATIENCE", "since >= 100000"),
    ("fixed_point_solve: overflow goes on", "kernels/iteration.py", "if not size <= (T(1.0) + first) * most:", "if size > 1e308 * 10:"),
    ("fixed_point_solve: cycles are not looked for", "fixedpoint/solve.py", "found = near.any(axis=0)", "found = near.all(axis=0)"),
    ("fixed_point_solve: a slow spiral is a cycle", "fixedpoint/solve.py", "np.maximum(_SETTLED * away[1], rounding)", "np.inf"),
    ("fixed_point_solve: condition of J instead of I - J", "fixedpoint/spectrum.py", "np.eye(J.shape[1]) - J[finite]", "J[finite]"),
    ("fixed_point_solve: one eigenvalue of few Arnoldi vectors", "fixedpoint/spectrum.py", "_LEADING, _BASIS = 6, 60", "_LEADING, _BASIS = 1, 20"),
    ("fixed_point_solve: no way on where Arnoldi fails", "fixedpoint/spectrum.py", "except ArpackError:", "except KeyError:"),
    ("fixed_point_adjoint: J in place of its transpose", "fixedpoint/linear.py", "g[r].ravel(), trans=1)", "g[r].ravel(), trans=0)"),
    ("fixed_point_adjoint: one term too many", "fixedpoint/linear.py", "(limit if terms is None else terms) - 1", "(limit if terms is None else terms)"),
    ("fixed_point_adjoint: no random right-hand side", "fixedpoint/judged.py", "probes = rng.uniform(-1, 1, shape)", "probes = np.zeros(shape) + (np.arange(shape[2]) == 0)"),
    ("fixed_point_adjoint: answers are not refined", "fixedpoint/judged.py", "left = ~(error[open_] <= tol)", "left = ~(error[open_] <= 1e6)"),
    ("fixed_point_adjoint: the point is not polished", "fixedpoint/polish.py", "if not better.any():", "if True:"),
    ("fixed_point_adjoint: the point is taken as exact", "fixedpoint/judged.py", "bad = np.flatnonzero(~(out <= allowed))", "bad = np.flatnonzero(out < 0)"),
    ("fixed_point_adjoint: what the point leaves is not in the error", "fixedpoint/adjoint.py", "error = error + uncertain(", "error = error + 0 * uncertain("),
    ("fixed_point_adjoint: s* has no rounding", "fixedpoint/polish.py", "step(r + noise * np.abs(s), ", "step(r, "),
    ("fixed_point_adjoint: J in float32", "fixedpoint/polish.py", "return at_rest(traj), local, local_jacobians(here.trajectory(traj.states[0] + away))", "return at_rest(traj), fp.local.in_float64(), fp.local.in_float64()"),
    ("fixed_point_adjoint: lengths whose squares are no numbers", "fixedpoint/maps.py", "if not (out.min(initial=1.0) > _LEAST", "if False and not (out.min(initial=1.0) > _LEAST"),
    ("fixed_point_adjoint: products are not counted", "fixedpoint/linear.py", "if self.count == self.limit:", "if False:"),
    ("fixed_point_adjoint: the time axis of weights is lost", "fixedpoint/adjoint.py", "loss = dataclasses.replace(loss, weights=np.asarray(loss.weights)[None])", "pass"),
    ("fixed_point_find: rows exchanged in the block only", "kernels/cpu/linear.py", "upper[j], lower[j] = lower[j], upper[j]", "pass"),
    ("fixed_point_find: the next block is not updated", "kernels/cpu/linear.py", "to[j] = -row[j0 + j]", "to[j] = 0"),
    ("fixed_point_find: rows of a block of U taken as they are", "kernels/cpu/linear.py", "for q in range(kb - 1):", "for q in range(0):"),
    ("fixed_point_find: a pivot of rounding is one", "kernels/cpu/linear.py", "if not largest > least:", "if not largest > 0:"),
    ("fixed_point_adjoint: tangents iterate with the adjoint", "kernels/cpu/fixed_point.py", "step, step_room = (TANGENT if forward else ADJOINT)[form]", "step, step_room = ADJOINT[form]"),
    ("fixed_point_adjoint: the inverse is as long as one answer", "fixedpoint/judged.py", "inverse = np.sqrt(N) * lengths_of(z)", "inverse = 0.01 * lengths_of(z)"),
    ("memory: panels of W for its transpose", "_gemm.py", "return entry[1][transposed]", "return entry[1][min(entry[1])]"),
    ("memory: panels of an array that changes are kept", "_gemm.py", "weights.flags.owndata and not weights.flags.writeable", "weights.flags.owndata"),
    ("fixed_point_find: elimination without pivots", "kernels/cpu/linear.py", "if abs(column[i]) > largest:", "if abs(column[i]) > 1e300:"),
    ("fixed_point_find: slow points are not led down to", "fixedpoint/newton.py", "mu[rows] = np.where(good, np.maximum(mu[rows] / 3, 1e-15), mu[rows] * 4)", "mu[rows] = mu[rows] * 4"),
    ("fixed_point_find: rounding is generous", "fixedpoint/newton.py", "_ROUNDING = 32", "_ROUNDING = 1e4"),
    ("fixed_point_find: copies of a point are kept", "fixedpoint/distinct.py", "near = lengths_of(flat[left] - flat[first]) <= radius[first]", "near = lengths_of(flat[left] - flat[first]) <= 0"),
    ("fixed_point_find: a double root is many", "fixedpoint/distinct.py", "if errors and len(groups) > 1:", "if False:"),
    ("fixed_point_find: cycles are not completed", "fixedpoint/distinct.py", "while len(s) != known:", "while known < 0:"),
    ("fixed_point_find: points of a cycle that are near are one", "fixedpoint/distinct.py", "both, chosen, merge, errors=True)", "both, chosen, 10 * merge, errors=True)"),
    ("fixed_point_find: what follows is a point in any case", "fixedpoint/distinct.py", "chosen = np.concatenate([np.ones(known, np.bool_), good])", "chosen = np.ones(2 * known, np.bool_)"),
    ("fixed_point_find: starts point to the order they were found in", "fixedpoint/find.py", "rank[place] = np.arange(len(place))", "rank[np.sort(place)] = np.arange(len(place))"),
    ("fixed_point_find: Jacobians of a cycle in the wrong order", "fixedpoint/maps.py", "product = step @ product", "product = product @ step"),
    ("fixed_point_curves: a fold is a branch", "fixedpoint/arc.py", '("fold" if turned else "branch", up)', '("branch", up)'),
    ("fixed_point_curves: flips are looked for at 1", "fixedpoint/curve.py", "int((real & (out.real < 0)).sum())", "int((real & (out.real > 0)).sum())"),
    ("fixed_point_curves: changes together are not separated", "fixedpoint/arc.py", "if not _alone(low, high) and high.along", "if False and high.along"),
    ("fixed_point_curves: multiplicity is lost", "fixedpoint/continuation.py", "[max(1, abs(event.change)) for event in events]", "[1 for event in events]"),
    ("fixed_point_curves: out of the interval and back is not seen", "fixedpoint/arc.py", "if low.way * high.way < 0 and inside(high):", "if False:"),
    ("fixed_point_curves: real eigenvalues that meet are events", "fixedpoint/arc.py", "if pairs * up < 0 or pairs * down < 0:", "if False:"),
    ("fixed_point_curves: modes of the transpose", "fixedpoint/portrait.py", "np.linalg.eig(J)", "np.linalg.eig(J[::-1, ::-1])"),
    ("report_fixed_points: an input that changes late is held", "report/inputs.py", "bool((x == x[:1]).all())", "bool((x[:2] == x[:1]).all())"),
    ("report_fixed_points: one step of an input tells", "report/inputs.py", "len(x) > 1 and", "len(x) > 0 and"),
    ("report_fixed_points: masks are no part of the map", "report/inputs.py", "all(value.ndim < 3 for value in net.constants.values())", "True"),
    ("report_fixed_points: the record is judged after it is cut", "report/job.py", "inputs.held(net, x)\n", "inputs.held(net, inputs.affordable(net, x))\n"),
    ("report_fixed_points: different inputs are one", "analysis/settling.py", "groups.setdefault(row.tobytes(), [])", "groups.setdefault(b\"\", [])"),
    ("report_fixed_points: input of the first sample for all", "analysis/settling.py", "np.ascontiguousarray(x[0, 0])", "np.ascontiguousarray(traj.x[0, 0])"),
    ("report_fixed_points: rate of a cycle is not per step", "analysis/settled.py", "log_modulus(self.eigenvalues) / self.length", "log_modulus(self.eigenvalues)"),
    ("report_fixed_points: the cycle of a trajectory is lost", "analysis/settling.py", "rows[number == one]] = len(cycles)", "rows[number == one]] = -1"),
    ("report_fixed_points: trajectories end at the points of other starts", "analysis/settling.py", "home[rest] = points.point[: len(settled)]", "home[rest] = points.point[: len(settled)][::-1]"),
    ("report_fixed_points: no start leaves the trajectories", "analysis/settling.py", "taken += amount[:, None, None]", "taken += 0 * amount[:, None, None]"),
    ("report_fixed_points: distance to where the trajectory began", "analysis/settling.py", "_away(begin[:Q], gone.s[:Q])", "_away(begin[:Q] + 1, gone.s[:Q])"),
    ("report_fixed_points: a divergence is taken for movement", "analysis/settling.py", "(\"diverged\", \"outside\", \"invalid\")", "(\"outside\", \"invalid\")"),
    ("report_fixed_points: condition of J", "analysis/settling.py", "condition(points.jacobian)", "condition(np.eye(traj.net.N) - points.jacobian)"),
    ("report_fixed_points: rows without regard to the order of points", "report/fixed_points.py", "\"log_radius\": one.log_radius[k]", "\"log_radius\": one.log_radius[-1 - k]"),
    ("report_fixed_points: exponent of the first sample for all inputs", "report/fixed_points.py", "m.lyapunov.exponents[sample, 0],", "m.lyapunov.exponents[0, 0],"),
    ("report_fixed_points: starts cost nothing", "report/measure.py", "min(STARTS, room // _NEWTON)", "STARTS"),
    ("report_fixed_points: figures of stable points hold the others", "analysis/settled.py", "stable=points.eigenvalues[points.stable]", "stable=points.eigenvalues[~points.stable]"),
    # systems of a user, and dense Jacobians
    ("system: a tuple loses what is beyond its first leaf", "kernels/user.py", "        second(out, value)\n", "        first(out, value)\n"),
    ("system: what is not written passes", "kernels/user.py", "if written and (missed :=", "if False and (missed :="),
    ("system: functions of any parameters", "kernels/user.py", "if len(needed) not in _FORMS or", "if False or"),
    ("system: states of two vectors lose one", "dynamics/system.py", "(len(y), 1, self.J.shape[2])", "y.shape"),
    ("cuda_system: padding keeps running", "kernels/cuda/system.py", "if t < lengths[b]:", "if t <= lengths[b]:"),
    ("cuda_system: lengths of the second half count from the start", "kernels/cuda/system.py", "params, lengths - half", "params, lengths"),
    ("cuda_system: pieces of steps forget where they begin", "kernels/cuda/system.py", "if t0 + t < lengths[b]:\n                s, u", "if t < lengths[b]:\n                s, u"),
    ("cuda_system: Jacobians of pieces forget where they begin", "kernels/cuda/system.py", "if t0 + t < lengths[b]:\n                call(J", "if t < lengths[b]:\n                call(J"),
    ("cuda_system: padding depends on its input", "kernels/cuda/system.py", "1.0 if which == 0 and i == j", "1.0 if i == j"),
    ("cuda_system: fixed points of the input of the first sample", "kernels/cuda/system.py", "x[b, :m], params[:q])\n        cuda", "x[0, :m], params[:q])\n        cuda"),
    ("cuda_system: arrays are made", "kernels/cuda/system.py", "if user.gives == \"array\":", "if False:"),
    ("cuda_system: dense: transposed", "kernels/cuda/steps.py", "J[t, own[l], i, k] if forward", "J[t, own[l], k, i] if forward"),
    ("cuda_system: dense: J of the first row of a tile", "kernels/cuda/steps.py", "if l == 0 or own[l] != own[l - 1]:", "if l == 0:"),
    ("cuda_system: dense: a barrier left out", "kernels/cuda/steps.py", "        cuda.syncthreads()  # other threads", "        # other threads"),
    ("cuda_system: dense: chains forward begin at 0", "kernels/cuda/chain.py", "start = t_from if forward", "start = 0 if forward"),
    ("cuda_system: dense: Newton directions without their matrix", "kernels/cuda/linear.py", "        A.copy_to_device(J.reshape(-1))", "        A.copy_to_device(_cuda.upload(np.zeros(A.shape, x.dtype)))"),
]  # fmt: skip


def _code(text: str) -> str:
    """The code without docstrings and comments."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.FunctionDef, ast.ClassDef)) and ast.get_docstring(node, clean=False):
            node.body = node.body[1:] or [ast.Pass()]
    return ast.dump(tree)


def planted(mutant: tuple[str, str, str, str], text: str) -> str:
    """The text of a mutant's file with its fault in it."""
    name, file, old, new = mutant
    if old not in text:
        raise SystemExit(f"mutant {name!r}: {file} does not hold {old!r}; the list is out of date")
    changed = text.replace(old, new, 1)
    if old != new and _code(changed) == _code(text):
        raise SystemExit(f"mutant {name!r} changes no code")
    return changed


def run(mutant: tuple[str, str, str, str], tests: list[str], timeout: float) -> dict[str, object]:
    """Kill or survive: the tests on a copy of the package with one replacement."""
    name, file, _, _ = mutant
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(ROOT / "rnngrad", Path(folder) / "rnngrad", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(ROOT / "tests", Path(folder) / "tests", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", folder)
        target = Path(folder) / "rnngrad" / file
        target.write_text(planted(mutant, target.read_text()))
        about = set(name.split(":")[0].split())  # tests named after what is broken come first
        tests = sorted(tests, key=lambda test: not any(word in test for word in about))
        environment = os.environ | {"NUMBA_DISABLE_JIT": "1", "PYTHONPATH": folder, "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-m", "not slow", *tests]
        start = time.perf_counter()
        try:
            done = subprocess.run(
                command, cwd=folder, env=environment, capture_output=True, text=True, timeout=timeout, check=False
            )
            code, tail = done.returncode, done.stdout.strip().splitlines()[-3:]
        except subprocess.TimeoutExpired:
            code, tail = -1, ["timed out"]
    verdict = {0: "survived", 1: "killed", -1: "killed"}.get(code, "broken")
    return {"name": name, "file": file, "verdict": verdict, "seconds": time.perf_counter() - start, "tail": tail}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="run the mutants whose name or file holds this word")
    parser.add_argument("--tests", default="", help="run the test files whose name holds one of these words, by commas")
    parser.add_argument("--timeout", type=float, default=900.0, help="seconds before a mutant counts as hung (killed)")
    parser.add_argument("--json", help="write the results here as well")
    arguments = parser.parse_args()
    tests = [test for test in TESTS if (ROOT / test).exists()]
    tests = [test for test in tests if any(word in test for word in arguments.tests.split(","))]
    if not tests:
        raise SystemExit(f"--tests is {arguments.tests!r}; it must hold a part of the name of a test file")
    sane = run(("none", "cells/lstm.py", "STATES", "STATES"), tests, arguments.timeout)
    if sane["verdict"] != "survived":
        raise SystemExit(f"the tests fail without any mutant: {sane['tail']}")
    print(f"unchanged package passes in {sane['seconds']:.0f} s", flush=True)
    results = []
    for mutant in MUTANTS:
        if arguments.only in mutant[0] or arguments.only in mutant[1]:
            results.append(run(mutant, tests, arguments.timeout))
            print(f"{results[-1]['verdict']:9s} {results[-1]['seconds']:5.0f} s  {mutant[0]}", flush=True)
    killed = sum(result["verdict"] == "killed" for result in results)
    print(f"{killed} of {len(results)} mutants killed")
    for result in results:
        if result["verdict"] != "killed":
            print(f"  {result['verdict']}: {result['name']} ({result['file']}) {result['tail']}")
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(results, indent=1))
    sys.exit(killed < 0.95 * len(results))


if __name__ == "__main__":
    main()
