"""The closed forms against real modules, Monte-Carlo draws and PyTorch's operation counter."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from minidiff import GPT, GPTConfig, attention, theory
from minidiff.generate import Decoder
from minidiff.model import ATTENTION
from minidiff.variants import variant


def correlated_values(samples, n, d, rho):
    """(samples, n, d): E[v_i . v_j] / d is 1 on the diagonal and rho elsewhere, for rho >= 0."""
    shared = torch.randn(samples, 1, d, dtype=torch.float64)
    own = torch.randn(samples, n, d, dtype=torch.float64)
    return math.sqrt(rho) * shared + math.sqrt(1 - rho) * own


def one_hot(n, i):
    return torch.nn.functional.one_hot(torch.tensor(i), n).double()


def simplex(n, sharpness):
    """A random softmax row, from near uniform to near one-hot."""
    return (torch.randn(n, dtype=torch.float64) * sharpness).softmax(-1)


rows = st.tuples(st.integers(1, 40), st.sampled_from([0.0, 0.1, 1.0, 5.0, 50.0]))
lambdas = st.floats(0, 1)


# ---- Context RMS -------------------------------------------------------------------------------


@pytest.mark.parametrize("rho", [0.0, 0.3, 0.9, 1.0])
@pytest.mark.parametrize("kind", ["uniform", "peaked", "signed"])
def test_expected_rms_is_what_random_values_give(rho, kind):
    n, d, samples = 12, 32, 4000
    w = {
        "uniform": torch.full((n,), 1 / n, dtype=torch.float64),
        "peaked": simplex(n, 3.0),
        "signed": simplex(n, 3.0) - 0.7 * simplex(n, 3.0),
    }[kind]
    context = torch.einsum("n,snd->sd", w, correlated_values(samples, n, d, rho))
    measured = context.square().mean().sqrt()
    # The mean square of 128,000 numbers, normal given w: relative error sqrt(2/128000)/2 = 0.002.
    assert_close(measured, theory.expected_rms(w, rho), rtol=0.01, atol=0)


def test_expected_rms_is_exact_for_one_set_of_values_of_any_correlation():
    """No expectation is needed where every pair has the same inner product, even a negative one."""
    n, rho = 5, -0.2  # the least that n = 5 allows is -1/4
    gram = (1 - rho) * torch.eye(n, dtype=torch.float64) + rho
    v = torch.linalg.cholesky(gram) * math.sqrt(n)  # (n, d = n) rows with |v|^2 = d
    w = torch.randn(7, n, dtype=torch.float64)
    assert_close((w @ v).square().mean(-1).sqrt(), theory.expected_rms(w, rho))


def test_values_that_cancel_leave_nothing_and_not_nan():
    """rho = -1/(n - 1): n values sum to zero. Rounding must not make their square negative."""
    rms = [theory.expected_rms(torch.full((n,), 1 / n), -1 / (n - 1)) for n in range(2, 60)]
    assert_close(torch.stack(rms), torch.zeros(58), rtol=0, atol=1e-3)  # sqrt of 2^-24


@given(rows)
def test_softmax_rows_never_leave_their_bounds(row):
    n, sharpness = row
    rms = theory.expected_rms(simplex(n, sharpness)).item()
    low, high = theory.rms_bounds(n)
    assert low * (1 - 1e-12) <= rms <= high * (1 + 1e-12)


@given(rows, lambdas)
def test_differences_never_leave_their_bounds(row, lam):
    n, sharpness = row
    rms = theory.expected_rms(simplex(n, sharpness) - lam * simplex(n, sharpness)).item()
    low, high = theory.rms_bounds(n, lam)
    assert low * (1 - 1e-12) - 1e-15 <= rms <= high * (1 + 1e-12)


@given(st.integers(1, 40), lambdas)
def test_every_bound_is_attained(n, lam):
    uniform = torch.full((n,), 1 / n, dtype=torch.float64)
    first, second = one_hot(n, 0), one_hot(n, n - 1)  # disjoint for n >= 2, else the same token
    extremes = [theory.expected_rms(w).item() for w in (uniform, first)]
    assert extremes == pytest.approx(theory.rms_bounds(n))
    signed = [(1 - lam) * uniform, first - lam * second]  # equal uniform maps; one-hot maps
    assert [theory.expected_rms(w).item() for w in signed] == pytest.approx(
        theory.rms_bounds(n, lam), abs=1e-12
    )


@given(rows, st.floats(0, 1), lambdas)
def test_correlated_values_leave_a_floor_that_only_the_difference_lowers(row, rho, lam):
    """Softmax cannot fall under sqrt(rho); DIFF V2 rejects (1 - lam) of what the values share."""
    n, sharpness = row
    a1, a2 = simplex(n, sharpness), simplex(n, sharpness)
    assert theory.expected_rms(a1, rho) >= math.sqrt(rho) * (1 - 1e-9)
    floor = (1 - lam) * math.sqrt(rho)
    assert theory.expected_rms(a1 - lam * a2, rho) >= floor * (1 - 1e-9)
    equal = theory.expected_rms((1 - lam) * a1, rho)  # a2 = a1 scales everything, the floor too
    assert_close(equal, (1 - lam) * theory.expected_rms(a1, rho))


@given(rows)
def test_effective_tokens_are_between_one_and_n_and_give_the_rms(row):
    n, sharpness = row
    a = simplex(n, sharpness)
    effective = theory.effective_tokens(a).item()
    assert 1 - 1e-9 <= effective <= n * (1 + 1e-9)
    assert theory.expected_rms(a).item() == pytest.approx(1 / math.sqrt(effective))


def test_functions_take_rows_of_maps():
    maps = torch.eye(4).expand(2, 3, 4, 4)  # (B, h, T, S), one-hot rows
    assert_close(theory.expected_rms(maps), torch.ones(2, 3, 4))
    assert_close(theory.effective_tokens(maps), torch.ones(2, 3, 4))


@pytest.mark.parametrize(
    ("args", "message"), [((0,), "itself"), ((4, -0.1), "lie in"), ((4, 1.1), "lie in")]
)
def test_bounds_refuse_what_has_none(args, message):
    with pytest.raises(ValueError, match=message):
        theory.rms_bounds(*args)


# ---- Parameters --------------------------------------------------------------------------------


@given(st.integers(1, 4), st.integers(1, 4), st.sampled_from([2, 4, 8]), st.sampled_from([8, 24]))
def test_attention_params_are_those_of_real_modules(h_kv, group, d, D):
    h = h_kv * group
    config = GPTConfig(n_head=h, n_kv_head=h_kv, head_dim=d, n_embd=D)
    for name in ("softmax", "diff_v2"):
        real = sum(p.numel() for p in ATTENTION[name](config).parameters())
        assert real == theory.attention_params(D, h, h_kv, d, diff_v2=name == "diff_v2")


def real_params(name, D=4096, h=32, h_kv=8, d=128):
    """Attention weights of one real layer (without memory) that variant() sized."""
    config = GPTConfig(n_layer=1, n_head=h, n_kv_head=h_kv, head_dim=d, n_embd=D)
    sized = variant(config, name)
    with torch.device("meta"):
        return sum(p.numel() for p in ATTENTION[sized.attention](sized).parameters())


def test_the_published_model_size():
    """D=4096, h=32, h_kv=8, d=128: 58.85M against 75.50M (2h heads) and 41.94M (h heads)."""
    millions = {n: real_params(n) / 1e6 for n in ("diff_v2", "softmax_2h", "softmax_h")}
    assert millions == pytest.approx(
        {"diff_v2": 58.85, "softmax_2h": 75.50, "softmax_h": 41.94}, abs=0.005
    )
    assert theory.attention_params(4096, 32, 8, 128, diff_v2=True) == real_params("diff_v2")
    saved = theory.saved_against_2h_heads(4096, 32, 8, 128)
    assert saved == pytest.approx(1 - real_params("diff_v2") / real_params("softmax_2h"))
    assert 100 * saved == pytest.approx(22.05, abs=0.005)
    assert 100 * (real_params("diff_v2") / real_params("softmax_h") - 1) == pytest.approx(
        40.3, abs=0.05
    )


@given(st.integers(1, 8), st.integers(1, 16), st.sampled_from([2, 64, 128]), st.integers(1, 5000))
def test_what_is_saved_against_2h_heads_is_the_closed_form(h_kv, group, d, D):
    h = h_kv * group
    closed = (1 - 1 / d) / (4 + 2 * h_kv / h)
    saved = theory.saved_against_2h_heads(D, h, h_kv, d)
    assert saved == pytest.approx(closed, rel=1e-9)
    assert saved < 0.25  # "about 25%" is a limit that no model reaches


def test_the_published_quarter_is_a_limit():
    """16.5% with as many key/value heads as heads; 25% only as h_kv/h -> 0."""
    saved = [100 * theory.saved_against_2h_heads(4096, h, 1, 128) for h in (1, 4, 32, 4096)]
    assert saved == sorted(saved)
    assert saved[0] == pytest.approx(16.5, abs=0.05)
    # Of the 25%, 1/d of them always goes to W_lambda.
    assert saved[-1] == pytest.approx(25 * (1 - 1 / 128), abs=0.01)


def test_the_fair_baseline_has_one_and_a_half_times_the_heads():
    """What is left over is W_lambda: h D weights."""
    for D, h, h_kv, d in [(4096, 32, 8, 128), (512, 8, 2, 64)]:
        diff, fair = (real_params(n, D, h, h_kv, d) for n in ("diff_v2", "softmax_1.5h"))
        assert diff - fair == h * D
        assert fair == theory.attention_params(D, h * 3 // 2, h_kv, d)


def test_v1_lambda_init_rises_from_0_2_towards_0_8():
    values = [theory.v1_lambda_init(i) for i in range(60)]
    assert values[0] == pytest.approx(0.2)
    assert values == sorted(values) and values[-1] == pytest.approx(0.8, abs=1e-6)


# ---- Operations and bytes ----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["diff_v2", "softmax_h", "softmax_1.5h"])
@pytest.mark.parametrize("T", [16, 64])
def test_train_flops_are_what_pytorch_counts(name, T):
    """The naive path also computes what the causal mask then hides: twice the attention's share."""
    base = GPTConfig(n_layer=2, n_head=4, n_kv_head=2, head_dim=8, n_embd=32, backend="naive")
    config = variant(base, name)
    model, B = GPT(config), 3
    idx = torch.randint(0, 256, (B, T + 1))
    with FlopCounterMode(display=False) as counter:
        model(idx[:, :-1], idx[:, 1:])[1].backward()
    # Every matrix is in one matmul, the tied embedding in that which makes the logits.
    matrices = sum(p.numel() for p in model.parameters() if p.dim() == 2)
    heads = config.n_head * (2 if name == "diff_v2" else 1)
    formula = theory.train_flops_per_token(matrices, 2, heads, 8, T)
    of_attention = formula - 6 * matrices
    assert counter.get_total_flops() == B * T * (6 * matrices + 2 * of_attention)


@pytest.mark.parametrize("n_keys", [2, 40])
def test_decode_cost_is_what_one_query_over_the_cache_does(n_keys):
    """Operations as PyTorch counts them; bytes as a model's cache of n_keys positions has them."""
    h, h_kv, d = 4, 2, 8
    cost = {}
    for name, heads in (("diff_v2", 2 * h), ("softmax", h)):
        config = GPTConfig(attention=name, n_layer=1, n_head=h, n_kv_head=h_kv, head_dim=d,
                           block_size=n_keys)  # fmt: skip
        decode = Decoder(GPT(config))
        decode(torch.randint(0, 256, (1, n_keys)))
        k, v = decode.cache.layers[0]  # (1, n_keys, h_kv, d) float32
        with FlopCounterMode(display=False) as counter:
            attention(torch.randn(1, 1, heads, d), k, v, backend="naive")
        cost[name] = theory.decode_attention_cost(n_keys, heads, h_kv, d, bytes_per_number=4)
        assert cost[name] == (counter.get_total_flops(), k.nbytes + v.nbytes)
    assert cost["diff_v2"] == (2 * cost["softmax"][0], cost["softmax"][1])
