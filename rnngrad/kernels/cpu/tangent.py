"""Products of Jacobians from the right: many tangent columns carried forward through time at once."""

from .chain import carry


def tangent_chain(out, exponents, v, exponent, sample, t_from, dz, dz2, system):
    """Carry v[R, S, n] (with exponent[R]) from state t_from on; out[d], exponents[d] hold it d + 1 steps later.

    v_t = J_t v_{t-1} + (what a change of the pre-activations adds). dz[D, R, P, n], dz2[D, R, P2, n] are changes of the
    pre-activations at each step, or have D = 0: none. With changes given, no exponent is taken out (the caller adds
    quantities of one scale), and dz, dz2 hold the tangents of the pre-activations on return.
    """
    carry(True, out, exponents, v, exponent, sample, t_from, dz, dz2, system)
