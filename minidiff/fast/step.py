"""One token through the whole model in six Triton kernels a layer, where its modules take 35.

A token multiplies every matrix by a vector: each weight is read once and used once. The 25M model
has 50 MB of them, 15 us of an H100's memory. But a kernel that does next to nothing takes 2 us, so
here the number of kernels decides. Those of a layer:

    _project    RMSNorm, W_Q, W_K, W_V, W_lambda; RoPE; k and v into the cache
    (decode.py) attention over the cache, in two kernels; the second also does the difference
    _add        W_O, added to the residual stream
    _gate       RMSNorm, w1 and w3, silu(w1 x) * w3 x
    _add        w2, added to the residual stream

The definition remains model.py; this computes the same with fewer roundings: everything between
the weights and the cache is float32. This file needs Triton: import it only where it will be used.
"""

import torch
import torch.nn as nn
import triton
import triton.language as tl

from minidiff.fast.decode import split_decode
from minidiff.model import GPT, Block, DiffV2Attention, SoftmaxAttention, SwiGLU

MODULES = {GPT, Block, SoftmaxAttention, DiffV2Attention, SwiGLU, nn.Linear, nn.Embedding,
           nn.RMSNorm, nn.ModuleList}  # fmt: skip
MAX_BATCH = 4  # every sequence reads the weights again: fast where they fit into the L2 cache,
MAX_BATCH_SMALL, SMALL = 32, 2**26  # of so many bytes (bench_writing.json)
PROGRAMS = 128  # at least so many read a matrix: about one for each multiprocessor
TILE, WARPS = 4096, 4  # numbers of a matrix that a program holds, and its warps


def why_not(model, batch):
    """None where FusedStep computes what the model does, else the reason."""
    for module in model.modules():
        if type(module) not in MODULES:
            return f"it does not know {type(module).__name__}"
    size = sum(parameter.nbytes for parameter in model.parameters())
    limit = MAX_BATCH_SMALL if size < SMALL else MAX_BATCH
    if batch > limit:
        return f"it is for a batch up to {limit} at this size, not {batch}"
    return None


class FusedStep:
    """``model(token, cache=cache)[0]`` for one new token of each sequence.

    Reads the model's weights when it is built (W_Q, W_K, W_V, W_lambda) and when it is called (all
    others): build a new one after they changed. The cache must hold at least one token.
    """

    def __init__(self, model, cache):
        self.model, self.cache = model, cache
        self.projections = []  # of each layer, the rows of W_Q, W_K, W_V, W_lambda: (n, D)
        for attn in (block.attn for block in model.blocks):
            names = ("q_proj", "k_proj", "v_proj", "lambda_proj")
            parts = [getattr(attn, name).weight for name in names if hasattr(attn, name)]
            self.projections.append(torch.cat(parts))

    def __call__(self, token):
        """token (B, 1) -> logits (B, 1, vocab_size), float32."""
        model, length = self.model, self.cache.length
        B, D = token.shape[0], model.config.n_embd
        x = torch.empty(B, D, dtype=torch.float32, device=token.device)  # the residual stream
        with torch.cuda.device_of(x):  # Triton launches on the current device
            _start[(B,)](
                token.contiguous(), model.embed.weight, length, x, D, triton.next_power_of_2(D)
            )
            for i, block in enumerate(model.blocks):
                out = self._attend(i, block, x)
                _launch(_add, block.attn.o_proj.weight, (out, x))
                w1, w3 = block.mlp.w1.weight, block.mlp.w3.weight
                hidden = x.new_empty(B, len(w1))
                norm = block.mlp_norm
                _launch(_gate, w1, (w3, x, norm.weight, hidden), norm.eps)
                _launch(_add, block.mlp.w2.weight, (hidden, x))
            logits = x.new_empty(B, 1, model.config.vocab_size)
            norm = model.norm
            _launch(_logits, model.embed.weight, (x, norm.weight, logits), norm.eps)
        return logits

    def _attend(self, i, block, x):
        """Layer i up to W_O: x (B, D) -> (B, 1, h, d)."""
        config, attn, rope = self.model.config, block.attn, self.model.rope
        k, v = self.cache.layers[i]  # (B, S_max, h_kv, d)
        B, d, n_heads = len(x), config.head_dim, config.n_head * attn.query_heads_per_head
        q = k.new_empty(B, 1, n_heads, d)
        pairs = isinstance(attn, DiffV2Attention)
        lam_logit = x.new_empty(B, 1, config.n_head) if pairs else None
        norm = block.attn_norm
        _launch(
            _project, self.projections[i],
            (x, norm.weight, rope, self.cache.length, q, k, v, lam_logit), norm.eps,
            n_heads * d, config.n_kv_head * d, d, k.stride(0), B=B,
        )  # fmt: skip
        return split_decode(q, k, v, self.cache.length, lam_logit=lam_logit)


