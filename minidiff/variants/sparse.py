"""Sparse attention for paired heads: each query sees its own block of keys and a few earlier ones.

Keys are cut into blocks of ``block``; a query takes the block it lies in and, of those before,
the ones whose mean key it scores highest, ``top_k`` in all (MoBA, arXiv 2502.13189; Quest, arXiv
2406.10774, and NSA, arXiv 2502.11089, differ in the summary of a block).

What DIFF V2 adds (claim 15): a pair cancels what its two heads have in common key by key, which it
can do only at keys that both see. So ``share`` says who chooses:

    head     every query head for itself: the two heads of a pair often see different keys
    pair     both heads of a pair together, by the sum of their scores (the mean orders alike)
    a1       the first head of a pair for both
    group    all query heads of one key/value head together, as in NSA: one set of keys to load

Whether a model that is trained so needs it is open: at 25M, three seeds, the loss with "pair" minus
that with "head" is +0.010 [-0.003, +0.022] nats a byte (notebook 09). "pair" loads fewer keys.

The choice is made for every single query: one for a tile of queries, by their mean, would let a
query's keys depend on later tokens. It has no gradient.
"""

import contextlib
import functools
import math

import torch
import torch.nn.functional as F

from minidiff.attention import (
    NAIVE,
    PLAIN,
    SDPA,
    Kernel,
    attention_weights,
    choose,
    differential,
)
from minidiff.model import DiffV2Attention, SoftmaxAttention, register

SHARES = ("head", "pair", "a1", "group")
LONG = 8192  # from here on flex_attention also serves a pass without gradients
TILE = 128  # flex_attention's: on Hopper its gradient takes no smaller one

# ---- Which blocks ------------------------------------------------------------------------------


