"""Speed of whole training steps: tokens/s, operations/s, memory, and the kernels behind them."""

import dataclasses
import statistics
import time
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch

from minidiff import devices, theory
from minidiff.attention import PAIR, PLAIN, Kernel, choose
from minidiff.bench import tools
from minidiff.bench.figures import draw_train
from minidiff.devices import compile_now, pick_device
from minidiff.model import GPT, GPTConfig
from minidiff.train import PRESETS, TrainConfig, make_optimizer, training_step
from minidiff.variants import VARIANTS, variant

SIZES = {  # name: (the model of DIFF V2, sequences in a step)
    "tiny": (GPTConfig(n_layer=2, n_head=4, n_kv_head=2, head_dim=8, n_embd=32, block_size=32), 2),
    "25m": (PRESETS["gpu"].model, PRESETS["gpu"].batch_size),
    "350m": (GPTConfig(n_layer=24, n_head=16, n_kv_head=4, head_dim=64, n_embd=1024,
                       block_size=2048), 16),
    "1b_layers": (GPTConfig(n_layer=5, n_head=16, n_kv_head=4, head_dim=128, n_embd=2048,
                            block_size=4096), 4),  # as wide as a 1B model, but not as deep
}  # fmt: skip


OTHER_WAYS = {  # name: its variant
    "two_steps": "diff_v2",
    "pair": "diff_v2",
    "published": "diff_v2",
    "one_by_one": "softmax_1.5h",
}


@dataclass(frozen=True)
class TrainBench:
    """Whole training steps of DIFF V2 and of what it is compared with, interleaved."""

    out: str = "runs/bench/train.json"  # the results; the figure goes beside them
    device: str = "auto"  # auto (a GPU if there is one), cpu, cuda
    sizes: tuple[str, ...] = ("25m", "350m", "1b_layers")  # names in bench/train.py: SIZES
    # names in variants; DIFF V2 in other ways: by the kernel for a "pair", in "two_steps" without
    # it, and as "published", by flash-attn 2 with nothing compiled; and softmax_1.5h with heads
    # "one_by_one" by the same code as the pair
    variants: tuple[str, ...] = (
        "softmax_1.5h", "diff_v2", "pair", "two_steps", "one_by_one", "published", "softmax_h",
        "softmax_2h", "diff_v1",
    )  # fmt: skip
    backend: str = "auto"  # how all but "published" compute attention
    compile: str = "blocks"  # blocks, model or none
    rounds: int = 7  # a number is the median of so many
    steps: int = 4  # training steps in a row in each round
    peak_tflops: float | None = None  # dense bf16 peak; None: 989 on an H100 or H200, else no MFU
    profile: bool = False  # also list the kernels of every variant by time

    CPU: ClassVar = {
        "sizes": ("tiny",),
        "compile": "none",
        "steps": 1,
        "rounds": 3,
        "variants": ("softmax_1.5h", "diff_v2", "two_steps", "published", "softmax_h", "diff_v1"),
    }  # without what needs Triton


def train(config=None):
    """Time training steps: forward, backward, clipping, AdamW. Returns what the JSON file holds.

    Autocast to bfloat16 on a GPU. The batch is random and lies on the device: no data are read.
    Operations are those of theory.train_flops_per_token: 6 for every weight of a matmul, the tied
    output embedding included, and attention over the causal half. MFU is their rate over the dense
    bf16 peak. peak_gb: weights, gradients, AdamW's state and activations. Ratios are of tokens/s.
    """
    config = config or tools.defaults(TrainBench)
    tools.check_names("size", config.sizes, SIZES)
    tools.check_names("variant", config.variants, [*VARIANTS, *OTHER_WAYS])
    if other := [n for n in config.variants if n.startswith(("moe_", "sparse_", "yoco_"))]:
        why = "operations are counted for dense attention and one MLP alone; leave it out"
        raise ValueError(f"variant {other[0]!r}: {why}")
    tools.check_names("compile", [config.compile], ["blocks", "model", "none"])
    if config.steps < 1:
        raise ValueError("--steps must be at least 1")
    device = pick_device(config.device)
    columns = ("size:9 variant:12 backend:7 compile:7 ms:8 tokens_per_s:12 tflops:7 mfu:6 "
               "peak_gb:7 vs_softmax_1.5h:15 vs_one_by_one:13 vs_published:12")  # fmt: skip
    report = tools.Report(config, device, columns.split(), train.__doc__)
    for size in config.sizes:
        torch.compiler.reset()  # or the second size gets kernels that fit any size
        steps, rows = {}, {}
        for name in config.variants:
            built, error = tools.attempt(partial(_prepare, config, device, size, name))
            if error:
                report.add({"size": size, "variant": name, "error": error})
            else:
                steps[name], rows[name] = built
        for name in list(steps):  # does each still fit, now that all models are there?
            if error := tools.attempt(steps[name])[1]:
                del steps[name]
                report.add({"size": size, "variant": name, "error": error})
        times = devices.time_rounds(steps, config.rounds, config.steps, device)
        for name, ms in times.items():
            row = rows[name] | tools.spread("ms", ms) | _speed(config, device, rows[name], ms)
            for other in ("softmax_1.5h", "one_by_one", "published"):
                if other in times:  # tokens/s of this one over those of the other
                    row |= tools.ratios(f"vs_{other}", times, of=other, to=name)
            report.add(row)
        if config.profile:
            found = {name: kernel_times(step, device) for name, step in steps.items()}
            report.data.setdefault("profile", {})[size] = found
            report.write()
            for name, lines in found.items():
                print(f"{size} {name}", *lines[:15], sep="\n")
    return report.finish(draw_train)


