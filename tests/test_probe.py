"""The probes: maps with known sinks, the theorem row by row, and nothing changed by looking."""

import copy
import dataclasses
import json
import math
import weakref

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from minidiff import GPT, GPTConfig, theory
from minidiff.look import probe as probes
from minidiff.look.probe import (
    COLUMNS,
    attention_maps,
    outliers,
    probe,
    sink_scores,
    spikes,
    summary,
)
from minidiff.look.probe import value_correlation as rho_of
from minidiff.model import ATTENTION

TINY = GPTConfig(n_layer=2, n_head=4, n_kv_head=2, head_dim=8, n_embd=32, block_size=48)
BOS = TINY.vocab_size - 1
BOTH = pytest.mark.parametrize("attention", ["softmax", "diff_v2"])
ALL = pytest.mark.parametrize("attention", sorted(ATTENTION))


def tiny(attention="diff_v2", sharpness=30.0, **changes):
    """A small float64 model; the larger its queries and keys, the further maps are from uniform."""
    model = GPT(dataclasses.replace(TINY, attention=attention, **changes)).double()
    for block in model.blocks:
        block.attn.q_proj.weight.data.mul_(sharpness)
        block.attn.k_proj.weight.data.mul_(sharpness)
    return model


def tokens(B=1, T=40):
    """BOS and T - 1 different bytes in each of B sequences (B, T)."""
    idx = torch.stack([torch.randperm(256)[:T] for _ in range(B)])
    idx[:, 0] = BOS
    return idx


def column(table, name):
    return torch.tensor([row[name] for row in table], dtype=torch.float64)


# ---- Sinks -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("skip", "expected"),
    [
        (0, [1.8 / 4, 1.0 / 3, 0.8 / 2]),  # one of four queries sees key 3: left out
        (1, [0.8 / 3, 1.0 / 3, 0.8 / 2]),
        (2, [0.3 / 2, 0.5 / 2, 0.8 / 2, 0.4 / 1]),  # one of two queries sees key 3: kept
    ],
)
def test_sink_scores_of_a_map_done_by_hand(skip, expected):
    rows = [[1.0, 0, 0, 0], [0.5, 0.5, 0, 0], [0.2, 0.3, 0.5, 0], [0.1, 0.2, 0.3, 0.4]]
    assert_close(sink_scores(torch.tensor(rows), skip), torch.tensor(expected))


def model_with_sinks(attention, logits):
    """One layer in which query head j gives BOS the logit logits[j] and every other key 0.

    The residual channels 0 and 1 say "any token" and "BOS"; the last RoPE pair barely turns.
    """
    model = tiny(attention, n_layer=1, rope_theta=1e30, head_dim=64)
    attn, d = model.blocks[0].attn, 64
    for parameter in [model.embed.weight, *attn.parameters()]:
        parameter.data.zero_()  # so lambda is 1/2
    model.embed.weight.data[:, 0] = 1000  # so large that RMSNorm's eps does not matter
    model.embed.weight.data[BOS, 1] = 1000
    size = math.sqrt(TINY.n_embd)  # of channel 0 after RMSNorm; of BOS's two, over sqrt(2)
    for j, logit in enumerate(logits):
        attn.q_proj.weight.data[j * d + d - 2, 0] = logit * math.sqrt(d) / size
    attn.k_proj.weight.data[d - 2 :: d, 1] = math.sqrt(2) / size
    return model


N = torch.arange(11, 41).double()  # keys that the queries 10 .. 39 see


def on_bos(logit):
    """Closed form of the mean attention of the queries 10 .. 39 on BOS."""
    return (math.exp(logit) / (math.exp(logit) + N - 1)).mean().item()


def test_known_sinks_of_softmax_heads():
    logits = [0.0, 1.0, 3.0, 8.0]
    model, idx, expected = model_with_sinks("softmax", logits), tokens(3), map(on_bos, logits)
    table = probe(model, idx, skip=10)
    assert column(table, "first_share_eff").tolist() == pytest.approx(list(expected))
    assert on_bos(1.0) < 0.3 < on_bos(3.0) < 0.9 < on_bos(8.0)
    assert column(table, "sink_rate_eff").tolist() == [0, 0, 1, 1]
    strict = probe(model, idx, skip=10, threshold=0.9)
    assert column(strict, "sink_rate_a1").tolist() == [0, 0, 0, 1]


