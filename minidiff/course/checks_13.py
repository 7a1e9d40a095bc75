"""The check of notebook 13, the capstone. Its other exercises are open: a scheme marks them."""

import itertools
import math

from minidiff.course.checks import checks, expect, number

VALUES, FACTS = 4, 8  # facts of a sequence: four old ones and four new ones


def _share_of_the_most_frequent(facts):
    """Expected share of the most frequent of VALUES equally likely values among some facts."""
    total = 0
    for counts in itertools.product(range(facts + 1), repeat=VALUES):
        if sum(counts) == facts:
            ways = math.factorial(facts) // math.prod(map(math.factorial, counts))
            total += ways * max(counts)
    return total / VALUES**facts / facts


@checks
def most_frequent(accuracy):
    """Exercise 1: the accuracy of answering with the most frequent value of the eight facts."""
    found, right = number(accuracy, "the accuracy"), _share_of_the_most_frequent(FACTS)
    expect(0 <= found <= 1, "An accuracy lies between 0 and 1.")
    expect(abs(found - 1 / VALUES) > 0.01, "That is a blind guess. This one counts the values.")
    expect(abs(found - 0.344) > 0.01, "That is any fact; the most frequent value does better.")
    expect(
        abs(found - _share_of_the_most_frequent(FACTS // 2)) > 0.01,
        "That counts four facts. The sequence has the old ones, too, and nobody tells them apart.",
    )
    expect(abs(found - right) < 0.005, f"It is not {found:.3f}: simulate more sequences, or count.")
    return "And no key was looked at. The level of 'right key, old or new' is higher still."
