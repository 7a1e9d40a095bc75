"""Answers to the exercises of notebook 08: right ones, and wrong ones with what must be said."""

import math

import torch

ORDER = [0, 4, 1, 5, 2, 6, 3, 7]


def with_sigmoid(u1, u2, lambda_init):
    return (u1 - u2 + math.log(lambda_init / (1 - lambda_init))).sigmoid()


RIGHT = {  # a check -> answers that are right
    "pairing": [(1, -0.5), (torch.tensor(1.0), -0.5)],
    "head_order": [(ORDER,), (torch.tensor(ORDER),)],
    "norm_jacobian": [((1 / math.sqrt(5), 0),), ((0, 0.447),)],
    "bounded_lambda": [(with_sigmoid,)],
    "cure_verdicts": [(True, False)],
}
WRONG = {  # a check -> typical wrong answers, and what must be said
    "pairing": [
        ((2, -0.5), "second map is missing"),
        ((0.5, -0.5), "one mean, twice"),
        ((1, 1), "other group"),
        ((1, 4), "changed places"),
        ((1, 3), "minus λ times"),
    ],
    "head_order": [
        ((list(range(8)),), "changes nothing"),
        (([0, 2, 4, 6, 1, 3, 5, 7],), "has which partner"),
        (([4, 0, 5, 1, 6, 2, 7, 3],), "turned round"),
        (([1, 5, 0, 4, 2, 6, 3, 7],), "their order is not"),
        (([0, 0, 1, 1, 2, 2, 3, 3],), "occur once"),
        (([0, 1, 2],), "shape"),
    ],
    "norm_jacobian": [
        ((math.sqrt(5), 0), "RMS(c). A large"),
        ((1 / math.sqrt(10), 0), "1 / |c|"),
        ((0.447, 0.447), "Making c longer"),
        ((0.447, -0.447), "never negative"),
        ((1, 0), "over two channels"),
    ],
    "bounded_lambda": [
        ((lambda u1, u2, init: u1.exp() - u2.exp() + init,), "leaves 0 to 1"),
        ((lambda u1, u2, init: (u1 - u2 + init).sigmoid(),), "where does it start"),
        ((lambda u1, u2, init: (u1 - u2 + init).clamp(0, 1),), "cannot find back"),
        ((lambda u1, u2, init: torch.minimum(u1 - u2 + init, torch.ones(())),), "below 0"),
        ((0.8,), "function itself"),
    ],
    "cure_verdicts": [
        ((False, False), "first three"),
        ((True, True), "second three"),
        ((False, True), "other way round"),
        (("yes", False), "True or False"),
    ],
}
WRONG["norm_jacobian"] = [((pair,), says) for pair, says in WRONG["norm_jacobian"]]
