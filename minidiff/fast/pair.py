"""DIFF V2 attention as one operator, forward and backward: both heads of a pair at once.

The gradients of the two heads differ by the factor -lambda, so the backward of a pair needs eight
matrix products where two ordinary heads need ten. pair_kernel.py, which derives this, takes 11: its
two kernels each compute the scores and dO V^T, and two ordinary heads in such kernels take 14. Here
it becomes an operator, inside which torch.compile does not look.
"""

import torch

HEAD_SIZES = (64, 128)


def pair_attention(q, k, v, lam_logit):
    """Causal DIFF V2 attention, with gradients: ``attention.diff_attention`` in one operator.

    Args:
        q: (B, T, 2h, d), bfloat16 or float16, d = 64 or 128. k, v: (B, T, h_kv, d), where h_kv
            divides h. lam_logit: (B, T, h), any float type.
    Returns:
        (B, T, h, d), in the dtype of q. The same input gives the same bits, in the gradients too.
    Raises:
        ValueError: the shapes or dtypes do not fit.
    """
    (B, T, heads, d), h_kv = q.shape, k.shape[2]
    fits = k.shape == v.shape == (B, T, h_kv, d) and lam_logit.shape == (B, T, heads // 2)
    if not fits or heads % (2 * h_kv) or d not in HEAD_SIZES or not q.dtype == k.dtype == v.dtype:
        raise ValueError(
            f"q {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)}, logit "
            f"{tuple(lam_logit.shape)} must be (B, T, 2h, d), (B, T, h_kv, d) twice and (B, T, h) "
            f"of one dtype, h_kv a divisor of h, d one of {HEAD_SIZES}"
        )
    return _forward(q, k, v, lam_logit)[0]


# ---- The operators -----------------------------------------------------------------------------


@torch.library.custom_op("minidiff::pair", mutates_args=())
def _forward(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, lam_logit: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """out, and what the backward needs: O2 and the sums of the softmax rows."""
    from minidiff.fast import pair_kernel  # needs triton

    return pair_kernel.forward(*(x.contiguous() for x in (q, k, v, lam_logit)))


def row_sums(q):
    """A float32 number for each head and query of q: (B * H, T), its rows padded to 16 bytes."""
    B, T, H, _ = q.shape
    return q.new_empty(B * H, (T + 3) // 4 * 4, dtype=torch.float32)


@_forward.register_fake
def _(q, k, v, lam_logit):
    out = q.new_empty((*lam_logit.shape, q.shape[3]))
    return out, torch.empty_like(out), row_sums(q)


@torch.library.custom_op("minidiff::pair_backward", mutates_args=())
def _backward(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, lam_logit: torch.Tensor,
    out: torch.Tensor, out2: torch.Tensor, lse: torch.Tensor, grad: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    from minidiff.fast import pair_kernel

    q, k, v, lam_logit, grad = (x.contiguous() for x in (q, k, v, lam_logit, grad))
    dq, dlogit, delta = pair_kernel.backward_queries(q, k, v, lam_logit, out, out2, lse, grad)
    return dq, *pair_kernel.backward_keys(q, k, v, lse, grad, delta), dlogit


@_backward.register_fake
def _(q, k, v, lam_logit, out, out2, lse, grad):
    return tuple(x.new_empty(x.shape) for x in (q, k, v, lam_logit))


def _save_for_backward(ctx, inputs, output):
    ctx.set_materialize_grads(False)  # O2 and lse have no gradient: make no zeros for them
    ctx.save_for_backward(*inputs, *output)


def _gradients(ctx, grad, _grad_out2, _grad_lse):
    return _backward(*ctx.saved_tensors, grad)


_forward.register_autograd(_gradients, setup_context=_save_for_backward)
