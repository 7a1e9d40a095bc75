"""The fused pair against naive float64: in Triton's interpreter, and on a CUDA GPU.

Run as a program, this file checks the interpreter's cases: Triton decides whether to interpret when
it is imported, so they need a process of their own.
"""

import importlib.util
import os
import subprocess
import sys

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from minidiff.attention import PAIR, diff_attention
from minidiff.fast.pair import pair_attention

can_run = PAIR["pair"][0].can_run
needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None,
    reason="needs triton, which PyTorch's CPU builds do not bring",
)

# Allowed of |error| / |exact|, out and gradients: maps and their gradients are rounded once each.
TOLERANCE = {torch.bfloat16: 1e-2, torch.float16: 2e-3, torch.float32: 1e-5}
NAMES = ("out", "dq", "dk", "dv", "dlogit")

CASES = [  # B, T, h_kv, h / h_kv, d
    (2, 1, 1, 1, 64),
    (1, 17, 2, 2, 128),
    (2, 64, 1, 4, 64),
    (1, 65, 3, 1, 64),
    (1, 127, 1, 2, 128),
    (3, 128, 2, 2, 128),
    (1, 300, 2, 1, 64),
    (2, 1000, 1, 4, 64),
    (1, 1024, 2, 4, 128),
    (1, 1027, 4, 2, 128),
]


def random_inputs(B, T, h_kv, group, d, dtype, device="cpu", logit_scale=1.0):
    """q (B, T, 2h, d), k, v (B, T, h_kv, d), the logit (B, T, h), and an output's gradient."""
    h = h_kv * group
    sizes = ((2 * h, d), (h_kv, d), (h_kv, d), (h,), (h, d))
    q, k, v, logit, grad = (torch.randn(B, T, *size, device=device).to(dtype) for size in sizes)
    return (q, k, v, logit * logit_scale), grad


def outputs_and_gradients(function, inputs, grad):
    """out, dq, dk, dv, dlogit."""
    inputs = [x.detach().requires_grad_() for x in inputs]
    out = function(*inputs)
    return out, *torch.autograd.grad(out, inputs, grad)


def naive(q, k, v, lam_logit):
    return diff_attention(q, k, v, lam_logit, backend="naive")


def check(results, inputs, grad):
    """Every result is as near to float64 as its dtype allows."""
    exact = outputs_and_gradients(naive, [x.double() for x in inputs], grad.double())
    for name, got, reference in zip(NAMES, results, exact, strict=True):
        assert got.dtype == inputs[0].dtype and got.shape == reference.shape
        zero = reference.numel() ** 0.5 / grad.shape[1]  # at T = 1 the gradients of q and k vanish
        error = (got.double() - reference).norm() / reference.norm().clamp(min=zero)
        assert error.item() < TOLERANCE[got.dtype], (name, error.item())  # False for nan


@pytest.mark.slow
@needs_triton
def test_in_the_interpreter_it_agrees_with_naive_float64():
    in_the_interpreter(__file__)


def in_the_interpreter(file):
    """Run a test file as a program in which Triton interprets its kernels."""
    env = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-W", "ignore", file]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    if "only 0-dimensional arrays can be converted" in done.stderr:
        pytest.skip("this Triton's interpreter does not know NumPy >= 2.4")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("q", "k", "v", "logit"),
    [
        ((2, 8, 4, 64), (2, 9, 2, 64), (2, 9, 2, 64), (2, 8, 2)),  # S != T
        ((2, 8, 6, 64), (2, 8, 2, 64), (2, 8, 2, 64), (2, 8, 3)),  # a pair straddles two groups
        ((2, 8, 4, 64), (2, 8, 2, 64), (2, 8, 2, 128), (2, 8, 2)),  # another head size for v
        ((2, 8, 4, 64), (2, 8, 2, 64), (2, 8, 2, 64), (2, 8, 4)),  # a logit for each query head
        ((2, 8, 4, 80), (2, 8, 2, 80), (2, 8, 2, 80), (2, 8, 2)),  # no kernel for this head size
    ],
)
def test_what_does_not_fit_is_refused(q, k, v, logit):
    with pytest.raises(ValueError, match="h_kv a divisor of h"):
        pair_attention(*(torch.zeros(shape) for shape in (q, k, v, logit)))


def test_it_says_why_it_cannot_run_and_what_to_do():
    q, k = torch.zeros(1, 4, 4, 64), torch.zeros(1, 8, 2, 64)
    with pytest.raises(RuntimeError, match=r"'pair' cannot run here: .*on cpu; use backend='sdpa'"):
        diff_attention(q, k, k, torch.zeros(1, 4, 2), backend="pair")


# ---- On a GPU ----------------------------------------------------------------------------------


