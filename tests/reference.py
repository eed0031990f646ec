"""Slow, obvious NumPy truth for every cell: one sample, one step, one equation per line.

Nothing here is shared with the package under test. Sizes T B n m p S G and array shapes are those
of the specification: x (T,B,m), states (T+1,B,S,n), parameters with the gate axis first. Every
function keeps complex128 inputs complex, so tests can take complex steps h: f'(z) = Im f(z + ih)/h.
"""

import numpy as np

# ---------------------------------------------------------------- activations


def tanh(z):
    """Hyperbolic tangent of z (any shape)."""
    return np.tanh(z)


def logistic(z):
    """1/(1 + exp(-z)) of z (any shape)."""
    # For real z < -709 exp overflows to inf and the quotient is 0, which is the right answer.
    with np.errstate(over="ignore"):
        return 1.0 / (1.0 + np.exp(-z))


def relu(z):
    """z where its real part is positive, else 0 (any shape); derivative 0 at 0."""
    return np.where(np.real(z) > 0, z, 0.0 * z)


def identity(z):
    """z itself (any shape)."""
    return z


def softplus(z):
    """log(1 + exp(z)) of z (any shape)."""
    # Only exp of a non-positive real part is taken; np.logaddexp would refuse complex z.
    positive = np.real(z) > 0
    tail = np.log1p(np.exp(np.where(positive, -z, z)))
    return np.where(positive, z + tail, tail)


ACTIVATIONS = {
    "tanh": tanh,
    "logistic": logistic,
    "relu": relu,
    "identity": identity,
    "softplus": softplus,
}


# ---------------------------------------------------------------- one step of one sample
# Each takes (P, s, x, phi, alpha), P the dict of params, s (S,n), x (m,), and gives s' (S,n).


def _vanilla(P, s, x, phi, alpha):
    h = s[0]
    return np.stack([phi(P["W"][0] @ h + P["U"][0] @ x + P["b"][0])])


def _vanilla_s(P, s, x, phi, alpha):
    return np.stack([P["W"][0] @ phi(s[0]) + P["U"][0] @ x + P["b"][0]])


def _continuous(P, s, x, phi, alpha):
    drive = P["W"][0] @ phi(s[0]) + P["U"][0] @ x + P["b"][0]
    return np.stack([(1.0 - alpha) * s[0] + alpha * drive])


def _lstm(P, s, x, phi, alpha):
    W, U, b = P["W"], P["U"], P["b"]
    h, c = s
    i = logistic(W[0] @ h + U[0] @ x + b[0])
    f = logistic(W[1] @ h + U[1] @ x + b[1])
    v = phi(W[2] @ h + U[2] @ x + b[2])
    o = logistic(W[3] @ h + U[3] @ x + b[3])
    c_next = f * c + i * v
    h_next = o * phi(c_next)
    return np.stack([h_next, c_next])


def _gru(P, s, x, phi, alpha):
    W, U, b = P["W"], P["U"], P["b"]
    h = s[0]
    r = logistic(W[0] @ h + U[0] @ x + b[0])
    u = logistic(W[1] @ h + U[1] @ x + b[1])
    candidate = phi(r * (W[2] @ h + b[2]) + U[2] @ x + b[3])
    return np.stack([u * h + (1.0 - u) * candidate])


def _gru_reset_before(P, s, x, phi, alpha):
    W, U, b = P["W"], P["U"], P["b"]
    h = s[0]
    r = logistic(W[0] @ h + U[0] @ x + b[0])
    u = logistic(W[1] @ h + U[1] @ x + b[1])
    candidate = phi(P["W2"][0] @ (r * h) + P["U2"][0] @ x + P["b2"][0])
    return np.stack([u * h + (1.0 - u) * candidate])


def _gru_delayed(P, s, x, phi, alpha):
    W2, U2, b2 = P["W2"], P["U2"], P["b2"]
    h, u, r = s
    candidate = phi(P["U"][0] @ x + P["W"][0] @ (r * h) + P["b"][0])
    h_next = u * h + (1.0 - u) * candidate
    # The gates see the new h: they are one step late for the candidate, not for themselves.
    u_next = logistic(W2[0] @ h_next + U2[0] @ x + b2[0])
    r_next = logistic(W2[1] @ h_next + U2[1] @ x + b2[1])
    return np.stack([h_next, u_next, r_next])


def _gated_unit(P, s, x, phi, alpha):
    h, u = s
    candidate = phi(P["W"][0] @ h + P["U"][0] @ x + P["b"][0])
    h_next = u * h + (1.0 - u) * candidate
    u_next = logistic(P["W2"][0] @ h_next + P["U2"][0] @ x + P["b2"][0])
    return np.stack([h_next, u_next])


def _mgu(P, s, x, phi, alpha):
    h = s[0]
    f = logistic(P["W"][0] @ h + P["U"][0] @ x + P["b"][0])
    candidate = phi(P["W2"][0] @ (f * h) + P["U2"][0] @ x + P["b2"][0])
    return np.stack([(1.0 - f) * h + f * candidate])


