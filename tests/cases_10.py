"""Answers to the exercises of notebook 10: right ones, and wrong ones with what must be said."""

import torch


def mask(T, window):
    return torch.ones(T, T, dtype=torch.bool).tril().triu(1 - window)


RIGHT = {  # a check -> answers that are right
    "cache_sizes": [(17.18, 0.604), (17.2, 0.6)],
    "prefill_pairs": [(330, 111)],
    "window_mask": [(mask,), (lambda T, w: mask(T, w).tolist(),)],
    "step_reads": [(1.984, 1.5), (2, 1.5)],
    "reach": [(lambda n_layer, window: n_layer // 2 * (window - 1),)],
}
WRONG = {  # a check -> typical wrong answers, and what must be said
    "cache_sizes": [
        ((8.59, 0.604), "*and* values"),
        ((16, 0.5625), "GiB"),
        ((17.18e9, 0.604e9), "Plain first"),
        ((17.18, 0.537), "shared ones alone"),
        ((17.18, 0.671), "all layers keep a window"),
        ((17.18, 8.66), "count them once"),
        ((17.18, 0.07), "all tokens once"),
    ],
    "prefill_pairs": [
        ((600, 111), "no later key"),
        ((55, 111), "all layers"),
        ((330, 246), "How many queries"),
        ((330, 120), "first queries"),
        ((330, 91), "query of its own"),
        ((330, 165), "at most a window"),
    ],
    "window_mask": [
        ((lambda T, w: mask(T, w + 1),), "counts as one itself"),
        ((lambda T, w: torch.ones(T, T, dtype=torch.bool).tril(),), "counts as one itself"),
        ((lambda T, w: mask(T, w) | mask(T, w).T,), "later key"),
        ((lambda T, w: mask(T, w).tril(-1),), "sees itself"),
        ((lambda T, w: mask(T, 2),), "all of its window"),
        ((lambda T, w: mask(T, w).float(),), "of bools"),
        ((lambda T, w: mask(T + w, w),), "not (T, T)"),
        ((mask(4, 2),), "function itself"),
    ],
    "step_reads": [
        ((28.4, 1.5), "*keeps*"),
        ((0.504, 1.5), "above the line"),
        ((16, 1.5), "reads all that is shared"),
        ((1.984, 1), "equally often"),
        ((1.984, 2), "half of what is kept"),
        ((1.984, 3), "once for each branch"),
    ],
    "reach": [
        ((lambda n_layer, window: n_layer // 2 * window,), "holds the query itself"),
        ((lambda n_layer, window: window - 1,), "each lower layer adds"),
        ((lambda n_layer, window: n_layer * (window - 1),), "too far"),
        ((lambda n_layer, window: n_layer / 2 * (window - 1),), "too far"),
        ((lambda n_layer, window: (n_layer // 2 - 1) * (window - 1),), "not far enough"),
        ((2,), "function itself"),
    ],
}
