"""DIFF V2 attention as one operation, in Triton: what the two heads of a pair share is done once.

    out = O1 - lambda O2,    O1 = A1 V,    O2 = A2 V,    A = softmax(Q K^T / sqrt(d)),    causal

Forward: as flash-attention does it. A program owns M queries of a pair, 2M rows, the M of one head
over the M of the other. It walks over the keys, N at a time, with a running softmax, so every key
and value is read once for both heads, and the subtraction happens before anything is written.

Backward: let dO be the gradient of out, D1 = rowsum(dO * O1) and D2 = rowsum(dO * O2). Then

    dP  = dO V^T                         the gradient of A1; that of A2 is -lambda dP: one product
    dV  = (A1 - lambda A2)^T dO          one product, where two ordinary heads take two
    dS1 = A1 * (dP - D1)                 softmax's backward; S are the scores Q K^T / sqrt(d)
    dS2 = lambda A2 * (D2 - dP)
    dQ1 = dS1 K,  dQ2 = dS2 K,  dK = dS1^T Q1 + dS2^T Q2,  each times 1 / sqrt(d)
    dlambda = -D2                        and of its logit: -D2 lambda (1 - lambda)

A1 and A2 are computed again, from the scores and the logarithm of the sum of every row, "lse".
What is stored is lse1 and lse2 - log(lambda): the same line of code then gives A1 and lambda A2.
O1 is not stored: D1 = rowsum(dO * out) + lambda D2.

No two programs add to one number, so runs repeat bit for bit: one kernel owns queries and writes
dQ, another owns keys and writes dK and dV. For that both compute the scores and dP, which makes
5 + 6 products for a pair, where two ordinary heads in such kernels take 2 * (3 + 4).

A tile is read through a descriptor, ``x.load([b, head, t, 0])``: on Hopper and newer one thread
asks for the tile and a copy engine (TMA) brings it, zeros in the place of what lies after position
T. So a length T that no tile divides needs no mask: a query after T has dO = 0 and q = 0 and adds
nothing to dK and dV, a key after T is later than every query, and what is written there is dropped.
"""

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

from minidiff.fast.pair import row_sums

# head size d: (queries M, keys N, warps, stages, registers a thread may use, or None), the fastest
# of some eight on an H100. A cap on registers lets more programs share a multiprocessor.
FORWARD = {64: (32, 64, 4, 3, None), 128: (32, 32, 4, 3, None)}
BACKWARD_QUERIES = {64: (64, 32, 4, 3, 168), 128: (64, 64, 4, 2, None)}
BACKWARD_KEYS = {64: (64, 64, 4, 3, None), 128: (32, 64, 4, 3, None)}
LOG2E = tl.constexpr(1.4426950408889634)  # e^x = 2^(x log2 e): a GPU has an instruction for 2^x


