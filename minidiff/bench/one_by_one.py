"""Ordinary attention by the code of fast/pair_kernel.py, every head by itself.

DIFF V2 by the fused pair can be faster than softmax on cuDNN for two reasons: the heads of a pair
share products, or the kernel is better. Against softmax by the same code only sharing is left, and
what tuning leaves. The loops and the two backward kernels are those of pair_kernel.py; read that
first. Sizes of tiles, warps and stages are not: each kernel was tuned by itself. For a head:

    dP = dO V^T,  dV = A^T dO,  dS = A * (dP - D),  D = rowsum(dO * O),  dQ = dS K,  dK = dS^T Q

This file needs Triton: import it only where it will be used.
"""

import torch
import triton
import triton.language as tl

from minidiff.fast.pair import row_sums
from minidiff.fast.pair_kernel import LOG2E, _rows, _tiles

# head size d: (queries M, keys N, warps, stages, registers a thread may use, or None), as a
# prototype of these kernels was tuned on an H100.
FORWARD = {64: (64, 128, 4, 2, None), 128: (64, 64, 4, 3, None)}
BACKWARD_QUERIES = {64: (64, 64, 4, 3, None), 128: (128, 64, 8, 3, None)}
BACKWARD_KEYS = {64: (64, 64, 4, 3, None), 128: (64, 64, 4, 2, None)}


