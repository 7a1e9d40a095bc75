"""The checks of notebook 05: the lines of a training loop, and what two runs may say."""

import dataclasses
import functools
import math

import torch
import torch.nn.functional as F

from minidiff import GPT, GPTConfig
from minidiff.course.checks import call, checks, close, expect, number, numbers
from minidiff.train import TrainConfig, training_step
from minidiff.variants import parameter_counts

BOS = 256
SMALL = GPTConfig(n_layer=1, n_head=2, n_kv_head=1, head_dim=4, n_embd=16, block_size=8)
PAIRS = {  # exercise 7: the baseline, and what differs in the settings of its run
    "A": ("softmax_1.5h", {}),
    "B": ("softmax_h", {}),
    "C": ("softmax_1.5h", {"grad_accum": 4}),
    "D": ("softmax_1.5h", {"warmup_steps": 200}),
    "E": ("softmax_1.5h", {"model": dataclasses.replace(TrainConfig().model, block_size=128)}),
    "F": ("softmax_1.5h", {"resume": True}),
    "G": ("softmax_1.5h", {"seed": 1}),
}
MATTERS = {
    "warmup_steps": "the learning rate of the first steps",
    "model": "how much text a token can see",
    "seed": "the order of the text, and the draw of the first weights",
}
HARMLESS = {"grad_accum", "resume"}  # they change how a step is computed or stored, not what it is


@checks
def windows(function):
    """Exercise 1: a function (stream, starts, length) -> inputs and targets, (B, length) each."""
    stream, starts, length = torch.arange(40, 90), [3, 20], 6
    given = stream.clone()
    found = call(function, given, starts, length)
    both = isinstance(found, (tuple, list)) and len(found) == 2
    expect(both, "Return two tensors: the inputs and the targets.")
    x, y = (numbers(f, (2, length), w) for f, w in zip(found, ("inputs", "targets"), strict=True))
    expect(torch.equal(given, stream), "BOS now stands in the text itself. Copy the window first.")
    text = torch.stack([stream[s : s + length + 1] for s in starts]).double()
    expect((x[:, 0] == BOS).all(), f"Each row of the inputs must begin with BOS, {BOS}.")
    expect((x[:, 1] != text[:, 0]).all(), "Here BOS pushes the text on. It replaces a token.")
    expect(close(x[:, 1:], text[:, 1:-1]), "The inputs are not the tokens from each start on.")
    expect((y != BOS).all(), "The targets hold BOS, which is nobody's next token here.")
    expect(not close(y, text[:, :-1]), "Each target is the input itself. Which token comes next?")
    expect(close(y, text[:, 1:]), "The targets are not those that follow each input in the text.")
    return "A window takes one token more than its length."


@checks
def loss(function):
    """Exercise 2: a function (logits (B, T, V), targets (B, T)) -> the mean loss in nats."""
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 5, 7, generator=g, dtype=torch.float64).requires_grad_()
    targets = torch.randint(0, 7, (3, 5), generator=g)
    raw = call(function, logits, targets)
    value = number(torch.as_tensor(raw).detach(), "the loss")
    p = logits.detach().softmax(-1).gather(-1, targets[..., None])  # of the true tokens: (3, 5, 1)
    right, shifted = -p.log().mean(), F.cross_entropy(logits[:, :-1].mT, targets[:, 1:]).detach()
    expect(not close(value, -right), "A surprise is not negative: which sign has ln p?")
    expect(not close(value, right * targets.numel()), "That is the sum. Take the mean.")
    expect(
        not close(value, right / math.log(2)), "That is in bits. Nats use the natural logarithm."
    )
    expect(not close(value, right.exp()), "That is the perplexity. Leave out the last exponential.")
    expect(not close(value, -p.mean().log()), "First the logarithm of each p, then the mean.")
    expect(not close(value, shifted), "The windows are shifted already: shift only once.")
    again = F.cross_entropy(logits.detach().softmax(-1).mT, targets)
    expect(not close(value, again), "`cross_entropy` takes logits: here the softmax is done twice.")
    expect(close(value, right), "Not this number. Which entries of the softmax, and which mean?")
    alive = getattr(raw, "requires_grad", False)
    expect(alive, "The number is right, but no gradient comes back: stay with tensors.")
    grads = [torch.autograd.grad(x, logits)[0] for x in (raw, F.cross_entropy(logits.mT, targets))]
    expect(close(*grads), "The loss is right; its gradient is not.")
    return "Every position of every window counts the same."


