"""Drawing the next token on the GPU, as a Triton kernel: no number goes to the host.

The Gumbel trick: where g_i = -log(-log(u_i)) with u_i uniform, the largest z_i + g_i is at token i
with probability softmax(z)_i. The u_i come from Philox, a function that turns a seed and a counter
into random bits: here the counter is (token, position, sequence). So a draw needs no state, which
a recorded CUDA graph would have to carry along, and the seed alone decides the text.

This file needs Triton: import it only where it will be used.
"""

import torch
import triton
import triton.language as tl

import minidiff.fast.decode  # noqa: F401  (says what is missing where Triton cannot compile)


def draw(logits, token, text, length, seed, temperature, top_k):
    """Draw one token for each row of logits; write it into token and at text[:, length].

    The same distribution as generate.sample, by other random numbers.

    Args:
        logits: (B, vocab_size), float, contiguous. token: (B, 1) int64. text: (B, L) int64.
        length: int32 tensor (1,): the position to be written. seed: int64 tensor (1,).
        temperature, top_k: as in generate.
    """
    B, vocab_size = logits.shape
    wide = triton.next_power_of_2(vocab_size)
    cut = top_k is not None and top_k < vocab_size
    with torch.cuda.device_of(logits):  # Triton launches on the current device
        _draw[(B,)](
            logits, token, text, length, seed, float(temperature or 1), top_k if cut else 0,
            text.shape[1], vocab_size, wide, temperature == 0, cut,
            num_warps=min(32, max(1, wide // 256)),
        )  # fmt: skip


@triton.jit(do_not_specialize=["temperature", "top_k", "text_width"])
def _draw(
    logits, token_out, text, length, seed, temperature, top_k, text_width,
    vocab_size: tl.constexpr, wide: tl.constexpr, greedy: tl.constexpr, cut: tl.constexpr,
):  # fmt: skip
    """One program: one sequence, its whole vocabulary at once."""
    b = tl.program_id(0).to(tl.int64)
    token = tl.arange(0, wide)
    z = tl.load(logits + b * vocab_size + token, mask=token < vocab_size, other=-float("inf"))
    z = z.to(tl.float32)
    position = tl.load(length)
    if not greedy:
        z /= temperature
        if cut:
            z = tl.where(_is_among_largest(z, top_k), z, -float("inf"))
        counter = token * 0
        bits, _, _, _ = tl.philox(
            tl.load(seed), token, counter + position, counter + b.to(tl.int32), counter
        )
        z += -tl.log(-tl.log(tl.uint_to_uniform_float(bits)))
    best = tl.argmax(z, 0).to(tl.int64)
    tl.store(token_out + b, best)
    tl.store(text + b * text_width + position, best)


@triton.jit
def _is_among_largest(z, k):
    """Whether each number is at least the k-th largest: found by its 32 bits, highest first."""
    bits = z.to(tl.uint32, bitcast=True)
    sign = bits >> 31
    order = tl.where(sign == 1, ~bits, bits | 0x80000000)  # as whole numbers, sorted as floats are
    kth = tl.zeros((1,), tl.uint32)
    for i in tl.static_range(32):
        larger = kth | (1 << (31 - i))
        enough = tl.sum((order >= larger).to(tl.int32), 0) >= k
        kth = tl.where(enough, larger, kth)
    return order >= kth