@pytest.fixture
def gpu_that_runs_it():
    q = torch.zeros(1, 1, 2, 64, device="cuda", dtype=torch.bfloat16)
    if reason := can_run(q, q, q):
        pytest.skip(reason)


on_a_gpu = [pytest.mark.gpu, pytest.mark.usefixtures("gpu_that_runs_it")]


def marked(test):
    """A GPU test, skipped with the reason where the kernel cannot run."""
    for mark in on_a_gpu:
        test = mark(test)
    return test


@marked
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("logit_scale", [1.0, 40.0])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_it_agrees_with_naive_float64_and_repeats_bit_for_bit(case, logit_scale, dtype):
    inputs, grad = random_inputs(*case, dtype, "cuda", logit_scale)
    once, again = (outputs_and_gradients(pair_attention, inputs, grad) for _ in range(2))
    check(once, inputs, grad)
    assert all(torch.equal(x, y) for x, y in zip(once, again, strict=True))


@marked
def test_it_compiles_without_a_graph_break():
    inputs, grad = random_inputs(2, 200, 2, 2, 64, torch.bfloat16, "cuda")
    compiled = torch.compile(pair_attention, fullgraph=True)
    check(outputs_and_gradients(compiled, inputs, grad), inputs, grad)


@marked
def test_it_takes_a_float32_logit_and_tensors_in_any_memory_layout():
    (q, k, v, logit), grad = random_inputs(2, 130, 2, 2, 64, torch.bfloat16, "cuda")
    q, v = (x.transpose(1, 2).contiguous().transpose(1, 2) for x in (q, v))  # (B, H, T, d) memory
    inputs, grad = (q, k, v, logit.float()), grad[:1].expand(2, -1, -1, -1)
    out, *gradients = outputs_and_gradients(pair_attention, inputs, grad)
    assert gradients[-1].dtype == torch.float32
    gradients[-1] = gradients[-1].to(torch.bfloat16)
    check((out, *gradients), (q, k, v, logit), grad)


@marked
def test_what_it_refuses_is_named():
    q = torch.zeros(1, 4, 4, 64, device="cuda")
    assert "bfloat16 or float16" in can_run(q, q, q)
    q = torch.zeros(1, 4, 4, 80, device="cuda", dtype=torch.bfloat16)
    assert "head size 80" in can_run(q, q, q)


# ---- In the interpreter ------------------------------------------------------------------------

BLOCKS = st.sampled_from([(16, 16, 4, 2), (16, 64, 4, 2), (32, 32, 4, 2), (64, 16, 4, 2)])


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    st.integers(1, 2), st.integers(1, 80), st.integers(1, 2), st.sampled_from([1, 2, 4]),
    st.sampled_from([64, 128]), st.sampled_from([torch.float32, torch.float16]),
    st.sampled_from([1.0, 100.0]), st.tuples(BLOCKS, BLOCKS, BLOCKS),
)  # fmt: skip
@example(1, 1, 1, 1, 64, torch.float32, 1.0, ((16, 16, 4, 2),) * 3)
@example(2, 64, 1, 2, 64, torch.float32, 1.0, ((16, 64, 4, 2),) * 3)
def interpreted_case(B, T, h_kv, group, d, dtype, logit_scale, blocks):
    """The operator, with blocks of any size, in float32 and float16 (bfloat16 is not known)."""
    from minidiff.fast import pair_kernel

    tables = (pair_kernel.FORWARD, pair_kernel.BACKWARD_QUERIES, pair_kernel.BACKWARD_KEYS)
    for table, block in zip(tables, blocks, strict=True):
        table[d] = (*block, None)
    inputs, grad = random_inputs(B, T, h_kv, group, d, dtype, logit_scale=logit_scale)
    check(outputs_and_gradients(pair_attention, inputs, grad), inputs, grad)


if __name__ == "__main__":
    from minidiff.fast import pair

    torch.manual_seed(0)
    for i, case in enumerate(CASES[:7]):  # with the blocks that a GPU uses
        inputs, grad = random_inputs(*case, (torch.float32, torch.float16)[i % 2])
        results = outputs_and_gradients(pair_attention, inputs, grad)
        check(results, inputs, grad)
    again = outputs_and_gradients(pair_attention, inputs, grad)
    assert all(torch.equal(x, y) for x, y in zip(results, again, strict=True))
    interpreted_case()

    inputs, grad = random_inputs(1, 37, 1, 2, 64, torch.float32)
    inputs = [x.requires_grad_() for x in inputs]
    torch.library.opcheck(pair._forward, inputs)  # fake shapes, gradients and tracing agree
    compiled = torch.compile(pair_attention, fullgraph=True, backend="aot_eager")
    check(outputs_and_gradients(compiled, inputs, grad), inputs, grad)
