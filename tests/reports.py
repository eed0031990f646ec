"""Small networks and inputs to report on."""

import numpy as np

import rnngrad as rg


def network(cell="lstm", n=4, m=2, **options):
    return rg.Network.init(cell, m, n, 1, seed=0, **options)


def sequence(T=60, B=2, m=2, seed=0):
    return np.random.default_rng(seed).standard_normal((T, B, m))
