"""Softmax with 2h heads, built to compute the difference, or started so and then set free."""

import torch
import torch.nn as nn
import torch.nn.functional as F

from minidiff.model import SoftmaxAttention, register


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