def test_a_pair_can_cancel_the_sink_that_both_of_its_maps_have():
    logits = [math.log(20), math.log(200)]  # A2 has the stronger sink; lambda is 1/2
    table = probe(model_with_sinks("diff_v2", logits * 4), tokens(3), skip=10)
    first = (20 / (19 + N) - 0.5 * 200 / (199 + N)).abs()
    others = (N - 1) * (1 / (19 + N) - 0.5 / (199 + N)).abs()
    share = (first / (first + others)).mean().item()
    for name, expected in (("a1", on_bos(logits[0])), ("a2", on_bos(logits[1])), ("eff", share)):
        assert column(table, f"first_share_{name}").tolist() == pytest.approx([expected] * 4)
        assert column(table, f"sink_rate_{name}").tolist() == [name != "eff"] * 4


def test_a_common_factor_of_the_weights_does_not_hide_a_sink():
    """With A1 = A2 the weights are A1 / 2: their raw share of BOS is half that of the sink."""
    table = probe(model_with_sinks("diff_v2", [3.0] * 8), tokens(), skip=10)
    assert_close(column(table, "first_share_eff"), column(table, "first_share_a1"))


def test_a_sink_on_another_token_shows_in_top_share():
    idx = tokens()
    idx[:, 0], idx[:, 3] = 7, BOS
    table = probe(model_with_sinks("softmax", [8.0] * 4), idx, skip=10)
    assert column(table, "first_share_eff").max() < 0.05
    assert column(table, "top_share_eff").min() > 0.9


# ---- Context RMS and the theorem ---------------------------------------------------------------


def set_values(model, idx, values):
    """Solve for the v_proj that gives the tokens idx (1, T) the values (T, h_kv * d) in layer 0."""
    x = model.blocks[0].attn_norm(model.embed(idx))[0].detach()  # (T, D), T <= D: full row rank
    model.blocks[0].attn.v_proj.weight.data = (torch.linalg.pinv(x) @ values).T.contiguous()


@pytest.mark.parametrize(
    "attention", sorted(ATTENTION.keys() - {"diff_v1", "diff_v1_sigmoid", "diff_halves", "gated"})
)
def test_with_orthogonal_values_the_theorem_holds_for_every_row(attention):
    """Exactly orthogonal values of RMS 1, which needs n <= d; otherwise it is an expectation."""
    shape = (2, 16) if attention == "diff_v1_no_norm" else (1, 32)  # V1 joins two value heads
    model = tiny(attention, n_kv_head=shape[0], head_dim=shape[1], n_embd=64)
    idx = tokens(T=32)
    set_values(model, idx, torch.linalg.qr(torch.randn(32, 32).double())[0] * math.sqrt(32))
    view, rows = attention_maps(model, idx)[0], probe(model, idx, skip=5)
    assert_close(view.rho, torch.zeros_like(view.rho), rtol=0, atol=1e-10)
    assert_close(view.rms, view.weights.square().sum(-1).sqrt().T, rtol=1e-9, atol=1e-9)
    assert_close(view.rms_expected, view.rms, rtol=1e-9, atol=1e-9)
    expected = view.rms[5:].square().mean(0).sqrt()  # over all channels and queries
    assert_close(column(rows[: len(expected)], "rms"), expected)
    if attention in ("softmax", "diff_v2", "diff_no_lambda"):
        for t, row in enumerate(view.rms):
            for head, rms in enumerate(row):
                lam = None if view.lam is None else view.lam[t, head].clamp(0, 1).item()
                low, high = theory.rms_bounds(t + 1, lam)
                assert low - 1e-9 <= rms <= high + 1e-9


