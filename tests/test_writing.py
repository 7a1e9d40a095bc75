"""Writing on a GPU, against the plain loop: in Triton's interpreter, and on a CUDA GPU.

Run as a program, this file checks the kernels in the interpreter: Triton decides whether to
interpret when it is imported, so that needs a process of its own.
"""

import dataclasses
import importlib.util
import logging
import math
import os
import subprocess
import sys

import pytest
import torch

from minidiff import GPT, GPTConfig, variant
from minidiff.fast import decoder
from minidiff.fast.decoder import record_graph, token_step, write
from minidiff.generate import WRITERS, Decoder, KVCache, sample

needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None,
    reason="needs triton, which PyTorch's CPU builds do not bring",
)
NAMES = ("softmax_h", "softmax_1.5h", "diff_v2")
SMALL = GPTConfig(n_layer=2, n_head=2, n_kv_head=1, head_dim=8, n_embd=24, block_size=12,
                  vocab_size=37)  # fmt: skip
LARGER = GPTConfig(n_layer=2, n_head=4, n_kv_head=2, head_dim=64, n_embd=192, block_size=96)


def sharp(config, name="diff_v2", device="cpu"):
    """A model whose maps are far from uniform and whose norms have gains."""
    with torch.device(device):
        model = GPT(variant(config, name)).requires_grad_(False)
    for module in model.modules():
        if isinstance(module, torch.nn.RMSNorm):
            module.weight.uniform_(0.5, 2)
    for block in model.blocks:
        block.attn.q_proj.weight.mul_(30)
        block.attn.k_proj.weight.mul_(10)
    return model


def worst(got, expected):
    """The largest relative error of the logits of a position."""
    error = (got.double() - expected).norm(dim=-1) / expected.norm(dim=-1)
    return error.max().item()


def chi_square(tokens, logits, temperature, top_k):
    """(chi square of the tokens drawn, its degrees of freedom); no token outside top_k."""
    probabilities = torch.zeros(len(logits), dtype=torch.float64)
    kept = logits.double().topk(top_k or len(logits))
    probabilities[kept.indices] = (kept.values / temperature).softmax(0)
    counts = torch.bincount(tokens.flatten().cpu(), minlength=len(logits)).double()
    assert counts[probabilities == 0].sum() == 0
    expected = probabilities * tokens.numel()
    likely = expected > 5
    square = ((counts - expected)[likely] ** 2 / expected[likely]).sum().item()
    return square, int(likely.sum()) - 1


def drawn(logits, n, temperature, top_k, seed, position=1):
    """n tokens for one row of logits (vocab_size,), each by a row of its own: (n, 1)."""
    from minidiff.fast.draw import draw

    device = logits.device
    token = torch.full((n, 1), -1, device=device)
    text = torch.full((n, position + 2), -1, device=device)
    length = torch.tensor([position], dtype=torch.int32, device=device)
    seed = torch.tensor([seed], device=device)
    draw(logits.expand(n, -1).contiguous(), token, text, length, seed, temperature, top_k)
    assert torch.equal(text[:, position : position + 1], token)
    assert (text[:, :position] == -1).all() and (text[:, position + 1 :] == -1).all()
    return token


# ---- The plain loop: what a CPU runs -----------------------------------------------------------


@pytest.mark.parametrize(("temperature", "top_k"), [(1.0, None), (0.6, 7), (1.5, 2), (1.0, 99)])
def test_sample_draws_from_the_softmax(temperature, top_k):
    logits = torch.linspace(-2, 2, 12)[torch.randperm(12)]
    rng = torch.Generator().manual_seed(0)
    tokens = sample(logits.expand(50_000, -1), temperature, top_k, rng)
    square, freedom = chi_square(tokens, logits, temperature, top_k and min(top_k, 12))
    assert square < freedom + 5 * math.sqrt(2 * freedom)


def test_temperature_zero_takes_the_likeliest_and_a_low_one_nearly_so():
    logits = torch.randn(4, 9)
    rng = torch.Generator().manual_seed(0)
    assert torch.equal(sample(logits, 0, None, rng), logits.argmax(-1, keepdim=True))
    assert torch.equal(sample(logits, 1e-3, None, rng), logits.argmax(-1, keepdim=True))


def test_on_a_cpu_the_plain_loop_writes():
    model, prompt = GPT(SMALL), torch.zeros(1, 1, dtype=torch.long)
    assert decoder.write in WRITERS
    assert all(w(model, prompt, 4, 1.0, None, 0) is None for w in WRITERS)
    rng = torch.Generator().manual_seed(3)
    decode, idx = Decoder(model), prompt
    with torch.inference_mode():
        for _ in range(8):
            idx = torch.cat((idx, sample(decode(idx[:, -1:])[:, -1], 0.8, 5, rng)), dim=1)
    assert torch.equal(model.generate(prompt, 8, temperature=0.8, top_k=5, seed=3), idx)


