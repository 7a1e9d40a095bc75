"""Writing a run's folder, so that no kill and no second process leaves it broken."""

import contextlib
import dataclasses
import json
import logging
import math
from pathlib import Path

import torch
from safetensors.torch import save_file

from minidiff.data import text_changed
from minidiff.files import alone, open_weights, read_text, replace_file, replace_text
from minidiff.runs import (
    BEST,
    CHECKPOINT,
    MADE,
    MODEL,
    WEIGHTS,
    checked_tensors,
    metrics_row,
    refuse_to_overwrite,
    saved_settings,
)

log = logging.getLogger("minidiff")

NOT_KEPT = ("resume", "overwrite", "out", "device")  # of a call, and not of the run
MAY_CHANGE = ("data", "init_from", "log_every", "save_every", "compile", "backend", "steps",
              "tensorboard")  # fmt: skip


class Run:
    """The files of one run. Checkpoints replace their predecessor in one step or not at all."""

    def __init__(self, config, corpus, main=True):
        self.folder, self.config, self.main = Path(config.out), config, main
        self.name, self.best, self.events = self.folder.name, math.inf, None
        self.metrics = self.folder / "metrics.jsonl"
        self.resumes = config.resume and (self.folder / CHECKPOINT).exists()  # or begins, at step 0
        settings = dataclasses.asdict(config)
        self.settings = {k: v for k, v in settings.items() if k not in NOT_KEPT}
        self.settings |= corpus.facts
        if config.tensorboard:
            event_writer()  # is it there?
        if config.init_from and Path(config.init_from).resolve() == self.folder.resolve():
            raise ValueError(
                f"--init-from {config.init_from} is this run itself: give another --out"
            )
        if config.resume:
            self._check_same_settings(corpus)
        elif not config.overwrite:
            refuse_to_overwrite(self.folder)

    def _check_same_settings(self, corpus):
        saved, step = self.saved = saved_settings(self.folder)
        known = {f.name: f.default for f in dataclasses.fields(self.config)}  # of older versions
        saved, now = known | saved | saved["model"], self.settings | self.settings["model"]
        if reason := text_changed(saved, corpus):
            raise ValueError(reason)
        free = {"model", *MAY_CHANGE, *corpus.facts}
        changed = [name for name in now if name not in free and now[name] != saved.get(name)]
        if changed:
            raise ValueError(
                f"the run in {self.folder} has another {', '.join(changed)}: "
                "give the same settings, or another --out"
            )
        if step > self.config.steps:
            raise ValueError(f"--steps {self.config.steps}: {self.folder} has done {step} already")
        if step and self.config.steps != saved["steps"]:
            log.info("from step %d on the learning rate is that of a run of %d steps, not of %d",
                     step, self.config.steps, saved["steps"])  # fmt: skip

    @contextlib.contextmanager
    def open(self, model, optimizer, scaler):
        """Hold the folder against other processes; gives the step to begin or to go on with."""
        if self.main:
            self.folder.mkdir(parents=True, exist_ok=True)
        with alone(self.folder) if self.main else contextlib.nullcontext():
            if self.main and self.config.resume and saved_settings(self.folder) != self.saved:
                raise ValueError(
                    f"{self.folder}: another process went on with this run: give --resume again"
                )
            for name in (*WEIGHTS, "config.json", "metrics.jsonl") if self.main else ():
                (self.folder / f"{name}.new").unlink(missing_ok=True)  # of a save that was killed
            first = self._load(model, optimizer, scaler) if self.resumes else 0
            if self.main and not self.resumes:
                self._begin()
            if self.main and self.config.tensorboard:
                self.events = event_writer(self.folder, purge_step=first + 1)
            try:
                yield first
            finally:
                if self.events:
                    self.events.close()

    def _begin(self):
        """What an old run left is gone, its settings last."""
        if not (self.config.overwrite or self.config.resume):
            refuse_to_overwrite(self.folder)  # another process may have been faster
        # or weights of the old run would lie beside the settings of the new one
        old = [self.folder / name for name in (*WEIGHTS, *MADE)]
        for path in (*old, *self.folder.glob("events.out.tfevents.*")):
            path.unlink(missing_ok=True)
        replace_text(self.metrics, "")
        self._write_settings()

    def _write_settings(self):
        text = json.dumps(self.settings | {"torch": torch.__version__}, indent=2)
        replace_text(self.folder / "config.json", text + "\n")

    def log(self, rows):
        """Append rows to metrics.jsonl, and to TensorBoard's file."""
        if self.main:
            with self.metrics.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(row) + "\n" for row in rows)
        for row in rows if self.events else ():
            for name in row.keys() - {"step"}:
                self.events.add_scalar(name, row[name], row["step"])

    def save(self, model, optimizer, scaler, step):
        """Write checkpoint and weights, each atomically."""
        if not self.main:
            return
        weights = model.state_dict()
        state = {f"model.{name}": tensor for name, tensor in weights.items()}
        for name, parameter in model.named_parameters():
            for key, value in optimizer.state[parameter].items():
                state[f"adamw.{name}.{key}"] = value
        self._write(CHECKPOINT, state, step, scaler=json.dumps(scaler.state_dict()))
        self._write(MODEL, weights, step)

    def keep_best(self, model, step, val_loss):
        """Write the weights if no validation loss before was as low."""
        if self.main and val_loss < self.best:
            self.best = val_loss
            self._write(BEST, model.state_dict(), step, val_loss=repr(val_loss))

    def _write(self, name, tensors, step, **about):
        about |= {"step": str(step), "settings": json.dumps(self.settings)}
        replace_file(self.folder / name, lambda new: save_file(tensors, new, about))

    def _load(self, model, optimizer, scaler):
        """Restore weights, AdamW's state and metrics.jsonl; returns the step to go on from.

        The weights' own file is written again: a kill may have come between the two of a save, and
        after the last step no later save would mend it.
        """
        path, fix = self.folder / CHECKPOINT, "start anew with --overwrite"
        expected = {f"model.{name}": t.shape for name, t in model.state_dict().items()}
        for name, parameter in model.named_parameters():
            shapes = {"step": (), "exp_avg": parameter.shape, "exp_avg_sq": parameter.shape}
            expected |= {f"adamw.{name}.{key}": shape for key, shape in shapes.items()}
        with open_weights(path, fix) as file:
            step, scale = int(file.metadata()["step"]), file.metadata().get("scaler", "{}")
            state = checked_tensors(file, expected, path, fix)
        weights = {k.removeprefix("model."): v for k, v in state.items() if k.startswith("model.")}
        model.load_state_dict(weights)
        for name, parameter in model.named_parameters():
            saved = {k: state[f"adamw.{name}.{k}"] for k in ("step", "exp_avg", "exp_avg_sq")}
            on_device = {k: v.to(parameter.device) for k, v in saved.items()}
            if not parameter.is_cuda:
                on_device["step"] = saved["step"]
            optimizer.state[parameter] = on_device
        if scaler.is_enabled():
            scaler.load_state_dict(json.loads(scale))
        if self.main:
            self._write(MODEL, weights, step)
            self._mend_metrics(step)
            self._write_settings()
        return step

    def _mend_metrics(self, step):
        """Drop what a full disk cut off, and the steps that a killed run logged after its save."""
        try:
            lines = read_text(self.metrics, "", errors="replace").splitlines()
        except ValueError:
            lines = [None]
        rows = [metrics_row(line) for line in lines]
        if None in rows:
            log.warning("%s: %d damaged lines left out", self.metrics, rows.count(None))
        kept = [row for row in rows if row and row["step"] <= step]
        self.best = min((row["val_loss"] for row in kept if "val_loss" in row), default=math.inf)
        replace_text(self.metrics, "".join(json.dumps(row) + "\n" for row in kept))


def event_writer(*args, **kwargs):
    """PyTorch's writer of TensorBoard events; without arguments, only whether it can be used."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ValueError(f"--tensorboard: {error}; pip install tensorboard") from None
    return SummaryWriter(*args, **kwargs) if args else None
