"""The checks of notebook 09: sparse attention for a pair of heads."""

import functools

import torch

from minidiff.course.checks import call, checks, close, expect, number, numbers

BLOCK, TOP_K, TOKENS = 64, 16, 65536  # exercise 1
A1, A2, LAM = (0.4, 0.2, 0.2, 0.2), (0.2, 0.4, 0.2, 0.2), 0.5  # exercise 2
SKIPPED = 2, 0  # the key that head 1 skips, and head 2
TILE = 4  # exercise 4, in the small text on which the choices are tried


@checks
def block_costs(keys, means, block):
    """Exercise 1: keys that the last query sees, means that it scores, and the best block size."""
    keys, means, block = number(keys, "keys"), number(means, "means"), number(block, "block")
    expect(keys != TOKENS, "For the keys: it does not see them all. What is top_k?")
    expect(keys != TOP_K, "For the keys: those are the blocks. How many keys has a block?")
    expect(keys == BLOCK * TOP_K, "For the keys: count those of all chosen blocks.")
    expect(means != TOP_K, "For the means: all blocks are scored before some are chosen.")
    blocks = TOKENS // BLOCK
    expect(means in (blocks, blocks - 1), "For the means: into how many blocks is the text cut?")
    best = (TOKENS / TOP_K) ** 0.5
    expect(block != TOKENS**0.5, "For the block: top_k blocks are read, not one.")
    expect(block == best, "For the block size b: where is top_k·b + n/b smallest?")
    return "There both parts are equal."


@checks
def split_pair(weights, total):
    """Exercise 2: the difference of two rows whose heads skip different keys, and its sum."""
    weights, total = numbers(weights, (4,), "the weights"), number(total, "the sum")
    a1, a2 = (torch.tensor(row).double() for row in (A1, A2))
    first, second = (_without(row, [key]) for row, key in zip((a1, a2), SKIPPED, strict=True))
    cut = a1 * (first > 0) - LAM * a2 * (second > 0)
    both = _without(a1, SKIPPED) - LAM * _without(a2, SKIPPED)
    for wrong, says in (
        (a1 - LAM * a2, "That is the dense difference: nothing is skipped."),
        (cut, "A row without a key sums to less. Rescale it to sum to one."),
        (both, "Each head skips its own key alone, not both."),
        (first - second, "The second row is multiplied by λ."),
        (first + LAM * second, "The second row is taken away."),
    ):
        expect(not close(weights, wrong), says)
    right = first - LAM * second
    expect(close(weights, right), "Rescale each row over the keys that its head sees; subtract.")
    expect(close(total, right.sum()), "The weights are right. Add them up.")
    return "Head 2 subtracts at key 2 what head 1 does not see; the sum is that of the dense rows."


def _without(row, keys):
    """A softmax row that skips some keys: the others, rescaled."""
    row = row.clone()
    row[list(keys)] = 0
    return row / row.sum()


@checks
def quest_score(function):
    """Exercise 3: a function (q (T, d), k (S, d), block) -> (T, S / block) scores."""
    g = torch.Generator().manual_seed(0)
    q, k = (torch.randn(n, 3, generator=g, dtype=torch.float64) for n in (5, 12))
    block = 4
    found = numbers(call(function, q, k, block), (5, 3), "the scores")
    parts = k.unflatten(0, (-1, block))  # (blocks, block, d)
    low, high = (q[:, None] * edge for edge in (parts.amin(1), parts.amax(1)))  # (T, blocks, d)
    keys = (q @ k.T).unflatten(1, (-1, block))  # the true scores of the keys
    for wrong, says in (
        (keys.mean(2), "That is the mean key again."),
        (keys.amax(2), "That is the best key there is: all keys would have to be read."),
        (high.sum(2), "A channel in which q is negative is largest with the smallest value."),
        (low.sum(2), "A channel in which q is positive is largest with the largest value."),
        (torch.maximum(low.sum(2), high.sum(2)), "Choose between the two channel by channel."),
        (torch.minimum(low, high).sum(2), "That is the smallest q·k that is possible."),
        (torch.maximum(low, high).mean(2), "A dot product is a sum over channels, not a mean."),
    ):
        expect(not close(found, wrong), says)
    expect(close(found, torch.maximum(low, high).sum(2)), "For each channel: the larger product.")
    return "No key of the block scores higher. Mostly none scores as high."


@checks
def causal_choices(letters):
    """Exercise 4: the letters of the choices that depend on nothing later, as "AB"."""
    expect(isinstance(letters, str), 'Give the letters as a text, such as "AB".')
    chosen = set(letters.upper()) - set(" ,")
    expect(chosen <= set(CHOICES), f"There are the choices {', '.join(CHOICES)}.")
    for letter in CHOICES:
        ahead = _looks_ahead(letter)
        expect(
            letter not in chosen or not ahead, f"Look at {letter} again: what if a token follows?"
        )
        expect(letter in chosen or ahead, f"You left out {letter}. What does it use that is later?")
    return "Whatever comes after a query must leave its keys as they are."


def _tiles(q):
    return q.unflatten(0, (-1, TILE))  # (tiles, TILE, d)


def _scores(chooser, k):
    """chooser (T, d), k (S, d) -> the scores of the blocks that end before a query: (T, n)."""
    scores = chooser @ k.unflatten(0, (-1, TILE)).mean(1).T
    own = torch.arange(len(chooser))[:, None] // TILE
    return scores.masked_fill(torch.arange(scores.shape[1]) >= own, 0)


def _among_long(q, k):
    length = k.unflatten(0, (-1, TILE)).mean(1).norm(dim=1)
    return _scores(q, k) * (length > length.mean())


CHOICES = {  # exercise 4: q and k (T, d) -> the scores by which blocks are chosen
    "A": lambda q, k: _scores(q.cumsum(0) / torch.arange(1, len(q) + 1)[:, None], k),
    "B": lambda q, k: _scores(_tiles(q).mean(1).repeat_interleave(TILE, 0), k),
    "C": lambda q, k: _scores(_tiles(q)[:, 0].repeat_interleave(TILE, 0), k),
    "D": _among_long,
}


@functools.cache
def _looks_ahead(letter):
    """Whether another last token changes by what an earlier query chooses: tried out."""
    g = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 16, 3, generator=g).double()
    before = CHOICES[letter](q, k)[:-1]
    q[-1], k[-1] = 50, 50
    return not close(before, CHOICES[letter](q, k)[:-1])
