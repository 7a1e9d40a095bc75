"""Speed and memory of attention operations and of training steps, measured on this machine.

``ops`` and ``train`` (and ``bench_decode.decode``) take a config, print and write each row as soon
as it is measured, and end with a figure beside the JSON file. What is compared is timed in turn,
round by round, so that a drift of the GPU's clock meets all of it alike. Every number is a median
over the rounds; ``_low`` and ``_high`` after its name are the extremes.
"""

import datetime
import gc
import importlib
import importlib.metadata
import json
import math
import platform
import shlex
import statistics
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import ClassVar

import torch

from minidiff import theory
from minidiff.attention import attention, differential
from minidiff.backends import choose_backend
from minidiff.model import ATTENTION, GPT, GPTConfig
from minidiff.runs import replace_file
from minidiff.train import TrainConfig, make_optimizer, pick_device, training_step
from minidiff.variants import variant

# ---- Shared by all three benchmarks ------------------------------------------------------------


def defaults(bench):
    """The settings of OpsBench, TrainBench or DecodeBench that suit this machine."""
    return bench() if torch.cuda.is_available() else bench(**bench.CPU)


class Report:
    """Rows of one benchmark. Every row is printed and written at once, so that none gets lost."""

    def __init__(self, config, device, columns, notes):
        self.path, self.columns = Path(config.out), columns
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.data = {
            "command": shlex.join(["python", *sys.orig_argv[1:]]),
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "machine": machine(device),
            "config": asdict(config),
            "notes": notes,
            "rows": [],
        }
        self.write()
        print(*(f"{name:>{width}}" for name, width in columns.items()))

    def add(self, row):
        """Print one row, in columns, and write the file with it."""
        self.data["rows"].append(row)
        self.write()
        cells = []
        for name, width in self.columns.items():
            value = row.get(name, "")
            cells.append(f"{f'{value:.4g}' if isinstance(value, float) else str(value):>{width}}")
        print(*cells, row.get("error", ""), flush=True)

    def write(self):
        """Replace the JSON file in one step."""
        text = json.dumps(self.data, indent=1) + "\n"
        replace_file(self.path, lambda path: path.write_text(text))

    def finish(self, draw):
        """Save the figure ``draw(data)`` beside the JSON file; returns the data."""
        import matplotlib.pyplot as plt

        figure = draw(self.data)
        figure.savefig(self.path.with_suffix(".png"), dpi=120)
        plt.close(figure)
        print(f"{self.path} and {self.path.with_suffix('.png').name}")
        return self.data


def machine(device):
    """What ran: processor or GPU, and the versions that decide its speed."""
    gpu = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if gpu else platform.processor() or "CPU",
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda if gpu else None,
        "cudnn": torch.backends.cudnn.version() if gpu else None,
        "flash_attn_2": _version("flash-attn", "flash_attn"),
        "flash_attn_4": _version("flash-attn-4", "flash_attn.cute"),
    }


def _version(package, module):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # unpacked by hand, or not there
        try:
            return getattr(importlib.import_module(module), "__version__", None)
        except (ImportError, OSError, AttributeError):
            return None


def spread(name, values):
    """{name: median, name_low: smallest, name_high: largest}, to five digits."""
    values = sorted(values)
    found = {name: statistics.median(values), f"{name}_low": values[0], f"{name}_high": values[-1]}
    return {key: float(f"{value:.5g}") for key, value in found.items()}


def failure(call):
    """Run the call once, which also compiles and warms up. None, or why it failed, in one line.

    Any error counts: one size that does not fit, or one kernel that cannot, must not end the rest.
    """
    try:
        call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return None
    except Exception as error:
        why = f"{type(error).__name__}: {error}".splitlines()[0][:200]
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return why


def elapsed_ms(call, repeats, device):
    """Milliseconds of one call, the mean of ``repeats`` in a row: a GPU's queue stays filled."""
    if device.type != "cuda":
        start = time.perf_counter()
        for _ in range(repeats):
            call()
        return 1e3 * (time.perf_counter() - start) / repeats
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    for _ in range(repeats):
        call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / repeats


