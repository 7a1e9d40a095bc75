"""Answers to the exercises of notebook 01: right ones, and wrong ones with what must be said."""

import torch

from minidiff import attention
from minidiff.course.example import A1, A2, VALUES
from minidiff.model import rotate

W = A1 - 0.8 * A2


def pairs(change):
    return lambda a, lam: change(a[:, 0::2], a[:, 1::2], lam[..., None])


class Layer(torch.nn.Module):
    """DIFF V2, and what a student may get wrong in it."""

    factor, lambda_heads, sigmoid, halves, unused = 2, 1, True, False, False

    def __init__(self, D, h, h_kv, d):
        super().__init__()
        self.d = d
        self.q_proj = torch.nn.Linear(D, self.factor * h * d, bias=False)
        self.k_proj = torch.nn.Linear(D, h_kv * d, bias=False)
        self.v_proj = torch.nn.Linear(D, h_kv * d, bias=False)
        self.o_proj = torch.nn.Linear(h * d, D, bias=False)
        if self.lambda_heads:
            self.lambda_proj = torch.nn.Linear(D, self.lambda_heads * h, bias=False)
        if self.unused:
            self.extra = torch.nn.Linear(1, 1, bias=False)

    def forward(self, x, rope):
        projections = self.q_proj, self.k_proj, self.v_proj
        q, k, v = (p(x).unflatten(-1, (-1, self.d)) for p in projections)
        a = attention(rotate(q, rope), rotate(k, rope), v)
        logit = self.lambda_proj(x)[..., None]
        return self.o_proj(self.subtract(a, logit).flatten(2))

    def subtract(self, a, logit):
        lam, h = logit.sigmoid() if self.sigmoid else logit, a.shape[2] // 2
        if self.halves:
            return a[:, :, :h] - lam * a[:, :, h:]
        return a[:, :, 0::2] - lam * a[:, :, 1::2]


def layer(**changes):
    return type("Changed", (Layer,), changes)


def order(n):  # 0, n/2, 1, n/2 + 1, ...
    return torch.arange(n).unflatten(0, (2, -1)).T.flatten().tolist()


def swapped(d):
    return [order(d)[i ^ 1] for i in range(d)]


def other_pairs(d):
    return order(d)[2:] + order(d)[:2]


def weighted(power):
    def constant(lam, a):
        size = a.norm(dim=1, keepdim=True) ** power
        return (lam * size).sum() / size.sum()

    return constant


