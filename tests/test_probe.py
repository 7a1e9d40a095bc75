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
from minidiff.model import ATTENTION
from minidiff.probe import (
    COLUMNS,
    attention_maps,
    outliers,
    probe,
    sink_scores,
    spikes,
    summary,
    value_correlation,
)

TINY = GPTConfig(n_layer=2, n_head=4, n_kv_head=2, head_dim=8, n_embd=32, block_size=48)
BOS = TINY.vocab_size - 1
BOTH = pytest.mark.parametrize("attention", ["softmax", "diff_v2"])


def tiny(attention="diff_v2", sharpness=30.0, **changes):
    """A small float64 model; the larger its queries and keys, the further maps are from uniform."""
    model = GPT(dataclasses.replace(TINY, attention=attention, **changes)).double()
    with torch.no_grad():
        for block in model.blocks:
            block.attn.q_proj.weight.mul_(sharpness)
            block.attn.k_proj.weight.mul_(sharpness)
    return model


def tokens(B=3, T=40):
    """BOS and T - 1 different bytes in each of B sequences (B, T)."""
    idx = torch.stack([torch.randperm(256)[:T] for _ in range(B)])
    idx[:, 0] = BOS
    return idx


def column(table, name):
    return torch.tensor([row[name] for row in table], dtype=torch.float64)


# ---- Sinks -------------------------------------------------------------------------------------

BY_HAND = torch.tensor(
    [
        [1.0, 0.0, 0.0, 0.0],
        [0.5, 0.5, 0.0, 0.0],
        [0.2, 0.3, 0.5, 0.0],
        [0.1, 0.2, 0.3, 0.4],
    ]
)


@pytest.mark.parametrize(
    ("skip", "expected"),
    [
        (0, [1.8 / 4, 1.0 / 3, 0.8 / 2]),  # one of four queries sees key 3: left out
        (1, [0.8 / 3, 1.0 / 3, 0.8 / 2]),
        (2, [0.3 / 2, 0.5 / 2, 0.8 / 2, 0.4 / 1]),  # one of two queries sees key 3: kept
    ],
)
def test_sink_scores_of_a_map_done_by_hand(skip, expected):
    assert_close(sink_scores(BY_HAND, skip), torch.tensor(expected))


def model_with_sinks(attention, logits):
    """One layer in which query head j gives BOS the logit logits[j] and every other key 0.

    The residual channels 0 and 1 say "any token" and "BOS"; the last RoPE pair barely turns.
    """
    config = dataclasses.replace(TINY, attention=attention, n_layer=1, rope_theta=1e30, head_dim=64)
    model = GPT(config).double()
    attn, d = model.blocks[0].attn, config.head_dim
    with torch.no_grad():
        for weight in (model.embed.weight, attn.q_proj.weight, attn.k_proj.weight):
            weight.zero_()
        model.embed.weight[:, 0] = 1000  # so large that RMSNorm's eps does not matter
        model.embed.weight[BOS, 1] = 1000
        size = math.sqrt(config.n_embd)  # of channel 0 after RMSNorm; of BOS's two, over sqrt(2)
        for j, logit in enumerate(logits):
            attn.q_proj.weight[j * d + d - 2, 0] = logit * math.sqrt(d) / size
        attn.k_proj.weight[d - 2 :: d, 1] = math.sqrt(2) / size
        if attention == "diff_v2":
            attn.lambda_proj.weight.zero_()  # lambda = 1/2
    return model


def on_bos(logit, T, skip):
    """Closed form of the mean attention of queries skip .. T-1 on BOS."""
    n = torch.arange(skip + 1, T + 1, dtype=torch.float64)
    return (math.exp(logit) / (math.exp(logit) + n - 1)).mean().item()


