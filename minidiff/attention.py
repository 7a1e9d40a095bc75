"""Softmax attention and the differential step of DIFF V2: pure functions of tensors.

Shapes are the same in the whole package (the flash-attn layout):

    q     (B, T, H, d)       B sequences, T queries, H query heads, head size d
    k, v  (B, S, h_kv, d)    S keys; query head j reads key/value head j // (H / h_kv)

Differential Transformer V2 uses H = 2h query heads and ONE ordinary attention call:

    a      = attention(q, k, v)                             (B, T, 2h, d)
    out[i] = a[2i] - sigmoid(lam_logit[i]) * a[2i+1]        (B, T, h, d)

Source: Ye, Dong, Sun, Wei, "Differential Transformer V2", Microsoft 2026. Needs torch alone.
"""

import functools
import logging
import math
from collections.abc import Callable
from contextlib import nullcontext
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

_say_once = functools.cache(logging.getLogger("minidiff").info)


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
        shapes = f"attn {tuple(attn.shape)}, lam_logit {tuple(lam_logit.shape)}"
        raise ValueError(f"{shapes} do not fit: they are (B, T, 2h, d) and (B, T, h)")
    first, second = attn.unflatten(2, (-1, 2)).unbind(3)  # heads 2i and 2i+1: (B, T, h, d) each
    lam = torch.sigmoid(lam_logit).unsqueeze(-1)  # (B, T, h, 1): the same for all d channels
    return (first - lam * second).to(attn.dtype)


def diff_attention(q, k, v, lam_logit, *, backend="auto", n_keys=None):
    """Causal DIFF V2 attention: one softmax attention call, then :func:`differential`.

    Args:
        q: (B, T, 2h, d). k, v: (B, S, h_kv, d), where h_kv divides h. lam_logit: (B, T, h).
        backend, n_keys: as in :func:`attention`; "auto" takes a kernel that does both steps at
            once where there is one.
    Returns:
        (B, T, h, d).
    Raises:
        ValueError: shapes do not fit, or a pair of heads would straddle two key/value heads.
    """
    h, h_kv = lam_logit.shape[2], k.shape[2]
    if h % h_kv:
        raise ValueError(f"h={h} must be a multiple of h_kv={h_kv}, or a pair straddles two groups")
    if n_keys is None and (pair := choose(PAIR, backend, q, k, v)):
        return pair.run(q, k, v, lam_logit)
    return differential(attention(q, k, v, backend=backend, n_keys=n_keys), lam_logit)


def attention(q, k, v, *, backend="auto", causal=True, n_keys=None):
    """Grouped-query softmax attention.

    Args:
        q: (B, T, H, d). k, v: (B, S, h_kv, d), where h_kv divides H.
        backend: "naive" (the formula; any device, float64 too), "sdpa" (PyTorch's kernels), one
            of minidiff/fast ("flash", ...), or "auto", the fastest that can run these tensors.
        causal: query i sees no later key; with S > T the queries are the last T positions. With
            n_keys it is always so.
        n_keys: int32 tensor (1,), for decoding: k and v are a cache, filled so far, the new T
            included. On the device, so that one CUDA graph serves every length. No gradients.
    Returns:
        (B, T, H, d), in the dtype of q.
    Raises:
        ValueError: shapes do not fit. RuntimeError: the named backend cannot run here, and why.
    """
    _check_shapes(q, k, v, causal)
    if n_keys is None:
        return choose(PLAIN, backend, q, k, v).run(q, k, v, causal)
    choose(PLAIN, backend, q, k, v, log=False)  # with a cache, too, a named backend must run here
    return choose(CACHED, backend, q, k, v).run(q, k, v, n_keys)


