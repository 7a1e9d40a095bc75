"""A GPT with Differential V2 attention, or with what it is compared with, in one file.

``GPTConfig(attention="diff_v2")`` and ``GPTConfig(attention="softmax")`` differ in one small class.
The projections have the names and shapes of the published module, so weights interchange.
This file and attention.py are the whole model, and all it takes to train one elsewhere.
"""

import dataclasses
import math

import torch
import torch.nn as nn
import torch.nn.functional as F

from .attention import PLAIN, attention, attention_weights, diff_attention, differential


@dataclasses.dataclass(frozen=True)
class GPTConfig:
    """The shape of a model. Wrong values raise a ValueError that says what to change."""

    attention: str = "diff_v2"  # a name in minidiff.model.ATTENTION: diff_v2, softmax, ...
    n_layer: int = 4  # blocks
    n_head: int = 4  # output heads h; diff_v2 uses 2h query heads for them
    n_kv_head: int = 2  # key/value heads h_kv; must divide n_head
    head_dim: int = 32  # size d of every head; even, since RoPE rotates pairs of channels
    n_embd: int = 128  # width D of the residual stream
    block_size: int = 256  # longest sequence T, the BOS token included
    vocab_size: int = 257  # 256 bytes and BOS, which is always the last token
    rope_theta: float = 10000.0  # RoPE base; larger means slower rotation
    backend: str = "auto"  # how attention is computed: auto, naive, sdpa, or one of minidiff/fast

    def __post_init__(self):
        for name in (field.name for field in dataclasses.fields(self) if field.type is int):
            value = getattr(self, name)
            if not hasattr(value, "__index__") or not 0 < value < 2**31:
                raise ValueError(f"{name}={value!r} must be a positive whole number below 2**31")
            object.__setattr__(self, name, int(value))  # NumPy's integers are no JSON
        if self.n_head % self.n_kv_head:
            raise ValueError(
                f"n_head={self.n_head} must be a multiple of n_kv_head={self.n_kv_head}: "
                "every key/value head serves equally many heads (DIFF V2: pairs of heads)"
            )
        if self.head_dim % 2:
            raise ValueError(f"head_dim={self.head_dim} must be even: RoPE rotates channel pairs")
        if not 0 < self.rope_theta < math.inf:
            raise ValueError(f"rope_theta={self.rope_theta} must be a positive finite number")
        for name, known in (("attention", ATTENTION), ("backend", PLAIN)):
            if (value := getattr(self, name)) not in known:
                raise ValueError(f"{name}={value!r} is not one of {', '.join(known)}")


def rope_table(config):
    """(block_size, 2, d/2): cosine and sine of the angle by which each channel pair is turned.

    The angle is position times frequency: the same in every layer and step, so computed once.
    """
    channel = torch.arange(0, config.head_dim, 2) / config.head_dim  # (d/2,) in [0, 1)
    angle = torch.outer(torch.arange(config.block_size), config.rope_theta**-channel)
    return torch.stack((angle.cos(), angle.sin()), dim=1)


def rotate(x, rope):
    """Turn the channel pairs (0,1), (2,3), ... of x (B, T, H, d) as rope (T, 2, d/2) says."""
    even, odd = x.unflatten(-1, (-1, 2)).unbind(-1)  # (B, T, H, d/2) each
    cos, sin = rope.unsqueeze(2).unbind(1)  # (T, 1, d/2) each, the same for all heads
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2).to(x.dtype)


ATTENTION = {}  # name -> class; minidiff/variants adds more


def register(name):
    """Class decorator: make the class available as ``GPTConfig(attention=name)``."""

    def add(cls):
        ATTENTION[name] = cls
        return cls

    return add


@register("softmax")
class SoftmaxAttention(nn.Module):
    """Causal grouped-query attention. Every variant overrides what it changes and nothing else."""

    query_heads_per_head = 1

    @classmethod
    def blocks(cls, config):  # of a whole model, which a variant may change: yoco.py, moe.py
        return [Block(config, i) for i in range(config.n_layer)]

    def __init__(self, config, layer_index=0):
        super().__init__()
        self.config, self.layer_index = config, layer_index
        D, h, d = config.n_embd, config.n_head, config.head_dim
        self.q_proj = nn.Linear(D, self.query_heads_per_head * h * d, bias=False)
        self.k_proj = nn.Linear(D, config.n_kv_head * d, bias=False)
        self.v_proj = nn.Linear(D, config.n_kv_head * d, bias=False)
        self.o_proj = nn.Linear(h * d, D, bias=False)

    def forward(self, x, rope, cache=None):
        """x (B, T, D), rope (T, 2, d/2) of these positions -> (B, T, D)."""
        q, k, v = self.qkv(x, rope)
        k, v, n_keys = cache.append(self.layer_index, k, v) if cache else (k, v, None)
        return self.o_proj(self.mix(q, k, v, x, n_keys).flatten(2))  # (B, T, h*d) -> (B, T, D)

    def qkv(self, x, rope):
        """Queries (B, T, H, d), keys and values (B, T, h_kv, d), the first two rotated."""
        d = self.config.head_dim
        q, k, v = (p(x).unflatten(-1, (-1, d)) for p in (self.q_proj, self.k_proj, self.v_proj))
        return rotate(q, rope), rotate(k, rope), v

    def mix(self, q, k, v, x, n_keys=None):
        """The output of every head before o_proj: (B, T, h, d). x is the layer's input."""
        return self.attend(q, k, v, n_keys)

    def attend(self, q, k, v, n_keys=None):
        """One attention call: over all of k and v, or over the first n_keys of a cache."""
        return attention(q, k, v, backend=self.config.backend, n_keys=n_keys)

    def branches(self, q, k):
        """The map of every query head, for looking inside: (B, H, T, S)."""
        return attention_weights(q, k)

    def weights(self, q, k, x):
        """The map that multiplies each output head's values: (B, h, T, S), for probes."""
        return self.branches(q, k)


