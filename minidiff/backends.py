"""The fast ways to compute attention, and the choice among them.

Every backend is a function (q, k, v, causal) -> out with the shapes of ``attention.py``. None of
them stores the (T, S) maps: their memory grows with T, not with T * S.

flash-attn 2 (``flash_attn``) and flash-attn 4 (``flash_attn.cute``) are separate packages that
share a namespace: with only flash-attn 4 installed, ``from flash_attn import ...`` fails. Both are
imported at first use, so that minidiff needs neither.
"""

import functools
import importlib
import logging

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

log = logging.getLogger("minidiff")

# ---- PyTorch's scaled_dot_product_attention ----------------------------------------------------

# The first in the list that can run is used; cuDNN's kernel was the fastest of them on Hopper.
_SDPA_ORDER = [
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]


def _sdpa(q, k, v, causal, mask=None):
    n_queries, n_keys = q.shape[1], k.shape[1]
    if causal and 1 < n_queries < n_keys:  # is_causal would align its mask to the FIRST keys
        mask = torch.ones(n_queries, n_keys, dtype=torch.bool, device=q.device)
        mask = mask.tril(n_keys - n_queries)
    grouped = q.shape[2] != k.shape[2]
    if grouped and not _sdpa_knows_groups(q.device):
        k, v = (x.repeat_interleave(q.shape[2] // k.shape[2], dim=2) for x in (k, v))
        grouped = False
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))  # SDPA wants (B, H, T, d)
    is_causal = causal and n_queries == n_keys  # one query with a cache (T = 1) sees every key
    call = functools.partial(
        F.scaled_dot_product_attention,
        q, k, v, attn_mask=mask, is_causal=is_causal, enable_gqa=grouped,
    )  # fmt: skip
    if not q.is_cuda:
        return call().transpose(1, 2)
    with sdpa_kernel(_SDPA_ORDER, set_priority=True):
        return call().transpose(1, 2)  # (B, T, H, d)


@torch.compiler.assume_constant_result
def _sdpa_knows_groups(device):
    """Before Ampere (sm80) enable_gqa leaves only the 'math' kernel, which stores the maps."""
    return device.type != "cuda" or torch.cuda.get_device_capability(device) >= (8, 0)


# ---- flash-attn 2 ------------------------------------------------------------------------------


@functools.cache
def _package(module):
    """The imported module, or the error that says why it cannot be imported."""
    try:
        return importlib.import_module(module)
    except (ImportError, OSError, AttributeError) as error:  # OSError: built for another CUDA
        return error


def _flash2(q, k, v, causal):
    from flash_attn import flash_attn_func

    return flash_attn_func(q, k, v, causal=causal)


# ---- flash-attn 4, wrapped as one operator so that torch.compile need not look inside ----------


