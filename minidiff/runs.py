"""The folder of one training run: what is in it, written so that no kill leaves half a file.

    config.json              all settings, the data's fingerprint, PyTorch's version
    metrics.jsonl            a line a step (loss, lr, grad_norm before clipping, tokens_per_s)
                             and one for each validation (val_loss)
    model.safetensors        the weights
    checkpoint.safetensors   weights and AdamW's state, for --resume

Nothing is pickled, so nothing that is loaded can run code. Interrupt, at the end, turns Ctrl-C into
a last checkpoint.
"""

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import time
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from minidiff.model import GPT, GPTConfig


class Run:
    """The files of one run. Checkpoints replace their predecessor in one step or not at all."""

    def __init__(self, config, corpus, main=True):
        self.folder, self.config, self.main = Path(config.out), config, main
        self.name = self.folder.name
        self.checkpoint, self.metrics = (
            self.folder / "checkpoint.safetensors",
            self.folder / "metrics.jsonl",
        )
        if config.resume and not self.checkpoint.exists():
            raise ValueError(
                f"--resume: no checkpoint in {self.folder}; leave --resume out to start"
            )
        if not (config.resume or config.overwrite):
            refuse_to_overwrite(self.folder)
        settings = dataclasses.asdict(config)
        for transient in ("resume", "overwrite", "out", "device"):
            del settings[transient]
        self.settings = settings | {"data_fingerprint": corpus.fingerprint}
        if config.resume:
            self._check_same_settings()

    def begin(self):
        """Make the folder of a new run; what an old one left is gone."""
        if not self.main:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in WEIGHTS:  # or old weights would lie beside new settings
            (self.folder / name).unlink(missing_ok=True)
        self.metrics.write_text("")
        text = json.dumps(self.settings | {"torch": torch.__version__}, indent=2)
        replace_file(self.folder / "config.json", lambda path: path.write_text(text + "\n"))

    def _check_same_settings(self):
        with safe_open(self.checkpoint, "pt") as file:
            before = json.loads(file.metadata()["settings"])
        changed = [k for k in self.settings if self.settings[k] != before.get(k)]
        if changed:
            raise ValueError(
                f"--resume: {', '.join(changed)} differ from the run in {self.folder}: "
                "give the same settings, or another --out"
            )

    def log(self, rows):
        """Append rows to metrics.jsonl."""
        if self.main:
            with self.metrics.open("a") as file:
                file.writelines(json.dumps(row) + "\n" for row in rows)

    def save(self, model, optimizer, step):
        """Write both safetensors files, each atomically."""
        if not self.main:
            return
        weights = model.state_dict()
        state = {f"model.{name}": tensor for name, tensor in weights.items()}
        for name, parameter in model.named_parameters():
            for key, value in optimizer.state[parameter].items():
                state[f"adamw.{name}.{key}"] = value
        about = {"step": str(step), "settings": json.dumps(self.settings)}
        replace_file(self.checkpoint, lambda path: save_file(state, path, about))
        replace_file(
            self.folder / "model.safetensors", lambda path: save_file(weights, path, about)
        )

    def load(self, model, optimizer):
        """Restore weights, AdamW's state and metrics.jsonl; returns the step to go on from."""
        with safe_open(self.checkpoint, "pt") as file:
            step = int(file.metadata()["step"])
        state = load_file(self.checkpoint)
        model.load_state_dict(
            {k.removeprefix("model."): v for k, v in state.items() if k.startswith("model.")}
        )
        for name, parameter in model.named_parameters():
            saved = {k: state[f"adamw.{name}.{k}"] for k in ("step", "exp_avg", "exp_avg_sq")}
            on_device = {k: v.to(parameter.device) for k, v in saved.items()}
            if not parameter.is_cuda:
                on_device["step"] = saved["step"]
            optimizer.state[parameter] = on_device
        if self.main:  # a killed run may have logged steps that its checkpoint does not hold
            lines = self.metrics.read_text().splitlines(keepends=True)
            lines = [line for line in lines if line.endswith("\n")]  # a full disk cuts the last
            kept = "".join(line for line in lines if json.loads(line)["step"] <= step)
            replace_file(self.metrics, lambda path: path.write_text(kept))
        return step