def test_known_sinks_of_softmax_heads():
    T, skip, logits = 40, 10, [0.0, 1.0, 3.0, 8.0]
    table = probe(model_with_sinks("softmax", logits), tokens(T=T), skip=skip)
    expected = torch.tensor([on_bos(s, T, skip) for s in logits]).double()
    assert_close(column(table, "first_share_a1"), expected, rtol=1e-6, atol=0)
    assert_close(column(table, "first_share_eff"), expected, rtol=1e-6, atol=0)
    assert expected[1] < 0.3 < expected[2]
    assert column(table, "sink_rate_eff").tolist() == [0, 0, 1, 1]
    assert [row["first_share_a2"] for row in table] == [None] * 4
    strict = probe(model_with_sinks("softmax", logits), tokens(T=T), skip=skip, threshold=0.9)
    assert column(strict, "sink_rate_a1").tolist() == [0, 0, 0, 1]


def test_a_pair_can_cancel_the_sink_that_both_of_its_maps_have():
    T, skip = 40, 10
    logits = [math.log(20), math.log(200)] * 4  # A2 has the stronger sink; lambda is 1/2
    table = probe(model_with_sinks("diff_v2", logits), tokens(T=T), skip=skip)
    n = torch.arange(skip + 1, T + 1, dtype=torch.float64)
    first = 20 / (19 + n) - 0.5 * 200 / (199 + n)
    others = (n - 1) * (1 / (19 + n) - 0.5 / (199 + n))
    share = (first.abs() / (first.abs() + others.abs())).mean()
    for name, logit in zip(("first_share_a1", "first_share_a2"), logits, strict=False):
        assert column(table, name).tolist() == pytest.approx([on_bos(logit, T, skip)] * 4)
    assert_close(column(table, "first_share_eff"), share.expand(4), rtol=1e-6, atol=0)
    assert (
        column(table, "sink_rate_a1").tolist() == column(table, "sink_rate_a2").tolist() == [1] * 4
    )
    assert column(table, "sink_rate_eff").tolist() == [0] * 4


@BOTH
def test_a_common_factor_of_the_weights_does_not_hide_a_sink(attention):
    """With A1 = A2 the weights are (1 - lambda) A1: half as large, and the sink is the same."""
    logits = [3.0] * 4 * ATTENTION[attention].query_heads_per_head
    table = probe(model_with_sinks(attention, logits), tokens(), skip=10)
    assert_close(column(table, "first_share_eff"), column(table, "first_share_a1"))


def test_a_sink_on_another_token_shows_in_top_share():
    model = model_with_sinks("softmax", [8.0] * 4)
    idx = tokens()
    idx[:, 0], idx[:, 3] = 7, BOS
    table = probe(model, idx, skip=10)
    assert (
        column(table, "first_share_eff").max() < 0.05 < 0.9 < column(table, "top_share_eff").min()
    )


# ---- Context RMS and the theorem ---------------------------------------------------------------


def set_values(model, idx, values):
    """Solve for the v_proj that gives the tokens idx (1, T) the values (T, h_kv * d) in layer 0."""
    x = model.blocks[0].attn_norm(model.embed(idx))[0].detach()  # (T, D), T <= D: full row rank
    model.blocks[0].attn.v_proj.weight.data = (torch.linalg.pinv(x) @ values).T.contiguous()


def whitened_model(attention):
    """Layer 0 reads exactly orthogonal values of RMS 1, which needs n <= d."""
    model = tiny(attention, n_kv_head=1, head_dim=32, n_embd=64)
    idx = tokens(B=1, T=32)
    set_values(model, idx, torch.linalg.qr(torch.randn(32, 32).double())[0] * math.sqrt(32))
    return model, idx


@BOTH
def test_with_orthogonal_values_the_theorem_and_its_bounds_hold_for_every_row(attention):
    view = attention_maps(*whitened_model(attention))[0]
    assert_close(view.rho, torch.zeros_like(view.rho), rtol=0, atol=1e-10)
    assert_close(view.rms, view.weights.square().sum(-1).sqrt().T, rtol=1e-9, atol=1e-12)
    assert_close(view.rms_expected, view.rms, rtol=1e-9, atol=1e-12)
    for t in range(32):
        for head in range(4):
            lam = None if view.lam is None else min(1.0, max(0.0, view.lam[t, head].item()))
            low, high = theory.rms_bounds(t + 1, lam)
            assert low - 1e-9 <= view.rms[t, head] <= high + 1e-9


