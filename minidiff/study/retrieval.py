"""How well does a model use its context? Loss by position, recall of key-value lines, induction.

    row |= retrieval(model, text=idx)  # plain numbers, for a row of study.compare

Every prompt is drawn from ``seed`` alone by a generator on the CPU, so that two models, or two
machines, meet the same prompts, and their difference is paired. ``_se`` marks the standard error
of the mean over the prompts (for recall and induction) or windows (for loss by position).
"""

import dataclasses
import math

import torch
import torch.nn.functional as F

from minidiff.data import encode
from minidiff.look.probe import attention_maps
from minidiff.model import GPT

LETTERS, DIGITS = range(ord("a"), ord("z") + 1), range(ord("0"), ord("9") + 1)
NEAR = 64  # random tokens in one copy of the near induction task
LEAST_BLOCK = 68  # tokens of context that four lines and a question need
TOKENS = 2**14  # in one forward pass: 16 windows of 1024


def retrieval(model, seed=0, *, text=None, prompts=128, sequences=8):
    """Measure the three: a dict name -> number, all that this model can be asked.

    Args:
        model: a GPT. seed: of the prompts.
        text: (N, T) windows of text, BOS first, for :func:`loss_by_position`; None leaves it out.
        prompts: for each number of lines of :func:`recall`, which needs a model of bytes
            (vocab_size 257) and is left out for any other.
        sequences: of each kind of :func:`induction`.
    Raises:
        ValueError: a block_size too short for four lines, or text that does not fit it.
    """
    limit, bytes_and_bos = model.config.block_size, model.config.vocab_size == 257
    most = (limit - len("?abcd = '123")) // len("abcd = '1234'\n")  # lines that fit
    if limit < LEAST_BLOCK:
        raise ValueError(f"block_size={limit} is too short: make it at least {LEAST_BLOCK}")
    found = loss_by_position(model, text) if text is not None else {}
    for n_lines in (2**k for k in range(2, most.bit_length()) if bytes_and_bos):  # 4, 8, ...
        found |= recall(model, n_lines, seed, prompts)
    far = limit // 2  # the longest copy that fits twice
    for name, length in (("near", min(NEAR, far)), ("far", far)):
        task = induction(model, length, seed, sequences)
        found |= {f"induction_{name}_{key}": value for key, value in task.items()}
    return found | induction_heads(model, min(NEAR, far), seed)


def longer(model, block_size):
    """The same weights with RoPE's table for more positions: to ask beyond the trained context."""
    twin = GPT(dataclasses.replace(model.config, block_size=block_size))
    twin.load_state_dict(model.state_dict())
    return twin.to(model.embed.weight).eval()


# ---- (a) Loss by position ----------------------------------------------------------------------


def loss_by_position(model, text):
    """Does more context help? The loss of early against late tokens, in nats.

    ``loss_after_n`` is the mean over the tokens with n to 2n - 1 tokens before them in the window:
    the last is its second half, and each one before half as long, down to T/32 (the first holds
    all that is left). ``context_gain`` is loss_after_(T/32) minus the last: the in-context learning
    score of Olsson et al. 2022 (arXiv 2209.11895), who took the 50th and the 500th token.

    Args:
        text: (N, T) tokens, T from 64 to block_size.
    """
    found, buckets = {}, losses_by_position(model, text)
    for start, values in buckets.items():
        found |= _mean(f"loss_after_{start}", values)
    _, early, *_, late = buckets.values()
    return found | _mean("context_gain", early - late)


def losses_by_position(model, text):
    """The same for each window, whose losses differ a lot: {tokens before the first: (N,)}."""
    T = text.shape[1] if text.dim() == 2 else 0
    if not 64 <= T <= model.config.block_size:
        raise ValueError(
            f"text {tuple(text.shape)} must be (N, T), T from 64 to {model.config.block_size}"
        )
    loss, _ = predictions(model, text, T - 1)  # (N, T-1): column i has i + 1 tokens before it
    starts = [1, *(T >> k for k in range(5, 0, -1))]  # 1, T/32, ..., T/2
    ends = [*starts[1:], T]
    return {a: loss[:, a - 1 : b - 1].mean(1) for a, b in zip(starts, ends, strict=True)}


# ---- (b) Recall of key-value lines -------------------------------------------------------------


def recall(model, n_lines, seed=0, prompts=128):
    """Give ``kzbq = '0482'`` lines, ask for one of them: exact answers, and nats per digit.

    ``recall_n`` is the share of prompts whose four digits are all the likeliest token of the whole
    vocabulary, each given those before: what greedy decoding would write. Guessing gives 10^-4,
    and log(10) = 2.30 nats per digit (``recall_nats_n``), the finer of the two. The task is the
    key-value retrieval of Liu et al. 2023 (arXiv 2307.03172), in the look of this course's text.
    """
    tokens = recall_prompts(n_lines, prompts, seed)
    loss, right = predictions(model, tokens, 4)  # (N, 4): the digits
    exact = right.all(1).double()
    return _mean(f"recall_{n_lines}", exact) | _mean(f"recall_nats_{n_lines}", loss.mean(1))