@needs_triton
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@torch.inference_mode()
def test_a_model_as_it_is_loaded_hears_what_makes_it_fast(dtype, caplog):
    """It heard "attention is by sdpa". (Here the GPU is missing, too.)"""
    caplog.set_level(logging.INFO, "minidiff")
    decoder._say.cache_clear()
    model, cache = GPT(SMALL).to(dtype), KVCache(SMALL.block_size)
    model(torch.zeros(1, 3, dtype=torch.long), cache=cache)
    decoder.token_step(model, cache, 1)
    fix = f"step.py: its weights are {dtype}, and it is for 16 bits: call model.bfloat16() first"
    assert (fix in caplog.text) == (dtype != torch.bfloat16)
    assert ("attention is by sdpa" in caplog.text) == (dtype == torch.bfloat16)


# ---- The kernels, in Triton's interpreter ------------------------------------------------------


@pytest.mark.slow
@needs_triton
@pytest.mark.parametrize("check", ["step", "draw", "tie"])
def test_in_the_interpreter_the_kernels_do_what_the_model_and_sample_do(check):
    env = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-W", "ignore", __file__, check]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    if "only 0-dimensional arrays can be converted" in done.stderr:
        pytest.skip("this Triton's interpreter does not know NumPy >= 2.4")
    assert done.returncode == 0, done.stderr


def check_step():
    """Prompt, then tokens one by one, against the full forward; 2 rows a program and 16."""
    from minidiff.fast import step

    for name, step.PROGRAMS in (("diff_v2", 1), ("softmax_1.5h", 8)):
        model = sharp(SMALL, name).double()  # an exact reference
        idx = torch.randint(0, SMALL.vocab_size, (2, 7))
        expected = model(idx)[0]
        model = model.float()
        cache = KVCache(SMALL.block_size)
        parts = [model(idx[:, :5], cache=cache)[0]]
        fused = step.FusedStep(model, cache)
        parts += [fused(idx[:, i : i + 1]) for i in (5, 6)]
        assert cache.length.item() == 7
        assert worst(torch.cat(parts, dim=1), expected) < 1e-5, name


def check_draw():
    logits = torch.tensor([1.0, -1.0, 0.5, 0.0, 2.0])
    for temperature, top_k in ((1.0, None), (0.5, 3)):
        tokens = drawn(logits, 150, temperature, top_k, seed=5)
        square, freedom = chi_square(tokens, logits, temperature, top_k)
        assert square < freedom + 5 * math.sqrt(2 * freedom)
    again, other = (drawn(logits, 20, 1.0, None, seed) for seed in (5, 6))
    assert torch.equal(again, drawn(logits, 20, 1.0, None, 5)) and not torch.equal(again, other)
    assert not torch.equal(again, drawn(logits, 20, 1.0, None, 5, position=2))
    assert (drawn(logits, 3, 0, 2, seed=5) == 4).all()


def check_tie():
    """The k-th largest of numbers of every kind; what ties with it is kept, as by sample."""
    logits = torch.tensor([3e-39, -5.0, 1e30, -1e-30, 0.25, 0.25, -math.inf, -1e30, 0.25])
    for top_k, kept in ((1, {2}), (2, {2, 4, 5, 8}), (4, {2, 4, 5, 8}), (6, {0, 2, 3, 4, 5, 8})):
        tokens = drawn(logits, 40, 1e31, top_k, seed=1)  # so hot that all that is kept comes up
        assert set(tokens.flatten().tolist()) == kept, top_k


# ---- On a GPU ----------------------------------------------------------------------------------


def check_recorded(model, idx, fused, is_fused, limit):
    """A graph that froze its position or its cache would repeat the first token's logits."""
    from minidiff.fast.step import FusedStep

    dtype = model.embed.weight.dtype
    expected = model.double()(idx)[0]
    rounded = worst(model.to(dtype)(idx)[0], expected)
    cache = KVCache(LARGER.block_size, "cuda")
    parts, token = [model(idx[:, :5], cache=cache)[0]], idx[:, 5:6].clone()
    step = token_step(model, cache, len(idx), fused)
    assert isinstance(step, FusedStep) == is_fused
    length = cache.length.clone()
    graph, logits = record_graph(lambda: step(token))
    cache.length.copy_(length)
    for i in range(5, idx.shape[1]):
        token.copy_(idx[:, i : i + 1])
        graph.replay()
        parts.append(logits.clone())
    assert worst(torch.cat(parts, dim=1), expected) < 2 * rounded + limit


