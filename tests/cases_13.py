"""Answers to the exercises of notebook 13: right ones, and wrong ones with what must be said."""

import torch

from minidiff.course.checks_13 import _interval
from minidiff.course.checks_13 import _share_of_the_most_frequent as share
from minidiff.model import DiffV2Attention, SoftmaxAttention


class Doubled(DiffV2Attention):
    def mix(self, q, k, v, x, n_keys=None):
        return 2 * super().mix(q, k, v, x, n_keys)

    def weights(self, q, k, x):
        return 2 * super().weights(q, k, x)


class OnlyMix(DiffV2Attention):
    def mix(self, q, k, v, x, n_keys=None):
        return 2 * super().mix(q, k, v, x, n_keys)


class Future(SoftmaxAttention):
    def mix(self, q, k, v, x, n_keys=None):
        return super().mix(q, k, v, x, n_keys) + v.mean(1, keepdim=True)


class ForgetsTheCache(SoftmaxAttention):
    def mix(self, q, k, v, x, n_keys=None):
        return self.attend(q, k[:, : q.shape[1]], v[:, : q.shape[1]])


class Misshapen(SoftmaxAttention):
    def mix(self, q, k, v, x, n_keys=None):
        return self.attend(q, k, v, n_keys)[..., :-1]


class NotFinite(SoftmaxAttention):
    def mix(self, q, k, v, x, n_keys=None):
        return super().mix(q, k, v, x, n_keys) / torch.zeros(())


GOOD, BAD, OPEN = [-2.0, -1.0] * 4, [2.0, 1.0] * 4, [-1.0, 1.0] * 4
(LOW, HIGH), (UP_LOW, UP_HIGH), (WIDE_LOW, WIDE_HIGH) = map(_interval, (GOOD, BAD, OPEN))
NORMAL = 1.96 * torch.tensor(GOOD).std().item() / 8**0.5

RIGHT = {
    "most_frequent": [(share(16),), (share(16) + 0.002,)],
    "own_attention": [(Doubled,), (DiffV2Attention,), (SoftmaxAttention, 3)],
    "verdict_of": [
        (GOOD, LOW, HIGH, "better"),
        (GOOD, round(LOW, 2), round(HIGH, 2), "better"),
        (torch.tensor(BAD), UP_LOW, UP_HIGH, "worse"),
        (OPEN, WIDE_LOW, WIDE_HIGH, "not shown"),
    ],
    "prediction": [(1, BAD), (-1, BAD), (1, OPEN)],
    "harder_world": [([0.4, 0.5, 0.6, 0.5], [0.3, 0.2, 0.4, 0.3], 1 / 16)],
}
WRONG = {
    "most_frequent": [
        ((1 / 16,), "blind guess"),
        ((0.121,), "at random"),
        ((share(8),), "copies of 16"),
        ((0.7,), "simulate more"),
        ((42,), "between 0 and 1"),
    ],
    "own_attention": [
        (("my_variant",), "class itself"),
        ((OnlyMix,), "not what `mix` gives"),
        ((Future,), "not causal"),
        ((ForgetsTheCache,), "cache differs"),
        ((Misshapen,), "does not run"),
        ((NotFinite,), "not finite"),
        ((object,), "does not run"),
    ],
    "verdict_of": [
        ((GOOD[:4], -2.0, -1.0, "better"), "at least 8"),
        ((GOOD, -1.5 - NORMAL, -1.5 + NORMAL, "better"), "Student"),
        ((GOOD, -3.0, 0.0, "better"), "not that of the mean"),
        ((GOOD, HIGH, LOW, "better"), "below the upper"),
        ((GOOD, LOW, HIGH, "almost"), "one of"),
        ((GOOD, LOW, HIGH, "worse"), "smaller loss"),
        ((GOOD, LOW, HIGH, "not shown"), "say which sign"),
        ((OPEN, WIDE_LOW, WIDE_HIGH, "better"), "neither sign"),
        (([1.0] * 8, 0.9, 1.1, "worse"), "different seeds"),
    ],
    "prediction": [
        (("more", BAD), "plus one or minus one"),
        ((1, [1.0, 2.0]), "at least 5"),
        ((1, 3.0), "at least 5"),
        ((1, [1.0, float("nan"), 1, 1, 1]), "not finite"),
    ],
    "harder_world": [
        (([1.0, 0.99, 1, 1], [1.0, 0.98, 1, 1], 0.06), "compares nothing"),
        (([1.0] * 4, [1.0] * 4, 0.06), "compares nothing"),
        (([0.06, 0.05, 0.07, 0.06], [0.06, 0.07, 0.07, 0.06], 0.06), "nobody learned"),
        (([0.4, 0.5, 0.6, 0.5], [0.3, 0.2, 0.4, 0.3, 0.3], 0.06), "pairs"),
        (([0.4, 0.5, 0.6, 0.5], [0.3, 0.2, 0.4, 0.3], 1), "chance level"),
        (([40, 50, 60, 50], [30, 20, 40, 30], 0.06), "between 0 and 1"),
    ],
}