def _launch(kernel, w, tensors, *settings, B=None):
    """kernel(w, *tensors, *settings, rows and columns of w, of a tile), over all rows of w."""
    n_rows, n = w.shape
    B = B or len(tensors[-1])
    rows = max(2, min(16, triton.next_power_of_2(n_rows // PROGRAMS + 1) // 2))
    columns = min(triton.next_power_of_2(n), TILE // rows)
    kernel[(B, triton.cdiv(n_rows, rows))](
        w, *tensors, *settings, n_rows, n, rows, columns, num_warps=WARPS
    )  # fmt: skip


@triton.jit
def _start(token, embed, length, x, n: tl.constexpr, wide: tl.constexpr):
    """The embedding of each sequence's token, and the cache is one longer."""
    b = tl.program_id(0)
    column = tl.arange(0, wide)
    row = embed + tl.load(token + b) * n
    values = tl.load(row + column, mask=column < n, other=0.0)
    tl.store(x + b * n + column, values, mask=column < n)
    if b == 0:
        tl.store(length, tl.load(length) + 1)


@triton.jit
def _product(
    w, row, x, gain, eps: tl.constexpr, n_rows: tl.constexpr, n: tl.constexpr,
    rows: tl.constexpr, columns: tl.constexpr,
):  # fmt: skip
    """The rows ``row`` of W (n_rows, n) times x (n,), or with a gain times RMSNorm(x): (rows,).

    Norm and product need one pass over x: W (g x / rms) = (W (g x)) / rms.
    """
    sums = tl.zeros((rows, columns), tl.float32)
    squares = tl.zeros((columns,), tl.float32)
    for start in tl.static_range(0, n, columns):
        column = start + tl.arange(0, columns)
        inside = column < n
        x_part = tl.load(x + column, mask=inside, other=0.0).to(tl.float32)
        if gain is not None:
            squares += x_part * x_part
            x_part *= tl.load(gain + column, mask=inside, other=0.0).to(tl.float32)
        place = row[:, None].to(tl.int64) * n + column[None, :]
        here = (row < n_rows)[:, None] & inside[None, :]
        sums += tl.load(w + place, mask=here, other=0.0).to(tl.float32) * x_part[None, :]
    y = tl.sum(sums, 1)
    if gain is not None:
        y *= tl.rsqrt(tl.sum(squares, 0) / n + eps)
    return y


@triton.jit
def _project(
    w, x, gain, rope, length, q, k, v, lam_logit, eps: tl.constexpr,
    n_q: tl.constexpr, n_kv: tl.constexpr, d: tl.constexpr, cache_batch,
    n_rows: tl.constexpr, n: tl.constexpr, rows: tl.constexpr, columns: tl.constexpr,
):  # fmt: skip
    """Rows of W_Q, W_K, W_V, W_lambda times RMSNorm(x): the first two turned, all of them stored.

    rows is even and so is d: the two channels of a pair always meet in one program.
    """
    b, first = tl.program_id(0).to(tl.int64), tl.program_id(1) * rows
    row = first + tl.arange(0, rows)
    y = _product(w, row, x + b * n, gain, eps, n_rows, n, rows, columns)

    position = tl.load(length).to(tl.int64) - 1
    even_row = first + 2 * tl.arange(0, rows // 2)
    turned = even_row < n_q + n_kv
    angle = rope + position * d + (even_row % d) // 2  # rope (block_size, 2, d/2)
    cos = tl.load(angle, mask=turned, other=1.0).to(tl.float32)
    sin = tl.load(angle + d // 2, mask=turned, other=0.0).to(tl.float32)
    even, odd = tl.split(tl.reshape(y, (rows // 2, 2)))
    y = tl.interleave(even * cos - odd * sin, even * sin + odd * cos)

    tl.store(q + b * n_q + row, y, mask=row < n_q)
    slot = b * cache_batch + position * n_kv - n_q  # in a cache (B, S_max, h_kv * d)
    tl.store(k + slot + row, y, mask=(row >= n_q) & (row < n_q + n_kv))
    past = n_q + 2 * n_kv
    tl.store(v + slot - n_kv + row, y, mask=(row >= n_q + n_kv) & (row < past))
    if lam_logit is not None:
        tl.store(
            lam_logit + b * (n_rows - past) - past + row, y, mask=(row >= past) & (row < n_rows)
        )


@triton.jit
def _add(
    w, inputs, x, n_rows: tl.constexpr, n: tl.constexpr, rows: tl.constexpr, columns: tl.constexpr
):
    """x += W inputs."""
    b, row = tl.program_id(0), tl.program_id(1) * rows + tl.arange(0, rows)
    y = _product(w, row, inputs + b * n, None, 0.0, n_rows, n, rows, columns)
    place = x + b * n_rows + row
    tl.store(place, tl.load(place, mask=row < n_rows, other=0.0) + y, mask=row < n_rows)


@triton.jit
def _gate(
    w1, w3, x, gain, hidden, eps: tl.constexpr, n_rows: tl.constexpr, n: tl.constexpr,
    rows: tl.constexpr, columns: tl.constexpr,
):  # fmt: skip
    """hidden = silu(w1 RMSNorm(x)) * w3 RMSNorm(x)."""
    b, row = tl.program_id(0), tl.program_id(1) * rows + tl.arange(0, rows)
    gate = _product(w1, row, x + b * n, gain, eps, n_rows, n, rows, columns)
    up = _product(w3, row, x + b * n, gain, eps, n_rows, n, rows, columns)
    tl.store(hidden + b * n_rows + row, gate * tl.sigmoid(gate) * up, mask=row < n_rows)


@triton.jit
def _logits(
    w, x, gain, logits, eps: tl.constexpr, n_rows: tl.constexpr, n: tl.constexpr,
    rows: tl.constexpr, columns: tl.constexpr,
):  # fmt: skip
    """logits = embedding RMSNorm(x)."""
    b, row = tl.program_id(0), tl.program_id(1) * rows + tl.arange(0, rows)
    y = _product(w, row, x + b * n, gain, eps, n_rows, n, rows, columns)
    tl.store(logits + b * n_rows + row, y, mask=row < n_rows)
