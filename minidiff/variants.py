"""What DIFF V2 is compared with. Each class shows its delta, marked NEW, and nothing else.

All train in the same loop, decode through the same KV cache and call the same kernels.
:func:`variant` sizes them against one DIFF V2 configuration, so that a comparison is fair. Claim
and ablation numbers are those of the README's table of published claims.
"""

import dataclasses
import difflib
import math

import torch
import torch.nn as nn
import torch.nn.functional as F

from minidiff.attention import attention_weights, differential
from minidiff.diff_v1 import DiffV1Attention, DiffV1NoNormAttention  # noqa: F401  (V1 is a variant)
from minidiff.model import ATTENTION, GPT, DiffV2Attention, SoftmaxAttention, register

# ---- The ablations of DIFF V2 ------------------------------------------------------------------


class DiffAblation(DiffV2Attention):
    """DIFF V2 with another ``subtract``: (B, T, 2h, ...) -> (B, T, h, ...), outputs or maps."""

    def mix(self, q, k, v, x, n_keys=None):
        return self.subtract(self.attend(q, k, v, n_keys), x)

    def weights(self, q, k, x):
        return self.subtract(self.branches(q, k).transpose(1, 2), x).transpose(1, 2)


@register("diff_halves")
class DiffHalvesAttention(DiffAblation):
    """Ablation 1 (claim 9): a[i] - lambda a[i+h], whose key/value heads differ.

    With h_kv = 1 this only renames the query heads. With h_kv > 1 the two maps of a pair multiply
    different values, so no single map gives the output: ``weights @ v`` is *not* ``mix``.
    """

    def subtract(self, attn, x):
        paired = attn.unflatten(2, (2, -1)).transpose(2, 3).flatten(2, 3)  # NEW: 0, h, 1, h+1, ...
        return differential(paired, self.lambda_proj(x))


@register("diff_no_lambda")
class DiffNoLambdaAttention(DiffAblation):
    """Ablation 2 (claim 10): a1 - a2. Rows sum to 0; at initialisation almost nothing is left."""

    def __init__(self, config, layer_index=0):
        super().__init__(config, layer_index)
        del self.lambda_proj  # NEW

    def subtract(self, attn, x):
        return attn[:, :, 0::2] - attn[:, :, 1::2]  # NEW


@register("diff_no_sigmoid")
class DiffNoSigmoidAttention(DiffAblation):
    """Ablation 3 (claim 11): lambda = W_lambda x, of any size and sign, so the RMS is unbounded.

    Nothing is initialised specially, as in the published module: lambda starts near 0 and not, as
    with the sigmoid, near 0.5. At first this is therefore softmax attention of the even heads.
    """

    def subtract(self, attn, x):
        lam = self.lambda_proj(x).unsqueeze(-1)  # NEW: (B, T, h, 1), no sigmoid
        return attn[:, :, 0::2] - lam * attn[:, :, 1::2]


# ---- Other cures for attention sinks, on the softmax baseline ----------------------------------


@register("off_by_one")
class OffByOneAttention(SoftmaxAttention):
    """exp(s_j) / (1 + sum exp(s)): a head may attend to nothing, RMS in (0, 1) (claims 1, 2).

    Exactly softmax over one more token, the sink, whose key and value are zero: its score is 0,
    exp(0) = 1, and it adds nothing to the output. So every fast kernel can compute it.
    Parameters: as softmax. Source: E. Miller, "Attention Is Off By One", 2023.
    """

    def with_sink(self, q, k, v):
        """q, k, v (B, T, H, d) after one token of zeros: (B, 1 + T, H, d)."""
        return [F.pad(t, (0, 0, 0, 0, 1, 0)) for t in (q, k, v)]  # NEW

    def mix(self, q, k, v, x, n_keys=None):
        q, k, v = self.with_sink(q, k, v)
        if n_keys is not None:
            return self.attend(q[:, 1:], k, v, n_keys + 1)
        # The sink's own query is useless, but without it T queries over T + 1 keys would need an
        # explicit mask in SDPA, which rules out its flash kernels.
        return self.attend(q, k, v)[:, 1:]

    def branches(self, q, k):
        """The maps without the sink's column (B, h, T, S): rows sum to less than 1."""
        q, k, _ = self.with_sink(q, k, k)
        return attention_weights(q[:, 1:], k)[..., 1:]


@register("sink_logit")
class SinkLogitAttention(OffByOneAttention):
    """exp(s_j) / (exp(b) + sum exp(s)), one learned b for each query head (claims 1, 2).

    The sink's key is 1 in a new channel, where every query holds b. Eight channels are appended,
    since the fast kernels want a multiple of 8. b starts at 0, which is off by one.
    Parameters: softmax and h. Source: gpt-oss model card, OpenAI 2025.
    """

    def __init__(self, config, layer_index=0):
        super().__init__(config, layer_index)
        self.sink_logit = nn.Parameter(torch.zeros(config.n_head))  # NEW

    def with_sink(self, q, k, v):
        """The same with d + 8 channels. Attention will divide by sqrt(d + 8), not sqrt(d)."""
        d, wide = q.shape[-1], q.shape[-1] + 8
        q, k, v = (F.pad(t, (0, 8)) for t in super().with_sink(q, k, v))
        q = q * math.sqrt(wide / d)
        q[..., d] = self.sink_logit * math.sqrt(wide)  # NEW
        k[:, 0, :, d] = 1  # NEW: in the sink only
        return q, k, v

    def mix(self, q, k, v, x, n_keys=None):
        return super().mix(q, k, v, x, n_keys)[..., : v.shape[-1]]  # NEW: (B, T, h, d)


