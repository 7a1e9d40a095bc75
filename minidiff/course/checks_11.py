"""Checks of the exercises of notebook 11."""

import torch

from minidiff.course.checks import call, checks, close, expect, number, numbers, truth
from minidiff.variants.moe import balance_loss


@checks
def two_experts(output):
    """Exercise 1: shares 0.4, 0.3, 0.2, 0.1, two of four experts, which return 14, 7, 21, 28."""
    y = number(output)
    expect(not close(y, 14.7), "That lets all experts speak; the token goes through two.")
    expect(not close(y, 7.7), "Your weights sum to less than 1: by what are they divided?")
    expect(not close(y, 10.5), "That is the plain mean of the two: whose share is larger?")
    expect(not close(y, 14), "That is one expert alone; a second one is chosen as well.")
    expect(y < 20, "Experts are chosen by their shares, not by what they return.")
    expect(close(y, 11), "Choose by share, divide the shares of the chosen by their sum, add up.")
    return "The other two cost nothing: they were never computed."


@checks
def outside_experts(billions):
    """Exercise 2: 30 billion held, 3 used, 8 of 128 experts: how many lie outside the experts?"""
    x = number(billions)
    expect(not close(x, 3), "That is all that a token uses: some of it belongs to its experts.")
    expect(not close(x, 27), "That is what a token leaves unused.")
    expect(not close(x, 28.8), "That is what all experts hold together: what else is there?")
    expect(not close(x, 1.8), "That is what a token uses of the experts: what else does it use?")
    expect(not close(x, 1.125), "You took a share of the whole model; only experts are left out.")
    expect(close(x, 1.2), "Two unknowns, outside and in all experts, and two equations: which?")
    return "These weights serve every token, and attention is among them."


@checks
def balance_gradient(function):
    """Exercise 3: (share (N, E), used (E,)) -> the gradient of the balance loss at the logits."""
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(5, 4, generator=draw, dtype=torch.float64).requires_grad_()
    used = torch.tensor([5, 3, 2, 0])
    share = logits.softmax(-1)
    (right,) = torch.autograd.grad(balance_loss(share, used), logits)
    got = numbers(call(function, share.detach(), used), (5, 4), "what your function returns")
    expect(not close(got, -right), "Turned round: this is the way down, not the gradient.")
    expect(got.abs().max() > 1e-9, "It is 0 everywhere, though the load here is not even.")
    expect(
        got.sum(1).abs().max() < 1e-4,
        "Softmax does not change where all logits rise alike: to what must a row sum?",
    )
    expect(not close(got, 5 * right), "A factor is left: P is a mean over the tokens.")
    expect(not close(got, right / 4), "A factor is left: how does the loss begin?")
    expect(not close(got, 10 * right), "f is a share of the slots, and you used their number.")
    expect(close(got, right), "Follow one token: first dL/ds, then the softmax.")
    return "The busy experts' logits go down, and each row sums to 0."


@checks
def depends_on_experts(dense_shown, moe_shown, dependence_shown):
    """Exercise 4: is a lower loss shown without and with experts, and that it depends on them?"""
    dense_shown = truth(dense_shown, "the first answer")
    moe_shown = truth(moe_shown, "the second answer")
    dependence_shown = truth(dependence_shown, "the third answer")
    expect(dense_shown, "The first three differ by little: compute their interval.")
    expect(not moe_shown, "The second three scatter widely: compute their interval.")
    expect(
        not dependence_shown,
        "That one is clear of 0 and the other is not compares nothing: subtract, seed by seed.",
    )
    return "Nor is it shown that it does not depend: the third interval is wide."
