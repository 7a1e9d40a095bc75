"""Speed of a whole model: a token from a cache of one size, and a text by ``generate``."""

import statistics
import time
from functools import partial

import torch

from minidiff import devices
from minidiff.bench import tools
from minidiff.bench.train import SIZES
from minidiff.fast.decoder import record_graph, token_step, why_not_fused, write
from minidiff.generate import KVCache
from minidiff.model import GPT
from minidiff.variants import variant


def timed(calls, rows, config, device, *, repeats, per_call):
    """Time the calls of all (variant, way) in turn. Yields each one's (variant, seconds, row); a
    call does ``per_call`` times what the row is about."""
    times = devices.time_rounds(calls, config.rounds, repeats, device)
    times = {key: [t / per_call for t in ms] for key, ms in times.items()}
    for (name, way), ms in times.items():
        row = rows[name, way] | tools.spread("ms", ms)
        for other in ("softmax_h", "softmax_1.5h"):
            if (other, way) in times:
                row |= tools.ratios(f"vs_{other}", times, of=(name, way), to=(other, way))
        yield name, statistics.median(ms) / 1e3, row


def recorded(calls, device):
    """A function that makes all the calls, on a GPU by replaying a CUDA graph of them."""

    def all_calls():
        for call in calls:
            call()

    return record_graph(all_calls)[0].replay if device.type == "cuda" else all_calls


def dtype(device):
    """What is usual there: bfloat16 on a GPU, float32 elsewhere."""
    return torch.bfloat16 if device.type == "cuda" else torch.float32


def _model(shape, device):
    """A random model, on a GPU in bfloat16."""
    with device:
        return GPT(shape).to(dtype(device))


def whole_steps(config, device, batch, context):
    """Yield the rows of all that a model does for a token, of every variant and way."""
    cache = KVCache(context + config.repeats, device)
    size = (batch, cache.block_size, config.n_kv_head, config.head_dim)
    random = partial(torch.randn, size, device=device, dtype=dtype(device))
    layers, error = tools.attempt(lambda: [(random(), random()) for _ in range(config.n_layer)])
    if error:
        yield {"what": "step", "error": error}
        return
    cache.layers = dict(enumerate(layers))  # as if a prompt had filled it; all variants use it
    token = torch.zeros(batch, 1, dtype=torch.long, device=device)
    runs, rows, weights, steps = {}, {}, {}, []  # steps: a CUDA graph does not keep them alive
    for name in config.variants:
        model = _model(config.model(name, cache.block_size), device)
        weights[name] = sum(p.nbytes for p in model.parameters())
        for key, row in _ways(model, name, cache, batch):
            rows[key] = {"what": "step"} | row
            steps.append(partial(token_step(model, cache, batch, key[1] == "fused"), token))
            cache.length.fill_(context - 1)
            step, error = tools.attempt(partial(recorded, steps[-1:], device))
            if error:
                yield rows[key] | {"error": error}
                continue

            def run(step=step):
                cache.length.fill_(context - 1)
                for _ in range(config.repeats):
                    step()

            runs[key] = run
    filled = sum(x[:, :context].nbytes for layer in layers for x in layer)
    for name, seconds, row in timed(runs, rows, config, device, repeats=1, per_call=config.repeats):
        yield row | {
            "tokens_per_s": tools.rounded(batch / seconds),
            "gb_per_s": tools.rounded((weights[name] + filled) / seconds / 1e9),
        }


def _ways(model, name, cache, batch):
    """((variant, "fused" or "modules"), the start of a row) of every way to make a step."""
    fused = why_not_fused(model, cache, batch) is None
    for how in ("fused", "modules") if fused else ("modules",):
        row = {"variant": name, "how": how}
        yield (name, how), row | ({"kernel": how} if fused and how == "modules" else {})


def generate_speed(config, device):
    """Yield the rows of ``generate``: a text as long as the block, and its first token."""
    shape, _ = SIZES["25m" if device.type == "cuda" else "tiny"]
    n_new, runs, firsts, rows = shape.block_size - 1, {}, {}, {}
    bos = torch.zeros(1, 1, dtype=torch.long, device=device)
    prompt = bos.expand(1, min(128, shape.block_size // 2)).contiguous()
    settings = {"temperature": 0.8, "top_k": 40, "seed": 0}
    for name in config.variants:
        model, cache = _model(variant(shape, name), device), KVCache(shape.block_size, device)
        model(bos, cache=cache)
        for key, row in _ways(model, name, cache, 1):
            rows[key] = {"what": "generate", "batch": 1, "context": n_new + 1} | row
            run = partial(model.generate, bos, n_new, **settings)
            if "kernel" in row:  # not what generate would take
                run = partial(write, model, bos, n_new, **settings, fused=False)
            start = time.perf_counter()
            if error := tools.attempt(run)[1]:
                yield rows[key] | {"error": error}
                continue
            rows[key]["first_call_s"] = tools.rounded(time.perf_counter() - start, 3)
            runs[key] = run
            if "kernel" not in row:
                firsts[key] = partial(model.generate, prompt, 1, **settings)
                firsts[key]()
    for key, ms in devices.time_rounds(firsts, config.rounds, config.repeats, device).items():
        rows[key] |= {"prompt": prompt.shape[1]} | tools.spread("first_token_ms", ms)
    for _, seconds, row in timed(runs, rows, config, device, repeats=1, per_call=n_new):
        yield row | {"tokens_per_s": tools.rounded(1 / seconds)}
