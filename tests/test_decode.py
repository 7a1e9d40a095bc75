"""The decoding kernel against naive float64: in Triton's interpreter, and on a CUDA GPU.

Run as a program, this file checks the interpreter's cases: Triton decides whether to interpret when
it is imported, so they need a process of their own.
"""

import importlib.util
import math
import os
import subprocess
import sys

import pytest
import torch

from minidiff import attention
from minidiff.fast.decoder import record_graph

needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None,
    reason="needs triton, which PyTorch's CPU builds do not bring",
)

# Allowed for every head, as a share of its norm: the weights and the output are rounded once each.
TOLERANCE = {torch.bfloat16: 1e-2, torch.float16: 1.5e-3, torch.float32: 1e-5}
S_MAX = 777  # no multiple of a tile

CASES = [  # B, h_kv, H / h_kv, d, n_keys, n_splits (None: by rule)
    (1, 1, 1, 16, 1, 4),
    (1, 2, 8, 128, 1, None),
    (3, 2, 4, 64, 2, 2),
    (1, 3, 3, 72, 63, 1),
    (2, 1, 12, 32, 64, 8),
    (1, 2, 2, 128, 65, None),
    (1, 2, 4, 136, 700, 16),
    (1, 1, 24, 64, 700, 1),
    (2, 2, 8, 128, S_MAX, None),
    (1, 1, 2, 256, S_MAX, 4),
]


def inputs(B, h_kv, group, d, dtype, device, S=S_MAX):
    """q (B, 1, H, d); k and v (B, S, h_kv, d), every other head of a cache, as DIFF V1 reads it."""
    q = torch.randn(B, 1, h_kv * group, d, device=device, dtype=dtype)
    k, v = torch.randn(2, B, S, 2 * h_kv, d, device=device, dtype=dtype)
    return q, k[:, :, 1::2], v[:, :, ::2]


def check(out, q, k, v, n_keys):
    """Every head is as near to float64 as its dtype allows."""
    exact = attention(q.double(), k[:, :n_keys].double(), v[:, :n_keys].double(), backend="naive")
    assert out.dtype == q.dtype and out.shape == q.shape
    error = (out.double() - exact).norm(dim=-1) / exact.norm(dim=-1)
    assert error.max().item() < TOLERANCE[q.dtype]  # False for nan


def check_case(B, h_kv, group, d, n_keys, n_splits, dtype, device, garbage):
    from minidiff.fast.decode import split_decode

    q, k, v = inputs(B, h_kv, group, d, dtype, device)
    k[:, n_keys:] = v[:, n_keys:] = garbage
    length = torch.tensor([n_keys], dtype=torch.int32, device=device)
    check(split_decode(q, k, v, length, n_splits=n_splits), q, k, v, n_keys)


@pytest.mark.slow
@needs_triton
def test_in_the_interpreter_it_agrees_with_naive_float64_and_reads_no_unfilled_key():
    env = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-W", "ignore", __file__]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    if "only 0-dimensional arrays can be converted" in done.stderr:
        pytest.skip("this Triton's interpreter does not know NumPy >= 2.4")
    assert done.returncode == 0, done.stderr


@needs_triton
@pytest.mark.parametrize(
    ("q", "k"), [((2, 1, 3, 16), (2, 8, 2, 16)), ((2, 2, 4, 16), (2, 8, 2, 16)),
                 ((2, 1, 4, 16), (1, 8, 2, 16)), ((2, 1, 4, 16), (2, 8, 2, 32))],
)  # fmt: skip
def test_what_does_not_fit_is_refused_and_nothing_is_read_out_of_bounds(q, k):
    from minidiff.fast.decode import split_decode

    with pytest.raises(ValueError, match="h_kv a divisor of H"):
        split_decode(torch.zeros(q), torch.zeros(k), torch.zeros(k), torch.ones(1))


