"""The time of a training step of each variant, for a comparison in equal time."""

import gc
import statistics

import torch
from tqdm import tqdm

from minidiff.devices import compile_now, how_to_compile, pick_dtype, time_rounds
from minidiff.model import GPT
from minidiff.train import make_optimizer, training_step

ROUNDS, IN_A_ROW = 15, 4


def step_ms(configs, device):
    """Milliseconds of a training step of each variant: the median of some rounds, after warm-up.

    All are timed in turn in every round, so that a drift of the clock meets them alike. Reading
    text, validation and checkpoints, which cost all of them the same, are left out.

    Args:
        configs: name -> its :class:`~minidiff.train.TrainConfig`.
    Raises:
        ValueError: the models do not fit on the GPU together.
    """
    torch.compiler.reset()
    steps = {}
    try:
        for name, config in tqdm(configs.items(), desc="building", unit="model"):
            steps[name] = _step(config, device)
            for _ in range(3):  # compile, and fill what a first step fills
                steps[name]()
        times = time_rounds(steps, ROUNDS, IN_A_ROW, device)
    except torch.OutOfMemoryError:
        raise ValueError(
            f"--equal-time: {', '.join(configs)} do not fit on the GPU together: give fewer "
            "--variants"
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
