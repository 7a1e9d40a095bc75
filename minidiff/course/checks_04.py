"""The checks of notebook 04."""

import functools
import math

import torch

from minidiff import GPTConfig, attention_weights, data
from minidiff.course.checks import call, checks, close, expect, number, numbers
from minidiff.course.example import PROMPT
from minidiff.look import probe
from minidiff.model import SoftmaxAttention
from minidiff.runs import load_pretrained


@checks
def silent_score(function):
    """Exercise 1: a function (eps, n) -> the score of n words that leaves them eps together."""
    for eps, n in ((0.3, 5), (0.1, 16), (0.1, 8192)):
        s = number(call(function, eps, n), "what your function returns")
        total = n * math.exp(min(s, 700))
        left = total / (1 + total)
        where = f"for ε = {eps}, n = {n}"
        cost = math.log(n) + math.log((1 - eps) / eps)
        expect(not close(s, cost), "That is the score of BOS in softmax: which way must words go?")
        expect(not close(s, math.log(eps / n)), f"Nearly, {where}: the 1 is a share of the whole.")
        one = math.log(eps / (1 - eps))
        expect(not close(s, one), f"This leaves ε to each word; {where} there are more.")
        expect(close(left, eps), f"The words get {left:.3g} together {where}.")
    return "A BOS of score 0 and value 0 costs the same: only differences of scores count."


@checks
def hidden_sink(maps, column):
    """Exercise 2: a map (64, 64) with a sink that the metric does not see, and the right column."""
    A = numbers(maps, (64, 64), "the map")
    expect(A.triu(1).abs().max() == 0, "The map is not causal: a query sees a later key.")
    expect(A.min() >= 0, "One softmax map has no negative weights.")
    expect(close(A.sum(-1), torch.ones(64)), "A row does not sum to one.")
    alpha = probe.sink_scores(A, skip=16)
    expect(alpha[0] <= 0.3, f"Token 0 has the score {alpha[0]:.2f}: the metric sees this one.")
    queries = (A > 0.89).float().mean(0).max()
    expect(queries > 0.9, f"Only {queries:.0%} of the queries give most weight to one token.")
    column = str(column)
    expect(column in probe.COLUMNS, f"The map is right. probe() has no column {column!r}.")
    expect(not column.startswith(("first", "sink")), f"The map is right. {column} sees token 0.")
    expect(column != "top_share_a2", "The map is right. a2 is the second map of a pair.")
    expect(column.startswith("top_share"), f"The map is right. Does {column} name one token?")
    return "It is worth a look at any model with separators or line ends."


@functools.cache
def _without_bos(name):
    """(its share with BOS, of the new first token without, loss with, loss without) of a model."""
    model, idx = load_pretrained(name), data.encode(PROMPT[:300])
    both = idx, idx[:, 1:]
    shares = [probe.summary(probe.probe(model, x))["first_share_eff_max"] for x in both]
    with torch.no_grad():
        return *shares, *(model(x[:, :-1], x[:, 1:])[1].item() for x in both)


@checks
def without_bos(shares, rises):
    """Exercise 3: share of the new first token in the worst head, and rise of the loss, of both."""
    shares, rises = numbers(shares, (2,), "the shares"), numbers(rises, (2,), "the rises")
    models = (("softmax", "softmax_1.5h"), ("DIFF V2", "diff_v2"))
    for (label, name), share, rise in zip(models, shares.tolist(), rises.tolist(), strict=True):
        with_bos, without, loss_with, loss = _without_bos(name)
        expect(not close(share, with_bos, 0.05), f"{label}: {share:.2f} is its share with BOS.")
        expect(abs(share - without) < 0.01, f"{label}: the new first token's share is not this.")
        expect(not close(rise, loss), f"{label}: that is the loss itself. Subtract.")
        expect(not close(rise, loss_with - loss), f"{label}: the loss does not fall.")
        expect(abs(rise - loss + loss_with) < 0.01, f"{label}: the loss rises otherwise.")
    return "So in these models the sink is BOS itself, not the first place."


@checks
def clipped(layer):
    """Exercise 4: the class of clipped softmax attention with gamma = -0.1."""
    config = GPTConfig("softmax", n_embd=24, n_head=4, n_kv_head=2, head_dim=6)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        mine = call(layer, config)
    expect(isinstance(mine, SoftmaxAttention), "Subclass SoftmaxAttention.")
    draw = torch.Generator().manual_seed(0)
    q, k = 2 * torch.randn(1, 9, 4, 6, generator=draw), torch.randn(1, 9, 2, 6, generator=draw)
    v, a = torch.randn(1, 9, 2, 6, generator=draw), attention_weights(q, k)
    maps = numbers(call(mine.branches, q, k), (1, 4, 9, 9), "what branches returns")
    right = (1.1 * a - 0.1).clamp(0, 1)
    expect(not close(maps, a), "These are the maps of plain softmax.")
    expect(maps.min() >= 0, "A weight is negative: the clip is missing.")
    expect(not close(maps, (a - 0.1).clamp(0, 1)), "You shift the map and do not stretch it.")
    expect(not close(maps, (0.9 * a + 0.1).clamp(0, 1)), "γ is negative, and here it is positive.")
    expect(close(maps, right), "The maps differ from the formula.")
    context = numbers(call(mine.mix, q, k, v, None), (1, 9, 4, 6), "what mix returns")
    exact = torch.einsum("bhts,bshd->bthd", right, v.repeat_interleave(2, dim=2))
    expect(close(context, exact, 1e-2), "The maps are right; mix does not use them.")
    return "Now train it: is it silent without BOS, and does it use BOS all the same?"


@checks
def three_shares(function):
    """Exercise 5: a function of maps (h, T, T) -> share of token 0: raw, by the sum, by |w|."""
    draw = torch.Generator().manual_seed(0)
    q, k = torch.randn(1, 80, 6, 8, generator=draw), torch.randn(1, 80, 3, 8, generator=draw)
    maps = attention_weights(3 * q, k)[0].double()
    w = maps[0::2] - 0.7 * maps[1::2]  # (3, 80, 80)
    found = call(function, w)
    expect(len(found) == 3, f"Return three tensors; this is {len(found)}.")
    late = w[:, 64:]
    right = {
        "raw": late[..., 0],
        "by the sum": late[..., 0] / late.sum(-1),
        "by absolute values": late[..., 0].abs() / late.abs().sum(-1),
    }
    for given, (name, rows) in zip(found, right.items(), strict=True):
        given = numbers(given, (3,), name)
        every = {"raw": w[..., 0], "by the sum": w[..., 0] / w.sum(-1)}.get(
            name, w[..., 0].abs() / w.abs().sum(-1)
        )
        expect(not close(given, every.mean(-1)), f"{name}: leave out the queries before 64.")
        signed = late[..., 0] / late.abs().sum(-1)
        expect(
            name != "by absolute values" or not close(given, signed.mean(-1)),
            "by absolute values: token 0 keeps its sign here, so that plus and minus cancel.",
        )
        expect(close(given, rows.mean(-1)), f"{name}: the numbers differ.")
    return "Now look at the heads in which they disagree most."
