"""Will it fit? What a model needs at least, against what the machine has, before any is allocated.

Weights are counted on the meta device, where tensors have shapes and take no memory. Activations
are counted from below: what is refused here could not have run.
"""

import contextlib
import dataclasses
import math
import numbers
import os
from pathlib import Path

import torch

from minidiff.devices import pick_dtype
from minidiff.model import ATTENTION, GPT
from minidiff.theory import kv_cache_bytes

BUILT = 32  # layers of a meta model; deeper ones are counted in proportion


def plain_numbers(config):
    """Make a dataclass's integers and floats Python's own (NumPy's are no JSON); refuse what is no
    finite number, by its name."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.type is int and not isinstance(value, numbers.Integral):
            raise ValueError(f"{field.name}={value!r} must be a whole number")
        if field.type is int and abs(value) >= 2**63:
            raise ValueError(f"{field.name}={value} is too large")
        if field.type is float and not (isinstance(value, numbers.Real) and math.isfinite(value)):
            raise ValueError(f"{field.name}={value!r} must be a finite number")
        if field.type in (str, bool) and not isinstance(value, field.type):
            raise ValueError(f"{field.name}={value!r} must be a {field.type.__name__}")
        if field.type in (int, float):
            object.__setattr__(config, field.name, field.type(value))


def model_bytes(config):
    """(weights, other tensors: the rotary table) of a GPTConfig in float32; inf beyond 2**63."""
    layers = min(config.n_layer, BUILT)
    try:
        with torch.device("meta"):
            model = GPT(dataclasses.replace(config, n_layer=layers))
    except (RuntimeError, OverflowError, TypeError):  # more than a 64-bit integer can count
        return math.inf, math.inf
    blocks = sum(p.nbytes for p in model.blocks.parameters())
    weights = sum(p.nbytes for p in model.parameters()) + blocks * (config.n_layer / layers - 1)
    return weights, model.rope.nbytes


def training_bytes(config, processes=1):
    """At least what one process needs on its device to train a TrainConfig.

    Weights, gradients and AdamW's two averages; for each block the inputs of its two parts and
    their norms (4 x D), and the logits, of all tokens of a micro-step.
    """
    model = config.model
    weights, table = model_bytes(model)
    tokens = config.batch_size // (config.grad_accum * processes) * model.block_size
    activations = 4.0 * tokens * (4 * model.n_layer * model.n_embd + model.vocab_size)
    return 4 * weights + table + activations


def cache_bytes(config, device):
    """What the KV cache of one sequence takes: it is made for all of a GPTConfig's block_size."""
    window = getattr(ATTENTION[config.attention], "window", None)  # YOCO's is smaller
    shape = (config.block_size, config.n_layer, config.n_kv_head, config.head_dim)
    return kv_cache_bytes(*shape, pick_dtype(device).itemsize, window=window)


def check_model(config, device, what, writes=False):
    """Raise a ValueError where a model, with its KV cache if it writes, cannot fit into memory."""
    needed = sum(model_bytes(config)) + (cache_bytes(config, device) if writes else 0)
    _refuse(needed, device, what, "its config.json may be damaged")


def check_training(config, device, processes=1):
    """Raise a ValueError where a training cannot fit into the memory of device or machine."""
    c = config.model
    sizes = [(f.name, getattr(c, f.name)) for f in dataclasses.fields(c) if f.type is int]
    sizes += [(name, getattr(config, name)) for name in ("batch_size", "eval_batches")]
    what = "training with " + " ".join(f"--{k.replace('_', '-')} {v}" for k, v in sizes)
    _refuse(training_bytes(config, processes), device, what, "take less, or a larger --grad-accum")
    windows = config.batch_size * max(2.0 * (c.block_size + 1), config.eval_batches)  # int64
    _refuse(8 * windows, torch.device("cpu"), what, "take less")


def _refuse(needed, device, what, fix):
    present = memory(device)
    if needed > present:
        raise ValueError(
            f"{what} needs at least {needed / 1e9:,.1f} GB of memory, and {device} has "
            f"{present / 1e9:,.1f} GB: {fix}"
        )


def memory(device):
    """Bytes of memory of a device; of the CPU what this process may take. inf if unknown."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    sizes = [math.inf]
    with contextlib.suppress(AttributeError, ValueError, OSError):  # not on Windows
        sizes.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for name in ("memory.max", "memory/memory.limit_in_bytes"):  # of a container, cgroups 2 and 1
        with contextlib.suppress(ValueError, OSError):
            sizes.append(int(Path("/sys/fs/cgroup", name).read_text(encoding="ascii")))
    return min(sizes)
