"""Gradient truth by torch autograd in float64, written from the equations of the specification.

Nothing here is shared with the package under test, nor with `reference.py`. Arguments are NumPy
arrays (or tensors); results are float64 NumPy arrays unless a docstring says tensor. Where
`activation` is None the cell's default stands. Steps count from 1, so J[t-1] = ds_t/ds_{t-1}.
"""

import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch")


# ---------------------------------------------------------------- cells and rollout


def _softplus(z):
    """log(1 + exp(z)), any shape."""
    # torch.nn.functional.softplus turns linear above 20, an error of 2e-9; this one is exact.
    return torch.logaddexp(z, torch.zeros_like(z))


ACTIVATIONS = {
    "tanh": torch.tanh,
    "logistic": torch.sigmoid,
    "relu": torch.relu,  # torch takes 0 for the derivative at 0, as the package must
    "identity": lambda z: z,
    "softplus": _softplus,
}


def tensor(a):
    """Tensor float64 with the entries and shape of `a`; a tensor keeps its graph."""
    if isinstance(a, torch.Tensor):
        return a.to(torch.float64)
    return torch.tensor(np.asarray(a), dtype=torch.float64)


def _activation(cell, activation):
    """The function named `activation`, or the cell's default for None."""
    return ACTIVATIONS[activation or {"gru_delayed": "logistic"}.get(cell, "tanh")]


def step(cell, P, s, x, activation=None, alpha=None):
    """Next state, tensor (...,S,n), from tensors s (...,S,n), x (...,m) and params P."""
    phi, sigma = _activation(cell, activation), torch.sigmoid

    def prod(name, g, e):  # W_g e or U_g e
        return torch.einsum("ij,...j->...i", P[name][g], e)

    def gate(g, e, two=""):  # W_g e + U_g x + b_g of the first or second product
        return prod("W" + two, g, e) + prod("U" + two, g, x) + P["b" + two][g]

    h = s[..., 0, :]
    if cell == "vanilla":
        new = [phi(gate(0, h))]
    elif cell == "linear":
        new = [gate(0, h)]
    elif cell == "vanilla_s":
        new = [gate(0, phi(h))]
    elif cell == "continuous":
        new = [(1 - alpha) * h + alpha * gate(0, phi(h))]
    elif cell == "lstm":
        i, f, o = sigma(gate(0, h)), sigma(gate(1, h)), sigma(gate(3, h))
        c = f * s[..., 1, :] + i * phi(gate(2, h))
        new = [o * phi(c), c]
    elif cell == "gru":
        r, u = sigma(gate(0, h)), sigma(gate(1, h))
        v = phi(r * (prod("W", 2, h) + P["b"][2]) + prod("U", 2, x) + P["b"][3])
        new = [u * h + (1 - u) * v]
    elif cell == "gru_reset_before":
        r, u = sigma(gate(0, h)), sigma(gate(1, h))
        new = [u * h + (1 - u) * phi(gate(0, r * h, "2"))]
    elif cell == "gru_delayed":
        u, r = s[..., 1, :], s[..., 2, :]
        g = u * h + (1 - u) * phi(gate(0, r * h))
        new = [g, sigma(gate(0, g, "2")), sigma(gate(1, g, "2"))]
    elif cell == "gated_unit":
        u = s[..., 1, :]
        g = u * h + (1 - u) * phi(gate(0, h))
        new = [g, sigma(gate(0, g, "2"))]
    elif cell == "mgu":
        f = sigma(gate(0, h))
        new = [(1 - f) * h + f * phi(gate(0, f * h, "2"))]
    elif cell == "mrnn":
        new = [phi(gate(0, prod("U", 0, x) * prod("W", 0, h), "2"))]
    else:
        raise ValueError(f"unknown cell {cell!r}")
    return torch.stack(new, dim=-2)


