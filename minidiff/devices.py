"""Where and how a step is computed: processes, device, dtype, compilation; and its time."""

import importlib.util
import logging
import os
import shutil
import time

import torch
import torch.distributed as dist

log = logging.getLogger("minidiff")


def processes():
    """(rank, number of processes) that torchrun's environment names; alone (0, 1)."""
    rank, world = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
    if not (rank.isdecimal() and world.isdecimal() and int(rank) < int(world)):
        raise ValueError(
            f"RANK={rank} and WORLD_SIZE={world} in the environment do not fit: start several "
            "processes with torchrun, or unset both"
        )
    return int(rank), int(world)


def only_one_process(what):
    """Refuse torchrun where the work is not shared."""
    if processes()[1] > 1:
        raise ValueError(f"{what} runs in one process: start it without torchrun")


def start_distributed(device):
    """As :func:`processes`, which can then talk to each other."""
    rank, world = processes()
    if world > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return rank, world


def pick_device(name="auto"):
    """The torch.device of "auto" (this process's GPU, or the CPU), "cpu", "cuda" or "mps"."""
    if name not in ("auto", "cpu", "cuda", "mps"):
        raise ValueError(f"--device {name}: use auto, cpu, cuda or mps")
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if name == "mps":
        if not torch.backends.mps.is_available():
            raise ValueError("device=mps: PyTorch sees no Apple GPU here; use --device cpu")
        return torch.device("mps")
    if not torch.cuda.is_available():
        raise ValueError("device=cuda: PyTorch sees no GPU here; use --device cpu")
    local, count = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if local >= count:
        raise ValueError(f"every process needs a GPU of its own: use --nproc_per_node {count}")
    device = torch.device("cuda", local)
    torch.cuda.set_device(device)
    return device


def pick_dtype(device, name="auto"):
    """What matmuls are computed in. auto: bfloat16 on a GPU that has it (Ampere, 2020, and newer),
    float16 on an older one, float32 elsewhere. Weights are float32 in any case."""
    if name != "auto":
        return getattr(torch, name)
    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16


def autocast(device, dtype=None):
    """The context in which matmuls are done in dtype, or in that of ``pick_dtype``."""
    dtype = dtype or pick_dtype(device)
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)


# A value that is read more often than this is stored and not computed again by each reader. At
# PyTorch's 4 the sum of the gradients of q, k, v and lambda, and only it, was: a pass over the
# residual stream in every layer of DIFF V2, and none in softmax.
COMPILING = {"realize_reads_threshold": 8}


def compiled(model, how, device):
    """The model to call in training: see :func:`how_to_compile`.

    All blocks share one compiled code, which is ready within seconds.
    """
    how = how_to_compile(how, device)
    if how != "none":
        torch.compiler.reset()  # what earlier models of this process left counts against a limit
    return compile_now(model, how)


def how_to_compile(how, device):
    """What "auto" means: block by block on a GPU that can, else not at all."""
    if how == "auto" and device.type == "cuda" and (reason := why_not_compile(device)):
        log.warning("not compiled, so slower: %s", reason)
        how = "none"
    if how == "auto":
        how = "blocks" if device.type == "cuda" else "none"
    return how


def compile_now(model, how):
    """The model compiled in blocks, as a "model", or with "none" as it is."""
    if how == "blocks":
        for block in model.blocks:
            block.compile(options=COMPILING)
    return torch.compile(model, options=COMPILING) if how == "model" else model


def why_not_compile(device):
    """What torch.compile lacks on this machine, with the fix; None where it can run."""
    if device.type == "cuda":
        if importlib.util.find_spec("triton") is None:
            return "Triton is missing: pip install triton"
        if torch.cuda.get_device_capability(device) < (7, 0):
            return "Triton needs a GPU of compute capability 7.0 (Volta, 2017) or newer"
    names = [os.environ.get("CC"), os.environ.get("CXX"), "cc", "gcc", "clang", "g++", "cl"]
    if not any(shutil.which(name) for name in names if name):
        return "there is no C compiler: install gcc or clang"
    return None


def to_device(device, tensor):
    """To a GPU without waiting for the copy."""
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def elapsed_ms(call, repeats, device):
    """Milliseconds of one call, over ``repeats`` in a row, which keep a GPU's queue filled."""
    if device.type != "cuda":
        start = time.perf_counter()
        for _ in range(repeats):
            call()
        return 1e3 * (time.perf_counter() - start) / repeats
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    for _ in range(repeats):
        call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / repeats


def time_rounds(calls, rounds, repeats, device):
    """name -> milliseconds of its call in each round. Every round times each call in turn, so that
    a drift of the GPU's clock meets all of them alike."""
    times = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            times[name].append(elapsed_ms(call, repeats, device))
    return times
