"""Shared by the benchmarks: timing, the table and the JSON file."""

import contextlib
import datetime
import gc
import importlib
import importlib.metadata
import json
import platform
import shlex
import statistics
import subprocess
import sys
import threading
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch

from minidiff.files import alone, read_json, replace_file, replace_text
from minidiff.model import ATTENTION

# ---- Measuring ---------------------------------------------------------------------------------


def attempt(call):
    """(what the call returns, None), or (None, why it failed, in one line).

    Any error counts: one size that does not fit, or one kernel that cannot, must not end the rest.
    """
    try:
        result = call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return result, None
    except Exception as error:
        why = f"{type(error).__name__}: {error}".splitlines()[0][:200]
    gc.collect()
    torch.cuda.empty_cache()  # does nothing without a GPU
    return None, why


def spread(name, values):
    """{name: median, name_low: smallest, name_high: largest} of the values of all rounds."""
    low, high = min(values), max(values)
    found = {name: statistics.median(values), f"{name}_low": low, f"{name}_high": high}
    return {key: rounded(value) for key, value in found.items()}


def ratios(name, times, of, to):
    """How many times as long as ``to`` the call ``of`` took, as ``spread`` over the rounds."""
    return spread(name, [a / b for a, b in zip(times[of], times[to], strict=True)])


def rounded(value, digits=5):
    """To so many significant digits."""
    return float(f"{value:.{digits}g}")


def counted_heads(config):
    """Query heads of a GPTConfig's layer, for theory.py's operations. A head of DIFF V1 counts as
    1.5: its values are twice as wide, so A v costs twice as much as q k^T."""
    heads = config.n_head * ATTENTION[config.attention].query_heads_per_head
    return 1.5 * heads if config.attention.startswith("diff_v1") else heads


def peak_gb(call, baseline=None):
    """The most memory PyTorch holds on the GPU during the call, in GB over ``baseline`` bytes.

    The default baseline is what is held before the call.
    """
    torch.cuda.synchronize()
    baseline = torch.cuda.memory_allocated() if baseline is None else baseline
    torch.cuda.reset_peak_memory_stats()
    call()
    torch.cuda.synchronize()
    return rounded((torch.cuda.max_memory_allocated() - baseline) / 1e9)


def in_own_processes(module, requests, time_limit_s):
    """Yield the rows (dicts) that ``python -m module`` prints for each request, a line of JSON.

    Every request gets a process, which is killed at the limit: then its last row has an "error".
    """
    command = [sys.executable, "-m", module]
    start = partial(subprocess.Popen, command, stdin=-1, stdout=-1, text=True)  # -1: a pipe
    following = start()  # while one works, the next imports PyTorch and waits for its request
    try:
        for i, request in enumerate(requests, 1):
            child, following = following, start() if i < len(requests) else None
            timer = threading.Timer(time_limit_s, child.kill)
            timer.start()
            with contextlib.suppress(BrokenPipeError), child:  # it died while it waited
                try:
                    print(json.dumps(request), file=child.stdin, flush=True)
                    for line in child.stdout:
                        if line.startswith("{"):  # a library may print too
                            yield json.loads(line)
                finally:
                    timer.cancel()
                    child.kill()  # does nothing to one that has ended
            if child.returncode:
                why = f"the process of {request[1:]} ended with {child.returncode}"
                yield {"error": f"{why}; its limit is {time_limit_s:g} s"}
    finally:
        if following:
            with following:
                following.kill()


# ---- The table and the JSON file ---------------------------------------------------------------


def defaults(bench):
    """The settings of OpsBench, TrainBench or DecodeBench for this machine: small on a CPU."""
    return bench() if torch.cuda.is_available() else bench(**bench.CPU)


def check_names(kind, names, known):
    """Refuse an unknown name before anything is measured."""
    for name in names:
        if name not in known:
            raise ValueError(f"{kind} {name!r} is not one of {', '.join(known)}")


class Report:
    """Rows of one benchmark. Every row is printed and written at once, so that none gets lost.

    Args:
        config: the benchmark's settings; its ``out`` names the JSON file.
        columns: "name:width" of every printed column. The file holds every field of a row.
        notes: how to read the numbers, kept in the file.
    """

    def __init__(self, config, device, columns, notes):
        for name in ("rounds", "repeats", "lengths", "memory_lengths", "batches", "contexts"):
            values = getattr(config, name, 1)
            if min(values if isinstance(values, tuple) else (values,), default=1) < 1:
                raise ValueError(f"--{name.replace('_', '-')} must be at least 1")
        self.path = Path(config.out)
        self.columns = [(name, int(width)) for name, width in (c.split(":") for c in columns)]
        if self.path.exists() and not {"machine", "config", "rows"} <= {
            *read_json(self.path, "it is no result of bench: give another --out")
        }:
            raise ValueError(f"{self.path} is no result of bench: give another --out")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.held = contextlib.ExitStack()  # until finish, or the end of the process
        self.held.enter_context(alone(self.path))
        self.data = {
            "command": shlex.join(["python", *sys.orig_argv[1:]]),
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "machine": machine(device),
            "config": asdict(config),
            "notes": " ".join(notes.split()),
            "rows": [],
        }
        print(*(f"{name:>{width}}" for name, width in self.columns))

    def add(self, row):
        """Print one row, in columns, and write the file with it."""
        self.data["rows"].append(row)
        self.write()
        cells = []
        for name, width in self.columns:
            value = row.get(name, "")
            text = f"{value:.4g}" if isinstance(value, float) else str(value)
            cells.append(f"{text:>{width}}")
        print(*cells, row.get("error", ""), flush=True)

    def write(self):
        """Replace the JSON file in one step."""
        replace_text(self.path, json.dumps(self.data, indent=1) + "\n")

    def finish(self, draw):
        """Save the figure; returns what the file holds."""
        print(f"{self.path} and {save_figure(self.path, draw)}")
        self.held.close()
        return self.data


def save_figure(path, draw):
    """Draw the rows of a JSON file, also of a run that was stopped, beside it; returns the path."""
    import matplotlib.pyplot as plt

    from minidiff.look import plots

    rows = json.loads(Path(path).read_text(encoding="utf-8"))["rows"]
    with plt.rc_context(plots.STYLE):
        figure = draw(rows, plt, plots.colour)
        picture = Path(path).with_suffix(".png")
        replace_file(picture, lambda new: figure.savefig(new, format="png", dpi=120))
    plt.close(figure)
    return picture


def machine(device):
    """What ran: the GPU or processor, and the versions that decide its speed."""
    gpu = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if gpu else f"{platform.machine()} CPU",
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
    except importlib.metadata.PackageNotFoundError:  # not there, or unpacked by hand
        try:
            return getattr(importlib.import_module(module), "__version__", None)
        except (ImportError, OSError, AttributeError):
            return None