RIGHT = {  # a check -> answers that are right
    "one_output": [(W, W @ VALUES), ([-0.15, 0.3, 0.05], [0.2, -0.4, 0.1, -0.5])],
    "pair_step": [
        (pairs(lambda a, b, lam: a - lam * b),),
        (
            lambda a, lam: torch.stack(
                [a[:, 2 * i] - lam[:, i, None] * a[:, 2 * i + 1] for i in range(3)], 1
            ),
        ),
    ],
    "attention_layer": [(Layer,)],
    "kv_head": [
        (lambda j, h, h_kv: j // (2 * h // h_kv),),
        (lambda j, h, h_kv: j * h_kv // (2 * h),),
    ],
    "repaired_order": [(lambda h: order(2 * h),), (lambda h: torch.tensor(order(2 * h)),)],
    "best_constant": [(weighted(2),)],
    "saving": [((0.2 - 1 / 128) / 0.4, 8), (0.48, 8)],
    "channel_order": [(order,), (lambda d: torch.tensor(order(d)),)],
}
WRONG = {  # a check -> typical wrong answers, and what must be said
    "one_output": [
        ((A1 - 0.5 * A2, CONTEXT := (A1 - 0.5 * A2) @ VALUES), "λ has changed"),
        ((W.clamp(min=0), CONTEXT), "may be negative"),
        ((W / W.sum(), CONTEXT), "Nothing is normalised"),
        ((A1 + 0.8 * A2, CONTEXT), "sum to 1.8"),
        (([0.1, 0.05, 0.05], CONTEXT), "each token again"),
        ((W, A1 @ VALUES), "context of a1"),
        ((W, CONTEXT), "channel"),
        ((W, W), "shape"),
    ],
    "pair_step": [
        ((pairs(lambda a, b, lam: a - b),), "no effect"),
        ((pairs(lambda a, b, lam: a + lam * b),), "adds"),
        ((pairs(lambda a, b, lam: b - lam * a),), "changed places"),
        ((pairs(lambda a, b, lam: a - lam.sigmoid() * b),), "no sigmoid"),
        ((lambda a, lam: a[:, :3] - lam[..., None] * a[:, 3:],), "head i + h"),
        ((pairs(lambda a, b, lam: (a - lam * b).detach()),), "No gradient"),
        ((pairs(lambda a, b, lam: a - lam.detach() * b + 0 * lam),), "gradient to λ"),
        ((pairs(lambda a, b, lam: a.detach() + 0 * a - lam * b),), "gradient to a"),
        ((pairs(lambda a, b, lam: a - 2 * lam * b),), "Which heads"),
        ((lambda a, lam: a[:, 0::2] - lam * a[:, 1::2],), "RuntimeError"),
        ((lambda a, lam: None,), "return"),
        ((lambda a, lam: a,), "shape"),
    ],
    "attention_layer": [
        ((layer(lambda_heads=0),), "no lambda_proj"),
        ((layer(factor=1),), "how many heads"),
        ((layer(lambda_heads=2),), "how many heads"),
        ((layer(unused=True),), "too many"),
        ((layer(halves=True),), "i + h"),
        ((layer(sigmoid=False),), "logit"),
        ((layer(subtract=lambda self, a, logit: a[:, :, 0::2]),), "subtraction"),
        ((layer(subtract=lambda self, a, logit: None),), "AttributeError"),
        ((layer(forward=lambda self, x, rope: None),), "return"),
    ],
    "kv_head": [
        ((lambda j, h, h_kv: j // (h // h_kv),), "disagrees"),
        ((lambda j, h, h_kv: h_kv,), "There is no key/value head"),
        ((lambda j, h, h_kv: j % h_kv,), "disagrees"),
        ((lambda j, h, h_kv: j * h_kv / (2 * h),), "whole"),
        ((lambda j, h, h_kv: None,), "return"),
        ((3,), "function itself"),
    ],
    "repaired_order": [
        ((lambda h: list(range(2 * h)),), "changes nothing"),
        ((lambda h: list(range(0, 2 * h, 2)) + list(range(1, 2 * h, 2)),), "side by side"),
        ((lambda h: [order(2 * h)[i ^ 1] for i in range(2 * h)],), "which of them"),
        ((lambda h: other_pairs(2 * h),), "order of the pairs"),
        ((lambda h: [0, h, 1],), "occur once"),
        ((lambda h: h,), "occur once"),
    ],
    "best_constant": [
        ((weighted(0),), "plain mean"),
        ((weighted(1),), "lengths"),
        ((lambda lam, a: 0.9,), "smaller constant"),
        ((lambda lam, a: 0.0,), "larger constant"),
        ((lambda lam, a: lam,), "one number"),
    ],
    "saving": [
        ((0.5, 16), "d → ∞"),
        ((0.3, 8), "the saving is 21"),
        ((0.48, 16), "above it"),
        ((0.48, 4), "larger divisor"),
        ((0.48, 10), "must divide"),
        ((-1, 8), "positive"),
    ],
    "channel_order": [
        ((lambda d: list(range(d)),), "changes nothing"),
        ((swapped,), "other way"),
        ((lambda d: list(range(0, d, 2)) + list(range(1, d, 2)),), "partners"),
        ((other_pairs,), "frequency"),
        ((lambda d: [0] * d,), "occur once"),
    ],
}
