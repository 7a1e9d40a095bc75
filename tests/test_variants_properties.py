"""What must hold between variants, the mistakes that are known, and the sizes."""

import dataclasses
import math
import re

import pytest
import torch
from test_variants import GPU_PRESET, TINY, every_attention, inputs, layer, tiny_model
from torch.testing import assert_close

from minidiff import GPT, GPTConfig, attention, differential
from minidiff.model import ATTENTION, DiffV2Attention, rope_table
from minidiff.variants import VARIANTS, parameter_counts, start_constructed, variant
from minidiff.variants.sparse import SHARES
from minidiff.variants.v1 import DiffV1Attention, DiffV1NoNormAttention

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
    x, rope = torch.randn(2, 9, 16).double(), rope_table(TINY)[:9]
    assert torch.allclose(wrong(x, rope), right(x, rope)) == (h_kv == 1)


PER_TOKEN = {"diff_v2", "diff_halves", "diff_no_sigmoid", "gated", "gated_headwise"}
PER_TOKEN |= {"diff_late_lambda", "diff_no_decay"}
PER_TOKEN |= {"yoco_diff_v2", "moe_diff_v2", *(f"sparse_{share}" for share in SHARES)}


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
        attn, rope = model.blocks[0].attn, model.rope[:64]
        q, k, v = attn.qkv(x, rope)
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
            row_sum = attn.weights(*attn.qkv(x, rope_table(attn.config)[:9])[:2], x).sum(-1)
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
    x, rope = torch.randn(2, 9, 16).double(), rope_table(TINY)[:9]
    assert_close(sink(x, rope), off(x, rope))
    sink.sink_logit.data.fill_(-1e4)  # exp underflows to 0
    assert_close(sink(x, rope), softmax(x, rope))


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
    x, rope = torch.randn(2, 9, 16).double(), rope_table(TINY)[:9]
    assert_close(built(x, rope), diff(x, rope), rtol=1e-12, atol=1e-12)


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
        "diff_v1_sigmoid": 4 * d + 2 * d,
        "sink_logit": h,
        "gated": h * d * D,
        "gated_headwise": h * D,
        "softmax": 0,
        "off_by_one": 0,
        "sparse_softmax": 0,
        "yoco_softmax": 0,  # in the lower half
        "moe_softmax": 0,
    }
    as_v2 = ("diff_late_lambda", "diff_no_decay", "yoco_diff_v2", "moe_diff_v2")
    as_v2 += tuple(f"sparse_{share}" for share in SHARES)
    more |= dict.fromkeys(as_v2, more["diff_v2"])
    config = dataclasses.replace(
        TINY, attention=name, n_head=h, n_kv_head=h_kv, head_dim=d, n_embd=D
    )
    count = sum(p.numel() for p in ATTENTION[name](config).parameters())
    assert count == softmax + more[name]


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_have_the_parameters_of_diff_v2_or_say_otherwise(name):
    counts = parameter_counts(GPU_PRESET, name)
    model = GPT(variant(dataclasses.replace(GPU_PRESET, n_layer=1), name))
    in_all = sum(p.numel() for p in model.blocks[0].attn.parameters()) * 8
    if name.startswith("yoco"):  # layers 5, 6, 7 have no W_K and W_V
        assert counts["attention"] == in_all - 3 * 2 * 2 * 64 * 512
        assert -2 < counts["percent"] < -1
        return
    assert counts["attention"] == in_all
    if name in ("softmax_h", "softmax_2h", "softmax_2h_start", "moe_softmax", "moe_diff_v2"):
        assert abs(counts["percent"]) > 5
        assert re.search("fewer|more|softmax_2h", VARIANTS[name])
    else:
        assert abs(counts["percent"]) < 0.5


def test_variants_are_sized_by_heads():
    heads = {name: variant(TINY, name).n_head for name in VARIANTS}
    assert heads.pop("softmax_2h") == heads.pop("softmax_2h_start") == 16
    wider = {
        "softmax_1.5h",
        "softmax_1.5h_quiet",
        "diff_v1",
        "diff_v1_no_norm",
        "diff_v1_sigmoid",
        "off_by_one",
        "sink_logit",
    }
    wider |= {"gated_headwise", "sparse_softmax", "yoco_softmax", "moe_softmax"}
    assert heads == {n: 12 if n in wider else 8 for n in heads}
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
