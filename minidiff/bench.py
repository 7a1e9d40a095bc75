"""Speed and memory of attention operations (``ops``) and of training steps (``train``).

Decoding is in bench_decode.py. Each benchmark takes a config, prints and writes every row as soon
as it is measured, and ends with a figure. Every number is the median over the rounds; the names
that end in ``_low`` and ``_high`` hold the extremes.
"""

import dataclasses
import math
import statistics
import time
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch

from minidiff import bench_tools as tools
from minidiff import theory
from minidiff.attention import attention, differential
from minidiff.backends import BACKENDS, choose_backend
from minidiff.bench_figures import draw_ops, draw_train
from minidiff.model import GPT, GPTConfig
from minidiff.train import TrainConfig, make_optimizer, pick_device, training_step
from minidiff.variants import VARIANTS, variant

# ---- Operations --------------------------------------------------------------------------------


@dataclass(frozen=True)
class OpsBench:
    """Forward and backward of attention alone: softmax and DIFF V2, in every backend."""

    out: str = "runs/bench/ops.json"  # the results; the figure goes beside them
    device: str = "auto"  # auto (a GPU if there is one), cpu, cuda
    backends: tuple[str, ...] = ("naive", "sdpa", "flash2", "flash4")  # what is compared
    # heads h, key/value heads h_kv and head size d of each case
    shapes: tuple[tuple[int, int, int], ...] = (
        (16, 4, 64), (16, 4, 128), (8, 2, 64), (8, 4, 32),
    )  # fmt: skip
    lengths: tuple[int, ...] = (1024, 4096)  # T
    tokens: int = 32768  # B * T, the same for every length
    compile: bool = True  # also time the differential step under torch.compile
    rounds: int = 7  # a number is the median of so many
    repeats: int = 3  # calls in a row in each round
    naive_gb: float = 6.0  # the largest attention maps that the naive backend is asked to store
    memory_lengths: tuple[int, ...] = (1024, 2048, 4096, 8192, 16384, 32768, 65536)  # T, at B = 1

    CPU: ClassVar = {
        "backends": ("naive", "sdpa"), "shapes": ((4, 2, 16),), "lengths": (64, 128),
        "tokens": 256, "compile": False, "rounds": 3, "memory_lengths": (),
    }  # fmt: skip


OPS = {  # name: (query heads for each output head, the step that follows attention)
    "softmax_h": (1, None),
    "softmax_2h": (2, None),
    "diff_v2": (2, "eager"),
    "diff_v2_compiled": (2, "compiled"),
}


def ops(config=None):
    """Time operations, and measure their peak memory against T. Returns what the JSON file holds.

    A row is a time ("ms", "tflops"), the peak memory of "diff_v2" at one T ("peak_gb"), or the
    power of T with which that grows ("exponent"). TFLOP/s count what the formula needs, 6 T d for
    each token and query head (the causal half), not what a kernel computes twice.
    """
    config = config or tools.defaults(OpsBench)
    tools.check_names("backend", config.backends, BACKENDS)
    device = pick_device(config.device)
    columns = ("op:16 backend:7 h:3 h_kv:4 d:4 B:4 T:6 ms:8 ms_low:8 ms_high:8 tflops:7 peak_gb:8 "
               "exponent:8")  # fmt: skip
    report = tools.Report(config, device, columns.split(), ops.__doc__)
    for shape in config.shapes:
        for T in config.lengths:
            torch.compiler.reset()  # or the second shape gets a kernel that fits any shape
            for row in _time_operations(config, device, shape, T):
                report.add(row)
    if device.type == "cuda":  # PyTorch does not count a CPU's memory
        for backend in config.backends:
            for row in _memory_against_length(config, device, backend):
                report.add(row)
    return report.finish(draw_ops)


