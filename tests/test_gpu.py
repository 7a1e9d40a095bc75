"""On a CUDA GPU: every backend against naive float64, compilation, memory.

Elsewhere all of it is skipped (conftest.py). Most of its time goes into flash-attn 4: it compiles
a kernel for every dtype, head size and group size, and so gets fewer cases than the others.
"""

import math

import pytest
import torch

from minidiff import attention, available_backends, diff_attention, differential
from minidiff.bench.ops import _operation
from minidiff.bench.tools import peak_gb

pytestmark = pytest.mark.gpu

FAST = ("sdpa", "flash2", "flash4")
BF16, FP16 = torch.bfloat16, torch.float16
# Allowed over three times the rounding error of naive in that dtype. Fast kernels also round the
# maps, their gradients and the parts of sums over a group: one step of bfloat16. Small entries of a
# float16 map are subnormal and lose another bit: two steps. A wrong mask gives errors over 0.1.
FLOOR = {BF16: 2**-7, FP16: 2**-9}

CASES = [  # h, h_kv, d, T, S (the queries are the last T of S positions), dtype
    (4, 1, 64, 4096, 4096, BF16),
    (4, 2, 128, 17, 17, FP16),
    (4, 4, 32, 1000, 1000, BF16),
    (8, 1, 128, 128, 128, BF16),
    (8, 2, 64, 17, 17, BF16),
    (8, 4, 32, 4096, 4096, FP16),
    (8, 8, 64, 1, 1, FP16),
    (12, 1, 32, 17, 300, BF16),
    (12, 2, 64, 128, 1000, FP16),
    (12, 3, 128, 1000, 1000, BF16),
    (12, 4, 64, 1, 777, BF16),
    (12, 6, 128, 1000, 1000, FP16),
    (12, 12, 32, 128, 128, BF16),
    (16, 1, 64, 1000, 1128, BF16),
    (16, 2, 128, 1, 1000, FP16),
    (16, 4, 64, 1000, 1000, FP16),
    (16, 8, 32, 128, 129, FP16),
    (16, 16, 128, 128, 128, BF16),
]
FLASH4_CASES = [CASES[i] for i in (0, 4, 9, 12, 15)]
ALL_CASES = [(name, *case) for name in ("sdpa", "flash2") for case in CASES]
ALL_CASES += [("flash4", *case) for case in FLASH4_CASES]


def need(backend):
    """Skip, with the reason, where the backend cannot run."""
    report = available_backends()[backend]
    if not report.startswith("ready"):
        pytest.skip(report)


def relative_error(got, expected):
    """|got - expected| / |expected|, where a value that should be zero may be off by 1e-2."""
    zero = 1e-2 * math.sqrt(expected.numel())
    return ((got.double() - expected).norm() / expected.norm().clamp(min=zero)).item()


def outputs_and_gradients(inputs, grad, backend):
    """The output of diff_attention, and the gradients of q, k, v and lambda's logit."""
    inputs = [x.detach().requires_grad_() for x in inputs]
    out = diff_attention(*inputs, backend=backend)
    return out, *torch.autograd.grad(out, inputs, grad)


def random_inputs(h, h_kv, d, T, S, dtype, B=2):
    """q (B, T, 2h, d), k and v (B, S, h_kv, d), the logit (B, T, h), and an output's gradient."""
    sizes = ((T, 2 * h, d), (S, h_kv, d), (S, h_kv, d), (T, h), (T, h, d))
    *inputs, grad = (torch.randn(B, *size, device="cuda", dtype=dtype) for size in sizes)
    return inputs, grad


# ---- Parity ------------------------------------------------------------------------------------


def check_parity(backend, h, h_kv, d, T, S, dtype):
    """Outputs and gradients, within three times the error of naive in that dtype, and FLOOR."""
    inputs, grad = random_inputs(h, h_kv, d, T, S, dtype, B=1 if T > 1000 else 2)
    got = outputs_and_gradients(inputs, grad, backend)
    exact = outputs_and_gradients([x.double() for x in inputs], grad.double(), "naive")
    rounded = outputs_and_gradients(inputs, grad, "naive")
    for name, x, low, reference in zip(
        ("out", "dq", "dk", "dv", "dlambda"), got, rounded, exact, strict=True
    ):
        assert x.dtype == dtype and x.shape == reference.shape
        limit = 3 * relative_error(low, reference) + FLOOR[dtype]
        assert relative_error(x, reference) < limit, name


