"""The training loop: AdamW, warm-up and cosine, bf16 and torch.compile on a GPU, DDP."""

import contextlib
import math
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from tqdm import tqdm

from minidiff.attention import PLAIN, choose
from minidiff.data import open_data
from minidiff.model import GPT, GPTConfig
from minidiff.runs import Interrupt, Run


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
    device: str = "auto"  # auto (a GPU if there is one), cpu, cuda
    compile: str = "auto"  # auto (blocks on a GPU, else none), blocks, model, none
    resume: bool = False  # continue the run in the folder
    overwrite: bool = False  # start anew although the folder holds a run

    def __post_init__(self):
        for name in ("steps", "batch_size", "grad_accum", "eval_every", "eval_batches", "log_every",
                     "save_every"):  # fmt: skip
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        if not (0 < self.lr < math.inf and self.grad_clip > 0 and 0 <= self.min_lr_ratio <= 1):
            raise ValueError("lr and grad_clip must be positive, min_lr_ratio between 0 and 1")
        if not (0 <= self.beta1 < 1 and 0 <= self.beta2 < 1):
            raise ValueError("beta1 and beta2 must be at least 0 and below 1")
        if min(self.seed, self.warmup_steps, self.weight_decay) < 0:
            raise ValueError("seed, warmup_steps and weight_decay must not be negative")
        if self.compile not in ("auto", "blocks", "model", "none"):
            raise ValueError(f"compile={self.compile!r}: use auto, blocks, model or none")
        if self.device not in ("auto", "cpu", "cuda"):
            raise ValueError(f"device={self.device!r}: use auto, cpu or cuda")
        if self.resume and self.overwrite:
            raise ValueError("resume and overwrite exclude each other")


# laptop: a pair of models within six minutes on two CPU cores. gpu: the smallest size at which
# sinks and outliers form, at the best of four learning rates (notebook 07, section 5).
PRESETS = {
    "laptop": TrainConfig(),
    "gpu": TrainConfig(
        model=GPTConfig(n_layer=8, n_head=8, n_kv_head=2, head_dim=64, n_embd=512, block_size=1024),
        data="python", steps=2000, batch_size=64, lr=1e-3, warmup_steps=100, eval_every=250,
        save_every=500,
    ),
}  # fmt: skip


# ---- The loop ----------------------------------------------------------------------------------


def train(config, on_log=None, on_start=None):
    """Train one model and return its run folder.

    Args:
        config: a :class:`TrainConfig`.
        on_log: called with each list of new metric rows (dicts), for a live plot.
        on_start: called with the new model, to give it other initial weights.
    Raises:
        ValueError: data, folder or settings do not fit; raised before any training.
        FloatingPointError: the loss became infinite or NaN; the last checkpoint stays.
        KeyboardInterrupt: Ctrl-C or SIGTERM, after a last checkpoint was written; at the second,
            without one.
    """
    device = pick_device(config.device)
    rank, world = _start_distributed(device)
    rows_per_step = config.grad_accum * world
    if config.batch_size % rows_per_step:
        raise ValueError(
            f"batch_size={config.batch_size} must be a multiple of grad_accum * processes = "
            f"{rows_per_step}"
        )
    T = config.model.block_size
    corpus = open_data(config.data, config.model.vocab_size, T)
    run = Run(config, corpus, main=rank == 0)

    torch.manual_seed(config.seed)
    model = GPT(config.model).to(device)
    if on_start:
        on_start(model)
    optimizer = make_optimizer(model, config)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    example = torch.empty(1, 1, 1, config.model.head_dim, device=device, dtype=dtype)
    choose(PLAIN, config.model.backend, example, example, example)  # can it run here?
    first = 0
    if config.resume:
        first = run.load(model, optimizer)
    else:
        run.begin()
    forward = _compiled(model, config, device)
    if world > 1:
        forward = torch.nn.parallel.DistributedDataParallel(forward)

    pending, since = [], time.perf_counter()
    bar = tqdm(total=config.steps, initial=first, unit="step", disable=rank > 0, desc=run.name)
    with Interrupt() as interrupt, bar:
        for step, x, y in _batches(corpus.train, config, first):
            xs, ys = (  # the sequences of this process, in micro-batches (b, T)
                _to(device, part[rank::world]).chunk(config.grad_accum) for part in (x, y)
            )
            lr = learning_rate(step, config)
            for group in optimizer.param_groups:
                group["lr"] = lr
            loss, grad_norm = training_step(forward, optimizer, xs, ys, config.grad_clip)
            pending.append((step, lr, loss, grad_norm))
            bar.update()

            done, stop = step + 1, interrupt.seen(device, world)
            evaluates = done == config.steps or done % config.eval_every == 0
            saves = stop or done == config.steps or done % config.save_every == 0
            if not (evaluates or saves or done == 1 or done % config.log_every == 0):
                continue
            rows = _collect(pending, world)  # waits for the device
            speed = round(len(rows) * config.batch_size * T / (time.perf_counter() - since))
            rows = [row | {"tokens_per_s": speed} for row in rows]
            bar.set_postfix_str(f"loss {rows[-1]['loss']:.3f}, {speed / 1e3:.1f}k tokens/s")
            if evaluates:
                val_loss = evaluate(forward, corpus.val, config, device)
                _check_finite("validation loss", val_loss, done, lr)
                rows.append({"step": done, "val_loss": val_loss})
            run.log(rows)
            if saves:
                run.save(model, optimizer, done)
            if on_log:
                on_log(rows)
            if stop:
                raise KeyboardInterrupt(
                    f"stopped after step {done}: --resume continues {run.folder}"
                )
            pending, since = [], time.perf_counter()
    return run.folder


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


