"""Looking inside a trained model: context RMS, lambda, sinks, outliers, sparsity, gradient spikes.

    table = probe(model, idx)                # idx (B, T): a few windows of text, BOS first
    worst = max(table, key=lambda row: row["first_share_eff"])
    layer_3 = [row for row in table if row["layer"] == 3]

The model runs layer by layer and sequence by sequence: the maps of one layer and one sequence, a
few times H * T * T float32, are all that exists at any time. Only methods that the model already
has are called; it gets no hook, no gradient and no change of mode.
"""

import json
import math
import statistics
from dataclasses import dataclass
from pathlib import Path

import torch

from minidiff.theory import effective_tokens, expected_rms

# One row per (layer, head). The out_ and qk_ columns describe the whole layer and are the same in
# all of its rows. A column that an attention does not have (lambda of softmax) holds None.
COLUMNS = {
    "layer": "index from 0",
    "head": "output head, from 0",
    "rms": "RMS of the context that enters W_O / RMS of the head's values",
    "rms_low": "the token with the smallest such RMS",
    "rms_high": "the token with the largest",
    "rms_expected": "what the theorem says of rms, from this head's weights and rho",
    "rho": "mean correlation between the head's values at two tokens",
    "lam_mean": "lambda over tokens and sequences",
    "lam_std": "its standard deviation over both",
    "first_share_a1": "alpha_0: mean attention of a query on token 0 (BOS), first map",
    "first_share_a2": "the same of the second map, which is subtracted",
    "first_share_eff": "the same of |A1 - lambda A2|, rows normalised to 1",
    "sink_rate_a1": "share of sequences whose alpha_0 is over the threshold, first map",
    "sink_rate_a2": "second map",
    "sink_rate_eff": "effective map",
    "top_share_a1": "largest alpha_k of any key k: finds a sink that is not on token 0",
    "top_share_a2": "second map",
    "top_share_eff": "effective map",
    "sparsity": "share of keys with less than 1/n of the row, of the n keys a query sees",
    "entropy": "of a row, in nats: log(n) when uniform",
    "effective_tokens": "1 / |row|^2: n when uniform, 1 when one-hot",
    **{
        f"{where}_{what}": f"{meaning} of {of}"
        for where, of in (
            ("out", "the layer's output, after the residual add"),
            ("qk", "the logits q.k / sqrt(d) of all query heads, causal pairs only"),
        )
        for what, meaning in (
            ("top1", "largest absolute value"),
            ("top2", "second largest"),
            ("top3", "third largest"),
            ("median", "median absolute value (of a sequence)"),
            ("ratio", "top1 / median"),
            ("kurtosis", "kurtosis (of a sequence), 3 for a Gaussian,"),
        )
    },
}


@torch.no_grad()
def probe(model, idx, *, threshold=0.3, skip=None):
    """Measure every head of a model on a batch of text.

    Args:
        model: a GPT, in any mode, on any device.
        idx: (B, T) token ids, BOS at position 0.
        threshold: alpha_0 above which a head has a sink (0.3 in arXiv 2410.10781).
        skip: the first queries, left out of all averages over queries since their few keys give
            large shares to each; default 64, or a quarter of T where that is less.
    Returns:
        A list of dicts, one per (layer, head), with the keys of :data:`COLUMNS`.
    Raises:
        ValueError: idx or skip does not fit.
    """
    skip = _check(model, idx, skip)
    x, angles = _embed(model, idx)
    table = []
    for layer, block in enumerate(model.blocks):
        stats = []
        for b in range(len(x)):
            view = _look(block, x[b : b + 1], angles)
            stats.append(_measure(view, skip))
            x[b] = view.out
        columns = _over_sequences(stats, threshold)
        for head in range(len(columns["rms"])):
            row = dict.fromkeys(COLUMNS) | {"layer": layer, "head": head}
            for name, value in columns.items():
                row[name] = value[head] if isinstance(value, list) else value
            table.append(row)
    return table


def summary(table):
    """``{column}_mean``, ``_min`` and ``_max`` over all rows of a table, for every column.

    ``first_share_eff_max`` is the worst head, ``out_top1_max`` the largest activation and
    ``qk_top1_max`` the largest logit of the model; ``sink_rate_eff_mean`` is the sink rate, the
    share of (sequence, layer, head). Columns without values give None.
    """
    result = {}
    for name in COLUMNS:
        values = [row[name] for row in table if row[name] is not None]
        if name not in ("layer", "head"):
            for how, function in (("mean", statistics.fmean), ("min", min), ("max", max)):
                result[f"{name}_{how}"] = function(values) if values else None
    return result


# ---- One layer, one sequence -------------------------------------------------------------------


@dataclass
class LayerView:
    """What one layer does with one sequence; float32. h output heads, H query heads."""

    a1: torch.Tensor  # (h, T, T) the softmax maps, or the first of each pair
    a2: torch.Tensor | None  # (h, T, T) the second of each pair
    weights: torch.Tensor  # (h, T, T) what multiplies the values: A1 - lambda A2
    lam: torch.Tensor | None  # (T, h)
    rms: torch.Tensor  # (T, h) context RMS / RMS of the head's values
    rms_expected: torch.Tensor  # (T, h) the theorem's, from weights and rho
    rho: torch.Tensor  # (h,)
    logits: torch.Tensor  # (H, T, T) q.k / sqrt(d), -inf where the mask hides the key
    out: torch.Tensor  # (T, D) the residual stream after the layer

    @property
    def residual_norms(self):
        """(T,) length of the residual vector of each token."""
        return self.out.norm(dim=-1)


@torch.no_grad()
def attention_maps(model, idx):
    """The maps of one prompt, for plotting: a list with one :class:`LayerView` per layer, on CPU.

    Args:
        idx: (1, T). All maps are kept, n_layer * 2h * T * T and more numbers: keep T small.
    """
    _check(model, idx)
    if len(idx) != 1:
        raise ValueError(f"idx {tuple(idx.shape)} holds {len(idx)} sequences: give one, idx[:1]")
    x, angles = _embed(model, idx)
    views = []
    for block in model.blocks:
        view = _look(block, x, angles)
        x = view.out[None].to(x.dtype)
        views.append(LayerView(**{k: v if v is None else v.cpu() for k, v in vars(view).items()}))
    return views


def _look(block, x, angles):
    """Run one block on x (1, T, D) by its own methods."""
    attn, normed = block.attn, block.attn_norm(x)
    q, k, v = attn.qkv(normed, angles)
    maps, weights = attn.branches(q, k)[0], attn.weights(q, k, normed)[0]  # (H, T, T), (h, T, T)
    h = len(weights)
    paired = len(maps) == 2 * h
    a1, a2 = maps.unflatten(0, (h, 2)).unbind(1) if paired else (maps, None)
    v = v[0].float().repeat_interleave(h // v.shape[2], dim=1)  # (T, h, d): each head's values
    rho = value_correlation(v)
    context = attn.mix(q, k, v_in := attn_values, normed)
