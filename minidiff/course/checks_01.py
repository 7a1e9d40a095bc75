"""The checks of notebook 01."""

import torch

from minidiff import GPTConfig, attention
from minidiff.course.checks import Wrong, call, checks, close, expect, number, numbers
from minidiff.course.example import A1, A2, VALUES
from minidiff.model import ATTENTION, DiffV2Attention, rope_table

SMALL = GPTConfig(n_embd=24, n_head=4, n_kv_head=2, head_dim=6, block_size=16)


@checks
def one_output(weights, context):
    """Exercise 1: the weights and the context of the example at lambda = 0.8."""
    w, lam = numbers(weights, (3,), "the weights"), 0.8
    right = A1 - lam * A2
    total = float(w.sum())
    expect(not close(w, A1 - 0.5 * A2), "These are the weights at λ = 0.5; λ has changed.")
    expect(not close(w, right.clamp(min=0)), "A weight may be negative: keep it as it is.")
    expect(not close(total, 1), "These sum to 1. Nothing is normalised after the subtraction.")
    expect(close(total, 1 - lam), f"These sum to {total:.3g}. What must the sum be at λ = {lam}?")
    expect(close(w, right), "The sum is right. Look at each token again: a1 minus λ times a2.")
    c = numbers(context, (4,), "the context")
    expect(not close(c, A1 @ VALUES), "The weights are right. This is the context of a1 alone.")
    wrong = [i for i in range(4) if not close(c[i], (right @ VALUES)[i])]
    expect(not wrong, f"The weights are right. Look at channel {wrong[:1]}: weight times value.")
    return "Token A is now taken away more than once."


@checks
def pair_step(step):
    """Exercise 2: a function (a, lam) -> the outputs of the pairs, and its gradients."""
    generator = torch.Generator().manual_seed(0)
    shapes = (3, 6, 4), (3, 3)  # T = 3, h = 3, d = 4
    a, lam = (torch.rand(s, generator=generator, dtype=torch.float64) for s in shapes)
    a, lam = a.requires_grad_(), lam.requires_grad_()
    raw = call(step, a, lam)
    out = numbers(raw, (3, 3, 4), "what your function returns")
    first, second, size = a[:, 0::2], a[:, 1::2], lam[..., None]
    expect(not close(out, first - second), "λ has no effect.")
    expect(not close(out, first + size * second), "This adds the second head of each pair.")
    expect(not close(out, second - size * first), "The two heads of each pair have changed places.")
    halves = a[:, :3] - size * a[:, 3:]
    expect(not close(out, halves), "This pairs head i with head i + h, and not with its neighbour.")
    sigmoid = first - size.sigmoid() * second
    expect(not close(out, sigmoid), "Here lam is λ itself, no logit: it needs no sigmoid.")
    right = first - size * second
    expect(close(out, right), "The shape is right, the numbers are not. Which heads make a pair?")
    expect(getattr(raw, "requires_grad", False), "No gradient comes back: stay with tensors.")
    found, exact = (torch.autograd.grad(x.square().sum(), (a, lam)) for x in (raw, right))
    expect(close(found[0], exact[0]), "The outputs are right; the gradient to a is not.")
    expect(close(found[1], exact[1]), "The outputs are right; the gradient to λ is not.")
    return "Outputs and both gradients agree."


