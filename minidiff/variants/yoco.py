"""YOCO, "you only cache once" (arXiv 2405.05254), with DIFF V2 or softmax heads (claim 16).

Each layer of the lower half looks at the last few tokens only, a window. The first layer above it
makes keys and values, once, and all layers of the upper half query these:

    lower half    layers 0 to L/2 - 1: each keeps the keys and values of ``window`` tokens
    layer L/2     k, v = W_K norm(x), W_V norm(x), once: all that grows with the text
    upper half    layers L/2 to L - 1: queries alone, which all read these keys and values

The keys and values of the upper half come from the lower half, so no token needs what the upper
half makes of another one. To read a prompt, the upper half runs for the last token alone (early
exit): the work grows linearly with the prompt, and the cache of a long text is about L times
smaller. An odd L has its larger half above. Read MiddleBlock and YocoAttention first; the rest is
how windows are computed without a (T, T) mask.
"""

import torch
import torch.nn.functional as F

from minidiff.attention import NAIVE, SDPA, attention_weights, differential
from minidiff.model import Block, DiffV2Attention, SoftmaxAttention, register, rotate

# ---- The lower half: windows -------------------------------------------------------------------


def window_mask(n_queries, window, start=0):
    """Which keys each of T = n_queries queries sees: its own, and the window - 1 before it.

    Args:
        start: position of the first query in the text. What lies before position 0 does not exist
            and is not seen. A number, or a tensor (..., 1, 1) of several pieces of the text.
    Returns:
        (..., T, window + T) bool. The first ``window`` keys are the tokens before the queries, the
        others the queries' own.
    """
    device = start.device if torch.is_tensor(start) else None
    query = torch.arange(n_queries, device=device).unsqueeze(1)  # (T, 1), counted from the first
    key = torch.arange(-window, n_queries, device=device)  # (window + T,), on the same count
    return (key <= query) & (key > query - window) & (key + start >= 0)