@torch.library.custom_op("minidiff::flash4", mutates_args=())
def _flash4_forward(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, causal: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    forward = _package("flash_attn.cute.interface")._flash_attn_fwd
    return forward(q, k, v, causal=causal, return_lse=True)[:2]


@_flash4_forward.register_fake
def _(q, k, v, causal):
    lse = q.new_empty((q.shape[0], q.shape[2], q.shape[1]), dtype=torch.float32)  # (B, H, T)
    return q.new_empty((*q.shape[:3], v.shape[3])), lse


@torch.library.custom_op("minidiff::flash4_backward", mutates_args=())
def _flash4_backward(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor,
    out: torch.Tensor, grad: torch.Tensor, lse: torch.Tensor, causal: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    backward = _package("flash_attn.cute.interface")._flash_attn_bwd
    return backward(q, k, v, out, grad.contiguous(), lse, causal=causal)[:3]


@_flash4_backward.register_fake
def _(q, k, v, out, grad, lse, causal):
    return tuple(x.new_empty(x.shape) for x in (q, k, v))


def _save_for_backward(ctx, inputs, output):
    q, k, v, ctx.causal = inputs
    ctx.save_for_backward(q, k, v, *output)


def _gradients(ctx, grad, _grad_lse):
    q, k, v, out, lse = ctx.saved_tensors
    return *_flash4_backward(q, k, v, out, grad, lse, ctx.causal), None


_flash4_forward.register_autograd(_gradients, setup_context=_save_for_backward)


def _flash4(q, k, v, causal):
    return _flash4_forward(q, k, v, causal)[0]


# ---- Attention over a preallocated cache, for generation ---------------------------------------


def cached_attention(q, k_cache, v_cache, n_keys, *, backend="auto"):
    """Causal attention over a cache of which only the first n_keys positions are filled.

    n_keys is a tensor, so that one CUDA graph serves every position. No gradients. SDPA reads the
    whole cache, the others only what is filled.

    Args:
        q: (B, T, H, d), the queries of the last T filled positions.
        k_cache, v_cache: (B, S_max, h_kv, d).
        n_keys: int32 tensor (1,), the T new positions included.
        backend: "auto": decode_kernel.py for T = 1, else flash-attn 2, each where it can run, else
            SDPA with a mask. "flash", "flash2", "flash4": flash-attn 2, the only one with a kernel
            for caches, where it can run, else SDPA. "sdpa", "naive": SDPA.
    Returns:
        (B, T, H, d).
    """
    tensors = (q.device, q.dtype, q.shape[-1])
    choose_backend(backend, *tensors)  # raises if it cannot run
    if backend == "auto" and q.shape[1] == 1 and _why_not("split", *tensors) is None:
        return _package("minidiff.decode_kernel").split_decode(q, k_cache, v_cache, n_keys)
    if backend not in ("naive", "sdpa") and _why_not("flash2", *tensors) is None:
        from flash_attn import flash_attn_with_kvcache

        n_keys = n_keys.expand(q.shape[0]).contiguous()  # (B,)
        return flash_attn_with_kvcache(q, k_cache, v_cache, cache_seqlens=n_keys, causal=True)
    position = n_keys - q.shape[1] + torch.arange(q.shape[1], device=q.device)  # (T,)
    mask = torch.arange(k_cache.shape[1], device=q.device) <= position[:, None]  # (T, S_max)
    return _sdpa(q, k_cache, v_cache, causal=False, mask=mask)


# ---- Choosing ----------------------------------------------------------------------------------

FAST_BACKENDS = {"sdpa": _sdpa, "flash2": _flash2, "flash4": _flash4}
BACKENDS = ("auto", "naive", "sdpa", "flash", "flash2", "flash4")


@torch.compiler.assume_constant_result  # decided while compiling, not traced
def choose_backend(backend, device, dtype, head_dim):
    """What ``backend`` stands for on such tensors; said once in the log.

    "auto" follows what was measured (notebooks/results/): flash-attn 4 where it runs, which is on
    Hopper and newer, else SDPA, whose own flash kernels need no package.

    Raises:
        ValueError: an unknown name.
        RuntimeError: the named backend cannot run here, with the reason and the fix.
    """
    return _choose(backend, device, dtype, head_dim)


@functools.cache
def _choose(backend, device, dtype, head_dim):
    if backend not in BACKENDS:
        raise ValueError(f"backend={backend!r} is unknown: use one of {', '.join(BACKENDS)}")
    tries = {"auto": ("flash4", "sdpa"), "flash": ("flash4", "flash2")}.get(backend, (backend,))
    reasons = {name: _why_not(name, device, dtype, head_dim) for name in tries}
    chosen = next((name for name, reason in reasons.items() if reason is None), None)
    if chosen is None:
        raise RuntimeError(f"backend={backend!r} cannot run here: {reasons[tries[-1]]}")
    passed_over = "".join(f"; not {name}: {why}" for name, why in reasons.items() if why)
    log.info("attention on %s, %s, d=%d: %s%s", device, dtype, head_dim, chosen, passed_over)
    return chosen


def available_backends(device=None):
    """Each backend's name -> "ready: ..." or "cannot run: ..." with the reason and the fix."""
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    backends = {
        "naive": "the formula; any device and dtype, memory grows with T * S",
        "sdpa": f"PyTorch {torch.__version__}",
        "flash4": "flash-attn 4 (flash_attn.cute)",
        "flash2": "flash-attn 2 (flash_attn)",
    }
    report = {}
    for name, what in backends.items():
        reason = _why_not(name, device, dtype, head_dim=64)
        report[name] = f"cannot run: {reason}" if reason else f"ready: {what}"
    report["flash"] = report["flash4" if report["flash4"].startswith("ready") else "flash2"]
    return report


def _why_not(name, device, dtype, head_dim):
    """None where the backend can run such tensors, else the reason and the fix."""
    if name in ("naive", "sdpa"):
        return None
    # Of flash-attn only the head sizes that agreed with the formula on an H200 (tests/test_gpu.py):
    # version 2.8.3 gave NaN at 72 and 96, version 4.0.0b36 a wrong gradient at 72.
    module, package, capability, head_sizes = {
        "flash2": ("flash_attn", "flash-attn", (8, 0), (32, 64, 128)),
        "flash4": ("flash_attn.cute.interface", "flash-attn-4", (9, 0), (32, 64, 128)),
        "split": ("minidiff.decode_kernel", "triton", (8, 0), range(8, 257, 8)),  # for one query
    }[name]
    if device.type != "cuda":
        return f"it needs a CUDA GPU and the tensors are on {device.type}; use backend='sdpa'"
    if torch.cuda.get_device_capability(device) < capability:
        return f"it needs compute capability {capability[0]}.{capability[1]}; use backend='sdpa'"
    if isinstance(_package(module), Exception):
        return f"{_package(module)}; pip install {package}, or use backend='sdpa'"
    if dtype not in (torch.bfloat16, torch.float16):
        return f"it needs bfloat16 or float16, not {dtype}; cast, or use backend='sdpa'"
    if head_dim not in head_sizes:
        return f"at head size {head_dim} it is untested or wrong; use backend='sdpa'"
    return None