def recall_prompts(n_lines, prompts, seed=0):
    """(prompts, T) tokens: BOS, n_lines lines, the question and its answer, which are the end.

    Names are four random letters, all different within a prompt, so that no line is likelier than
    another and every prompt has the same length; the line that is asked for is drawn uniformly. The
    value is a string of four uniform digits: unlike a number it may begin with 0 and is still
    Python.
    """
    rng = torch.Generator().manual_seed(seed)
    name = _distinct(prompts, n_lines, rng)  # (N, n, 4)
    value = _draw(DIGITS, (prompts, n_lines, 4), rng)
    line = encode("abcd = '1234'\n")[0, 1:].repeat(prompts, n_lines, 1)  # (N, n, 14)
    line[..., :4], line[..., 8:12] = name, value
    asked = torch.randint(n_lines, (prompts,), generator=rng)
    question = line[torch.arange(prompts), asked, :12]  # (N, 12): kzbq = '0482
    bos = encode("").expand(prompts, 1)
    return torch.cat((bos, line.flatten(1), question), 1)


def _distinct(prompts, n, rng):
    """Names (prompts, n, 4): n of the 26^4 for each prompt, none of them twice."""
    if n > 1024:  # some pair of so many nearly always repeats
        rows = [torch.randperm(26**4, generator=rng)[:n] for _ in range(prompts)]
        number = torch.stack(rows)
    else:  # draw a prompt's names again until none repeats
        number = torch.randint(26**4, (prompts, n), generator=rng)
        while (again := (number.sort(1).values.diff(dim=1) == 0).any(1)).any():
            number[again] = torch.randint(26**4, (int(again.sum()), n), generator=rng)
    return number.unsqueeze(-1) // 26 ** torch.arange(4) % 26 + LETTERS[0]


# ---- (c) Induction -----------------------------------------------------------------------------


def induction(model, length, seed=0, sequences=8):
    """Random tokens, then the same again: does the model notice? (arXiv 2209.11895)

    ``first`` and ``second`` are the losses of the two copies in nats per token, ``gain`` the first
    minus the second. The first token of each copy is left out: nothing says what it is.
    """
    tokens = induction_prompts(model.config.vocab_size, length, sequences, seed)
    loss, _ = predictions(model, tokens, 2 * length)
    first, second = (copy[:, 1:].mean(1) for copy in loss.split(length, 1))
    return _mean("first", first) | _mean("second", second) | _mean("gain", first - second)


def induction_prompts(vocab_size, length, sequences, seed=0):
    """(sequences, 1 + 2 length) tokens: BOS, ``length`` uniform tokens, and these again.

    Of a model of bytes only printable ASCII: other bytes are rare in its text.
    """
    rng = torch.Generator().manual_seed(seed)
    ids = range(32, 127) if vocab_size == 257 else range(vocab_size - 1)
    copy = _draw(ids, (sequences, length), rng)
    return torch.cat((torch.full((sequences, 1), vocab_size - 1), copy, copy), 1)


def induction_heads(model, length, seed=0, sequences=4):
    """Attention at the induction offset: to what followed the same token in the first copy.

    ``induction_attention_max`` is that of the best head, ``_mean`` of all: the share of a row of
    |weights| (A1 - lambda A2 for DIFF V2), as in probe.py, mean over the second copy but for its
    last token, whose successor nobody has seen.
    """
    tokens = induction_prompts(model.config.vocab_size, length, sequences, seed)
    query = torch.arange(length + 1, 2 * length)
    shares = []
    for row in tokens[:, :-1]:
        for view in attention_maps(model, row[None]):
            eff = view.weights.abs()[:, query]  # (h, length - 1, T)
            at = eff[:, torch.arange(length - 1), query - length + 1]
            shares.append((at / eff.sum(-1).clamp_min(1e-30)).mean(-1))
    shares = torch.stack(shares).unflatten(0, (sequences, -1)).mean(0)  # (layers, h)
    return {
        "induction_attention_max": shares.max().item(),
        "induction_attention_mean": shares.mean().item(),
    }


# ---- Common ------------------------------------------------------------------------------------


@torch.no_grad()
def predictions(model, tokens, last):
    """Loss in nats, and whether the likeliest token is right, for the last tokens of each row.

    Args:
        tokens: (N, T) with T - 1 <= block_size. last: how many tokens count.
    Returns:
        (N, last) float64 and (N, last) bool, on the CPU.
    """
    losses, right, device = [], [], model.embed.weight.device
    for part in tokens.split(max(1, TOKENS // tokens.shape[1])):
        target = part[:, -last:].to(device)
        logits = model(part[:, :-1].to(device))[0][:, -last:].float()  # (b, last, vocab_size)
        losses.append(F.cross_entropy(logits.mT, target, reduction="none").double().cpu())
        right.append((logits.argmax(-1) == target).cpu())
    return torch.cat(losses), torch.cat(right)


def _draw(ids, shape, rng):
    return torch.randint(ids[0], ids[-1] + 1, shape, generator=rng)


def _mean(name, values):
    """The mean of independent values (N,), N >= 2, and its standard error."""
    return {
        name: values.mean().item(),
        f"{name}_se": values.std().item() / math.sqrt(len(values)),
    }