@BOTH
@pytest.mark.parametrize("shared", [0.0, 2.0])
def test_random_values_follow_the_theorem(attention, shared):
    """The theorem is an expectation: 16 heads of random values must meet it on average.

    |c|^2 over d = 64 channels has a relative spread of sqrt(2/64) = 18%; 4 value heads, several
    independent rows each, leave about 5% in the square, half of that in the RMS.
    """
    model = tiny(attention, n_head=16, n_kv_head=4, head_dim=64, n_embd=64)
    idx = tokens(B=1, T=48)
    set_values(model, idx, torch.randn(48, 256).double() + shared * torch.randn(1, 256).double())
    rows = [row for row in probe(model, idx) if row["layer"] == 0]
    assert_close(column(rows, "rms").mean(), column(rows, "rms_expected").mean(), rtol=0.08, atol=0)
    expected_rho = shared**2 / (1 + shared**2)
    assert_close(column(rows, "rho").mean().item(), expected_rho, rtol=0, atol=0.05)


def test_shared_part_of_the_values_is_a_floor_for_softmax_and_is_rejected_by_the_difference():
    rms = {}
    for attention in ("softmax", "diff_v2"):
        model = tiny(attention, sharpness=1.0, head_dim=64, n_embd=64)  # almost uniform maps
        idx = tokens(B=1, T=48)
        set_values(model, idx, torch.randn(48, 128).double() + 3 * torch.randn(1, 128).double())
        view = attention_maps(model, idx)[0]
        rms[attention] = view.rms[-1].mean().item()
    assert rms["softmax"] == pytest.approx(math.sqrt(0.9), abs=0.05)  # rho = 9 / 10
    assert rms["diff_v2"] == pytest.approx(0.5 * math.sqrt(0.9), abs=0.08)  # lambda is near 1/2


@BOTH
def test_a_new_model_starts_at_the_uniform_prediction(attention):
    """RMS = 1/sqrt(n) for softmax and (1 - lambda)/sqrt(n) for DIFF V2, with lambda near 1/2.

    A squared norm of 128 random channels spreads by sqrt(2/128), its root by 6%: once for the sum
    of embeddings, once for the values. Eight models leave 3%; three sigma are 10%.
    """
    squares, n = 0, torch.arange(1, 129)[:, None]
    for _ in range(8):
        model = GPT(GPTConfig(attention=attention, n_kv_head=4, n_layer=1))
        view = attention_maps(model, tokens(B=1, T=128))[0]
        lam = 0 if view.lam is None else view.lam
        assert attention == "softmax" or 0.4 < lam.mean() < 0.6
        squares += (view.rms / (1 - lam) * n.sqrt()).square().mean(1) / 8  # (T,)
    ratio = squares.sqrt()[8:]
    assert ratio.min() > 0.9 and ratio.max() < 1.1


@given(
    st.integers(2, 12), st.integers(1, 3), st.integers(1, 6), st.floats(0, 5), st.integers(0, 999)
)
def test_value_correlation_equals_the_loop_over_pairs(n, heads, d, shared, seed):
    rng = torch.Generator().manual_seed(seed)
    v = torch.randn(n, heads, d, generator=rng, dtype=torch.float64)
    v = v + shared * torch.randn(1, heads, d, generator=rng, dtype=torch.float64)
    for head in range(heads):
        pairs = [v[i, head] @ v[j, head] for i in range(n) for j in range(n) if i != j]
        size = torch.stack([v[i, head] @ v[i, head] for i in range(n)]).mean()
        assert_close(value_correlation(v)[head], torch.stack(pairs).mean() / size)


def test_value_correlation_of_equal_and_of_centred_values():
    v = torch.randn(9, 2, 5).double()
    assert_close(value_correlation(v[:1].expand(9, 2, 5)), torch.ones(2).double())
    assert_close(value_correlation(v - v.mean(0)), torch.full((2,), -1 / 8).double())


# ---- Uniform maps, lambda, outliers ------------------------------------------------------------


