"""What DIFF V2 is compared with. Each class shows its delta, marked NEW, and nothing else.

One file an idea; open ablations.py first. Here: how many heads each has, so that a comparison is
fair. All train in the same loop, decode through the same KV cache and call the same kernels.
"""

import dataclasses
import difflib

import torch
import torch.nn as nn

from minidiff.model import ATTENTION, GPT
from minidiff.variants import ablations, cures, moe, sparse, v1, yoco  # noqa: F401  (importing registers them)
from minidiff.variants.constructed import start_constructed
from minidiff.variants.controls import double_output, quiet_output

_TABLE = {  # name: (its heads for each head of DIFF V2, description)
    "diff_v2": (1, "Differential Transformer V2; all others are sized against it"),
    "softmax_h": (1, "softmax, as many output heads: fewer parameters"),
    "softmax_1.5h": (1.5, "softmax, as many parameters: the fair baseline (ablation 4)"),
    "softmax_2h": (2, "softmax, as many query heads: more parameters"),
    "softmax_2h_start": (2, "softmax_2h that starts as DIFF V2 with lambda 0.5, then is free"),
    "constructed": (1, "softmax_2h with W_O tied to subtract: V2 with a constant lambda"),
    "diff_v1": (1.5, "Differential Transformer V1: per-head RMSNorm, one lambda a layer"),
    "diff_v1_no_norm": (1.5, "V1 without the per-head RMSNorm"),
    "diff_v1_sigmoid": (1.5, "V1 with its lambda through a sigmoid, so that it stays below 1"),
    "diff_v2_doubled": (1, "V2 that starts with W_O doubled: outputs as large as softmax_h's"),
    "softmax_1.5h_quiet": (1.5, "softmax_1.5h that starts with W_O times 0.4: as quiet as V2"),
    "diff_late_lambda": (1, "V2 whose lambda starts near 0: at first softmax of the even heads"),
    "diff_no_decay": (1, "V2 without weight decay on W_lambda"),
    "diff_halves": (1, "V2, ablation 1: pairs heads of different key/value groups"),
    "diff_no_lambda": (1, "V2, ablation 2: a1 - a2"),
    "diff_no_sigmoid": (1, "V2, ablation 3: lambda without its sigmoid"),
    "off_by_one": (1.5, "softmax with 1 added to its denominator"),
    "sink_logit": (1.5, "softmax with a learned sink logit for each head (gpt-oss)"),
    "gated": (1, "softmax with a sigmoid gate on each channel of each head"),
    "gated_headwise": (1.5, "softmax with one sigmoid gate for each head"),
    "sparse_softmax": (1.5, "softmax over chosen blocks of keys, a choice for each head (MoBA)"),
    "sparse_pair": (1, "V2 over chosen blocks, one choice for the two heads of a pair"),
    "sparse_head": (1, "V2 over chosen blocks, one choice for each head of a pair"),
    "sparse_a1": (1, "V2 over chosen blocks, the first head of a pair chooses for both"),
    "sparse_group": (1, "V2 over chosen blocks, one choice for all heads that share keys"),
    "yoco_softmax": (1.5, "YOCO with softmax: windows below, one pair of keys and values above"),
    "yoco_diff_v2": (1, "YOCO with V2 in both halves; fewer parameters: half of W_K, W_V is gone"),
    "moe_softmax": (1.5, "softmax, and 2 of 16 experts for each token: more parameters, same cost"),
    "moe_diff_v2": (1, "V2, and 2 of 16 experts for each token: more parameters, same cost"),
}
VARIANTS = {name: description for name, (_, description) in _TABLE.items()}
START = {  # variants of the class that their name begins with, whose first weights are special
    "softmax_2h_start": start_constructed,
    "diff_v2_doubled": double_output,
    "softmax_1.5h_quiet": quiet_output,
}


def variant(config, name):
    """The GPTConfig of a variant that has as many parameters as DIFF V2, or as many heads.

    A config says nothing of first weights, which are special in three variants (:data:`START`):
    theirs is that of their class. :func:`build` gives the model, with its first weights.

    Args:
        config: the GPTConfig of DIFF V2. name: a key of :data:`VARIANTS`.
    Raises:
        ValueError: an unknown name, a config of something else, or heads that do not fit.
    """
    if name not in VARIANTS:
        near = difflib.get_close_matches(name, VARIANTS, n=1, cutoff=0)[0]
        raise ValueError(f"no variant {name!r}; did you mean {near!r}? All: {', '.join(VARIANTS)}")
    if config.attention != "diff_v2":
        raise ValueError(f"variant() sizes against attention='diff_v2', not {config.attention!r}")
    n_head = _TABLE[name][0] * config.n_head
    if n_head % config.n_kv_head:
        raise ValueError(
            f"{name} needs 1.5 * n_head = {n_head:g} heads, no multiple of n_kv_head="
            f"{config.n_kv_head}: make n_head an even multiple of n_kv_head"
        )
    attention = next((base for base in ("softmax", "diff_v2") if name.startswith(base)), name)
    sized = dataclasses.replace(config, attention=attention, n_head=int(n_head))
    with torch.device("meta"):  # no memory: what else does not fit fails here, before any training
        ATTENTION[attention](sized)
    return sized


def build(config, name):
    """A new model of a variant, ready to train; as :func:`variant`, with its own first weights.

    Args and errors: as for :func:`variant`. Returns: a GPT.
    """
    model = GPT(variant(config, name))
    if name in START:
        START[name](model)
    return model


def parameter_counts(config, name):
    """Weights of a variant: its attention, its total, and how many percent that is above DIFF V2.

    Args: as for :func:`variant`.
    """
    with torch.device("meta"):
        model, diff_v2 = GPT(variant(config, name)), GPT(config)
    layers = nn.ModuleList(block.attn for block in model.blocks)
    attention, total, reference = (
        sum(p.numel() for p in part.parameters()) for part in (layers, model, diff_v2)
    )
    return {"attention": attention, "total": total, "percent": 100 * (total / reference - 1)}