@checks
def adamw(function):
    """Exercise 3: a function (w, g, m, v, t, lr, beta1, beta2, eps, decay) -> new w, m, v."""
    settings = {"lr": 0.1, "beta1": 0.8, "beta2": 0.9, "eps": 0.05, "decay": 0.5}
    w = torch.tensor([1.0, -2.0, 0.5]).double()
    m, v, start = torch.zeros_like(w), torch.zeros_like(w), w
    theirs = torch.nn.Parameter(w.clone())
    betas = settings["beta1"], settings["beta2"]
    optimizer = torch.optim.AdamW([theirs], lr=0.1, betas=betas, eps=0.05, weight_decay=0.5)
    for t, g in enumerate(([0.1, 3.0, -1.0], [0.2, -1.0, 2.0], [0.0, 0.5, 1.0]), 1):
        g = torch.tensor(g).double()
        given = [x.clone() for x in (w, g, m, v)]
        found = call(function, *given, t, *settings.values())
        several = isinstance(found, (tuple, list)) and len(found) == 3
        expect(several, "Return three tensors: the new w, m and v.")
        found = [numbers(x, w.shape, what) for x, what in zip(found, "wmv", strict=True)]
        m_new, v_new = (
            b * old + (1 - b) * new for b, old, new in ((betas[0], m, g), (betas[1], v, g**2))
        )
        in_gradient = betas[0] * m + (1 - betas[0]) * (g + settings["decay"] * w)
        expect(not close(found[1], in_gradient), "The decay is in m. AdamW keeps it out of there.")
        expect(close(found[1], m_new), f"m is wrong at t = {t}: what share of the old mean stays?")
        expect(close(found[2], v_new), f"v is wrong at t = {t}: it is the running mean of g².")
        for says, wrong in _wrong_steps(w, m_new, v_new, t, **settings).items():
            expect(not close(found[0], wrong), says)
        theirs.grad = g
        optimizer.step()
        expect(close(found[0], theirs.detach()), f"m and v are right, w is not, at t = {t}.")
        w, m, v = theirs.detach().clone(), m_new, v_new
    expect(not torch.equal(w, start), "Nothing has moved.")
    return "Three steps, and the same weights as torch.optim.AdamW."


def _wrong_steps(w, m, v, t, lr, beta1, beta2, eps, decay):
    """What is wrong -> the weights that it gives, from the right new means m and v."""
    m_hat, v_hat = m / (1 - beta1**t), v / (1 - beta2**t)
    kept, step = w * (1 - lr * decay), lr * m_hat / (v_hat.sqrt() + eps)
    late = m / (1 - beta1 ** (t + 1)) / ((v / (1 - beta2 ** (t + 1))).sqrt() + eps)
    return {
        "The step goes uphill: look at its sign.": kept + step,
        "The weight decay is missing.": w - step,
        "The weight decay is not multiplied by the learning rate.": w * (1 - decay) - step,
        "The bias correction is missing: both means started at 0.": kept
        - lr * m / (v.sqrt() + eps),
        "The bias correction is one step ahead: the first step has t = 1.": kept - lr * late,
        "v is corrected, m is not.": kept - lr * m / (v_hat.sqrt() + eps),
        "m is corrected, v is not.": kept - lr * m_hat / (v.sqrt() + eps),
        "You divide by the mean of the squares. Take its root.": kept - lr * m_hat / (v_hat + eps),
        "ε stands inside the root.": kept - lr * m_hat / (v_hat + eps).sqrt(),
    }


@checks
def training_steps(function):
    """Exercise 4: a function (model, optimizer, x, y, limit) -> loss, norm before the clip.

    It is tried with plain SGD, where every fault shows in the weights.
    """
    mine, theirs = _model(), _model()
    sgd = [torch.optim.SGD(model.parameters(), lr=0.1) for model in (mine, theirs)]
    for t in (1, 2):
        x, y = _batch(4, seed=t)
        before, grad = _weights(theirs), _gradient(theirs, x, y)
        limit = grad.norm().item() / 2
        right = [r.item() for r in training_step(theirs, sgd[1], [x], [y], limit)]
        found = call(function, mine, sgd[0], x, y, limit)
        both = isinstance(found, (tuple, list)) and len(found) == 2
        expect(both, "Return two numbers: the loss and the gradient norm.")
        value, norm = (number(torch.as_tensor(f).detach(), "what you return") for f in found)
        moved = _weights(mine) - before
        expect(moved.norm() > 0, "No weight has moved. Who uses the gradients, and are they there?")
        after = mine(x, y)[1].item()
        expect(not close(value, after, 1e-6), "That is the loss after the step. Return the first.")
        expect(close(value, right[0]), "That is not the loss which the model returns.")
        added = t == 2 and not close(norm, right[1])
        expect(not added, "The second step still holds gradients of the first. Who clears them?")
        expect(not close(norm, limit), "This norm is the limit: measure before you clip.")
        expect(close(norm, right[1]), "The norm is taken over all weights together.")
        uncut = close(moved, -0.1 * grad, 1e-2)
        expect(not uncut, "The step was not clipped. Clip after the backward, before the step.")
        same = torch.allclose(_weights(mine), _weights(theirs), atol=1e-6)
        expect(same, "Loss and norm are right, the new weights are not. How is it clipped?")
    return "Two steps, and the same weights as the package."


def _model():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return GPT(SMALL)


def _batch(rows, seed):
    g = torch.Generator().manual_seed(seed)
    x = torch.randint(0, 256, (rows, 8), generator=g)
    return x, (x + 1) % 256


def _weights(model):
    return torch.cat([w.detach().flatten() for w in model.parameters()]).clone()


def _gradient(model, x, y):
    grads = torch.autograd.grad(model(x, y)[1], list(model.parameters()))
    return torch.cat([g.flatten() for g in grads])


