"""The checks of notebook 06: what DIFF V2 costs."""

import torch

from minidiff.course.checks import call, checks, close, expect, number, numbers

HEADS, KV_HEADS = 32, 8  # exercise 2: output heads, and key/value heads; one byte a number
SOFTMAX, DIFF, LARGE = 1.0, 1.1, 4.0  # exercise 3: ms with one sequence, of softmax with many
A1, A2, LAM = (0.75, 0.25), (0.25, 0.75), 0.25  # exercise 4
MAPS = 3
SHARE = 0.3  # exercise 5: of attention in a step of softmax with 1.5h heads


@checks
def merge(function):
    """Exercise 1: two pieces (m, l, o) -> the piece of all their keys."""
    scores = torch.tensor([1.0, 3.0, 0.5, 2.0, 4.0], dtype=torch.float64)
    values = torch.tensor([[1.0, 0], [2, -1], [0, 4], [3, 1], [-2, 2]], dtype=torch.float64)

    def piece(of, shift=0.0):
        s = scores[of] + shift
        weights = (s - s.max()).exp()
        return s.max(), weights.sum(), weights @ values[of]

    parts = piece(slice(3)), piece(slice(3, 5))
    whole = piece(slice(5))
    given = call(function, *parts)
    three = isinstance(given, (tuple, list)) and len(given) == 3
    expect(three, "Return three things: m, l and o.")
    m, total = number(given[0], "m"), number(given[1], "l")
    o = numbers(given[2], (2,), "o")
    expect(close(m, whole[0]), "For m: the largest score of all keys, those of both pieces.")
    plain = parts[0][1] + parts[1][1]
    expect(not close(total, plain), "l was summed relative to two different maxima: repair first.")
    expect(close(total, whole[1]), "For l: a piece is repaired with e to its own m minus the new.")
    expect(
        not close(o, whole[2] / whole[1]), "For o: keep the sum. Who divides, divides at the end."
    )
    expect(close(o, whole[2]), "l is right, o is not: it needs the same repair.")
    swapped = zip(call(function, *reversed(parts)), whole, strict=True)
    same = all(close(mine, right) for mine, right in swapped)
    expect(same, "Your function is right only if the second m is the larger.")
    far = call(function, piece(slice(3), 800.0), piece(slice(3, 5), 800.0))[1:]  # l, o
    same = all(close(mine, right) for mine, right in zip(far, whole[1:], strict=True))
    expect(same, "With scores near 800 it breaks: which exponential is too large?")
    return "Repeat it from left to right, or in a tree: the result is the same."


@checks
def intensity(operations_per_byte, time):
    """Exercise 2: operations per byte of an 8-bit cache; its time over that of two bytes."""
    found, time = number(operations_per_byte, "the intensity"), number(time, "the time")
    right = 2 * 2 * HEADS / KV_HEADS
    expect(found != right / 4, "Two factors of two are missing: the heads of DIFF V2, the bytes.")
    expect(found != right / 2, "Half of it: did you use two maps, and one byte a number?")
    expect(found != 2 * right, "Twice too much: keys are read, and values too.")
    expect(found == right, "How many query heads share one key/value head of DIFF V2?")
    expect(time != 1, "The operations stay. But are they what takes the time?")
    expect(time != 2, "The intensity doubles, the time does not: what is read faster?")
    expect(time == 0.5, "Left of the ridge, time follows the bytes alone.")
    return "More sequences fit into the card, too."


@checks
def foretold(ms, percent):
    """Exercise 3: DIFF V2's time of a step with many sequences, and by how much it is longer."""
    ms, percent = number(ms, "ms"), number(percent, "percent")
    extra = DIFF - SOFTMAX
    expect(
        not close(ms, LARGE * DIFF / SOFTMAX),
        "You kept the ratio. What stayed the same for all settings in section 3?",
    )
    expect(not close(ms, LARGE), "Nothing of the extra time is left there: why should it go?")
    expect(close(ms, LARGE + extra), "Take the extra milliseconds of one sequence, and add them.")
    expect(not close(percent, 100 * extra / SOFTMAX), "That is the percentage of one sequence.")
    expect(not close(percent, 1 + extra / LARGE), "That is the ratio of times: how many percent?")
    expect(close(percent, 100 * extra / LARGE, 1e-2), "Percent of the softmax step with many.")
    return "The cost is a constant. The percentage depends on how long the step is."


@checks
def shared_backward(dv, shared, ordinary):
    """Exercise 4: the gradient of the values; products of three maps, shared and one by one."""
    dv = numbers(dv, (2,), "dV")
    a1, a2 = torch.tensor(A1).double(), torch.tensor(A2).double()
    expect(not close(dv, a1), "For dV: both maps multiply the same values.")
    expect(not close(dv, a1 + LAM * a2), "For dV: the second map is taken away.")
    expect(not close(dv, a1 - 0.5 * a2), "That dV is the one of section 4.1: here λ is smaller.")
    expect(close(dv, a1 - LAM * a2), "For dV: which weight does each value have in the output?")
    shared, ordinary = number(shared, "shared"), number(ordinary, "ordinary")
    expect(ordinary == 5 * MAPS, "One ordinary head has scores, dP, dV, dQ and dK. Three have?")
    expect(shared != 4 * MAPS, "dP and dV: each is one product for all maps together.")
    expect(shared != 3 * MAPS, "dP and dV are shared, but they must be computed once.")
    expect(shared < ordinary, "Sharing should save something.")
    expect(shared == 3 * MAPS + 2, "Which three products does each map need for itself?")
    return "Each further map adds three products, and not five."


@checks
def step_cost(ordinary, shared):
    """Exercise 5: percent that a step takes longer, with 2h ordinary heads and with pairs."""
    ordinary, shared = number(ordinary, "ordinary"), number(shared, "shared")
    more = 100 * (14 / 10.5 - 1), 100 * (12 / 10.5 - 1)  # of attention
    for given, alone, name in ((ordinary, more[0], "ordinary"), (shared, more[1], "shared")):
        expect(
            not close(given, alone, 2e-2),
            f"For {name}: attention takes so much longer. Which part of the step is attention?",
        )
        expect(
            not close(given, 1 + SHARE * alone / 100, 2e-3),
            f"For {name}: that is the ratio of times. By how many percent is it longer?",
        )
    expect(shared < ordinary, "A pair that shares takes fewer products: have they changed places?")
    for given, alone, name in ((ordinary, more[0], "ordinary"), (shared, more[1], "shared")):
        expect(close(given, SHARE * alone, 2e-2), f"For {name}: use the last column of the table.")
    return "So much is the price of the operation. What was measured beyond it is code."
