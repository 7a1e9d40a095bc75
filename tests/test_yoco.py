"""YOCO: windows below, shared keys and values above, early exit, a small cache."""

import copy
import dataclasses
import functools
import math

import pytest
import test_variants
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from minidiff import GPT, GPTConfig, theory
from minidiff.generate import Decoder, generate
from minidiff.look.probe import attention_maps, probe
from minidiff.variants.yoco import YocoAttention, window_attention, window_mask

TINY = GPTConfig(n_layer=5, n_head=4, n_kv_head=2, head_dim=8, n_embd=16, block_size=24)
both = pytest.mark.parametrize("name", ["yoco_softmax", "yoco_diff_v2"])


@pytest.fixture(autouse=True)
def small_window(monkeypatch):
    monkeypatch.setattr(YocoAttention, "window", 4)


tiny_model = functools.partial(test_variants.tiny_model, tiny=TINY)


@settings(max_examples=40)
@given(T=st.integers(1, 23), before=st.integers(0, 9), window=st.integers(1, 8))
def test_window_attention_equals_loops(T, before, window):
    """Of T queries after ``before`` tokens; what lies before the text is not seen."""
    q, k, v = (torch.randn(2, before + T, n, 4, dtype=torch.float64) for n in (4, 2, 2))
    expected = torch.zeros(2, T, 4, 4, dtype=torch.float64)
    for t in range(before, before + T):
        keys = slice(max(0, t - window + 1), t + 1)
        for h in range(4):
            logits = torch.einsum("bd,bsd->bs", q[:, t, h], k[:, keys, h // 2]) / 2
            out = torch.einsum("bs,bsd->bd", logits.softmax(-1), v[:, keys, h // 2])
            expected[:, t - before, h] = out
    junk = torch.full((2, window, 2, 4), 1e3, dtype=torch.float64)  # where nothing is
    k, v = (torch.cat((junk, x), 1)[:, -(window + T) :] for x in (k, v))
    start = torch.tensor([before])
    got = window_attention(q[:, before:], k, v, window, start)
    assert_close(got, expected, rtol=1e-10, atol=1e-10)


def test_window_of_the_whole_text_is_causal_attention():
    mask = window_mask(6, 9)[:, 9:]
    assert (mask == torch.ones(6, 6, dtype=torch.bool).tril()).all()


@both
def test_the_upper_half_on_the_last_token_alone_gives_the_logits_of_the_full_run(name):
    model, idx = tiny_model(name), torch.randint(0, 256, (2, 19))
    full = model(idx)[0]
    seen = []
    for block in model.blocks:
        block.register_forward_hook(lambda block, x, out: seen.append(out.shape[1]))
    with torch.no_grad():
        early = Decoder(model)(idx)
    assert early.shape == (2, 1, 257) and seen == [19, 19, 1, 1, 1]
    assert_close(early, full[:, -1:], rtol=1e-10, atol=1e-10)


@both
@pytest.mark.parametrize("window", [4, 40])  # 40 is more than a block holds
@pytest.mark.parametrize("chunks", [[1] * 17, [5, 1, 11], [3, 3, 1, 1, 9]])
def test_decoding_with_the_cache_equals_the_full_forward(name, chunks, window, monkeypatch):
    monkeypatch.setattr(YocoAttention, "window", window)
    model, idx = tiny_model(name), torch.randint(0, 256, (2, 17))
    decode, full = Decoder(model), model(idx)[0]
    with torch.no_grad():
        for end, part in zip(torch.tensor(chunks).cumsum(0), idx.split(chunks, 1), strict=True):
            assert_close(decode(part)[:, 0], full[:, end - 1], rtol=1e-10, atol=1e-10)


@both
def test_generate_writes_the_same_as_without_a_cache(name):
    model, idx = tiny_model(name), torch.randint(0, 256, (2, 7))
    written = generate(model, idx, 12, temperature=0).clone()
    for t in range(7, 19):
        assert (model(written[:, :t])[0][:, -1].argmax(-1) == written[:, t]).all()


@both
@pytest.mark.parametrize("n_layer", [1, 2, 5, 8])
@pytest.mark.parametrize("block_size", [24, 4, 3])
def test_the_cache_is_as_large_as_the_closed_form_says(name, n_layer, block_size):
    """Also where the whole text is shorter than a window."""
    config = dataclasses.replace(TINY, attention=name, n_layer=n_layer, block_size=block_size)
    decode = Decoder(GPT(config).bfloat16())
    with torch.no_grad():
        decode(torch.randint(0, 256, (1, 3)))
    kept = [x for pair in decode.cache.layers.values() for x in pair]
    size = sum(x.numel() * x.element_size() for x in kept)
    assert size == theory.kv_cache_bytes(block_size, n_layer, 2, 8, window=4)
    assert len(kept) == 2 * (n_layer // 2 + 1)  # the windows, and what is shared


@both
def test_no_position_sees_a_later_token(name):
    model, idx = tiny_model(name), torch.randint(0, 256, (1, 12))
    other = idx.clone()
    other[0, 7] = (other[0, 7] + 1) % 256
    before, after = model(idx)[0], model(other)[0]
    assert_close(after[:, :7], before[:, :7], rtol=0, atol=1e-12)
    assert not torch.allclose(after[:, 11], before[:, 11])  # far beyond the window: the upper half


@both
def test_every_weight_has_a_gradient_and_upper_layers_have_no_keys(name):
    model, idx = tiny_model(name), torch.randint(0, 256, (2, 15))
    model(idx[:, :-1], idx[:, 1:])[1].backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []
    with_keys = [any("k_proj" in n for n, _ in b.named_parameters()) for b in model.blocks]
    assert with_keys == [True, True, True, False, False]


@pytest.mark.slow
@both
def test_a_compiled_model_has_the_gradients_of_the_plain_one(name):
    """Blocks compiled one by one, as in training: the shared keys cross from one to the next."""
    torch.compiler.reset()
    model, idx = tiny_model(name), torch.randint(0, 256, (2, 15))
    twin = copy.deepcopy(model)
    for block in twin.blocks:
        block.compile(backend="aot_eager", fullgraph=True)
    for net in (model, twin):
        for _ in range(2):  # the keys of the first pass must not serve the second
            net.zero_grad()
            net(idx[:, :-1], idx[:, 1:])[1].backward()
    for (key, ours), (_, theirs) in zip(
        twin.named_parameters(), model.named_parameters(), strict=True
    ):
        assert_close(ours.grad, theirs.grad, rtol=1e-8, atol=1e-10, msg=key)


def test_a_copy_shares_nothing_with_the_original():
    model = tiny_model("yoco_softmax")
    model(torch.zeros(1, 5, dtype=torch.long))
    twin = copy.deepcopy(model)
    shared = {id(block.attn.shared) for block in twin.blocks}
    assert len(shared) == 1 and shared != {id(model.blocks[0].attn.shared)}


@both
def test_nothing_is_kept_after_a_forward_pass(name):
    """Or a model holds the cache of a text that nobody continues, and a second one beside it."""
    model = tiny_model(name)
    model(torch.zeros(1, 5, dtype=torch.long))
    assert model.blocks[0].attn.shared.kept is None
    decode = Decoder(model)
    with torch.no_grad():
        decode(torch.zeros(1, 5, dtype=torch.long))
    assert model.blocks[0].attn.shared.kept is None


@both
def test_probes_see_the_maps_of_each_sequence(name):
    """Two sequences: a layer of the upper half must read the keys of the one that is probed."""
    model, idx = tiny_model(name), torch.randint(0, 256, (2, 20))
    apart = [probe(model, idx[i : i + 1], skip=5) for i in range(2)]
    for row, first, second in zip(probe(model, idx, skip=5), *apart, strict=True):
        assert row["entropy"] == pytest.approx((first["entropy"] + second["entropy"]) / 2)
    views = attention_maps(model, idx[:1])
    assert (views[0].a1 > 0).sum(-1).max() == 4 and (views[-1].a1[:, -1] > 0).all()


@settings(max_examples=30)
@given(T=st.integers(1, 40), n_layer=st.integers(1, 6), window=st.integers(1, 12))
def test_closed_forms_count_what_the_masks_let_through(T, n_layer, window):
    half = n_layer // 2
    dense, windowed = torch.ones(T, T).tril().sum(), window_mask(T, window).sum()
    pairs = half * windowed + (n_layer - half) * T
    count = theory.prefill_attention_operations(T, n_layer, 8, 16, window=window)
    assert count == 4 * 8 * 16 * pairs
    assert theory.prefill_attention_operations(T, n_layer, 8, 16) == 4 * 8 * 16 * n_layer * dense
    kept = half * window_mask(T, window)[-1].sum() + T  # what the last query sees, below and above
    assert theory.kv_cache_bytes(T, n_layer, 2, 8, window=window) == 2 * kept * 2 * 8 * 2


def test_cache_of_ordinary_attention_is_one_pair_a_layer():
    decode = Decoder(GPT(TINY))
    with torch.no_grad():
        decode(torch.randint(0, 256, (1, 3)))
    size = sum(x.numel() * 4 for pair in decode.cache.layers.values() for x in pair)
    assert size == theory.kv_cache_bytes(24, 5, 2, 8, bytes_per_number=4)


@pytest.mark.gpu
@both
def test_decoding_on_the_gpu_replays_a_graph_and_training_compiles(name, monkeypatch):
    monkeypatch.setattr(YocoAttention, "window", 64)
    config = GPTConfig(attention=name, n_layer=4, n_head=4, head_dim=64, n_embd=128, block_size=512)
    model = GPT(config).cuda()
    idx = torch.randint(0, 256, (2, 301), device="cuda")
    with torch.no_grad():
        full, decode = model(idx)[0], Decoder(model)
        for end, part in zip(range(296, 302), idx.split([296, 1, 1, 1, 1, 1], 1), strict=True):
            assert_close(decode(part)[:, 0], full[:, end - 1], rtol=0.02, atol=0.02)
    for block in model.blocks:
        block.compile(fullgraph=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(5):
        with torch.autocast("cuda", torch.bfloat16):
            loss = model(idx[:, :-1], idx[:, 1:])[1]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert loss.item() < math.log(257)
