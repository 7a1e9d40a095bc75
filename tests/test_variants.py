"""Every variant against its formula written as loops, and in a whole model."""

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from minidiff import GPT, GPTConfig
from minidiff.generate import Decoder
from minidiff.model import ATTENTION, rope_table

TINY = GPTConfig(n_layer=2, n_head=8, n_kv_head=4, head_dim=8, n_embd=16, block_size=24)
GPU_PRESET = GPTConfig(n_layer=8, n_head=8, n_kv_head=2, head_dim=64, n_embd=512, block_size=1024)
every_attention = pytest.mark.parametrize("name", sorted(ATTENTION))


def layer(name, layer_index=1, **changes):
    """One attention layer in float64, far from its initialisation: no lambda or gate is special."""
    config = dataclasses.replace(TINY, attention=name, **changes)
    attn = ATTENTION[name](config, layer_index).double()
    with torch.no_grad():
        for parameter in attn.parameters():
            parameter.normal_(std=0.5)
    return attn


def inputs(attn, T=9, B=2):
    """x (B, T, D), the layer's normed input, and q, k, v from it."""
    x = torch.randn(B, T, attn.config.n_embd, dtype=torch.float64)
    return x, attn.qkv(x, rope_table(attn.config)[:T])


def tiny_model(name, tiny=TINY, **changes):
    """A small float64 GPT whose attention is far from uniform."""
    model = GPT(dataclasses.replace(tiny, attention=name, **changes)).double()
    with torch.no_grad():
        for block in model.blocks:
            for parameter in block.attn.parameters():
                parameter.normal_(std=0.5)
    return model


# ---- The formulas, head by head ----------------------------------------------------------------


def softmax_map(q, k, sink=None):
    """q, k (B, T, d) -> (B, T, T) causal; exp(sink) is added to the denominator."""
    scores = (q @ k.transpose(1, 2) / math.sqrt(q.shape[-1])).exp()
    scores = scores * torch.ones_like(scores[0]).tril()
    extra = 0 if sink is None else torch.as_tensor(sink).exp()
    return scores / (scores.sum(-1, keepdim=True) + extra)


