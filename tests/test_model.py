"""The GPT: causality, the cache, parameter counts, interchange with the published module."""

import dataclasses
import math

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.testing import assert_close

from minidiff import GPT, GPTConfig, diff_attention, theory
from minidiff.generate import Decoder, sample
from minidiff.model import ATTENTION, DiffV2Attention, rope_table, rotate

TINY = GPTConfig(n_layer=2, n_head=4, n_kv_head=2, head_dim=8, n_embd=16, block_size=24)


def tiny(attention="diff_v2", **changes):
    """A small float64 model whose weights are large enough that attention is far from uniform."""
    model = GPT(dataclasses.replace(TINY, attention=attention, **changes)).double()
    with torch.no_grad():
        for block in model.blocks:
            block.attn.q_proj.weight.mul_(30)
            block.attn.k_proj.weight.mul_(30)
    return model


@pytest.mark.parametrize("attention", ["softmax", "diff_v2"])
def test_no_position_sees_a_later_token(attention):
    model = tiny(attention)
    idx = torch.randint(0, 256, (1, 12))
    before, _ = model(idx)
    for changed in range(12):
        other = idx.clone()
        other[0, changed] = (other[0, changed] + 1) % 256
        after, _ = model(other)
        assert_close(after[:, :changed], before[:, :changed], rtol=0, atol=1e-12)
        assert not torch.allclose(after[:, changed], before[:, changed])


@pytest.mark.parametrize("attention", ["softmax", "diff_v2"])
@pytest.mark.parametrize("chunks", [[20], [1] * 20, [7, 1, 1, 11], [19, 1]])
def test_decoding_with_the_cache_equals_the_full_forward(attention, chunks):
    model = tiny(attention)
    idx = torch.randint(0, 256, (2, 20))
    decode = Decoder(model)
    with torch.no_grad():
        parts = [decode(part) for part in idx.split(chunks, dim=1)]
    assert_close(torch.cat(parts, dim=1), model(idx)[0].detach(), rtol=1e-10, atol=1e-12)


def test_zero_lambda_weights_give_lambda_one_half():
    model = tiny()
    attn, x = model.blocks[0].attn, torch.randn(2, 9, 16).double()
    nn.init.zeros_(attn.lambda_proj.weight)
    q, k, _ = attn.qkv(x, model.rope[:9])
    first, second = attn.branches(q, k).unflatten(1, (-1, 2)).unbind(2)  # A1, A2: (B, h, T, T)
    assert_close(attn.weights(q, k, x), first - 0.5 * second)


@pytest.mark.parametrize("attention", ["softmax", "diff_v2"])
def test_weights_times_values_is_what_the_fast_path_computes(attention):
    model = tiny(attention)
    attn, x = model.blocks[1].attn, torch.randn(2, 9, 16).double()
    q, k, v = attn.qkv(x, model.rope[:9])
    values = v.repeat_interleave(2, dim=2)  # h / h_kv = 2
    context = torch.einsum("bhts,bshd->bthd", attn.weights(q, k, x), values)
    assert_close(attn.mix(q, k, v, x), context)


@pytest.mark.parametrize("attention", ["softmax", "diff_v2"])
def test_parameter_counts_are_the_closed_forms(attention):
    c = dataclasses.replace(TINY, attention=attention)
    model = GPT(c)
    count = sum(p.numel() for p in model.blocks[0].attn.parameters())
    shape = (c.n_embd, c.n_head, c.n_kv_head, c.head_dim)
    assert count == theory.attention_params(*shape, diff_v2=attention == "diff_v2")
    mlp, norms = 3 * c.n_embd * 64, (2 * c.n_layer + 1) * c.n_embd  # 8/3 * 16 rounds up to 64
    total = c.n_layer * (count + mlp) + norms + c.vocab_size * c.n_embd
    assert sum(p.numel() for p in model.parameters()) == total


