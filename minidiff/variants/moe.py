"""Mixture of experts: each token goes through ``top_k`` of ``n_experts`` small SwiGLU layers.

The article's 30A3 runs use one, with DIFF V2's attention unchanged: so this file changes the
feed-forward part alone, for DIFF V2 and for softmax. An expert is 1 / top_k as wide as the dense
layer: a token costs as much as before (and the router: D * n_experts weights), and the layer holds
n_experts / top_k times the weights.

    share          = softmax(router(x))       over the experts, in float32
    weight, expert = topk(share, top_k)
    weight         = weight / sum(weight)     (Mixtral, arXiv 2401.04088)
    y              = sum_j weight_j SwiGLU_(expert_j)(x)

The weights are how the loss reaches the router: the choice itself has no gradient. With top_k = 1
the only weight is 1 whatever the router says, so that it would not learn (Switch keeps the share).
Nothing makes a router use all experts, so a balance loss does (Switch, arXiv 2101.03961).
"""

import torch
import torch.nn as nn
import torch.nn.functional as F

from minidiff.model import DiffV2Attention, SoftmaxAttention, SwiGLU, register

FEW = 32  # rows for which it is cheaper to fetch each row's own expert than to group them


class Experts(nn.Module):
    """One matrix for each expert: weight (E, n_in, n_out)."""

    def __init__(self, n_experts, n_in, n_out):
        super().__init__()
        self.weight = nn.Parameter(0.02 * torch.randn(n_experts, n_in, n_out))

    def forward(self, rows, ends):
        """rows (M, n_in), sorted by expert: those of expert e end at ends[e] -> (M, n_out)."""
        weight = self.weight.to(rows.dtype)
        if len(rows) <= FEW:  # generation; nothing goes to the CPU, so a CUDA graph can hold it
            expert = torch.searchsorted(
                ends, torch.arange(len(rows), device=ends.device), right=True
            )
            return torch.bmm(rows.unsqueeze(1), weight[expert]).squeeze(1)
        if rows.dtype == torch.bfloat16 or (rows.dtype == torch.float32 and not rows.is_cuda):
            return F.grouped_mm(rows, weight, offs=ends)
        return grouped_loop(rows, weight, ends)  # float64, float16, and float32 on a GPU


def grouped_loop(rows, weight, ends):
    """The naive twin of grouped_mm: one product for each expert."""
    parts = rows.tensor_split(ends[:-1].tolist())
    return torch.cat([part @ matrix for part, matrix in zip(parts, weight, strict=True)])


class _AlsoMinimise(torch.autograd.Function):
    """Returns y as it is; backward acts as if ``loss`` () had been added to the model's loss."""

    @staticmethod
    def forward(ctx, y, loss):
        return y.view_as(y)

    @staticmethod
    def backward(ctx, grad):
        return grad, grad.new_ones((), dtype=torch.float32)  # d(total) / d(loss) = 1


class MoE(nn.Module):
    """A router and its experts, in the place of SwiGLU.

    The balance loss acts through the backward pass only (as in Megatron-LM and DeepSeek's code):
    the loss that the model returns stays the cross-entropy, which compares with dense models, and
    the training loop needs no change. The price: what multiplies the model's loss does not multiply
    this one. With gradient accumulation it counts in full at each micro-step, and beside float16's
    scaled loss next to nothing; train in bfloat16 or float32.
    """

    n_experts, top_k = 16, 2
    balance_weight = 0.01

    def __init__(self, config):
        super().__init__()
        D, hidden = config.n_embd, SwiGLU(config).w1.out_features // self.top_k  # of the dense one
        self.router = nn.Linear(D, self.n_experts, bias=False)
        self.w1 = Experts(self.n_experts, D, hidden)
        self.w3 = Experts(self.n_experts, D, hidden)
        self.w2 = Experts(self.n_experts, hidden, D)

    def forward(self, x):
        """(B, T, D) -> (B, T, D). A slot is a token and one of its experts: N * top_k of them."""
        tokens, device = x.flatten(0, 1), x.device.type  # (N, D)
        share, weight, expert = self.route(tokens)
        order = expert.flatten().argsort(stable=True)  # (N * top_k,) the slots, sorted by expert
        used = (expert.unsqueeze(-1) == torch.arange(self.n_experts, device=x.device)).sum((0, 1))
        ends = used.cumsum(0).int()  # (E,) where each expert's slots end
        if torch.is_autocast_enabled(device):  # autocast does not know grouped_mm
            tokens = tokens.to(torch.get_autocast_dtype(device))
        rows = tokens[order // self.top_k]  # (N * top_k, D): slot s is of token s // top_k
        rows = self.w2(F.silu(self.w1(rows, ends)) * self.w3(rows, ends), ends)
        slots = rows[order.argsort()].unflatten(0, (-1, self.top_k))  # (N, top_k, D), unsorted
        y = (slots * weight.unsqueeze(-1).to(slots.dtype)).sum(1).view_as(x)
        return _AlsoMinimise.apply(y, self.balance_weight * balance_loss(share, used))

    def route(self, tokens):
        """(N, D) -> the softmax (N, E), and of the chosen experts weight and index (N, top_k)."""
        with torch.autocast(tokens.device.type, enabled=False):  # rounding would flip choices
            at_least_float32 = torch.promote_types(tokens.dtype, torch.float32)
            tokens, weight = tokens.to(at_least_float32), self.router.weight.to(at_least_float32)
            share = F.linear(tokens, weight).softmax(-1)
        weight, expert = share.topk(self.top_k)
        return share, weight / weight.sum(-1, keepdim=True), expert


def balance_loss(share, used):
    """E sum_e f_e P_e: 1 when f or P is uniform, E when both are all on one expert.

    Not bounded by 1: a few shares near 1 may outweigh many choices by a narrow margin. Its gradient
    at the logits of a token is E / N * share_e * (f_e - sum_j f_j share_j): experts that are used
    more than this token's own average go down, the others up.

    Args:
        share: (N, E) the router's softmax, whose mean is P. used: (E,) slots of each expert; f is
            their share, and has no gradient.
    """
    return share.shape[1] * (used / used.sum() * share.mean(0)).sum()


@torch.no_grad()
def expert_load(model, idx):
    """(n_layer, E): the share of the slots that each expert gets on idx (B, T); rows sum to 1."""
    x, rope, loads = model.embed(idx), model.rope[: idx.shape[1]], []
    for block in model.blocks:
        middle = x + block.attn(block.attn_norm(x), rope)
        expert = block.mlp.route(block.mlp_norm(middle).flatten(0, 1))[2]
        loads.append(torch.bincount(expert.flatten(), minlength=block.mlp.n_experts))
        x = block(x, rope)
    return torch.stack(loads) / expert.numel()


class MoEAttention(SoftmaxAttention):
    """Attention as it was, in blocks whose feed-forward part is a mixture of experts."""

    @classmethod
    def blocks(cls, config):
        blocks = super().blocks(config)
        for block in blocks:
            block.mlp = MoE(config)  # NEW
        return blocks


@register("moe_softmax")
class MoESoftmaxAttention(MoEAttention):
    """Softmax attention and experts."""


@register("moe_diff_v2")
class MoEDiffV2Attention(MoEAttention, DiffV2Attention):
    """DIFF V2 and experts."""