@BOTH
@pytest.mark.parametrize("shared", [0.0, 2.0])
def test_random_values_follow_the_theorem_on_average(attention, shared):
    """A squared norm over 64 channels spreads by sqrt(2/64) = 18%; 4 value heads and several
    independent rows leave about 5% in the square, half of that in the RMS."""
    model = tiny(attention, n_head=16, n_kv_head=4, head_dim=64, n_embd=64)
    idx = tokens(T=48)
    set_values(model, idx, torch.randn(48, 256).double() + shared * torch.randn(1, 256).double())
    rows = [row for row in probe(model, idx) if row["layer"] == 0]
    assert_close(column(rows, "rms").mean(), column(rows, "rms_expected").mean(), rtol=0.08, atol=0)
    rho = shared**2 / (1 + shared**2)
    assert column(rows, "rho").mean().item() == pytest.approx(rho, abs=0.05)


@BOTH
def test_a_new_model_starts_at_the_uniform_prediction(attention):
    """RMS = 1/sqrt(n) for softmax and (1 - lambda)/sqrt(n) for DIFF V2, with lambda near 1/2.

    A squared norm of 128 random channels spreads by sqrt(2/128), its root by 6%: once for the sum
    of embeddings, once for the values. Eight models leave 3%; three sigma are 10%.
    """
    squares, n = 0, torch.arange(1, 129)[:, None]
    for _ in range(8):
        model = GPT(GPTConfig(attention=attention, n_kv_head=4, n_layer=1))
        view = attention_maps(model, tokens(T=128))[0]
        lam = 0 if view.lam is None else view.lam
        assert attention == "softmax" or 0.4 < lam.mean() < 0.6
        squares += (view.rms / (1 - lam) * n.sqrt()).square().mean(1) / 8  # (T,)
    ratio = squares.sqrt()[8:]
    assert ratio.min() > 0.9 and ratio.max() < 1.1


@given(st.integers(2, 12), st.integers(1, 6), st.floats(0, 5), st.integers(0, 999))
def test_value_correlation_equals_the_loop_over_pairs(n, d, shared, seed):
    rng = torch.Generator().manual_seed(seed)
    v, common = torch.randn(n + 1, 2, d, generator=rng, dtype=torch.float64).split([n, 1])
    v = v + shared * common
    for head in range(2):
        pairs = [v[i, head] @ v[j, head] for i in range(n) for j in range(n) if i != j]
        expected = torch.stack(pairs).mean() / v[:, head].square().sum(-1).mean()
        assert_close(rho_of(v)[head], expected)
    assert_close(rho_of(v[:1].expand(9, 2, d)), torch.ones(2).double())
    assert_close(rho_of(v - v.mean(0)), torch.full((2,), -1 / (n - 1)).double())


SAME = sorted(ATTENTION.keys() - {"diff_v1", "diff_v1_sigmoid", "diff_halves"})


@pytest.mark.parametrize("attention", SAME)
def test_rms_is_relative_to_the_values_that_this_very_head_reads(attention):
    """So the size of a value head changes nothing. Not for V1, whose norm fixes the context, nor
    for the ablation whose pairs read two value heads."""
    model, idx = tiny(attention, sharpness=5.0, n_head=8, n_kv_head=4), tokens()
    before = attention_maps(model, idx)[0]
    model.blocks[0].attn.v_proj.weight.data[: 2 * TINY.head_dim].mul_(100)
    after = attention_maps(model, idx)[0]
    assert_close((after.rms, after.rho), (before.rms, before.rho))


def test_halves_are_measured_against_both_value_heads_and_without_the_theorem():
    model, idx = tiny("diff_halves"), tokens()
    view, attn = attention_maps(model, idx)[0], model.blocks[0].attn
    x = model.blocks[0].attn_norm(model.embed(idx))
    q, k, v = attn.qkv(x, model.rope[:40])
    size = v.square().mean().sqrt()  # heads i and i + 4 read the value heads 0 and 1
    assert_close(view.rms, (attn.mix(q, k, v, x)[0].square().mean(-1).sqrt() / size).detach())
    assert view.rms_expected is None and probe(model, idx)[0]["rms_expected"] is None