@BOTH
def test_uniform_maps_have_the_closed_form_figures(attention):
    model, T, skip = tiny(attention, sharpness=0.0).float(), 40, 10
    table = probe(model, tokens(T=T), skip=skip)
    n = torch.arange(skip + 1, T + 1, dtype=torch.float64)
    for name, expected in (
        ("entropy", n.log().mean()),
        ("effective_tokens", n.mean()),
        ("first_share_eff", (1 / n).mean()),
        ("sparsity", torch.zeros(())),  # no key under 1/n, float32 rounding or not
        ("qk_top1", torch.zeros(())),
    ):
        assert_close(column(table, name), expected.double().expand(8), rtol=1e-5, atol=1e-7)


def test_sparsity_entropy_and_effective_tokens_of_a_softmax_model_by_loops():
    model, idx, skip = tiny("softmax"), tokens(B=1, T=20), 5
    table, views = probe(model, idx, skip=skip), attention_maps(model, idx)
    for row in table:
        a = views[row["layer"]].a1[row["head"]]
        rows = [a[i, : i + 1] for i in range(skip, 20)]
        sparse = [sum(p < 1 / len(r) for p in r.tolist()) / len(r) for r in rows]
        assert row["sparsity"] == pytest.approx(sum(sparse) / len(rows))
        entropy = [-sum(p * math.log(p) for p in r.tolist() if p > 0) for r in rows]
        assert row["entropy"] == pytest.approx(sum(entropy) / len(rows))
        effective = [1 / sum(p * p for p in r.tolist()) for r in rows]
        assert row["effective_tokens"] == pytest.approx(sum(effective) / len(rows))


def test_lambda_is_the_sigmoid_of_the_projection_for_every_token_and_head():
    model, idx = tiny(), tokens(B=1)
    model.blocks[0].attn.lambda_proj.weight.data.mul_(100)
    views, table = attention_maps(model, idx), probe(model, idx, skip=7)
    x = model.blocks[0].attn_norm(model.embed(idx))
    lam = torch.sigmoid(model.blocks[0].attn.lambda_proj(x))[0].detach()  # (T, h)
    assert lam.std() > 0.2
    assert_close(views[0].lam, lam)
    assert_close(column(table[:4], "lam_mean"), lam[7:].mean(0))
    assert_close(column(table[:4], "lam_std"), lam[7:].std(0, correction=0))
    assert_close(views[0].weights, views[0].a1 - lam.T[:, :, None] * views[0].a2)


def test_outliers_of_numbers_done_by_hand():
    found = outliers(torch.tensor([[1.0, -1.0, 2.0], [-2.0, 9.0, -3.0]]))
    found = {name: value.item() for name, value in found.items()}
    assert (found["top1"], found["top2"], found["top3"], found["median"]) == (9, 3, 2, 2)
    assert found["ratio"] == 4.5
    m = [-1.0 + x for x in (1, -1, 2, -2, 9, -3)]  # the mean is 1
    kurtosis = sum(x**4 for x in m) / 6 / (sum(x**2 for x in m) / 6) ** 2
    assert found["kurtosis"] == pytest.approx(kurtosis)
    normal = outliers(torch.randn(400_000))
    assert normal["kurtosis"] == pytest.approx(3, abs=0.05)
    assert normal["median"] == pytest.approx(0.6745, abs=0.01)


def test_a_planted_activation_is_the_largest_of_every_later_layer():
    model, idx = tiny(), tokens()
    model.embed.weight.data[BOS, 5] = 1000.0
    table = probe(model, idx)
    assert column(table, "out_top1").min() > 990 and column(table, "out_ratio").min() > 1000
    views = attention_maps(model, idx[:1])
    assert all(view.residual_norms.argmax() == 0 for view in views)


