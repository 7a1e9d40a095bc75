"""The training loop: AdamW, warm-up and cosine, mixed precision, torch.compile, DDP."""

import contextlib
import math
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from tqdm import tqdm

from minidiff.attention import PAIR, PLAIN, choose
from minidiff.checkpoint import Run
from minidiff.data import open_data
from minidiff.devices import (
    autocast,
    compiled,
    pick_device,
    pick_dtype,
    start_distributed,
    to_device,
    why_not_compile,
)
from minidiff.interrupt import Interrupt, Terminal
from minidiff.limits import check_training, plain_numbers
from minidiff.model import ATTENTION, GPT, DiffV2Attention, GPTConfig
from minidiff.runs import start_from


@dataclass(frozen=True)
class TrainConfig:
    """All settings of one run. Wrong values raise a ValueError that says what to change."""

    model: GPTConfig = field(default_factory=GPTConfig)
    out: str = "runs"  # the run folder (on the command line: with a folder for each model in it)
    data: str = "stdlib"  # stdlib, python (all packages too), a text file or folder, or .bin
    steps: int = 500  # optimizer steps
    batch_size: int = 8  # sequences in a step, over all processes and micro-steps
    grad_accum: int = 1  # micro-steps that a step is cut into, where memory is short
    lr: float = 3e-3  # peak learning rate
    min_lr_ratio: float = 0.1  # the cosine ends at lr times this
    warmup_steps: int = 50  # steps of linear warm-up
    weight_decay: float = 0.1  # on matrices only, not on norm gains
    beta1: float = 0.9  # AdamW: memory of the gradient
    beta2: float = 0.95  # AdamW: memory of its square
    grad_clip: float = 1.0  # largest norm of the gradient
    eval_every: int = 100  # steps between validations
    eval_batches: int = 8  # batches of a validation, always the same ones
    log_every: int = 10  # steps between writes of metrics and updates of the progress bar
    save_every: int = 200  # steps between checkpoints
    seed: int = 0  # of the initial weights and the order of the data
    device: str = "auto"  # auto (a GPU if there is one), cpu, cuda, mps (Apple)
    dtype: str = "auto"  # of matmuls: auto (what the GPU is fast in), float32, bfloat16, float16
    compile: str = "auto"  # auto (blocks on a GPU that can, else none), blocks, model, none
    tensorboard: bool = False  # also write TensorBoard's events (pip install tensorboard)
    init_from: str = ""  # a run folder: fine-tune, from its weights
    resume: bool = False  # continue the run in the folder, also one that ended, with more steps
    overwrite: bool = False  # start anew although the folder holds a run

    def __post_init__(self):
        plain_numbers(self)
        for name in ("steps", "batch_size", "grad_accum", "eval_every", "eval_batches", "log_every",
                     "save_every"):  # fmt: skip
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        if not (self.lr > 0 and self.grad_clip > 0 and 0 <= self.min_lr_ratio <= 1):
            raise ValueError("lr and grad_clip must be positive, min_lr_ratio between 0 and 1")
        if not (0 <= self.beta1 < 1 and 0 <= self.beta2 < 1):
            raise ValueError("beta1 and beta2 must be at least 0 and below 1")
        if min(self.seed, self.warmup_steps, self.weight_decay) < 0:
            raise ValueError("seed, warmup_steps and weight_decay must not be negative")
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name}={getattr(self, name)!r}: use {', '.join(known)}")
        if self.resume and self.overwrite:
            raise ValueError("resume and overwrite exclude each other")


CHOICES = {
    "device": ("auto", "cpu", "cuda", "mps"),
    "dtype": ("auto", "float32", "bfloat16", "float16"),
    "compile": ("auto", "blocks", "model", "none"),
}

# laptop: a pair of models in four minutes on two CPU cores. gpu: 25M parameters, at the best of
# four learning rates (notebook 07, section 5).
PRESETS = {
    "laptop": TrainConfig(),
    "gpu": TrainConfig(
        model=GPTConfig(n_layer=8, n_head=8, n_kv_head=2, head_dim=64, n_embd=512, block_size=1024),
        data="python", steps=2000, batch_size=64, lr=1e-3, warmup_steps=100, eval_every=250,
        save_every=500,
    ),
}  # fmt: skip


# ---- The loop ----------------------------------------------------------------------------------

