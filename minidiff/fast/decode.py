"""Attention of one new token over a KV cache, as a Triton kernel: "flash decoding".

With one query per sequence there is next to nothing to compute: the time is that of reading the
cache. Two ideas keep the memory busy:

- All query heads that share a key/value head are rows of one tile, so every key and value is read
  once. DIFF V2's doubled query heads therefore cost no extra reading.
- The keys are split among many programs, since B * h_kv programs alone leave a GPU idle. Softmax
  allows it: a program keeps the largest score it saw, the sum of exp(score - largest) and that sum
  weighted by the values; a second, small kernel puts the programs' results together.

This file needs Triton, which comes with PyTorch for GPUs: import it only where it will be used.
"""

import functools
import math
import os
import shutil

import torch
import triton
import triton.language as tl

if not any(map(shutil.which, (os.environ.get("CC", "cc"), "gcc", "clang"))):
    raise ImportError("Triton needs a C compiler to start its kernels: install gcc, or set CC")

WARPS, STAGES = 4, 3  # 3 stages: one tile is computed on while the next is on its way
TILE_BYTES = 2**14  # a tile of keys, and one of values; two of each take 64 KB of shared memory
PROGRAMS_PER_SM = 2  # 64 KB on their way to every SM: what a Hopper's memory needs is about half
START_COST = 2  # of starting and ending a program, in the time of a tile


