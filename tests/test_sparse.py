"""Sparse attention: who chooses the blocks, and that all see what was chosen and nothing else."""

import dataclasses
import functools
import math

import pytest
import test_variants
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from minidiff import GPT, GPTConfig, attention, differential
from minidiff.generate import Decoder
from minidiff.model import rope_table
from minidiff.variants import sparse
from minidiff.variants.sparse import SHARES, choose_blocks, visible

TINY = GPTConfig(n_layer=2, n_head=4, n_kv_head=2, head_dim=8, n_embd=16, block_size=24)
NAMES = ("sparse_softmax", "sparse_pair", "sparse_head", "sparse_a1", "sparse_group")
sizes = given(
    h_kv=st.integers(1, 3),
    pairs=st.integers(1, 2),
    T=st.integers(1, 20),
    block=st.integers(1, 6),
    top_k=st.integers(1, 4),
    share=st.sampled_from(SHARES),
)


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of three keys, two for a query: sparse already at the lengths of these tests."""
    monkeypatch.setattr(sparse.BlockAttention, "block", 3)
    monkeypatch.setattr(sparse.BlockAttention, "top_k", 2)


def draw(T, h_kv, pairs, d=4, B=2):
    H = 2 * h_kv * pairs
    return (torch.randn(B, T, n, d, dtype=torch.float64) for n in (H, h_kv, h_kv))


def by_loops(q, k, v, block, top_k, share):
    """The sparse output and its mask, one query and head at a time: nothing is vectorised."""
    B, T, H, d = q.shape
    group = H // k.shape[2]
    out, mask = torch.zeros_like(q), torch.zeros(B, H, T, T, dtype=torch.bool)

    def score(b, t, h, n):  # of head h alone
        return q[b, t, h] @ k[b, n * block : (n + 1) * block, h // group].mean(0)

    for b in range(B):
        for t in range(T):
            for h in range(H):
                who = {"head": [h], "pair": [h - h % 2, h - h % 2 + 1], "a1": [h - h % 2],
                       "group": range(h - h % group, h - h % group + group)}[share]  # fmt: skip
                earlier = range(t // block)
                total = [sum(score(b, t, other, n) for other in who) for n in earlier]
                best = sorted(earlier, key=lambda n, total=total: -total[n])[: top_k - 1]
                keys = [j for j in range(t + 1) if j // block in (*best, t // block)]
                mask[b, h, t, keys] = True
                logits = k[b, keys, h // group] @ q[b, t, h] / math.sqrt(d)
                out[b, t, h] = logits.softmax(0) @ v[b, keys, h // group]
    return out, mask


@settings(max_examples=25)
@sizes
def test_every_way_to_compute_it_equals_the_loops(h_kv, pairs, T, block, top_k, share):
    q, k, v = draw(T, h_kv, pairs)
    expected, mask = by_loops(q, k, v, block, top_k, share)
    position = torch.arange(T)
    chosen = choose_blocks(q, k, position, block=block, top_k=top_k, share=share)
    found = visible(chosen, position, block, T)
    assert (found.repeat_interleave(q.shape[2] // found.shape[1], dim=1) == mask).all()
    for way in (sparse._naive, sparse._masked):
        assert_close(way(q, k, v, chosen, position, block), expected, rtol=1e-10, atol=1e-10)


@settings(max_examples=40)
@sizes
def test_what_is_chosen(h_kv, pairs, T, block, top_k, share):
    """Own block always, top_k at most and exactly where there are as many, no later one."""
    q, k, _ = draw(T, h_kv, pairs)
    position = torch.arange(T)
    chosen = choose_blocks(q, k, position, block=block, top_k=top_k, share=share)
    own = position // block
    assert chosen[:, :, position, own].all()
    assert (chosen.sum(-1) == (own + 1).clamp(max=top_k)).all()
    assert not (chosen & (torch.arange(chosen.shape[-1]) > own[:, None])).any()
    groups = {"head": q.shape[2], "pair": q.shape[2] // 2, "a1": q.shape[2] // 2, "group": h_kv}
    assert chosen.shape[1] == groups[share]


@settings(max_examples=20)
@sizes
def test_a_choice_and_its_output_depend_on_no_later_token(h_kv, pairs, T, block, top_k, share):
    q, k, v = draw(T, h_kv, pairs)
    cut, position = T // 2, torch.arange(T)
    results = []
    for _ in range(2):
        chosen = choose_blocks(q, k, position, block=block, top_k=top_k, share=share)
        out = sparse._masked(q, k, v, chosen, position, block)
        results.append((chosen[:, :, :cut], out[:, :cut]))
        q, k, v = (torch.cat((x[:, :cut], torch.randn_like(x[:, cut:])), 1) for x in (q, k, v))
    assert (results[0][0] == results[1][0]).all()
    assert_close(results[0][1], results[1][1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("share", SHARES)
def test_enough_blocks_are_dense_attention(share):
    q, k, v = draw(17, h_kv=2, pairs=2)
    position = torch.arange(17)
    chosen = choose_blocks(q, k, position, block=4, top_k=5, share=share)
    dense = attention(q, k, v, backend="naive")
    for way in (sparse._naive, sparse._masked):
        assert_close(way(q, k, v, chosen, position, 4), dense, rtol=1e-12, atol=1e-12)


def test_heads_of_a_pair_agree_unless_each_chooses_for_itself():
    q, k, _ = draw(64, h_kv=2, pairs=2)
    position = torch.arange(64)

    def differ(share):
        chosen = choose_blocks(q, k, position, block=8, top_k=3, share=share)
        chosen = chosen.repeat_interleave(q.shape[2] // chosen.shape[1], dim=1)
        return (chosen[:, 0::2] != chosen[:, 1::2]).any(-1).double().mean().item()

    assert differ("pair") == differ("a1") == differ("group") == 0
    assert differ("head") > 0.2


def test_a_shared_choice_cancels_equal_maps_and_a_split_one_does_not():
    """Two equal heads and lambda = 1 leave exactly nothing, where both see the same keys."""
    q, k, v = draw(40, h_kv=1, pairs=1)
    position, lam_logit = torch.arange(40), torch.full((2, 40, 1), 50.0, dtype=torch.float64)
    chosen = choose_blocks(q, k, position, block=4, top_k=3, share="head")  # (B, 2, T, n): differ
    same = q[:, :, :1].expand_as(q)  # both heads ask the same

    def left(chosen):
        out = differential(sparse._masked(same, k, v, chosen, position, 4), lam_logit)
        return out.abs().max().item()

    assert left(chosen[:, :1]) < 1e-12 and left(chosen) > 0.1


def test_pair_is_the_sum_of_the_two_scores_and_a1_the_first():
    q = torch.zeros(1, 9, 2, 1)
    k = torch.tensor([1.0, 0, 0, 2, 2, 2, 0, 0, 0])[None, :, None, None]  # means 1/3, 2, 0
    q[0, 8, :, 0] = torch.tensor([-1.0, 3.0])  # the first head prefers block 0, the sum block 1
    how = {"block": 3, "top_k": 2}
    rows = {s: choose_blocks(q, k, torch.arange(9), share=s, **how)[0, :, 8].int().tolist()
            for s in SHARES}  # fmt: skip
    assert rows["a1"] == [[1, 0, 1]] and rows["pair"] == rows["group"] == [[0, 1, 1]]
    assert rows["head"] == [[1, 0, 1], [0, 1, 1]]


def test_bad_settings_are_refused():
    q, k, _ = draw(8, 1, 1)
    with pytest.raises(ValueError, match="share='both' must be one of head, pair, a1, group"):
        choose_blocks(q, k, torch.arange(8), block=4, top_k=1, share="both")
    with pytest.raises(ValueError, match="top_k=0"):
        choose_blocks(q, k, torch.arange(8), block=4, top_k=0, share="pair")


# ---- In a model --------------------------------------------------------------------------------


tiny_model = functools.partial(test_variants.tiny_model, tiny=TINY)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("chunks", [[1] * 17, [5, 1, 11]])
def test_decoding_with_the_cache_equals_the_full_forward(name, chunks):
    model, idx = tiny_model(name), torch.randint(0, 256, (2, 17))
    decode = Decoder(model)
    with torch.no_grad():
        parts = [decode(part) for part in idx.split(chunks, dim=1)]
        assert_close(torch.cat(parts, dim=1), model(idx)[0], rtol=1e-10, atol=1e-10)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("name", NAMES)
def test_a_model_is_causal_and_its_maps_are_what_it_computes(name):
    model, idx = tiny_model(name), torch.randint(0, 256, (1, 17))
    other = idx.clone()
    other[0, 9] = (other[0, 9] + 1) % 256
    assert_close(model(other)[0][:, :9], model(idx)[0][:, :9], rtol=0, atol=1e-12)
    attn, x = model.blocks[0].attn, torch.randn(2, 17, 16, dtype=torch.float64)
    q, k, v = attn.qkv(x, rope_table(TINY)[:17])
    maps = attn.weights(q, k, x)
    values = v.repeat_interleave(maps.shape[1] // v.shape[2], dim=2)
    context = torch.einsum("bhts,bshd->bthd", maps, values)
    assert_close(context, attn.mix(q, k, v, x), rtol=1e-10, atol=1e-10)
    assert (attn.branches(q, k) > 0).sum(-1).max() == 2 * 3  # two blocks of three keys


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_those_of_the_naive_path(name):
    """Of every weight: the choice has no gradient, and is the same in both."""
    idx, grads = torch.randint(0, 256, (2, 18)), {}
    model = tiny_model(name)
    for backend in ("naive", "auto"):
        twin = GPT(dataclasses.replace(model.config, backend=backend)).double()
        twin.load_state_dict(model.state_dict())
        twin(idx[:, :-1], idx[:, 1:])[1].backward()
        grads[backend] = {n: p.grad for n, p in twin.named_parameters()}
    for key, grad in grads["naive"].items():
        assert grad.any(), key
        assert_close(grads["auto"][key], grad, rtol=1e-8, atol=1e-10)


# ---- flex_attention ----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("T, block, share", [(256, 32, "pair"), (300, 128, "group")])
def test_flex_attention_sees_what_was_chosen(T, block, share):
    """On a CPU it compiles too, if without gradients; 300 ends inside a tile."""
    q, k, v = (x.float() for x in draw(T, h_kv=2, pairs=2, d=16))
    position = torch.arange(T)
    chosen = choose_blocks(q, k, position, block=block, top_k=2, share=share)
    with torch.no_grad():
        got = sparse._flex(q, k, v, chosen, position, block)
    expected = sparse._naive(q, k, v, chosen, position, block)
    assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_a_tile_is_loaded_where_any_of_its_queries_chose_any_of_its_blocks():
    chosen = torch.zeros(1, 1, 300, 10, dtype=torch.bool)  # blocks of 32 keys: 4 in a tile
    chosen[0, 0, 130, 3] = chosen[0, 0, 131, 4] = chosen[0, 0, 299, 9] = True
    assert sparse.tiles_of(chosen, 32)[0, 0].int().tolist() == [[0, 0, 0], [1, 1, 0], [0, 0, 1]]


def test_flex_attention_says_where_it_cannot_run():
    q, k, v = draw(8, 1, 1)
    assert "no gradient on cpu" in sparse._flex_can_run(q, k, v)
    with pytest.raises(ValueError, match="block=48 must divide 128"):
        sparse._flex(q, k, v, None, None, 48)


def test_a_process_may_compile_flex_attention_for_more_shapes_than_torch_compile_would(monkeypatch):
    """Past PyTorch's limit it would run uncompiled, and store the maps."""
    from torch.nn.attention.flex_attention import flex_attention

    compiled = torch.compile(flex_attention, dynamic=False, backend="eager")
    monkeypatch.setattr(sparse, "_compiled_flex", lambda: compiled)
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()
    with torch._dynamo.config.patch(recompile_limit=1), torch.no_grad():
        for T in (128, 256, 384):
            q, k, v = torch.randn(1, T, 4, 16), torch.randn(1, T, 2, 16), torch.randn(1, T, 2, 16)
            at = torch.arange(T)
            chosen = sparse.choose_blocks(q, k, at, block=32, top_k=2, share="head")
            out = sparse._flex(q, k, v, chosen, at, 32)
            assert torch.allclose(out, sparse._masked(q, k, v, chosen, at, 32), atol=1e-5)
    assert torch._dynamo.utils.counters["frames"]["ok"] == 3


