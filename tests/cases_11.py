"""Answers to the exercises of notebook 11: right ones, and wrong ones with what must be said."""

import torch


def gradient(share, used, experts=None, tokens=None):
    f = used / used.sum()
    factor = (experts or share.shape[1]) / (tokens or len(share))
    return factor * share * (f - (f * share).sum(1, keepdim=True))


def unsubtracted(share, used):
    return share.shape[1] / len(share) * share * (used / used.sum())


def counts(share, used):
    used = used.double()
    return share.shape[1] / len(share) * share * (used - (used * share).sum(1, keepdim=True))


RIGHT = {  # a check -> answers that are right
    "two_experts": [(11,), (torch.tensor(11.0),)],
    "outside_experts": [(1.2,), (1.2003,)],
    "balance_gradient": [(gradient,), (lambda s, u: gradient(s, u).tolist(),)],
    "depends_on_experts": [(True, False, False)],
}
WRONG = {  # a check -> typical wrong answers, and what must be said
    "two_experts": [
        ((7.7,), "sum to less than 1"),
        ((14,), "one expert alone"),
        ((10.5,), "plain mean"),
        ((14.7,), "all experts speak"),
        ((25,), "not by what they return"),
        ((9,), "Choose by share"),
    ],
    "outside_experts": [
        ((3,), "all that a token uses"),
        ((27,), "leaves unused"),
        ((28.8,), "all experts hold"),
        ((1.8,), "uses of the experts"),
        ((1.125,), "whole model"),
        ((2,), "two equations"),
    ],
    "balance_gradient": [
        ((unsubtracted,), "rise alike"),
        ((lambda s, u: -gradient(s, u),), "Turned round"),
        ((lambda s, u: gradient(s, u, tokens=1),), "mean over the tokens"),
        ((lambda s, u: gradient(s, u, experts=1),), "loss begin"),
        ((counts,), "their number"),
        ((lambda s, u: 0 * s,), "0 everywhere"),
        ((lambda s, u: s - s.mean(1, keepdim=True),), "Follow one token"),
        ((lambda s, u: u,), "shape"),
    ],
    "depends_on_experts": [
        ((True, False, True), "seed by seed"),
        ((True, True, False), "second three"),
        ((False, False, False), "first three"),
        (("yes", False, False), "True or False"),
    ],
}
