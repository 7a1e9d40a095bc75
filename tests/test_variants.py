"""Every variant against its formula written as loops, and the mistakes that are known."""

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from minidiff import GPT, GPTConfig, attention, differential, theory
from minidiff.diff_v1 import DiffV1Attention, DiffV1NoNormAttention
from minidiff.generate import Decoder
from minidiff.model import ATTENTION, DiffV2Attention, rope_angles
from minidiff.variants import VARIANTS, parameter_counts, start_constructed, variant

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
    return x, attn.qkv(x, rope_angles(attn.config)[:T])


def tiny_model(name, **changes):
    """A small float64 GPT whose attention is far from uniform."""
    model = GPT(dataclasses.replace(TINY, attention=name, **changes)).double()
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
        lam = (attn.lambda_q1 @ attn.lambda_k1).exp() - (attn.lambda_q2 @ attn.lambda_k2).exp()
        out = a1 - (lam + lambda_init) * a2
        if name == "diff_v1_no_norm":
            return out
        rms = (out.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return out / rms * attn.head_norm.weight * (1 - lambda_init)

    def gate(i, n):  # rows i*n .. of gate_proj: (B, T, n)
        return (x @ attn.gate_proj.weight[i * n : (i + 1) * n].T).sigmoid()

    if name in ("diff_v1", "diff_v1_no_norm"):
        return [v1(i) for i in range(h // 2)]
    if name == "constructed":
        return [soft(i) for i in range(2 * h)]
    head = {
        "softmax": soft,
        "diff_v2": lambda i: soft(2 * i) - lam_logit(i).sigmoid() * soft(2 * i + 1),
        "diff_halves": lambda i: soft(i) - lam_logit(i).sigmoid() * soft(i + h),
        "diff_no_lambda": lambda i: soft(2 * i) - soft(2 * i + 1),
        "diff_no_sigmoid": lambda i: soft(2 * i) - lam_logit(i) * soft(2 * i + 1),
        "off_by_one": lambda i: soft(i, sink=0.0),
        "sink_logit": lambda i: soft(i, sink=attn.sink_logit[i]),
        "gated": lambda i: soft(i) * gate(i, d),
        "gated_headwise": lambda i: soft(i) * gate(i, 1),
    }[name]
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
    q, k, v = attn.qkv(x, rope_angles(attn.config)[:T])
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
    if name == "diff_v1":
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


@every_attention
def test_attention_compiles_without_a_graph_break(name):
    attn = GPT(dataclasses.replace(TINY, attention=name)).blocks[0].attn
    x, angles = torch.randn(1, 6, 16), rope_angles(TINY)[:6]
    torch.compiler.reset()  # all classes share one forward, and eight versions of it are the limit
    backend = "aot_eager" if name == "sink_logit" else "eager"  # it alone writes into a tensor
    compiled = torch.compile(attn, fullgraph=True, backend=backend)
    assert_close(compiled(x, angles), attn(x, angles))


@every_attention
@pytest.mark.gpu
@pytest.mark.parametrize("head_dim", [64, 128])
def test_fast_kernels_compute_every_variant_on_the_gpu(name, head_dim):
    config = dataclasses.replace(GPU_PRESET, attention=name, head_dim=head_dim, n_layer=1)
    fast = GPT(config).cuda()
    for projection in (fast.blocks[0].attn.q_proj, fast.blocks[0].attn.k_proj):
        projection.weight.data *= 3  # or a1 - a2 is as small as its rounding
    exact = GPT(dataclasses.replace(config, backend="naive")).cuda().double()
    exact.load_state_dict(fast.state_dict())
    x = torch.randn(2, 300, 512, device="cuda")
    with torch.autocast("cuda", torch.bfloat16):
        out = fast.blocks[0].attn(x, fast.angles[:300])
    expected = exact.blocks[0].attn(x.double(), exact.angles[:300])
    direction = torch.randn_like(expected)
    grads = (
        torch.autograd.grad(y, model.blocks[0].attn.parameters(), direction.to(y.dtype))
        for model, y in ((fast, out), (exact, expected))
    )
    for ours, theirs in [(out, expected), *zip(*grads, strict=True)]:
        assert (ours.double() - theirs).norm() / theirs.norm() < 0.05  # some 10 roundings of 2^-9
    idx = torch.randint(0, 256, (2, 20), device="cuda")
    with torch.no_grad():
        decode = Decoder(fast.bfloat16())  # a prompt, then tokens through the recorded CUDA graph
        parts = [decode(part).clone() for part in idx.split([17, 1, 1, 1], dim=1)]
        assert_close(torch.cat(parts, dim=1), fast(idx)[0], rtol=0, atol=0.05)


# ---- Known mistakes ----------------------------------------------------------------------------


def test_v1_normalises_the_channels_of_each_head_and_token():
    """The known mistake: a norm over time, or over all heads at once."""
    attn = layer("diff_v1")
    attn.head_norm.weight.data.fill_(1.0)
    x, (q, k, v) = inputs(attn)
    v = v * torch.logspace(0, 3, 4)[:, None] * torch.logspace(0, 3, 9)[:, None, None]  # head, time
    rms = attn.mix(q, k, v, x).square().mean(-1).sqrt()  # (B, T, h/2)
    assert_close(rms, torch.full_like(rms, 1 - attn.lambda_init), rtol=1e-4, atol=0)  # eps = 1e-5


def test_v1_norm_multiplies_a_uniform_head_and_its_gradient_by_sqrt_n():
    """Claim 13. Keys of zero make all maps uniform, so that n random values average out."""
    attn = layer("diff_v1", head_dim=64)
    attn.head_norm.weight.data.fill_(1.0)
    gains = []  # (forward, backward) of the norm, at n = 16 and n = 256
    for n in (16, 256):
        q, x = (torch.randn(1, n, *size, dtype=torch.float64) for size in ((8, 64), (16,)))
        v = torch.randn(1, n, 4, 64, dtype=torch.float64, requires_grad=True)
        plain, normed = (  # the context of the last query, (h/2, 2d)
            cls.mix(attn, q, torch.zeros_like(v), v, x)[0, -1]
            for cls in (DiffV1NoNormAttention, DiffV1Attention)
        )
        direction = torch.randn_like(plain)
        grads = [torch.autograd.grad(out, v, direction)[0].norm() for out in (plain, normed)]
        gains.append(torch.stack((normed.norm() / plain.norm(), grads[1] / grads[0])))
    assert_close(gains[1] / gains[0], torch.full((2,), 4.0).double(), rtol=0.15, atol=0)


def test_v1_lambda_starts_at_the_published_values():
    attn = [layer("diff_v1", layer_index=i) for i in range(3)]
    for module in attn:
        module.lambda_q1.data.zero_()
        module.lambda_q2.data.zero_()
    got = [module.lam().item() for module in attn]
    assert got == pytest.approx([0.2, 0.8 - 0.6 * math.exp(-0.3), 0.8 - 0.6 * math.exp(-0.6)])


def test_v1_without_norm_and_with_shared_keys_is_v2_on_each_half_of_the_values():
    """Let both branches of V1 read one key head: then only the wider values are left of it."""
    attn = layer("diff_v1_no_norm")
    with torch.no_grad():  # exp(small) - exp(small) + lambda_init, so that lambda lies in (0, 1)
        for key in ("lambda_q1", "lambda_q2"):
            getattr(attn, key).mul_(0.01)
    x, (q, k, v) = inputs(attn)
    k = k[:, :, 0::2].repeat_interleave(2, dim=2)
    lam_logit = torch.logit(attn.lam()).expand(2, 9, 4)
    halves = [
        differential(attention(q, k[:, :, 0::2], v[:, :, c::2], backend="naive"), lam_logit)
        for c in (0, 1)
    ]
    assert_close(attn.mix(q, k, v, x), torch.cat(halves, dim=-1))


@pytest.mark.parametrize("h_kv", [1, 2, 4])
def test_pairing_across_groups_is_a_relabelling_only_if_h_kv_is_one(h_kv):
    """Ablation 1: give V2 the query heads in the order 0, h, 1, h+1, ..."""
    h, d = 8, 8
    wrong, right = layer("diff_halves", n_kv_head=h_kv), layer("diff_v2", n_kv_head=h_kv)
    right.load_state_dict(wrong.state_dict())
    order = torch.arange(2 * h).unflatten(0, (2, h)).T.flatten()
    heads = wrong.q_proj.weight.unflatten(0, (2 * h, d))
    right.q_proj.weight.data = heads[order].flatten(0, 1).detach().clone()
    x, angles = torch.randn(2, 9, 16).double(), rope_angles(TINY)[:9]
    assert torch.allclose(wrong(x, angles), right(x, angles)) == (h_kv == 1)


PER_TOKEN = {"diff_v2", "diff_halves", "diff_no_sigmoid", "gated", "gated_headwise"}


@every_attention
def test_lambda_and_gates_belong_to_one_token_where_they_depend_on_tokens(name):
    """q, k, v stay, so that x reaches the output only through lambda or a gate, at its token."""
    attn = layer(name)
    x, (q, k, v) = inputs(attn)
    other = x.clone()
    other[0, 4] += 1.0
    changed = (attn.mix(q, k, v, other) != attn.mix(q, k, v, x)).flatten(2).any(-1)  # (B, T)
    assert changed.nonzero().tolist() == ([[0, 4]] if name in PER_TOKEN else [])


def test_without_lambda_rows_sum_to_zero_and_little_is_left_at_initialisation():
    """Ablation 2, claim 10: a1 ~ a2 ~ uniform at initialisation, so only 1 - lambda counts."""
    x = torch.randn(1, 64, 64)
    rms = {}
    for name in ("diff_v2", "diff_no_lambda"):
        model = GPT(GPTConfig(attention=name, n_layer=1, n_embd=64))
        attn, angles = model.blocks[0].attn, model.angles[:64]
        q, k, v = attn.qkv(x, angles)
        rms[name] = attn.mix(q, k, v, x)[:, -1].square().mean().sqrt()
        if name == "diff_no_lambda":
            sums = attn.weights(q, k, x).sum(-1)
            assert_close(sums, torch.zeros_like(sums), rtol=0, atol=1e-6)
    assert rms["diff_no_lambda"] < 0.2 * rms["diff_v2"]


def test_without_the_sigmoid_lambda_starts_near_zero_and_has_no_bound():
    """Ablation 3, claim 11. With it, RMS stays under sqrt(2) for one-hot maps of RMS-1 values."""
    for scale in (1.0, 30.0):
        for name in ("diff_v2", "diff_no_sigmoid"):
            attn = GPT(GPTConfig(attention=name, n_embd=64)).blocks[0].attn
            attn.lambda_proj.weight.data *= scale
            x = torch.randn(2, 9, 64)
            row_sum = attn.weights(*attn.qkv(x, rope_angles(attn.config)[:9])[:2], x).sum(-1)
            lam = 1 - row_sum  # (B, h, T)
            if name == "diff_v2":
                assert lam.min() >= 0 and lam.max() <= 1
            elif scale == 1:
                assert lam.abs().mean() < 0.2
            else:
                assert lam.min() < -1 and lam.max() > 2


# ---- Sinks in the denominator ------------------------------------------------------------------


def test_a_sink_logit_of_zero_is_off_by_one_and_of_minus_infinity_is_softmax():
    softmax, off, sink = (layer(name) for name in ("softmax", "off_by_one", "sink_logit"))
    weights = softmax.state_dict()
    off.load_state_dict(weights)
    sink.load_state_dict(weights | {"sink_logit": torch.zeros(8)})
    x, angles = torch.randn(2, 9, 16).double(), rope_angles(TINY)[:9]
    assert_close(sink(x, angles), off(x, angles))
    sink.sink_logit.data.fill_(-1e4)  # exp underflows to 0
    assert_close(sink(x, angles), softmax(x, angles))


@pytest.mark.parametrize("name", ["off_by_one", "sink_logit"])
def test_a_head_can_attend_to_nothing(name):
    """Softmax must put its weight somewhere; here keys that all say no leave the output empty."""
    attn = layer(name)
    x, (q, k, v) = inputs(attn)
    q, k = torch.full_like(q, 10.0), torch.full_like(k, -10.0)
    assert attn.mix(q, k, v, x).abs().max() < 1e-30
    assert_close(attn.branches(q, k).sum(-1), torch.zeros(2, 8, 9).double())


# ---- Constructed -------------------------------------------------------------------------------


class ConstantLambda(torch.nn.Module):
    """In the place of lambda_proj: the same logits (h,) for every token."""

    def __init__(self, logits):
        super().__init__()
        self.logits = torch.nn.Parameter(logits)

    def forward(self, x):
        return self.logits.expand(*x.shape[:2], -1)


def test_constructed_is_diff_v2_with_a_constant_lambda_for_each_head():
    built = layer("constructed")
    logits = torch.randn(8).double()
    built.o_proj.lambda_logit.data = logits.clone()
    diff = DiffV2Attention(dataclasses.replace(TINY, attention="diff_v2")).double()
    same = {k: w for k, w in built.state_dict().items() if "lambda" not in k}
    diff.load_state_dict(same, strict=False)
    diff.lambda_proj = ConstantLambda(logits)
    x, angles = torch.randn(2, 9, 16).double(), rope_angles(TINY)[:9]
    assert_close(built(x, angles), diff(x, angles), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("lam", [0.0, 0.3, 1.0])
def test_a_2h_head_softmax_model_can_start_as_diff_v2(lam):
    """Claim 14: the operation is there to be found. Only W_O is set, and it may move."""
    diff = tiny_model("diff_v2")
    softmax = tiny_model("softmax", n_head=2 * TINY.n_head)
    weights = diff.state_dict()
    for key in softmax.state_dict():
        if key.endswith("o_proj.weight"):  # the even slices are V2's; the odd ones are yet wrong
            slices = weights[key].unflatten(1, (TINY.n_head, 8))
            weights[key] = torch.stack((slices, torch.randn_like(slices)), dim=2).flatten(1)
    softmax.load_state_dict({k: w for k, w in weights.items() if "lambda" not in k})
    start_constructed(softmax, lam)
    for block in diff.blocks:
        block.attn.lambda_proj = ConstantLambda(torch.full((8,), lam, dtype=torch.float64).logit())
    idx = torch.randint(0, 256, (2, 12))
    assert_close(softmax(idx)[0], diff(idx)[0], rtol=1e-12, atol=1e-12)
    assert all(p.requires_grad for p in softmax.parameters())


@pytest.mark.parametrize(("name", "h", "h_kv"), [("diff_v2", 8, 4), ("softmax", 6, 2)])
def test_start_constructed_refuses_what_has_no_pairs(name, h, h_kv):
    with pytest.raises(ValueError, match="multiple of 2"):
        start_constructed(GPT(dataclasses.replace(TINY, attention=name, n_head=h, n_kv_head=h_kv)))


# ---- Sizes -------------------------------------------------------------------------------------


@every_attention
@pytest.mark.parametrize("h, h_kv, d, D", [(8, 4, 8, 16), (12, 2, 32, 128)])
def test_parameter_counts_are_the_closed_forms(name, h, h_kv, d, D):
    softmax = 2 * h * d * D + 2 * h_kv * d * D
    more = {
        "diff_v2": h * d * D + h * D,
        "diff_halves": h * d * D + h * D,
        "diff_no_sigmoid": h * d * D + h * D,
        "diff_no_lambda": h * d * D,
        "constructed": h * d * D + h,
        "diff_v1_no_norm": 4 * d,
        "diff_v1": 4 * d + 2 * d,
        "sink_logit": h,
        "gated": h * d * D,
        "gated_headwise": h * D,
        "softmax": 0,
        "off_by_one": 0,
    }
    config = dataclasses.replace(
        TINY, attention=name, n_head=h, n_kv_head=h_kv, head_dim=d, n_embd=D
    )
    count = sum(p.numel() for p in ATTENTION[name](config).parameters())
    assert count == softmax + more[name]


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_have_the_parameters_of_diff_v2_or_say_otherwise(name):
    counts = parameter_counts(GPU_PRESET, name)
    model = GPT(variant(dataclasses.replace(GPU_PRESET, n_layer=1), name))
    assert sum(p.numel() for p in model.blocks[0].attn.parameters()) * 8 == counts["attention"]
    if name in ("softmax_h", "softmax_2h"):
        assert abs(counts["percent"]) > 5
        assert "fewer" in VARIANTS[name] or "more" in VARIANTS[name]
    else:
        assert abs(counts["percent"]) < 0.5


def test_variants_are_sized_by_heads():
    heads = {name: variant(TINY, name).n_head for name in VARIANTS}
    assert heads.pop("softmax_2h") == 16
    wider = {"softmax_1.5h", "diff_v1", "diff_v1_no_norm", "off_by_one", "sink_logit"}
    assert heads == {n: 12 if n in wider | {"gated_headwise"} else 8 for n in heads}
    assert variant(TINY, "diff_v2") == TINY
    same = ("n_layer", "n_kv_head", "head_dim", "n_embd", "block_size", "vocab_size", "backend")
    for name in VARIANTS:
        assert all(getattr(variant(TINY, name), f) == getattr(TINY, f) for f in same)
    assert {variant(TINY, name).attention for name in VARIANTS} == set(ATTENTION)


@pytest.mark.parametrize(
    ("changes", "name", "message"),
    [
        ({}, "dif_v2", "did you mean 'diff_v2'"),
        ({}, "softmax_1.5", "did you mean 'softmax_1.5h'"),
        ({"attention": "softmax"}, "gated", "not 'softmax'"),
        ({"n_head": 4}, "softmax_1.5h", "even multiple of n_kv_head"),
        ({"n_head": 12}, "diff_v1", "even multiple of n_kv_head"),
        ({"n_kv_head": 1}, "diff_v1", "must be even"),
    ],
)
def test_what_does_not_fit_is_named_in_one_line_before_any_training(changes, name, message):
    config = dataclasses.replace(TINY, **changes)
    with pytest.raises(ValueError, match=message) as error:
        variant(config, name)
    assert "\n" not in str(error.value)


def test_the_published_sizes_hold_for_real_modules_of_the_head_counts():
    """softmax_1.5h has V2's attention weights up to W_lambda, h D of them."""
    one_layer = dataclasses.replace(GPU_PRESET, n_layer=1)
    diff, base = (parameter_counts(one_layer, n)["attention"] for n in ("diff_v2", "softmax_1.5h"))
    assert diff - base == 8 * 512
    assert base == theory.attention_params(512, 12, 2, 64)