@triton.jit(do_not_specialize=["T", "h", "h_kv"])
def _forward(
    q, k, v, lam_logit, out, out2, lse, T, h, h_kv,
    scale: tl.constexpr, d: tl.constexpr, M: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """One program: M queries of one pair, against the keys up to the last of these queries."""
    b, pair = tl.program_id(0) // h, tl.program_id(0) % h
    kv = pair // (h // h_kv)
    m0 = (tl.num_programs(1) - 1 - tl.program_id(1)) * M  # the rows with most keys start first
    query = m0 + tl.arange(0, 2 * M) % M  # of each row
    queries = q.load([b, 2 * pair, m0, 0]).reshape(2 * M, d)

    top = tl.full((2 * M,), -float("inf"), tl.float32)  # the largest score so far, times log2(e)
    total = tl.zeros((2 * M,), tl.float32)  # the sum of 2^(score - top)
    acc = tl.zeros((2 * M, d), tl.float32)  # the same sum, weighted by the values
    for diagonal in tl.static_range(2):  # first the keys that every row sees, then the others
        first, last = (m0 // N * N, m0 + M) if diagonal else (0, m0 // N * N)
        for n0 in range(first, last, N):
            keys = k.load([b, kv, n0, 0]).reshape(N, d)
            values = v.load([b, kv, n0, 0]).reshape(N, d)
            scores = tl.dot(queries, keys.T)  # (2M, N)
            if diagonal:
                seen = query[:, None] >= n0 + tl.arange(0, N)[None, :]
                scores = tl.where(seen, scores, -float("inf"))
            new_top = tl.maximum(top, tl.max(scores, 1) * (scale * LOG2E))
            weights = tl.exp2(scores * (scale * LOG2E) - new_top[:, None])
            shrink = tl.exp2(top - new_top)  # what was summed so far was relative to the old top
            total = total * shrink + tl.sum(weights, 1)
            acc = tl.dot(weights.to(values.dtype), values, acc * shrink[:, None])
            top = new_top

    o1, o2 = (acc / total[:, None]).reshape(2, M, d).permute(1, 2, 0).split()  # (M, d) each
    lse1, lse2 = (top + tl.log2(total)).reshape(2, M).permute(1, 0).split()  # (M,) each
    lam, _ = _lambda(lam_logit, b, m0, pair, T, h, M)
    out.store([b, pair, m0, 0], (o1 - lam[:, None] * o2).to(out.dtype).reshape(1, 1, M, d))
    out2.store([b, pair, m0, 0], o2.to(out2.dtype).reshape(1, 1, M, d))
    _store_pair(lse, tl.program_id(0), m0, lse1, lse2 - tl.log2(lam), M)


@triton.jit(do_not_specialize=["T", "h", "h_kv"])
def _backward_queries(
    q, k, v, lam_logit, out, out2, lse, grad, dq, dlogit, delta, T, h, h_kv,
    scale: tl.constexpr, d: tl.constexpr, M: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """One program: dQ and dlogit of M queries of one pair; D1 and D2 for _backward_keys."""
    b, pair = tl.program_id(0) // h, tl.program_id(0) % h
    kv = pair // (h // h_kv)
    m0 = (tl.num_programs(1) - 1 - tl.program_id(1)) * M
    query = m0 + tl.arange(0, 2 * M) % M
    do = grad.load([b, pair, m0, 0]).reshape(M, d)
    o2 = out2.load([b, pair, m0, 0]).reshape(M, d)
    o = out.load([b, pair, m0, 0]).reshape(M, d)
    lam, at = _lambda(lam_logit, b, m0, pair, T, h, M)
    d2 = tl.sum(do.to(tl.float32) * o2.to(tl.float32), 1)  # (M,)
    d1 = tl.sum(do.to(tl.float32) * o.to(tl.float32), 1) + lam * d2
    tl.store(dlogit + at, -d2 * lam * (1 - lam), mask=m0 + tl.arange(0, M) < T)
    _store_pair(delta, tl.program_id(0), m0, d1, d2, M)

    queries = q.load([b, 2 * pair, m0, 0]).reshape(2 * M, d)
    row_lse = lse.load([2 * tl.program_id(0), m0]).reshape(2 * M)
    acc = tl.zeros((2 * M, d), tl.float32)
    for diagonal in tl.static_range(2):
        first, last = (m0 // N * N, m0 + M) if diagonal else (0, m0 // N * N)
        for n0 in range(first, last, N):
            keys = k.load([b, kv, n0, 0]).reshape(N, d)
            values = v.load([b, kv, n0, 0]).reshape(N, d)
            scores = tl.dot(queries, keys.T)  # (2M, N)
            dp = tl.dot(do, values.T)  # (M, N)
            maps = tl.exp2(scores * (scale * LOG2E) - row_lse[:, None])  # A1 over lambda A2
            if diagonal:
                seen = query[:, None] >= n0 + tl.arange(0, N)[None, :]
                maps = tl.where(seen, maps, 0.0)
            a1, a2 = maps.reshape(2, M, N).permute(1, 2, 0).split()
            ds = tl.join(a1 * (dp - d1[:, None]), a2 * (d2[:, None] - dp))  # (M, N, 2)
            ds = ds.permute(2, 0, 1).reshape(2 * M, N)  # dS1 over dS2
            acc = tl.dot(ds.to(keys.dtype), keys, acc)
    dq.store([b, 2 * pair, m0, 0], (acc * scale).to(dq.dtype).reshape(1, 2, M, d))


@triton.jit(do_not_specialize=["T", "h", "h_kv"])
def _backward_keys(
    q, k, v, lse, grad, delta, dk, dv, T, h, h_kv,
    scale: tl.constexpr, d: tl.constexpr, M: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """One program: dK and dV of N keys of one key/value head, from all pairs that read it."""
    b, kv = tl.program_id(0) // h_kv, tl.program_id(0) % h_kv
    n0 = tl.program_id(1) * N  # the first keys, which most queries see, start first
    group = h // h_kv  # pairs that read this key/value head
    keys = k.load([b, kv, n0, 0]).reshape(N, d)
    values = v.load([b, kv, n0, 0]).reshape(N, d)
    key = n0 + tl.arange(0, N)
    dk_acc = tl.zeros((N, d), tl.float32)
    dv_acc = tl.zeros((N, d), tl.float32)
    later = tl.minimum(tl.cdiv(n0 + N, M), tl.cdiv(T, M))  # from this tile on, queries see all keys
    for diagonal in tl.static_range(2):
        first, last = (n0 // M, later) if diagonal else (later, tl.cdiv(T, M))
        for i in range(group * (last - first)):  # over the pairs, and over the queries of each
            pair = kv * group + i // (last - first)
            m0 = (first + i % (last - first)) * M
            queries = q.load([b, 2 * pair, m0, 0]).reshape(2 * M, d)
            do = grad.load([b, pair, m0, 0]).reshape(M, d)
            row_lse = lse.load([2 * (b * h + pair), m0]).reshape(2 * M)
            d1, d2 = delta.load([2 * (b * h + pair), m0]).permute(1, 0).split()  # (M,) each
            scores = tl.dot(keys, queries.T)  # (N, 2M): transposed
            dp = tl.dot(values, do.T)  # (N, M)
            maps = tl.exp2(scores * (scale * LOG2E) - row_lse[None, :])  # A1^T beside lambda A2^T
            if diagonal:
                seen = key[:, None] <= (m0 + tl.arange(0, 2 * M) % M)[None, :]
                maps = tl.where(seen, maps, 0.0)
            a1, a2 = maps.reshape(N, 2, M).permute(0, 2, 1).split()
            dv_acc = tl.dot((a1 - a2).to(do.dtype), do, dv_acc)
            ds = tl.join(a1 * (dp - d1[None, :]), a2 * (d2[None, :] - dp))  # (N, M, 2)
            ds = ds.permute(0, 2, 1).reshape(N, 2 * M)  # dS1^T beside dS2^T
            dk_acc = tl.dot(ds.to(do.dtype), queries, dk_acc)
    dk.store([b, kv, n0, 0], (dk_acc * scale).to(dk.dtype).reshape(1, 1, N, d))
    dv.store([b, kv, n0, 0], dv_acc.to(dv.dtype).reshape(1, 1, N, d))


@triton.jit
def _lambda(lam_logit, b, m0, pair, T, h, M: tl.constexpr):
    """lambda (M,) of M queries of a pair, in float32, and where their logits (B, T, h) lie."""
    query = m0 + tl.arange(0, M)
    at = (b.to(tl.int64) * T + query) * h + pair
    logit = tl.load(lam_logit + at, mask=query < T, other=0.0).to(tl.float32)
    return tl.sigmoid(logit), at


@triton.jit
def _store_pair(x, b_pair, m0, first, second, M: tl.constexpr):
    """Two numbers for each of M queries into x (B * 2h, T)."""
    x.store([2 * b_pair, m0], tl.join(first, second).permute(1, 0))


# ---- Starting the kernels ----------------------------------------------------------------------


def forward(q, k, v, lam_logit):
    """What pair.py's operator computes, of contiguous tensors.

    Returns:
        out and O2 (B, T, h, d), and lse (B * 2h, T) in float32, its rows padded to 16 bytes.
    """
    (B, T, _, d), h = q.shape, lam_logit.shape[2]
    M, N, warps, stages, registers = FORWARD[d]
    out, out2 = q.new_empty(B, T, h, d), q.new_empty(B, T, h, d)
    lse = row_sums(q)
    with torch.cuda.device_of(q):  # Triton launches on the current device
        _forward[B * h, triton.cdiv(T, M)](
            _tiles(q, M, 2), _tiles(k, N), _tiles(v, N), lam_logit, _tiles(out, M),
            _tiles(out2, M), _rows(lse, M), T, h, k.shape[2], d**-0.5, d, M, N,
            num_warps=warps, num_stages=stages, maxnreg=registers,
        )  # fmt: skip
    return out, out2, lse


def backward_queries(q, k, v, lam_logit, out, out2, lse, grad):
    """dq and dlogit, and for :func:`backward_keys` delta, shaped as lse."""
    (B, T, _, d), h = q.shape, lam_logit.shape[2]
    M, N, warps, stages, registers = BACKWARD_QUERIES[d]
    dq, dlogit, delta = torch.empty_like(q), torch.empty_like(lam_logit), torch.empty_like(lse)
    with torch.cuda.device_of(q):
        _backward_queries[B * h, triton.cdiv(T, M)](
            _tiles(q, M, 2), _tiles(k, N), _tiles(v, N), lam_logit, _tiles(out, M),
            _tiles(out2, M), _rows(lse, M), _tiles(grad, M), _tiles(dq, M, 2), dlogit,
            _rows(delta, M), T, h, k.shape[2], d**-0.5, d, M, N,
            num_warps=warps, num_stages=stages, maxnreg=registers,
        )  # fmt: skip
    return dq, dlogit, delta


def backward_keys(q, k, v, lse, grad, delta):
    """dk and dv."""
    (B, T, heads, d), h_kv = q.shape, k.shape[2]
    M, N, warps, stages, registers = BACKWARD_KEYS[d]
    dk, dv = torch.empty_like(k), torch.empty_like(v)
    with torch.cuda.device_of(q):
        _backward_keys[B * h_kv, triton.cdiv(T, N)](
            _tiles(q, M, 2), _tiles(k, N), _tiles(v, N), _rows(lse, M), _tiles(grad, M),
            _rows(delta, M), _tiles(dk, N), _tiles(dv, N), T, heads // 2, h_kv, d**-0.5, d, M, N,
            num_warps=warps, num_stages=stages, maxnreg=registers,
        )  # fmt: skip
    return dk, dv


def _tiles(x, rows, heads=1):
    """x (B, T, H, d) as (B, H, T, d), in tiles of some positions of one head, or of a pair's."""
    x = x.transpose(1, 2)
    return TensorDescriptor(x, x.shape, x.stride(), [1, heads, rows, x.shape[3]])


def _rows(x, rows, heads=2):
    """x (B * H, T) in tiles of some positions of a pair, or of one head."""
    return TensorDescriptor(x, x.shape, x.stride(), [heads, rows])
