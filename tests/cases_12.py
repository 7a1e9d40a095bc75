"""Answers to the exercises of notebook 12: right ones, and wrong ones with what must be said."""

import math

import torch

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def prompt(n, rng, *, first="kzb", names=None, asked=None, values=None, end=""):
    names = names or [first + letter for letter in rng.sample(LETTERS, n)]
    values = values or [f"{rng.randrange(10000):04}" for _ in names]
    i = rng.randrange(n) if asked is None else asked
    lines = [f"{name} = '{value}'\n" for name, value in zip(names, values, strict=True)]
    return "".join(lines) + f"{names[i]} = '" + (values[i] if end else ""), values[i]


def other_names(n, rng):
    return prompt(n, rng, names=["".join(rng.sample(LETTERS, 4)) for _ in range(n)])


def repeated(n, rng):
    return prompt(n, rng, names=["kzb" + rng.choice("abc") for _ in range(n)])


RIGHT = {  # a check -> answers that are right
    "needle_gap": [
        (lambda n, weight: math.log(n * weight / (1 - weight)),),
        (lambda n, weight: torch.tensor(n).log() + torch.tensor(weight).logit(),),
    ],
    "cancelled": [(0.6, 0.4), (torch.tensor(0.6), 2 / 5)],
    "quieter": [(1.16, 0.4), (29 / 25, torch.tensor(0.4))],
    "alike": [(prompt,)],
    "more_prompts": [(576, False), (576.0, False)],
}
WRONG = {  # a check -> typical wrong answers, and what must be said
    "needle_gap": [
        ((lambda n, weight: math.log(n),), "gap for one half"),
        ((lambda n, weight: -math.log(n * weight / (1 - weight)),), "sign"),
        ((lambda n, weight: math.log(n * weight),), "gives the weight 0.333"),
        ((lambda n, weight: math.log(n) + weight,), "not 0.5"),
        ((lambda n, weight: math.log2(n * weight / (1 - weight)),), "gives the weight"),
        ((lambda n, weight: None,), "return"),
    ],
    "cancelled": [
        ((0.12, 0.4), "λ times which weight"),
        ((0.48, 0.4), "a part of its weight"),
        ((0.6, 0.52), "from the needle as well"),
        ((0.6, 1), "divided by their sum"),
        ((0.5, 0.42), "keeps +0.020"),
        ((1.2, 0.4), "sigmoid"),
    ],
    "quieter": [
        ((math.sqrt(1.16), 0.4), "Power is its square"),
        ((2.12, 0.4), "subtracted"),
        ((1.4, 0.4), "comes twice"),
        ((1.64, 0.4), "nothing in common"),
        ((1.16, 0.8), "a smaller one"),
        ((1.16, 0.5), "solve for r"),
    ],
    "alike": [
        ((other_names,), "first three letters"),
        ((repeated,), "comes twice"),
        ((lambda n, rng: prompt(n, rng, asked=0),), "same places"),
        ((lambda n, rng: prompt(n, rng, end="yes"),), "without the answer"),
        ((lambda n, rng: prompt(n + 1, rng),), "9 lines"),
        ((lambda n, rng: prompt(n, rng, values=["0482"] * n),), "nothing has to be found"),
        ((lambda n, rng: (prompt(n, rng)[0], "0000"),), "not the value"),
        ((lambda n, rng: prompt(n, rng)[0],), "two texts"),
        ((lambda n, rng: prompt(n, rng, first="kz"),), "four letters"),
    ],
    "more_prompts": [
        ((192, False), "root of the number"),
        ((512, False), "in all"),
        ((576, True), "differs from another"),
        ((21, False), "wider"),
        ((1000, False), "whose root"),
        ((576, "no"), "True or False"),
    ],
}