def training_step(model, optimizer, xs, ys, grad_clip):
    """One AdamW step on micro-batches xs, ys (each (b, T)); returns loss and pre-clip grad norm.

    Both stay on the device: reading them here would make the CPU wait for the GPU every step.
    """
    total = 0.0
    for i, (x, y) in enumerate(zip(xs, ys, strict=True)):
        last = i == len(xs) - 1
        hold = (
            contextlib.nullcontext() if last or not hasattr(model, "no_sync") else model.no_sync()
        )
        with hold, _autocast(x.device):  # DDP averages the gradients in the last micro-step only
            loss = model(x, y)[1] / len(xs)
            loss.backward()
        total = total + loss.detach()
    grad_norm = torch.nn.utils.clip_grad_norm_(model.parameters(), grad_clip)
    optimizer.step()
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
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": config.weight_decay},
              {"params": vectors, "weight_decay": 0.0}]  # fmt: skip
    betas = (config.beta1, config.beta2)
    return torch.optim.AdamW(groups, lr=config.lr, betas=betas, fused=matrices[0].is_cuda)


@torch.no_grad()
def evaluate(model, split, config, device):
    """Mean loss in nats per token over the same windows of the split at every call."""
    model = model.module if hasattr(model, "no_sync") else model  # no gradients to synchronise
    losses = []
    T = config.model.block_size
    for x, y in split.fixed_batches(config.eval_batches, config.batch_size, T):
        with _autocast(device):
            losses.append(model(_to(device, x), _to(device, y))[1])
    return torch.stack(losses).mean().item()


def _check_finite(what, value, step, lr):
    if not math.isfinite(value):
        raise FloatingPointError(
            f"the {what} is {value} at step {step} with learning rate {lr:.2e}: use a smaller "
            "--lr or a longer --warmup-steps; the last checkpoint is from before and whole"
        )


def _collect(pending, world):
    """Move the losses of the last steps off the device, all at once, and check them."""
    steps, lrs, losses, norms = zip(*pending, strict=True)
    losses = torch.stack(losses)
    if world > 1:  # each process saw its own sequences
        dist.all_reduce(losses)
        losses /= world
    rows = []
    losses, norms = losses.tolist(), torch.stack(norms).tolist()
    for step, lr, loss, norm in zip(steps, lrs, losses, norms, strict=True):
        _check_finite("loss", loss, step, lr)
        _check_finite("gradient norm", norm, step, lr)
        rows.append({"step": step + 1, "loss": loss, "lr": lr, "grad_norm": norm})
    return rows


# ---- Devices -----------------------------------------------------------------------------------


def _start_distributed(device):
    """(rank, number of processes). torchrun sets the environment; alone there is one process."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return int(os.environ.get("RANK", "0")), world


def pick_device(name="auto"):
    """The torch.device of "auto" (this process's GPU, if there is one), "cpu" or "cuda"."""
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ValueError("device=cuda: PyTorch sees no GPU here; use --device cpu")
    local, count = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if local >= count:
        raise ValueError(f"every process needs a GPU of its own: use --nproc_per_node {count}")
    device = torch.device("cuda", local)
    torch.cuda.set_device(device)
    return device


def _compiled(model, config, device):
    """Block by block by default: all blocks share one compiled code, ready within seconds."""
    how = config.compile
    if how == "auto":
        how = "blocks" if device.type == "cuda" else "none"
    if how != "none":
        torch.compiler.reset()  # what earlier models of this process left counts against a limit
    if how == "blocks":
        for block in model.blocks:
            block.compile()
    return torch.compile(model) if how == "model" else model


def _autocast(device):
    """bfloat16 matmuls with float32 weights on a GPU; float32 on a CPU."""
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")


def _to(device, tensor):
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor
