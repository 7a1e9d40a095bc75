"""The checks of notebooks 02 and 02b."""

import math

import torch

from minidiff.course.checks import call, checks, close, expect, number, numbers


@checks
def one_row(tokens, rms, rms_if_equal):
    """Exercise 1: effective tokens and RMS of (1/2, 1/4, 1/4), and its RMS for rho = 1."""
    tokens, rms = number(tokens, "the number of tokens"), number(rms, "the RMS")
    square = 1 / 4 + 1 / 16 + 1 / 16
    expect(not close(tokens, square), "That is |a|² itself. How many tokens is it?")
    expect(tokens <= 3, f"{tokens:.3g} of 3 tokens: more than a uniform row has.")
    expect(tokens >= 1, f"{tokens:.3g} tokens: fewer than a one-hot row has.")
    expect(tokens != 3, "All three only if the weights were equal.")
    expect(close(tokens, 1 / square, 5e-3), "Square each weight, add, and turn the sum over.")
    expect(not close(rms, square), "That is the square of the RMS.")
    expect(
        close(rms, square**0.5, 5e-3), "The tokens are right: how does the RMS follow from them?"
    )
    equal = number(rms_if_equal, "the RMS for ρ = 1")
    expect(close(equal, 1), "Here all values are one vector. What is their average?")
    return "For ρ = 1 every softmax row gives this."


@checks
def needed_gap(function):
    """Exercise 2: a function n -> the logit gap that keeps an RMS of 0.9."""
    for n in (16, 1024, 16384):
        gap = number(call(function, n), "what your function returns")
        p = 1 / (1 + (n - 1) * math.exp(-min(gap, 700)))
        rms = math.sqrt(p**2 + (1 - p) ** 2 / (n - 1))
        half = abs(gap - math.log(n - 1)) < 0.01
        expect(not half, f"Over {n} tokens this gives the weight ½, and the RMS is {rms:.2f}.")
        expect(rms > 0.895, f"Over {n} tokens this gap gives an RMS of {rms:.3f}: too small.")
        expect(rms < 0.905, f"Over {n} tokens this gap gives an RMS of {rms:.3f}: too large.")
    return "Each doubling of n adds ln 2 to the gap of every sharp head."


@checks
def sink(rms_with_sink, zero_token):
    """Exercise 3: functions (a_0, n) -> RMS with a zero value, (s, n) -> a_0 of off-by-one."""
    for a_0, n in ((0.0, 16), (0.75, 16), (0.9, 100)):
        rms = number(call(rms_with_sink, a_0, n), "the RMS")
        w = torch.full((n,), (1 - a_0) / n, dtype=torch.float64)  # of the tokens that have values
        all_of_them = math.sqrt(a_0**2 + float(w.square().sum()))
        where = f"for a_0 = {a_0}, n = {n}"
        expect(not a_0 or not close(rms, all_of_them), "You count the zero token: it adds nothing.")
        expect(not a_0 or not close(rms, n**-0.5), f"You ignore a_0: {where} less is left.")
        expect(not close(rms, w.square().sum()), "That is the square of the RMS.")
        expect(
            close(rms, w.norm()), f"{where[0].upper()}{where[1:]} the weights have another length."
        )
    for s, n in ((0.0, 64), (-4.0, 64), (2.0, 5)):
        weight = number(call(zero_token, s, n), "the weight of the zero token")
        expect(0 < weight < 1, f"(b): {weight:.3g} is no weight, for s = {s:g} and n = {n}.")
        rest = n * math.exp(s) / (1 + n * math.exp(s))  # what the n tokens get together
        expect(not close(weight, rest), "(b): That is what the other tokens get together.")
        expect(close(weight, 1 - rest), "(b): The row and the zero token sum to 1. Try s = 0.")
    return "A sink with a zero value is a softmax head's makeshift λ."


@checks
def opposed_values(values):
    """Exercise 4: five values of RMS 1 with the most negative correlation there is."""
    width = tuple(getattr(values, "shape", (5, 5)))[-1:]
    v = numbers(values, (5, *width), "the values")
    d = v.shape[1]
    size = v.square().mean(1).sqrt()
    expect(size.min() > 1e-9, "One of the values is zero.")
    gram = (v / size[:, None]) @ (v / size[:, None]).T / d
    off = gram[~torch.eye(5, dtype=torch.bool)]
    rho = float(off.mean())
    expect(rho > -0.2 or close(size, torch.ones(5)), f"ρ = {rho:.2f}; but they must have RMS 1.")
    expect(rho < 1e-6, f"Their correlation is {rho:.2f}: they agree more than they oppose.")
    expect(rho < -0.2499, f"Their correlation is {rho:.3f}. It can be lower: what is their sum?")
    expect(close(size, torch.ones(5)), "The correlation is the lowest. Now give each the RMS 1.")
    return f"ρ = {rho:.2f}, and the uniform row makes their context vanish."


