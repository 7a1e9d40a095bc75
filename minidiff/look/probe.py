"""Looking inside a trained model: context RMS, lambda, sinks, outliers, sparsity, gradient spikes.

    table = probe(model, idx)  # idx (B, T): a few windows of text, BOS first
    worst = max(table, key=lambda row: row["first_share_eff"])
    layer_3 = [row for row in table if row["layer"] == 3]

The model runs layer by layer and sequence by sequence, so that only the maps of one layer and one
sequence exist at any time: about 8 H * T * T float32 in all, 0.5 GB for 16 heads at T = 1024.
Everything comes from the model's own methods; it gets no hook, no gradient, no change of mode.
"""

import math
import statistics
from dataclasses import dataclass

import torch

from minidiff.theory import effective_tokens, expected_rms
from minidiff.variants.ablations import DiffHalvesAttention
from minidiff.variants.v1 import DiffV1NoNormAttention

MAPS = {
    "a1": "the softmax map, or the first one of a pair",
    "a2": "the second map of a pair, the one that is subtracted",
    "eff": "the map that multiplies the values, |A1 - lambda A2|, rows normalised to 1",
}
PLACES = {
    "out": "the layer's output, after the residual add",
    "qk": "the layer's logits q.k / sqrt(d), causal pairs of all query heads",
}
OUTLIERS = ("top1", "top2", "top3", "median", "ratio", "kurtosis")  # see outliers()
# What probe() measures. Averages over queries leave out the first ones, and are followed by a mean
# over the sequences (for low, high and top1 to top3: the extreme over the sequences).
COLUMNS = {
    "layer": "from 0",
    "head": "output head, from 0",
    "rms": "RMS of the context that enters W_O, over the RMS of the values that the head reads",
    "rms_low": "the smallest such RMS of a token",
    "rms_high": "the largest",
    "rms_expected": "the theorem's rms of these weights and this rho, before any gate or norm",
    "rho": "mean correlation of the head's values at two tokens",
    "lam_mean": "lambda, mean over tokens",
    "lam_std": "its standard deviation over the tokens of a sequence",
    **{f"first_share_{m}": f"alpha_0, attention on token 0 (BOS): {MAPS[m]}" for m in MAPS},
    **{f"sink_rate_{m}": f"share of sequences with alpha_0 > threshold: {MAPS[m]}" for m in MAPS},
    **{f"top_share_{m}": f"largest alpha_k, a sink on any token: {MAPS[m]}" for m in MAPS},
    "sparsity": "share of the n keys that a query sees which get less than 1/n of eff",
    "entropy": "of a row of eff, in nats; log(n) when uniform",
    "effective_tokens": "1 / |row of eff|^2; n when uniform, 1 when one-hot",
    **{f"{p}_{o}": f"{o} of {PLACES[p]}" for p in PLACES for o in OUTLIERS},
}