# ---- Lambda, sparsity, outliers ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("attention", "expected"),
    [
        ("diff_v2", lambda attn, x: attn.lambda_proj(x).sigmoid()),
        ("diff_halves", lambda attn, x: attn.lambda_proj(x).sigmoid()),
        ("diff_no_sigmoid", lambda attn, x: attn.lambda_proj(x)),
        ("diff_no_lambda", lambda attn, x: torch.ones(40, 4)),
        ("diff_v1", lambda attn, x: attn.lam().expand(40, 2)),
        ("diff_v1_no_norm", lambda attn, x: attn.lam().expand(40, 2)),
    ],
)
def test_lambda_of_every_token_and_head(attention, expected):
    model, idx = tiny(attention), tokens()
    block = model.blocks[0]
    if hasattr(block.attn, "lambda_proj"):
        block.attn.lambda_proj.weight.data.mul_(100)
    lam = expected(block.attn, block.attn_norm(model.embed(idx))[0]).detach().double()  # (T, h)
    view, rows = attention_maps(model, idx)[0], probe(model, idx, skip=7)[: lam.shape[1]]
    assert_close(view.lam, lam, rtol=1e-9, atol=1e-9)
    assert_close(view.weights, view.a1 - lam.T[:, :, None] * view.a2)
    assert_close(column(rows, "lam_mean"), lam[7:].mean(0))
    assert_close(column(rows, "lam_std"), lam[7:].std(0, correction=0), rtol=1e-6, atol=1e-9)


@BOTH
def test_uniform_maps_have_the_closed_form_figures(attention):
    table = probe(tiny(attention, sharpness=0.0).float(), tokens(), skip=10)
    expected = {"entropy": N.log().mean(), "effective_tokens": N.mean(), "qk_top1": 0,
                "first_share_eff": (1 / N).mean(), "sparsity": 0}  # fmt: skip
    for name, number in expected.items():  # sparsity is 0 in spite of float32 rounding
        assert column(table, name).tolist() == pytest.approx([float(number)] * 8, rel=1e-5)


@BOTH
def test_sparsity_entropy_and_effective_tokens_equal_loops(attention):
    model, idx, skip = tiny(attention), tokens(T=20), 5
    views = attention_maps(model, idx)
    for row in probe(model, idx, skip=skip):
        rows = views[row["layer"]].weights[row["head"]].abs().tolist()
        rows = [[w / sum(rows[i]) for w in rows[i][: i + 1]] for i in range(skip, 20)]
        sparse = [sum(p < 1 / len(r) for p in r) / len(r) for r in rows]
        entropy = [-sum(p * math.log(p) for p in r if p > 0) for r in rows]
        effective = [1 / sum(p * p for p in r) for r in rows]
        assert row["sparsity"] == pytest.approx(sum(sparse) / len(rows))
        assert row["entropy"] == pytest.approx(sum(entropy) / len(rows))
        assert row["effective_tokens"] == pytest.approx(sum(effective) / len(rows))


def test_outliers_of_numbers_done_by_hand():
    found = outliers(torch.tensor([[1.0, -1.0, 2.0], [-2.0, 9.0, -3.0]]))
    numbers = [x - 1 for x in (1, -1, 2, -2, 9, -3)]  # the mean is 1
    kurtosis = sum(x**4 for x in numbers) / 6 / (sum(x**2 for x in numbers) / 6) ** 2
    assert [x.item() for x in found.values()] == pytest.approx([9, 3, 2, 2, 4.5, kurtosis])
    assert outliers(torch.randn(400_000))["kurtosis"].item() == pytest.approx(3, abs=0.05)


def test_a_planted_activation_is_the_largest_of_every_layer():
    model = tiny()
    model.embed.weight.data[BOS, 5] = 1000.0
    table = probe(model, tokens(3))
    assert column(table, "out_top1").min() > 990 and column(table, "out_ratio").min() > 1000
    assert all(view.residual_norms.argmax() == 0 for view in attention_maps(model, tokens()))