def time_rounds(calls, rounds, repeats, device):
    """name -> milliseconds of its call in each round; every round times each call in turn."""
    times = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            times[name].append(elapsed_ms(call, repeats, device))
    return times


def peak_gb(call, baseline):
    """The most memory that PyTorch held during the call, in GB over ``baseline`` bytes."""
    torch.cuda.reset_peak_memory_stats()
    call()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - baseline) / 1e9


# ---- Operations --------------------------------------------------------------------------------


@dataclass(frozen=True)
class OpsBench:
    """Forward and backward of attention alone: softmax and DIFF V2, in every backend."""

    out: str = "runs/bench/ops.json"  # results; the figure goes beside it
    device: str = "auto"  # auto (a GPU if there is one), cpu, cuda
    backends: tuple[str, ...] = ("naive", "sdpa", "flash2", "flash4")  # what to compare
    shapes: tuple[tuple[int, int, int], ...] = (
        (16, 4, 64), (16, 4, 128), (8, 2, 64), (8, 4, 32),
    )  # heads h, key/value heads h_kv, head size d  # fmt: skip
    lengths: tuple[int, ...] = (1024, 4096)  # T
    tokens: int = 32768  # B * T, the same for every length
    compile: bool = True  # also time the differential step compiled into one kernel
    rounds: int = 7  # a figure is the median of so many
    repeats: int = 3  # calls in a row, in each round
    naive_gb: float = 6.0  # largest float32 attention map that the naive backend is asked to store
    memory_lengths: tuple[int, ...] = (1024, 2048, 4096, 8192, 16384, 32768, 65536)  # T, at B = 1

    CPU: ClassVar = {
        "backends": ("naive", "sdpa"), "shapes": ((4, 2, 16),), "lengths": (64, 128),
        "tokens": 256, "compile": False, "rounds": 3, "memory_lengths": (),
    }  # fmt: skip


OPS = {  # name: (query heads for each output head, the step after attention)
    "softmax_h": (1, None),
    "softmax_2h": (2, None),
    "diff_v2 eager": (2, "eager"),
    "diff_v2 compiled": (2, "compiled"),
}


def ops(config=None):
    """Time the operations, and measure peak memory against T. Returns what the JSON file holds.

    A row is a time ("op", "ms", "tflops"), a peak ("op": "memory", "T", "peak_gb") or the power of
    T with which a backend's memory grows ("op": "memory exponent"). TFLOP/s count what the formula
    needs, six T d operations a token and query head, not what a kernel computes twice.
    """
    config = config or defaults(OpsBench)
    device = pick_device(config.device)
    columns = {"op": 17, "backend": 8, "h": 3, "h_kv": 4, "d": 4, "B": 4, "T": 6,
               "ms": 9, "ms_low": 9, "ms_high": 9, "tflops": 7, "peak_gb": 8, "exponent": 8}  # fmt: skip
    report = Report(config, device, columns, "forward and backward, causal; TFLOP/s of the formula")
    for shape in config.shapes:
        for T in config.lengths:
            torch.compiler.reset()  # a shape gets its own kernels, not ones for any shape
            for row in _time_operations(config, device, shape, T):
                report.add(row)
    if device.type == "cuda":  # PyTorch counts no memory on a CPU
        for backend in config.backends:
            for row in _memory(config, device, backend):
                report.add(row)
    return report.finish(_draw_ops)


def _inputs(device, B, T, shape):
    """q (B, T, 2h, d), k, v (B, T, h_kv, d), lambda's logit (B, T, h): leaves with gradients."""
    h, h_kv, d = shape
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    sizes = ((B, T, 2 * h, d), (B, T, h_kv, d), (B, T, h_kv, d), (B, T, h))
    torch.manual_seed(0)
    return [torch.randn(s, device=device, dtype=dtype, requires_grad=True) for s in sizes]


def _operation(q, k, v, lam_logit, backend, step=None):
    """A function that runs attention, the step, and both backward, once."""
    inputs = (q, k, v, lam_logit) if step else (q, k, v)
    grad = torch.randn_like(q[:, :, ::2] if step else q)

    def call():
        out = attention(q, k, v, backend=backend)
        torch.autograd.grad(step(out, lam_logit) if step else out, inputs, grad)

    return call


