"""Answers to the exercises of notebook 05: right ones, and wrong ones with what must be said."""

import math

import torch
import torch.nn.functional as F

from minidiff.train import training_step

# ---- Exercise 1: windows -----------------------------------------------------------------------


def cut(stream, starts, length):
    return torch.stack([stream[s : s + length + 1] for s in starts])


def windows(stream, starts, length):
    tokens = cut(stream, starts, length)
    tokens[:, 0] = 256
    return tokens[:, :-1], tokens[:, 1:]


def no_bos(stream, starts, length):
    tokens = cut(stream, starts, length)
    return tokens[:, :-1], tokens[:, 1:]


def not_shifted(stream, starts, length):
    x, _ = windows(stream, starts, length)
    return x, cut(stream, starts, length)[:, :-1]


def pushed(stream, starts, length):
    tokens = cut(stream, starts, length)[:, :length]
    return torch.cat([torch.full((len(starts), 1), 256), tokens[:, :-1]], 1), tokens


def into_the_text(stream, starts, length):
    for s in starts:
        stream[s] = 256
    tokens = cut(stream, starts, length)
    return tokens[:, :-1], tokens[:, 1:]


def targets_with_bos(stream, starts, length):
    x, _ = windows(stream, starts, length)
    return x, x


def two_ahead(stream, starts, length):
    return windows(stream, starts, length)[0], cut(stream, [s + 2 for s in starts], length - 1)


def short(stream, starts, length):
    return windows(stream, starts, length - 1)


# ---- Exercise 2: the loss ----------------------------------------------------------------------


def loss(logits, targets):
    return -logits.log_softmax(-1).gather(-1, targets[..., None]).mean()


def with_cross_entropy(logits, targets):
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


# ---- Exercise 3: AdamW -------------------------------------------------------------------------


def adamw(
    w, g, m, v, t, lr, beta1, beta2, eps, decay,
    *, l2=False, square=True, correct=(1, 1), root=True, inside=False, times_lr=True, sign=-1,
    old_mean=True, late=0,
):  # fmt: skip
    """The right step, and what a student may get wrong in it."""
    g = g + decay * w if l2 else g
    m = beta1 * m + ((1 - beta1) * g if old_mean else g)
    v = beta2 * v + (1 - beta2) * (g**2 if square else g.abs())
    m_hat = m / (1 - beta1 ** (t + late)) if correct[0] else m
    v_hat = v / (1 - beta2 ** (t + late)) if correct[1] else v
    below = v_hat + eps
    if root:
        below = (v_hat + eps).sqrt() if inside else v_hat.sqrt() + eps
    w = w * (1 - (lr if times_lr else 1) * (0 if l2 else decay))
    return w + sign * lr * m_hat / below, m, v


def other(**changes):
    return (lambda *given: adamw(*given, **changes),)


def no_decay(w, g, m, v, t, lr, beta1, beta2, eps, decay):
    return adamw(w, g, m, v, t, lr, beta1, beta2, eps, 0.0)


# ---- Exercises 4 and 6: the step, and micro-batches --------------------------------------------


def norm_of(model):
    return torch.stack([w.grad.norm() for w in model.parameters()]).norm()


def step(model, optimizer, x, y, limit, clear=True, clip="norm", before=True, late=False):
    """The right step, and what a student may get wrong in it."""
    value = model(x, y)[1]
    value.backward()
    norm = norm_of(model)
    if late:
        optimizer.step()
    if clip == "norm":
        torch.nn.utils.clip_grad_norm_(model.parameters(), limit)
    if clip == "value":
        torch.nn.utils.clip_grad_value_(model.parameters(), limit / 100)
    if not late:
        optimizer.step()
    norm = norm if before else norm_of(model)
    if clear:
        optimizer.zero_grad()
    return value, norm


def changed(**changes):
    return (lambda *given: step(*given, **changes),)


def cleared_first(model, optimizer, x, y, limit):
    optimizer.zero_grad()
    value, norm = step(model, optimizer, x, y, limit, clear=False)
    return value.item(), norm.item()


def no_backward(model, optimizer, x, y, limit):
    optimizer.step()
    return model(x, y)[1], limit


def loss_after(model, optimizer, x, y, limit):
    return model(x, y)[1], step(model, optimizer, x, y, limit)[1]


def measured_late(model, optimizer, x, y, limit):
    norm = step(model, optimizer, x, y, limit)[1]
    return model(x, y)[1], norm


def largest_norm(model, optimizer, x, y, limit):
    value = model(x, y)[1]
    value.backward()
    norm = max(w.grad.norm() for w in model.parameters())
    torch.nn.utils.clip_grad_norm_(model.parameters(), limit)
    optimizer.step()
    optimizer.zero_grad()
    return value, norm


def accumulated(model, parts, weight=None, clear=False):
    """Each part counts by its share of the sequences, or by ``weight(its length, parts)``."""
    total, rows = 0.0, sum(len(x) for x, _ in parts)
    for x, y in parts:
        if clear:
            model.zero_grad()
        share = weight(len(x), len(parts)) if weight else len(x) / rows
        value = model(x, y)[1] * share
        value.backward()
        total = total + value.detach()
    return total


def sum_of_losses(model, parts):
    accumulated(model, parts)
    return sum(model(x, y)[1].item() for x, y in parts)


# ---- Exercise 8: runs --------------------------------------------------------------------------

WHOLE = [(t, 5.0 / t) for t in range(1, 41)]


