"""The checks of notebook 10: YOCO."""

import torch

from minidiff.course.checks import call, checks, close, expect, number

LAYERS, TOKENS, WINDOW = 32, 131072, 1024  # exercises 1 and 4
TOKEN = 2 * 8 * 128 * 2  # bytes of a token in a layer: k and v, h_kv = 8, d = 128, bfloat16
HAND = 6, 10, 3  # exercise 2: layers, tokens, window


@checks
def cache_sizes(plain, yoco):
    """Exercise 1: GB of the cache of a plain model and of YOCO (L = 32, 131072 tokens)."""
    plain, yoco = number(plain, "the first answer"), number(yoco, "the second answer")
    all_layers = LAYERS * TOKENS * TOKEN / 1e9
    expect(not close(plain, all_layers / 2, 1e-2), "Half is missing: keys *and* values.")
    expect(not close(plain, all_layers * 1e9 / 2**30, 1e-2), "Those are GiB; a GB is 10^9 bytes.")
    expect(
        close(plain, all_layers, 1e-2),
        "Plain first: layers, tokens, k and v, key/value heads, head size, bytes of a number.",
    )
    shared, windows = TOKENS * TOKEN / 1e9, LAYERS // 2 * WINDOW * TOKEN / 1e9
    expect(
        not close(yoco, shared, 1e-2), "Those are the shared ones alone: who else keeps something?"
    )
    expect(not close(yoco, shared + 2 * windows, 1e-2), "Do all layers keep a window?")
    expect(yoco < plain / 3, "The layers of the upper half share theirs: count them once.")
    expect(
        close(yoco, shared + windows, 1e-2),
        "A window for each lower layer, and all tokens once for the upper half.",
    )
    return "Most of it is shared. More layers would hardly add to it."


@checks
def prefill_pairs(plain, yoco):
    """Exercise 2: (query, key) pairs that are computed, of 6 layers, 10 tokens, window 3."""
    plain, yoco = number(plain, "the first answer"), number(yoco, "the second answer")
    n_layer, T, w = HAND
    triangle, half = T * (T + 1) // 2, n_layer // 2
    lower = half * sum(min(t + 1, w) for t in range(T))
    expect(plain != n_layer * T * T, "Plain: a query sees no later key.")
    expect(plain == n_layer * triangle, "Plain: query t sees t + 1 keys, in all layers.")
    expect(yoco != lower + half * triangle, "How many queries does the upper half have?")
    expect(yoco != half * w * T + half * T, "The first queries see fewer keys than a window.")
    expect(yoco != lower + T, "Each layer of the upper half has a query of its own.")
    expect(yoco == lower + half * T, "In the lower half a query sees at most a window.")
    return "Twice as many tokens: the first number grows fourfold, the second about twofold."


@checks
def window_mask(function):
    """Exercise 3: (T, window) -> (T, T) bool, True where query (row) sees key (column)."""
    for T, window in ((6, 3), (5, 1), (4, 9)):
        mask = torch.as_tensor(call(function, T, window))
        expect(mask.shape == (T, T), f"For T = {T} the shape is {tuple(mask.shape)}, not (T, T).")
        expect(mask.dtype == torch.bool, f"The mask must be of bools; this is {mask.dtype}.")
        where = f"T = {T}, window = {window}"
        expect(not mask.triu(1).any(), f"{where}: a query sees a later key.")
        expect(mask.diagonal().all(), f"{where}: each query sees itself.")
        most = int(mask.sum(1).max())
        expect(most <= window, f"{where}: a query sees {most} keys. It counts as one itself.")
        right = torch.ones(T, T, dtype=torch.bool).tril().triu(1 - window)
        expect(torch.equal(mask, right), f"{where}: a query does not see all of its window.")
    return "With a window of the whole text it is the causal mask."


@checks
def step_reads(yoco, v1):
    """Exercise 4: bytes a step reads, plain over YOCO; and V1's over V2's, both in YOCO."""
    yoco, v1 = number(yoco, "the first answer"), number(v1, "the second answer")
    kept = LAYERS * TOKENS / (LAYERS // 2 * WINDOW + TOKENS)
    reads = LAYERS * TOKENS / (LAYERS // 2 * (WINDOW + TOKENS))
    expect(
        not close(yoco, kept, 2e-2), "That is how much less it *keeps*. Who reads the shared keys?"
    )
    expect(yoco > 1, "The plain model reads more: its bytes go above the line.")
    expect(close(yoco, reads, 2e-2), "Each layer of the upper half reads all that is shared.")
    expect(not close(v1, 1, 1e-2), "The same bytes are kept. Are they read equally often?")
    expect(
        not close(v1, 2, 1e-2), "Only the values are read again, and they are half of what is kept."
    )
    expect(close(v1, 1.5, 1e-2), "Keys once, values once for each branch, against each once.")
    return "What is kept decides how many texts fit; what is read decides the time of a step."


@checks
def reach(function):
    """Exercise 5: (n_layer, window) -> how many tokens back a shared key can know about."""
    for n_layer, window in ((6, 3), (8, 128), (5, 4), (1, 7), (6, 1)):
        found = number(call(function, n_layer, window), "what your function returns")
        below, where = n_layer // 2, f"n_layer = {n_layer}, window = {window}"
        right = below * (window - 1)
        if found == right:
            continue
        expect(found != below * window, f"{where}: a window holds the query itself.")
        expect(found != window - 1, f"{where}: each lower layer adds some.")
        far = "too far" if found > right else "not far enough"
        expect(False, f"{where}: {far}. Which layers lie below the shared keys?")
    return "Beyond that, only a query of the upper half connects two tokens."
