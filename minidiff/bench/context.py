"""Long context: YOCO's cache, prefill and decoding step, and sparse attention, against dense ones.

python -m minidiff.bench.context --out runs/bench/context.json
"""

import statistics
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
import tyro

from minidiff import devices, theory
from minidiff.attention import attention
from minidiff.bench import tools
from minidiff.generate import Decoder
from minidiff.look.style import dots
from minidiff.model import GPT, GPTConfig
from minidiff.parsing import one_line_errors, one_line_refusals
from minidiff.train import pick_device
from minidiff.variants import VARIANTS, sparse, variant
from minidiff.variants.yoco import YocoAttention


@dataclass(frozen=True)
class ContextBench:
    """Whole models that read and continue long prompts; attention over chosen blocks alone."""

    out: str = "runs/bench/context.json"  # the results; the figure goes beside them
    device: str = "auto"  # auto (a GPU if there is one), cpu, cuda
    variants: tuple[str, ...] = ("softmax_1.5h", "diff_v2", "yoco_softmax", "yoco_diff_v2")
    contexts: tuple[int, ...] = (8192, 32768, 131072, 524288)  # tokens of the prompt
    n_layer: int = 8  # the 25M model
    n_head: int = 8  # output heads h of diff_v2
    n_kv_head: int = 2  # key/value heads h_kv
    head_dim: int = 64  # size d of every head
    n_embd: int = 512  # width D
    lengths: tuple[int, ...] = (8192, 16384, 32768, 65536)  # T of attention over blocks, B = 1
    block: int = 128  # keys in a block
    top_k: int = 16  # blocks that a query sees
    rounds: int = 5  # a number is the median of so many
    repeats: int = 20  # tokens in a row in each round of decoding

    CPU: ClassVar = {
        "contexts": (64, 256), "n_layer": 2, "n_head": 4, "head_dim": 8, "n_embd": 32,
        "lengths": (256,), "block": 32, "top_k": 2, "rounds": 2, "repeats": 2,
    }  # fmt: skip


def context(config=None):
    """Time long contexts. Returns what the JSON file holds.

    Rows by "what", all at batch 1: "prefill", reading a prompt of T tokens (YOCO with its early
    exit; the others as one forward pass without a cache, which spares them the writes); "step", a
    token after T others, by generate.Decoder, with the bytes that its cache holds; "blocks", the
    attention of one layer with 2h query heads, forward and, as "ms_grad", forward and backward.
    There, "keys" says what the queries are: "random" ones choose differently, so that almost every
    tile is loaded, the worst case; "agree", those of a tile are alike, the best. tiles is the share
    of causal tiles that is loaded; "choose" is the choice alone.
    """
    config = config or tools.defaults(ContextBench)
    tools.check_names("variant", config.variants, VARIANTS)
    device = pick_device(config.device)
    columns = ("what:8 variant:13 keys:7 T:7 ms:9 ms_low:9 ms_high:9 ms_grad:9 tiles:6 "
               "cache_mb:9 peak_gb:8")  # fmt: skip
    report = tools.Report(config, device, columns.split(), context.__doc__)
    for T in config.contexts:
        for name in config.variants:
            for row in _whole_model(config, device, name, T):
                report.add({"variant": name, "T": T} | row)
    for T in config.lengths:
        for row in _blocks(config, device, T):
            report.add({"what": "blocks", "T": T} | row)
    return report.finish(_draw)


# ---- Whole models ------------------------------------------------------------------------------


@torch.inference_mode()
def _whole_model(config, device, name, T):
    shape = GPTConfig(
        n_layer=config.n_layer, n_head=config.n_head, n_kv_head=config.n_kv_head,
        head_dim=config.head_dim, n_embd=config.n_embd, block_size=T + config.repeats + 1,
    )  # fmt: skip
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    with device:
        model = GPT(variant(shape, name)).to(dtype)
    idx, yoco = torch.zeros(1, T, dtype=torch.long, device=device), name.startswith("yoco")

    def prefill():
        return Decoder(model)(idx) if yoco else model(idx)

    row = {"what": "prefill"}
    if error := tools.attempt(prefill)[1]:
        yield row | {"error": error}
    else:
        times = devices.time_rounds({name: prefill}, config.rounds, 1, device)[name]
        peak = {"peak_gb": tools.peak_gb(prefill)} if device.type == "cuda" else {}
        yield row | tools.spread("ms", times) | peak
    yield {"what": "step"} | _step(config, device, model, T)