@register("diff_v2")
class DiffV2Attention(SoftmaxAttention):
    """Differential Transformer V2: twice the query heads, and one lambda per token and head."""

    query_heads_per_head = 2  # NEW

    def __init__(self, config, layer_index=0):
        super().__init__(config, layer_index)
        self.lambda_proj = nn.Linear(config.n_embd, config.n_head, bias=False)  # NEW

    def mix(self, q, k, v, x, n_keys=None):
        """The outputs of 2h softmax heads, subtracted pair by pair."""
        lam_logit, backend = self.lambda_proj(x), self.config.backend  # NEW: (B, T, h)
        return diff_attention(q, k, v, lam_logit, backend=backend, n_keys=n_keys)  # NEW

    def weights(self, q, k, x):
        """A1 - lambda A2 (B, h, T, S): rows sum to 1 - lambda and may be negative."""
        maps = self.branches(q, k).transpose(1, 2)  # (B, T, 2h, S): keys in the place of channels
        return differential(maps, self.lambda_proj(x)).transpose(1, 2)  # NEW


class SwiGLU(nn.Module):
    """The feed-forward part: w2(silu(w1 x) * w3 x), about 8 D^2 weights (Shazeer 2020)."""

    def __init__(self, config):
        super().__init__()
        hidden = 64 * math.ceil(8 * config.n_embd / 3 / 64)  # a multiple of 64 suits the hardware
        self.w1 = nn.Linear(config.n_embd, hidden, bias=False)
        self.w3 = nn.Linear(config.n_embd, hidden, bias=False)
        self.w2 = nn.Linear(hidden, config.n_embd, bias=False)

    def forward(self, x):
        """(B, T, D) -> (B, T, D)."""
        return self.w2(F.silu(self.w1(x)) * self.w3(x))


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config, layer_index):
        super().__init__()
        self.attn_norm = nn.RMSNorm(config.n_embd, eps=1e-6)
        self.attn = ATTENTION[config.attention](config, layer_index)
        self.mlp_norm = nn.RMSNorm(config.n_embd, eps=1e-6)
        self.mlp = SwiGLU(config)

    def forward(self, x, rope, cache=None):
        """(B, T, D) -> (B, T, D)."""
        x = x + self.attn(self.attn_norm(x), rope, cache)
        return x + self.mlp(self.mlp_norm(x))


class GPT(nn.Module):
    """Tokens in, next-token logits out. The embedding matrix also makes the logits (tied)."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.embed = nn.Embedding(config.vocab_size, config.n_embd)
        self.blocks = nn.ModuleList(ATTENTION[config.attention].blocks(config))
        self.norm = nn.RMSNorm(config.n_embd, eps=1e-6)
        self.register_buffer("rope", rope_table(config), persistent=False)
        self.apply(self._init_weights)

    def _init_weights(self, module):
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, Block):  # 2 * n_layer parts add to the residual stream (GPT-2)
            for out in (module.attn.o_proj, module.mlp.w2):
                nn.init.normal_(out.weight, std=0.02 / math.sqrt(2 * self.config.n_layer))

    def forward(self, idx, targets=None, cache=None):
        """Next-token logits, and the loss when targets are given.

        Args:
            idx: (B, T) token ids. targets: (B, T) the token that follows each one, or None.
            cache: a ``generate.KVCache`` that holds the tokens before idx, or None.
        Returns:
            logits (B, T, vocab_size), and the mean cross-entropy in nats per token, or None.
        """
        if idx.shape[1] > self.config.block_size:
            raise ValueError(f"T={idx.shape[1]} is over block_size={self.config.block_size}")
        seen = slice(idx.shape[1]) if cache is None else cache.advance(idx.shape[1])
        rope = self.rope[seen]  # (T, 2, d/2): the rotations of these positions
        x = self.embed(idx)  # (B, T, D)
        for block in self.blocks:
            x = block(x, rope, cache)
        logits = F.linear(self.norm(x), self.embed.weight)  # (B, T, vocab_size)
        if targets is None:
            return logits, None
        return logits, F.cross_entropy(logits.float().flatten(0, 1), targets.flatten())

    def generate(self, idx, max_new_tokens, **settings):
        """Continue idx (B, T) by up to max_new_tokens tokens; settings as in generate.py."""
        from .generate import generate  # only here: training does without that file

        return generate(self, idx, max_new_tokens, **settings)
