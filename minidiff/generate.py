"""Writing text with a trained model: the sampling loop, the KV cache, the CUDA graph."""

import functools
import logging
import math

import torch

log = logging.getLogger("minidiff")


@torch.inference_mode()
def generate(model, idx, max_new_tokens, *, temperature=1.0, top_k=None, seed=None):
    """Continue idx (B, T), whose first token should be BOS, by up to max_new_tokens tokens.

    Args:
        model: a GPT, or any module with ``config.block_size`` and ``forward(idx, cache=...)``.
        temperature: divides the logits; 0 takes the likeliest token.
        top_k: sample among the k likeliest tokens only.
        seed: makes the draw repeatable on one machine; None draws afresh.
    Returns:
        (B, T + new). Generation stops, with a warning in the log, when block_size is full.
    Raises:
        ValueError: idx is empty or longer than block_size, or a setting makes no sense.
    """
    block_size = model.config.block_size
    if not 0 < idx.shape[1] <= block_size:
        raise ValueError(f"a prompt of {idx.shape[1]} tokens does not fit block_size={block_size}")
    if temperature < 0 or (top_k is not None and top_k < 1) or max_new_tokens < 0:
        raise ValueError("temperature and max_new_tokens must be >= 0, and top_k >= 1 or None")
    n_new = min(max_new_tokens, block_size - idx.shape[1])
    if n_new < max_new_tokens:
        log.warning("block_size=%d is full after %d new tokens: stopping there", block_size, n_new)
    rng = torch.Generator(idx.device)
    rng.seed() if seed is None else rng.manual_seed(seed)
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
    """Feeds tokens to a model through a KV cache; on a GPU, single tokens replay a CUDA graph.

    A small model spends its time launching hundreds of tiny kernels one by one; a graph launches
    them all at once.
    """

    def __init__(self, model):
        device = next(model.parameters()).device
        self.model, self.graph = model, None
        self.cache = KVCache(model.config.block_size, device)

    def __call__(self, idx):
        """The next tokens (B, T) -> their logits (B, T, vocab_size)."""
        if not idx.is_cuda or idx.shape[1] > 1:
            return self.model(idx, cache=self.cache)[0]
        if self.graph is None:
            self._record(idx)
        self.token.copy_(idx)
        self.graph.replay()
        return self.logits

    def _record(self, idx):
        self.token, length = idx.clone(), self.cache.length.clone()
        step = functools.partial(self.model, self.token, cache=self.cache)
        self.graph, (self.logits, _) = record_graph(step)
        self.cache.length.copy_(length)  # undo the warm-up; its keys will be written again


def record_graph(call):
    """Run call() once, then record it: (a CUDA graph to replay, what the replays write to)."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # one ordinary run: libraries allocate and choose kernels
        call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):  # nothing runs here
        result = call()
    return graph, result
