"""The checks of notebook 13, the capstone. What is open in its exercises, a scheme marks."""

import math
import statistics
from contextlib import contextmanager

import torch

from minidiff.course.checks import checks, close, expect, number, numbers
from minidiff.generate import KVCache
from minidiff.model import ATTENTION, GPT, GPTConfig

KINDS, LENGTH = 16, 16  # kinds of tokens, tokens in a copy
MODEL = GPTConfig(n_layer=2, n_head=2, n_kv_head=1, head_dim=16, n_embd=64, block_size=256,
                  vocab_size=KINDS + 1)  # fmt: skip
VERDICTS = "better", "worse", "not shown"


def _share_of_the_most_frequent(length, kinds=KINDS):
    """Expected share of the most frequent kind among ``length`` uniform tokens, exactly."""
    total = 0
    for most in range(length):  # E max = sum of P(max > most)
        ways = [1.0] + length * [0.0]  # of k tokens, with no kind more than ``most`` times, over k!
        for _ in range(kinds):
            ways = [
                sum(ways[k - j] / math.factorial(j) for j in range(min(k, most) + 1))
                for k in range(length + 1)
            ]
        total += 1 - ways[length] * math.factorial(length) / kinds**length
    return total / length


@checks
def most_frequent(accuracy):
    """Exercise 1: the accuracy of always answering the most frequent token of the first copy."""
    found, right = number(accuracy, "the accuracy"), _share_of_the_most_frequent(LENGTH)
    expect(0 <= found <= 1, "An accuracy lies between 0 and 1.")
    expect(abs(found - 1 / KINDS) > 0.01, "That is a blind guess. This one counts the tokens.")
    any_token = 1 / LENGTH + (1 - 1 / LENGTH) / KINDS
    expect(abs(found - any_token) > 0.01, "That is a token drawn from the first copy at random.")
    expect(
        abs(found - _share_of_the_most_frequent(LENGTH // 2)) > 0.01,
        "That is for copies of 8 tokens. The score is measured on copies of 16.",
    )
    expect(abs(found - right) < 0.005, f"It is not {found:.3f}: simulate more sequences, or count.")
    return "And the order of the tokens was never looked at."


# ---- Exercise 2: four tests before training ----------------------------------------------------


@checks
def own_attention(cls, n_head=2):
    """Exercise 2: a class that is causal, whose maps fit its outputs, and that decodes."""
    expect(isinstance(cls, type), "Hand in the class itself, not its name and not a model.")
    with _registered(cls) as name, torch.no_grad():
        try:
            config = GPTConfig(**{**vars(MODEL), "attention": name, "n_head": n_head})
            torch.manual_seed(0)
            model = GPT(config).eval()
            draw = torch.Generator().manual_seed(0)
            x = torch.randint(KINDS, (4, 24), generator=draw)
            logits = model(x)[0]
        except Exception as error:
            expect(False, f"A model with it does not run. {type(error).__name__}: {error}"[:180])
        shape = (4, 24, KINDS + 1)
        expect(logits.shape == shape and logits.isfinite().all(), "Its output is not finite.")
        other = torch.cat([x[:, :9], (x[:, 9:] + 1) % KINDS], dim=1)  # another future
        past = model(other)[0][:, :9]
        expect(torch.allclose(logits[:, :9], past, atol=1e-4), "It sees the future: not causal.")
        _maps_fit(model, config, draw)
        try:
            cache = KVCache(MODEL.block_size)
            steps = [model(part, cache=cache)[0] for part in x.split((20, 1, 1, 1, 1), 1)]
        except Exception as error:
            expect(False, f"It does not decode. {type(error).__name__}: {error}"[:180])
        same = torch.allclose(torch.cat(steps, 1), logits, atol=1e-4)
        expect(same, "Decoding with the cache differs: does `mix` hand n_keys on to `attend`?")
    count = sum(p.numel() for p in model.parameters())
    more = 100 * (count / sum(p.numel() for p in GPT(MODEL).parameters()) - 1)
    return f"Causal, consistent, decodes; weights {more:+.1f}% against DIFF V2."


def _maps_fit(model, config, draw):
    attn, h = model.blocks[0].attn, torch.randn(4, 17, config.n_embd, generator=draw)
    q, k, v = attn.qkv(h, model.rope[:17])
    v_all = v.repeat_interleave(config.n_head // config.n_kv_head, dim=2)
    try:
        by_maps = torch.einsum("bhts,bshd->bthd", attn.weights(q, k, h), v_all)
        fits = torch.allclose(attn.mix(q, k, v, h), by_maps, atol=1e-5)
    except Exception as error:
        expect(False, f"Its weights do not run. {type(error).__name__}: {error}"[:180])
    expect(fits, "The maps of `weights`, times the values, are not what `mix` gives.")


@contextmanager
def _registered(cls, name="own attention, for a moment"):
    ATTENTION[name] = cls
    try:
        yield name
    finally:
        del ATTENTION[name]


# ---- Exercises 3 to 5: what was measured -------------------------------------------------------


@checks
def verdict_of(differences, low, high, words):
    """Exercise 3: differences in nats, mine minus the other, their 95% interval, and a verdict."""
    values, (true_low, true_high) = _by_seed(differences, 8)
    low, high = number(low, "the lower end"), number(high, "the upper end")
    expect(words in VERDICTS, f"The verdict must be one of {', '.join(VERDICTS)}.")
    expect(low < high, "The lower end is not below the upper one.")
    normal = 1.96 * statistics.stdev(values) / math.sqrt(len(values))
    expect(
        not close(high - low, 2 * normal, 5e-3), "1.96 is for many seeds; for few take Student's t."
    )
    off = max(abs(low - true_low), abs(high - true_high))  # two digits are enough
    expect(off <= 0.0051, "The interval is not that of the mean of these differences.")
    shown = "better" if high < 0 else "worse" if low > 0 else "not shown"
    expect(words == shown or shown != "not shown", "The interval holds 0: it shows neither sign.")
    expect(words != "not shown" or shown == words, "The interval does not hold 0: say which sign.")
    expect(words == shown, "The sign: a smaller loss is better.")
    return f"{len(values)} seeds, and the verdict says no more than the interval."


@checks
def prediction(sign, differences):
    """Exercise 4: the sign that the hypothesis predicts of a quantity, and what was measured."""
    expect(sign in (1, -1), "The predicted sign is plus one or minus one: a number, no text.")
    _, (low, high) = _by_seed(differences, 5)
    if low <= 0 <= high:
        return "Your measurement leaves the prediction open: the interval holds 0."
    held = (low > 0) == (sign > 0)
    return f"Your prediction {'passed the test' if held else 'is refuted'}. Say so."


@checks
def harder_world(mine, other, chance):
    """Exercise 5: shares of right answers of two models, one a seed, in a task that tells apart."""
    chance = number(chance, "the chance level")
    expect(0 < chance < 1, "The chance level is a share between 0 and 1.")
    mine, other = (_by_seed(shares, 4, alike=True)[0] for shares in (mine, other))
    expect(len(mine) == len(other), "Both models need the same seeds: pairs.")
    both = mine + other
    expect(min(both) >= 0 and max(both) <= 1, "A share of right answers lies between 0 and 1.")
    expect(min(both) < 0.97, "Every run is at the top: this world compares nothing. Make it harder")
    expect(max(both) > chance + 0.03, "No run is above chance: nobody learned. Make it easier.")
    low, high = _interval([a - b for a, b in zip(mine, other, strict=True)])
    return f"Mine minus the other: 95% interval [{low:+.2f}, {high:+.2f}]. Now its limits."


def _by_seed(values, least, alike=False):
    """The numbers as a list of floats, one a seed, and the interval of their mean."""
    try:
        count = len(values)
    except TypeError:
        count = 0
    expect(count >= least, f"Give at least {least} numbers, one a seed.")
    values = numbers(values, (count,), "the list").tolist()
    expect(alike or len(set(values)) > 1, "All numbers are equal: are these different seeds?")
    return values, _interval(values)


def _interval(values):
    """Student's 95% interval of the mean."""
    from scipy import stats

    half = stats.t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    mean = statistics.fmean(values)
    return mean - half, mean + half