@ALL
def test_maps_are_the_softmax_of_the_logits(attention):
    """Up to the row sum that a sink logit takes away. In V1 two pairs share two key heads here."""
    model, idx = tiny(attention, sharpness=5.0, n_head=8, n_kv_head=4), tokens()
    views, table = attention_maps(model, idx), probe(model, idx)
    for layer, view in enumerate(views):
        maps = view.a1
        if view.a2 is not None:  # in the order of the query heads
            maps = torch.stack((view.a1, view.a2), dim=0 if attention == "diff_halves" else 1)
            maps = maps.flatten(0, 1)
        softmax = view.logits.nan_to_num(-math.inf).softmax(-1)
        assert_close(maps / maps.sum(-1, keepdim=True), softmax)
        row = next(row for row in table if row["layer"] == layer)
        seen = view.logits[:, torch.ones(40, 40).tril() > 0]  # causal pairs only
        for name in ("top1", "median", "kurtosis"):
            assert row[f"qk_{name}"] == pytest.approx(outliers(seen)[name].item())


# ---- The table ---------------------------------------------------------------------------------


@ALL
def test_every_attention_can_be_probed_and_the_views_are_what_the_model_computes(attention):
    model, idx, outputs = tiny(attention, sharpness=5.0), tokens(2), []
    for row in probe(model, idx) + probe(copy.deepcopy(model).bfloat16(), idx):
        assert list(row) == list(COLUMNS)
        assert all(value is None or math.isfinite(value) for value in row.values())
        assert row["rms"] > 0 and 0 <= row["first_share_eff"] <= 1
    for block in model.blocks:
        block.register_forward_hook(lambda block, x, out: outputs.append(out[0].detach()))
    model(idx[:1])
    for out, view in zip(outputs[:2], attention_maps(model, idx[:1]), strict=True):
        assert_close(view.out, out, rtol=1e-10, atol=1e-12)
        assert_close(view.residual_norms, out.norm(dim=-1))


@BOTH
def test_a_batch_gives_what_its_sequences_give(attention):
    model, idx = tiny(attention), tokens(3)
    single = [probe(model, one[None]) for one in idx]
    for i, row in enumerate(probe(model, idx)):
        for name in list(COLUMNS)[2:]:
            each = [table[i][name] for table in single]
            if row[name] is not None:
                extreme = max if name.endswith(("_high", "top1", "top2", "top3")) else None
                extreme = min if name.endswith("_low") else extreme
                assert row[name] == pytest.approx(extreme(each) if extreme else sum(each) / 3), name


def test_summary_has_the_mean_and_the_worst_head():
    table = probe(tiny("softmax"), tokens(3))
    found, shares = summary(table), [row["first_share_eff"] for row in table]
    assert found["first_share_eff_max"] == max(shares)
    assert found["first_share_eff_mean"] == pytest.approx(sum(shares) / 8)
    assert found["rms_low_min"] == min(row["rms_low"] for row in table)
    assert found["lam_mean_mean"] is None and json.loads(json.dumps(found)) == found


def test_default_skip_is_64_queries_or_a_quarter_of_a_short_sequence():
    model = tiny(block_size=300)
    for T, skip in ((300, 64), (40, 10), (3, 1)):
        idx = torch.randint(0, 256, (1, T))
        assert probe(model, idx) == probe(model, idx, skip=skip) != probe(model, idx, skip=skip + 1)


# ---- Looking changes nothing -------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("training", [True, False])
def test_probing_leaves_the_model_bitwise_as_it_was(attention, training):
    model, idx = tiny(attention).train(training), tokens(3)
    model(idx, idx)[1].backward()
    weights = copy.deepcopy(model.state_dict())
    gradients = [p.grad.clone() for p in model.parameters()]
    logits, given = model(idx)[0], idx.clone()
    probe(model, idx)
    views = attention_maps(model, idx[:1])
    assert not any(view.out.requires_grad or view.weights.requires_grad for view in views)
    assert torch.equal(model(idx)[0], logits) and torch.equal(idx, given)
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        assert torch.equal(parameter.grad, gradient) and parameter.requires_grad
    for module in model.modules():
        assert module.training is training
        assert not module._forward_hooks and not module._forward_pre_hooks


