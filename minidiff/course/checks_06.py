"""The checks of notebook 06: fast paths."""

import torch

from minidiff.course.checks import checks, close, expect, number, numbers

A1, A2, LAM = (0.75, 0.25), (0.25, 0.75), 0.25  # exercise 6
MAPS = 3


@checks
def shared_backward(dv, shared, ordinary):
    """Exercise 6: the gradient of the values; products of three maps, shared and one by one."""
    dv = numbers(dv, (2,), "dV")
    a1, a2 = torch.tensor(A1).double(), torch.tensor(A2).double()
    expect(not close(dv, a1), "For dV: both maps multiply the same values.")
    expect(not close(dv, a1 + LAM * a2), "For dV: the second map is taken away.")
    expect(not close(dv, a1 - 0.5 * a2), "That dV is the one of section 6.1: here λ is smaller.")
    expect(close(dv, a1 - LAM * a2), "For dV: which weight does each value have in the output?")
    shared, ordinary = number(shared, "shared"), number(ordinary, "ordinary")
    expect(ordinary == 5 * MAPS, "One ordinary head has scores, dP, dV, dQ and dK. Three have?")
    expect(shared != 4 * MAPS, "dP and dV: each is one product for all maps together.")
    expect(shared != 3 * MAPS, "dP and dV are shared, but they must be computed once.")
    expect(shared < ordinary, "Sharing should save something.")
    expect(shared == 3 * MAPS + 2, "Which three products does each map need for itself?")
    return "Each further map adds three products, and not five."