def _mrnn(P, s, x, phi, alpha):
    factor = (P["U"][0] @ x) * (P["W"][0] @ s[0])
    return np.stack([phi(P["W2"][0] @ factor + P["U2"][0] @ x + P["b2"][0])])


def _linear(P, s, x, phi, alpha):
    return np.stack([P["W"][0] @ s[0] + P["U"][0] @ x + P["b"][0]])


# ---------------------------------------------------------------- table of cells


def _cell(
    advance,
    state,
    gates,
    biases=None,
    gates2=0,
    default_activation="tanh",
    output_is_activated=False,
    needs_alpha=False,
):
    """One row of CELLS; `gates`, `biases`, `gates2` are the lengths of the gate axes."""
    biases = gates if biases is None else biases

    def shapes(n, m):
        """Shapes of all recurrent parameters for n hidden units and m inputs."""
        table = {"W": (gates, n, n), "U": (gates, n, m), "b": (biases, n)}
        if gates2:
            table.update(W2=(gates2, n, n), U2=(gates2, n, m), b2=(gates2, n))
        return table

    return {
        "S": len(state),
        "state": state,
        "G": gates,
        "G2": gates2,
        "shapes": shapes,
        "default_activation": default_activation,
        "output_is_activated": output_is_activated,
        "needs_alpha": needs_alpha,
        "advance": advance,
    }


CELLS = {
    "vanilla": _cell(_vanilla, ("h",), 1),
    "vanilla_s": _cell(_vanilla_s, ("s",), 1, output_is_activated=True),
    "continuous": _cell(_continuous, ("s",), 1, output_is_activated=True, needs_alpha=True),
    "lstm": _cell(_lstm, ("h", "c"), 4),
    "gru": _cell(_gru, ("h",), 3, biases=4),
    "gru_reset_before": _cell(_gru_reset_before, ("h",), 2, gates2=1),
    "gru_delayed": _cell(_gru_delayed, ("h", "u", "r"), 1, gates2=2, default_activation="logistic"),
    "gated_unit": _cell(_gated_unit, ("h", "u"), 1, gates2=1),
    "mgu": _cell(_mgu, ("h",), 1, gates2=1),
    "mrnn": _cell(_mrnn, ("h",), 1, biases=0, gates2=1),
    "linear": _cell(_linear, ("h",), 1, default_activation="identity"),
}


def random_params(cell, n, m, p=0, rng=None, scale=1.0):
    """Random float64 params of `cell`: weights ~ scale N(0,1)/sqrt(fan-in), biases ~ scale N(0,1).

    rng is a seeded numpy Generator (None: seed 0). V (p,n) and c (p,) are there only for p > 0.
    """
    rng = np.random.default_rng(0) if rng is None else rng
    shapes = CELLS[cell]["shapes"](n, m)
    if p:
        shapes.update(V=(p, n), c=(p,))
    params = {}
    for name, shape in shapes.items():
        # Biases are not shrunk: a forgotten or doubled bias must show in every test.
        fan_in = 1 if name in ("b", "b2", "c") else max(shape[-1], 1)
        params[name] = scale / np.sqrt(fan_in) * rng.standard_normal(shape)
    return params


# ---------------------------------------------------------------- what tests call


def _activation(cell, activation):
    """The function named `activation`, or the cell's default for None."""
    return ACTIVATIONS[activation or CELLS[cell]["default_activation"]]


def step(cell, params, s, x, activation=None, alpha=None):
    """Next state (S,n) of ONE sample from its state s (S,n) and input x (m,)."""
    if CELLS[cell]["needs_alpha"] and alpha is None:
        raise ValueError(f"cell {cell!r} needs alpha, a number or an array (n,)")
    return CELLS[cell]["advance"](params, s, x, _activation(cell, activation), alpha)


def output(cell, s, activation=None):
    """Hidden output h (n,) of ONE sample with state s (S,n)."""
    if CELLS[cell]["output_is_activated"]:
        return _activation(cell, activation)(s[0])
    return s[0]


def readout(cell, params, s, activation=None):
    """Network output y of ONE sample with state s (S,n): V h + c (p,), or h (n,) without V."""
    h = output(cell, s, activation)
    return params["V"] @ h + params["c"] if "V" in params else h


def rollout(cell, params, x, s0, lengths=None, activation=None, alpha=None):
    """States (T+1,B,S,n) for x (T,B,m) from s0 (B,S,n); at t >= lengths[b] the state is copied."""
    T, B = x.shape[:2]
    lengths = np.full(B, T) if lengths is None else np.asarray(lengths)
    parts = [x, s0, *params.values()] + ([] if alpha is None else [alpha])
    states = np.empty((T + 1, *s0.shape), dtype=np.result_type(np.float64, *parts))
    states[0] = s0
    for t in range(T):
        for b in range(B):
            if t < lengths[b]:
                states[t + 1, b] = step(cell, params, states[t, b], x[t, b], activation, alpha)
            else:
                states[t + 1, b] = states[t, b]
    return states