def _step(config, device, model, T):
    decoder, token = Decoder(model), torch.zeros(1, 1, dtype=torch.long, device=device)
    _, error = tools.attempt(partial(decoder, token))  # allocates the cache
    if error:
        return {"error": error}
    kept = [x for pair in decoder.cache.layers.values() for x in pair]
    for x in kept:
        x.normal_()  # as if a prompt had filled it
    size = sum(x.nbytes for x in kept)
    c = model.config
    window = YocoAttention.window if c.attention.startswith("yoco") else None
    expected = theory.kv_cache_bytes(
        c.block_size, c.n_layer, c.n_kv_head, c.head_dim, kept[0].itemsize, window=window
    )
    if size != expected:
        raise AssertionError(f"the cache holds {size} bytes, theory.py says {expected}")

    def run():
        decoder.cache.length.fill_(T)
        for _ in range(config.repeats):
            decoder(token)

    run()
    times = devices.time_rounds({"step": run}, config.rounds, 1, device)["step"]
    return tools.spread("ms", [t / config.repeats for t in times]) | {"cache_mb": size / 1e6}


# ---- Attention over chosen blocks --------------------------------------------------------------


def _blocks(config, device, T):
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    torch.manual_seed(0)
    h, h_kv, d = config.n_head, config.n_kv_head, config.head_dim
    random = partial(torch.randn, device=device, dtype=dtype)
    k, v, position = random(1, T, h_kv, d), random(1, T, h_kv, d), torch.arange(T, device=device)
    each = random(1, T, 2 * h, d)
    alike = random(1, -(-T // sparse.TILE), 2 * h, d).repeat_interleave(sparse.TILE, 1)[:, :T]
    kernel = sparse._flex if device.type == "cuda" else sparse._masked
    yield from _timed(config, {"variant": "dense"}, attention, each, k, v)
    for keys, q in (("random", each), ("agree", alike.contiguous())):
        for share in ("head", "pair", "group"):
            row = {"variant": f"sparse_{share}", "keys": keys}
            choose = partial(
                sparse.choose_blocks, q, k, position,
                block=config.block, top_k=config.top_k, share=share,
            )  # fmt: skip
            chosen, error = tools.attempt(choose)
            if error:
                yield row | {"error": error}
                continue
            tiles = sparse.tiles_of(chosen, config.block)
            row["tiles"] = tools.rounded((tiles.sum() / torch.ones_like(tiles).tril().sum()).item())
            times = devices.time_rounds({"choose": choose}, config.rounds, 1, device)["choose"]
            yield row | {"what": "choose"} | tools.spread("ms", times)
            attend = partial(kernel, chosen=chosen, position=position, block=config.block)
            yield from _timed(config, row, attend, q, k, v)


def _timed(config, row, attend, q, k, v):
    """The row with the times of attend(q, k, v), forward, and forward and backward."""
    inputs, grad = [x.detach().requires_grad_() for x in (q, k, v)], torch.randn_like(q)

    def forward():
        with torch.no_grad():
            return attend(*inputs)

    def both():
        torch.autograd.grad(attend(*inputs), inputs, grad)

    for call in (forward, both):  # the first call compiles
        if error := tools.attempt(call)[1]:
            yield row | {"error": error}
            return
    times = devices.time_rounds({"ms": forward, "ms_grad": both}, config.rounds, 1, q.device)
    yield (
        row
        | tools.spread("ms", times["ms"])
        | {"ms_grad": tools.rounded(statistics.median(times["ms_grad"]))}
    )


def _draw(rows, plt, colour):
    """Prefill, step, cache and attention over blocks against the number of tokens T."""
    panels = (
        ("prefill", "ms", "reading the prompt, ms"),
        ("step", "ms", "one more token, ms"),
        ("step", "cache_mb", "KV cache, MB"),
        ("blocks", "ms_grad", "attention, forward + backward, ms"),
    )
    figure, axes = plt.subplots(2, 2, figsize=(15, 11))
    for ax, (what, column, title) in zip(axes.flat, panels, strict=True):
        found = [row for row in rows if row["what"] == what and column in row]
        lines = dict.fromkeys((row["variant"], row.get("keys", "")) for row in found)
        for i, (name, keys) in enumerate(lines):
            points = [row for row in found if (row["variant"], row.get("keys", "")) == (name, keys)]
            T, values = zip(*((row["T"], row[column]) for row in points), strict=True)
            width = 8 - 5 * i / len(lines)  # what lies under another line is wider
            style = {"linestyle": ":" if keys == "random" else "-", "linewidth": width}
            style |= {"color": colour(name), "marker": dots(name)["marker"]}
            ax.plot(T, values, label=f"{name} {keys}".strip(), **style)
        ax.set(xscale="log", yscale="linear" if title.startswith("one") else "log", title=title)
        lengths = sorted({row["T"] for row in found})
        ax.set_xticks(lengths, [f"{T // 1024}k" if T >= 1024 else str(T) for T in lengths])
        ax.minorticks_off()
        ax.set_xlabel("tokens")
        if ax.get_yscale() == "linear":
            ax.set_ylim(bottom=0)
        if lines:
            ax.legend(fontsize=11, handlelength=3)
    return figure


if __name__ == "__main__":
    with one_line_errors():
        with one_line_refusals():
            bench = tyro.cli(ContextBench, default=tools.defaults(ContextBench))
        context(bench)
