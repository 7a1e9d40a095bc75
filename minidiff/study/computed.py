"""Numbers of the claims that no training run gives: from theory, and from the file of the CPU."""

import itertools
import math

import torch

from minidiff import theory


def outside_the_bounds(n=64, draws=500):
    """Share of random attention rows whose expected RMS leaves the published ranges."""
    generator = torch.Generator().manual_seed(0)
    scores = 4 * torch.randn(draws, 2, n, dtype=torch.float64, generator=generator)
    sharp = 10 ** torch.linspace(-2, 2, draws, dtype=torch.float64)[:, None, None]
    first, second = (scores * sharp).softmax(-1).unbind(1)  # from uniform to one-hot
    lam = torch.rand(draws, 1, dtype=torch.float64, generator=generator)
    softmax, diff = theory.expected_rms(first), theory.expected_rms(first - lam * second)
    low, high = theory.rms_bounds(n)
    out = (softmax < low - 1e-9) | (softmax > high + 1e-9) | (diff <= 0) | (diff > math.sqrt(2))
    return out.double().mean().item()


def without_lambda(n=1024):
    """RMS of uniform maps subtracted in full, over that of softmax: (1 - lam) at lam = 1."""
    return theory.rms_bounds(n, 1.0)[0] / theory.rms_bounds(n)[0]


def two_one_hot_maps(lam=8.0):
    """RMS of two disjoint one-hot maps with a lambda that no sigmoid bounds."""
    return theory.expected_rms(torch.tensor([1.0, -lam])).item()


def v1_exponents(data):
    """Powers of n with which V1's norm magnifies the gradient, between neighbouring lengths."""
    rows = [(r["n"], r["diff_v1"] / r["diff_v1_no_norm"]) for r in data["v1_gradients"]]
    return [math.log(y / x) / math.log(m / n) for (n, x), (m, y) in itertools.pairwise(rows)]


def rounding_of_heads(data):
    """Relative error in bfloat16 of what enters W_O, DIFF V2 minus softmax, of each layer."""
    pair = (data["rounding"][name] for name in ("diff_v2", "softmax_1.5h"))
    return [ours["heads"] - theirs["heads"] for ours, theirs in zip(*pair, strict=True)]


def start_without_lambda(data):
    """Context RMS of untrained models, without lambda minus DIFF V2, of each seed."""
    found = (data["initial_rms"][name] for name in ("diff_no_lambda", "diff_v2"))
    values = [v if isinstance(v, list) else [v] for v in found]  # once a single number
    return [a - b for a, b in zip(*values, strict=True)]