@register("gated")
class GatedAttention(SoftmaxAttention):
    """Every channel of a head's output times a sigmoid of x: RMS in (0, 1) (claims 1, 2).

    ``weights`` are the maps before the gate, which differs from channel to channel.
    Parameters: softmax and hdD. Source: arXiv 2505.06708, element-wise gate after attention.
    """

    headwise = False

    def __init__(self, config, layer_index=0):
        super().__init__(config, layer_index)
        n_gates = config.n_head * (1 if self.headwise else config.head_dim)
        self.gate_proj = nn.Linear(config.n_embd, n_gates, bias=False)  # NEW

    def gate(self, x):
        """(B, T, h, d), or (B, T, h, 1) with one gate for each head."""
        return torch.sigmoid(self.gate_proj(x)).unflatten(-1, (self.config.n_head, -1))

    def mix(self, q, k, v, x, n_keys=None):
        return super().mix(q, k, v, x, n_keys) * self.gate(x)  # NEW


@register("gated_headwise")
class GatedHeadwiseAttention(GatedAttention):
    """One gate for each token and head. Parameters: softmax and hD. Source: arXiv 2505.06708."""

    headwise = True  # NEW

    def weights(self, q, k, x):
        """The gated maps (B, h, T, S): rows sum to the gate."""
        return self.branches(q, k) * self.gate(x).transpose(1, 2)  # gate: (B, h, T, 1)


# ---- Softmax with 2h heads, built to compute the difference ------------------------------------


class TiedOutput(nn.Linear):
    """W_O of 2h heads (2hd -> D), half of it learned: W_O[2i+1] = -lambda[i] W_O[2i]."""

    def __init__(self, config):
        super().__init__(config.n_head * config.head_dim, config.n_embd, bias=False)
        self.lambda_logit = nn.Parameter(torch.zeros(config.n_head))  # lambda 0.5, as in DIFF V2

    def forward(self, x):
        """(B, T, 2hd) -> (B, T, D)."""
        even = self.weight.unflatten(1, (len(self.lambda_logit), -1))  # (D, h, d)
        odd = -self.lambda_logit.sigmoid()[:, None] * even
        return F.linear(x, torch.stack((even, odd), dim=2).flatten(1))  # (D, h, 2, d) -> (D, 2hd)


@register("constructed")
class ConstructedAttention(SoftmaxAttention):
    """Softmax with 2h heads and a tied W_O: DIFF V2 whose lambda is constant (claims 8, 14).

    Parameters: 3hdD + 2 h_kv d D + h. Source: the DIFF V2 article's argument for claim 14.
    """

    query_heads_per_head = 2  # NEW

    def __init__(self, config, layer_index=0):
        super().__init__(config, layer_index)
        self.o_proj = TiedOutput(config)  # NEW


@torch.no_grad()
def start_constructed(model, lam=0.5):
    """Let 2h-head softmax layers compute DIFF V2 with constant lambda, as a start (claim 14).

    Sets W_O[2i+1] = -lam W_O[2i] in every softmax layer of the model; training may undo it.

    Raises:
        ValueError: there is no softmax layer, or a pair would straddle two key/value heads.
    """
    layers = [m for m in model.modules() if type(m) is SoftmaxAttention]
    if not layers or any(m.config.n_head % (2 * m.config.n_kv_head) for m in layers):
        raise ValueError("start_constructed needs softmax layers, n_head a multiple of 2 n_kv_head")
    for layer in layers:
        pairs = layer.o_proj.weight.unflatten(1, (-1, 2, layer.config.head_dim))  # (D, h, 2, d)
        pairs[:, :, 1] = -lam * pairs[:, :, 0]  # a view of the weight: changed in place


# ---- Sizes -------------------------------------------------------------------------------------

_TABLE = {  # name: (its heads for each head of DIFF V2, description)
    "diff_v2": (1, "Differential Transformer V2; all others are sized against it"),
    "softmax_h": (1, "softmax, as many output heads: fewer parameters"),
    "softmax_1.5h": (1.5, "softmax, as many parameters: the fair baseline (ablation 4)"),
    "softmax_2h": (2, "softmax, as many query heads: more parameters"),
    "softmax_2h_start": (2, "softmax_2h that starts as DIFF V2 with lambda 0.5, then is free"),
    "constructed": (1, "softmax_2h with W_O tied to subtract: V2 with a constant lambda"),
    "diff_v1": (1.5, "Differential Transformer V1: per-head RMSNorm, one lambda a layer"),
    "diff_v1_no_norm": (1.5, "V1 without the per-head RMSNorm"),
    "diff_halves": (1, "V2, ablation 1: pairs heads of different key/value groups"),
    "diff_no_lambda": (1, "V2, ablation 2: a1 - a2"),
    "diff_no_sigmoid": (1, "V2, ablation 3: lambda without its sigmoid"),
    "off_by_one": (1.5, "softmax with 1 added to its denominator"),
    "sink_logit": (1.5, "softmax with a learned sink logit for each head (gpt-oss)"),
    "gated": (1, "softmax with a sigmoid gate on each channel of each head"),
    "gated_headwise": (1.5, "softmax with one sigmoid gate for each head"),
}
VARIANTS = {name: description for name, (_, description) in _TABLE.items()}
START = {"softmax_2h_start": start_constructed}  # variants whose first weights are special


def variant(config, name):
    """The GPTConfig of a variant that has as many parameters as DIFF V2, or as many heads.

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
    attention = "softmax" if name.startswith("softmax") else name
    sized = dataclasses.replace(config, attention=attention, n_head=int(n_head))
    with torch.device("meta"):  # no memory: what else does not fit fails here, before any training
        ATTENTION[attention](sized)
    return sized


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