def _prepare(config, device, size, name):
    """Build and warm up a model: (a function that makes one training step, facts for its row)."""
    shape, batch = SIZES[size]
    shape = variant(shape, OTHER_WAYS.get(name, name))
    backend, how = _way(config, device, name, shape)
    baseline = torch.cuda.memory_allocated() if device.type == "cuda" else None
    torch.manual_seed(0)
    with device:
        model = GPT(dataclasses.replace(shape, backend=backend))
    optimizer = make_optimizer(model, TrainConfig(lr=3e-4))
    forward = compile_now(model, how)
    tokens = torch.randint(shape.vocab_size, (batch, shape.block_size + 1), device=device)

    def step():
        training_step(forward, optimizer, [tokens[:, :-1]], [tokens[:, 1:]], grad_clip=1.0)

    start = time.perf_counter()
    step()
    row = {"warm_up_s": tools.rounded(time.perf_counter() - start, 3)}
    step()
    if device.type == "cuda":
        row["peak_gb"] = tools.peak_gb(step, baseline)
    return step, row | {
        "size": size, "variant": name, "compile": how,
        "backend": _kernel(PAIR if shape.attention == "diff_v2" else PLAIN, backend, device, shape),
        "params": sum(p.numel() for p in model.parameters()),
        "flops_per_token": flops_per_token(model), "tokens_per_step": batch * shape.block_size,
    }  # fmt: skip


def _way(config, device, name, shape):
    """(backend, how to compile) of a variant."""
    if name == "published":
        return ("flash2" if device.type == "cuda" else config.backend), "none"
    if name == "two_steps":
        return _kernel(PLAIN, config.backend, device, shape), config.compile
    if name == "one_by_one":
        PLAIN.setdefault(name, [Kernel(name, _one_by_one)])  # only here: it is for timing
    return (name if name in ("pair", "one_by_one") else config.backend), config.compile


def _one_by_one(q, k, v, causal):
    from minidiff.bench.one_by_one import softmax_attention  # needs triton

    return softmax_attention(q, k, v, causal)


def _kernel(operation, backend, device, shape):
    """The name of the kernel that computes attention in training."""
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    q = torch.empty(1, 1, 1, shape.head_dim, device=device, dtype=dtype)
    return (choose(operation, backend, q, q, q) or choose(PLAIN, backend, q, q, q)).name


def flops_per_token(model):
    """Operations of forward and backward for one token of a GPT, as :func:`train` counts them."""
    c, matmul_weights = model.config, sum(p.numel() for p in model.parameters() if p.dim() == 2)
    return theory.train_flops_per_token(
        matmul_weights, c.n_layer, tools.counted_heads(c), c.head_dim, c.block_size
    )


def _speed(config, device, row, ms):
    """Tokens/s, TFLOP/s and MFU of steps that took so many milliseconds, by their median."""
    known = device.type == "cuda" and any(
        name in torch.cuda.get_device_name(device) for name in ("H100", "H200")
    )
    peak = config.peak_tflops or (989.0 if known else None)
    per_second = 1e3 * row["tokens_per_step"] / statistics.median(ms)
    tflops = per_second * row["flops_per_token"] / 1e12
    mfu = tools.rounded(tflops / peak) if peak else None
    return {"tokens_per_s": tools.rounded(per_second), "tflops": tools.rounded(tflops), "mfu": mfu}


def kernel_times(step, device, limit=80, steps=4, run_in_s=2.0):
    """Lines "ms share calls kernel" of one step, by time on the device, largest first.

    The mean of some steps in a row. Others come before: after seconds of work a GPU reaches its
    power limit and lowers its clock, and a step alone looks faster than those of a training run.
    """
    kind = "cuda" if device.type == "cuda" else "cpu"
    start = time.perf_counter()
    while kind == "cuda" and time.perf_counter() - start < run_in_s:
        step()
        torch.cuda.synchronize()
    activity = torch.profiler.ProfilerActivity
    with torch.profiler.profile(activities=[getattr(activity, kind.upper())]) as profiler:
        for _ in range(steps):
            step()
        if kind == "cuda":
            torch.cuda.synchronize()
    field = f"self_{'device' if kind == 'cuda' else 'cpu'}_time_total"
    found = [
        (getattr(event, field) / steps, round(event.count / steps), event.key)
        for event in profiler.key_averages()
    ]
    total = sum(time for time, _, _ in found)
    top = sorted(found, reverse=True)[:limit]
    return [f"{t / 1e3:8.3f} ms {t / total:6.1%} {n:5d}x {name[:110]}" for t, n, name in top]
