"""Answers to the exercises of notebook 06: right ones, and wrong ones with what must be said."""

import torch

DV = (11 / 16, 1 / 16)


def merge(first, second):
    m = torch.maximum(first[0], second[0])
    r1, r2 = (first[0] - m).exp(), (second[0] - m).exp()
    return m, r1 * first[1] + r2 * second[1], r1 * first[2] + r2 * second[2]


def no_repair(first, second):
    return torch.maximum(first[0], second[0]), first[1] + second[1], first[2] + second[2]


def only_l(first, second):
    return *merge(first, second)[:2], first[2] + second[2]


def divided(first, second):
    m, total, o = merge(first, second)
    return m, total, o / total


def wrong_way(first, second):
    m = torch.maximum(first[0], second[0])
    r1, r2 = (m - first[0]).exp(), (m - second[0]).exp()
    return m, r1 * first[1] + r2 * second[1], r1 * first[2] + r2 * second[2]


def first_only(first, second):  # right where the second maximum is the larger one
    r = (first[0] - second[0]).exp()
    m = torch.maximum(first[0], second[0])
    return m, r * first[1] + second[1], r * first[2] + second[2]


def o_first_only(first, second):  # l is right either way, o is not
    return *merge(first, second)[:2], first_only(first, second)[2]


def absolute(first, second):
    m = torch.maximum(first[0], second[0])
    e1, e2 = first[0].exp(), second[0].exp()
    return m, (e1 * first[1] + e2 * second[1]) / m.exp(), (e1 * first[2] + e2 * second[2]) / m.exp()


RIGHT = {  # a check -> answers that are right
    "merge": [(merge,), (lambda *pieces: list(merge(*pieces)),)],
    "intensity": [(16, 0.5), (16.0, 1 / 2)],
    "foretold": [(4.1, 2.5), (torch.tensor(4.1), 2.5)],
    "shared_backward": [(DV, 11, 15), ([0.6875, 0.0625], 11.0, 15)],
    "step_cost": [(10, 4.3), (0.3 * 100 / 3, 0.3 * 100 / 7)],
}
WRONG = {  # a check -> typical wrong answers, and what must be said
    "merge": [
        ((no_repair,), "two different maxima"),
        ((only_l,), "same repair"),
        ((divided,), "keep the sum"),
        ((wrong_way,), "its own m minus the new"),
        ((first_only,), "only if the second"),
        ((o_first_only,), "only if the second"),
        ((absolute,), "near 800"),
        ((lambda a, b: (a[0], a[1], a[2]),), "of both pieces"),
        ((lambda a, b: (a[2] + b[2]) / 2,), "three things"),
        ((lambda a, b: None,), "returns nothing"),
    ],
    "intensity": [
        ((4, 0.5), "Two factors"),
        ((8, 0.5), "Half of it"),
        ((32, 0.5), "keys are read"),
        ((5, 0.5), "How many query heads"),
        ((16, 1), "operations stay"),
        ((16, 2), "time does not"),
        ((16, 0.25), "bytes alone"),
    ],
    "foretold": [
        ((4.4, 10), "kept the ratio"),
        ((4.1, 2.44), "of the softmax step"),
        ((4.0, 0), "Nothing of the extra"),
        ((4.2, 5), "and add them"),
        ((4.1, 10), "of one sequence"),
        ((4.1, 1.025), "ratio of times"),
        ((4.1, 7), "with many"),
    ],
    "shared_backward": [
        (((0.75, 0.25), 11, 15), "both maps"),
        (((13 / 16, 7 / 16), 11, 15), "taken away"),
        (((5 / 8, -1 / 8), 11, 15), "section 4.1"),
        (((1, 1), 11, 15), "which weight"),
        ((DV, 11, 12), "Three have"),
        ((DV, 12, 15), "one product for all"),
        ((DV, 9, 15), "computed once"),
        ((DV, 15, 15), "save something"),
        ((DV, 10, 15), "Which three"),
    ],
    "step_cost": [
        ((33.3, 4.3), "For ordinary: attention takes"),
        ((10, 14.3), "For shared: attention takes"),
        ((1.1, 1.043), "ratio of times"),
        ((4.3, 10), "changed places"),
        ((12, 4.3), "For ordinary: use"),
        ((10, 6), "For shared: use"),
    ],
}
