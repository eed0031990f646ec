"""Truncated backpropagation through time by its definition: torch, with states detached where a window begins."""

import numpy as np
import oracles

torch = oracles.torch


def segments_of(k1, k2, T):
    """(first, last, back) of every pass of the (k1, k2) form: every k1 steps, back over k2."""
    ends = sorted({*range(k1, T, k1), T})
    return [(last - k1 + 1 if last % k1 == 0 else last - last % k1 + 1, last, k2) for last in ends]


def truncated_by_detach(drawn, target, segments):
    """Gradients of squared-error losses carried back a limited number of steps, by torch.

    ``segments``: (first, last, back): the losses of steps first … last, re-run from the detached s_{last-back}.
    """
    cell, params, x, s0 = drawn.args
    leaves = {name: oracles.tensor(a).requires_grad_() for name, a in params.items()}
    x = oracles.tensor(x).requires_grad_()
    states = oracles.states(cell, params, x.detach(), s0, **drawn.kwargs)
    T, B = x.shape[:2]
    total = {name: np.zeros(a.shape) for name, a in params.items()} | {"x": np.zeros(x.shape)}
    total |= {"s": np.zeros((T + 1, *s0.shape)), "loss": 0.0}
    for first, last, back in segments:
        start = max(last - back, 0)
        cut = {**drawn.kwargs, "lengths": np.clip(drawn.ends - start, 0, last - start)}
        path = oracles.states(cell, leaves, x[start:last], states[start].detach().requires_grad_(), **cut)
        y = torch.stack([oracles.readout(cell, leaves, s, drawn.net.activation) for s in path[1:]])
        active = oracles.active_steps(last - start, B, cut["lengths"])
        counted = slice(max(first - 1 - start, 0), None)
        loss = oracles.squared_error(target[start:last][counted])(y[counted], active[counted])
        if not loss.requires_grad:
            continue  # nothing but padding
        wanted = [*leaves.values(), x, *path]
        found = torch.autograd.grad(loss, wanted, allow_unused=True)
        found = [0.0 if g is None else g.numpy() for g in found]
        for name, g in zip([*leaves, "x"], found, strict=False):
            total[name] = total[name] + g
        for k, g in enumerate(found[len(leaves) + 1 :], start):
            if k > start or k == 0:  # s_start of a cut window receives nothing: the window ends with s_{start+1}
                total["s"][k] += g
        total["loss"] += float(loss.detach())
    return total | {"s0": total["s"][0]}
