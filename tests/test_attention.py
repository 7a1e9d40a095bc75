"""The differential step and attention: properties that the known mistakes would break."""

import logging
import sys
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

import minidiff
from minidiff import attention, attention_weights, diff_attention, differential
from minidiff.attention import PAIR, PLAIN, choose
from minidiff.fast import packages
from minidiff.model import ATTENTION

attention_module = sys.modules["minidiff.attention"]  # minidiff.attention is the function


@st.composite
def shapes(draw):
    """(B, T, S, h, h_kv, d): any group ratio, with S >= T (the queries are the last positions)."""
    h_kv = draw(st.sampled_from([1, 2, 3]))
    h = h_kv * draw(st.integers(1, 3))
    T = draw(st.integers(1, 12))
    S = T + draw(st.sampled_from([0, 0, 1, 5]))
    return draw(st.integers(1, 2)), T, S, h, h_kv, draw(st.sampled_from([2, 8, 16]))


def random_qkv(B, T, S, H, h_kv, d, dtype=torch.float64, scale=1.0):
    q = torch.randn(B, T, H, d, dtype=dtype) * scale
    k, v = (torch.randn(B, S, h_kv, d, dtype=dtype) for _ in "kv")
    return q, k, v


# ---- The definition ----------------------------------------------------------------------------


@pytest.mark.slow
@given(shapes())
def test_attention_is_the_formula_written_as_loops(shape):
    B, T, S, h, h_kv, d = shape
    q, k, v = random_qkv(B, T, S, h, h_kv, d)
    expected = torch.zeros_like(q)
    for b in range(B):
        for t in range(T):
            for head in range(h):
                n = S - T + t + 1  # keys that this query sees
                group = head // (h // h_kv)
                scores = torch.stack([q[b, t, head] @ k[b, s, group] for s in range(n)]) / d**0.5
                a = scores.softmax(0)
                expected[b, t, head] = sum(a[s] * v[b, s, group] for s in range(n))
    assert_close(attention(q, k, v, backend="naive"), expected, rtol=1e-12, atol=1e-12)


@given(shapes(), st.sampled_from([0.1, 1.0, 30.0]))
def test_maps_are_causal_and_their_rows_sum_to_one(shape, scale):
    B, T, S, h, h_kv, d = shape
    q, k, _ = random_qkv(B, T, S, h, h_kv, d, scale=scale)
    maps = attention_weights(q, k)
    assert maps.shape == (B, h, T, S)
    assert_close(maps.sum(-1), torch.ones(B, h, T, dtype=maps.dtype))
    future = torch.ones(T, S, dtype=torch.bool).triu(S - T + 1)
    assert not maps[..., future].any()


@given(shapes(), st.sampled_from([torch.float64, torch.bfloat16]), st.booleans())
def test_a_mask_takes_the_place_of_the_causal_one(shape, dtype, per_head):
    """Each row is softmax over the keys that the mask shows, later ones too; T > S is allowed."""
    B, S, T, h, h_kv, d = shape  # T >= S: causal=True alone would refuse T > S
    q, k, _ = random_qkv(B, T, S, h, h_kv, d, dtype=dtype)
    mask = torch.rand((B, h, T, S) if per_head else (T, S)) < 0.5
    mask[..., 0] = True  # every query sees a key
    maps = attention_weights(q, k, mask=mask)
    kept = attention_weights(q, k, causal=False) * mask
    assert maps.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert_close(maps, kept / kept.sum(-1, keepdim=True))
    causal = torch.ones(T, T, dtype=torch.bool).tril()
    assert_close(attention_weights(q, q, mask=causal), attention_weights(q, q))


@given(shapes())
def test_rows_of_the_differential_map_sum_to_one_minus_lambda(shape):
    B, T, S, h, h_kv, d = shape
    q, k, _ = random_qkv(B, T, S, 2 * h, h_kv, d)
    lam_logit = torch.randn(B, T, h, dtype=q.dtype)
    # A map is a matrix of "values": the differential step acts on it as on any (B, T, 2h, ...).
    signed = differential(attention_weights(q, k).transpose(1, 2), lam_logit)  # (B, T, h, S)
    assert_close(signed.sum(-1), 1 - lam_logit.sigmoid())


@given(shapes())
def test_equal_branches_leave_one_minus_lambda_times_softmax(shape):
    B, T, S, h, h_kv, d = shape
    q, k, v = random_qkv(B, T, S, h, h_kv, d)
    lam_logit = torch.randn(B, T, h, dtype=q.dtype)
    both = q.repeat_interleave(2, dim=2)  # q of head 2i equals q of head 2i+1
    out = diff_attention(both, k, v, lam_logit, backend="naive")
    assert_close(out, (1 - lam_logit.sigmoid())[..., None] * attention(q, k, v, backend="naive"))