def window_attention(q, k, v, window, start=0, kernel=SDPA):
    """Causal attention to the last ``window`` tokens, in time and memory linear in T.

    The queries are cut into pieces of ``window``. A piece gets its own keys and those of the piece
    before it, which is as far as its first query can see.

    Args:
        q: (B, T, H, d). k, v: (B, window + T, h_kv, d), first those of the tokens before q.
        start: position of the first query, a number or a tensor (1,): what lies before the text
            is masked.
        kernel: SDPA or NAIVE, which computes the pieces.
    Returns:
        (B, T, H, d).
    """
    B, T = q.shape[:2]
    piece = min(T, window)
    pad, pieces = -T % piece, -(-T // piece)  # so many tokens are missing in the last piece
    q, k, v = (F.pad(x, (0, 0, 0, 0, 0, pad)) for x in (q, k, v))
    q = q.unflatten(1, (pieces, piece)).flatten(0, 1)  # (B * pieces, piece, H, d)
    k, v = (  # (B * pieces, window + piece, h_kv, d): neighbours overlap by a window
        x.unfold(1, window + piece, piece).movedim(-1, 2).flatten(0, 1) for x in (k, v)
    )
    starts = start + piece * torch.arange(pieces, device=q.device)[:, None, None]  # (pieces, 1, 1)
    mask = window_mask(piece, window, starts)  # (pieces, piece, window + piece)
    mask = mask.expand(B, *mask.shape).flatten(0, 1).unsqueeze(1)
    return kernel.run(q, k, v, False, mask).unflatten(0, (B, pieces)).flatten(1, 2)[:, :T]


def append_window(cache, layer, k, v, window):
    """Put new keys and values (B, T, h_kv, d) behind those of the ``window`` tokens before them.

    Returns (k, v), each (B, window + T, h_kv, d). The cache keeps the last ``window`` tokens only:
    position p lies in slot p mod window, where position p - window lay before.
    """
    if layer not in cache.layers:
        cache.layers[layer] = tuple(x.new_zeros(x.shape[0], window, *x.shape[2:]) for x in (k, v))
    before = cache.positions[:1] + torch.arange(-window, 0, device=k.device)
    kept = cache.positions[-window:]
    joined = []
    for stored, new in zip(cache.layers[layer], (k, v), strict=True):
        joined.append(torch.cat((stored[:, before % window], new), 1))  # a copy, before we write
        stored.index_copy_(1, kept % window, new[:, -window:])
    return joined


# ---- The upper half: keys and values that all layers share -------------------------------------


class Shared:
    """Hands the keys and values of layer L/2 to the layers above: one object, which all hold.

    ``kept`` is (keys, values, n_keys) from layer L/2 to the last layer, and None after it: a whole
    cache must not outlive its forward pass. n_keys is how far a cache is filled, or None.
    """

    kept = None


class MiddleBlock(Block):
    """The first block of the upper half: makes keys and values of all tokens, then goes on."""

    def forward(self, x, rope, cache=None):
        """(B, T, D) -> (B, T, D), or (B, 1, D) where a cache says that this is generation."""
        self.attn.make_shared(self.attn_norm(x), rope, cache)
        if cache is not None:
            x = x[:, -1:]  # NEW: early exit; the next token needs the last one's logits alone
        return super().forward(x, rope, cache)


class YocoAttention(SoftmaxAttention):
    """A layer of YOCO: of the lower half, the one in the middle, or of the upper half.

    Parameters: as dense attention, but the layers above the middle have no k_proj and v_proj.
    With a cache, the logits (B, 1, vocab_size) are those of the last new token alone.
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
        self.lower, self.shared = layer_index < half, Shared()  # blocks() makes it the same for all
        if layer_index > half:
            self.k_proj = self.v_proj = None  # NEW: layer L/2 has made them

    def forward(self, x, rope, cache=None):
        if self.lower:
            q, k, v = self.qkv(x, rope)
            n_keys = None
            if cache is not None:
                k, v = append_window(cache, self.layer_index, k, v, self.span)
                n_keys = cache.length
        else:
            q = self.queries(x, rope[-x.shape[1] :])  # after the early exit x is the last token
            k, v, n_keys = self.shared.kept
            if self.layer_index == self.config.n_layer - 1:
                self.shared.kept = None
        return self.o_proj(self.mix(q, k, v, x, n_keys).flatten(2))

    @property
    def span(self):
        """The window, in a block that may be shorter."""
        return min(self.window, self.config.block_size)

    def queries(self, x, rope):
        """(B, T, H, d), rotated."""
        return rotate(self.q_proj(x).unflatten(-1, (-1, self.config.head_dim)), rope)

    def qkv(self, x, rope):
        if self.k_proj is not None:
            return super().qkv(x, rope)
        return self.queries(x, rope), *self.shared.kept[:2]  # NEW; for probes, layer by layer

    def make_shared(self, x, rope, cache=None):
        """Layer L/2 makes the keys and values of the upper half, from x (B, T, D)."""
        k, v = (p(x).unflatten(-1, (-1, self.config.head_dim)) for p in (self.k_proj, self.v_proj))
        k = rotate(k, rope)
        self.shared.kept = cache.append(self.layer_index, k, v) if cache else (k, v, None)

    def attend(self, q, k, v, n_keys=None):
        if not self.lower:
            return super().attend(q, k, v, n_keys)
        if n_keys is None:  # the whole text is here: nothing lies before it
            k, v = (F.pad(x, (0, 0, 0, 0, self.span, 0)) for x in (k, v))
        start = 0 if n_keys is None else n_keys - q.shape[1]
        kernel = NAIVE if self.config.backend == "naive" else SDPA  # no other takes a mask
        return window_attention(q, k, v, self.span, start, kernel)  # NEW

    def branches(self, q, k):
        if not self.lower:
            return super().branches(q, k)
        mask = window_mask(q.shape[1], self.span)[:, self.span :].to(q.device)  # (T, T)
        return attention_weights(q, k, mask=mask)  # NEW


@register("yoco_softmax")
class YocoSoftmaxAttention(YocoAttention):
    """YOCO with softmax heads in both halves."""


@register("yoco_diff_v2")
class YocoDiffV2Attention(YocoAttention, DiffV2Attention):
    """YOCO with DIFF V2 in both halves. Both heads of a pair see the same window."""

    def mix(self, q, k, v, x, n_keys=None):
        if not self.lower:
            return super().mix(q, k, v, x, n_keys)
        # Two steps: the kernels that do both at once know no windows.
        return differential(self.attend(q, k, v, n_keys), self.lambda_proj(x))