def from_seed_1(first):
    return [(t, value + 0.01) for t, value in WHOLE[first:]]


RIGHT = {  # a check -> answers that are right
    "windows": [(windows,)],
    "loss": [(loss,), (with_cross_entropy,)],
    "adamw": [(adamw,)],
    "training_steps": [
        (step,),
        (cleared_first,),
        (lambda model, optimizer, x, y, c: training_step(model, optimizer, [x], [y], c),),
    ],
    "units": [(1.0, 1.443, 2.718, 18.03), (2.5, 2.5 / math.log(2), math.exp(2.5), 45.1)],
    "accumulated": [(accumulated,)],
    "fair": [("ACF",), ("f, c, a",)],
    "resumed": [(WHOLE, WHOLE[:30], WHOLE[30:]), (WHOLE, WHOLE[:30], WHOLE[20:])],
}
WRONG = {  # a check -> typical wrong answers, and what must be said
    "windows": [
        ((no_bos,), "must begin with BOS"),
        ((not_shifted,), "the input itself"),
        ((pushed,), "pushes the text on"),
        ((into_the_text,), "in the text itself"),
        ((targets_with_bos,), "targets hold BOS"),
        ((two_ahead,), "not those that follow"),
        ((short,), "shape"),
        ((lambda *given: windows(*given)[0],), "two tensors"),
        ((lambda *given: None,), "return"),
    ],
    "loss": [
        ((lambda z, t: -loss(z, t),), "not negative"),
        ((lambda z, t: loss(z, t) * t.numel(),), "the sum"),
        ((lambda z, t: loss(z, t) / math.log(2),), "in bits"),
        ((lambda z, t: loss(z, t).exp(),), "perplexity"),
        ((lambda z, t: -z.softmax(-1).gather(-1, t[..., None]).mean().log(),), "then the mean"),
        ((lambda z, t: loss(z[:, :-1], t[:, 1:]),), "shift only once"),
        ((lambda z, t: with_cross_entropy(z.softmax(-1), t),), "softmax is done twice"),
        ((lambda z, t: loss(z, t).item(),), "no gradient"),
        ((lambda z, t: loss(z, t) + 0.1,), "Which entries"),
        ((lambda z, t: -z.log_softmax(-1).gather(-1, t[..., None]),), "one number"),
        ((lambda z, t: None,), "return"),
    ],
    "adamw": [
        (other(correct=(0, 0)), "correction is missing"),
        (other(correct=(0, 1)), "m is not"),
        (other(correct=(1, 0)), "v is not"),
        (other(late=1), "one step ahead"),
        (other(l2=True), "decay is in m"),
        (other(times_lr=False), "not multiplied"),
        ((no_decay,), "decay is missing"),
        (other(inside=True), "inside the root"),
        (other(root=False), "Take its root"),
        (other(square=False), "v is wrong"),
        (other(old_mean=False), "m is wrong"),
        (other(sign=1), "uphill"),
        (other(correct=(1, 1), late=-1), "not finite"),
        ((lambda w, *given: (w, None, None),), "m must be numbers"),
        ((lambda *given: adamw(*given)[0],), "three tensors"),
    ],
    "training_steps": [
        (changed(clear=False), "Who clears them"),
        (changed(clip=None), "not clipped"),
        (changed(clip="value"), "How is it clipped"),
        (changed(late=True), "not clipped"),
        (changed(before=False), "measure before"),
        ((no_backward,), "No weight has moved"),
        ((measured_late,), "after the step"),
        ((largest_norm,), "all weights together"),
        ((lambda *given: step(*given)[0],), "two numbers"),
        ((lambda *given: None,), "return"),
    ],
    "units": [
        ((2.0, 2 * math.log(2), 7.39, 36.1), "more than a bit"),
        ((2.0, 2.885, 4.0, 36.1), "goes with bits"),
        ((2.0, 2.885, 7.39, 288.5), "has eight"),
        ((2.0, 2.885, 7.39, 25.0), "not nats"),
        ((2.0, 3.0, 7.39, 36.1), "ln 2"),
    ],
    "accumulated": [
        ((lambda m, p: accumulated(m, p, lambda rows, n: 1),), "too large"),
        ((lambda m, p: accumulated(m, p, lambda rows, n: 1 / n),), "mean of means"),
        ((lambda m, p: accumulated(m, p, lambda rows, n: 1, clear=True),), "last part"),
        ((lambda m, p: accumulated(m, p, lambda rows, n: rows),), "not that of the whole"),
        ((sum_of_losses,), "sum of means"),
        ((lambda m, p: m(*p[0])[1],), "who calls backward"),
    ],
    "fair": [
        (("ACFG",), "pair G again"),
        (("ABCF",), "pair B again"),
        (("AC",), "left out pair F"),
        (("ACEF",), "pair E again"),
        (("AX",), "There are the pairs"),
        ((["A"],), "as a text"),
    ],
    "resumed": [
        ((WHOLE, WHOLE[:30], WHOLE), "began anew"),
        ((WHOLE, WHOLE, WHOLE[30:]), "was not stopped"),
        ((WHOLE, WHOLE[:30], from_seed_1(30)), "losses differ"),
        ((WHOLE, WHOLE[:20], WHOLE[30:]), "in neither part"),
        ((WHOLE, WHOLE[:20], WHOLE[20:30]), "third run ends"),
        ((WHOLE[10:], WHOLE[:30], WHOLE[30:]), "begin with step"),
        ((WHOLE, [], WHOLE[30:]), "not an empty one"),
    ],
}