@given(shapes())
def test_lambda_zero_leaves_the_even_heads(shape):
    B, T, S, h, h_kv, d = shape
    q, k, v = random_qkv(B, T, S, 2 * h, h_kv, d)
    out = diff_attention(q, k, v, torch.full((B, T, h), -torch.inf).double(), backend="naive")
    assert_close(out, attention(q[:, :, 0::2], k, v, backend="naive"))


def test_lambda_is_one_number_per_token_and_head():
    attn = torch.randn(2, 5, 6, 4, dtype=torch.float64)
    logit = torch.randn(2, 5, 3, dtype=torch.float64)
    base = differential(attn, logit)
    logit[1, 3, 2] += 1.0
    changed = (differential(attn, logit) != base).any(-1)  # over the channels
    assert changed.nonzero().tolist() == [[1, 3, 2]]


@pytest.mark.parametrize("h_kv", [1, 2, 4])
def test_pairing_across_groups_is_a_different_function_unless_h_kv_is_one(h_kv):
    """The known mistake: head i minus head i + h. With one key/value head it only renames heads."""
    h = 4
    q, k, v = random_qkv(2, 7, 7, 2 * h, h_kv, 8)
    attn = attention(q, k, v, backend="naive")
    wrong = attn[:, :, :h] - 0.5 * attn[:, :, h:]
    order = torch.arange(2 * h).unflatten(0, (2, h)).T.flatten()  # 0, h, 1, h+1, ...
    right = diff_attention(q[:, :, order], k, v, torch.zeros(2, 7, h).double(), backend="naive")
    assert torch.allclose(wrong, right) == (h_kv == 1)


def test_pair_that_straddles_two_key_value_heads_is_refused():
    """2h divisible by h_kv is not enough: h=3, h_kv=2 puts heads 2 and 3 in different groups."""
    q, k, v = random_qkv(1, 4, 4, 6, 2, 8)
    with pytest.raises(ValueError, match="straddles"):
        diff_attention(q, k, v, torch.zeros(1, 4, 3))


# ---- Backends ----------------------------------------------------------------------------------

# A tolerance is a small multiple of the dtype's rounding step: 2^-53, 2^-24, 2^-8.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-5, torch.bfloat16: 4e-2}


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@given(shape=shapes())
def test_backends_agree_with_naive_float64_in_outputs_and_gradients(shape, dtype):
    B, T, S, h, h_kv, d = shape
    reference = random_qkv(B, T, S, 2 * h, h_kv, d, scale=2.0)
    lam_logit, weight = torch.randn(B, T, h).double(), torch.randn(B, T, h, d).double()
    reference = [x.to(dtype).double().requires_grad_() for x in (*reference, lam_logit)]
    cast = [x.detach().to(dtype).requires_grad_() for x in reference]
    expected = diff_attention(*reference, backend="naive")
    got = diff_attention(*cast, backend="sdpa")
    assert got.dtype == dtype
    (expected * weight).sum().backward()
    (got * weight.to(dtype)).sum().backward()
    pairs = [(expected, got), *((x.grad, y.grad) for x, y in zip(reference, cast, strict=True))]
    for ours, theirs in pairs:
        error = (ours - theirs.double()).norm() / ours.norm().clamp(min=1.0)
        assert error < TOLERANCE[dtype]


@pytest.mark.parametrize("backend", ["naive", "sdpa"])
@given(shape=shapes(), unused=st.integers(0, 6))
def test_attention_over_a_cache_ignores_what_is_not_filled(shape, unused, backend):
    B, T, S, h, h_kv, d = shape
    q, k, v = random_qkv(B, T, S, h, h_kv, d)
    garbage = torch.full((B, unused, h_kv, d), 1e3, dtype=k.dtype)
    n_keys = torch.tensor([S], dtype=torch.int32)
    caches = (torch.cat((x, garbage), dim=1) for x in (k, v))
    assert_close(
        attention(q, *caches, n_keys=n_keys, backend=backend), attention(q, k, v, backend="naive")
    )


@pytest.mark.parametrize("name", sorted(ATTENTION))
def test_a_naive_model_writes_and_trains_by_the_formula_alone(name, monkeypatch):
    """With a cache it was SDPA, whatever the log said; so were YOCO's windows."""

    def not_the_formula(*args, **kwargs):
        raise AssertionError("this is SDPA")

    monkeypatch.setattr(F, "scaled_dot_product_attention", not_the_formula)
    shape = {"n_layer": 2, "head_dim": 8, "n_embd": 16, "block_size": 12}
    model = minidiff.GPT(minidiff.GPTConfig(attention=name, backend="naive", **shape))
    idx = torch.randint(0, 256, (2, 5))
    assert model.generate(idx, 3).shape == (2, 8)
    model(idx, idx)[1].backward()