def test_only_the_maps_of_one_layer_and_one_sequence_exist_at_a_time(monkeypatch):
    """Weak references to all maps of a sequence in a layer die before the next ones are made."""
    look, made = probes._look, []

    def watched(block, x, rope):
        assert len(x) == 1  # of the batch of 5
        assert all(earlier() is None for earlier in made)
        view = look(block, x, rope)
        made.extend(weakref.ref(t) for t in (view.a1, view.a2, view.weights, view.logits))
        return view

    monkeypatch.setattr(probes, "_look", watched)
    probe(tiny(n_layer=3), tokens(5))
    assert len(made) == 3 * 5 * 4


# ---- Precision, errors -------------------------------------------------------------------------


def test_maps_are_float32_inside_autocast_and_of_a_bfloat16_model():
    model, idx = tiny(sharpness=5.0).float(), tokens()
    outside = probe(model, idx)
    with torch.autocast("cpu", torch.bfloat16):
        assert probe(model, idx) == outside
    view = attention_maps(model.bfloat16(), idx)[0]
    assert view.weights.dtype == view.rms.dtype == view.out.dtype == torch.float32
    assert_close(view.a1.sum(-1), torch.ones(4, 40))
    for name in ("rms", "lam_mean", "entropy", "out_top1", "rho"):  # bfloat16 has 8 bits: 0.4%
        expected = column(outside, name)
        assert_close(column(probe(model, idx), name), expected, rtol=0.05, atol=0.01)


@pytest.mark.gpu
@BOTH
def test_a_bfloat16_model_on_a_gpu_gives_what_the_cpu_gives(attention):
    model, idx = tiny(attention, sharpness=5.0).bfloat16(), tokens(3)
    on_cpu, on_gpu = summary(probe(model, idx)), summary(probe(model.cuda(), idx))
    for name in ("rms_mean", "entropy_mean", "out_top1_max", "qk_top1_max", "rho_mean"):
        assert on_gpu[name] == pytest.approx(on_cpu[name], rel=0.03, abs=0.01), name


def test_what_does_not_fit_is_refused():
    for shape in ((40,), (0, 40), (2, 1), (2, 49), (1, 2, 3)):
        with pytest.raises(ValueError, match="T from 2 to 48"):
            probe(tiny(), torch.zeros(shape, dtype=torch.long))
    for skip in (0, 40, -1):
        with pytest.raises(ValueError, match="from 1 to T - 1 = 39"):
            probe(tiny(), tokens(), skip=skip)
    with pytest.raises(ValueError, match="has 3 sequences"):
        attention_maps(tiny(), tokens(3))


# ---- Spikes ------------------------------------------------------------------------------------


def test_spikes_are_found_where_they_were_planted():
    norms = [1.0 + 0.3 * math.sin(i) for i in range(300)]
    assert spikes(norms) == []
    norms[5] = 50.0  # too early: no median yet
    norms[40], norms[41], norms[250], norms[20], norms[30] = 3.5, 20.0, 4.0, math.nan, math.inf
    assert spikes(norms) == [20, 30, 40, 41, 250]
    assert spikes(norms, factor=10) == [20, 30, 41]
    assert spikes([1.0, 4.0], at_least=1) == [1]  # its own norm is not in the median


def test_a_spike_is_relative_to_the_last_100_steps():
    assert spikes([10.0] * 200 + [1.0] * 150 + [5.0] + [1.0] * 9) == [350]
    assert spikes([1.0] * 100 + [10.0] * 200) == list(range(100, 150))  # then half of them are 10


def test_a_head_whose_maps_cancel_attends_to_nothing():
    """Two equal maps and lambda 1, as in a run at too large a learning rate: 0 / 0 was NaN."""
    model = tiny("diff_no_lambda", n_layer=1)
    model.blocks[0].attn.q_proj.weight.data.zero_()  # all maps are uniform
    for row in probe(model, torch.randint(0, 256, (2, 32))):
        assert (
            row["rms"] == row["first_share_eff"] == row["effective_tokens"] == row["entropy"] == 0
        )
