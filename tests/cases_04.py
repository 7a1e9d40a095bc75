"""Answers to the exercises of notebook 04, as in cases_01.py."""

import math

import torch

from minidiff import attention_weights, data
from minidiff.course.example import PROMPT
from minidiff.look import probe
from minidiff.model import SoftmaxAttention
from minidiff.runs import load_pretrained


def score(eps, n):
    return math.log(eps / (1 - eps)) - math.log(n)


A = torch.zeros(64, 64)
A[0, 0] = 1
A[1:, 0], A[1:, 1] = 0.1, 0.9
ON_BOS = torch.zeros(64, 64)
ON_BOS[:, 0] = 1


class Clipped(SoftmaxAttention):
    def branches(self, q, k):
        return (1.1 * attention_weights(q, k) - 0.1).clamp(0, 1)

    def mix(self, q, k, v, x, n_keys=None):
        v = v.repeat_interleave(q.shape[2] // v.shape[2], dim=2)
        return torch.einsum("bhts,bshd->bthd", self.branches(q, k), v)


class Shifted(Clipped):
    def branches(self, q, k):
        return (attention_weights(q, k) - 0.1).clamp(0, 1)


class NotCut(Clipped):
    def branches(self, q, k):
        return 1.1 * attention_weights(q, k) - 0.1


class Positive(Clipped):
    def branches(self, q, k):
        return (0.9 * attention_weights(q, k) + 0.1).clamp(0, 1)


class NotUsed(SoftmaxAttention):
    branches = Clipped.branches


def shares(w):
    late = w[:, 64:]
    ways = (
        late[..., 0],
        late[..., 0] / late.sum(-1),
        late[..., 0].abs() / late.abs().sum(-1),
    )
    return [way.mean(-1) for way in ways]


def all_queries(w):
    return w[..., 0].mean(-1), *shares(w)[1:]


def signed(w):
    late = w[:, 64:]
    return *shares(w)[:2], (late[..., 0] / late.abs().sum(-1)).mean(-1)


def measured():
    idx, shares, rises, losses = data.encode(PROMPT[:300]), [], [], []
    for name in ("softmax_1.5h", "diff_v2"):
        model = load_pretrained(name)
        table = probe.probe(model, idx[:, 1:])
        shares.append(max(row["first_share_eff"] for row in table))
        with torch.no_grad():
            pair = [model(x[:, :-1], x[:, 1:])[1].item() for x in (idx, idx[:, 1:])]
        rises.append(pair[1] - pair[0])
        losses.append(pair[1])
    return shares, rises, losses


SHARES, RISES, LOSSES = measured()

RIGHT = {
    "silent_score": [(score,)],
    "hidden_sink": [(A, "top_share_eff"), (A.tolist(), "top_share_a1")],
    "without_bos": [(SHARES, RISES)],
    "clipped": [(Clipped,)],
    "three_shares": [(shares,)],
}
WRONG = {
    "silent_score": [
        ((lambda eps, n: -score(eps, n),), "which way"),
        ((lambda eps, n: math.log(eps / n),), "share of the whole"),
        ((lambda eps, n: math.log(eps / (1 - eps)),), "each word"),
        ((lambda eps, n: -5.0,), "together"),
        ((lambda eps, n: None,), "return"),
    ],
    "hidden_sink": [
        ((ON_BOS, "top_share_eff"), "sees this one"),
        ((A, "first_share_eff"), "sees token 0"),
        ((A, "entropy"), "name one token"),
        ((A, "top_share_a2"), "second map"),
        ((A, "tops"), "no column"),
        ((torch.full((64, 64), 1 / 64), "top_share_eff"), "causal"),
        ((torch.eye(64), "top_share_eff"), "Only"),
        ((A / 2, "top_share_eff"), "sum to one"),
    ],
    "without_bos": [
        (([0.2, SHARES[1]], RISES), "not this"),
        ((SHARES, LOSSES), "loss itself"),
        ((SHARES, [-rise for rise in RISES]), "does not fall"),
        ((SHARES, [RISES[0] + 0.1, RISES[1]]), "otherwise"),
        ((0.1, RISES), "shape"),
    ],
    "clipped": [
        ((SoftmaxAttention,), "plain softmax"),
        ((NotCut,), "clip is missing"),
        ((Shifted,), "do not stretch"),
        ((Positive,), "is negative"),
        ((NotUsed,), "does not use"),
    ],
    "three_shares": [
        ((all_queries,), "before 64"),
        ((signed,), "cancel"),
        ((lambda w: shares(w)[:2],), "three tensors"),
        ((lambda w: [shares(w)[i] for i in (1, 0, 2)],), "raw: the numbers"),
    ],
}