def readout(cell, P, s, activation=None):
    """Network output, tensor (...,p): V h + c, or h (...,n) without V; s is a tensor (...,S,n)."""
    h = s[..., 0, :]
    if cell in ("vanilla_s", "continuous"):
        h = _activation(cell, activation)(h)
    return h @ tensor(P["V"]).mT + tensor(P["c"]) if "V" in P else h


def active_steps(T, B, lengths=None):
    """Boolean tensor (T,B): step t+1 of sequence b is not padding."""
    lengths = np.full(B, T) if lengths is None else np.asarray(lengths)
    return torch.as_tensor(np.arange(T)[:, None] < lengths[None, :])


def _tensors(params, x, lengths, alpha):
    """The same as tensors, with lengths turned into active (T,B)."""
    P, x = {name: tensor(a) for name, a in params.items()}, tensor(x)
    return P, x, active_steps(*x.shape[:2], lengths), None if alpha is None else tensor(alpha)


def _advance(cell, P, s, x, active, activation, alpha):
    """States s_0 .. s_T, a list of T+1 tensors (B,S,n), from s (B,S,n); all arguments tensors."""
    # Padding may hold anything, even nan; 0 * nan in a backward pass would leak it.
    x = torch.where(active[..., None], x, torch.zeros_like(x))
    states = [s]
    for t in range(x.shape[0]):
        new = step(cell, P, states[t], x[t], activation, alpha)
        states.append(torch.where(active[t][:, None, None], new, states[t]))
    return states


def states(cell, params, x, s0, lengths=None, activation=None, alpha=None):
    """List of T+1 tensors s_t (B,S,n); each is the one node through which all later ones flow."""
    P, x, active, alpha = _tensors(params, x, lengths, alpha)
    return _advance(cell, P, tensor(s0), x, active, activation, alpha)


def rollout(cell, params, x, s0, lengths=None, activation=None, alpha=None):
    """States (T+1,B,S,n) for x (T,B,m), s0 (B,S,n)."""
    return torch.stack(states(cell, params, x, s0, lengths, activation, alpha)).detach().numpy()


# ---------------------------------------------------------------- losses


def _loss(terms, target, weights, reduction):
    """loss_fn(y, active): y (T,B,p) tensor and active (T,B) bool to a scalar tensor.

    `terms` takes y (K,p) and targets of K pairs (t,b); it gives the summands (K,p), or (K,1)
    for a loss that does not split over components: "mean" divides by that second length too.
    """
    if reduction not in ("sum", "mean"):
        raise ValueError(f"unknown reduction {reduction!r}")

    def loss_fn(y, active):
        w = torch.ones(active.shape, dtype=y.dtype) if weights is None else tensor(weights)
        w = w[:, None].expand(active.shape) if w.ndim == 1 else w  # w[T, B]
        labels = not target.is_floating_point()
        if w.shape != active.shape or target.shape != (y.shape[:2] if labels else y.shape):
            raise ValueError("weights must be (T,) or (T,B), labels (T,B), targets (T,B,p)")
        # Pairs of weight 0 are dropped, not multiplied: their targets may be nan or no class.
        keep = active & (w != 0)
        ell = w[keep][:, None] * terms(y[keep], target[keep])
        return ell.sum() / (w[keep].sum() * ell.shape[1] if reduction == "mean" else 1)

    return loss_fn


def squared_error(target, weights=None, reduction="sum"):
    """loss_fn of ½‖y − z‖²; target z (T,B,p), weights (T,) or (T,B)."""
    return _loss(lambda y, z: 0.5 * (y - z) ** 2, tensor(target), weights, reduction)


def sum_of_squares(target, weights=None, reduction="sum"):
    """loss_fn of ‖y − z‖²; target z (T,B,p), weights (T,) or (T,B)."""
    return _loss(lambda y, z: (y - z) ** 2, tensor(target), weights, reduction)


def binary_cross_entropy(target, weights=None, reduction="sum"):
    """loss_fn of Σ −z log σ(y) − (1−z) log(1−σ(y)); z (T,B,p) in [0,1], logits y."""
    return _loss(lambda y, z: _softplus(y) - z * y, tensor(target), weights, reduction)


