"""Differential Transformer V1, which V2 simplifies (arXiv 2410.05258 and its published code).

V1 spends its second branch differently: h query heads make h/2 pairs, and each pair reads one value
head of size 2d. So it has the parameters of softmax with h heads, but needs values twice as wide as
keys, for which a fast kernel must be called twice and load the values twice.
"""

import math

import torch
import torch.nn as nn

from minidiff.attention import attention_weights
from minidiff.model import SoftmaxAttention, register
from minidiff.theory import v1_lambda_init


@register("diff_v1_no_norm")
class DiffV1NoNormAttention(SoftmaxAttention):
    """DIFF V1 without its per-head RMSNorm and the constant that scales the result (claim 13).

    The h query heads and the h_kv key heads are pairs (2i, 2i+1). A pair of value heads is one
    head of size 2d, which both branches read. One lambda serves a whole layer. Parameters: those
    of softmax with h heads, and 4d. Source: arXiv 2410.05258 and its published code.
    """

    def __init__(self, config, layer_index=0):
        if config.n_kv_head % 2:
            raise ValueError(f"n_kv_head={config.n_kv_head} must be even: DIFF V1 pairs key heads")
        super().__init__(config, layer_index)
        self.lambda_init = v1_lambda_init(layer_index)
        for name in ("lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2"):  # NEW
            self.register_parameter(name, nn.Parameter(0.1 * torch.randn(config.head_dim)))

    def lam(self):
        """The re-parameterised lambda: one number, not bounded, close to lambda_init at first."""
        first, second = self.lambda_q1 * self.lambda_k1, self.lambda_q2 * self.lambda_k2
        return first.sum().exp() - second.sum().exp() + self.lambda_init

    def mix(self, q, k, v, x, n_keys=None):
        """a1 - lambda a2: (B, T, h/2, 2d)."""

        def branch(b):  # NEW: the fast kernels want values as wide as keys, so a call for each half
            halves = (v[:, :, 0::2], v[:, :, 1::2])  # (B, S, h_kv/2, d) each
            outs = [self.attend(q[:, :, b::2], k[:, :, b::2], half, n_keys) for half in halves]
            return torch.cat(outs, dim=-1)  # (B, T, h/2, 2d)

        return branch(0) - self.lam() * branch(1)

    def branches(self, q, k):
        """The map of every query head (B, h, T, S), in the order branch 0, branch 1, 0, 1, ..."""
        maps = [attention_weights(q[:, :, b::2], k[:, :, b::2]) for b in (0, 1)]
        return torch.stack(maps, dim=2).flatten(1, 2)  # (B, h/2, 2, T, S) -> (B, h, T, S)

    def weights(self, q, k, x):
        """A1 - lambda A2 (B, h/2, T, S), before any norm, for values (B, S, h_kv/2, 2d)."""
        maps = self.branches(q, k)
        return maps[:, 0::2] - self.lam() * maps[:, 1::2]


@register("diff_v1")
class DiffV1Attention(DiffV1NoNormAttention):
    """DIFF V1 as published: each head is normalised over its 2d channels, then scaled.

    A uniform head has RMS near 1/sqrt(n); bringing it to 1 multiplies it, and its gradient, by
    sqrt(n) (claim 13). Parameters: 2d more. Source: arXiv 2410.05258.
    """

    def __init__(self, config, layer_index=0):
        super().__init__(config, layer_index)
        self.head_norm = nn.RMSNorm(2 * config.head_dim, eps=1e-5)  # NEW: one gain for all heads

    def mix(self, q, k, v, x, n_keys=None):
        """RMSNorm(a1 - lambda a2) * (1 - lambda_init): (B, T, h/2, 2d)."""
        context = super().mix(q, k, v, x, n_keys).to(self.head_norm.weight.dtype)
        return self.head_norm(context) * (1 - self.lambda_init)  # NEW


@register("diff_v1_sigmoid")
class DiffV1SigmoidAttention(DiffV1Attention):
    """DIFF V1 with a lambda in (0, 1), the same at the start: is its trouble the missing bound?"""

    def lam(self):
        """Close to lambda_init at first."""
        first, second = self.lambda_q1 * self.lambda_k1, self.lambda_q2 * self.lambda_k2
        start = math.log(self.lambda_init / (1 - self.lambda_init))  # its sigmoid is lambda_init
        return torch.sigmoid(first.sum() - second.sum() + start)  # NEW
