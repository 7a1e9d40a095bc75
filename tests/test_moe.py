"""Mixture of experts: against a loop over tokens, what must not matter, what must."""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from minidiff import GPT, GPTConfig
from minidiff.generate import Decoder
from minidiff.model import SwiGLU
from minidiff.train import TrainConfig, make_optimizer, training_step
from minidiff.variants import moe
from minidiff.variants.moe import MoE, balance_loss, expert_load, grouped_loop

TINY = GPTConfig(n_layer=2, n_head=4, n_kv_head=2, head_dim=8, n_embd=16, block_size=64)
both = pytest.mark.parametrize("name", ["moe_softmax", "moe_diff_v2"])


def layer(n_experts=8, top_k=2, dtype=torch.float64, balance_weight=0.0):
    """A layer whose experts differ and whose router decides."""
    kind = type("Small", (MoE,), {"n_experts": n_experts, "top_k": top_k})
    kind.balance_weight = balance_weight
    found = kind(TINY).to(dtype)
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.normal_(std=0.5)
    return found


def by_token(found, x):
    """The same, one token and one expert at a time."""
    y = torch.zeros_like(x)
    for b, t in ((b, t) for b in range(x.shape[0]) for t in range(x.shape[1])):
        share = (found.router.weight @ x[b, t]).softmax(0)
        best = sorted(range(len(share)), key=lambda e, share=share: -share[e])[: found.top_k]
        for e in best:
            hidden = F.silu(x[b, t] @ found.w1.weight[e]) * (x[b, t] @ found.w3.weight[e])
            y[b, t] = y[b, t] + share[e] / share[best].sum() * (hidden @ found.w2.weight[e])
    return y