def attention_weights(q, k, *, causal=True, mask=None):
    """The attention maps softmax(q k^T / sqrt(d)), as the naive backend uses them.

    Args:
        q: (B, T, H, d). k: (B, S, h_kv, d), where h_kv divides H.
        mask: instead of causal's: bool, True where a query sees a key, broadcast to (B, H, T, S).
    Returns:
        (B, H, T, S) float32 (float64 when q is float64); every row sums to 1.
    """
    _check_shapes(q, k, k, causal and mask is None)
    dtype = torch.promote_types(q.dtype, torch.float32)
    k = k.repeat_interleave(q.shape[2] // k.shape[2], dim=2)  # one key head for each query head
    with torch.autocast(q.device.type, enabled=False):  # float32 in mixed precision, too
        scores = torch.einsum("bthd,bshd->bhts", q.to(dtype), k.to(dtype)) / math.sqrt(q.shape[-1])
    if causal and mask is None:
        mask = _causal_mask(q, k)
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    return scores.softmax(dim=-1)


def _naive(q, k, v, causal, mask=None):
    maps = attention_weights(q, k, causal=causal, mask=mask)  # (B, H, T, S): fast ones avoid it
    v = v.repeat_interleave(q.shape[2] // v.shape[2], dim=2)  # (B, S, H, d)
    with torch.autocast(q.device.type, enabled=False):
        return torch.einsum("bhts,bshd->bthd", maps, v.to(maps.dtype)).to(q.dtype)


def _causal_mask(q, k, n_keys=None):
    """(T, S), True where a query sees a key: the queries are the last T of S, or of n_keys."""
    T, S = q.shape[1], k.shape[1]
    position = torch.arange(T, device=q.device) + (S if n_keys is None else n_keys) - T  # (T,)
    return torch.arange(S, device=q.device) <= position.unsqueeze(1)


def _check_shapes(q, k, v, causal):
    same_kv = k.dim() == v.dim() == q.dim() == 4 and k.shape[:3] == v.shape[:3]
    if not same_kv or q.shape[0] != k.shape[0] or q.shape[3] != k.shape[3]:
        shapes = f"q {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)}"
        raise ValueError(f"{shapes} do not fit: q is (B, T, H, d), k and v are (B, S, h_kv, d)")
    if q.shape[2] % k.shape[2]:
        raise ValueError(f"{q.shape[2]} query heads cannot share {k.shape[2]} key/value heads")
    if causal and q.shape[1] > k.shape[1]:
        raise ValueError(f"causal=True needs a key for each query: T={q.shape[1]}, S={k.shape[1]}")


# The first that can run is used; cuDNN's was the fastest of them on Hopper.
_SDPA_ORDER = [SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION,
               SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]  # fmt: skip


def _sdpa(q, k, v, causal, mask=None):
    if causal and q.shape[1] < k.shape[1]:  # is_causal would align its mask to the FIRST keys
        causal, mask = False, _causal_mask(q, k) if q.shape[1] > 1 else None  # one sees every key
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))  # SDPA wants (B, H, T, d)
    with sdpa_kernel(_SDPA_ORDER, set_priority=True) if q.is_cuda else nullcontext():
        grouped = q.shape[1] != k.shape[1]
        out = F.scaled_dot_product_attention(q, k, v, mask, is_causal=causal, enable_gqa=grouped)
    return out.transpose(1, 2)  # (B, T, H, d)


def _over_cache(run):
    """Of a function that takes a mask: reads the whole cache, and masks what is not filled."""
    return lambda q, k, v, n_keys: run(q, k, v, False, _causal_mask(q, k, n_keys))


class Kernel(NamedTuple):
    """A way to compute an operation. can_run(q, k, v): None, or why it cannot and the fix."""

    name: str
    run: Callable
    can_run: Callable = lambda q, k, v: None


# What can compute each operation: a backend's name stands for a list, best first. minidiff/fast
# puts its own before these. PAIR is diff_attention in one kernel; None stands for two steps.
SDPA, SDPA_CACHED = Kernel("sdpa", _sdpa), Kernel("sdpa", _over_cache(_sdpa))
NAIVE, NAIVE_CACHED = Kernel("naive", _naive), Kernel("naive", _over_cache(_naive))
PLAIN = {"auto": [SDPA], "naive": [NAIVE], "sdpa": [SDPA]}
CACHED = {"auto": [SDPA_CACHED], "naive": [NAIVE_CACHED], "sdpa": [SDPA_CACHED]}
PAIR = {backend: [None] for backend in PLAIN}


def choose(operation, backend, q, k, v, log=True):
    """The first kernel of a backend that can run these tensors; the log says once which it is."""
    if backend not in operation:
        raise ValueError(f"backend={backend!r} is unknown: use one of {', '.join(operation)}")
    passed_over = ""
    for kernel in operation[backend]:
        reason = kernel and kernel.can_run(q, k, v)
        if reason is None:
            if kernel and log and not torch.compiler.is_compiling():
                what = "attention over a cache" if operation is CACHED else "attention"
                facts = (what, q.device, q.dtype, q.shape[-1], kernel.name, passed_over)
                _say_once("%s on %s, %s, d=%d: %s%s", *facts)
            return kernel
        passed_over += f"; not {kernel.name}: {reason}"
    raise RuntimeError(f"backend={backend!r} cannot run here: {reason}")
