"""The checks of notebook 03."""

import copy

import torch

from minidiff import GPTConfig, data, theory
from minidiff.course.checks import call, checks, close, expect, number, numbers
from minidiff.course.example import PROMPT
from minidiff.model import DiffV2Attention
from minidiff.runs import load_pretrained


@checks
def both_ends(lowest, highest):
    """Exercise 1: pairs (a1, a2) of softmax rows that reach both ends for n = 16, lambda = 0.8."""
    n, lam = 16, 0.8
    low, high = theory.rms_bounds(n, lam)
    ends = (("lowest", lowest, low), ("highest", highest, high))
    for name, pair, bound in ends:
        rows = numbers(torch.stack([torch.as_tensor(row) for row in pair]), (2, n), name)
        for label, row in zip(("a1", "a2"), rows, strict=True):
            expect((row >= 0).all(), f"{name}: {label} has a negative weight: no softmax row has.")
            total = float(row.sum())
            expect(close(total, 1), f"{name}: {label} sums to {total:.3g}, no softmax row does.")
        rms = float((rows[0] - lam * rows[1]).norm())
        expect(close(rms, bound), f"{name}: |a1 − λ a2| is {rms:.3f}, the bound is {bound:.3f}.")
        uneven = rows[1].std() > 1e-6 or name == "highest"
        expect(uneven, "lowest: it is reached, by a uniform a2. Take one that is not uniform.")
    return "At the lower end, what the maps prefer they prefer together."


@checks
def quietest_lambda(function):
    """Exercise 2: a function (a1, a2) -> the lambda of the smallest |a1 - lambda a2|."""
    generator = torch.Generator().manual_seed(0)
    rows = 2 * torch.randn(2, 6, generator=generator, dtype=torch.float64)
    a1, a2 = rows.softmax(-1)
    found = number(call(function, a1, a2), "what your function returns")
    best = float(a1 @ a2 / (a2 @ a2))
    expect(not close(found, a1 @ a2), "This is a1 · a2. Set the whole derivative to zero.")
    expect(not close(found, a1 @ a2 / (a1 @ a1)), "You divide by |a1|²: which row has the λ?")
    cosine = a1 @ a2 / (a1.norm() * a2.norm())
    expect(not close(found, cosine), "This is the cosine of the two rows.")
    size, least = (float((a1 - lam * a2).norm()) for lam in (found, best))
    expect(close(found, best), f"For one pair it leaves {size:.4f}; {least:.4f} can be had.")
    first, second = torch.eye(3, dtype=torch.float64)[:2]
    apart = number(call(function, first, second), "for one-hot rows at different tokens, λ")
    expect(close(apart, 0), "For two one-hot rows at different tokens it is not the best.")
    return "It is the projection of a1 on a2: how much of a2 there is in a1."


@checks
def who_learns(function):
    """Exercise 3: a function (a1, a2, z) -> the three derivatives of a1 - sigmoid(z) a2."""
    for a1, a2, z in ((0.3, 2.0, 0.0), (-0.5, 3.0, 2.0), (0.3, 0.7, -4.0)):
        inputs = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (a1, a2, z)]
        exact = torch.autograd.grad(inputs[0] - inputs[2].sigmoid() * inputs[1], inputs)
        given = call(function, *(x.detach() for x in inputs))
        found = numbers([float(x) for x in given], (3,), "what your function returns")
        lam = float(inputs[2].detach().sigmoid())
        expect(close(found[0], 1), "The derivative with respect to a1 is wrong.")
        expect(not close(found[1], lam), "To a2: where is the sign of the subtraction?")
        expect(close(found[1], exact[1]), "The derivative with respect to a2 is wrong.")
        expect(not close(found[2], -a2), "To z: λ is not z, it is a sigmoid of z.")
        expect(not close(found[2], -lam * (1 - lam)), "To z: the second map is missing.")
        expect(close(found[2], exact[2]), f"The derivative with respect to z is wrong at z = {z}.")
    return "At both ends λ stops learning; only near 0 does the second map stop, too."


@checks
def own_variant(layer, low, high):
    """Exercise 4: the class of a variant with lambda = tanh(logit), and its range of RMS."""
    config = GPTConfig("diff_v2", n_embd=24, n_head=4, n_kv_head=2, head_dim=6)
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        mine = call(layer, config)
    expect(isinstance(mine, DiffV2Attention), "Subclass minidiff.variants.ablations.DiffAblation.")
    a = torch.randn(2, 5, 8, 6, generator=generator)
    x = 20 * torch.randn(2, 5, 24, generator=generator)  # large: λ of all sizes and both signs
    with torch.no_grad():
        out = numbers(call(mine.subtract, a, x), (2, 5, 4, 6), "what subtract returns")
        logit = mine.lambda_proj(x)[..., None]
    first, second = a[:, :, 0::2], a[:, :, 1::2]
    for wrong, why in (
        (first - logit.sigmoid() * second, "That is DIFF V2 itself: λ is still a sigmoid."),
        (first - logit * second, "λ is the raw logit: where is the tanh?"),
        (first + logit.tanh() * second, "Your sign is turned: this adds λ times the second map."),
    ):
        expect(not close(out, wrong), why)
    expect(close(out, first - logit.tanh() * second), "The shape is right, the numbers are not.")
    low, high = number(low, "the lower end"), number(high, "the upper end")
    expect(close(low, 0), "The variant is right. Lower end: what is left at λ near 1, equal maps?")
    expect(not close(high, 2**0.5), "The variant is right. Upper end: that is the end for λ ≥ 0.")
    expect(close(high, 2), "The variant is right. Upper end: take λ near −1, both maps one-hot.")
    return "Bounded, but like the raw logit it starts as softmax, at λ near 0."


@checks
def silenced_head(rises):
    """Exercise 5: (n_layer, n_head) rises of the loss on PROMPT[:200], lambda 0 in one head."""
    model, idx = load_pretrained("diff_v2"), data.encode(PROMPT[:200])
    rises = numbers(rises, (model.config.n_layer, model.config.n_head), "the rises")
    base = _loss(model, idx, None)
    expect(rises.min() < 0.5 * base, "These look like losses: subtract the loss of the model.")
    for layer, head in ((0, 3), (4, 1)):
        rise = _loss(model, idx, (layer, head)) - base
        found = float(rises[layer, head])
        where = f"layer {layer}, head {head}: a rise of {found:.4f}"
        expect(not close(found, -rise, 0.02), f"{where} has the wrong sign.")
        close_enough = abs(found - rise) < 0.002 + 0.02 * abs(rise)
        expect(close_enough, f"{where} is not what λ = 0 in this head alone does.")
    return "One prompt is one sample: the order of the heads may differ on another."


@torch.no_grad()
def _loss(model, idx, at):
    """The model's loss on idx, with lambda 0 in one head at (layer, head), or as it is."""
    model = copy.deepcopy(model)
    if at is not None:

        def off(module, x, logit):
            logit[..., at[1]] = -30  # sigmoid: 1e-13
            return logit

        model.blocks[at[0]].attn.lambda_proj.register_forward_hook(off)
    return model(idx[:, :-1], idx[:, 1:])[1].item()