@settings(max_examples=15)
@given(
    n_experts=st.integers(1, 8),
    top_k=st.integers(1, 3),
    T=st.sampled_from([1, 3, 20]),  # few rows, and many
)
def test_outputs_and_gradients_are_those_of_a_loop_over_tokens(n_experts, top_k, T):
    found = layer(n_experts, min(top_k, n_experts))
    x = torch.randn(2, T, 16, dtype=torch.float64, requires_grad=True)
    got, expected = found(x), by_token(found, x)
    assert_close(got, expected, rtol=1e-10, atol=1e-10)
    wanted, direction = [x, *found.parameters()], torch.randn_like(x)
    grads = (
        torch.autograd.grad(y, wanted, direction, retain_graph=True, allow_unused=True)
        for y in (got, expected)
    )
    for ours, theirs in zip(*grads, strict=True):
        theirs = torch.zeros_like(ours) if theirs is None else theirs
        assert_close(ours, theirs, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("dtype, limit", [(torch.float32, 1e-5), (torch.bfloat16, 0.02)])
def test_grouped_mm_is_the_loop(dtype, limit):
    """Experts without a row, too."""
    ends = torch.tensor([0, 40, 40, 100], dtype=torch.int32)
    rows, weight = torch.randn(100, 16), torch.randn(4, 16, 32)
    results, direction = [], torch.randn(100, 32)
    for way, kind in ((lambda r, w, e: F.grouped_mm(r, w, offs=e), dtype),
                      (grouped_loop, torch.float64)):  # fmt: skip
        inputs = [t.to(kind).requires_grad_() for t in (rows, weight)]
        out = way(*inputs, ends)
        results.append([out, *torch.autograd.grad(out, inputs, direction.to(kind))])
    for ours, theirs in zip(*results, strict=True):
        assert (ours.double() - theirs).norm() / theirs.norm() < limit


def test_float32_takes_grouped_mm_and_float64_the_loop(monkeypatch):
    called = []
    real = F.grouped_mm
    monkeypatch.setattr(
        moe.F, "grouped_mm", lambda *a, **k: called.append(a[0].dtype) or real(*a, **k)
    )
    x = torch.randn(2, 20, 16)
    for dtype in (torch.float32, torch.float64):
        layer(dtype=dtype)(x.to(dtype))
    assert called == [torch.float32] * 3  # w1, w3 and w2


def test_one_expert_is_the_dense_layer():
    found, dense = layer(1, 1), SwiGLU(TINY).double()
    for name in ("w1", "w3", "w2"):
        getattr(dense, name).weight.data = getattr(found, name).weight.data[0].T.contiguous()
    x = torch.randn(2, 30, 16, dtype=torch.float64)
    assert_close(found(x), dense(x), rtol=1e-12, atol=1e-12)


def test_the_order_of_the_experts_does_not_matter():
    found, other, order = layer(), layer(), torch.randperm(8)
    other.router.weight.data = found.router.weight.data[order]
    for name in ("w1", "w3", "w2"):
        getattr(other, name).weight.data = getattr(found, name).weight.data[order]
    x = torch.randn(2, 30, 16, dtype=torch.float64)
    assert_close(other(x), found(x), rtol=1e-12, atol=1e-12)


def test_a_token_does_not_see_the_others():
    found, x = layer(), torch.randn(1, 30, 16, dtype=torch.float64)
    assert_close(found(x)[:, 7:9], found(x[:, 7:9]), rtol=1e-12, atol=1e-12)


def test_balance_loss_is_1_when_uniform_and_e_when_one_expert_gets_all():
    uniform = torch.full((40, 8), 1 / 8)
    assert balance_loss(uniform, torch.full((8,), 10)) == pytest.approx(1)
    one = torch.eye(8)[torch.zeros(40, dtype=torch.long)]
    assert balance_loss(one, torch.tensor([80, 0, 0, 0, 0, 0, 0, 0])) == pytest.approx(8)
    uneven = torch.tensor([[0.7, 0.3]])
    assert balance_loss(uneven, torch.tensor([3, 1])) == pytest.approx(
        2 * (0.75 * 0.7 + 0.25 * 0.3)
    )


def test_the_balance_loss_is_1_where_shares_are_uniform_and_may_lie_below():
    """So a value near 1 says nothing of the load."""
    uniform = torch.full((4, 2), 1 / 2)
    assert balance_loss(uniform, torch.tensor([8, 0])) == pytest.approx(1)
    narrow = torch.tensor([[0.51, 0.49]] * 3 + [[0.0, 1.0]])  # three choose expert 0
    assert balance_loss(narrow, torch.tensor([3, 1])) < 0.9


def test_the_gradient_of_the_balance_loss_is_the_one_of_its_docstring():
    logits = torch.randn(40, 8, dtype=torch.float64, requires_grad=True)
    share, used = logits.softmax(-1), torch.arange(8)
    (found,) = torch.autograd.grad(balance_loss(share, used), logits)
    f = used / used.sum()
    assert_close(found, (8 / 40 * share * (f - share @ f.double()[:, None])).detach())


def test_with_one_expert_a_token_the_loss_does_not_reach_the_router():
    for top_k in (1, 2):
        found = layer(top_k=top_k)
        found(torch.randn(2, 30, 16, dtype=torch.float64)).square().sum().backward()
        assert (found.router.weight.grad.abs().max() > 1e-9) == (top_k == 2)


def test_the_balance_loss_enters_the_gradient_and_not_the_output():
    """The router's gradient is that of the cross-entropy plus that of the loss, added by hand."""
    x = torch.randn(2, 30, 16, dtype=torch.float64)
    found = layer()
    with_loss = layer(balance_weight=0.3)
    with_loss.load_state_dict(found.state_dict())
    assert_close(with_loss(x), found(x), rtol=0, atol=0)
    share, _, expert = found.route(x.flatten(0, 1))
    used = torch.bincount(expert.flatten(), minlength=8)
    (found(x).square().mean() + 0.3 * balance_loss(share, used)).backward()
    with_loss(x).square().mean().backward()
    for (key, ours), (_, theirs) in zip(
        with_loss.named_parameters(), found.named_parameters(), strict=True
    ):
        assert_close(ours.grad, theirs.grad, rtol=1e-6, atol=1e-9, msg=key)


def test_training_with_the_balance_loss_spreads_the_tokens(monkeypatch):
    """From a router that prefers one expert; without the loss it stays so."""
    loads = {}
    for weight in (0.0, 1.0):
        torch.manual_seed(0)
        monkeypatch.setattr(MoE, "balance_weight", weight)
        model = GPT(dataclasses.replace(TINY, attention="moe_diff_v2", n_layer=1))
        with torch.no_grad():
            model.blocks[0].mlp.router.weight[3:] -= 0.3 * model.blocks[0].mlp_norm.weight
            model.embed.weight.add_(0.1)  # so that a direction is common to all tokens
        optimizer = make_optimizer(model, TrainConfig(lr=1e-2))
        idx = torch.randint(0, 256, (8, 65))
        for _ in range(30):
            training_step(model, optimizer, [idx[:, :-1]], [idx[:, 1:]], 1.0)
        loads[weight] = expert_load(model, idx[:, :-1])[0]
        assert loads[weight].sum() == pytest.approx(1)
    assert loads[1.0].max() < 0.5 * loads[0.0].max()


@both
def test_a_model_decodes_with_its_cache_and_every_weight_has_a_gradient(name):
    model = GPT(dataclasses.replace(TINY, attention=name)).double()
    idx = torch.randint(0, 256, (4, 40))
    model(idx[:, :-1], idx[:, 1:])[1].backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []
    decode, full = Decoder(model), model(idx)[0]
    with torch.no_grad():
        parts = [decode(part) for part in idx.split([20, 18, 1, 1], 1)]
    assert_close(torch.cat(parts, 1), full, rtol=1e-10, atol=1e-10)


@both
def test_the_loss_of_the_model_is_the_cross_entropy_alone(name):
    model, idx = GPT(dataclasses.replace(TINY, attention=name)), torch.randint(0, 256, (2, 20))
    logits, loss = model(idx[:, :-1], idx[:, 1:])
    assert_close(loss, F.cross_entropy(logits.flatten(0, 1), idx[:, 1:].flatten()))


@both
def test_a_token_costs_as_much_as_before_and_the_model_holds_more(name):
    config = GPTConfig(n_layer=8, n_head=8, head_dim=64, n_embd=512, block_size=1024)
    with torch.device("meta"):
        model = GPT(dataclasses.replace(config, attention=name))
    mlp, dense = model.blocks[0].mlp, sum(p.numel() for p in SwiGLU(config).parameters())
    held = sum(p.numel() for name, p in mlp.named_parameters() if "router" not in name)
    assert held == mlp.n_experts // mlp.top_k * dense
    total = sum(p.numel() for p in model.parameters())
    active = total - 8 * held + 8 * dense
    assert total > 100e6 and 20e6 < active < 30e6


@pytest.mark.slow
def test_a_block_compiles_without_a_graph_break():
    torch.compiler.reset()
    model = GPT(dataclasses.replace(TINY, attention="moe_diff_v2"))
    x = torch.randn(2, 40, 16)
    compiled = torch.compile(model.blocks[0], fullgraph=True, backend="aot_eager")
    results = []
    for block in (compiled, model.blocks[0]):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):  # compiled, grouped_mm takes nothing else
            y = block(x, model.rope[:40])
        y.float().square().mean().backward()
        results.append((y, model.blocks[0].mlp.router.weight.grad.clone()))
    for ours, theirs in zip(*results, strict=True):
        assert (ours - theirs).norm() / theirs.norm() < 0.02