@pytest.mark.gpu
@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("T, block", [(512, 32), (700, 64), (1024, 128)])
def test_flex_attention_on_the_gpu_gives_outputs_and_gradients_of_the_formula(T, block, share):
    shape = {"device": "cuda", "dtype": torch.bfloat16}
    q, k, v = (torch.randn(2, T, n, 64, **shape) for n in (8, 2, 2))
    position = torch.arange(T, device="cuda")
    chosen = choose_blocks(q, k, position, block=block, top_k=3, share=share)  # one for both
    direction = torch.randn_like(q)
    results = []
    for way, dtype in ((sparse._flex, torch.bfloat16), (sparse._naive, torch.float64)):
        inputs = [x.to(dtype).requires_grad_() for x in (q, k, v)]
        out = way(*inputs, chosen, position, block)
        grads = torch.autograd.grad(out, inputs, direction.to(dtype))
        results.append([out, *grads])
    for ours, theirs in zip(*results, strict=True):
        assert (ours.double() - theirs).norm() / theirs.norm() < 0.02


@pytest.mark.gpu
@pytest.mark.parametrize("name", NAMES)
def test_a_compiled_block_trains_on_the_gpu(name):
    """As train.py does it: blocks compiled, bfloat16 under autocast."""
    torch.compiler.reset()
    config = GPTConfig(attention=name, n_layer=2, n_head=4, head_dim=64, n_embd=128, block_size=512)
    model, idx = GPT(config).cuda(), torch.randint(0, 256, (4, 513), device="cuda")
    exact = GPT(dataclasses.replace(config, backend="sdpa")).cuda()
    exact.load_state_dict(model.state_dict())
    for block in model.blocks:
        block.compile(fullgraph=True)
    losses = []
    for net in (model, exact):
        optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
        for _ in range(3):
            with torch.autocast("cuda", torch.bfloat16):
                loss = net(idx[:, :-1], idx[:, 1:])[1]
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(losses[1], abs=0.02) and losses[0] < math.log(257)