@triton.jit(do_not_specialize=["T", "h", "h_kv"])
def _forward(
    q, k, v, out, lse, T, h, h_kv,
    scale: tl.constexpr, d: tl.constexpr, M: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """One program: M queries of one head, against the keys up to the last of these queries."""
    b, head = tl.program_id(0) // h, tl.program_id(0) % h
    kv = head // (h // h_kv)
    m0 = (tl.num_programs(1) - 1 - tl.program_id(1)) * M
    query = m0 + tl.arange(0, M)
    queries = q.load([b, head, m0, 0]).reshape(M, d)
    top = tl.full((M,), -float("inf"), tl.float32)
    total = tl.zeros((M,), tl.float32)
    acc = tl.zeros((M, d), tl.float32)
    for diagonal in tl.static_range(2):
        first, last = (m0 // N * N, m0 + M) if diagonal else (0, m0 // N * N)
        for n0 in range(first, last, N):
            keys = k.load([b, kv, n0, 0]).reshape(N, d)
            values = v.load([b, kv, n0, 0]).reshape(N, d)
            scores = tl.dot(queries, keys.T)  # (M, N)
            if diagonal:
                seen = query[:, None] >= n0 + tl.arange(0, N)[None, :]
                scores = tl.where(seen, scores, -float("inf"))
            new_top = tl.maximum(top, tl.max(scores, 1) * (scale * LOG2E))
            weights = tl.exp2(scores * (scale * LOG2E) - new_top[:, None])
            shrink = tl.exp2(top - new_top)
            total = total * shrink + tl.sum(weights, 1)
            acc = tl.dot(weights.to(values.dtype), values, acc * shrink[:, None])
            top = new_top
    out.store([b, head, m0, 0], (acc / total[:, None]).to(out.dtype).reshape(1, 1, M, d))
    lse.store([tl.program_id(0), m0], (top + tl.log2(total)).reshape(1, M))


@triton.jit(do_not_specialize=["T", "h", "h_kv"])
def _backward_queries(
    q, k, v, out, lse, grad, dq, delta, T, h, h_kv,
    scale: tl.constexpr, d: tl.constexpr, M: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """One program: dQ of M queries of one head; D for _backward_keys."""
    b, head = tl.program_id(0) // h, tl.program_id(0) % h
    kv = head // (h // h_kv)
    m0 = (tl.num_programs(1) - 1 - tl.program_id(1)) * M
    query = m0 + tl.arange(0, M)
    do = grad.load([b, head, m0, 0]).reshape(M, d)
    o = out.load([b, head, m0, 0]).reshape(M, d)
    row_delta = tl.sum(do.to(tl.float32) * o.to(tl.float32), 1)  # (M,)
    delta.store([tl.program_id(0), m0], row_delta.reshape(1, M))
    queries = q.load([b, head, m0, 0]).reshape(M, d)
    row_lse = lse.load([tl.program_id(0), m0]).reshape(M)
    acc = tl.zeros((M, d), tl.float32)
    for diagonal in tl.static_range(2):
        first, last = (m0 // N * N, m0 + M) if diagonal else (0, m0 // N * N)
        for n0 in range(first, last, N):
            keys = k.load([b, kv, n0, 0]).reshape(N, d)
            values = v.load([b, kv, n0, 0]).reshape(N, d)
            scores = tl.dot(queries, keys.T)  # (M, N)
            dp = tl.dot(do, values.T)  # (M, N)
            maps = tl.exp2(scores * (scale * LOG2E) - row_lse[:, None])
            if diagonal:
                seen = query[:, None] >= n0 + tl.arange(0, N)[None, :]
                maps = tl.where(seen, maps, 0.0)
            ds = maps * (dp - row_delta[:, None])
            acc = tl.dot(ds.to(keys.dtype), keys, acc)
    dq.store([b, head, m0, 0], (acc * scale).to(dq.dtype).reshape(1, 1, M, d))


@triton.jit(do_not_specialize=["T", "h", "h_kv"])
def _backward_keys(
    q, k, v, lse, grad, delta, dk, dv, T, h, h_kv,
    scale: tl.constexpr, d: tl.constexpr, M: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """One program: dK and dV of N keys of one key/value head, from all heads that read it."""
    b, kv = tl.program_id(0) // h_kv, tl.program_id(0) % h_kv
    n0 = tl.program_id(1) * N
    group = h // h_kv
    keys = k.load([b, kv, n0, 0]).reshape(N, d)
    values = v.load([b, kv, n0, 0]).reshape(N, d)
    key = n0 + tl.arange(0, N)
    dk_acc = tl.zeros((N, d), tl.float32)
    dv_acc = tl.zeros((N, d), tl.float32)
    later = tl.minimum(tl.cdiv(n0 + N, M), tl.cdiv(T, M))
    for diagonal in tl.static_range(2):
        first, last = (n0 // M, later) if diagonal else (later, tl.cdiv(T, M))
        for i in range(group * (last - first)):
            head = kv * group + i // (last - first)
            m0 = (first + i % (last - first)) * M
            queries = q.load([b, head, m0, 0]).reshape(M, d)
            do = grad.load([b, head, m0, 0]).reshape(M, d)
            row_lse = lse.load([b * h + head, m0]).reshape(M)
            row_delta = delta.load([b * h + head, m0]).reshape(M)
            scores = tl.dot(keys, queries.T)  # (N, M): transposed
            dp = tl.dot(values, do.T)  # (N, M)
            maps = tl.exp2(scores * (scale * LOG2E) - row_lse[None, :])
            if diagonal:
                seen = key[:, None] <= (m0 + tl.arange(0, M))[None, :]
                maps = tl.where(seen, maps, 0.0)
            dv_acc = tl.dot(maps.to(do.dtype), do, dv_acc)
            ds = maps * (dp - row_delta[None, :])
            dk_acc = tl.dot(ds.to(do.dtype), queries, dk_acc)
    dk.store([b, kv, n0, 0], (dk_acc * scale).to(dk.dtype).reshape(1, 1, N, d))
    dv.store([b, kv, n0, 0], dv_acc.to(dv.dtype).reshape(1, 1, N, d))


def softmax_attention(q, k, v, causal=True):
    """Causal grouped-query attention, with gradients: ``attention.attention``, for timing.

    Args:
        q: (B, T, H, d), bfloat16 or float16, d = 64 or 128. k, v: (B, T, h_kv, d).
    Returns:
        (B, T, H, d).
    """
    if not causal or q.shape[1] != k.shape[1] or q.shape[3] not in FORWARD:
        raise ValueError("this kernel is causal, for as many keys as queries, d = 64 or 128")
    return _operator(q, k, v)[0]


@torch.library.custom_op("minidiff::one_by_one", mutates_args=())
def _operator(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    q, k, v = (x.contiguous() for x in (q, k, v))
    B, T, h, d = q.shape
    M, N, *how = FORWARD[d]
    out, lse = torch.empty_like(q), row_sums(q)
    _start(
        _forward, B * h, T, d, M, N, how, k.shape[2], h,
        _tiles(q, M), _tiles(k, N), _tiles(v, N), _tiles(out, M), _rows(lse, M, 1),
    )  # fmt: skip
    return out, lse


@_operator.register_fake
def _(q, k, v):
    return q.new_empty(q.shape), row_sums(q)


@torch.library.custom_op("minidiff::one_by_one_backward", mutates_args=())
def _backward(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor,
    out: torch.Tensor, lse: torch.Tensor, grad: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    q, k, v, grad = (x.contiguous() for x in (q, k, v, grad))
    (B, T, h, d), h_kv = q.shape, k.shape[2]
    dq, dk, dv, delta = (torch.empty_like(x) for x in (q, k, v, lse))
    M, N, *how = BACKWARD_QUERIES[d]
    _start(
        _backward_queries, B * h, T, d, M, N, how, h_kv, h,
        _tiles(q, M), _tiles(k, N), _tiles(v, N), _tiles(out, M), _rows(lse, M, 1), _tiles(grad, M),
        _tiles(dq, M), _rows(delta, M, 1),
    )  # fmt: skip
    M, N, *how = BACKWARD_KEYS[d]
    _start(
        _backward_keys, B * h_kv, T, d, M, N, how, h_kv, h,
        _tiles(q, M), _tiles(k, N), _tiles(v, N), _rows(lse, M, 1), _tiles(grad, M),
        _rows(delta, M, 1), _tiles(dk, N), _tiles(dv, N),
    )  # fmt: skip
    return dq, dk, dv


@_backward.register_fake
def _(q, k, v, out, lse, grad):
    return tuple(x.new_empty(x.shape) for x in (q, k, v))


def _save_for_backward(ctx, inputs, output):
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs, *output)


_operator.register_autograd(
    lambda ctx, grad, _: _backward(*ctx.saved_tensors, grad), setup_context=_save_for_backward
)


def _start(kernel, heads, T, d, M, N, how, h_kv, h, *tensors):
    """Start a kernel: a program for each head and each tile that it owns."""
    warps, stages, registers = how
    with torch.cuda.device_of(tensors[0].base):
        kernel[heads, triton.cdiv(T, N if kernel is _backward_keys else M)](
            *tensors, T, h, h_kv, d**-0.5, d, M, N,
            num_warps=warps, num_stages=stages, maxnreg=registers,
        )  # fmt: skip
