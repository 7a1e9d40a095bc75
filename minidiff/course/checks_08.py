"""The checks of notebook 08: ablations, V1 and other cures."""

import math

import torch

from minidiff.course.checks import call, checks, close, expect, number, numbers, truth

V0, V1, LAM = (1.0, 3.0), (5.0, 5.0), 0.5  # exercise 1: values of two tokens, for two groups
HEADS = 4  # exercise 2: output heads


@checks
def pairing(neighbours, halves):
    """Exercise 1: output head 0 with uniform maps: paired with its neighbour, and in halves."""
    found = {"neighbours": number(neighbours, "neighbours"), "halves": number(halves, "halves")}
    mean0, mean1 = sum(V0) / 2, sum(V1) / 2
    expect(not close(found["neighbours"], mean0), "The second map is missing: subtract λ times it.")
    expect(
        close(found["neighbours"], (1 - LAM) * mean0),
        "Neighbours read the same values, and both maps are uniform: one mean, twice.",
    )
    expect(
        not close(found["halves"], found["neighbours"]),
        "In halves, the second query head belongs to the other group: which values does it read?",
    )
    expect(not close(found["halves"], mean1 - LAM * mean0), "The two groups have changed places.")
    expect(
        close(found["halves"], mean0 - LAM * mean1),
        "For the halves: the mean of the first values, minus λ times that of the others.",
    )
    return "It lies outside 1 to 3, the values that the head reads first: no softmax row can."


@checks
def head_order(order):
    """Exercise 2: for each query head of diff_v2, the one of diff_halves (h = 4)."""
    order = [int(x) for x in numbers(order, (2 * HEADS,), "the order").tolist()]
    expect(sorted(order) == list(range(2 * HEADS)), "Each of the eight heads must occur once.")
    expect(order != list(range(2 * HEADS)), "That changes nothing: neighbours stay neighbours.")
    partners = list(zip(order[0::2], order[1::2], strict=True))
    expect(all(b - a != -HEADS for a, b in partners), "A pair is turned round: who is subtracted?")
    expect(
        all(b - a == HEADS for a, b in partners),
        "Places 2i and 2i + 1 make a pair: in halves, head i has which partner?",
    )
    expect([a for a, _ in partners] == list(range(HEADS)), "Pairs are right, their order is not.")
    return "With one key/value head this is only a new order, and the mistake cannot be seen."


@checks
def norm_jacobian(values):
    """Exercise 3: the two singular values of the Jacobian of c / RMS(c) at c = (3, 1)."""
    found = numbers(values, (2,), "the singular values").sort().values
    r, length = math.sqrt((9 + 1) / 2), math.sqrt(9 + 1)
    expect(found.min() >= 0, "A singular value is never negative.")
    expect(found[0] < 1e-6, "Making c longer changes nothing: what does that make of one of them?")
    expect(not close(found[1], r, 5e-3), "That is RMS(c). A large context is made smaller.")
    expect(not close(found[1], 1 / length, 5e-3), "That is 1 / |c|; the norm divides by the RMS.")
    expect(close(found[1], 1 / r, 5e-3), f"For {found[1]:.3g}: what is RMS(c) over two channels?")
    return "A quiet context would give a large one."


@checks
def bounded_lambda(function):
    """Exercise 4: (u1, u2, lambda_init) -> a lambda in (0, 1), lambda_init where u1 = u2."""

    def value(*inputs):
        return number(call(function, *inputs), "what your function returns")

    big = torch.tensor(30.0)
    expect(
        close(value(torch.tensor(0.7), torch.tensor(0.7), 0.8), 0.8),
        "With u1 = u2 the two should cancel, and leave λ_init: where does it start?",
    )
    expect(value(big, -big, 0.8) <= 1, "For large u1 it leaves 0 to 1: V1's own λ does that.")
    expect(value(-big, big, 0.8) >= 0, "For large u2 it goes below 0.")
    u = torch.tensor(3.0, requires_grad=True)
    (slope,) = torch.autograd.grad(call(function, u, torch.tensor(0.0), 0.8), u)
    expect(slope > 0, "At u1 = 3 its gradient is 0: what is cut off cannot find back.")
    return "No push can send it away. The runs of diff_v1_sigmoid have it: see section 7."


@checks
def cure_verdicts(against_softmax, against_diff):
    """Exercise 5: is a higher loss of the cure shown, against softmax and against DIFF V2?"""
    against_softmax = truth(against_softmax, "the first answer")
    against_diff = truth(against_diff, "the second answer")
    expect(
        not (against_diff and not against_softmax),
        "You have it the other way round: which three numbers scatter more?",
    )
    expect(against_softmax, "The first three differ by little: compute their interval.")
    expect(not against_diff, "The second three have the same mean: compute their interval, too.")
    return "The same mean, and two verdicts: the scatter decides. So always say against whom."
