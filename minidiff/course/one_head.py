"""One attention head that half of the time has nothing to say: notebook 04's experiment.

A sequence has 16 tokens with 8 content numbers each (mean 1, so they share a part). One early token
is marked. Each later token asks or does not: who asks must output the marked token's content, all
others 0. There are no positions and no other layers. Channels: 0 to 7 content, 8 marked, 9 asks,
10 is BOS, 11 a constant in place of a bias.
"""

from dataclasses import dataclass

import torch
from torch.func import functional_call, stack_module_state

from minidiff.model import ATTENTION, GPTConfig

T, D, FIRST = 16, 16, 5  # tokens, channels, the first token that may ask
STILL = torch.tensor([[1.0], [0.0]]).expand(T, 2, 4)  # cosine 1, sine 0: RoPE turns nothing


def make_batch(size, seed, bos):
    """Inputs (B, T, D), targets (B, T, 8), who asks (B, T); with bos, token 0 has no content."""
    draw = torch.Generator().manual_seed(seed)
    x = torch.zeros(size, T, D)
    x[..., :8] = 1 + torch.randn(size, T, 8, generator=draw)
    mark = torch.randint(1, FIRST, (size,), generator=draw)
    asks = torch.rand(size, T, generator=draw) < 0.5
    asks[:, :FIRST] = False  # only tokens after the mark ask
    if bos:
        x[:, 0] = 0
        x[:, 0, 10] = 2
    x[torch.arange(size), mark, 8] = 2
    x[..., 9], x[..., 11] = 2 * asks, 1
    marked = x[torch.arange(size), mark, :8]  # (B, 8)
    return x, marked[:, None] * asks[..., None], asks


def train_heads(name, steps=1500, seeds=3):
    """Train one head of this attention for each seed, with and without BOS, all at once.

    Returns:
        {True: heads with BOS, False: without}, a list of modules each. They see the same batches;
        Adam works number by number, so training them together changes nothing.
    """
    heads = []
    config = GPTConfig(name, n_head=1, n_kv_head=1, head_dim=8, n_embd=D, backend="naive")
    for seed in range(2 * seeds):
        torch.manual_seed(seed // 2)  # both of a seed start alike
        heads.append(ATTENTION[name](config))
    weights, _ = stack_module_state(heads)
    optimizer = torch.optim.Adam(weights.values(), lr=1e-2)

    def run(weights, x):
        return functional_call(heads[0], weights, (x, STILL))[..., :8]

    for step in range(steps):
        pairs = [make_batch(32, step, bos)[:2] for bos in (True, False)]
        x, target = (torch.stack(part).repeat(seeds, 1, 1, 1) for part in zip(*pairs, strict=True))
        errors = torch.vmap(run)(weights, x) - target  # (2 seeds, B, T, 8)
        optimizer.zero_grad()
        errors[:, :, 1:].square().mean((1, 2, 3)).sum().backward()
        optimizer.step()
    for i, head in enumerate(heads):
        head.load_state_dict({key: stacked[i].detach() for key, stacked in weights.items()})
    return {True: heads[0::2], False: heads[1::2]}


@dataclass
class Found:
    """What a trained head does on fresh batches. A silent row is one of a query that asks not."""

    asking: float  # mean square error of rows that ask
    silent: float  # of all others, from token 1 on
    share: float  # of token 0 in |w| of silent rows
    total: float  # sum of |w| of a silent row
    on_bos: tuple  # the mean weight of token 0 in silent rows, in each softmax map


@torch.no_grad()
def examine(head, bos):
    """Measure a trained head on 256 sequences that it has not seen: :class:`Found`."""
    x, target, asks = make_batch(256, 10**6, bos)
    square = (head(x, STILL)[..., :8] - target).square().mean(-1)  # (B, T)
    q, k, _ = head.qkv(x, STILL)
    rows = ~asks
    rows[:, :FIRST] = False
    w = head.weights(q, k, x)[:, 0][rows].abs()  # (rows, T)
    maps = head.branches(q, k)  # (B, H, T, T)
    return Found(
        asking=square[asks].mean().item(),
        silent=square[:, 1:][~asks[:, 1:]].mean().item(),
        share=(w[:, 0] / w.sum(-1).clamp_min(1e-9)).mean().item(),  # a row may be all zeros
        total=w.sum(-1).mean().item(),
        on_bos=tuple(maps[:, i][rows][:, 0].mean().item() for i in range(maps.shape[1])),
    )
