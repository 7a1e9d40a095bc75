"""Comparing in equal time: how many steps each variant makes in the time of the first one's."""

import gc
import statistics

import torch
from tqdm import tqdm

from minidiff.devices import compile_now, how_to_compile, pick_dtype, time_rounds
from minidiff.model import GPT
from minidiff.study.results import made_here
from minidiff.train import make_optimizer, training_step

ROUNDS, IN_A_ROW = 15, 4  # of steps in a row
FIRST_LIMIT = 8  # of torch.compile: how often one piece of code is compiled anew


def equal_steps(data, configs, device, path):
    """Steps of each variant in equal time. A file is timed once: by new times its rows would not
    compare.

    Args:
        data: the results, which get "step_ms" and the card that it was measured on.
        configs: name -> its :class:`~minidiff.train.TrainConfig`, all with the first one's steps.
        path: of the results file, for messages.
    Returns:
        {name: steps}.
    """
    known = data.setdefault("step_ms", {})
    if not known:
        if data["rows"]:
            raise ValueError(f"{path} holds runs but not their timing: give another --results")
        if len(configs) < 2:
            raise ValueError("--equal-time: give at least two --variants")
        known |= step_ms(configs, device)
        data["step_ms_of"] = made_here()
    if missing := [name for name in configs if name not in known]:
        raise ValueError(f"{path} has no time of {', '.join(missing)}: give another --results")
    first = next(iter(known.values()))
    steps = {name: round(config.steps * first / known[name]) for name, config in configs.items()}
    if none := [name for name in steps if steps[name] < 1]:
        raise ValueError(f"--equal-time leaves {none[0]} no step: give more --steps")
    print("steps in equal time:", ", ".join(f"{name} {n}" for name, n in steps.items()))
    return steps


def step_ms(configs, device):
    """Milliseconds of a training step of each variant: the median of some rounds, after warm-up.

    All are timed in turn in every round, so that a drift of the clock meets them alike. Reading
    text, validation and checkpoints are left out.

    Args:
        configs: name -> its :class:`~minidiff.train.TrainConfig`.
    Raises:
        ValueError: the models do not fit on the GPU together.
    """
    torch.compiler.reset()
    limit = max(FIRST_LIMIT, 2 * len(configs))  # all models share the code of a block
    steps = {}
    try:
        with torch._dynamo.config.patch(recompile_limit=limit):
            for name, config in tqdm(configs.items(), desc="timing", unit="model"):
                steps[name] = _step(config, device)
                for _ in range(3):  # compile, and fill what a first step fills
                    steps[name]()
            times = time_rounds(steps, ROUNDS, IN_A_ROW, device)
    except torch.OutOfMemoryError:
        raise ValueError(
            f"--equal-time keeps all models on the GPU at once, and {', '.join(configs)} need more "
            "memory than is free: give fewer --variants or a larger --grad-accum"
        ) from None
    steps.clear()
    gc.collect()  # a compiled model holds itself, and training needs its memory
    return {name: statistics.median(ms) for name, ms in times.items()}


def _step(config, device):
    """A function that makes one training step as train does, on random tokens."""
    torch.manual_seed(config.seed)
    model = GPT(config.model).to(device)
    optimizer = make_optimizer(model, config)
    dtype = pick_dtype(device, config.dtype)
    scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
    forward = compile_now(model, how_to_compile(config.compile, device))
    shape = config.batch_size, config.model.block_size + 1
    tokens = torch.randint(config.model.vocab_size, shape, device=device)
    xs, ys = (part.chunk(config.grad_accum) for part in (tokens[:, :-1], tokens[:, 1:]))

    def step():
        loss, _ = training_step(forward, optimizer, xs, ys, config.grad_clip, dtype, scaler)
        if device.type == "mps":
            loss.item()  # wait: only CUDA has events that time a queue

    return step
