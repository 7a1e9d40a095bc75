"""Softmax attention and the differential step of DIFF V2: pure functions of tensors.

Shapes are the same in the whole package (the flash-attn layout):

    q     (B, T, H, d)       B sequences, T queries, H query heads, head size d
    k, v  (B, S, h_kv, d)    S keys; query head j reads key/value head j // (H / h_kv)

Differential Transformer V2 uses H = 2h query heads and ONE ordinary attention call:

    a      = attention(q, k, v)                             (B, T, 2h, d)
    out[i] = a[2i] - sigmoid(lam_logit[i]) * a[2i+1]        (B, T, h, d)

Source: Ye, Dong, Sun, Wei, "Differential Transformer V2", Microsoft 2026.
"""

import math

import torch

from minidiff.backends import FAST_BACKENDS, choose_backend


def differential(attn, lam_logit):
    """Subtract, in each pair of heads (2i, 2i+1), the second from the first.

    Neighbours are paired because heads 2i and 2i+1 read the same key/value head: pairing i with
    i + h would subtract attention over *different* keys and values as soon as h_kv > 1.

    Args:
        attn: (B, T, 2h, d) output of ordinary attention.
        lam_logit: (B, T, h), one number per token and head; lambda = sigmoid(lam_logit).
    Returns:
        (B, T, h, d), in the dtype of ``attn``.
    Raises:
        ValueError: ``attn`` does not have exactly two heads for each logit.
    """
    if attn.shape[:2] != lam_logit.shape[:2] or attn.shape[2] != 2 * lam_logit.shape[2]:
        raise ValueError(
            f"attn {tuple(attn.shape)} must be (B, T, 2h, d) for lam_logit (B, T, h), "
            f"which is {tuple(lam_logit.shape)}"
        )
    first, second = attn.unflatten(2, (-1, 2)).unbind(3)  # heads 2i and 2i+1: (B, T, h, d) each
    lam = torch.sigmoid(lam_logit).unsqueeze(-1)  # (B, T, h, 1): the same for all d channels
    return (first - lam * second).to(attn.dtype)


def diff_attention(q, k, v, lam_logit, *, backend="auto"):
    """Causal DIFF V2 attention: one softmax attention call, then :func:`differential`.

    Args:
        q: (B, T, 2h, d). k, v: (B, S, h_kv, d), where h_kv divides h. lam_logit: (B, T, h).
        backend: as in :func:`attention`.
    Returns:
        (B, T, h, d).
    Raises:
        ValueError: shapes do not fit, or a pair of heads would straddle two key/value heads.
    """
    h, h_kv = lam_logit.shape[2], k.shape[2]
    if h % h_kv:
        raise ValueError(f"h={h} must be a multiple of h_kv={h_kv}, or a pair straddles two groups")
    return differential(attention(q, k, v, backend=backend), lam_logit)


def attention(q, k, v, *, backend="auto", causal=True):
    """Grouped-query softmax attention.

    Args:
        q: (B, T, H, d). k, v: (B, S, h_kv, d), where h_kv divides H.
        backend: "naive" (the formula; any device, float64 too), "sdpa" (PyTorch's kernels),
            "flash" (the newest flash-attn that runs here; "flash2" and "flash4" name one), or
            "auto", the fastest that can run these tensors.
        causal: query i sees no later key; with S > T the queries are the last T positions.
    Returns:
        (B, T, H, d), in the dtype of q.
    Raises:
        ValueError: shapes do not fit, or an unknown backend.
        RuntimeError: the named backend cannot run these tensors here; the message says why.
    """
    _check_shapes(q, k, v, causal)
    name = choose_backend(backend, q.device, q.dtype, q.shape[-1])
    if name != "naive":
        return FAST_BACKENDS[name](q, k, v, causal)
    maps = attention_weights(q, k, causal=causal)  # (B, H, T, S): this is what 'fast' avoids
    v = v.repeat_interleave(q.shape[2] // v.shape[2], dim=2)  # (B, S, H, d)
    with torch.autocast(q.device.type, enabled=False):
        return torch.einsum("bhts,bshd->bthd", maps, v.to(maps.dtype)).to(q.dtype)


def attention_weights(q, k, *, causal=True):
    """The attention maps softmax(q k^T / sqrt(d)), as the naive backend uses them.

    Args:
        q: (B, T, H, d). k: (B, S, h_kv, d), where h_kv divides H.
    Returns:
        (B, H, T, S) float32 (float64 when q is float64); every row sums to 1.
    """
    _check_shapes(q, k, k, causal)
    dtype = torch.promote_types(q.dtype, torch.float32)
    k = k.repeat_interleave(q.shape[2] // k.shape[2], dim=2)  # one key head for each query head
    with torch.autocast(q.device.type, enabled=False):  # float32 in mixed precision, too
        scores = torch.einsum("bthd,bshd->bhts", q.to(dtype), k.to(dtype)) / math.sqrt(q.shape[-1])
    if causal:
        n_queries, n_keys = scores.shape[2:]
        sees = torch.ones(n_queries, n_keys, dtype=torch.bool, device=q.device)
        sees = sees.tril(n_keys - n_queries)  # the last query sees every key
        scores = scores.masked_fill(~sees, -math.inf)
    return scores.softmax(dim=-1)


def _check_shapes(q, k, v, causal):
    same_kv = k.dim() == v.dim() == q.dim() == 4 and k.shape[:3] == v.shape[:3]
    if not same_kv or q.shape[0] != k.shape[0] or q.shape[3] != k.shape[3]:
        raise ValueError(
            f"q {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)} do not fit: "
            "q is (B, T, H, d), k and v are (B, S, h_kv, d)"
        )
    if q.shape[2] % k.shape[2]:
        raise ValueError(f"{q.shape[2]} query heads cannot share {k.shape[2]} key/value heads")
    if causal and q.shape[1] > k.shape[1]:
        raise ValueError(f"causal=True needs a key for each query: T={q.shape[1]}, S={k.shape[1]}")
