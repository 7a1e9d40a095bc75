"""Answers to the exercises of notebooks 02 and 02b, as in cases_01.py."""

import math
from collections import Counter

import torch


def rms(x):
    return x.square().mean(-1, keepdim=True).sqrt()


SIMPLEX = torch.eye(5, dtype=torch.float64) - 1 / 5
OPPOSED = SIMPLEX / rms(SIMPLEX)


def same(tokens):
    n = len(tokens)
    return sum(count * (count - 1) for count in Counter(tokens).values()) / (n * (n - 1))


def with_itself(tokens):
    return sum(count**2 for count in Counter(tokens).values()) / len(tokens) ** 2


def theorem(w, rho):
    return ((1 - rho) * w.square().sum(-1) + rho * w.sum(-1).square()).sqrt()


def right_rms(a_0, n):
    return (1 - a_0) / math.sqrt(n)


def right_token(s, n):
    return 1 / (1 + n * math.exp(s))


RIGHT = {
    "one_row": [(8 / 3, math.sqrt(3 / 8), 1), (2.667, 0.612, 1.0)],
    "needed_gap": [(lambda n: math.log(n - 1) + math.log(9),)],
    "sink": [(right_rms, right_token)],
    "opposed_values": [(OPPOSED,), (OPPOSED.tolist(),), (OPPOSED.float().numpy(),)],
    "same_token": [(same,)],
    "without_sink": [(lambda w, rho: theorem(w[..., 1:], rho),)],
    "leaning_values": [(-1 / 3, 1 / math.sqrt(12), 1 / 2), (torch.tensor(-0.333), 0.2887, 0.5)],
    "norm_growth": [([3.6, 4.8, 4.5], [3.6, 5.6, 8.7])],
}
WRONG = {
    "one_row": [
        ((3 / 8, 0.612, 1), "|a|² itself"),
        ((3, 0.612, 1), "weights were equal"),
        ((4, 0.612, 1), "more than a uniform"),
        ((2, 0.612, 1), "Square each weight"),
        ((0.5, 0.612, 1), "fewer than"),
        ((8 / 3, 3 / 8, 1), "square of the RMS"),
        ((8 / 3, 0.7, 1), "The tokens are right"),
        ((8 / 3, 0.612, 0.612), "one vector"),
    ],
    "needed_gap": [
        ((lambda n: math.log(n - 1),), "weight ½"),
        ((lambda n: math.log(n - 1) + 1,), "too small"),
        ((lambda n: 100.0,), "too large"),
        ((lambda n: 10 * n,), "too large"),
        ((lambda n: None,), "return"),
        ((4.9,), "function itself"),
    ],
    "sink": [
        ((lambda a, n: math.sqrt(a * a + (1 - a) ** 2 / n), right_token), "zero token"),
        ((lambda a, n: n**-0.5, right_token), "ignore a_0"),
        ((lambda a, n: (1 - a) ** 2 / n, right_token), "square of the RMS"),
        ((lambda a, n: math.sqrt((1 - a) / n), right_token), "another length"),
        ((right_rms, lambda s, n: 1 - right_token(s, n)), "other tokens"),
        ((right_rms, lambda s, n: 1 / (1 + math.exp(s))), "sum to 1"),
        ((right_rms, lambda s, n: 1.5), "no weight"),
    ],
    "opposed_values": [
        ((torch.eye(5),), "can be lower"),
        ((torch.ones(5, 5),), "agree more"),
        ((SIMPLEX,), "RMS 1"),
        ((torch.zeros(5, 5),), "zero"),
        ((OPPOSED[:4],), "shape"),
        (("x",), "must be numbers"),
    ],
    "same_token": [
        ((with_itself,), "with itself"),
        ((lambda tokens: len(set(tokens)) / len(tokens),), "by hand"),
        ((lambda tokens: 0.06,), "by hand"),
        ((lambda tokens: None,), "return"),
    ],
    "without_sink": [
        ((theorem,), "still counts"),
        ((lambda w, rho: theorem(w[:, 1:] / w[:, 1:].sum(-1, keepdim=True), rho),), "share it out"),
        ((lambda w, rho: theorem(w[:, 1:], rho) ** 2,), "square of the RMS"),
        ((lambda w, rho: theorem(w[:, 1:], 0),), "Which sums"),
        ((lambda w, rho: theorem(w[:, :-1], rho),), "Which sums"),
    ],
    "leaning_values": [
        ((0, 0.559, 0.5), "i ≠ j"),
        ((1 / 3, 0.7, 0.5), "Count them"),
        ((-1 / 4, 0.3, 0.5), "how many pairs"),
        ((-1 / 3, math.sqrt(20 / 64), 0.5), "another ρ"),
        ((-1 / 3, 1 / 12, 0.5), "take the root"),
        ((-1 / 3, 0.4, 0.5), "weights sum"),
        ((-1 / 3, 0.2887, 0.25), "not its square"),
        ((-1 / 3, 0.2887, 1), "signs and all"),
        ((-1 / 3, 0.2887, -0.5), "never negative"),
    ],
    "norm_growth": [
        (([3.6, 5.6, 8.7], [3.6, 4.8, 4.5]), "are the tokens"),
        (([3, 5, 11], [3, 4, 6]), "grow less"),
        (([0.3, 0.2, 0.2], [0.3, 0.2, 0.1]), "below 1"),
        (([1, 2], [1, 2, 3]), "shape"),
        (([1, -2, 3], [1, 2, 3]), "positive"),
    ],
}
