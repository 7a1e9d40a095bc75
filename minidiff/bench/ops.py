"""Speed of attention alone, forward and backward, and its memory against T."""

import math
import statistics
from dataclasses import dataclass
from typing import ClassVar

import torch

from minidiff import devices, theory
from minidiff.attention import PLAIN, attention, differential
from minidiff.bench import tools
from minidiff.bench.figures import draw_ops
from minidiff.train import pick_device


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
    tools.check_names("backend", config.backends, PLAIN)
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
    for key, ms in devices.time_rounds(calls, config.rounds, config.repeats, device).items():
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
