"""Sixteen dialects of one alphabet: notebook 11's task.

A text is BOS and 31 letters of one dialect. A dialect is a table: which letter follows which, and
how often. Nothing says which dialect it is, so a model must gather that from the letters before
(attention's part), and know sixteen tables (the feed-forward part's, where experts may help).
"""

import functools
import math
from dataclasses import dataclass

import matplotlib.pyplot as plt
import torch

from minidiff.look.plots import styled
from minidiff.look.probe import probe, summary
from minidiff.model import GPTConfig
from minidiff.train import TrainConfig, learning_rate, make_optimizer, training_step
from minidiff.variants import build
from minidiff.variants.moe import expert_load

LETTERS, DIALECTS, T = 24, 16, 32
BOS = LETTERS
MODEL = GPTConfig(
    n_layer=2, n_head=4, n_kv_head=2, head_dim=8, n_embd=32, block_size=T, vocab_size=LETTERS + 1
)  # of DIFF V2; the others are sized by variant()
CONFIG = TrainConfig(model=MODEL, steps=120, batch_size=32, lr=1.2e-2, warmup_steps=20)


@functools.cache
def tables():
    """(DIALECTS, LETTERS, LETTERS): the probability of the next letter, for each letter."""
    draw = torch.Generator().manual_seed(0)
    pairs = 2 * torch.randn(DIALECTS, LETTERS, LETTERS, generator=draw)
    return (pairs + 1.2 * torch.randn(DIALECTS, 1, LETTERS, generator=draw)).softmax(-1)


def make_batch(size, seed):
    """Inputs and targets (B, T), and the dialect of each text (B,)."""
    draw = torch.Generator().manual_seed(seed)
    dialect = torch.randint(DIALECTS, (size,), generator=draw)
    letters = [torch.randint(LETTERS, (size,), generator=draw)]
    for _ in range(T - 1):
        letters.append(torch.multinomial(tables()[dialect, letters[-1]], 1, generator=draw)[:, 0])
    text = torch.stack([torch.full((size,), BOS), *letters], 1)  # (B, T + 1)
    return text[:, :-1], text[:, 1:], dialect


def best_loss(x, y):
    """The lowest mean loss that is possible, in nats a letter: Bayes' rule, knowing all tables."""
    follows = tables()[:, x[:, 1:], y[:, 1:]]  # (DIALECTS, B, T - 1): of all letters but the first
    before = follows.log().cumsum(-1) - follows.log()  # what the earlier letters say of a dialect
    mixture = (before.softmax(0) * follows).sum(0)  # (B, T - 1)
    first = math.log(LETTERS)  # nothing is known of it
    return (first - mixture.log().sum(-1).mean().item()) / T


def train_model(name, seed, balance_weight=None, config=CONFIG):
    """Train one variant on its dialects; a balance weight that is not None replaces the package's.

    Runs of one seed see the same texts in the same order, whatever the variant.
    """
    torch.manual_seed(seed)
    model = build(config.model, name)
    if balance_weight is not None:
        for block in model.blocks:
            block.mlp.balance_weight = balance_weight
    optimizer = make_optimizer(model, config)
    for step in range(config.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, config)
        x, y, _ = make_batch(config.batch_size, 1000 * seed + step)
        training_step(model, optimizer, [x], [y], config.grad_clip)
    return model


@dataclass
class Found:
    """What a trained model does on 256 new texts."""

    loss: float  # nats a letter
    on_bos: float  # the share of BOS in the worst head (first_share_eff_max of look/probe.py)
    load: torch.Tensor | None  # (n_layer, E) of the slots, 1 where fair; None without experts


@torch.no_grad()
def examine(model):
    """Measure a trained model: :class:`Found`."""
    x, y, _ = make_batch(256, 10**6)
    loss = model(x, y)[1].item()
    on_bos = summary(probe(model, x[:32]))["first_share_eff_max"]
    if not hasattr(model.blocks[0].mlp, "router"):
        return Found(loss, on_bos, None)
    load = expert_load(model, x)
    return Found(loss, on_bos, load * load.shape[1])


@styled
def load_curves(groups):
    """Load of each layer's experts, from the busiest to the idlest: label -> loads (n_layer, E).

    A thin line is a seed, a bold one the mean of the seeds.
    """
    n_layer = len(next(iter(groups.values()))[0])
    fig, axes = plt.subplots(1, n_layer, figsize=(13, 4.8), sharey=True, squeeze=False)
    looks = (("#D55E00", "o-"), ("black", "s--"))
    for layer, ax in enumerate(axes[0]):
        for (label, loads), (tint, look) in zip(groups.items(), looks, strict=True):
            ranked = torch.stack([load[layer] for load in loads]).sort(-1, descending=True).values
            rank = range(1, ranked.shape[1] + 1)
            ax.plot(rank, ranked.T, look[1:], color=tint, linewidth=1, alpha=0.4)
            ax.plot(rank, ranked.mean(0), look, color=tint, label=label, markersize=7)
        ax.axhline(1, zorder=0, color="black", linestyle=":", linewidth=1.5)
        ax.set(xlabel="expert, busiest first", title=f"Layer {layer}", xticks=(1, 4, 8, 12, 16))
    axes[0, 0].set_ylabel("load (1: fair)")
    axes[0, -1].legend()
    return fig