def cross_entropy(target, weights=None, reduction="sum"):
    """loss_fn of −Σ z log softmax(y); target integers (T,B) or probabilities z (T,B,p)."""
    labels = np.ndim(target) == 2
    target = tensor(target).long() if labels else tensor(target)

    def terms(y, z):
        log_p = y - torch.logsumexp(y, dim=-1, keepdim=True)
        if labels:
            return -log_p.gather(-1, z[:, None])
        return -(z * log_p).sum(-1, keepdim=True)

    return _loss(terms, target, weights, reduction)


# ---------------------------------------------------------------- gradients


def loss_value(cell, params, x, s0, loss_fn, lengths=None, activation=None, alpha=None):
    """Scalar tensor L, differentiable (any order) in whichever arguments are tensors."""
    s = states(cell, params, x, s0, lengths, activation, alpha)
    return _loss_of_states(cell, params, s, loss_fn, lengths, activation)


def _loss_of_states(cell, params, s, loss_fn, lengths, activation):
    """Scalar tensor L from the list s of T+1 states (B,S,n)."""
    y = torch.stack([readout(cell, params, s_t, activation) for s_t in s[1:]])  # y[T, B, p]
    return loss_fn(y, active_steps(*y.shape[:2], lengths))


def bptt(cell, params, x, s0, loss_fn, lengths=None, activation=None, alpha=None):
    """Dict of loss (float) and total derivatives: every param, x, s0, s (T+1,B,S,n) = dL/ds_t."""
    leaves = {name: tensor(a).detach().clone().requires_grad_() for name, a in params.items()}
    x, s0 = (tensor(a).detach().clone().requires_grad_() for a in (x, s0))
    s = states(cell, leaves, x, s0, lengths, activation, alpha)
    loss = _loss_of_states(cell, leaves, s, loss_fn, lengths, activation)
    wanted = [*leaves.values(), x, *s]
    found = torch.autograd.grad(loss, wanted, allow_unused=True)
    # None is torch's word for "no path to the loss", e.g. dL/ds_T where step T carries no weight.
    found = [np.zeros(a.shape) if g is None else g.numpy() for a, g in zip(wanted, found)]
    grads = dict(zip([*leaves, "x"], found))
    grads["s"] = np.stack(found[len(leaves) + 1 :])
    return {"loss": float(loss.detach()), **grads, "s0": grads["s"][0].copy()}


def jacobians(cell, params, x, s0, lengths=None, activation=None, alpha=None):
    """J (T,B,N,N), row = output, state order [s[0]; s[1]; ...]; identity at padded steps."""
    s = torch.stack(states(cell, params, x, s0, lengths, activation, alpha)[:-1])  # s[T, B, S, n]
    P, x, active, alpha = _tensors(params, x, lengths, alpha)
    T, B, S, n = s.shape

    def one_step(s, x):  # (N,), (m,) -> (N,)
        return step(cell, P, s.view(S, n), x, activation, alpha).reshape(-1)

    J = torch.func.vmap(torch.func.jacrev(one_step))(s.reshape(T * B, S * n), x.flatten(0, 1))
    J = J.reshape(T, B, S * n, S * n).detach().numpy()
    return np.where(active[..., None, None].numpy(), J, np.eye(S * n))


def product(J, t, k):
    """Φ(t,k) = J_t ... J_{k+1}, (B,N,N), by plain products of J (T,B,N,N); Φ(t,t) = I."""
    if not 0 <= k <= t <= J.shape[0]:
        raise ValueError("product needs 0 <= k <= t <= T")
    Phi = np.broadcast_to(np.eye(J.shape[-1]), J.shape[1:]).copy()  # Phi[B, N, N]
    for i in range(k + 1, t + 1):
        Phi = J[i - 1] @ Phi
    return Phi