@checks
def same_token(function):
    """Exercise 5: a function of a list of bytes -> the chance that two positions hold one byte."""
    cases = {"abc": 0.0, "aaaa": 1.0, "aab": 1 / 3, "abracadabra": 24 / 110}
    for text, chance in cases.items():
        found = number(call(function, list(text.encode())), "what your function returns")
        n = len(text)
        with_itself = (chance * n * (n - 1) + n) / n**2
        expect(
            close(found, chance) or not close(found, with_itself),
            f"For {text!r} you also pair each position with itself: only different ones count.",
        )
        expect(close(found, chance), f"For {text!r} it is {found:.3g}; count its pairs by hand.")
    return "Such text has no correlation at all if no byte comes twice."


# ---- Notebook 02b ------------------------------------------------------------------------------


@checks
def leaning_values(rho, expected, rms):
    """Exercise 1: weights (3, 3, 1, 1)/8 on values +1, +1, -1, -1: rho, theorem's RMS, RMS."""
    rho, expected = number(rho, "ρ"), number(expected, "the theorem's RMS")
    rms = number(rms, "the RMS of the context")
    expect(rho != 0, "With itself a value agrees, and those pairs do not count. Take i ≠ j.")
    expect(rho < 0, "Of the pairs i ≠ j, do more agree or more disagree? Count them.")
    expect(close(rho, -1 / 3, 5e-3), f"Not {rho:.3g}: how many pairs are there, and which sum?")
    expect(rms >= 0 and expected >= 0, "An RMS is never negative.")
    square = 20 / 64  # |w|²
    theorem = (1 - rho) * square + rho
    expect(not close(expected, square**0.5, 5e-3), "That is |w|: the theorem for another ρ.")
    expect(not close(expected, theorem, 5e-3), "That is the theorem's RMS²: take the root.")
    expect(close(expected, theorem**0.5, 5e-3), "ρ is right. What do the weights sum to?")
    expect(not close(rms, 0.25), "With one channel the RMS is the size of the sum, not its square.")
    expect(close(rms, 0.5), "The context is the sum of weight times value, signs and all.")
    return "Louder than the theorem, by a factor of √3: all of it comes from the pairs."


@checks
def without_sink(function):
    """Exercise 2: a function (weights, rho) -> the theorem's RMS if token 0 has the value zero."""
    generator = torch.Generator().manual_seed(0)
    w = torch.randn(4, 7, generator=generator).double().softmax(-1)
    for rho in (0.0, 0.3):
        found = numbers(call(function, w, rho), (4,), "what your function returns")
        full, rest = (_theorem(x, rho) for x in (w, w[:, 1:]))
        expect(not close(found, full), "Token 0 still counts.")
        share = w[:, 1:] / w[:, 1:].sum(-1, keepdim=True)
        expect(not close(found, _theorem(share, rho)), "Its weight is gone: do not share it out.")
        expect(not close(found, rest.square()), "That is the square of the RMS.")
        expect(close(found, rest), f"For ρ = {rho} the numbers differ. Which sums lose token 0?")
    return "The sum of the weights that count is 1 − a_0."


def _theorem(w, rho):
    return ((1 - rho) * w.square().sum(-1) + rho * w.sum(-1).square()).sqrt()


@checks
def norm_growth(text, no_repeats):
    """Exercise 3: V1's gradient with the norm over without, for T = 32, 128, 512, on two texts."""
    text, no_repeats = (numbers(x, (3,), "each list") for x in (text, no_repeats))
    both = torch.stack((text, no_repeats))
    expect((both > 0).all(), "A ratio of two norms is positive.")
    expect((both.mean() > 1), "These are below 1: is it the norm over the variant without it?")
    growth = both[:, 2] / both[:, 0]
    expect(growth[1] > 1.5, "Without repeats it should grow with T: are the tokens all different?")
    expect(growth[0] < growth[1], "On text it should grow less: have the lists changed places?")
    return f"From T = 32 to 512: {growth[1]:.1f} times without repeats, {growth[0]:.1f} on text."
