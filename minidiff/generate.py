"""Writing text with a trained model: the sampling loop and the KV cache."""

import logging
import math

import torch

log = logging.getLogger("minidiff")

WRITERS = []  # minidiff/fast adds one for GPUs: the same loop, or None where it cannot run


@torch.inference_mode()
def generate(model, idx, max_new_tokens, *, temperature=1.0, top_k=None, seed=None):
    """Continue idx (B, T), whose first token should be BOS, by up to max_new_tokens tokens.

    Args:
        model: a GPT, or any module with ``config.block_size`` and ``forward(idx, cache=...)``. On
            a GPU call ``model.bfloat16()`` first: the fastest kernels are for 16 bits only.
        temperature: divides the logits; 0 takes the likeliest token.
        top_k: sample among the k likeliest tokens only.
        seed: the same call gives the same text on one machine; another length, batch or device may
            not. None draws afresh.
    Returns:
        (B, T + new). Generation stops, with a warning in the log, when block_size is full.
    Raises:
        ValueError: idx is empty or longer than block_size, or a setting makes no sense.
    """
    block_size = model.config.block_size
    if not 0 < idx.shape[1] <= block_size:
        raise ValueError(f"a prompt of {idx.shape[1]} tokens does not fit block_size={block_size}")
    finite = 0 <= temperature < math.inf  # not so of NaN
    if not finite or (top_k is not None and top_k < 1) or max_new_tokens < 0:
        raise ValueError("temperature, max_new_tokens must be finite and >= 0, top_k >= 1 or None")
    if temperature:
        temperature = max(temperature, 1e-30)  # logits over less are infinite in float32
    n_new = min(max_new_tokens, block_size - idx.shape[1])
    if n_new < max_new_tokens:
        log.warning("block_size=%d is full after %d new tokens: stopping there", block_size, n_new)
    rng = torch.Generator(idx.device)
    rng.seed() if seed is None else rng.manual_seed(seed)
    for write in WRITERS:
        text = write(model, idx, n_new, temperature, top_k, rng.initial_seed())
        if text is not None:
            return text
    decode, tokens = Decoder(model), [idx]
    for _ in range(n_new):
        logits = decode(tokens[-1])[:, -1]  # (B, vocab_size); the first call reads the prompt
        tokens.append(sample(logits, temperature, top_k, rng))  # (B, 1)
    return torch.cat(tokens, dim=1)


def sample(logits, temperature, top_k, rng):
    """One token for each row of logits: (B, vocab_size) -> (B, 1)."""
    if temperature == 0:
        return logits.argmax(-1, keepdim=True)
    logits = logits.float() / temperature
    if top_k is not None:
        worst_kept = logits.topk(min(top_k, logits.shape[-1])).values[:, -1:]  # (B, 1)
        logits = logits.masked_fill(logits < worst_kept, -math.inf)
    return torch.multinomial(logits.softmax(-1), 1, generator=rng)


class KVCache:
    """The keys and values of every layer, allocated once for block_size positions.

    The number of filled positions is a tensor on the device and every shape is constant, so that
    a CUDA graph recorded at one position is right at the next.
    """

    def __init__(self, block_size, device=None):
        self.block_size, self.layers = block_size, {}
        self.length = torch.zeros(1, dtype=torch.int32, device=device)

    def advance(self, n_new):
        """Make room for n_new tokens; returns their positions (n_new,)."""
        self.positions = self.length + torch.arange(n_new, device=self.length.device)
        self.length += n_new
        return self.positions

    def append(self, layer, k, v):
        """Store k, v (B, n_new, h_kv, d); returns the layer's whole cache and its length."""
        if layer not in self.layers:
            self.layers[layer] = tuple(
                x.new_zeros(x.shape[0], self.block_size, *x.shape[2:]) for x in (k, v)
            )
        for stored, new in zip(self.layers[layer], (k, v), strict=True):
            stored.index_copy_(1, self.positions, new)
        return *self.layers[layer], self.length


class Decoder:
    """Feeds tokens to a model through a KV cache."""

    def __init__(self, model):
        self.model = model
        self.cache = KVCache(model.config.block_size, next(model.parameters()).device)

    def __call__(self, idx):
        """The next tokens (B, T) -> their logits (B, T, vocab_size)."""
        return self.model(idx, cache=self.cache)[0]
