"""Answers to the exercises of notebook 00: right ones, and wrong ones with what must be said."""

import math

import torch


def step(weights):
    return lambda a1, a2, lam_logit, values: weights(a1, a2, lam_logit.sigmoid()) @ values


RIGHT = {  # a check -> answers that are right
    "weight_zero": [(2, False), (torch.tensor(2.0), False)],
    "differential_step": [
        (step(lambda a1, a2, lam: a1 - lam * a2),),
        (lambda a1, a2, z, v: (a1 @ v - a2 @ v / (1 + math.exp(-z))).tolist(),),
    ],
    "copied_byte": [(2,), (2.0,)],
}
WRONG = {  # a check -> typical wrong answers, and what must be said
    "weight_zero": [
        ((0.5, False), "has the weight 0.375"),  # takes A away, not B
        ((-2, False), "adds the second map"),
        ((2, True), "sigmoid"),
        (("two", False), "one number"),
        ((2, "no"), "True or False"),
        ((float("inf"), False), "division by 0"),
    ],
    "differential_step": [
        ((step(lambda a1, a2, lam: a1 + lam * a2),), "adds the second map"),
        ((step(lambda a1, a2, lam: a1),), "a1 alone"),
        ((step(lambda a1, a2, lam: a1 - a2),), "where is λ"),
        ((step(lambda a1, a2, lam: (a1 - lam * a2) / (1 - lam)),), "sum to 1"),
        ((step(lambda a1, a2, lam: (a1 - lam * a2).clamp(min=0)),), "keep its sign"),
        ((step(lambda a1, a2, lam: a2 - lam * a1),), "section 1"),
        ((lambda a1, a2, z, v: (a1 - z * a2) @ v,), "logit itself"),
        ((lambda a1, a2, z, v: a1 - z.sigmoid() * a2,), "shape (5,)"),
        ((lambda a1, a2, lam: a1 - lam * a2,), "TypeError"),
        ((lambda a1, a2, z, v: None,), "return"),
        ((0.5,), "function itself"),
    ],
    "copied_byte": [
        ((1,), "earlier c"),
        ((10,), "query itself"),
        ((0,), "BOS"),
        ((3,), "stands 't'"),
        ((11,), "run from 0"),
        ((1.5,), "whole number"),
        (("a",), "one number"),
    ],
}