@pytest.mark.parametrize(("backend", "runs"), [("naive", "naive"), ("auto", "sdpa; not split")])
def test_the_log_names_what_runs_once_and_not_what_would(backend, runs, caplog):
    """With a cache it named the kernel for whole sequences; one line for prompts of any length."""
    caplog.set_level(logging.INFO, "minidiff")
    attention_module._say_once.cache_clear()
    shape = {"n_layer": 1, "head_dim": 8, "n_embd": 16, "block_size": 12, "backend": backend}
    model = minidiff.GPT(minidiff.GPTConfig(**shape))
    for length in (3, 4):
        model.generate(torch.zeros(1, length, dtype=torch.long), 2)
    assert [m.split(": ", 1)[0] for m in caplog.messages] == [
        "attention over a cache on cpu, torch.float32, d=8"
    ]
    assert caplog.messages[0].split(": ", 1)[1].startswith(runs)
    model(torch.zeros(1, 3, dtype=torch.long))
    assert "attention on cpu" in caplog.messages[-1]


@pytest.mark.slow
def test_attention_compiles_without_a_graph_break():
    q, k, v = random_qkv(1, 8, 8, 4, 2, 8, dtype=torch.float32)
    logit = torch.randn(1, 8, 2)
    for backend in ("auto", "naive", "sdpa"):
        compiled = torch.compile(diff_attention, fullgraph=True, backend="aot_eager")
        assert_close(compiled(q, k, v, logit, backend=backend), diff_attention(q, k, v, logit))


def test_the_compiler_asks_for_a_package_and_does_not_trace_its_import():
    """torch.compiler.assume_constant_result, without the decorator: a private name of PyTorch's."""

    def function(x):
        return x if packages.why_missing("a_package_nobody_has") else x + 1

    x = torch.zeros(2)
    assert_close(torch.compile(function, fullgraph=True, backend="eager")(x), x)


def test_every_backend_says_whether_it_can_run_and_why():
    report = minidiff.available_backends("cpu")
    assert set(report) == {"naive", "sdpa", "flash", "flash2", "flash4", "pair"}
    assert report["naive"].startswith("ready") and report["sdpa"].startswith("ready")
    assert report["flash"].startswith("cannot run") and "GPU" in report["flash"]


@pytest.mark.parametrize("backend", ["flash", "flash2", "flash4"])
def test_a_named_backend_that_cannot_run_says_why_and_what_to_do(backend):
    q, k, v = random_qkv(1, 4, 4, 2, 1, 8)
    with pytest.raises(RuntimeError, match=r"cannot run here: .*GPU.*use backend='sdpa'"):
        attention(q, k, v, backend=backend)


def test_flash_attn_runs_only_at_head_sizes_where_it_was_right(monkeypatch):
    """On a Hopper GPU with both packages; at 72 (sink_logit) their numbers were wrong."""
    hopper = SimpleNamespace(major=9, minor=0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: hopper)
    monkeypatch.setattr(packages, "why_missing", lambda module: None)  # as if it were there

    def chosen(backend, d, operation=PLAIN):
        q = SimpleNamespace(is_cuda=True, device="cuda", dtype=torch.bfloat16, shape=(1, 1, 1, d))
        return getattr(choose(operation, backend, q, q, q), "name", None)

    assert chosen("auto", 64) == "flash4" and chosen("auto", 72) == "sdpa"
    assert chosen("pair", 64, PAIR) == "pair" == chosen("pair", 128, PAIR)
    assert chosen("auto", 64, PAIR) == "pair" and chosen("auto", 128, PAIR) is None
    for backend in ("flash", "flash2", "flash4"):
        with pytest.raises(RuntimeError, match=r"head size 72 .*use backend='sdpa'"):
            chosen(backend, 72)
    without_flash = {"flash_attn", "flash_attn.cute.interface"}
    monkeypatch.setattr(packages, "why_missing", lambda m: "none" if m in without_flash else None)
    assert chosen("auto", 64, PAIR) == "pair"
    assert chosen("auto", 128, PAIR) is None  # where it was not faster than two steps


@pytest.mark.parametrize(
    ("q", "kv", "kwargs", "message"),
    [
        ((1, 4, 3, 8), (1, 4, 2, 8), {}, "cannot share"),
        ((1, 4, 2, 8), (1, 4, 2, 6), {}, "do not fit"),
        ((2, 4, 2, 8), (1, 4, 2, 8), {}, "do not fit"),
        ((1, 5, 2, 8), (1, 4, 2, 8), {}, "a key for each query"),
        ((1, 4, 2, 8), (1, 4, 2, 8), {"backend": "fast"}, "unknown"),
    ],
)
def test_bad_input_is_named_in_one_line(q, kv, kwargs, message):
    q, k, v = torch.randn(q), torch.randn(kv), torch.randn(kv)
    with pytest.raises(ValueError, match=message) as error:
        attention(q, k, v, **kwargs)
    assert "\n" not in str(error.value)


def test_differential_refuses_logits_that_do_not_fit():
    with pytest.raises(ValueError, match="2h"):
        differential(torch.randn(1, 4, 6, 8), torch.randn(1, 4, 4))