def probe(model, idx, *, threshold=0.3, skip=None):
    """Measure every head of a model on a batch of text.

    Args:
        model: a GPT, in any mode, on any device.
        idx: (B, T) token ids, BOS at position 0.
        threshold: a sequence has a sink where alpha_0 is above it (0.3 in arXiv 2410.10781).
        skip: leave the first queries out of all averages over queries: with few keys to choose
            from, each gets a large share. Default 64, or a quarter of T where that is less.
    Returns:
        A list of dicts, one per (layer, head), with the keys of :data:`COLUMNS`. What this
        attention does not have is None. The out_ and qk_ columns describe the whole layer and
        are repeated in the rows of its heads.
    Raises:
        ValueError: idx or skip does not fit.
    """
    x, rope = _start(model, idx)
    T, table = x.shape[1], []
    skip = max(1, min(64, T // 4)) if skip is None else skip
    if not 1 <= skip < T:  # query 0 sees only itself: its share of the first token is always 1
        raise ValueError(f"skip={skip} must be from 1 to T - 1 = {T - 1}")
    layers = [[] for _ in model.blocks]  # the measurements of each, one for a sequence
    for row in x.unsqueeze(1):  # (1, T, D); a sequence at a time: a layer may read one before it
        for block, sequences in zip(model.blocks, layers, strict=True):
            view = _look(block, row, rope)
            sequences.append(_measure(view, threshold, skip))
            row = view.out[None].to(x.dtype)
            del view  # before the next layer makes its maps
    for layer, sequences in enumerate(layers):
        columns = {name: _reduce(name, [s[name] for s in sequences]) for name in sequences[0]}
        for head in range(len(columns["rms"])):
            found = {n: v[head] if isinstance(v, list) else v for n, v in columns.items()}
            table.append(dict.fromkeys(COLUMNS) | {"layer": layer, "head": head} | found)
    return table


def _reduce(name, values):
    """One column over the sequences: a list of h numbers, or one number for the whole layer."""
    values = torch.stack(values)  # (B, h) or (B,)
    if name.endswith("_low"):
        return values.amin(0).tolist()
    if name.endswith(("_high", "_top1", "_top2", "_top3")):
        return values.amax(0).tolist()
    return values.mean(0).tolist()


def summary(table):
    """``{column}_mean``, ``_min`` and ``_max`` over all rows of the table, for every column.

    ``first_share_eff_max`` is the worst head, ``sink_rate_eff_mean`` the share of (sequence, layer,
    head) with a sink, ``out_top1_max`` the largest activation. Columns without values give None.
    """
    result = {}
    for name in list(COLUMNS)[2:]:  # without layer and head
        values = [row[name] for row in table if row[name] is not None]
        for how, function in (("mean", statistics.fmean), ("min", min), ("max", max)):
            result[f"{name}_{how}"] = function(values) if values else None
    return result


# ---- One layer, one sequence -------------------------------------------------------------------


@dataclass
class LayerView:
    """What one layer does with one sequence. h output heads, H query heads, all float32."""

    a1: torch.Tensor  # (h, T, T) the softmax maps, or the first of each pair
    a2: torch.Tensor | None  # (h, T, T) the second of each pair
    weights: torch.Tensor  # (h, T, T) what multiplies the values: A1 - lambda A2
    lam: torch.Tensor | None  # (T, h)
    rms: torch.Tensor  # (T, h) context RMS, over the RMS of the head's values
    rms_expected: torch.Tensor | None  # (T, h) the theorem's, from weights and rho
    rho: torch.Tensor  # (h,) correlation of the head's values
    logits: torch.Tensor  # (H, T, T) q.k / sqrt(d), NaN where the mask hides the key
    out: torch.Tensor  # (T, D) the residual stream after the layer
    residual_norms: torch.Tensor  # (T,) its length at each token


def attention_maps(model, idx):
    """The maps of one prompt idx (1, T), for plotting: a :class:`LayerView` per layer, on the CPU.

    All maps are kept, about n_layer * 4h * T * T numbers: for prompts, not for batches.
    """
    x, rope = _start(model, idx)
    if len(x) != 1:
        raise ValueError(f"idx {tuple(idx.shape)} has {len(x)} sequences: give one, idx[:1]")
    views = []
    for block in model.blocks:
        view = _look(block, x, rope)
        x = view.out[None].to(x.dtype)
        views.append(LayerView(**{k: v if v is None else v.cpu() for k, v in vars(view).items()}))
    return views


def _start(model, idx):
    """Refuse an idx that does not fit; the residual stream (B, T, D), and RoPE's table."""
    limit = model.config.block_size
    if idx.dim() != 2 or not len(idx) or not 2 <= idx.shape[1] <= limit:
        raise ValueError(f"idx {tuple(idx.shape)} must be (B, T), B >= 1 and T from 2 to {limit}")
    x = model.embed(idx.to(model.embed.weight.device)).detach()
    return x, model.rope[: idx.shape[1]]


@torch.no_grad()
def _look(block, x, rope):
    """Run one block on x (1, T, D) by its own methods."""
    with torch.autocast(x.device.type, enabled=False):  # float32 maps, whatever surrounds us
        attn, normed = block.attn, block.attn_norm(x)
        q, k, v = attn.qkv(normed, rope)
        maps, weights = attn.branches(q, k)[0], attn.weights(q, k, normed)[0]  # (H or h, T, T)
        context, out = attn.mix(q, k, v, normed)[0], block(x, rope)[0]  # (T, h, d), (T, D)
        q, k, v, context, out = (t.to(maps) for t in (q[0], k[0], v[0], context, out))
        logits = _logits(attn, q, k)
    h, lam, expected = len(weights), None, None
    halves = isinstance(attn, DiffHalvesAttention)  # the ablation that pairs head i with i + h
    sides = [slice(None)]
    if len(maps) == 2 * h:
        sides = [slice(h), slice(h, None)] if halves else [slice(0, None, 2), slice(1, None, 2)]
        lam = (1 - weights.sum(-1)).T  # rows of A1, A2 sum to 1, whatever lambda is made from
    v = v.flatten(1).unflatten(1, (-1, context.shape[-1]))  # V1 joins two value heads of size d
    v = v.repeat_interleave(len(maps) // v.shape[1], dim=1)  # (T, H, d): what each map multiplies
    size = torch.stack([v[:, side].square().mean((0, 2)) for side in sides]).mean(0).sqrt()  # (h,)
    rho = torch.stack([value_correlation(v[:, side]) for side in sides]).mean(0)
    if not halves:  # there the maps of a pair multiply different values: not the theorem's case
        expected = expected_rms(weights, rho[:, None]).T
    a1, a2 = maps[sides[0]], maps[sides[1]] if lam is not None else None
    rms = context.square().mean(-1).sqrt() / size  # (T, h)
    return LayerView(a1, a2, weights, lam, rms, expected, rho, logits, out, out.norm(dim=-1))


def _logits(attn, q, k):
    """q.k / sqrt(d) of every query head (H, T, T), NaN where the mask hides the key."""
    group = q.shape[1] // k.shape[1]
    if isinstance(attn, DiffV1NoNormAttention):  # a pair of query heads reads a pair of key heads
        k = k.unflatten(1, (-1, 2)).repeat_interleave(group, dim=1).flatten(1, 2)
    else:
        k = k.repeat_interleave(group, dim=1)  # (T, H, d)
    logits = torch.einsum("thd,shd->hts", q, k) / math.sqrt(q.shape[-1])
    return logits.masked_fill(torch.ones_like(logits[0]).triu(1) > 0, math.nan)


def _measure(view, threshold, skip):
    """The columns of one sequence: name -> (h,), or () for the whole layer."""
    eff = view.weights.abs()
    total = eff.sum(-1)  # (h, T); 0 where lambda is 1 and both maps are alike: nothing is attended
    eff = eff / total.clamp_min(torch.finfo(eff.dtype).tiny).unsqueeze(-1)
    sees = torch.ones_like(eff[0]).tril() > 0  # (T, T): query i sees key j <= i
    n = sees.sum(-1)  # (T,) keys that each query sees
    # A uniform row has no key under 1/n; rounding must not make that n of them.
    small = (eff < (1 - 1e-4) / n[:, None]) & sees
    columns = {
        "rms": view.rms[skip:].square().mean(0).sqrt(),  # the theorem is about squares
        "rms_low": view.rms[skip:].amin(0),
        "rms_high": view.rms[skip:].amax(0),
        "rho": view.rho,
        "sparsity": (small.to(eff).sum(-1) / n)[:, skip:].mean(-1),
        "entropy": torch.special.entr(eff).sum(-1)[:, skip:].mean(-1),
        "effective_tokens": effective_tokens(eff).where(total > 0, 0.0)[:, skip:].mean(-1),
    }
    if view.rms_expected is not None:
        columns["rms_expected"] = view.rms_expected[skip:].square().mean(0).sqrt()
    if view.lam is not None:
        columns["lam_mean"] = view.lam[skip:].mean(0)
        columns["lam_std"] = view.lam[skip:].std(0, correction=0)
    # Why |.| and normalised: a row of A1 - lambda A2 sums to 1 - lambda, so that every share of it
    # looks small, and a negative weight uses its value no less than a positive one.
    for name, maps in (("a1", view.a1), ("a2", view.a2), ("eff", eff)):
        if maps is not None:
            alpha = sink_scores(maps, skip)  # (h, keys)
            columns[f"first_share_{name}"] = alpha[:, 0]
            columns[f"sink_rate_{name}"] = (alpha[:, 0] > threshold).to(alpha)
            columns[f"top_share_{name}"] = alpha.amax(-1)
    for place, values in (("out", view.out), ("qk", view.logits[:, sees])):
        columns |= {f"{place}_{name}": value for name, value in outliers(values).items()}
    return columns


# ---- The metrics -------------------------------------------------------------------------------


def sink_scores(maps, skip=0):
    """alpha_k = mean over the queries i >= max(k, skip) of A[i, k] (arXiv 2410.10781).

    Args:
        maps: (..., T, T), causal and nowhere negative. skip: queries to leave out at the start.
    Returns:
        (..., keys), only for the first keys, which at least half of those queries see: the
        mean over the few queries that see a late key says nothing about a sink.
    """
    T = maps.shape[-1]
    n_queries = T - torch.arange(T, device=maps.device).clamp_min(skip)  # that see each key
    return (maps[..., skip:, :].sum(-2) / n_queries)[..., 2 * n_queries >= T - skip]


def value_correlation(v):
    """rho of values v (n, heads, d): mean of v_i . v_j over i != j, over the mean of |v_i|^2.

    The closed form (|sum_i v_i|^2 - sum_i |v_i|^2) / (n (n - 1)) needs no loop over the pairs.
    Returns (heads,): 1 for equal values, down to -1/(n - 1) for values that sum to zero.
    """
    n, squares = len(v), v.square().sum((0, 2))  # (heads,)
    return (v.sum(0).square().sum(-1) - squares) / (n - 1) / squares


def outliers(values):
    """Three largest and median of |values|, top1 / median, and kurtosis (3 for a Gaussian)."""
    values = values.flatten()
    size, centred = values.abs(), values - values.mean()
    top, median = size.topk(3).values, size.median()
    kurtosis = centred.pow(4).mean() / centred.square().mean().square()
    numbers = (*top, median, top[0] / median, kurtosis)
    return dict(zip(OUTLIERS, numbers, strict=True))


def spikes(norms, *, factor=3.0, window=100, at_least=10):
    """Steps whose gradient norm before clipping is above ``factor`` times its running median.

    The median is over the last ``window`` steps before this one; while there are fewer than
    ``at_least`` of them there is no spike. A norm that is infinite or NaN is one.

    Args:
        norms: the gradient norm of every step, as runs.read_metrics gives them.
    Returns:
        Positions in the list, from 0.
    """
    norms = [math.inf if math.isnan(norm) else norm for norm in norms]
    return [
        i
        for i in range(at_least, len(norms))
        if norms[i] > factor * statistics.median(norms[max(0, i - window) : i])
    ]
