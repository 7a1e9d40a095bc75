"""Stopped before any file operation and started again, a run ends as if nothing had happened.

An audit hook counts what writes (open for writing, rename, remove, mkdir) inside the test's folder
and ends the process, as kill -9 does, before the n-th. safetensors writes outside Python's sight:
its write counts too, and leaves half a file. Processes are forked after the imports.
"""

import dataclasses
import json
import multiprocessing
import os
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

from minidiff import GPTConfig
from minidiff.study.compare import Compare
from minidiff.train import TrainConfig, train

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["minidiff.study.compare", "torch._dynamo", "pytest"])
MODEL = GPTConfig(n_layer=1, n_head=2, n_kv_head=1, head_dim=8, n_embd=16, block_size=16)


def short_run(folder, again):
    config = TrainConfig(
        model=MODEL, out=f"{folder}/run", data=f"{folder}/text", steps=5, batch_size=2,
        warmup_steps=1, eval_every=2, eval_batches=1, log_every=1, save_every=2, device="cpu",
    )  # fmt: skip
    try:
        train(dataclasses.replace(config, resume=again))
    except ValueError as error:
        assert again and "nothing to resume" in str(error), error
        train(config)  # stopped before there was anything


def comparison(folder, again):
    config = TrainConfig(
        model=MODEL, out=f"{folder}/runs", data=f"{folder}/text", steps=3, batch_size=2,
        warmup_steps=1, eval_every=2, eval_batches=1, log_every=1, save_every=2, device="cpu",
    )  # fmt: skip
    Compare(config, seeds=(0,), results=Path(folder, "out", "results.json"), probe_windows=1).run()


def in_child(work, folder, stop_at, again):
    """Call work; end the process before file operation number stop_at. Writes how many it saw."""
    torch.set_num_threads(1)
    os.dup2(os.open(f"{folder}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    os.dup2(2, 1)
    seen, serialize = [], safetensors.torch.serialize_file

    def count(path):
        if str(path).startswith(str(folder)):
            seen.append(str(path))
            return len(seen) == stop_at
        return False

    def hook(event, args):
        writes = event in ("os.rename", "os.remove", "os.mkdir", "os.truncate") or (
            event == "open" and (args[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        )
        if writes and isinstance(args[0], (str, Path)) and count(args[0]):
            os._exit(9)

    def half_a_file(tensors, path, metadata=None):
        stops = count(path)
        serialize(tensors, path, metadata)
        if stops:
            os.truncate(path, os.path.getsize(path) // 2)
            os._exit(9)

    safetensors.torch.serialize_file = half_a_file
    sys.addaudithook(hook)
    work(folder, again)
    Path(f"{folder}.seen").write_text("\n".join(seen), encoding="utf-8")


def exit_codes(calls):
    """Run in_child once for each call's arguments, os.cpu_count() at a time; their exit codes.

    One thread starts and joins all of them: where two do, one thread's start() may read the exit
    code that the other's join() waits for, and the other then gets 255.
    """
    codes = []
    for first in range(0, len(calls), os.cpu_count()):
        some = calls[first : first + os.cpu_count()]
        children = [PROCESSES.Process(target=in_child, args=args) for args in some]
        for child in children:
            child.start()
        for child in children:
            child.join(60)
            codes.append(child.exitcode)
    return codes


def everything(folder):
    """What all files say, but for times, dates and the paths of this copy."""

    def timeless(value):
        if isinstance(value, dict):
            timed = ("tokens_per_s", "date", "command")
            return {k: timeless(v) for k, v in value.items() if k not in timed}
        return [timeless(v) for v in value] if isinstance(value, list) else value

    found = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and "text" not in p.parts):
        data = path.read_bytes().replace(str(folder).encode(), b"")
        if path.suffix in (".json", ".jsonl"):
            lines = [data] if path.suffix == ".json" else data.splitlines()
            data = [timeless(json.loads(line)) for line in lines]
        if path.suffix == ".safetensors":
            with safetensors.safe_open(path, "pt") as file:
                step = file.metadata()["step"]
            tensors = safetensors.torch.load_file(path)
            data = step, {name: tensor.tolist() for name, tensor in tensors.items()}
        if not path.name.startswith("."):  # locks
            found[str(path.relative_to(folder))] = data
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("work", "points"), [(short_run, 25), (comparison, 35)])
def test_stopped_before_any_file_operation_and_started_again_all_is_equal(tmp_path, work, points):
    def fresh(name):
        folder = tmp_path / name
        (folder / "text").mkdir(parents=True)
        for i in range(12):
            (folder / "text" / f"{i}.txt").write_text(
                f"line {i} of the text\n" * 30, encoding="utf-8"
            )
        return folder

    def log(folder):
        return Path(f"{folder}.log").read_text(encoding="utf-8")

    whole = fresh("whole")
    assert exit_codes([(work, whole, None, False)]) == [0], log(whole)
    seen = Path(f"{whole}.seen").read_text(encoding="utf-8").splitlines()
    expected, total = everything(whole), len(seen)
    assert total >= points  # the hook sees them

    stopped = {fresh(f"stopped{n}"): n for n in range(1, total + 1)}
    codes = exit_codes([(work, folder, n, False) for folder, n in stopped.items()])
    again = exit_codes([(work, folder, None, True) for folder in stopped])
    for (folder, n), code, code_again in zip(stopped.items(), codes, again, strict=True):
        assert (code, code_again) == (9, 0), f"point {n}: {log(folder)}"
        assert everything(folder) == expected, f"point {n}: {log(folder)}"