@torch.no_grad()
def choose_blocks(q, k, position, *, block, top_k, share):
    """The blocks of keys that each query sees.

    Args:
        q: (B, T, H, d). k: (B, S, h_kv, d), or a cache of which the first part is filled.
        position: (T,) of the queries among the S keys.
        block: keys in a block. top_k: blocks for a query at most, its own included.
        share: one of :data:`SHARES`.
    Returns:
        (B, G, T, n) bool, n = S / block rounded up; query heads i * H/G to (i + 1) * H/G - 1 share
        choice i. G is H for "head", H/2 for "pair" and "a1", h_kv for "group".
    """
    if share not in SHARES or min(block, top_k) < 1:
        raise ValueError(
            f"share={share!r} must be one of {', '.join(SHARES)}, block={block} and top_k={top_k} "
            "at least 1"
        )
    # Heads that choose together read the same keys: the sum of their scores is the score of the
    # sum of their queries.
    per_choice = {"head": 1, "pair": 2, "a1": 2, "group": q.shape[2] // k.shape[2]}[share]
    heads = q.unflatten(2, (-1, per_choice)).float()  # (B, T, G, H/G, d)
    chooser = heads[:, :, :, 0] if share == "a1" else heads.sum(3)  # (B, T, G, d)
    means = F.pad(k.float(), (0, 0, 0, 0, 0, -k.shape[1] % block)).unflatten(1, (-1, block)).mean(2)
    means = means.repeat_interleave(chooser.shape[2] // k.shape[2], dim=2)  # (B, n, G, d)
    with torch.autocast(q.device.type, enabled=False):
        score = torch.einsum("btgd,bngd->bgtn", chooser, means)
    own = (position // block).unsqueeze(1)  # (T, 1); the only block that may be incomplete
    blocks = torch.arange(score.shape[-1], device=q.device)
    score = score.masked_fill(blocks == own, math.inf).masked_fill(blocks > own, -math.inf)
    best = score.topk(min(top_k, len(blocks))).indices  # (B, G, T, top_k)
    return torch.zeros_like(score, dtype=torch.bool).scatter_(-1, best, True) & (blocks <= own)


def visible(chosen, position, block, n_keys):
    """The mask (B, G, T, S) of the keys in chosen blocks (B, G, T, n), none of them later."""
    keys = torch.arange(n_keys, device=chosen.device)
    return chosen[..., keys // block] & (keys <= position.unsqueeze(1))


# ---- Attention over them -----------------------------------------------------------------------


def _head_mask(q, k, chosen, position, block):
    """:func:`visible` for every query head: (B, H, T, S)."""
    mask = visible(chosen, position, block, k.shape[1])
    return mask.repeat_interleave(q.shape[2] // mask.shape[1], dim=1)


def _naive(q, k, v, chosen, position, block):
    """The formula under a mask: the naive twin of what follows."""
    return NAIVE.run(q, k, v, False, _head_mask(q, k, chosen, position, block))


def _masked(q, k, v, chosen, position, block):
    """PyTorch's SDPA with a mask: the sparse result at the dense price."""
    return SDPA.run(q, k, v, False, _head_mask(q, k, chosen, position, block))


def _flex(q, k, v, chosen, position, block):
    """flex_attention, which skips a tile of TILE keys that none of TILE queries has chosen.

    The more the queries of a tile agree, the more it saves. Its first call compiles for seconds.
    """
    from torch.nn.attention.flex_attention import BlockMask

    if TILE % block:
        raise ValueError(f"block={block} must divide {TILE} for flex_attention, or backend='sdpa'")
    share = q.shape[2] // chosen.shape[1]

    def mask_mod(b, h, i, j):  # repeats the choice: inside a tile the queries differ
        return chosen[b, h // share, i, j // block] & (j <= i)

    tiles = tiles_of(chosen, block).repeat_interleave(share, dim=1)  # (B, H, T / TILE, S / TILE)
    count = tiles.sum(-1, dtype=torch.int32)
    order = tiles.int().argsort(dim=-1, descending=True, stable=True).int()  # chosen ones first
    lengths = (q.shape[1], k.shape[1])
    mask = BlockMask.from_kv_blocks(
        count, order, BLOCK_SIZE=TILE, mask_mod=mask_mod, seq_lengths=lengths
    )
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))  # (B, H, T, d)
    with _many_shapes():
        return _compiled_flex()(q, k, v, block_mask=mask, enable_gqa=True).transpose(1, 2)


def tiles_of(chosen, block):
    """Tiles that hold a chosen block: (B, G, T, n) -> (B, G, T / TILE, n * block / TILE) bool."""
    blocks = TILE // block  # of keys in a tile
    tiles = F.pad(chosen, (0, -chosen.shape[3] % blocks, 0, -chosen.shape[2] % TILE))
    return tiles.unflatten(3, (-1, blocks)).any(4).unflatten(2, (-1, TILE)).any(3)


@functools.cache
def _compiled_flex():
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False)  # uncompiled it would store the maps


def _many_shapes():
    """Past eight shapes torch.compile gives up, and uncompiled flex_attention stores the maps."""
    if torch.compiler.is_compiling():  # the limit is then that of the compiled model
        return contextlib.nullcontext()
    return torch._dynamo.config.patch(recompile_limit=256)


def _flex_can_run(q, k, v):
    if not q.is_cuda:
        return f"flex_attention has no gradient on {q.device.type}; use backend='sdpa'"
    if q.shape[1] != k.shape[1]:
        return "it is for whole sequences, not for a cache; use backend='sdpa'"
    if not torch.is_grad_enabled() and q.shape[1] < LONG:  # every length compiles anew
        return f"below T={LONG} it compiles for longer than one pass takes; use backend='sdpa'"
    return None


_SPARSE_SDPA, _FLEX = Kernel("blocks-sdpa", _masked), Kernel("blocks-flex", _flex, _flex_can_run)
SPARSE = {backend: [_FLEX, _SPARSE_SDPA] for backend in PLAIN}  # flash-attn has no such kernel
SPARSE |= {"naive": [Kernel("blocks-naive", _naive)], "sdpa": [_SPARSE_SDPA]}


# ---- The layers --------------------------------------------------------------------------------


class BlockAttention(SoftmaxAttention):
    """Attention over chosen blocks. Parameters and KV cache: those of dense attention."""

    block, top_k, share = 32, 4, "head"

    def attend(self, q, k, v, n_keys=None):
        position = self.positions(q, n_keys)
        chosen = self.choose(q, k, position)  # NEW
        kernel = choose(SPARSE, self.config.backend, q, k, v)  # NEW
        return kernel.run(q, k, v, chosen, position, self.block)

    def positions(self, q, n_keys=None):
        """(T,): the queries are the last T of n_keys tokens; of T where that is None."""
        positions = torch.arange(q.shape[1], device=q.device)
        return positions if n_keys is None else positions + n_keys - q.shape[1]

    def choose(self, q, k, position):
        how = {"block": self.block, "top_k": self.top_k, "share": self.share}
        return choose_blocks(q, k, position, **how)

    def branches(self, q, k):
        position = self.positions(q)
        chosen = self.choose(q, k, position)
        mask = _head_mask(q, k, chosen, position, self.block)
        return attention_weights(q, k, mask=mask)  # NEW


@register("sparse_softmax")
class SparseSoftmaxAttention(BlockAttention):
    """Softmax attention, every head choosing for itself, as in MoBA."""


@register("sparse_pair")
class SparsePairAttention(BlockAttention, DiffV2Attention):
    """DIFF V2 whose pairs of heads choose together (claim 15)."""

    share = "pair"  # NEW

    def mix(self, q, k, v, x, n_keys=None):
        """Two steps: the kernel of a dense pair does not know of blocks."""
        return differential(self.attend(q, k, v, n_keys), self.lambda_proj(x))


@register("sparse_head")
class SparseHeadAttention(SparsePairAttention):
    """Each of the two heads of a pair sees keys of its own choice: more keys to load."""

    share = "head"  # NEW


@register("sparse_a1")
class SparseA1Attention(SparsePairAttention):
    """The first head of a pair, from which the second is subtracted, chooses for both."""

    share = "a1"  # NEW


@register("sparse_group")
class SparseGroupAttention(SparsePairAttention):
    """All heads that read the same keys choose together: the fewest bytes to load."""

    share = "group"  # NEW
