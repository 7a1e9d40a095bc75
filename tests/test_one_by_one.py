"""The benchmark's softmax, by the code of the fused pair, against naive float64.

Run as a program, this file checks it in Triton's interpreter, as test_pair.py does.
"""

from functools import partial

import pytest
import torch
from test_pair import (
    TOLERANCE,
    gpu_that_runs_it,  # noqa: F401  (a fixture)
    in_the_interpreter,
    marked,
    needs_triton,
    outputs_and_gradients,
)

from minidiff.attention import attention

CASES = [(2, 1, 1, 1, 64), (1, 17, 2, 2, 128), (2, 65, 1, 4, 64), (1, 300, 2, 3, 64)]


def check(case, dtype, device="cpu"):
    """Output and gradients against float64; the case is (B, T, h_kv, h / h_kv, d)."""
    from minidiff.bench.one_by_one import softmax_attention

    B, T, h_kv, group, d = case
    heads = (h_kv * group, h_kv, h_kv, h_kv * group)
    *inputs, grad = (torch.randn(B, T, n, d, device=device).to(dtype) for n in heads)
    naive = partial(attention, backend="naive")
    results = outputs_and_gradients(softmax_attention, inputs, grad)
    exacts = outputs_and_gradients(naive, [x.double() for x in inputs], grad.double())
    for name, got, exact in zip(("out", "dq", "dk", "dv"), results, exacts, strict=True):
        zero = exact.numel() ** 0.5 / T  # at T = 1 the gradients of q and k vanish
        error = (got.double() - exact).norm() / exact.norm().clamp(min=zero)
        assert error.item() < TOLERANCE[dtype], (case, name, error.item())


@pytest.mark.slow
@needs_triton
def test_in_the_interpreter_it_agrees_with_naive_float64():
    in_the_interpreter(__file__)


@marked
@pytest.mark.parametrize("case", [*CASES, (2, 1024, 2, 6, 128)], ids=str)
def test_it_agrees_with_naive_float64_on_the_gpu(case):
    check(case, torch.bfloat16, "cuda")


if __name__ == "__main__":
    torch.manual_seed(0)
    for i, case in enumerate(CASES):
        check(case, (torch.float32, torch.float16)[i % 2])
