"""Answers to the exercises of notebook 00: right ones, and wrong ones with what must be said."""

import torch

RIGHT = {  # a check -> answers that are right
    "weight_zero": [(2, False), (torch.tensor(2.0), False)],
    "differential_step": [(lambda a1, a2, lam: a1 - lam * a2,)],
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
        ((lambda a1, a2, lam: a1 + lam * a2,), "adds the second map"),
        ((lambda a1, a2, lam: a1 - a2,), "nothing is subtracted"),
        ((lambda a1, a2, lam: (a1 - lam * a2) / (1 - lam),), "sum to 1"),
        ((lambda a1, a2, lam: (a1 - lam * a2).clamp(min=0),), "sum to"),
        ((lambda a1, a2, lam: (a1 - lam * a2).sum(),), "shape"),
        ((lambda a1, a2: a1 - a2,), "TypeError"),
        ((lambda a1, a2, lam: None,), "return"),
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