@pytest.mark.filterwarnings("error")
def test_mixed_precision_is_close_to_float64():
    """With the routes of float64: a router's near ties may fall either way."""
    exact = layer(n_experts=4, top_k=4)  # all experts: no choice to flip
    fast = layer(4, 4, torch.float32)
    fast.load_state_dict(exact.state_dict())
    x = torch.randn(2, 40, 16)
    with torch.autocast("cpu", torch.bfloat16):
        got = fast(x)
    expected = exact(x.double())
    assert got.dtype == torch.bfloat16
    assert (got.double() - expected).norm() / expected.norm() < 0.02


@pytest.mark.gpu
@both
def test_moe_trains_compiled_and_decodes_through_a_graph_on_the_gpu(name):
    torch.compiler.reset()
    config = GPTConfig(attention=name, n_layer=2, n_head=4, head_dim=64, n_embd=128, block_size=512)
    model, idx = GPT(config).cuda(), torch.randint(0, 256, (4, 301), device="cuda")
    x = torch.randn(2, 200, 128, device="cuda")
    mlp = model.blocks[0].mlp
    with torch.autocast("cuda", torch.bfloat16):
        fast = mlp(x)
    slow = mlp.double()(x.double())
    assert ((fast.double() - slow).norm(dim=-1) < 0.05 * slow.norm(dim=-1)).double().mean() > 0.95
    mlp.float()
    with torch.no_grad():
        full, decode = model(idx)[0], Decoder(model)
        for end, part in zip((298, 299, 300, 301), idx.split([298, 1, 1, 1], 1), strict=True):
            assert_close(decode(part)[:, -1], full[:, end - 1], rtol=0.01, atol=0.01)
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