@needs_triton
def test_the_splits_fill_whole_waves_of_programs():
    from minidiff.fast.decode import count_splits

    for groups, n_tiles, expected in [(256, 512, 1), (32, 512, 8), (4, 2048, 64), (4, 1, 1)]:
        assert count_splits(groups, n_tiles, n_sm=132) == expected
    assert count_splits(140, 2048, n_sm=132) > 1  # 140 programs would leave half of 264 idle


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("garbage", [1e4, math.nan])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_it_agrees_with_naive_float64_and_reads_no_unfilled_key(case, garbage, dtype):
    check_case(*case, dtype, "cuda", garbage)


@pytest.mark.gpu
@pytest.mark.parametrize("d", [64, 72, 128, 256])
@pytest.mark.parametrize("n_keys", [1, 63, 64, 65, 4095, 4096, 20000])
def test_auto_takes_it_for_one_query_and_it_repeats_bit_for_bit(n_keys, d):
    pytest.importorskip("triton")
    from minidiff.fast.decode import split_decode

    q, k, v = inputs(2, 4, 8, d, torch.bfloat16, "cuda", S=20000)
    length = torch.tensor([n_keys], dtype=torch.int32, device="cuda")
    out = attention(q, k, v, n_keys=length)
    check(out, q, k, v, n_keys)
    assert torch.equal(out, split_decode(q, k, v, length))


@pytest.mark.gpu
def test_offsets_beyond_two_billion_elements():
    q = 30 * torch.randn(2, 1, 4, 128, device="cuda", dtype=torch.bfloat16)
    S = 2**24 + 64  # a sequence has 2^31 elements and some more
    if torch.cuda.mem_get_info()[0] < 6 * S * 128:
        pytest.skip("needs 13 GB of GPU memory")
    k = torch.randn(2, S, 1, 128, device="cuda", dtype=torch.bfloat16)  # keys also serve as values
    length = torch.tensor([S], dtype=torch.int32, device="cuda")
    k[:, : S - 64] = 0
    out = attention(q, k, k, n_keys=length)
    weights = torch.einsum("bthd,bsgd->bhts", q.double(), k[:, S - 64 :].double())
    weights = (weights / math.sqrt(128)).exp()  # the zero keys have weight 1 each, and value 0
    exact = torch.einsum("bhts,bsgd->bthd", weights, k[:, S - 64 :].double())
    exact /= (weights.sum(-1) + S - 64).transpose(1, 2)[..., None]
    assert ((out.double() - exact).norm(dim=-1) / exact.norm(dim=-1)).max().item() < 1e-2


@pytest.mark.gpu
@pytest.mark.parametrize("d", [136, 256])
def test_auto_takes_head_sizes_that_flash_attn_may_not_know(d):
    for T in (1, 5):
        q, k, v = inputs(2, 2, 2, d, torch.bfloat16, "cuda")
        q = q.repeat(1, T, 1, 1)
        length = torch.tensor([300], dtype=torch.int32, device="cuda")
        out = attention(q, k, v, n_keys=length)
        check(out[:, -1:], q[:, -1:], k, v, 300)


@pytest.mark.gpu
def test_one_cuda_graph_serves_every_length():
    q, k, v = inputs(2, 4, 8, 128, torch.bfloat16, "cuda", S=5000)
    length = torch.tensor([5000], dtype=torch.int32, device="cuda")
    graph, out = record_graph(lambda: attention(q, k, v, n_keys=length))
    for n_keys in (1, 5000, 64, 65, 2, 777, 4999):
        q.normal_()
        length.fill_(n_keys)
        graph.replay()
        check(out, q, k, v, n_keys)


if __name__ == "__main__":
    torch.manual_seed(0)
    for i, case in enumerate(CASES):
        dtype = (torch.float32, torch.float16)[i % 2]  # the interpreter cannot do bfloat16
        check_case(*case, dtype, "cpu", (1e4, math.nan)[i // 2 % 2])
