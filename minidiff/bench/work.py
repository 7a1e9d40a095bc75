"""What a training step needs at least, part by part: FLOPs of matrix products, bytes of memory.

Bytes: every input read once, every output written once, by the model as it is written. Matrix
products and attention are kernels of their own; what lies between two of them is one pass. FLOPs:
those of matrix products. The exponentials of attention are left out, though at d = 64 they keep
their own units busy about as long as the forward's products keep the tensor cores (3.9e12 a second
on an H100: arXiv 2407.08608), and a kernel does well to do both at once.

Symbols: N = B T tokens of a step, D width, F width of the MLP, V vocabulary, H query heads, h
output heads, h_kv key/value heads, d head size. The residual stream, the weights and their
gradients are float32, 4 bytes; activations elsewhere bfloat16, 2 bytes.
"""

from typing import NamedTuple

import torch


class Work(NamedTuple):
    """What one operation needs at least."""

    flops: float
    bytes: float

    def roof_ms(self, peak, bandwidth):
        return 1e3 * max(self.flops / peak, self.bytes / bandwidth)


def needed(model, batch, pair):
    """Group -> the Work of each of its operations in one training step.

    Args:
        model: a GPT of softmax or DIFF V2 attention, on any device. batch: sequences of full
            length. pair: DIFF V2 as one operation, not as 2h heads and a subtraction.
    """
    c, layers = model.config, model.config.n_layer
    tokens, width = batch * c.block_size, c.n_embd
    linears = [m for m in model.modules() if isinstance(m, torch.nn.Linear)]
    products = [matmul(tokens, m.in_features, m.out_features) for m in linears]
    forward, backward = attention(c, model.blocks[0].attn.query_heads_per_head, batch, pair)
    feeds = len(linears) // layers - 4  # matrices that read the first norm: q, k, v, lambda
    hidden, weights = model.blocks[0].mlp.w2.in_features, sum(m.weight.numel() for m in linears)
    heads = model.blocks[0].attn.q_proj.out_features + c.n_kv_head * c.head_dim
    work = {
        # y (N, out) = x (N, in) W^T, and two products of the same size in the backward
        "matmuls, forward": products,
        "matmuls, input gradient": products,
        "matmuls, weight gradient": products,
        "logits": [matmul(tokens, width, c.vocab_size)] * 3,
        "attention, forward": [forward] * layers,
        "attention, backward": [backward] * layers,
        # norm x: 4 + 2; norm (x + a): 4 + 2 + 2; x + a + mlp: 4 + 2 + 2 + 4 bytes of N D numbers
        "norms and residual, forward": [Work(0, 26 * tokens * width)] * layers,
        # second norm: 2 gradients, x, a, the residual's: 4 + 4 + 2 + 4, written in float32 and
        # bfloat16: 6. First norm: a gradient from each of its readers, x, the residual's; 6
        "norms and residual, backward": [Work(0, (34 + 2 * feeds) * tokens * width)] * layers,
        # q and k (N, (H + h_kv) d) read and written, forward and backward
        "rotary": [Work(0, 4 * tokens * heads)] * 2 * layers,
        # w1 x and w3 x (N, F) read, one written; three read, two written
        "SwiGLU": [Work(0, 6 * tokens * hidden), Work(0, 10 * tokens * hidden)] * layers,
        "casts of weights": [Work(0, 6 * weights)] * 2,
        # the norm reads the gradients; AdamW reads 4 and writes 3 numbers for each parameter
        "clipping and AdamW": [Work(0, 32 * sum(p.numel() for p in model.parameters()))],
        # logits (N, V) read; read again, and their gradient written
        "cross entropy": [Work(0, 2 * tokens * c.vocab_size), Work(0, 4 * tokens * c.vocab_size)],
        # rows of the table (N, D) written, their gradients read; last norm: 4 + 2, and 2 + 4 + 4
        "embedding, last norm": [Work(0, 24 * tokens * width + 8 * c.vocab_size * width)],
        "others": [],
    }
    if c.attention == "diff_v2" and not pair:
        a, logits = tokens * c.n_head * c.head_dim, tokens * c.n_head
        # forward: 2h heads and the logits read, h written. Backward: the gradient, the second heads
        # (for lambda's) and the logits read, the gradients of 2h heads and the logits written
        work["subtraction"] = [Work(0, 6 * a + 2 * logits), Work(0, 8 * a + 4 * logits)] * layers
    return work


def matmul(rows, inputs, outputs):
    """(rows, inputs) times (inputs, outputs), in bfloat16: 2 FLOPs for each pair of factors."""
    numbers = rows * inputs + inputs * outputs + rows * outputs
    return Work(2 * rows * inputs * outputs, 2 * numbers)


def attention(config, queries_per_head, batch, pair):
    """Work of one layer's causal attention, forward and backward.

    A product of a (T, d) and a (d, T) matrix is 2 T^2 d FLOPs, of which the causal half is needed.
    Two forward for each query head (the scores, A v). Backward five (the scores again, dP, dV, dQ,
    dK), but eight for a pair, not ten: dP and dV are shared (fast/pair_kernel.py, which does eleven
    since two kernels both compute the scores and dP). Forward: q, k, v read, the output and the
    float32 logarithms of the sums written. Backward: those and the gradient read, dq, dk, dv
    written. A pair also reads its logits (N, h) and stores O2 (N, h, d).
    """
    c, tokens = config, batch * config.block_size
    heads, product = queries_per_head * c.n_head, batch * config.block_size**2 * config.head_dim
    q, kv = 2 * tokens * heads * c.head_dim, 4 * tokens * c.n_kv_head * c.head_dim
    sums, logits = 4 * tokens * heads, 2 * tokens * c.n_head
    if pair:  # out, O2 and the gradient have h heads, half of q's
        return (
            Work(4 * c.n_head * product, 2 * q + kv + sums + logits),
            Work(8 * c.n_head * product, q * 7 / 2 + 2 * kv + sums + 2 * logits),
        )
    return (
        Work(2 * heads * product, 2 * q + kv + sums),
        Work(5 * heads * product, 4 * q + 2 * kv + sums),
    )