@checks
def attention_layer(layer):
    """Exercise 3: a class (D, h, h_kv, d) that computes what the package's DIFF V2 layer does."""
    c, seed = SMALL, torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = DiffV2Attention(c)
        mine = call(layer, c.n_embd, c.n_head, c.n_kv_head, c.head_dim)
    shapes, given = ({k: tuple(w.shape) for k, w in m.state_dict().items()} for m in (theirs, mine))
    for name, shape in shapes.items():
        expect(name in given, f"There is no {name.split('.')[0]} yet (a Linear without bias).")
        why = f"{name} has the shape {given.get(name)}"
        expect(
            given[name] == shape, f"{why}: how many heads does it serve? (D = {c.n_embd}, h = 4)"
        )
    expect(
        len(given) == len(shapes), f"One weight too many: {', '.join(set(given) - set(shapes))}."
    )
    mine.load_state_dict(theirs.state_dict())
    x, rope = torch.randn(2, 9, c.n_embd, generator=seed), rope_table(c)[:9]
    out = numbers(call(mine, x, rope), x.shape, "the output")
    expect(not close(out, _variant(theirs, "diff_halves")(x, rope), 1e-2), "You pair i with i + h.")
    raw = _variant(theirs, "diff_no_sigmoid")(x, rope)
    expect(not close(out, raw, 1e-2), "lambda_proj gives a logit; λ lies between 0 and 1.")
    same = torch.allclose(out, theirs(x, rope).double(), atol=1e-5)
    expect(same, "The weights fit, the output differs: look at the subtraction and at λ.")
    return "The same output as the package's layer, with the same weights."


def _variant(layer, name):
    """The same weights in another of the package's layers."""
    with torch.random.fork_rng():
        other = ATTENTION[name](layer.config)
    other.load_state_dict(layer.state_dict())
    return other


@checks
def kv_head(function):
    """Exercise 4: a function (j, h, h_kv) -> the key/value head that query head j reads."""
    for h, h_kv in ((8, 4), (6, 3), (4, 1), (5, 5)):
        v = torch.arange(h_kv).double()[None, None, :, None].expand(1, 2, h_kv, 2)
        a = attention(torch.zeros(1, 2, 2 * h, 2).double(), torch.zeros_like(v), v)
        for j, seen in enumerate(a[0, -1, :, 0].tolist()):
            found = number(call(function, j, h, h_kv), "what your function returns")
            where = f"for j = {j}, h = {h}, h_kv = {h_kv}"
            expect(found == int(found), f"A head's number is whole, and {where} it is {found:.3g}.")
            expect(0 <= found < h_kv, f"There is no key/value head {found:.0f} {where}.")
            expect(found == round(seen), f"{where[:1].upper()}{where[1:]} `attention` disagrees.")
    return "Query heads stand in groups, one group after the other."


@checks
def repaired_order(function):
    """Exercise 5: a function h -> the order of 2h query heads that repairs the wrong pairing."""
    config = GPTConfig(n_embd=24, n_head=4, n_kv_head=1, head_dim=6, block_size=16)
    h, seed = config.n_head, torch.Generator().manual_seed(0)
    order = _permutation(call(function, h), 2 * h, "query head")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        trained, repaired = ATTENTION["diff_halves"](config), DiffV2Attention(config)
    repaired.load_state_dict(trained.state_dict())
    heads = trained.q_proj.weight.detach().unflatten(0, (-1, config.head_dim))  # (2h, d, D)
    repaired.q_proj.weight.data.copy_(heads[order].flatten(0, 1))
    x, rope = torch.randn(1, 9, config.n_embd, generator=seed), rope_table(config)[:9]
    expect(order != list(range(2 * h)), "This order changes nothing.")
    partners = sum(abs(a - b) == h for a, b in zip(order[::2], order[1::2], strict=True))
    expect(partners == h, f"Only {partners} of {h} old pairs stand side by side, at 2i and 2i + 1.")
    expect(
        torch.allclose(trained(x, rope), repaired(x, rope), atol=1e-5),
        "Partners stand side by side. Look at which of them is subtracted, and at the order of "
        "the pairs: λ and o_proj belong to output heads.",
    )
    return "The repaired layer gives the same output."


