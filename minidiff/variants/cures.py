"""Other cures for attention sinks, on the softmax baseline: off by one, a sink logit, gates."""

import math

import torch
import torch.nn as nn
import torch.nn.functional as F

from minidiff.attention import attention_weights
from minidiff.model import SoftmaxAttention, register


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