def formula(name, attn, q, k, v, x):
    """What ``mix`` must return, as a list of heads (B, T, size)."""
    c = attn.config
    h, d, group = c.n_head, c.head_dim, q.shape[2] // c.n_kv_head

    def soft(i, sink=None):  # the output of query head i of grouped-query attention
        return softmax_map(q[:, :, i], k[:, :, i // group], sink) @ v[:, :, i // group]

    def lam_logit(i):  # (B, T, 1)
        return x @ attn.lambda_proj.weight[i][:, None]

    def v1(i):  # pair i of h/2
        g = i // group  # of h_kv/2 pairs of key heads and value heads
        values = torch.cat((v[:, :, 2 * g], v[:, :, 2 * g + 1]), -1)  # (B, T, 2d)
        a1, a2 = (softmax_map(q[:, :, 2 * i + b], k[:, :, 2 * g + b]) @ values for b in (0, 1))
        lambda_init = 0.8 - 0.6 * math.exp(-0.3 * attn.layer_index)
        first, second = attn.lambda_q1 @ attn.lambda_k1, attn.lambda_q2 @ attn.lambda_k2
        lam = first.exp() - second.exp() + lambda_init
        if name == "diff_v1_sigmoid":
            lam = (first - second + math.log(lambda_init / (1 - lambda_init))).sigmoid()
        out = a1 - lam * a2
        if name == "diff_v1_no_norm":
            return out
        rms = (out.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return out / rms * attn.head_norm.weight * (1 - lambda_init)

    def gate(i, n):  # rows i*n .. of gate_proj: (B, T, n)
        return (x @ attn.gate_proj.weight[i * n : (i + 1) * n].T).sigmoid()

    if name.startswith("diff_v1"):
        return [v1(i) for i in range(h // 2)]
    if name == "constructed":
        return [soft(i) for i in range(2 * h)]
    head = {
        "softmax": soft,
        "diff_v2": lambda i: soft(2 * i) - lam_logit(i).sigmoid() * soft(2 * i + 1),
        "diff_halves": lambda i: soft(i) - lam_logit(i).sigmoid() * soft(i + h),
        "diff_late_lambda": lambda i: soft(2 * i) - (lam_logit(i) - 4).sigmoid() * soft(2 * i + 1),
        "diff_no_lambda": lambda i: soft(2 * i) - soft(2 * i + 1),
        "diff_no_sigmoid": lambda i: soft(2 * i) - lam_logit(i) * soft(2 * i + 1),
        "off_by_one": lambda i: soft(i, sink=0.0),
        "sink_logit": lambda i: soft(i, sink=attn.sink_logit[i]),
        "gated": lambda i: soft(i) * gate(i, d),
        "gated_headwise": lambda i: soft(i) * gate(i, 1),
        "sparse_softmax": soft,  # within one block; over several of them: tests/test_sparse.py
    }
    head["yoco_softmax"], head["yoco_diff_v2"] = soft, head["diff_v2"]  # its layer in the middle
    head["diff_no_decay"] = head["diff_v2"]
    head["moe_softmax"], head["moe_diff_v2"] = soft, head["diff_v2"]  # another MLP: test_moe.py
    for share in ("pair", "head", "a1", "group"):
        head[f"sparse_{share}"] = head["diff_v2"]
    head = head[name]
    return [head(i) for i in range(h)]


@every_attention
@pytest.mark.parametrize("backend", ["naive", "sdpa"])
@settings(max_examples=8)
@given(
    h_kv=st.sampled_from([2, 4]),
    group=st.integers(1, 3),
    T=st.integers(1, 7),
    d=st.sampled_from([4, 8]),
)
def test_outputs_and_gradients_are_those_of_the_formula(name, backend, h_kv, group, T, d):
    """Gradients reach every weight of the layer and its input; both backends, any group size."""
    attn = layer(name, n_head=h_kv * group, n_kv_head=h_kv, head_dim=d, backend=backend)
    x, _ = inputs(attn, T)
    x.requires_grad_()
    q, k, v = attn.qkv(x, rope_table(attn.config)[:T])
    got, expected = attn.mix(q, k, v, x), torch.stack(formula(name, attn, q, k, v, x), dim=2)
    assert_close(got, expected, rtol=1e-10, atol=1e-10)
    wanted = [x, *(p for key, p in attn.named_parameters() if not key.startswith("o_proj"))]
    direction = torch.randn_like(expected)
    grads = (
        torch.autograd.grad(out, wanted, direction, retain_graph=True) for out in (got, expected)
    )
    for ours, theirs in zip(*grads, strict=True):
        assert_close(ours, theirs, rtol=1e-8, atol=1e-8)


@every_attention
def test_weights_times_values_is_mix(name):
    attn = layer(name)
    x, (q, k, v) = inputs(attn)
    out, maps = attn.mix(q, k, v, x), attn.weights(q, k, x)
    values = v.flatten(2).unflatten(2, (-1, out.shape[-1]))  # V1: two heads of size d are one of 2d
    values = values.repeat_interleave(maps.shape[1] // values.shape[2], dim=2)
    context = torch.einsum("bhts,bshd->bthd", maps, values)
    if name in ("diff_v1", "diff_v1_sigmoid"):
        context = attn.head_norm(context) * (1 - attn.lambda_init)
    if name == "gated":
        context = context * attn.gate(x)
    same = torch.allclose(out, context, rtol=1e-10, atol=1e-10)
    assert same == (name != "diff_halves")  # its two maps multiply different values: see below


@every_attention
def test_maps_are_causal_and_every_branch_is_a_softmax_or_less(name):
    attn = layer(name)
    x, (q, k, _) = inputs(attn)
    future = torch.ones(9, 9, dtype=torch.bool).triu(1)
    for maps in (attn.branches(q, k), attn.weights(q, k, x)):
        assert not maps[..., future].any()
    branches = attn.branches(q, k)
    assert branches.shape[1] == q.shape[2] and (branches >= 0).all()
    sums = branches.sum(-1)
    if name in ("off_by_one", "sink_logit"):
        assert (sums < 1).all() and (sums > 0).all()
    else:
        assert_close(sums, torch.ones_like(sums))


# ---- In a whole model --------------------------------------------------------------------------


@every_attention
def test_no_position_sees_a_later_token(name):
    model, idx = tiny_model(name), torch.randint(0, 256, (1, 10))
    before, _ = model(idx)
    for changed in range(10):
        other = idx.clone()
        other[0, changed] = (other[0, changed] + 1) % 256
        after, _ = model(other)
        assert_close(after[:, :changed], before[:, :changed], rtol=0, atol=1e-12)
        assert not torch.allclose(after[:, changed], before[:, changed])


@every_attention
@pytest.mark.parametrize("chunks", [[1] * 12, [5, 1, 6]])
@pytest.mark.parametrize("backend", ["naive", "sdpa"])
def test_decoding_with_the_cache_equals_the_full_forward(name, chunks, backend):
    if name.startswith("yoco"):
        pytest.skip("its early exit gives one token's logits: tests/test_yoco.py")
    model, idx = tiny_model(name, backend=backend), torch.randint(0, 256, (2, 12))
    decode = Decoder(model)
    with torch.no_grad():
        parts = [decode(part) for part in idx.split(chunks, dim=1)]
        assert_close(torch.cat(parts, dim=1), model(idx)[0], rtol=1e-10, atol=1e-10)


@every_attention
def test_every_weight_gets_a_gradient(name):
    """A weight without one would stop DDP, and would be counted for nothing."""
    model = GPT(dataclasses.replace(TINY, attention=name))
    idx = torch.randint(0, 256, (2, 13))
    model(idx[:, :-1], idx[:, 1:])[1].backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


@every_attention
@pytest.mark.filterwarnings("error")
def test_mixed_precision_is_close_to_float64(name):
    """Both ways that a GPU uses: float32 weights under autocast, and all of the model in bf16."""
    reference, idx = tiny_model(name), torch.randint(0, 256, (2, 12))
    model = GPT(reference.config)
    model.load_state_dict(reference.state_dict())
    with torch.no_grad():
        for block in (*reference.blocks, *model.blocks):
            block.attn.q_proj.weight.mul_(0.5)  # bf16 logits of size 10 would be off by 0.05
        expected, _ = reference(idx)
        with torch.autocast("cpu", torch.bfloat16):
            autocast, _ = model(idx)
        pure, _ = model.bfloat16()(idx)
    for got in (autocast, pure):  # some 20 roundings of 2^-9 in a row
        assert (got.double() - expected).norm() / expected.norm() < 0.05


@pytest.mark.slow
@every_attention
def test_attention_compiles_without_a_graph_break(name):
    attn = GPT(dataclasses.replace(TINY, attention=name)).blocks[0].attn
    x, rope = torch.randn(1, 6, 16), rope_table(TINY)[:6]
    torch.compiler.reset()  # all classes share one forward, and eight versions of it are the limit
    backend = "aot_eager" if name == "sink_logit" else "eager"  # it alone writes into a tensor
    compiled = torch.compile(attn, fullgraph=True, backend=backend)
    assert_close(compiled(x, rope), attn(x, rope))


def gradients_in_many_directions(fast, exact, out, expected, n=16):
    """For each parameter, its gradient in both models, stacked over n random output gradients.

    The gradient of V1's one lambda sums terms of both signs over all tokens, heads and channels: in
    one direction it may happen to be no larger than its rounding error.
    """
    grads = {fast: [], exact: []}
    for _ in range(n):
        direction = torch.randn_like(expected)
        for model, y in ((fast, out), (exact, expected)):
            parameters = model.blocks[0].attn.parameters()
            grads[model].append(
                torch.autograd.grad(y, parameters, direction.to(y.dtype), retain_graph=True)
            )
    stacked = ([torch.stack(g) for g in zip(*grads[m], strict=True)] for m in (fast, exact))
    return zip(*stacked, strict=True)


@every_attention
@pytest.mark.gpu
@pytest.mark.parametrize("head_dim", [64, 128])
def test_fast_kernels_compute_every_variant_on_the_gpu(name, head_dim):
    if name.startswith(("sparse", "yoco", "moe")):
        pytest.skip("it has a test of its own: rounding may change what it chooses, or its cache")
    config = dataclasses.replace(GPU_PRESET, attention=name, head_dim=head_dim, n_layer=1)
    fast = GPT(config).cuda()
    for projection in (fast.blocks[0].attn.q_proj, fast.blocks[0].attn.k_proj):
        projection.weight.data *= 3  # or a1 - a2 is as small as its rounding
    exact = GPT(dataclasses.replace(config, backend="naive")).cuda().double()
    exact.load_state_dict(fast.state_dict())
    x = torch.randn(2, 300, 512, device="cuda")
    with torch.autocast("cuda", torch.bfloat16):
        out = fast.blocks[0].attn(x, fast.rope[:300])
    expected = exact.blocks[0].attn(x.double(), exact.rope[:300])
    pairs = [(out, expected), *gradients_in_many_directions(fast, exact, out, expected)]
    for ours, theirs in pairs:  # a wrong kernel is off by about 1, bfloat16 by 0.01
        assert (ours.double() - theirs).norm() / theirs.norm() < 0.05
    idx = torch.randint(0, 256, (2, 20), device="cuda")
    with torch.no_grad():
        decode = Decoder(fast.bfloat16())  # a prompt, then tokens through the cache
        parts = [decode(part).clone() for part in idx.split([17, 1, 1, 1], dim=1)]
        assert_close(torch.cat(parts, dim=1), fast(idx)[0], rtol=0, atol=0.05)
