"""What a CPU can measure of the claims, within a minute: kept in claims_cpu.json.

``python -m minidiff claims --measure`` runs it.
"""

import copy
import dataclasses
import json
import platform
from datetime import date
from pathlib import Path

import torch

from minidiff.data import open_data
from minidiff.files import replace_text
from minidiff.look.probe import probe, summary
from minidiff.model import ATTENTION, GPTConfig
from minidiff.runs import load_pretrained
from minidiff.study.evidence import RESULTS, load
from minidiff.train import PRESETS
from minidiff.variants import build


def v1_gradients(lengths=(16, 64, 256, 1024, 4096, 8192), head_dim=64):
    """How much of a gradient reaches the values through a uniform head of n keys (claim 13).

    The norm of the gradient of the values, for a random output gradient: in V1, V1 without its
    RMSNorm, and V2. Divided by the norm of the output gradient: 1 / sqrt(n) and a constant for an
    average over n keys; V1's norm multiplies that by sqrt(n).

    Returns:
        [{"n": n, "diff_v1": norm, "diff_v1_no_norm": norm, "diff_v2": norm}, ...]
    """
    rows = []
    for n in lengths:
        row = {"n": n}
        for name in ("diff_v1", "diff_v1_no_norm", "diff_v2"):
            torch.manual_seed(0)
            config = GPTConfig(name, n_head=4, n_kv_head=2, head_dim=head_dim)
            attn = ATTENTION[name](config)
            heads = attn.query_heads_per_head * config.n_head
            q = torch.zeros(1, 1, heads, head_dim)  # scores 0: uniform maps
            k, v = torch.randn(2, 1, n, config.n_kv_head, head_dim)
            out = attn.mix(q, k, v.requires_grad_(), torch.zeros(1, 1, config.n_embd))
            direction = torch.randn_like(out)
            (gradient,) = torch.autograd.grad(out, v, direction)
            row[name] = (gradient.norm() / direction.norm()).item()
        rows.append(row)
    return rows


@torch.no_grad()
def rounding_errors(model, idx, dtype=torch.bfloat16):
    """Relative rounding error of attention in a low precision, against float64 (claim 17).

    Each layer gets the same input, that of the float32 model, so errors do not add up over depth.

    Returns:
        For each layer {"branches": error of the outputs of all query heads, "heads": error of
        what enters W_O}; for softmax the two are the same. |low - exact| / |exact| over all tokens.
    """
    x, errors = model.embed(idx), []
    rope = model.rope[: idx.shape[1]]
    for block in model.blocks:
        attn, normed = block.attn, block.attn_norm(x)
        q, k, v = attn.qkv(normed, rope)
        low, exact = (
            (layer.attend(*tensors[:3]), layer.mix(*tensors))  # branches, heads
            for precision in (dtype, torch.float64)
            for layer in [copy.deepcopy(attn).to(precision)]
            for tensors in [[t.to(precision) for t in (q, k, v, normed)]]
        )
        branches, heads = (_relative(a, b) for a, b in zip(low, exact, strict=True))
        errors.append({"branches": branches, "heads": heads})
        x = block(x, rope)
    return errors


def _relative(low, exact):
    return ((low.double() - exact).norm() / exact.norm()).item()


def initial_rms(
    names=("softmax_1.5h", "diff_v2", "diff_no_lambda", "diff_no_sigmoid"),
    seeds=(0, 1, 2),
    model=PRESETS["gpu"].model,
):
    """Context RMS of untrained models on text, mean over the heads of two layers (claim 10).

    Returns:
        {name: [RMS of each seed]}
    """
    shape = dataclasses.replace(model, n_layer=2)
    idx, _ = next(open_data("stdlib").val.fixed_batches(1, 2, shape.block_size))
    found = {name: [] for name in names}
    for name in names:
        for seed in seeds:
            torch.manual_seed(seed)
            model = build(shape, name)
            found[name].append(summary(probe(model, idx))["rms_mean"])
    return found


def steps_in_equal_time(name, steps, folder=RESULTS, size="25m"):
    """How many steps a variant makes while DIFF V2 makes ``steps``, by bench_pair.json."""
    rows = load(Path(folder) / "bench_pair.json")["rows"]
    ms = {row["variant"]: row["ms"] for row in rows if row["size"] == size}
    return round(steps * ms["diff_v2"] / ms[name])


def measure(folder=RESULTS):
    """Run what a CPU can measure, within a minute, and keep it in claims_cpu.json."""
    idx, _ = next(open_data("stdlib").val.fixed_batches(1, 2, 1024))
    pair = {
        name: rounding_errors(load_pretrained(name), idx) for name in ("softmax_1.5h", "diff_v2")
    }
    found = {
        "command": "python -m minidiff claims --measure",
        "torch": torch.__version__,
        "machine": f"{platform.machine()} CPU",
        "date": str(date.today()),
        "v1_gradients": v1_gradients(),
        "rounding": pair,
        "initial_rms": initial_rms(),
    }
    text = json.dumps(found, indent=1) + "\n"
    replace_text(Path(folder) / "claims_cpu.json", text)
