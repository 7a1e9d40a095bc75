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
    """Exercise 2: a function (a1, a2, logit of lambda, values) -> the context of one head."""
    generator = torch.Generator().manual_seed(0)
    a1, a2 = torch.randn(2, 5, generator=generator, dtype=torch.float64).softmax(-1)
    values = torch.randn(5, 4, generator=generator, dtype=torch.float64)
    logit = torch.tensor(0.5, dtype=torch.float64)
    lam, raw = logit.sigmoid(), call(step, a1, a2, logit, values)
    c, w = numbers(raw, (4,), "the context"), a1 - lam * a2
    expect(not close(c, a1 @ values), "This is the context of a1 alone: nothing is subtracted.")
    expect(not close(c, (a1 - a2) @ values), "This subtracts the whole second map: where is λ?")
    expect(
        not close(c, (a1 - logit * a2) @ values),
        "Here a2 is multiplied by the logit itself. λ lies between 0 and 1, and a logit need not.",
    )
    expect(not close(c, (a1 + lam * a2) @ values), "This adds the second map.")
    normal = (w / w.sum()) @ values
    expect(not close(c, normal), "Your weights sum to 1; nothing is normalised after subtracting.")
    positive = w.clamp(min=0) @ values
    expect(not close(c, positive), "A weight may be negative: keep its sign.")
    expect(close(c, w @ values), "The shape is right; compare yours with the context in section 1.")
    return "That is the whole step, for one query of one head."


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