def split_decode(q, k_cache, v_cache, n_keys, *, lam_logit=None, n_splits=None):
    """Attention of one query per sequence over the first n_keys positions of a cache.

    n_keys is read on the device and no shape depends on it: one CUDA graph serves every length.

    Args:
        q: (B, 1, H, d), float16, bfloat16 or float32 (slow).
        k_cache, v_cache: (B, S_max, h_kv, d), where h_kv divides H; any strides but the last.
        n_keys: int32 tensor (1,), at least 1. What the cache holds after n_keys is never read.
        lam_logit: (B, 1, H/2), contiguous: subtract in each pair of heads, as in
            attention.differential; None: do not.
        n_splits: among how many programs the keys are split, a power of two; None: by rule.
    Returns:
        (B, 1, H, d), or (B, 1, H/2, d) of the pairs, in the dtype of q. No gradients.
    Raises:
        ValueError: the shapes or strides do not fit.
    """
    (B, T, H, d), (_, S_max, h_kv, _) = q.shape, k_cache.shape
    shapes = k_cache.shape == v_cache.shape == (B, S_max, h_kv, d) and T == 1 and H % h_kv == 0
    if not shapes or {q.stride(3), k_cache.stride(3), v_cache.stride(3)} != {1}:
        raise ValueError(
            f"q {tuple(q.shape)}, caches {tuple(k_cache.shape)}, {tuple(v_cache.shape)} must be "
            "(B, 1, H, d) and (B, S_max, h_kv, d), h_kv a divisor of H, channels adjacent"
        )
    group, wide = H // h_kv, max(16, triton.next_power_of_2(d))
    rows = max(16, triton.next_power_of_2(group))  # the tensor cores want 16
    block = min(128, max(16, TILE_BYTES // (wide * k_cache.element_size())))  # keys per tile
    n_splits = n_splits or count_splits(B * h_kv, triton.cdiv(S_max, block), _n_sm(q.device))
    scratch = q.new_empty(B, H, n_splits, d, dtype=torch.float32)
    top, total = q.new_empty(2, B, H, n_splits, dtype=torch.float32)
    out = q.new_empty(B, 1, H if lam_logit is None else H // 2, d)
    with torch.cuda.device_of(q):  # Triton launches on the current device
        _attend_split[h_kv, B, n_splits](
            q, k_cache, v_cache, n_keys, scratch, top, total, math.log2(math.e) / math.sqrt(d),
            q.stride(0), q.stride(2), k_cache.stride(0), v_cache.stride(0),
            *k_cache.stride()[1:3], *v_cache.stride()[1:3], group, rows, d, wide, block,
            num_warps=WARPS, num_stages=STAGES,
        )  # fmt: skip
        programs = (out.numel() // d,)
        _combine[programs](scratch, top, total, lam_logit, out, n_splits, d, wide, num_warps=8)
    return out


def count_splits(groups, n_tiles, n_sm):
    """Among how many programs to split each of ``groups`` caches of n_tiles tiles.

    A GPU runs PROGRAMS_PER_SM * n_sm programs at a time, wave after wave; a last wave that is
    nearly empty wastes nearly all of its time. Powers of two, since each one compiles _combine.
    """

    def time(n):
        waves = math.ceil(groups * n / (PROGRAMS_PER_SM * n_sm))
        return waves * (math.ceil(n_tiles / n) + START_COST)

    return min((1, 2, 4, 8, 16, 32, 64, 128), key=time)  # of equal times, the first


@functools.cache
def _n_sm(device):
    """How many multiprocessors; a few on a CPU, where Triton's interpreter runs the tests."""
    if device.type != "cuda":
        return 4
    return torch.cuda.get_device_properties(device).multi_processor_count


@triton.jit
def _load_tile(start, rows, row_stride, d: tl.constexpr, wide: tl.constexpr):
    """Rows of a matrix with d channels, as (rows, wide): the channels after d are zero."""
    channel = tl.arange(0, wide)[None, :]
    pointers = start + rows[:, None].to(tl.int64) * row_stride + channel
    masked = d < wide  # known while compiling
    return tl.load(pointers, mask=channel < d, other=0.0) if masked else tl.load(pointers)


@triton.jit
def _attend_split(
    q, k, v, n_keys, scratch, top_out, total_out, scale: tl.constexpr,  # float64 if not constexpr
    q_batch, q_head, k_batch, v_batch,
    k_row: tl.constexpr, k_head: tl.constexpr, v_row: tl.constexpr, v_head: tl.constexpr,
    group: tl.constexpr, rows: tl.constexpr, d: tl.constexpr, wide: tl.constexpr,
    block: tl.constexpr,
):  # fmt: skip
    """One program: the query heads of one key/value head, over one share of the filled keys."""
    kv_head, b, split = tl.program_id(0), tl.program_id(1).to(tl.int64), tl.program_id(2)
    n_splits = tl.num_programs(2)
    n = tl.load(n_keys)
    n_tiles = tl.cdiv(n, block)
    first, last = split * n_tiles // n_splits, (split + 1) * n_tiles // n_splits  # perhaps none

    member = tl.arange(0, rows)  # query head kv_head * group + member; after group, padding
    head = kv_head * group + tl.minimum(member, group - 1)
    q_tile = _load_tile(q + b * q_batch, head, q_head, d, wide)  # (rows, wide)
    k += b * k_batch + kv_head * k_head
    v += b * v_batch + kv_head * v_head

    top = tl.full((rows,), -float("inf"), tl.float32)  # the largest score so far
    total = tl.zeros((rows,), tl.float32)  # the sum of 2^(score - top)
    acc = tl.zeros((rows, wide), tl.float32)  # the same sum, weighted by the values
    for tile in range(first, last):
        key = tile * block + tl.arange(0, block)
        filled = tl.minimum(key, n - 1)  # past the end the last key again, so no garbage is read
        k_tile = _load_tile(k, filled, k_row, d, wide)  # (block, wide)
        v_tile = _load_tile(v, filled, v_row, d, wide)
        scores = tl.dot(q_tile, tl.trans(k_tile), input_precision="ieee") * scale  # (rows, block)
        scores = tl.where(key[None, :] < n, scores, -float("inf"))
        new_top = tl.maximum(top, tl.max(scores, 1))
        weights = tl.exp2(scores - new_top[:, None])  # scale holds log2(e): 2^x is the fast one
        shrink = tl.exp2(top - new_top)  # what was summed so far had been relative to the old top
        total = total * shrink + tl.sum(weights, 1)
        acc = tl.dot(
            weights.to(v_tile.dtype), v_tile, acc * shrink[:, None], input_precision="ieee"
        )
        top = new_top

    channel = tl.arange(0, wide)[None, :]
    place = (b * tl.num_programs(0) * group + head) * n_splits + split  # in (B, H, n_splits)
    real = member < group
    tl.store(top_out + place, top, mask=real)
    tl.store(total_out + place, total, mask=real)
    real = real[:, None] & (channel < d)
    tl.store(scratch + place[:, None] * d + channel, acc, mask=real)


@triton.jit
def _combine(
    scratch, top, total, lam_logit, out, n_splits: tl.constexpr, d: tl.constexpr,
    wide: tl.constexpr,
):  # fmt: skip
    """One program: the splits of one query head, or of the two heads of a pair."""
    head = tl.program_id(0).to(tl.int64)  # in (B, heads of out)
    if lam_logit is None:
        acc = _all_splits(scratch, top, total, head, n_splits, d, wide)
    else:
        lam = tl.sigmoid(tl.load(lam_logit + head).to(tl.float32))
        acc = _all_splits(scratch, top, total, 2 * head, n_splits, d, wide)
        acc -= lam * _all_splits(scratch, top, total, 2 * head + 1, n_splits, d, wide)
    channel = tl.arange(0, wide)
    tl.store(out + head * d + channel, acc.to(out.dtype.element_ty), mask=channel < d)


@triton.jit
def _all_splits(
    scratch, top, total, head, n_splits: tl.constexpr, d: tl.constexpr, wide: tl.constexpr
):
    """The output of one query head (wide,). An empty split has top -inf, so weight 0."""
    place = head * n_splits + tl.arange(0, n_splits)
    tops = tl.load(top + place)
    weights = tl.exp2(tops - tl.max(tops, 0))  # (n_splits,)
    acc = tl.sum(_load_tile(scratch, place, d, d, wide) * weights[:, None], 0)  # (wide,)
    return acc / tl.sum(tl.load(total + place) * weights, 0)