@pytest.mark.gpu
@pytest.mark.parametrize("name", [*NAMES, "diff_v1", "gated", "off_by_one"])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("fused", [True, False])
@torch.inference_mode()
def test_a_recorded_token_equals_the_full_forward_at_every_position(name, batch, fused):
    model = sharp(LARGER, name, "cuda").bfloat16()
    idx = torch.randint(0, 256, (batch, 64), device="cuda")
    check_recorded(model, idx, fused, fused and name in NAMES, 1e-2)


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("dtype", "limit"), [(torch.float16, 2e-3), (torch.float32, 1e-4)], ids=str
)
@torch.inference_mode()
def test_so_it_does_in_float16_and_by_the_modules_in_float32(dtype, limit):
    model = sharp(LARGER, "diff_v2", "cuda").to(dtype)
    idx = torch.randint(0, 256, (2, 40), device="cuda")
    check_recorded(model, idx, True, dtype == torch.float16, limit)


@pytest.mark.gpu
@torch.inference_mode()
def test_a_backend_asked_for_by_name_is_not_passed_over():
    model = sharp(dataclasses.replace(LARGER, backend="sdpa"), "diff_v2", "cuda").bfloat16()
    check_recorded(model, torch.randint(0, 256, (1, 40), device="cuda"), True, False, 1e-2)


@pytest.mark.gpu
@pytest.mark.parametrize("fused", [True, False])
def test_the_seed_decides_the_text(fused):
    model = sharp(LARGER, "diff_v2", "cuda").bfloat16()
    prompt = torch.randint(0, 256, (2, 5), device="cuda")
    texts = [write(model, prompt, 60, 1.0, 40, seed, fused=fused) for seed in (1, 1, 2, 2**63 + 7)]
    assert torch.equal(texts[0], texts[1]) and texts[0].shape == (2, 65)
    assert not torch.equal(texts[0], texts[2]) and not torch.equal(texts[2], texts[3])
    assert all(torch.equal(text[:, :5], prompt) for text in texts)
    assert not torch.equal(texts[0][0, 5:], texts[0][1, 5:])
    for n_new in (1, 2, 3):  # no graph, one ordinary step, the first replay
        short = write(model, prompt, n_new, 1.0, 40, 1, fused=fused)
        assert torch.equal(short, texts[0][:, : 5 + n_new])


@pytest.mark.gpu
@pytest.mark.parametrize("fused", [True, False])
@torch.inference_mode()
def test_temperature_zero_writes_the_likeliest_tokens(fused):
    model = sharp(LARGER, "diff_v2", "cuda").bfloat16()
    prompt = torch.randint(0, 256, (1, 5), device="cuda")
    text = write(model, prompt, 91, 0.0, None, 0, fused=fused)
    cache = KVCache(LARGER.block_size, "cuda")
    logits = [model(prompt, cache=cache)[0][:, -1:]]
    step = token_step(model, cache, 1, fused)
    logits = torch.cat([*logits, *(step(token) for token in text[:, 5:-1].split(1, 1))], dim=1)
    chosen = logits.gather(2, text[:, 5:, None])
    assert torch.equal(chosen, logits.max(-1, keepdim=True).values)  # the first, where two tie
    assert len(text.unique()) > 10


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("vocab_size", "temperature", "top_k"),
    [(257, 1.0, None), (257, 0.7, 40), (257, 1.3, 5), (5000, 1.0, 256)],
)
def test_draws_follow_the_softmax(vocab_size, temperature, top_k):
    logits = 2 * torch.randn(vocab_size, device="cuda")
    tokens = drawn(logits, 200_000, temperature, top_k, seed=7)
    square, freedom = chi_square(tokens, logits.cpu(), temperature, top_k)
    assert square < freedom + 5 * math.sqrt(2 * freedom)


@pytest.mark.gpu
def test_a_long_text_is_fused_and_a_model_of_its_own_kind_is_not(caplog):
    caplog.set_level(logging.INFO, "minidiff")
    decoder._say.cache_clear()
    prompt = torch.zeros(1, 1, dtype=torch.long, device="cuda")
    config = GPTConfig(n_layer=1, head_dim=64)
    GPT(config).cuda().bfloat16().generate(prompt, 200, seed=0)
    assert "modules" not in caplog.text
    GPT(variant(config, "diff_v1")).cuda().bfloat16().generate(prompt, 200, seed=0)
    assert "DiffV1Attention" in caplog.text


if __name__ == "__main__":
    torch.manual_seed(0)
    with torch.inference_mode():
        {"step": check_step, "draw": check_draw, "tie": check_tie}[sys.argv[1]]()
