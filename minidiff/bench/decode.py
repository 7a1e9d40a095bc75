"""Speed of decoding one token at a time: attention alone, a whole model, and ``generate``.

Decoding reads the whole KV cache for every token and computes little with it: memory decides. DIFF
V2 keeps the cache of softmax with h heads and asks it twice as many queries: where a kernel loads
every key once for all query heads of its group, that costs no time (claim 6).
"""

import json
import math
import statistics
import sys
from dataclasses import asdict, dataclass
from functools import partial
from typing import ClassVar

import torch

from minidiff import devices, theory
from minidiff.attention import attention
from minidiff.bench import tools
from minidiff.bench.figures import draw_decode
from minidiff.bench.writing import dtype, generate_speed, recorded, timed, whole_steps
from minidiff.model import ATTENTION, GPTConfig
from minidiff.train import pick_device
from minidiff.variants import VARIANTS, variant


@dataclass(frozen=True)
class DecodeBench:
    """Decoding with softmax, DIFF V2 and DIFF V1 from caches of one size."""

    out: str = "runs/bench/decode.json"  # the results; the figure goes beside them
    device: str = "auto"  # auto (a GPU if there is one), cpu, cuda
    batches: tuple[int, ...] = (1, 8, 64)  # sequences decoded together
    contexts: tuple[int, ...] = (2048, 8192, 32768, 131072)  # tokens in the cache
    # names in variants; times are also given against softmax_h and softmax_1.5h
    variants: tuple[str, ...] = ("softmax_h", "softmax_1.5h", "diff_v2", "diff_v1", "softmax_2h")
    # cached (what generate calls), flash2 (flash_attn_with_kvcache), sdpa, flash4
    kernels: tuple[str, ...] = ("cached", "flash2", "sdpa")
    steps: bool = True  # also time whole steps of a model
    generate: bool = True  # also time generate(), with the 25M model
    n_layer: int = 8  # of the model; attention alone is that of one layer
    n_head: int = 16  # heads h of DIFF V2
    n_kv_head: int = 4  # key/value heads h_kv
    head_dim: int = 128  # d
    n_embd: int = 2048  # D
    rounds: int = 9  # a number is the median of so many
    repeats: int = 5  # passes, or tokens, in a row in each round
    rotate_gb: float = 1.0  # attention alone goes round caches of so much: more than L2 holds
    own_process: bool = True  # every size in a process of its own: a crash costs one size
    time_limit_s: float = 90.0  # for such a process

    CPU: ClassVar = {
        "batches": (1, 2), "contexts": (64, 128), "kernels": ("cached",), "n_layer": 2, "n_head": 4,
        "n_kv_head": 2, "head_dim": 16, "n_embd": 64, "rounds": 3, "repeats": 2, "rotate_gb": 0.0,
        "own_process": False,
    }  # fmt: skip

    def model(self, name, block_size):
        """The GPTConfig of a variant."""
        shape = GPTConfig(
            n_layer=self.n_layer, n_head=self.n_head, n_kv_head=self.n_kv_head,
            head_dim=self.head_dim, n_embd=self.n_embd, block_size=block_size,
        )  # fmt: skip
        return variant(shape, name)


def decode(config=None):
    """Time decoding. Returns what the JSON file holds.

    Rows by "what": "generate", the 25M model at batch 1, prompt and recording included; "copy", a
    large copy on the device, bytes read and written; "attention", that of one layer, replayed from
    a CUDA graph; "step", all that a model does for a token, replayed too. ms is for a token of
    every sequence. gb_per_s counts keys and values once (a step: the weights too); of_copy is its
    share of the copy. DIFF V1 must load its values twice, and its keys too with kernels that want
    them equally wide. differs: the relative difference of a kernel's output from that of "cached".

    "how": a step by fast/step.py ("fused", what generate takes where it can) or by the model's own
    modules; where both can be, the second row has "modules" for its kernel. vs_softmax_h and
    vs_softmax_1.5h are ratios of times, how being the same. first_token_ms: for generate to read
    ``prompt`` tokens and write one; first_call_s: the first text in a process, compiling included.
    """
    config = config or tools.defaults(DecodeBench)
    tools.check_names("variant", config.variants, VARIANTS)
    tools.check_names("kernel", config.kernels, KERNELS)
    for name in config.variants:
        config.model(name, 8)  # refuses heads that do not fit
    columns = ("what:9 variant:12 kernel:7 how:7 batch:5 context:7 ms:9 ms_low:9 ms_high:9 "
               "tokens_per_s:12 gb_per_s:8 of_copy:7 vs_softmax_h:12 vs_softmax_1.5h:15 "
               "first_token_ms:14 first_call_s:12 differs:8")  # fmt: skip
    report = tools.Report(config, pick_device(config.device), columns.split(), decode.__doc__)
    jobs = ["generate"] if config.generate else []
    jobs += [(batch, context) for context in config.contexts for batch in config.batches]
    if config.own_process:
        requests = [[asdict(config), job] for job in jobs]
        rows = tools.in_own_processes("minidiff.bench.decode", requests, config.time_limit_s)
    else:
        rows = (row for job in jobs for row in measure(config, job))
    for row in rows:
        report.add(row)
    return report.finish(draw_decode)