def _time_operations(config, device, shape, T):
    h, h_kv, d = shape
    B = max(1, config.tokens // T)
    q, k, v, lam_logit = _inputs(device, B, T, shape)
    half = q.detach()[:, :, :h].contiguous().requires_grad_()  # softmax with h query heads
    steps = {None: None, "eager": differential, "compiled": torch.compile(differential)}
    calls = {}
    for backend in config.backends:
        if backend == "naive" and 8 * B * h * T * T > config.naive_gb * 1e9:
            continue  # 2h maps of T * T numbers of 4 bytes
        for op, (query_heads, step) in OPS.items():
            if step == "compiled" and not config.compile:
                continue
            queries = q if query_heads == 2 else half
            call = _operation(queries, k, v, lam_logit, backend, steps[step])
            if error := failure(call):
                yield {"op": op, "backend": backend, "h": h, "h_kv": h_kv, "d": d, "B": B, "T": T,
                       "error": error}  # fmt: skip
            else:
                calls[op, backend] = call
    times = time_rounds(calls, config.rounds, config.repeats, device)
    for (op, backend), ms in times.items():
        operations = theory.train_flops_per_token(0, 1, OPS[op][0] * h, d, T) * B * T
        row = {"op": op, "backend": backend, "h": h, "h_kv": h_kv, "d": d, "B": B, "T": T}
        tflops = operations / statistics.median(ms) / 1e9
        yield row | spread("ms", ms) | {"tflops": float(f"{tflops:.4g}")}


def _memory(config, device, backend):
    shape, points = config.shapes[0], []
    row = {"backend": backend, "h": shape[0], "h_kv": shape[1], "d": shape[2], "B": 1}
    for T in config.memory_lengths:
        call = _operation(*_inputs(device, 1, T, shape), backend, differential)
        if error := failure(call):
            yield row | {"op": "memory", "T": T, "error": error}
            break  # longer ones will not fit either
        gigabytes = peak_gb(call, torch.cuda.memory_allocated())
        points.append((math.log(T), math.log(gigabytes)))
        yield row | {"op": "memory", "T": T, "peak_gb": float(f"{gigabytes:.4g}")}
    if len(points) > 1:
        exponent = statistics.linear_regression(*zip(*points, strict=True)).slope
        yield row | {"op": "memory exponent", "exponent": float(f"{exponent:.3g}")}


def _draw_ops(data):
    import matplotlib.pyplot as plt

    from minidiff import plots

    rows = [row for row in data["rows"] if "ms" in row]
    with plt.rc_context(plots.STYLE):
        fig, (speed, memory) = plt.subplots(1, 2, figsize=(15, 6), width_ratios=(2, 1))
        cases = sorted({(r["h"], r["h_kv"], r["d"], r["T"]) for r in rows})
        series = sorted({(r["backend"], r["op"]) for r in rows})
        for i, (backend, op) in enumerate(series):
            found = {(r["h"], r["h_kv"], r["d"], r["T"]): r["tflops"] for r in rows
                     if (r["backend"], r["op"]) == (backend, op)}  # fmt: skip
            places = [x + 0.8 * (i + 0.5) / len(series) - 0.4 for x in range(len(cases))]
            heights = [found.get(case, 0) for case in cases]
            shade = plt.get_cmap("tab20")(i % 20)
            speed.bar(places, heights, 0.8 / len(series), color=shade, label=f"{backend}, {op}")
        speed.set_xticks(range(len(cases)), [f"{h},{g},{d}\nT={T}" for h, g, d, T in cases])
        speed.set(xlabel="h, h_kv, d and T", ylabel="TFLOP/s", title="Forward and backward")
        speed.legend(fontsize=9, ncols=2)
        for backend in {row["backend"]: None for row in data["rows"]}:
            line = [(r["T"], r["peak_gb"]) for r in data["rows"]
                    if r["backend"] == backend and "peak_gb" in r]  # fmt: skip
            if line:
                memory.loglog(*zip(*line, strict=True), "o-", base=2, label=backend)
        memory.set(xlabel="T", ylabel="peak memory (GB)", title="Memory, B = 1")
        if memory.lines:
            memory.legend()
    return fig


# ---- Training steps ----------------------------------------------------------------------------
