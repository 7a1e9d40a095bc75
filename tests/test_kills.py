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
from concurrent.futures import ThreadPoolExecutor
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


def run_child(*args):
    child = PROCESSES.Process(target=in_child, args=args)
    child.start()
    child.join(60)
    return child.exitcode


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
            (folder / "text" / f"{i}.txt").write_text(f"line {i} of the text\n" * 30)
        return folder

    whole = fresh("whole")
    assert run_child(work, whole, None, False) == 0, Path(f"{whole}.log").read_text(
        encoding="utf-8"
    )
    expected, total = (
        everything(whole),
        len(Path(f"{whole}.seen").read_text(encoding="utf-8").splitlines()),
    )
    assert total >= points  # the hook sees them

    def check(n):
        folder = fresh(f"stopped{n}")
        log = Path(f"{folder}.log")
        assert run_child(work, folder, n, False) == 9, log.read_text(encoding="utf-8")
        assert run_child(work, folder, None, True) == 0, (
            f"point {n}: {log.read_text(encoding='utf-8')}"
        )
        assert everything(folder) == expected, f"point {n}: {log.read_text(encoding='utf-8')}"

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(check, range(1, total + 1)))