class PublishedAttention(nn.Module):
    """The forward of Microsoft's Diff-Transformer-V2 module, from its description (FACTS 1)."""

    def __init__(self, D, h, h_kv, d):
        super().__init__()
        self.h, self.h_kv, self.d = h, h_kv, d
        self.q_proj = nn.Linear(D, 2 * h * d, bias=False)
        self.k_proj = nn.Linear(D, h_kv * d, bias=False)
        self.v_proj = nn.Linear(D, h_kv * d, bias=False)
        self.o_proj = nn.Linear(h * d, D, bias=False)
        self.lambda_proj = nn.Linear(D, h, bias=False)

    def forward(self, x):
        B, T, _ = x.shape
        q = self.rope(self.q_proj(x).view(B, T, 2 * self.h, self.d))
        k = self.rope(self.k_proj(x).view(B, T, self.h_kv, self.d))
        v = self.v_proj(x).view(B, T, self.h_kv, self.d)
        group = 2 * self.h // self.h_kv
        k, v = (z.repeat_interleave(group, dim=2).transpose(1, 2) for z in (k, v))
        scores = q.transpose(1, 2) @ k.transpose(2, 3) / math.sqrt(self.d)
        mask = torch.full((T, T), -math.inf, dtype=x.dtype).triu(1)
        a = (F.softmax(scores + mask, -1) @ v).transpose(1, 2)  # (B, T, 2h, d)
        lam = torch.sigmoid(self.lambda_proj(x))[..., None]
        out = a[:, :, 0::2] - lam * a[:, :, 1::2]
        return self.o_proj(out.reshape(B, T, self.h * self.d))

    def rope(self, z):  # complex numbers: another way to say "rotate interleaved pairs"
        T = z.shape[1]
        frequency = 10000.0 ** -(torch.arange(0, self.d, 2) / self.d)
        turn = torch.polar(torch.ones(T, self.d // 2), torch.outer(torch.arange(T), frequency))
        pairs = torch.view_as_complex(z.unflatten(-1, (-1, 2)))
        return torch.view_as_real(pairs * turn[:, None].to(pairs.dtype)).flatten(-2)


def test_published_weights_load_and_give_the_same_output():
    published = PublishedAttention(16, 4, 2, 8).double()
    ours = DiffV2Attention(TINY).double()
    ours.load_state_dict(published.state_dict())  # strict: the names and shapes are the same
    x = torch.randn(2, 11, 16).double()
    rope = rope_table(TINY)[:11].double()
    assert_close(ours(x, rope), published(x), rtol=1e-6, atol=1e-6)  # the table was float32


def test_a_cast_to_bfloat16_leaves_the_positions_apart():
    """Rounded angles would not: bfloat16 has 8 bits, in which position 257 is 256."""
    config = GPTConfig(n_layer=1, head_dim=64, block_size=1024)
    x = torch.randn(1, 1, 1, 64).expand(1, 1024, 1, 64)  # one vector at every position
    exact, rounded = rotate(x, rope_table(config)), rotate(x, GPT(config).bfloat16().rope)
    assert_close(rounded, exact, rtol=0, atol=2**-7 * x.abs().max().item())
    distances = torch.cdist(rounded[0, :, 0], rounded[0, :, 0]) + torch.eye(1024)
    assert distances.min() > 0.3


def test_rotation_keeps_lengths_and_makes_scores_depend_on_distance_only():
    rope = rope_table(GPTConfig(head_dim=8, block_size=32)).double()
    q, k = torch.randn(2, 1, 1, 1, 8, dtype=torch.float64).expand(2, 1, 32, 1, 8)
    q, k = rotate(q, rope), rotate(k, rope)
    assert_close(q.norm(dim=-1), q[:, :1].norm(dim=-1).expand(1, 32, 1))
    scores = q[0, :, 0] @ k[0, :, 0].T  # (32, 32)
    for distance in range(5):
        diagonal = scores.diagonal(-distance)
        assert_close(diagonal, diagonal[:1].expand_as(diagonal), rtol=1e-5, atol=1e-5)


def test_rotation_turns_neighbouring_channels_and_not_halves():
    x = torch.zeros(1, 2, 1, 8)
    x[..., 0] = 1.0
    turned = rotate(x, rope_table(GPTConfig(head_dim=8, block_size=2)))[0, 1, 0]
    assert turned.nonzero().flatten().tolist() == [0, 1]


def test_one_batch_is_overfitted():
    model = GPT(TINY)
    idx = torch.randint(0, 256, (2, 16))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(120):
        _, loss = model(idx[:, :-1], idx[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.05
    assert_close(model.generate(idx[:, :1], 6, temperature=0), idx[:, :7])


def test_generation_is_repeatable_and_stops_when_the_block_is_full(caplog):
    model = GPT(TINY)
    prompt = torch.randint(0, 256, (2, 5))
    once, again = (model.generate(prompt, 8, seed=1) for _ in range(2))
    assert torch.equal(once, again) and once.shape == (2, 13)
    assert not torch.equal(once, model.generate(prompt, 8, seed=2))
    assert not caplog.records
    assert model.generate(prompt, 1000).shape == (2, TINY.block_size)
    assert "full after 19 new tokens" in caplog.text


def test_the_feed_forward_is_swiglu():
    mlp, x = GPT(TINY).blocks[0].mlp.double(), torch.randn(1, 3, TINY.n_embd, dtype=torch.float64)
    gate, up = (x @ w.weight.T for w in (mlp.w1, mlp.w3))
    expected = (gate / (1 + (-gate).exp()) * up) @ mlp.w2.weight.T
    assert_close(mlp(x), expected)


def test_what_adds_to_the_residual_stream_starts_smaller():
    model = GPT(dataclasses.replace(TINY, n_layer=8, n_embd=128))
    for block in model.blocks:
        assert block.attn.q_proj.weight.std().item() == pytest.approx(0.02, rel=0.1)
        for out in (block.attn.o_proj, block.mlp.w2):
            assert out.weight.std().item() == pytest.approx(0.02 / math.sqrt(16), rel=0.1)


def test_samples_follow_temperature_and_top_k():
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]]).expand(20_000, 4)
    draw = torch.Generator().manual_seed(0)
    for temperature, top_k in ((1.0, None), (0.5, None), (1.0, 2)):
        tokens = sample(logits, temperature, top_k, draw)
        shares = torch.bincount(tokens.flatten(), minlength=4) / len(tokens)
        kept = logits[0, :top_k] / temperature
        expected = torch.zeros(4)
        expected[: len(kept)] = kept.softmax(0)
        assert_close(shares, expected, rtol=0, atol=0.015)


def test_top_k_one_and_the_lowest_temperatures_are_the_likeliest_token():
    model = GPT(TINY)
    prompt = torch.randint(0, 256, (1, 5))
    greedy = model.generate(prompt, 8, temperature=0)
    for temperature in (1e-20, 1e-40, 5e-324):  # float32 has not the last: it would divide by 0
        assert torch.equal(model.generate(prompt, 8, temperature=temperature), greedy)
    assert torch.equal(model.generate(prompt, 8, top_k=1, seed=3), greedy)


@pytest.mark.parametrize(
    ("length", "kwargs"),
    [
        (0, {}),
        (25, {}),
        (3, {"temperature": -1.0}),
        (3, {"top_k": 0}),
        (3, {"temperature": math.nan}),
        (3, {"temperature": math.inf}),
    ],
)
def test_generate_refuses_what_makes_no_sense(length, kwargs):
    with pytest.raises(ValueError):
        GPT(TINY).generate(torch.zeros(1, length, dtype=torch.long), 4, **kwargs)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_head": 3}, "multiple of n_kv_head=2: every key/value head serves equally many heads"),
        ({"head_dim": 7}, "even"),
        ({"n_layer": 0}, "positive whole number"),
        ({"n_embd": -1}, "positive whole number"),
        ({"block_size": 2.5}, "positive whole number"),
        ({"rope_theta": 0.0}, "positive"),
        ({"attention": "dif_v2"}, "diff_v2"),
        ({"backend": "fast"}, "flash"),
    ],
)
def test_a_wrong_setting_is_named_in_one_line(change, message):
    with pytest.raises(ValueError, match=message) as error:
        dataclasses.replace(TINY, **change)
    assert "\n" not in str(error.value)


def test_too_long_an_input_is_refused():
    with pytest.raises(ValueError, match="block_size"):
        GPT(TINY)(torch.zeros(1, 25, dtype=torch.long))


def test_model_backends_give_the_same_loss_and_gradients():
    idx = torch.randint(0, 256, (2, 20))
    results = {}
    for backend in ("naive", "sdpa"):
        torch.manual_seed(0)
        model = tiny(backend=backend)
        loss = model(idx, idx)[1]
        loss.backward()
        results[backend] = [loss.detach(), *(p.grad for p in model.parameters())]
    assert_close(results["sdpa"], results["naive"])


def test_diff_v2_attends_with_the_public_function():
    attn, x = tiny().blocks[0].attn, torch.randn(1, 6, 16).double()
    q, k, v = attn.qkv(x, rope_table(TINY)[:6])
    assert_close(attn.mix(q, k, v, x), diff_attention(q, k, v, attn.lambda_proj(x)))


def test_registered_names_are_what_the_config_accepts():
    assert {"softmax", "diff_v2"} <= set(ATTENTION)