UNSCALED = torch.amp.GradScaler("cpu", enabled=False)  # passes everything on as it is


def train(config, on_log=None, on_start=None, corpus=None):
    """Train one model and return its run folder.

    Args:
        config: a :class:`TrainConfig`.
        on_log: called with each list of new metric rows (dicts), for a live plot.
        on_start: called with the new model, to give it other initial weights.
        corpus: of ``open_data``, for several runs on one text; None opens ``config.data``.
    Raises:
        ValueError: data, folder or settings do not fit; raised before any training.
        FloatingPointError: the loss became infinite or NaN; a checkpoint before it stays.
        KeyboardInterrupt: Ctrl-C, SIGTERM or SIGHUP, after a last checkpoint was written; at the
            second, without one.
    """
    device = pick_device(config.device)
    rank, world = start_distributed(device)
    check_machine(config, device, world)
    T = config.model.block_size
    corpus = corpus or open_data(config.data, config.model.vocab_size, T)
    run = Run(config, corpus, main=rank == 0)

    torch.manual_seed(config.seed)
    model = GPT(config.model).to(device)
    if on_start:
        on_start(model)
    if config.init_from and not run.resumes:
        start_from(model, config.init_from)
    optimizer = make_optimizer(model, config)
    dtype = pick_dtype(device, config.dtype)
    scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
    forward = compiled(model, config.compile, device)
    if world > 1:
        forward = torch.nn.parallel.DistributedDataParallel(forward)

    with (
        run.open(model, optimizer, scaler) as first,
        tqdm(total=config.steps, initial=first, unit="step", disable=rank > 0, desc=run.name,
             file=Terminal(sys.stderr)) as bar,
        Interrupt() as interrupt,
    ):  # fmt: skip
        pending, since = [], time.perf_counter()
        for step, x, y in _batches(corpus.train, config, first):
            xs, ys = (  # the sequences of this process, in micro-batches (b, T)
                to_device(device, part[rank::world]).chunk(config.grad_accum) for part in (x, y)
            )
            lr = learning_rate(step, config)
            for group in optimizer.param_groups:
                group["lr"] = lr
            loss, norm = training_step(forward, optimizer, xs, ys, config.grad_clip, dtype, scaler)
            pending.append((step, lr, loss, norm))

            done, stop = step + 1, interrupt.seen(device, world)
            evaluates = done == config.steps or done % config.eval_every == 0
            saves = stop or done == config.steps or done % config.save_every == 0
            if not (evaluates or saves or done == 1 or done % config.log_every == 0):
                continue
            rows = _collect(pending, world, scaler)  # waits for the device
            speed = round(len(rows) * config.batch_size * T / (time.perf_counter() - since))
            rows = [row | {"tokens_per_s": speed} for row in rows]
            shown = f"loss {rows[-1]['loss']:.3f}, {speed / 1e3:.1f}k tokens/s"
            if evaluates:
                val_loss = evaluate(forward, corpus.val, config, device)
                _check_finite("validation loss", val_loss, done, lr)
                rows.append({"step": done, "val_loss": val_loss})
                run.keep_best(model, done, val_loss)
            run.log(rows)
            if saves:
                run.save(model, optimizer, scaler, done)
            bar.set_postfix_str(shown, refresh=False)
            bar.update(len(pending))  # the terminal last: it may be gone
            if on_log:
                on_log(rows)
            if stop:
                raise KeyboardInterrupt(
                    f"stopped after step {done}: --resume continues {run.folder}"
                )
            pending, since = [], time.perf_counter()
    return run.folder


def check_machine(config, device, processes):
    """Raise a ValueError, or a backend's RuntimeError, if this machine cannot train like this."""
    rows_per_step = config.grad_accum * processes
    if config.batch_size % rows_per_step:
        raise ValueError(
            f"batch_size={config.batch_size} must be a multiple of grad_accum * processes = "
            f"{rows_per_step}"
        )
    check_training(config, device, processes)
    if config.compile not in ("auto", "none") and (reason := why_not_compile(device)):
        raise ValueError(f"--compile {config.compile}: {reason}; or use --compile none")
    dtype = pick_dtype(device, config.dtype)
    q = torch.empty(1, 2, 1, config.model.head_dim, device=device, dtype=dtype)
    in_pairs = issubclass(ATTENTION[config.model.attention], DiffV2Attention)
    if not (in_pairs and choose(PAIR, config.model.backend, q, q, q)):
        choose(PLAIN, config.model.backend, q, q, q)


