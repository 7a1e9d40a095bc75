"""YOCO, "you only cache once" (arXiv 2405.05254), with DIFF V2 or softmax heads (claim 16).

The lower half of the layers looks at a window of the last tokens. The first layer above it makes
keys and values, once; it and all others only query these:

    lower half    window attention: a cache of ``window`` tokens each
    layer L/2     k, v = W_K norm(x), W_V norm(x): the ONE pair that grows with the text
    upper half    queries of that pair

So reading a prompt needs the upper half for its last token alone (early exit): the work grows
linearly with the prompt, and the cache is about L times smaller.
"""

import torch
import torch.nn.functional as F

from minidiff.attention import SDPA, differential
from minidiff.model import Block, DiffV2Attention, SoftmaxAttention, register, rotate
from minidiff.variants.sparse import block_weights

# ---- The lower half: windows -------------------------------------------------------------------


def window_mask(n_queries, window, start=0):
    """Which of window + n_queries keys, the last of them the queries' own, each query sees.

    Args:
        start: position of the first query in the text: keys before the text do not exist. A
            number, or a tensor (..., 1, 1).
    Returns:
        (..., T, window + T) bool: key j is query j - window; a query sees itself and the
        window - 1 before it.
    """
    device = start.device if torch.is_tensor(start) else None
    query = torch.arange(n_queries, device=device).unsqueeze(1)
    key = torch.arange(-window, n_queries, device=device)
    return (key <= query) & (key > query - window) & (key + start >= 0)


def window_attention(q, k, v, window, start=0):
    """Causal attention to the last ``window`` tokens, in time and memory linear in T.

    The queries are cut into pieces of ``window``, and each gets the keys of its own piece and of
    the one before.

    Args:
        q: (B, T, H, d). k, v: (B, window + T, h_kv, d), those of the tokens before q first.
        start: position of the first query, a number or a tensor (1,): what lies before the text
            is masked.
    Returns:
        (B, T, H, d).
    """
    B, T = q.shape[:2]
    piece = min(T, window)
    pad, pieces = -T % piece, -(-T // piece)
    q, k, v = (F.pad(x, (0, 0, 0, 0, 0, pad)) for x in (q, k, v))
    q = q.unflatten(1, (pieces, piece)).flatten(0, 1)  # (B * pieces, piece, H, d)
    k, v = (  # (B * pieces, window + piece, h_kv, d)
        x.unfold(1, window + piece, piece).movedim(-1, 2).flatten(0, 1) for x in (k, v)
    )
    starts = start + piece * torch.arange(pieces, device=q.device)[:, None, None]
    mask = window_mask(piece, window, starts)  # (pieces, piece, window + piece)
    mask = mask.expand(B, *mask.shape).flatten(0, 1).unsqueeze(1)
    return SDPA.run(q, k, v, False, mask).unflatten(0, (B, pieces)).flatten(1, 2)[:, :T]


def append_window(cache, layer, k, v, window):
    """Put new keys and values (B, T, h_kv, d) behind those of the ``window`` tokens before them.

    Returns both, (B, window + T, h_kv, d). The cache keeps the last window tokens only: position p
    lies in slot p mod window.
    """
    if layer not in cache.layers:
        cache.layers[layer] = tuple(x.new_zeros(x.shape[0], window, *x.shape[2:]) for x in (k, v))
    before = cache.positions[:1] + torch.arange(-window, 0, device=k.device)
    kept = cache.positions[-window:]
    both = []
    for stored, new in zip(cache.layers[layer], (k, v), strict=True):
        both.append(torch.cat((stored[:, before % window], new), 1))
        stored.index_copy_(1, kept % window, new[:, -window:])
    return both


# ---- The upper half: one pair of keys and values -----------------------------------------------


class Shared:
    """Keys, values and n_keys of this forward pass, as layer L/2 made them for the upper half."""

    kept = None

    def __deepcopy__(self, memo):
        return Shared()  # what is kept belongs to one forward pass


class MiddleBlock(Block):
    """The first block of the upper half: makes the pair, then goes on with what it must."""

    def forward(self, x, rope, cache=None):
        """(B, T, D) -> (B, T, D), or (B, 1, D) where a cache says that this is generation."""
        self.attn.make_pair(self.attn_norm(x), rope, cache)
        if cache is not None:
            x = x[:, -1:]  # NEW: early exit; from here on only the last token counts
        return super().forward(x, rope, cache)


class YocoAttention(SoftmaxAttention):
    """A layer of YOCO: of the lower half, the one in the middle, or of the upper half.

    Parameters: as dense attention, but for the k_proj and v_proj that only half of the layers have.
    With a cache, the logits are those of the last new token alone.
    """

    window = 128  # tokens that a layer of the lower half sees

    @classmethod
    def blocks(cls, config):
        half = config.n_layer // 2
        blocks = [(MiddleBlock if i == half else Block)(config, i) for i in range(config.n_layer)]
        for block in blocks:
            block.attn.shared = blocks[half].attn.shared
        return blocks

    def __init__(self, config, layer_index=0):
        super().__init__(config, layer_index)
        half = config.n_layer // 2
        self.lower, self.shared = layer_index < half, Shared()
        if layer_index > half:
            self.k_proj = self.v_proj = None  # NEW

    def forward(self, x, rope, cache=None):
        if self.lower:
            q, k, v = self.qkv(x, rope)
            n_keys = None
            if cache is not None:
                k, v = append_window(cache, self.layer_index, k, v, self.window)
                n_keys = cache.length
        else:
            q, (k, v, n_keys) = self.queries(x, rope[-x.shape[1] :]), self.shared.kept
        return self.o_proj(self.mix(q, k, v, x, n_keys).flatten(2))

    def queries(self, x, rope):
        return rotate(self.q_proj(x).unflatten(-1, (-1, self.config.head_dim)), rope)

    def qkv(self, x, rope):
        if self.k_proj is not None:
            return super().qkv(x, rope)
        return self.queries(x, rope), *self.shared.kept[:2]  # NEW

    def make_pair(self, x, rope, cache=None):
        """Layer L/2 makes the keys and values of the upper half, from x (B, T, D)."""
        k, v = (p(x).unflatten(-1, (-1, self.config.head_dim)) for p in (self.k_proj, self.v_proj))
        k = rotate(k, rope)
        self.shared.kept = cache.append(self.layer_index, k, v) if cache else (k, v, None)

    def attend(self, q, k, v, n_keys=None):
        if not self.lower:
            return super().attend(q, k, v, n_keys)
        if n_keys is None:
            k, v = (F.pad(x, (0, 0, 0, 0, self.window, 0)) for x in (k, v))
        start = 0 if n_keys is None else n_keys - q.shape[1]
        return window_attention(q, k, v, self.window, start)  # NEW

    def branches(self, q, k):
        if not self.lower:
            return super().branches(q, k)
        T = q.shape[1]
        mask = window_mask(T, self.window)[:, self.window :].to(q.device)
        return block_weights(q, k, mask.expand(len(q), 1, T, T))


@register("yoco_softmax")
class YocoSoftmaxAttention(YocoAttention):
    """YOCO with softmax heads in both halves."""


@register("yoco_diff_v2")
class YocoDiffV2Attention(YocoAttention, DiffV2Attention):
    """YOCO with DIFF V2 in both halves, as its authors combine them."""

    def mix(self, q, k, v, x, n_keys=None):
        if not self.lower:
            return super().mix(q, k, v, x, n_keys)
        return differential(self.attend(q, k, v, n_keys), self.lambda_proj(x))