@checks
def best_constant(function):
    """Exercise 6: a function (lam_t, a_t) -> the constant that misses least."""
    g = torch.Generator().manual_seed(4)
    a = torch.randn(200, 5, generator=g).double() * torch.arange(1, 201)[:, None] / 100
    lam = torch.linspace(0.1, 0.9, 200).double()[:, None]
    c = number(call(function, lam, a), "what your function returns")
    size = a.square().sum(1, keepdim=True)
    expect(not close(c, lam.mean()), "That is the plain mean of λ. Do all tokens count alike?")
    by_length = (lam * size.sqrt()).sum() / size.sqrt().sum()
    expect(not close(c, by_length), "Almost: the weights are lengths. What stands in the sum?")
    here, more, less = (((x - lam) * a).square().sum() for x in (c, c + 1e-3, c - 1e-3))
    expect(here <= more, f"With {c:.4f} too much is left: a slightly larger constant does better.")
    expect(here <= less, f"With {c:.4f} too much is left: a slightly smaller constant does better.")
    return "A mean of λ, in which loud tokens count more. Nothing is left if λ is constant."


@checks
def saving(limit, h_kv):
    """Exercise 7: the largest h_kv/h that saves 20%, and the largest divisor of 32 below it."""
    limit, h_kv = number(limit, "the limit"), number(h_kv, "h_kv")
    expect(limit > 0, "h_kv / h is positive.")
    share = (1 - 1 / 128) / (4 + 2 * limit)
    expect(not close(limit, 0.5, 5e-3), "That is the limit for d → ∞; here d = 128.")
    expect(abs(share - 0.2) < 5e-4, f"With h_kv/h = {limit:.3g} the saving is {share:.1%}.")
    expect(h_kv == int(h_kv) and h_kv > 0 and 32 % h_kv == 0, "Your h_kv must divide 32.")
    expect(h_kv <= 32 * limit, f"The limit is right, and {h_kv:.0f}/32 is above it.")
    expect(2 * h_kv > 32 * limit, "The limit is right; a larger divisor of 32 is below it, too.")
    return "No other divisor lies between it and the limit."


@checks
def channel_order(function):
    """Exercise 8: a function d -> the order of channels that makes halves into neighbours."""
    c, seed = SMALL, torch.Generator().manual_seed(0)
    d = c.head_dim
    order = _permutation(call(function, d), d, "channel")
    expect(order != list(range(d)), "This order changes nothing.")
    pairs = {(a, b) for a, b in zip(order[::2], order[1::2], strict=True)}
    turned = {(b, a) for a, b in pairs}
    wanted = {(i, i + d // 2) for i in range(d // 2)}
    expect(turned != wanted, "The pairs are right, but turned the other way: who comes first?")
    expect(pairs == wanted, "Neighbours in your order must be partners in the foreign model.")
    expect(order[0] == 0 and order[2] == 1, "The pairs are right. Each has a frequency of its own.")
    x, rope = torch.randn(1, 9, 4, d, generator=seed), rope_table(c)[:9]
    cos, sin = rope.unsqueeze(2).unbind(1)  # (T, 1, d/2) each
    first, second = x.unflatten(-1, (2, -1)).unbind(-2)
    foreign = torch.cat((first * cos - second * sin, first * sin + second * cos), dim=-1)
    neighbours = x[..., order].unflatten(-1, (-1, 2)).unbind(-1)  # what the package turns
    ours = (neighbours[0] * cos - neighbours[1] * sin, neighbours[0] * sin + neighbours[1] * cos)
    expect(close(torch.stack(ours, -1).flatten(-2), foreign[..., order]), "The outputs differ.")
    return "A score is a sum over channels, and a sum does not depend on their order."


def _permutation(answer, n, what):
    """A list of ints from a list or tensor; each of 0 ... n - 1 must occur once."""
    order = [
        number(x, f"each {what}") for x in (answer if hasattr(answer, "__len__") else [answer])
    ]
    if sorted(order) != list(range(n)):
        raise Wrong(f"Each {what} from 0 to {n - 1} must occur once in a list of {n}.")
    return [int(x) for x in order]