def _batches(split, config, first):
    """Yield (step, x, y); one thread reads the next batch while the present one is computed."""
    read = split.batch
    args = (config.batch_size, config.model.block_size, config.seed)
    with ThreadPoolExecutor(1) as reader:
        upcoming = reader.submit(read, *args, first)
        for step in range(first, config.steps):
            x, y = upcoming.result()
            upcoming = reader.submit(read, *args, step + 1)
            yield step, x, y


def training_step(model, optimizer, xs, ys, grad_clip, dtype=None, scaler=UNSCALED):
    """One AdamW step on micro-batches xs, ys (each (b, T)); returns loss and pre-clip grad norm.

    dtype is that of the matmuls (None: the device's usual one). float16 needs a scaler, which keeps
    small gradients from becoming 0, and leaves out a step whose gradients are infinite.
    Both results stay on the device: reading them here would make the CPU wait for the GPU.
    """
    total = 0.0
    for i, (x, y) in enumerate(zip(xs, ys, strict=True)):
        last = i == len(xs) - 1
        hold = (
            contextlib.nullcontext() if last or not hasattr(model, "no_sync") else model.no_sync()
        )
        with hold, autocast(x.device, dtype):  # DDP averages the gradients in the last part only
            loss = model(x, y)[1] / len(xs)
            scaler.scale(loss).backward()
        total = total + loss.detach()
    scaler.unscale_(optimizer)
    grad_norm = torch.nn.utils.clip_grad_norm_(model.parameters(), grad_clip)
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad(set_to_none=True)
    return total, grad_norm


def learning_rate(step, config):
    """Linear warm-up, then a cosine from lr to lr * min_lr_ratio at the last step."""
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    progress = (step - config.warmup_steps) / max(1, config.steps - 1 - config.warmup_steps)
    share = config.min_lr_ratio + (1 - config.min_lr_ratio) * (1 + math.cos(math.pi * progress)) / 2
    return config.lr * share


def make_optimizer(model, config):
    """AdamW; weight decay on matrices only (a norm's gain has no reason to shrink)."""
    decayed, free = [], []
    for p in model.parameters():  # a variant may mark a matrix of its own
        (free if p.dim() < 2 or getattr(p, "no_decay", False) else decayed).append(p)
    groups = [{"params": decayed, "weight_decay": config.weight_decay},
              {"params": free, "weight_decay": 0.0}]  # fmt: skip
    betas = (config.beta1, config.beta2)
    return torch.optim.AdamW(groups, lr=config.lr, betas=betas, fused=decayed[0].is_cuda)


@torch.no_grad()
def evaluate(model, split, config, device):
    """Mean loss in nats per token over the same windows of the split at every call."""
    model = model.module if hasattr(model, "no_sync") else model  # no gradients to synchronise
    losses = []
    T = config.model.block_size
    for x, y in split.fixed_batches(config.eval_batches, config.batch_size, T):
        with autocast(device, pick_dtype(device, config.dtype)):
            losses.append(model(to_device(device, x), to_device(device, y))[1])
    return torch.stack(losses).mean().item()


def _check_finite(what, value, step, lr):
    if not math.isfinite(value):
        raise FloatingPointError(
            f"the {what} is {value} at step {step} with learning rate {lr:.2e}: use a smaller "
            "--lr or a longer --warmup-steps; a checkpoint written before is whole"
        )


def _collect(pending, world, scaler):
    """Move the losses of the last steps off the device, all at once, and check them."""
    steps, lrs, losses, norms = zip(*pending, strict=True)
    losses = torch.stack(losses)
    if world > 1:  # each process saw its own sequences
        dist.all_reduce(losses)
        losses /= world
    rows = []
    losses, norms = losses.tolist(), torch.stack(norms).tolist()
    for step, lr, loss, norm in zip(steps, lrs, losses, norms, strict=True):
        _check_finite("loss", loss, step + 1, lr)
        if scaler.is_enabled() and scaler.get_scale() >= 1 and not math.isfinite(norm):
            norm = 0.0  # float16 overflowed: the scaler left the step out, and scales less now
        _check_finite("gradient norm", norm, step + 1, lr)
        rows.append({"step": step + 1, "loss": loss, "lr": lr, "grad_norm": norm})
    return rows