def _operation(device, B, T, shape, backend, query_heads=2, step=None):
    """A function that runs attention, the step and the backward of both, on random inputs."""
    (h, h_kv, d), dtype = shape, torch.bfloat16 if device.type == "cuda" else torch.float32
    torch.manual_seed(0)
    heads_and_size = ((query_heads * h, d), (h_kv, d), (h_kv, d), (h,))
    q, k, v, lam_logit = inputs = [
        torch.randn(B, T, *size, device=device, dtype=dtype, requires_grad=True)
        for size in heads_and_size
    ]
    grad = torch.randn(B, T, h if step else query_heads * h, d, device=device, dtype=dtype)

    def call():
        out = attention(q, k, v, backend=backend)
        if step:
            torch.autograd.grad(step(out, lam_logit), inputs, grad)
        else:
            torch.autograd.grad(out, inputs[:3], grad)

    return call


def _time_operations(config, device, shape, T):
    h, h_kv, d = shape
    B = max(1, config.tokens // T)
    steps = {None: None, "eager": differential, "compiled": torch.compile(differential)}
    calls, rows = {}, {}
    for backend in config.backends:
        if backend == "naive" and 4 * B * 2 * h * T * T > config.naive_gb * 1e9:
            continue  # 2h maps of T * T float32 numbers
        for op, (query_heads, step) in OPS.items():
            if step == "compiled" and not config.compile:
                continue
            row = {"op": op, "backend": backend, "h": h, "h_kv": h_kv, "d": d, "B": B, "T": T}
            call = _operation(device, B, T, shape, backend, query_heads, steps[step])
            if error := tools.attempt(call)[1]:
                yield row | {"error": error}
            else:
                calls[op, backend], rows[op, backend] = call, row
    for key, ms in tools.time_rounds(calls, config.rounds, config.repeats, device).items():
        per_token = theory.train_flops_per_token(0, 1, OPS[key[0]][0] * h, d, T)
        tflops = per_token * B * T / statistics.median(ms) / 1e9
        yield rows[key] | tools.spread("ms", ms) | {"tflops": tools.rounded(tflops)}


def _memory_against_length(config, device, backend):
    shape, points = config.shapes[0], []
    row = {"op": "diff_v2", "backend": backend, "h": shape[0], "h_kv": shape[1], "d": shape[2]}
    for T in config.memory_lengths:
        call = _operation(device, 1, T, shape, backend, step=differential)
        if error := tools.attempt(call)[1]:
            yield row | {"B": 1, "T": T, "error": error}
            break  # what is longer will not fit either
        gigabytes = tools.peak_gb(call)
        points.append((math.log(T), math.log(gigabytes)))
        yield row | {"B": 1, "T": T, "peak_gb": gigabytes}
    if len(points) > 1:
        slope = statistics.linear_regression(*zip(*points, strict=True)).slope
        yield row | {"exponent": tools.rounded(slope, 3)}


# ---- Training steps ----------------------------------------------------------------------------

SIZES = {  # name: (the model of DIFF V2, sequences in a step)
    "tiny": (GPTConfig(n_layer=2, n_head=4, n_kv_head=2, head_dim=8, n_embd=32, block_size=32), 2),
    "25m": (GPTConfig(n_layer=8, n_head=8, n_kv_head=2, head_dim=64, n_embd=512,
                      block_size=1024), 64),
    "350m": (GPTConfig(n_layer=24, n_head=16, n_kv_head=4, head_dim=64, n_embd=1024,
                       block_size=2048), 16),
    "1b_layers": (GPTConfig(n_layer=5, n_head=16, n_kv_head=4, head_dim=128, n_embd=2048,
                            block_size=4096), 4),  # as wide as a 1B model, but not as deep
}  # fmt: skip


@dataclass(frozen=True)
class TrainBench:
    """Whole training steps of DIFF V2 and of what it is compared with, interleaved."""

    out: str = "runs/bench/train.json"  # the results; the figure goes beside them
    device: str = "auto"  # auto (a GPU if there is one), cpu, cuda
    sizes: tuple[str, ...] = ("25m", "350m", "1b_layers")  # names in bench.py: SIZES
    # names in variants.py, and "published": DIFF V2 by flash-attn 2 with nothing compiled
    variants: tuple[str, ...] = (
        "softmax_1.5h", "diff_v2", "published", "softmax_h", "softmax_2h", "diff_v1",
    )  # fmt: skip
    backend: str = "auto"  # how all but "published" compute attention
    compile: str = "blocks"  # blocks, model or none
    rounds: int = 7  # a number is the median of so many
    steps: int = 4  # training steps in a row in each round
    peak_tflops: float | None = None  # dense bf16 peak; None: 989 on an H100 or H200, else no MFU
    profile: bool = False  # also list the kernels of every variant by time

    CPU: ClassVar = {"sizes": ("tiny",), "compile": "none", "steps": 1, "rounds": 3}


def train(config=None):
    """Time training steps: forward, backward, clipping, AdamW. Returns what the JSON file holds.

    Autocast to bfloat16 on a GPU. The batch is random and lies on the device: no data are read.
    Operations are those of theory.train_flops_per_token: 6 for every weight of a matmul, the tied
    output embedding included, and attention over the causal half. MFU is their rate over the dense
    bf16 peak. peak_gb: weights, gradients, AdamW's state and activations. Ratios are of tokens/s.
    """
    config = config or tools.defaults(TrainBench)
    tools.check_names("size", config.sizes, SIZES)
    tools.check_names("variant", config.variants, [*VARIANTS, "published"])
    tools.check_names("compile", [config.compile], ["blocks", "model", "none"])
    device = pick_device(config.device)
    columns = ("size:9 variant:12 backend:7 compile:7 ms:8 tokens_per_s:12 tflops:7 mfu:6 "
               "peak_gb:7 vs_softmax_1.5h:15 vs_published:12 warm_up_s:9")  # fmt: skip
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
        times = tools.time_rounds(steps, config.rounds, config.steps, device)
        for name, ms in times.items():
            row = rows[name] | tools.spread("ms", ms) | _speed(config, device, rows[name], ms)
            for other in ("softmax_1.5h", "published"):
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
    (shape, batch), published = SIZES[size], name == "published"
    shape = variant(shape, "diff_v2" if published else name)
    backend = "flash2" if published and device.type == "cuda" else config.backend
    how = "none" if published else config.compile
    baseline = torch.cuda.memory_allocated() if device.type == "cuda" else None
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    torch.manual_seed(0)
    with device:
        model = GPT(dataclasses.replace(shape, backend=backend))
    optimizer = make_optimizer(model, TrainConfig(lr=3e-4))
    if how == "blocks":
        for block in model.blocks:
            block.compile()
    forward = torch.compile(model) if how == "model" else model
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
        "backend": choose_backend(backend, device, dtype, shape.head_dim),
        "params": sum(p.numel() for p in model.parameters()),
        "flops_per_token": flops_per_token(model), "tokens_per_step": batch * shape.block_size,
    }  # fmt: skip


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


def kernel_times(step, device, limit=80):
    """Lines "ms share calls kernel" of one step, by time on the device, largest first."""
    kind = "cuda" if device.type == "cuda" else "cpu"
    activity = torch.profiler.ProfilerActivity
    with torch.profiler.profile(activities=[getattr(activity, kind.upper())]) as profiler:
        step()
        if kind == "cuda":
            torch.cuda.synchronize()
    field = "self_device_time_total" if kind == "cuda" else "self_cpu_time_total"
    found = [(getattr(event, field), event.count, event.key) for event in profiler.key_averages()]
    total = sum(time for time, _, _ in found)
    top = sorted(found, reverse=True)[:limit]
    return [f"{t / 1e3:8.3f} ms {t / total:6.1%} {n:5d}x {name[:110]}" for t, n, name in top]