@BOTH
def test_logits_are_those_of_all_causal_pairs_and_of_no_other(attention):
    model, idx = tiny(attention), tokens(B=2, T=12)
    table = probe(model, idx)
    sizes = []
    attn, x = model.blocks[0].attn, model.blocks[0].attn_norm(model.embed(idx))
    q, k, _ = attn.qkv(x, model.angles[:12])
    group = q.shape[2] // k.shape[2]
    for b in range(2):
        for j in range(q.shape[2]):
            for i in range(12):
                for key in range(i + 1):
                    dot = (q[b, i, j] * k[b, key, j // group]).sum().item()
                    sizes.append(abs(dot) / math.sqrt(8))
    assert table[0]["qk_top1"] == pytest.approx(max(sizes))
    halves = [half.median().item() for half in torch.tensor(sizes).chunk(2)]
    assert table[0]["qk_median"] == pytest.approx(sum(halves) / 2, rel=1e-5)  # of each sequence


# ---- The table ---------------------------------------------------------------------------------


@pytest.mark.parametrize("attention", sorted(ATTENTION))
def test_every_attention_can_be_probed(attention):
    model, idx = tiny(attention, sharpness=5.0), tokens(B=2)
    table, views = probe(model, idx), attention_maps(model, idx[:1])
    assert {row["layer"] for row in table} == {0, 1}
    for row in table:
        assert list(row) == list(COLUMNS)
        assert all(value is None or math.isfinite(value) for value in row.values())
        assert row["rms"] > 0 and 0 <= row["first_share_eff"] <= 1
    # The views must be of what the model really computes.
    outputs = []
    hooks = [block.register_forward_hook(lambda *a: outputs.append(a[2])) for block in model.blocks]
    model(idx[:1])
    for hook in hooks:
        hook.remove()
    for view, out in zip(views, outputs, strict=True):
        assert_close(view.out, out[0].detach(), rtol=1e-10, atol=1e-12)
        assert_close(view.residual_norms, out[0].detach().norm(dim=-1))


@BOTH
def test_a_batch_gives_what_its_sequences_give(attention):
    model, idx = tiny(attention), tokens(B=3)
    whole, single = probe(model, idx), [probe(model, one[None]) for one in idx]
    for i, row in enumerate(whole):
        for name, value in row.items():
            if value is None or name in ("layer", "head"):
                continue
            each = [table[i][name] for table in single]
            combine = max if name.endswith(("_high", "top1", "top2", "top3")) else None
            combine = min if name.endswith("_low") else combine
            expected = combine(each) if combine else sum(each) / 3
            assert value == pytest.approx(expected, rel=1e-9), name


def test_summary_has_the_mean_and_the_worst_head():
    table = probe(tiny("softmax"), tokens())
    found = summary(table)
    shares = [row["first_share_eff"] for row in table]
    assert found["first_share_eff_max"] == max(shares)
    assert found["first_share_eff_mean"] == pytest.approx(sum(shares) / 8)
    assert found["rms_low_min"] == min(row["rms_low"] for row in table)
    assert found["lam_mean_mean"] is None
    assert json.loads(json.dumps(found)) == found


def test_default_skip_is_64_queries_or_a_quarter_of_a_short_sequence():
    model = tiny(block_size=300)
    for T, skip in ((300, 64), (40, 10), (3, 1)):
        idx = torch.randint(0, 256, (1, T))
        assert probe(model, idx) == probe(model, idx, skip=skip) != probe(model, idx, skip=skip + 1)


# ---- Looking changes nothing -------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("training", [True, False])
def test_probing_leaves_the_model_bitwise_as_it_was(attention, training):
    model, idx = tiny(attention).train(training), tokens()
    model(idx, idx)[1].backward()
    before = copy.deepcopy(model.state_dict())
    gradients = [p.grad.clone() for p in model.parameters()]
    logits, given = model(idx)[0], idx.clone()
    probe(model, idx)
    attention_maps(model, idx[:1])
    assert torch.equal(model(idx)[0], logits) and torch.equal(idx, given)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), gradients, strict=True))
    assert all(p.requires_grad for p in model.parameters())
    for module in model.modules():
        assert module.training is training
        assert not module._forward_hooks and not module._forward_pre_hooks


def test_only_the_maps_of_one_layer_and_one_sequence_exist_at_a_time(monkeypatch):
    """A weak reference to every map that the model makes dies before the next one is made."""
    model, alive = tiny(n_layer=3), []

    def spy(method):
        def call(*args):
            maps = method(*args)
            assert len(maps) == 1  # of the batch of 5
            assert not [r for r in alive if r() is not None and r().shape == maps.shape]
            alive.append(weakref.ref(maps))
            return maps

        return call

    for block in model.blocks:
        monkeypatch.setattr(block.attn, "weights", spy(block.attn.weights))
    probe(model, tokens(B=5))
    assert len(alive) == 3 * 5


