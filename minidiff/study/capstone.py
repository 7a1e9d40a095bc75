"""The capstone's lab (notebook 13): tiny models learn to recall what they read a moment ago.

A sequence is BOS, 8 to 16 random tokens, and the same tokens again; only the second copy counts. It
is the induction task of retrieval.py, with few kinds of tokens and a length that varies, so that
neither a fixed distance nor the last token alone gives the answer away. A hundred runs by this loop
are stored in notebooks/results/capstone.json; measure_capstone.py beside it makes them again.
"""

import dataclasses
import json
import statistics
from pathlib import Path

import torch

from minidiff.look.probe import attention_maps
from minidiff.model import GPT, GPTConfig
from minidiff.study.retrieval import induction_prompts, predictions
from minidiff.train import TrainConfig, learning_rate, make_optimizer, training_step

KINDS, LENGTHS = 16, (8, 16)  # kinds of tokens; of one copy in training
MODEL = GPTConfig(n_layer=2, n_head=2, n_kv_head=1, head_dim=16, n_embd=64, block_size=256,
                  vocab_size=KINDS + 1)  # fmt: skip
STEPS, BATCH = 400, 32
RATES = 1e-3, 2e-3, 4e-3, 8e-3, 16e-3
TUNING, SEEDS = (100, 101), range(8)  # who chooses the rate on SEEDS chooses their luck, too
UNSEEN = 10**9  # the seed of sequences that no training run has drawn
RESULTS = Path(__file__).parents[2] / "notebooks" / "results" / "capstone.json"


def batch(seed, step, size=BATCH):
    """Inputs and targets (B, T), T = 2 * length: the same for every model of a seed."""
    draw = seed * 10**6 + step
    low, high = LENGTHS
    length = int(torch.randint(low, high + 1, (), generator=torch.Generator().manual_seed(draw)))
    tokens = induction_prompts(KINDS + 1, length, size, draw)  # (B, 1 + 2 * length), BOS first
    x, y = tokens[:, :-1], tokens[:, 1:].clone()
    y[:, : length + 1] = -100  # left out: the first copy, and the first token of the second
    return x, y


def fit(model_config, seed, lr, steps=STEPS):
    """A trained model, and its loss at every step (nats per token of the second copy)."""
    config = TrainConfig(model=model_config, steps=steps, lr=lr, warmup_steps=steps // 20)
    torch.manual_seed(seed)
    model, losses = GPT(config.model), []
    optimizer = make_optimizer(model, config)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, config)
        x, y = batch(seed, step)
        losses.append(training_step(model, optimizer, [x], [y], config.grad_clip)[0])
    return model.eval(), torch.stack(losses).tolist()


def score(model, length=LENGTHS[1], sequences=512):
    """(nats per token, share of right ones) in the second copy of sequences never seen."""
    tokens = induction_prompts(KINDS + 1, length, sequences, UNSEEN)
    loss, right = predictions(model, tokens, length)
    return loss[:, 1:].mean().item(), right[:, 1:].double().mean().item()


def at_offset(model, length=LENGTHS[1], sequences=4):
    """Attention at the right place, in the head where it is largest: does the difference find it?

    The place is what followed the same token in the first copy, as in retrieval.induction_heads.

    Returns:
        layer and head; ``share`` there of |A1 - lambda A2|, rows normalised to 1; for a pair of
        maps also ``a1``, that of the first map alone, and ``lam``, its mean lambda.
    """
    tokens = induction_prompts(KINDS + 1, length, sequences, UNSEEN)[:, :-1]
    query = torch.arange(length + 1, 2 * length)
    views = [attention_maps(model, row[None]) for row in tokens]
    place = {}
    for name in ("weights", "a1"):
        maps = torch.stack([torch.stack([getattr(v, name) for v in each]) for each in views]).abs()
        maps = maps / maps.sum(-1, keepdim=True).clamp_min(1e-30)  # (sequences, layers, h, T, T)
        place[name] = maps[..., query, query - length + 1].mean((0, -1))  # (layers, h)
    layer, head = divmod(int(place["weights"].argmax()), place["weights"].shape[1])
    found = {"layer": layer, "head": head, "share": place["weights"][layer, head].item()}
    if views[0][layer].lam is not None:
        lam = torch.stack([each[layer].lam[query, head] for each in views])
        found |= {"a1": place["a1"][layer, head].item(), "lam": lam.mean().item()}
    return found


def measured(label, config, seed, lr, steps=STEPS):
    """One run as a row of plain numbers: scores, mechanism, and the training curve in 20 parts."""
    model, losses = fit(config, seed, lr, steps)
    part = steps // 20
    curve = [round(statistics.fmean(losses[i : i + part]), 4) for i in range(0, steps, part)]
    nats, right = score(model)
    row = {"label": label, "seed": seed, "lr": lr, "steps": steps, "nats": nats, "right": right}
    row["nats_long"], row["right_long"] = score(model, 2 * LENGTHS[1])
    weights = sum(p.numel() for p in model.parameters())
    return row | {"weights": weights, "curve": curve} | at_offset(model)


def stored(label, lr=None, steps=STEPS, seeds=SEEDS):
    """The stored rows of a model, one a seed in order; ``lr`` None: at its best rate."""
    lr = best_rate(label) if lr is None else lr
    rows = {
        r["seed"]: r for r in _rows() if (r["label"], r["lr"], r["steps"]) == (label, lr, steps)
    }
    if missing := set(seeds) - rows.keys():
        raise ValueError(f"no stored run of {label!r} at {lr:g}, {steps} steps: seeds {missing}")
    return [rows[seed] for seed in seeds]


def best_rate(label):
    """The rate of the lowest mean loss over the tuning seeds."""
    return min(RATES, key=lambda lr: mean_nats(stored(label, lr, seeds=TUNING)))


def mean_nats(rows):
    """Mean over runs of the nats per token on sequences never seen."""
    return statistics.fmean(row["nats"] for row in rows)


def _rows():
    return json.loads(RESULTS.read_text(encoding="utf-8"))["rows"] if RESULTS.exists() else []


def changed(**changes):
    """The lab's model with other settings, such as ``attention="my_variant"``."""
    return dataclasses.replace(MODEL, **changes)