@pytest.mark.parametrize(("backend", "h", "h_kv", "d", "T", "S", "dtype"), ALL_CASES, ids=str)
def test_backend_agrees_with_naive_float64(backend, h, h_kv, d, T, S, dtype):
    need(backend)
    try:
        check_parity(backend, h, h_kv, d, T, S, dtype)
    except RuntimeError as error:
        if backend == "flash2" and dtype == FP16 and "bfloat16 only" in str(error):
            pytest.skip(str(error).splitlines()[0])
        raise


@pytest.mark.parametrize("d", [48, 72, 96, 136])
@pytest.mark.parametrize("backend", FAST)
def test_other_head_sizes_are_right_or_refused(backend, d):
    """flash-attn 2 gave NaN at 72 and 96, flash-attn 4 a wrong gradient at 72."""
    need(backend)
    try:
        check_parity(backend, 12, 2, d, 301, 301, BF16)
    except RuntimeError as error:
        assert backend != "sdpa" and "head size" in str(error)


@pytest.mark.parametrize("d", [72, 96, 128])
@pytest.mark.parametrize("backend", ["auto", "sdpa"])
@pytest.mark.parametrize(("T", "n_keys"), [(1, 777), (1, 1), (5, 300), (1, 1024)])
def test_attention_over_a_cache_agrees_and_ignores_what_is_not_filled(backend, T, n_keys, d):
    (q, k, v, _), _ = random_inputs(8, 2, d, T, 1024, BF16)
    k[:, n_keys:] = v[:, n_keys:] = 1e4
    length = torch.tensor([n_keys], dtype=torch.int32, device="cuda")
    got = attention(q, k, v, n_keys=length, backend=backend)
    logit = torch.full((2, T, 16), -torch.inf, dtype=torch.float64, device="cuda")  # lambda = 0:
    both = q.double().repeat_interleave(2, dim=2)  # attention itself, of the heads 2i
    exact = diff_attention(
        both, k[:, :n_keys].double(), v[:, :n_keys].double(), logit, backend="naive"
    )
    assert relative_error(got, exact) < 2 * FLOOR[BF16]


# ---- torch.compile -----------------------------------------------------------------------------


@pytest.mark.parametrize("backend", FAST)
def test_backend_compiles_without_a_graph_break(backend):
    need(backend)
    inputs, grad = random_inputs(8, 2, 64, 128, 128, BF16)
    inputs = [x.requires_grad_() for x in inputs]
    compiled = torch.compile(diff_attention, fullgraph=True, backend="aot_eager")
    results = []
    for function in (compiled, diff_attention):
        out = function(*inputs, backend=backend)
        results.append((out, *torch.autograd.grad(out, inputs, grad)))
    for ours, eager in zip(*results, strict=True):  # the backward may add in another order
        assert relative_error(ours, eager.double()) < FLOOR[BF16]


def kernels(call):
    """Names of the kernels that the call runs on the GPU, once it is warm."""
    call()
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
        call()
        torch.cuda.synchronize()
    gpu = torch.autograd.DeviceType.CUDA
    return [event.name for event in profiler.events() if event.device_type == gpu]


def test_differential_step_compiles_into_one_kernel():
    attn = torch.randn(2, 512, 16, 64, device="cuda", dtype=BF16)
    logit = torch.randn(2, 512, 8, device="cuda", dtype=BF16)
    compiled = torch.compile(differential)
    assert len(kernels(lambda: differential(attn, logit))) > 1
    assert len(kernels(lambda: compiled(attn, logit))) == 1
    expected = differential(attn.double(), logit.double())
    assert relative_error(compiled(attn, logit), expected) < FLOOR[BF16]


# ---- Memory ------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["naive", *FAST])
def test_memory_grows_with_t_and_for_naive_with_its_square(backend):
    need(backend)
    device, peaks = torch.device("cuda"), []
    for T in (2048, 8192):
        call = _operation(device, 1, T, (4, 1, 64), backend, step=differential)
        call()  # libraries allocate their workspace
        peaks.append(peak_gb(call))
    power = math.log(peaks[1] / peaks[0], 4)
    low, high = (1.8, 2.1) if backend == "naive" else (0.9, 1.1)
    assert low < power < high
