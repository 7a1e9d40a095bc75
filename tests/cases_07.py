"""Answers to the exercises of notebook 07: right ones, and wrong ones with what must be said."""

import math

import numpy as np
from scipy import stats


def power_with(quantile, trials=20_000):
    def power(n):
        d = np.random.default_rng(0).normal(-0.01, 0.007, size=(trials, n))
        half = quantile(n) * d.std(axis=1, ddof=1) / math.sqrt(n)
        return (d.mean(axis=1) + half < 0).mean()

    return power


def best(model, choose=np.mean):
    return min(choose(losses) for losses in model.values())


def mean_at(model, lr):
    return float(np.mean(model[lr]))


def ends(half):
    return [5 - half, 5 + half]


HALF = 4.303 * math.sqrt(13) / math.sqrt(3)
RIGHT = {  # a check -> answers that are right
    "interval_of_three": [(ends(HALF), False), ([-3.96, 13.96], False)],
    "sign_test": [(2 / 64, 6), (0.03125, 6.0)],
    "best_difference": [(lambda one, other: best(one) - best(other),)],
    "power": [(power_with(lambda n: stats.t.ppf(0.975, n - 1)),)],
    "equal_time": [(1250, False), (1250.0, False)],
}
WRONG = {  # a check -> typical wrong answers, and what must be said
    "interval_of_three": [
        ((ends(HALF * 1.96 / 4.303), False), "many values"),
        ((ends(HALF * math.sqrt(3)), False), "scatters less"),
        ((ends(HALF * math.sqrt(2 / 3)), False), "n - 1"),
        ((ends(HALF), True), "Where is 0"),
        (([4 - HALF, 4 + HALF], False), "middle"),
        ((ends(-HALF), False), "comes first"),
        ((ends(1), False), "in steps"),
    ],
    "sign_test": [
        ((1 / 64, 6), "other side would surprise"),
        ((6 / 64, 6), "one way"),
        ((0.05, 6), "multiply halves"),
        ((2 / 64, 4), "so few"),
        ((2 / 64, 9), "Fewer are enough"),
        ((2, 6), "probability"),
    ],
    "best_difference": [
        ((lambda one, other: best(other) - best(one),), "sign"),
        ((lambda one, other: best(one, min) - best(other, min),), "lucky seed"),
        ((lambda one, other: mean_at(one, 0.001) - mean_at(other, 0.001),), "of the first"),
        ((lambda one, other: mean_at(one, 0.003) - mean_at(other, 0.003),), "of the second"),
        ((lambda one, other: 0.0,), "it returns 0"),
        ((lambda one, other: -0.04,), "Swapped"),
        ((0.04,), "function itself"),
    ],
    "power": [
        ((power_with(lambda n: 1.96),), "1.96 is for many"),
        ((power_with(lambda n: stats.t.ppf(0.95, n - 1)),), "both ends"),
        ((lambda n: 0.01,), "it is not 1%"),
        ((lambda n: 95,), "between 0 and 1"),
    ],
    "equal_time": [
        ((800, False), "faster one"),
        ((1200, False), "a fifth"),
        ((1250, True), "steps or hours"),
        ((1000, False), "tokens/s"),
    ],
}