# ---- Precision, errors -------------------------------------------------------------------------


def test_inside_autocast_the_maps_are_still_float32():
    model, idx = tiny().float(), tokens()
    outside = probe(model, idx)
    with torch.autocast("cpu", torch.bfloat16):
        assert probe(model, idx) == outside


def test_a_bfloat16_model_is_measured_in_float32():
    model, idx = tiny(sharpness=5.0), tokens()
    exact, rounded = summary(probe(model, idx)), summary(probe(model.bfloat16(), idx))
    for name in ("rms_mean", "lam_mean_mean", "entropy_mean", "out_top1_max", "rho_mean"):
        assert rounded[name] == pytest.approx(exact[name], rel=0.03, abs=0.01), name
    view = attention_maps(model, idx[:1])[0]
    assert view.weights.dtype == view.rms.dtype == view.out.dtype == torch.float32
    assert_close(view.a1.sum(-1), torch.ones(4, 40))


@pytest.mark.gpu
@BOTH
def test_a_bfloat16_model_on_a_gpu_gives_what_the_cpu_gives(attention):
    model, idx = tiny(attention, sharpness=5.0).bfloat16(), tokens()
    on_cpu, on_gpu = summary(probe(model, idx)), summary(probe(model.cuda(), idx))
    for name in ("rms_mean", "entropy_mean", "out_top1_max", "qk_top1_max", "rho_mean"):
        assert on_gpu[name] == pytest.approx(on_cpu[name], rel=0.03, abs=0.01), name


@pytest.mark.parametrize("shape", [(40,), (0, 40), (2, 1), (2, 49), (1, 2, 3)])
def test_an_idx_that_does_not_fit_is_refused(shape):
    with pytest.raises(ValueError, match="T from 2 to 48"):
        probe(tiny(), torch.zeros(shape, dtype=torch.long))


@pytest.mark.parametrize("skip", [0, 40, -1])
def test_a_skip_that_leaves_nothing_to_measure_is_refused(skip):
    with pytest.raises(ValueError, match="from 1 to T - 1 = 39"):
        probe(tiny(), tokens(), skip=skip)


def test_attention_maps_take_one_prompt():
    with pytest.raises(ValueError, match="has 3 sequences"):
        attention_maps(tiny(), tokens(B=3))


# ---- Spikes ------------------------------------------------------------------------------------


def test_spikes_are_found_where_they_were_planted():
    norms = [1.0 + 0.3 * math.sin(i) for i in range(300)]
    assert spikes(norms) == []
    norms[5] = 50.0  # too early: no median yet
    norms[40], norms[41], norms[250] = 3.5, 20.0, 4.0
    assert spikes(norms) == [40, 41, 250]
    assert spikes(norms, factor=10) == [41]


def test_a_spike_is_relative_to_the_last_steps_and_not_to_the_whole_run():
    norms = [10.0] * 200 + [1.0] * 200
    norms[390] = 5.0
    assert spikes(norms) == [390]
    assert spikes([1.0] * 100 + [10.0] * 200) == list(range(100, 150))  # half the window is new


def test_a_norm_that_is_not_finite_is_a_spike():
    norms = [1.0] * 50
    norms[20], norms[30] = math.nan, math.inf
    assert spikes(norms) == [20, 30]


def test_spikes_of_a_metrics_file_are_its_own_step_numbers(tmp_path):
    path = tmp_path / "metrics.jsonl"
    rows = []
    for step in range(1, 121):
        norm = 9.0 if step == 77 else 1.0
        rows.append({"step": step, "loss": 2.0, "lr": 1e-3, "grad_norm": norm, "tokens_per_s": 9})
        if step % 10 == 0:
            rows.append({"step": step, "val_loss": 2.1})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert spikes(path) == spikes(str(path)) == [77]
