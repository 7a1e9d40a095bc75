"""What the tests of training share: a tiny run, and how to start it in a process of its own."""

import dataclasses
import os
import subprocess
import sys

from minidiff import GPTConfig
from minidiff.runs import read_metrics
from minidiff.train import TrainConfig

TINY = GPTConfig(n_layer=1, n_head=2, n_kv_head=1, head_dim=8, n_embd=16, block_size=16)


def tiny_config(folder):
    """Twelve steps on a text that it writes, in well under a second."""
    (folder / "text").mkdir(parents=True)
    for i in range(12):
        (folder / "text" / f"{i}.txt").write_text(f"line {i} of the text\n" * 30, encoding="utf-8")
    return TrainConfig(
        model=TINY, out=str(folder / "run"), data=str(folder / "text"), steps=12, batch_size=4,
        warmup_steps=3, eval_every=6, eval_batches=2, log_every=4, save_every=5, device="cpu",
    )  # fmt: skip


def losses(folder):
    return [row["loss"] for row in read_metrics(folder) if "loss" in row]


def run_python(*args, **kwargs):
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, *args], env=env, text=True, **kwargs)


def cli(config, *extra):
    """The command line of a config, from its fields."""
    settings = {k: v for k, v in dataclasses.asdict(config).items() if k != "model"}
    settings |= {k: v for k, v in dataclasses.asdict(config.model).items() if k != "attention"}
    words = ["train", "--preset", "laptop", *extra]
    for name, value in settings.items():
        if not isinstance(value, bool):
            words += [f"--{name.replace('_', '-')}", str(value)]
    return words