def _flow(cell, params, x, s0, t, k, lengths, activation, alpha):
    """The map s_k -> s_t (tensors (B,S,n)) and the point s_k where it is linearised."""
    s_k = states(cell, params, x, s0, lengths, activation, alpha)[k].detach()
    P, x, active, alpha = _tensors(params, x, lengths, alpha)
    return lambda s: _advance(cell, P, s, x[k:t], active[k:t], activation, alpha)[-1], s_k


def jvp(cell, params, x, s0, v, t, k, lengths=None, activation=None, alpha=None):
    """Φ(t,k) v per sample, (B,S,n), for tangents v (B,S,n) at s_k; t = k+1 gives J_t v."""
    flow, s_k = _flow(cell, params, x, s0, t, k, lengths, activation, alpha)
    with warnings.catch_warnings():  # torch's forward mode warns about torch's own internals
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.func.jvp(flow, (s_k,), (tensor(v),))[1].detach().numpy()


def vjp(cell, params, x, s0, v, t, k, lengths=None, activation=None, alpha=None):
    """Φ(t,k)ᵀ v per sample, (B,S,n), for adjoints v (B,S,n) at s_t; t = k+1 gives J_tᵀ v."""
    flow, s_k = _flow(cell, params, x, s0, t, k, lengths, activation, alpha)
    return torch.func.vjp(flow, s_k)[1](tensor(v))[0].detach().numpy()


# ---------------------------------------------------------------- PyTorch modules


def to_torch_module(cell, params, activation=None, recurrent_bias_share=0.0):
    """torch.nn.RNN / LSTM / GRU (1 layer, float64) that computes what "vanilla"/"lstm"/"gru" does.

    PyTorch has two biases where one would do; bias_hh gets `recurrent_bias_share` of their sum.
    """
    W, U, b = (tensor(params[name]).detach() for name in ("W", "U", "b"))
    kind = {"vanilla": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[cell]
    options = {"nonlinearity": activation or "tanh"} if cell == "vanilla" else {}
    if cell != "vanilla" and activation not in (None, "tanh"):
        raise ValueError(f"torch.nn.{kind.__name__} knows only tanh")
    bias_hh, bias_ih = recurrent_bias_share * b, (1 - recurrent_bias_share) * b
    if cell == "gru":  # the candidate's biases lie on either side of the reset: no freedom there
        bias_ih = torch.stack([bias_ih[0], bias_ih[1], b[3]])
        bias_hh = torch.stack([bias_hh[0], bias_hh[1], b[2]])
    n, m = U.shape[1:]
    module = kind(m, n, num_layers=1, dtype=torch.float64, **options)
    weights = {"weight_ih_l0": U.reshape(-1, m), "weight_hh_l0": W.reshape(-1, n)}
    biases = {"bias_ih_l0": bias_ih.reshape(-1), "bias_hh_l0": bias_hh.reshape(-1)}
    module.load_state_dict(weights | biases)
    return module


def from_torch_state_dict(cell, state_dict, suffix="_l0"):
    """Params W, U, b of "vanilla"/"lstm"/"gru" from a state_dict (suffix "" for torch.nn.*Cell)."""
    gates = {"vanilla": 1, "lstm": 4, "gru": 3}[cell]  # lstm: i f g o; gru: r z n, as here
    weight_hh, weight_ih = (tensor(state_dict[f"weight_{k}{suffix}"]) for k in ("hh", "ih"))
    n, m = weight_hh.shape[1], weight_ih.shape[1]
    zero = torch.zeros(gates * n)  # a module made with bias=False has no biases stored
    bias_hh = tensor(state_dict.get(f"bias_hh{suffix}", zero)).reshape(gates, n)
    bias_ih = tensor(state_dict.get(f"bias_ih{suffix}", zero)).reshape(gates, n)
    b = bias_hh + bias_ih
    if cell == "gru":
        b = torch.stack([b[0], b[1], bias_hh[2], bias_ih[2]])
    params = {"W": weight_hh.reshape(gates, n, n), "U": weight_ih.reshape(gates, n, m), "b": b}
    return {name: a.detach().numpy().copy() for name, a in params.items()}
