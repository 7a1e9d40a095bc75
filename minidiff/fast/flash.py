"""flash-attn 2 (``flash_attn``) and flash-attn 4 (``flash_attn.cute``) as kernels.

None of them stores the (T, S) maps: their memory grows with T, not with T * S. The two are separate
packages that share a namespace: with only flash-attn 4 installed, ``from flash_attn import ...``
fails. Both are imported at first use.
"""

import torch

# ---- flash-attn 2 ------------------------------------------------------------------------------


def flash2(q, k, v, causal):
    """(B, T, H, d), (B, S, h_kv, d) x 2 -> (B, T, H, d), by flash-attn 2."""
    from flash_attn import flash_attn_func

    return flash_attn_func(q, k, v, causal=causal)


def flash2_cached(q, k_cache, v_cache, n_keys):
    """The same over the first n_keys positions of a cache; reads only those."""
    from flash_attn import flash_attn_with_kvcache

    n_keys = n_keys.expand(q.shape[0]).contiguous()  # (B,)
    return flash_attn_with_kvcache(q, k_cache, v_cache, cache_seqlens=n_keys, causal=True)


# ---- flash-attn 4, wrapped as one operator so that torch.compile need not look inside ----------


@torch.library.custom_op("minidiff::flash4", mutates_args=())
def _flash4_forward(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, causal: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    from flash_attn.cute.interface import _flash_attn_fwd

    return _flash_attn_fwd(q, k, v, causal=causal, return_lse=True)[:2]


@_flash4_forward.register_fake
def _(q, k, v, causal):
    lse = q.new_empty((q.shape[0], q.shape[2], q.shape[1]), dtype=torch.float32)  # (B, H, T)
    return q.new_empty((*q.shape[:3], v.shape[3])), lse


@torch.library.custom_op("minidiff::flash4_backward", mutates_args=())
def _flash4_backward(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor,
    out: torch.Tensor, grad: torch.Tensor, lse: torch.Tensor, causal: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    from flash_attn.cute.interface import _flash_attn_bwd

    return _flash_attn_bwd(q, k, v, out, grad.contiguous(), lse, causal=causal)[:3]


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


def flash4(q, k, v, causal):
    """(B, T, H, d), (B, S, h_kv, d) x 2 -> (B, T, H, d), by flash-attn 4."""
    return _flash4_forward(q, k, v, causal)[0]
