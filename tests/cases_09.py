"""Answers to the exercises of notebook 09: right ones, and wrong ones with what must be said."""

import torch

WEIGHTS = (1 / 2, 0, -1 / 8, 1 / 8)


def edges(q, k, block):
    parts = k.unflatten(0, (-1, block))
    return (q[:, None] * edge for edge in (parts.amin(1), parts.amax(1)))


def quest(q, k, block):
    return torch.maximum(*edges(q, k, block)).sum(-1)


def by_parts(q, k, block):
    low, high = k.unflatten(0, (-1, block)).aminmax(dim=1)
    return q.clamp(min=0) @ high.T + q.clamp(max=0) @ low.T


RIGHT = {  # a check -> answers that are right
    "block_costs": [(1024, 1024, 64), (1024, 1023, 64.0)],
    "split_pair": [(WEIGHTS, 0.5), (torch.tensor(WEIGHTS), 1 / 2)],
    "quest_score": [(quest,), (by_parts,)],
    "causal_choices": [("AC",), ("c, a",)],
}
WRONG = {  # a check -> typical wrong answers, and what must be said
    "block_costs": [
        ((65536, 1024, 64), "does not see them all"),
        ((16, 1024, 64), "has a block"),
        ((960, 1024, 64), "all chosen blocks"),
        ((1024, 16, 64), "before some are chosen"),
        ((1024, 65536, 64), "into how many blocks"),
        ((1024, 1024, 256), "not one"),
        ((1024, 1024, 128), "smallest"),
    ],
    "split_pair": [
        (((0.3, 0, 0.1, 0.1), 0.5), "dense"),
        (((0.4, 0, -0.1, 0.1), 0.4), "sums to less"),
        (((0, 1 / 6, 0, 1 / 3), 0.5), "not both"),
        (((0.5, -0.25, -0.25, 0), 0), "multiplied by"),
        (((0.5, 0.5, 0.125, 0.375), 1.5), "taken away"),
        (((0.5, 0.05, -0.1, 0.15), 0.5), "Rescale each"),
        ((WEIGHTS, 1), "Add them up"),
        (((1, 2), 0.5), "shape"),
    ],
    "quest_score": [
        ((lambda q, k, b: q @ k.unflatten(0, (-1, b)).mean(1).T,), "mean key"),
        ((lambda q, k, b: (q @ k.T).unflatten(1, (-1, b)).amax(2),), "all keys"),
        ((lambda q, k, b: q @ k.unflatten(0, (-1, b)).amax(1).T,), "smallest value"),
        ((lambda q, k, b: q @ k.unflatten(0, (-1, b)).amin(1).T,), "largest value"),
        ((lambda q, k, b: torch.maximum(*(e.sum(-1) for e in edges(q, k, b))),), "by channel"),
        ((lambda q, k, b: torch.minimum(*edges(q, k, b)).sum(-1),), "smallest q·k"),
        ((lambda q, k, b: torch.maximum(*edges(q, k, b)).mean(-1),), "not a mean"),
        ((lambda q, k, b: 2 * quest(q, k, b),), "larger product"),
        ((lambda q, k, b: quest(q, k, b).T,), "shape"),
    ],
    "causal_choices": [
        (("ABC",), "B again"),
        (("ACD",), "D again"),
        (("C",), "left out A"),
        (("A",), "left out C"),
        (("ACX",), "There are"),
        ((["A", "C"],), "as a text"),
    ],
}