WEIGHTS = ("checkpoint.safetensors", "model.safetensors")


def refuse_to_overwrite(folder):
    """Raise a ValueError where a folder holds a trained model."""
    if any((folder / name).exists() for name in WEIGHTS):
        raise ValueError(f"{folder} holds a run: give --resume, --overwrite or another --out")


def replace_file(path, write):
    """Write beside the file, then rename: a reader, or a kill, never meets half a file."""
    new = path.with_name(path.name + ".new")
    write(new)
    os.replace(new, path)


def load_run(folder, device="cpu"):
    """The trained model of a run folder (config.json and model.safetensors), in eval mode.

    Raises:
        ValueError: the folder holds no finished or interrupted run.
    """
    folder = Path(folder)
    if not (folder / "config.json").exists() or not (folder / "model.safetensors").exists():
        raise ValueError(
            f"{folder}: no config.json and model.safetensors in it; is it a run folder?"
        )
    model = GPT(GPTConfig(**json.loads((folder / "config.json").read_text())["model"]))
    model.load_state_dict(load_file(folder / "model.safetensors"))
    return model.to(device).eval()


def read_metrics(folder):
    """metrics.jsonl of a run folder as a list of dicts, in the order of training."""
    return [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]


def export_run(run, folder):
    """Copy a run without what only --resume needs, weights in bfloat16: small enough to ship."""
    run, folder = Path(run), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    weights = load_file(run / "model.safetensors")
    weights = {name: tensor.bfloat16() for name, tensor in weights.items()}
    replace_file(folder / "model.safetensors", lambda path: save_file(weights, path))
    for name in ("config.json", "metrics.jsonl"):
        shutil.copy(run / name, folder / name)


def load_pretrained(name, device="cpu"):
    """A trained model that ships with the course: "diff_v2" or "softmax_1.5h".

    Both were trained on the same text with the same settings, on a GPU, at a size where attention
    sinks and outliers form; notebooks/checkpoints/README.md has the command. No network is needed.

    Raises:
        ValueError: an unknown name, or the package is not inside the course's repository.
    """
    folder = Path(__file__).parent.parent / "notebooks" / "checkpoints"
    if not folder.exists():
        raise ValueError(
            f"{folder} is missing: work in a clone of the repository (pip install -e .)"
        )
    names = sorted(path.parent.name for path in folder.glob("*/model.safetensors"))
    if name not in names:
        raise ValueError(f"no pretrained model {name!r}: there are {', '.join(names)}")
    return load_run(folder / name, device)


class Interrupt:
    """Ctrl-C and SIGTERM ask a loop to stop after its step; a second one ends it at once."""

    def __enter__(self):
        self.asked, self.before = None, {}  # when it was asked
        for number in (signal.SIGINT, signal.SIGTERM):
            with contextlib.suppress(ValueError):  # not in the main thread: leave them alone
                self.before[number] = signal.signal(number, self._ask)
        return self

    def _ask(self, number, frame):
        if self.asked is None:
            self.asked = time.monotonic()
        elif time.monotonic() - self.asked > 2:  # torchrun sends on what the terminal sent already
            raise KeyboardInterrupt("stopped within a step; what was saved before is whole")

    def seen(self, device, world):
        """Whether any process was asked to stop; all processes get the same answer."""
        if world == 1:
            return self.asked is not None
        flag = torch.tensor(float(self.asked is not None), device=device)
        dist.all_reduce(flag)
        return flag.item() > 0

    def __exit__(self, *_):
        for number, handler in self.before.items():
            signal.signal(number, handler)
