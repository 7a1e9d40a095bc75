"""Closed forms: bounds of the context RMS, parameter counts, operations and bytes.

Nothing here touches a model; every function takes numbers (or arrays of weights) and is checked
against real modules and Monte-Carlo draws in tests/test_theory.py and in the notebooks.

The context is c = sum_j w_j v_j, and RMS(c) = sqrt(|c|^2 / d). The values have RMS 1 and pairwise
correlation rho = E[v_i . v_j] / d for i != j; rho = 0 is what the published analysis assumes.
"""

import math

import torch


def expected_rms(weights, rho=0.0):
    """sqrt((1 - rho) |w|^2 + rho (sum w)^2): the root-mean-square context of the weights (..., n).

    Derivation: |c|^2 / d = sum_ij w_i w_j v_i.v_j / d, whose expectation has 1 on the diagonal and
    rho elsewhere. For rho = 0 it is |w|.
    """
    w = torch.as_tensor(weights)
    square = (1 - rho) * w.square().sum(-1) + rho * w.sum(-1).square()
    return square.clamp(min=0).sqrt()  # rho = -1/(n - 1) and uniform weights give 0, rounding less


def effective_tokens(weights):
    """1 / |a|^2 of softmax rows a (..., n): how many tokens a row attends to, from 1 to n."""
    return 1 / torch.as_tensor(weights).square().sum(-1)


def rms_bounds(n, lam=None):
    """(lowest, highest) expected RMS over n uncorrelated tokens.

    Softmax (lam=None): (1/sqrt(n), 1). The lower end is Cauchy-Schwarz with equality only for
    uniform weights, the upper end a one-hot row. DIFF V2: ((1 - lam)/sqrt(n), sqrt(1 + lam^2)); the
    lower end needs a uniform difference, the upper end two disjoint one-hot maps, hence n >= 2.
    """
    if n < 1:
        raise ValueError(f"n={n}: a query sees at least one token, itself")
    if lam is None:
        return 1 / math.sqrt(n), 1.0
    if not 0 <= lam <= 1:
        raise ValueError(f"lam={lam} must lie in [0, 1], where a sigmoid puts it")
    return (1 - lam) / math.sqrt(n), math.sqrt(1 + lam**2) if n > 1 else 1 - lam


def v1_lambda_init(layer_index):
    """DIFF V1's lambda_init of a layer counted from 0: 0.8 - 0.6 exp(-0.3 layer), 0.2 to 0.8."""
    return 0.8 - 0.6 * math.exp(-0.3 * layer_index)


def attention_params(n_embd, n_head, n_kv_head, head_dim, *, diff_v2=False):
    """Weights of one attention layer: q and o, k and v, and for DIFF V2 the second q and lambda.

    softmax 2hdD + 2 h_kv d D; DIFF V2 3hdD + 2 h_kv d D + hD.
    """
    heads = n_head * head_dim * n_embd  # one of q_proj, o_proj
    keys_values = 2 * n_kv_head * head_dim * n_embd
    return 3 * heads + keys_values + n_head * n_embd if diff_v2 else 2 * heads + keys_values


def saved_against_2h_heads(n_embd, n_head, n_kv_head, head_dim):
    """Share of attention weights that DIFF V2 saves against softmax with 2h heads.

    (1 - 1/d) / (4 + 2 h_kv/h): 16.5% for h_kv = h and d = 128, and the published 25% only as
    h_kv/h -> 0 and d grows. Against softmax with h heads it saves nothing: DIFF V2 has more.
    """
    diff = attention_params(n_embd, n_head, n_kv_head, head_dim, diff_v2=True)
    return 1 - diff / attention_params(n_embd, 2 * n_head, n_kv_head, head_dim)


def train_flops_per_token(n_matmul_params, n_layer, query_heads, head_dim, seq_len):
    """Floating-point operations of forward and backward for one token (an add counts as one).

    Each weight of a matmul costs 2 operations forward and 4 backward. Attention does two products
    (q k^T and A v) of 2 * T * d operations for each query head, of which the causal mask needs
    half; with the backward pass three times that: 6 * T * d * H for each layer.
    """
    return 6 * n_matmul_params + 6 * n_layer * query_heads * head_dim * seq_len


def decode_attention_cost(n_keys, query_heads, n_kv_head, head_dim, bytes_per_number=2):
    """(operations, bytes) of one token's attention in one layer: q k^T and A v over the cache.

    Twice the query heads double the operations, while the bytes, which bound the time, stay: the
    cache is read once for all query heads of a group.
    """
    operations = 4 * n_keys * query_heads * head_dim
    return operations, 2 * n_keys * n_kv_head * head_dim * bytes_per_number


def kv_cache_bytes(n_keys, n_layer, n_kv_head, head_dim, bytes_per_number=2, *, window=None):
    """Bytes of the keys and values that generation keeps after n_keys tokens, for one sequence.

    A pair of n_keys keys and values in each layer; with ``window``, YOCO: at most so many tokens in
    each layer of the lower half, and one pair of n_keys for the upper half (arXiv 2405.05254).
    """
    tokens = n_layer * n_keys
    if window is not None:
        tokens = n_layer // 2 * min(window, n_keys) + n_keys
    return 2 * tokens * n_kv_head * head_dim * bytes_per_number


def prefill_attention_operations(n_tokens, n_layer, query_heads, head_dim, *, window=None):
    """Floating-point operations of the attention that reads a prompt, for one sequence.

    q k^T and A v cost 4 d for each pair of a query and a key that it sees: T (T + 1) / 2 pairs of
    causal attention. YOCO: a query of the lower half sees at most ``window`` keys, and the upper
    half has a single query, the last token's, which sees all T: linear in T.
    """
    T, pairs = n_tokens, n_layer * n_tokens * (n_tokens + 1) // 2
    if window is not None:
        w, half = min(window, T), n_layer // 2
        pairs = half * (w * (w + 1) // 2 + (T - w) * w) + (n_layer - half) * T
    return 4 * pairs * query_heads * head_dim
