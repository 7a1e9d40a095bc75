"""The checks of notebook 12: long context."""

import math
import random
import re

from minidiff.course.checks import Wrong, call, checks, close, expect, number, truth

NEEDLE, OTHERS, FLAT = 0.52, 0.12, 0.2  # exercise 2: four other lines; the second map is flat
R, LAM = 0.3, 0.8  # exercise 3
WIDTH, PROMPTS, WANTED = 0.06, 64, 0.02  # exercise 5: half widths of an interval over prompts


@checks
def needle_gap(function):
    """Exercise 1: a function (n, weight) -> the gap over n others that gives this weight."""
    for n, weight in ((8, 0.5), (8, 0.9), (1000, 0.9), (1000, 0.2)):
        gap = number(call(function, n, weight), "what your function returns")
        found = 1 / (1 + n * math.exp(-max(-700, min(gap, 700))))
        expect(
            weight == 0.5 or not close(gap, math.log(n)),
            "That is the gap for one half, whatever weight is asked for.",
        )
        expect(
            not close(gap, -math.log(n * weight / (1 - weight))), "The sign: a needle stands above."
        )
        expect(
            close(found, weight, 1e-3),
            f"Over {n} others this gap gives the weight {found:.3g}, not {weight}.",
        )
    return "The length of the context and the wanted weight add: two logarithms."


@checks
def cancelled(lam, left):
    """Exercise 2: the lambda at which the four others vanish; what is left of the needle."""
    lam, left = number(lam, "λ"), number(left, "the needle's weight")
    expect(0 < lam < 1, "λ is a sigmoid: it lies between 0 and 1.")
    expect(
        not close(lam, OTHERS), "That is the weight to take away. λ times which weight gives it?"
    )
    expect(not close(lam, 1 - NEEDLE), "The second map gives a part of its weight to the needle.")
    expect(
        close(lam, OTHERS / FLAT), f"At λ = {lam:.3g} an other line keeps {0.12 - lam / 5:+.3f}."
    )
    expect(not close(left, NEEDLE), "The second map takes something from the needle as well.")
    expect(not close(left, 1), "The weights are not divided by their sum again.")
    expect(close(left, NEEDLE - lam * FLAT), "The λ is right. What does it leave of 0.52?")
    return "It is all that the row has: the weights sum to 1 - λ."


@checks
def quieter(noise, least):
    """Exercise 3: noise of the difference over that of softmax, in power; the r where it helps."""
    noise, least = number(noise, "the noise"), number(least, "the correlation")
    power = 1 + LAM**2 - 2 * LAM * R
    expect(not close(noise, power**0.5), "That is the length. Power is its square.")
    expect(not close(noise, 1 + LAM**2 + 2 * LAM * R), "The sign: the second map is subtracted.")
    expect(not close(noise, 1 + LAM**2 - LAM * R), "The mixed term of a square comes twice.")
    expect(not close(noise, 1 + LAM**2), "That holds for maps that have nothing in common.")
    expect(close(noise, power), "Multiply (x - λy)² out, then take the mean of each term.")
    expect(not close(least, LAM), "At that r the difference is quieter already: try a smaller one.")
    expect(close(least, LAM / 2), "Set the power equal to 1 and solve for r.")
    return "Half of λ: a little in common is not enough."


@checks
def alike(function):
    """Exercise 4: (n, rng) -> (lines and question, answer), names alike but the last letter."""
    places = set()
    for seed in range(12):
        text, answer = _prompt(function, 8, random.Random(seed))
        *lines, question = text.split("\n")
        expect(len(lines) == 8, f"For n = 8 there are {len(lines)} lines before the question.")
        found = [re.fullmatch(r"([a-z]{4}) = '(\d{4})'", line) for line in lines]
        expect(all(found), "A line should look like `kzbq = '0482'`: four letters, four digits.")
        names, values = zip(*(match.groups() for match in found), strict=True)
        expect(len(set(names)) == 8, "A name comes twice: then two answers are right.")
        expect(len({n[:3] for n in names}) == 1, "The first three letters should be the same.")
        expect(len(set(values)) > 1, "All values are the same: nothing has to be found.")
        asked = re.fullmatch(r"([a-z]{4}) = '", question)
        expect(asked, "The text should end in a name and `= '`, without the answer.")
        expect(asked[1] in names, "The name that is asked for is in no line.")
        place = names.index(asked[1])
        expect(answer == values[place], "The answer is not the value of the name.")
        places.add(place)
    expect(len(places) > 2, "You ask for the same places each time: a model could learn that.")
    return "Harder for a head that compares names: three of four letters fit everywhere."


@checks
def more_prompts(prompts, seeds_too):
    """Exercise 5: prompts for a third of the width; does that narrow the interval over seeds?"""
    n = number(prompts, "the number of prompts")
    times = WIDTH / WANTED
    expect(n > PROMPTS, "Fewer prompts make it wider.")
    expect(not close(n, PROMPTS * times), "A width goes with the root of the number.")
    expect(not close(n, PROMPTS * (times**2 - 1)), "That many more; how many are there in all?")
    expect(close(n, PROMPTS * times**2), f"{n:.4g} is {n / PROMPTS:.3g} times as many: whose root?")
    expect(
        truth(seeds_too, "the second answer") is False,
        "The number is right. Do more prompts change how much one seed differs from another?",
    )
    return "More prompts say more about one model, and nothing about the next one."


def _prompt(function, *arguments):
    """What the student's function returns, as two texts."""
    found = call(function, *arguments)
    if not (
        isinstance(found, tuple) and len(found) == 2 and all(isinstance(x, str) for x in found)
    ):
        raise Wrong("Your function should return two texts: the prompt, and its answer.")
    return found