@checks
def units(nats, bits, perplexity, kilobytes):
    """Exercise 5: a loss in nats per byte -> bits, perplexity, kB of a file of 100 kB."""
    nats, bits = number(nats, "the loss"), number(bits, "the bits")
    expect(not close(bits, nats * math.log(2), 0.01), "A nat is more than a bit, not less.")
    expect(close(bits, nats / math.log(2), 0.01), "The bits: a bit is ln 2 nats.")
    perplexity = number(perplexity, "the perplexity")
    expect(not close(perplexity, 2**nats, 0.01), "Bits are right. Perplexity: 2 goes with bits.")
    expect(close(perplexity, math.exp(nats), 0.01), "Bits are right. Perplexity is e to the loss.")
    kilobytes = number(kilobytes, "the kilobytes")
    expect(not close(kilobytes, 100 * bits, 0.01), "That is in kilobits. A byte has eight.")
    expect(not close(kilobytes, 100 * nats / 8, 0.01), "A coder counts bits, not nats.")
    expect(close(kilobytes, 100 * bits / 8, 0.01), "Only the kilobytes are wrong: bits per byte.")
    return "A better model is a better compressor."


@checks
def accumulated(function):
    """Exercise 6: a function (model, parts) -> loss; it leaves the gradient of the whole batch."""
    x, y = _batch(8, seed=3)
    parts = list(zip(x.split((4, 3, 1)), y.split((4, 3, 1)), strict=True))
    model = _model()
    right, whole = _gradient(model, x, y), model(x, y)[1].item()
    value = number(torch.as_tensor(call(function, model, parts)).detach(), "the loss")
    grads = [w.grad for w in model.parameters()]
    expect(all(g is not None for g in grads), "A weight has no gradient: who calls backward?")
    found = torch.cat([g.flatten() for g in grads])
    each = [_gradient(model, *part) for part in parts]
    losses = [model(*part)[1].item() for part in parts]
    expect(not close(found, each[-1], 1e-2), "Only the gradient of the last part is left.")
    expect(
        not close(found, sum(each), 1e-2), "These are added up: too large by the number of parts."
    )
    mean = sum(each) / len(each)
    expect(
        not close(found, mean, 1e-2), "A mean of means: but the parts hold 4, 3 and 1 sequences."
    )
    expect(torch.allclose(found, right, atol=1e-6), "The gradient is not that of the whole batch.")
    expect(
        not close(value, sum(losses), 1e-4), "The gradient is right; the loss is a sum of means."
    )
    expect(close(value, whole, 1e-4), "The gradient is right. The loss needs the same weights.")
    return "Equal parts would all have the same weight."


@checks
def fair(letters):
    """Exercise 7: the letters of the pairs that differ in their architecture alone, as "AB"."""
    expect(isinstance(letters, str), 'Give the letters as a text, such as "AB".')
    chosen = set(letters.upper()) - set(" ,")
    expect(chosen <= set(PAIRS), f"There are the pairs {', '.join(PAIRS)}.")
    for letter in PAIRS:
        why = _unfair(letter)
        expect(letter not in chosen or not why, f"Look at pair {letter} again: {why}.")
        left_out = f"You left out pair {letter}. Does that setting change what the model learns?"
        expect(letter in chosen or why, left_out)
    return "A comparison can be unfair without anybody wanting it."


@functools.cache
def _unfair(letter):
    """What beside the architecture differs in a pair; "" where nothing does."""
    baseline, changes = PAIRS[letter]
    more = -parameter_counts(TrainConfig().model, baseline)["percent"]
    if abs(more) > 1:
        return f"one model has {abs(more):.0f}% fewer weights"
    one, other = (dataclasses.asdict(c) for c in (TrainConfig(), TrainConfig(**changes)))
    differ = [key for key in one if one[key] != other[key] and key not in HARMLESS]
    return f"the two runs also differ in {MATTERS[differ[0]]}" if differ else ""


@checks
def resumed(whole, before, after):
    """Exercise 8: (step, loss) of a whole run, of one that was stopped, and of what followed."""
    runs = [list(run) for run in (whole, before, after)]
    for run, what in zip(runs, ("whole", "before", "after"), strict=True):
        pairs = run and all(len(pair) == 2 for pair in run)
        expect(pairs, f"{what} must be a list of (step, loss), and not an empty one.")
    whole, before, after = ({int(step): value for step, value in run} for run in runs)
    last = max(whole)
    expect(min(whole) == 1, "The whole run must begin with step 1.")
    expect(max(before) < last, "The second run was not stopped: it reached the last step.")
    expect(min(after) > 1, "The third run began anew. Was a checkpoint written, and did it resume?")
    expect(max(after) == last, f"The third run ends at step {max(after)}, the whole one later.")
    missing = set(whole) - set(before) - set(after)
    expect(not missing, f"Step {min(missing or [0])} is in neither part.")
    for step, value in (before | after).items():
        same = value == whole[step]
        expect(same, f"At step {step} the losses differ. Same seed, same settings, same text?")
    return "Equal, not close: the bits agree."