@torch.inference_mode()
def measure(config, job):
    """Yield the rows of one job: "generate", or a batch and a context."""
    device = pick_device(config.device)
    torch.manual_seed(0)
    if job == "generate":
        yield from generate_speed(config, device)
        return
    where = {"batch": job[0], "context": job[1]}
    bandwidths = _copy_gb_per_s(config, device)
    yield where | {"what": "copy"} | tools.spread("gb_per_s", bandwidths)
    generate_kernel, *candidates = (partial(_attention_alone, kernel=k) for k in config.kernels)
    for part in (generate_kernel, *([whole_steps] if config.steps else []), *candidates):
        for row in part(config, device, *job):
            if "gb_per_s" in row:
                row["of_copy"] = tools.rounded(row["gb_per_s"] / statistics.median(bandwidths))
            yield where | row


def _copy_gb_per_s(config, device):
    """The memory's speed: bytes read and written by a large copy, in each round."""
    source = torch.randn(2**28 if device.type == "cuda" else 2**20, device=device)
    copy = partial(torch.empty_like(source).copy_, source)
    copy()
    times = devices.time_rounds({"copy": copy}, config.rounds, config.repeats, device)["copy"]
    return [2 * source.nbytes / ms / 1e6 for ms in times]


# ---- Attention alone ---------------------------------------------------------------------------


def _flash4(q, k, v, n_keys):
    from flash_attn.cute import flash_attn_func

    splits = 0 if torch.cuda.get_device_capability() >= (10, 0) else 1  # on Hopper it cannot split
    out = flash_attn_func(q, k, v, num_splits=splits)
    return out[0] if isinstance(out, tuple) else out


KERNELS = {  # name: function of q (B, 1, H, d), k and v (B, S, h_kv, d), and n_keys = S
    "cached": lambda q, k, v, n_keys: attention(q, k, v, n_keys=n_keys),
    "flash2": lambda q, k, v, n_keys: attention(q, k, v, n_keys=n_keys, backend="flash2"),
    "sdpa": lambda q, k, v, n_keys: attention(q, k, v, backend="sdpa"),
    "flash4": _flash4,
}


def _attend(name, kernel, q, k, v, n_keys):
    """The outputs of all kernel calls that one layer of the variant makes for a token."""
    if not name.startswith("diff_v1"):
        return [KERNELS[kernel](q, k, v, n_keys)]
    return [  # each branch of the queries and keys reads both halves of the wide values
        KERNELS[kernel](q[:, :, branch::2], k[:, :, branch::2], v[:, :, half::2], n_keys)
        for branch in (0, 1)
        for half in (0, 1)
    ]


def _attention_alone(config, device, batch, context, kernel):
    random = partial(torch.randn, device=device, dtype=dtype(device))
    size = (batch, context, config.n_kv_head, config.head_dim)
    cache_bytes = 2 * math.prod(size) * dtype(device).itemsize
    n_caches = max(1, int(config.rotate_gb * 1e9 / cache_bytes))
    caches, error = tools.attempt(lambda: [(random(size), random(size)) for _ in range(n_caches)])
    if error:
        yield {"what": "attention", "kernel": kernel, "error": error}
        return
    n_keys = torch.tensor([context], dtype=torch.int32, device=device)
    passes, replays, rows = {}, {}, {}  # passes: a CUDA graph does not keep its inputs alive
    for name in config.variants:
        key = name, kernel
        rows[key] = {"what": "attention", "variant": name, "kernel": kernel}
        shape = config.model(name, context)
        heads = shape.n_head * ATTENTION[shape.attention].query_heads_per_head
        q = random(batch, 1, heads, config.head_dim)
        passes[key] = [partial(_attend, name, kernel, q, k, v, n_keys) for k, v in caches]
        replay, error = tools.attempt(partial(recorded, passes[key], device))
        if error:
            yield rows[key] | {"error": error}
            continue
        out, same = (_attend(name, k, q, *caches[0], n_keys)[0] for k in (kernel, "cached"))
        difference = (out.float() - same.float()).norm() / same.float().norm()
        rows[key]["differs"] = tools.rounded(difference.item(), 2)
        replays[key] = replay
    for name, seconds, row in timed(
        replays, rows, config, device, repeats=config.repeats, per_call=n_caches
    ):
        operations, read = theory.decode_attention_cost(
            context, tools.counted_heads(config.model(name, context)), config.n_kv_head,
            config.head_dim, dtype(device).itemsize,
        )  # fmt: skip
        yield row | {
            "gb_per_s": tools.rounded(batch * read / seconds / 1e9),
            "tflops": tools.rounded(batch * operations / seconds / 1e12),
            "flops_per_byte": operations / read,
        }


if __name__ == "__main__":  # in a process of its own: see tools.in_own_processes
    settings, job = json.loads(sys.stdin.readline())
    for row in measure(DecodeBench(**settings), job):
        print(json.dumps(row), flush=True)
