"""Writing text on a GPU without ever waiting for a token: generate's loop as a CUDA graph.

The loop of generate.py launches hundreds of small kernels for a token and hands their result to
the host's next call; the GPU is idle most of that time. Here a token is fed, computed, drawn and
fed again on the device: the host replays a graph and reads the whole text at the end.
"""

import functools
import logging
import time

import torch

from minidiff.attention import CACHED, choose
from minidiff.fast.packages import why_missing
from minidiff.generate import KVCache

log = logging.getLogger("minidiff")

WRITE_FROM = 128  # new tokens; for fewer, a new machine need not compile any kernel for seconds


@torch.inference_mode()
def write(model, idx, n_new, temperature, top_k, seed, *, fused=None):
    """What generate does after its checks; None where it cannot be done here.

    Args:
        model, idx, temperature, top_k: as in generate. n_new >= 0 tokens fit the block.
        seed: a whole number. fused: whether to use step.py's kernels; None: for a long text.
    Returns:
        (B, T + n_new), or None: not on a GPU, no Triton, or (fused is None) a short text.
    """
    if not idx.is_cuda or n_new < (WRITE_FROM if fused is None else 1):
        return None
    if why := why_missing("minidiff.fast.draw"):
        _say("writing token by token: %s", why)
        return None
    from minidiff.fast.draw import draw  # needs triton

    B, device = len(idx), idx.device
    text = torch.cat((idx, idx.new_zeros(B, n_new)), dim=1)  # (B, T + n_new)
    token, cache = idx.new_empty(B, 1), KVCache(model.config.block_size, device)
    seed = torch.full((1,), seed % 2**63, dtype=torch.int64, device=device)
    with torch.cuda.device(device):
        start = time.perf_counter()
        next_token = functools.partial(
            draw, token=token, text=text, length=cache.length, seed=seed,
            temperature=temperature, top_k=top_k,
        )  # fmt: skip
        next_token(model(idx, cache=cache)[0][:, -1].contiguous())  # the prompt
        if n_new > 1:
            step = token_step(model, cache, B, fused is not False)
            graph, _ = record_graph(lambda: next_token(step(token)[:, -1]))  # runs it once, too
            if (took := time.perf_counter() - start) > 1:
                log.info("made ready to write in %.1f s; Triton keeps what it compiled", took)
            for _ in range(n_new - 2):
                graph.replay()
        torch.cuda.current_stream().synchronize()  # a graph must outlive its replays
    return text


def token_step(model, cache, batch, fused=True):
    """A function of the next tokens (B, 1): their logits (B, 1, vocab_size), through the cache.

    step.py's kernels where they are wanted and compute what the model does, else its modules.
    """
    if fused:
        if (why := why_not_fused(model, cache, batch)) is None:
            from minidiff.fast.step import FusedStep

            return FusedStep(model, cache)
        _say("writing with the model's own modules, not step.py: %s", why)
    return lambda token: model(token, cache=cache)[0]


def why_not_fused(model, cache, batch):
    """None where step.py can compute a token of each of ``batch`` sequences, else the reason."""
    if why := why_missing("minidiff.fast.step"):
        return why
    from minidiff.fast.step import why_not

    if why := why_not(model, batch):
        return why
    config, (k, v) = model.config, cache.layers[0]
    if k.dtype.itemsize > 2:
        return f"its weights are {k.dtype}, and it is for 16 bits: call model.bfloat16() first"
    q = k.new_empty(batch, 1, config.n_head, config.head_dim)
    kernel = choose(CACHED, config.backend, q, k, v)
    return None if kernel.name == "split" else f"attention is by {kernel.name}"


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


@functools.cache
def _say(message, why):
    log.info(message, why)
