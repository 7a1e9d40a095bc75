"""Answers to the exercises of notebook 03, as in cases_01.py."""

import copy
import functools

import torch

from minidiff import data
from minidiff.course.example import PROMPT
from minidiff.runs import load_pretrained
from minidiff.variants.ablations import DiffAblation, DiffNoSigmoidAttention

N, LAM = 16, 0.8
UNIFORM, EYE = torch.full((N,), 1 / N), torch.eye(N)
A2 = torch.arange(1.0, 17) / torch.arange(1.0, 17).sum()
LOW = ((1 - LAM) / N + LAM * A2, A2)
HIGH = (EYE[0], EYE[5])


def best(a1, a2):
    return (a1 @ a2) / (a2 @ a2)


def derivatives(a1, a2, z):
    lam = z.sigmoid()
    return 1.0, -lam, -lam * (1 - lam) * a2


class Tanh(DiffAblation):
    def subtract(self, attn, x):
        return attn[:, :, 0::2] - self.lambda_proj(x).tanh().unsqueeze(-1) * attn[:, :, 1::2]


class Sigmoid(DiffAblation):
    def subtract(self, attn, x):
        return attn[:, :, 0::2] - self.lambda_proj(x).sigmoid().unsqueeze(-1) * attn[:, :, 1::2]


class Added(DiffAblation):
    def subtract(self, attn, x):
        return attn[:, :, 0::2] + self.lambda_proj(x).tanh().unsqueeze(-1) * attn[:, :, 1::2]


@functools.cache
@torch.no_grad()
def rises():
    """Only the heads that the check looks at are measured."""
    model, idx = load_pretrained("diff_v2"), data.encode(PROMPT[:200])
    base = model(idx[:, :-1], idx[:, 1:])[1].item()
    found = torch.zeros(model.config.n_layer, model.config.n_head)
    for layer, head in ((0, 3), (4, 1)):
        changed = copy.deepcopy(model)
        project = changed.blocks[layer].attn.lambda_proj
        project.register_forward_hook(functools.partial(off, head))
        found[layer, head] = changed(idx[:, :-1], idx[:, 1:])[1].item() - base
    return found


def off(head, module, x, logit):
    logit[..., head] = -30
    return logit


RIGHT = {
    "both_ends": [(LOW, HIGH), ((LOW[0].tolist(), LOW[1].tolist()), HIGH)],
    "quietest_lambda": [(best,)],
    "who_learns": [(derivatives,)],
    "own_variant": [(Tanh, 0.0, 2.0)],
    "silenced_head": [(rises(),)],
}
WRONG = {
    "both_ends": [
        (((UNIFORM, UNIFORM), HIGH), "not uniform"),
        (((UNIFORM, A2), HIGH), "the bound is"),
        ((LOW, (EYE[0], EYE[0])), "highest"),
        (((LAM * A2, A2), HIGH), "sums to"),
        ((LOW, (EYE[0], -EYE[1])), "negative"),
    ],
    "quietest_lambda": [
        ((lambda a1, a2: a1 @ a2,), "whole derivative"),
        ((lambda a1, a2: a1 @ a2 / (a1 @ a1),), "which row"),
        ((lambda a1, a2: a1 @ a2 / (a1.norm() * a2.norm()),), "cosine"),
        ((lambda a1, a2: 0.5,), "can be had"),
        ((lambda a1, a2: None,), "return"),
    ],
    "who_learns": [
        ((lambda a1, a2, z: (1, z.sigmoid(), 0),), "sign"),
        ((lambda a1, a2, z: (1, -z.sigmoid(), -a2),), "sigmoid of z"),
        ((lambda a1, a2, z: (1, -z.sigmoid(), -z.sigmoid() * (1 - z.sigmoid())),), "missing"),
        ((lambda a1, a2, z: (a1, -z.sigmoid(), 0.0),), "to a1"),
        ((lambda a1, a2, z: (1, -z, 0.0),), "to a2"),
        ((lambda a1, a2, z: (1, -z.sigmoid(), -z.sigmoid() * a2),), "with respect to z"),
    ],
    "own_variant": [
        ((Sigmoid, 0, 2), "still a sigmoid"),
        ((DiffNoSigmoidAttention, 0, 2), "raw logit"),
        ((Added, 0, 2), "turned"),
        ((Tanh, 0, 2**0.5), "λ ≥ 0"),
        ((Tanh, -1, 2), "Lower end"),
        ((Tanh, 0, 4), "Upper end"),
        ((lambda config: torch.nn.Linear(2, 2), 0, 2), "Subclass"),
    ],
    "silenced_head": [
        ((-rises(),), "wrong sign"),
        ((rises() + 0.55,), "look like losses"),
        ((torch.zeros(7, 4),), "is not what"),
        ((torch.zeros(4, 7),), "shape"),
    ],
}
