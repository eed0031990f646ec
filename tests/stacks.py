"""Random stacks as the package sees them, and by torch autograd: layers of ``oracles.step``, one after another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import oracles
import reference

import rnngrad as rg

torch = oracles.torch

#: layers as (cell, n): every cell stands above and below another one
MIXES = (
    (("lstm", 3), ("gru", 4)),
    (("vanilla_s", 4), ("continuous", 2), ("vanilla", 3)),
    (("gru_reset_before", 2), ("mgu", 3), ("gru_delayed", 2)),
    (("mrnn", 3), ("gated_unit", 2), ("linear", 3)),
    (("lstm", 2),),
)


@dataclass
class StackCase:
    stack: rg.Stack
    x: np.ndarray
    s0: np.ndarray  # (B, 1, N)
    lengths: np.ndarray | None
    rng: np.random.Generator

    @property
    def traj(self):
        return rg.rollout(self.stack, self.x, self.s0, self.lengths)


def make_stack_case(
    mix, *, bidirectional=False, m=3, p=2, T=5, B=3, lengths=None, dtype="float64", seed=0, scale=1.0
) -> StackCase:
    """A random stack with inputs and an initial joint state; the same for the same arguments."""
    rng = np.random.default_rng(seed)
    layers, below = [], m
    for cell, n in mix:
        row = []
        for _ in range(2 if bidirectional else 1):
            params = reference.random_params(cell, n, below, 0, rng, scale)
            params = {name: a.astype(dtype) for name, a in params.items() if name not in ("V", "c")}
            time = {"dt": 0.25, "tau": rng.uniform(0.3, 2.0, n)} if cell == "continuous" else {}
            row.append(rg.Network.from_parameters(cell, params, **time))
        layers.append(row)
        below = sum(net.n for net in row)
    V = rng.standard_normal((p, below)).astype(dtype) if p else None
    stack = rg.Stack.from_layers(layers, V, rng.standard_normal(p).astype(dtype) if p else None)
    x = rng.standard_normal((T, B, m)).astype(dtype)
    if lengths is not None:
        lengths = np.asarray(lengths)
        x[np.arange(T)[:, None] >= lengths] = 7.0
    return StackCase(stack, x, rng.standard_normal((B, 1, stack.N)).astype(dtype), lengths, rng)


def _leaves(stack):
    return {name: oracles.tensor(np.array(a)).requires_grad_() for name, a in stack.parameters()}


def _layer_params(P, net, ending):
    return {name: P[name + ending] for name in net.parameters}


def _alpha(net):
    return None if net.alpha is None else oracles.tensor(np.array(net.alpha))


def _heights(net, s):
    """h of states (…, S, n)."""
    return oracles.readout(net.cell.name, {}, s, net.activation)


def forward(stack, P, x, s0, lengths=None):
    """(y, states by [layer][direction] as lists of tensors in their own order of time), from tensors."""
    T, B = x.shape[:2]
    ends = np.full(B, T) if lengths is None else lengths
    h, start, kept = x, 0, []
    for layer, row in enumerate(stack.layers):
        outputs, row_states = [], []
        for net, ending in zip(row, (f"_l{layer}", f"_l{layer}_reverse"), strict=False):
            backward = ending.endswith("reverse")
            s = s0[:, 0, start : start + net.N].reshape(B, net.S, net.n)
            start += net.N
            states, by_time = [s], [[None] * B for _ in range(T)]
            for t in range(T):
                # sample by sample, so that nothing of the package's way of reversing is used here
                places = [ends[b] - 1 - t if backward and t < ends[b] else t for b in range(B)]
                inputs = torch.stack([h[places[b], b] for b in range(B)])
                new = oracles.step(
                    net.cell.name, _layer_params(P, net, ending), states[-1], inputs, net.activation, _alpha(net)
                )
                on = torch.tensor([t < ends[b] for b in range(B)])[:, None, None]
                states.append(torch.where(on, new, states[-1]))
                out = _heights(net, states[-1])
                for b in range(B):
                    by_time[places[b]][b] = out[b]
            outputs.append(torch.stack([torch.stack(at) for at in by_time]))
            row_states.append(states)
        h = torch.cat(outputs, dim=-1)
        kept.append(row_states)
    y = h @ P["V"].mT + P["c"] if "V" in P else h
    return y, kept


def gradients(case, loss_fn):
    """Loss, y and total derivatives: every parameter by name, x, s0, and s as [layer][direction] (T+1, B, S, n)."""
    P = _leaves(case.stack)
    x, s0 = (oracles.tensor(a).requires_grad_() for a in (case.x, case.s0))
    y, states = forward(case.stack, P, x, s0, case.lengths)
    loss = loss_fn(y, oracles.active_steps(*x.shape[:2], case.lengths))
    every = [s for row in states for one in row for s in one]
    found = torch.autograd.grad(loss, [*P.values(), x, s0, *every], allow_unused=True)
    found = [
        np.zeros(tuple(a.shape)) if g is None else g.numpy()
        for a, g in zip([*P.values(), x, s0, *every], found, strict=True)
    ]
    out = dict(zip([*P, "x", "s0"], found, strict=False))
    rest = iter(found[len(P) + 2 :])
    out["s"] = [[np.stack([next(rest) for _ in one]) for one in row] for row in states]
    return out | {"loss": float(loss.detach()), "y": y.detach().numpy()}


def jacobians(case):
    """Joint J (T, B, N, N) of a forward stack, row = output; identity at padded steps."""
    stack, P = case.stack, {name: oracles.tensor(np.array(a)) for name, a in case.stack.parameters()}
    x = oracles.tensor(np.nan_to_num(case.x))
    _, states = forward(stack, P, x, oracles.tensor(case.s0), case.lengths)
    T, B = x.shape[:2]
    ends = np.full(B, T) if case.lengths is None else case.lengths
    J = np.tile(np.eye(stack.N), (T, B, 1, 1))
    for b in range(B):
        for t in range(ends[b]):

            def one_step(joint, t=t, b=b):
                h, start, new = x[t, b], 0, []
                for layer, (net,) in enumerate(stack.layers):
                    s = joint[start : start + net.N].reshape(net.S, net.n)
                    start += net.N
                    params = _layer_params(P, net, f"_l{layer}")
                    s = oracles.step(net.cell.name, params, s, h, net.activation, _alpha(net))
                    h = _heights(net, s)
                    new.append(s.reshape(-1))
                return torch.cat(new)

            point = torch.cat([row[0][t][b].reshape(-1) for row in states])
            J[t, b] = torch.autograd.functional.jacobian(one_step, point).numpy()
    return J
