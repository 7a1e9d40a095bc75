"""The checks of notebook 00."""

import torch

from minidiff.course.checks import call, checks, close, expect, number, numbers, truth
from minidiff.course.example import A1, A2

COPY_TEXT = "cat = 3; c"  # exercise 3: BOS at position 0, and then a token for each byte


@checks
def weight_zero(lam, reachable):
    """Exercise 1: the lambda that gives token B the weight 0, and whether a head can have it."""
    lam = number(lam, "λ")
    weight = float(A1[1] - lam * A2[1])
    expect(lam > 0, "A negative λ adds the second map instead of subtracting it.")
    expect(abs(weight) < 1e-3, f"With this λ, token B has the weight {weight:.3g}.")
    expect(
        truth(reachable, "the second answer") is False,
        "Your λ is right. Now look at where λ comes from: what values does a sigmoid have?",
    )
    return "To silence B a head must change its second query, not λ alone."


@checks
def differential_step(step):
    """Exercise 2: a function (a1, a2, lam) -> the weights that multiply the values."""
    generator = torch.Generator().manual_seed(0)
    a1, a2 = torch.randn(2, 5, generator=generator, dtype=torch.float64).softmax(-1)
    lam = 0.3
    w = numbers(call(step, a1, a2, lam), (5,), "what your function returns")
    at_zero = numbers(call(step, a1, a2, 0.0), (5,), "what your function returns")
    total = float(w.sum())
    expect(close(at_zero, a1), "With λ = 0 nothing is subtracted: a1 should come back unchanged.")
    expect(not close(total, 1 + lam), "Your weights sum to 1 + λ: this adds the second map.")
    expect(not close(total, 0), "Your weights sum to 0: λ has no effect where it should.")
    expect(
        not close(total, 1),
        "Your weights sum to 1, as those of softmax do. Those of DIFF V2 do not: nothing is "
        "normalised after the subtraction.",
    )
    expect(close(total, 1 - lam), f"For λ = {lam} your weights sum to {total:.3f}: too much.")
    expect((w < 0).any() or (a1 >= lam * a2).all(), "A weight may be negative: keep its sign.")
    expect(close(w, a1 - lam * a2), "The sum is right and single weights are not: is λ inside?")
    return f"For λ = {lam} your weights sum to {total:.1f}."


@checks
def copied_byte(position):
    """Exercise 3: the position at which a copying head looks from the last byte of COPY_TEXT."""
    tokens = ["BOS", *COPY_TEXT]
    position, last = number(position, "the position"), len(tokens) - 1
    expect(position == int(position), "A position is a whole number; BOS stands at 0.")
    expect(0 <= position <= last, f"Positions run from 0 (BOS) to {last} (the last byte).")
    expect(position != last, "That is the query itself. What does it know that it can copy?")
    expect(position != 0, "That is BOS, which carries no text: there is nothing to copy.")
    expect(
        position != 1,
        "That is the earlier c. A head that copies it writes c again; what should be written?",
    )
    expect(position == 2, f"At {position:.0f} stands {tokens[int(position)]!r}: it would be next.")
    return "Such a head needs to know what came before each key: a layer below tells it."
