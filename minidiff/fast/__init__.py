"""What makes attention fast, and what a reader may skip: kernels for the tables of attention.py.

Each is a function and a can_run; the order, best first, follows what was measured
(notebooks/results). Open flash.py first: flash-attn 2 and 4. In Triton: pair.py does both heads of
a pair at once, decode.py reads a KV cache. decoder.py writes text with step.py and draw.py.
"""

import torch

from minidiff.attention import CACHED, PAIR, PLAIN, SDPA, SDPA_CACHED, Kernel
from minidiff.fast import decoder, flash, pair
from minidiff.fast.packages import needs
from minidiff.generate import WRITERS


def _any_gpu(sdpa):
    """SDPA with one key head for each query head on GPUs before Ampere (sm80).

    There, enable_gqa leaves SDPA only its 'math' kernel, which stores the maps.
    """

    def run(q, k, v, *more):
        group = q.shape[2] // k.shape[2]
        if group > 1 and q.is_cuda and torch.cuda.get_device_properties(q.device).major < 8:
            k, v = (x.repeat_interleave(group, dim=2) for x in (k, v))
        return sdpa.run(q, k, v, *more)

    return Kernel("sdpa", run)


def _split_decode(q, k_cache, v_cache, n_keys):
    from minidiff.fast.decode import split_decode  # needs triton

    return split_decode(q, k_cache, v_cache, n_keys)


def _one_query(q, k):
    return None if q.shape[1] == 1 else "it is for one query, T=1; use backend='sdpa'"


def _as_many_keys(q, k):
    T, S = q.shape[1], k.shape[1]
    return None if T == S else f"it needs T=S, not T={T}, S={S}; use backend='sdpa'"


# Of flash-attn only the head sizes that agreed with the formula on an H200 (tests/test_gpu.py):
# version 2.8.3 gave NaN at 72 and 96, version 4.0.0b36 a wrong gradient at 72.
_FLASH2 = needs("flash_attn", "flash-attn", (8, 0), (32, 64, 128))
_FLASH4 = needs("flash_attn.cute.interface", "flash-attn-4", (9, 0), (32, 64, 128))
_SPLIT = needs("minidiff.fast.decode", "triton", (8, 0), range(8, 257, 8), _one_query)
_PAIR = needs("minidiff.fast.pair_kernel", "triton", (9, 0), pair.HEAD_SIZES, _as_many_keys)
# "auto" takes the pair where a training step was faster by it than in two steps, by cuDNN and by
# flash-attn 4 (bench_pair.json, bench_pair_flash4.json): not at d = 128.
_PAIR_64 = needs("minidiff.fast.pair_kernel", "triton", (9, 0), (64,), _as_many_keys)
_SDPA, _SDPA_CACHED = _any_gpu(SDPA), _any_gpu(SDPA_CACHED)
_flash2, _flash4 = Kernel("flash2", flash.flash2, _FLASH2), Kernel("flash4", flash.flash4, _FLASH4)
_flash2_cached = Kernel("flash2", flash.flash2_cached, _FLASH2)
_split = Kernel("split", _split_decode, _SPLIT)
_pair = Kernel("pair", pair.pair_attention, _PAIR)

PLAIN |= {
    "auto": [_flash4, _SDPA],  # SDPA's own flash kernels need no package
    "sdpa": [_SDPA],
    "flash": [_flash4, _flash2],
    "flash2": [_flash2],
    "flash4": [_flash4],
}
CACHED |= {
    "auto": [_split, _flash2_cached, _SDPA_CACHED],
    "sdpa": [_SDPA_CACHED],
    "flash": [_flash2_cached, _SDPA_CACHED],  # flash-attn 4 has no kernel for caches
    "flash2": [_flash2_cached, _SDPA_CACHED],
    "flash4": [_flash2_cached, _SDPA_CACHED],
}
PAIR |= {backend: [None] for backend in PLAIN}
PAIR |= {"auto": [_pair._replace(can_run=_PAIR_64), None], "pair": [_pair]}
PLAIN["pair"], CACHED["pair"] = PLAIN["auto"], CACHED["auto"]  # where there is no pair

WRITERS.append(decoder.write)


def available_backends(device=None):
    """Each backend's name -> "ready: ..." or "cannot run: ..." with the reason and the fix."""
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    example = torch.empty(1, 1, 1, 64, device=device, dtype=dtype)
    kernels = {
        "naive": (PLAIN["naive"][0], "the formula; any device and dtype, memory grows with T * S"),
        "sdpa": (_SDPA, f"PyTorch {torch.__version__}"),
        "flash4": (_flash4, "flash-attn 4 (flash_attn.cute)"),
        "flash2": (_flash2, "flash-attn 2 (flash_attn)"),
        "pair": (_pair, "both heads of a pair of DIFF V2 at once (Triton)"),
    }
    report = {}
    for name, (kernel, what) in kernels.items():
        reason = kernel.can_run(example, example, example)
        report[name] = f"cannot run: {reason}" if reason else f"ready: {what}"
    report["flash"] = report["flash4" if report["flash4"].startswith("ready") else "flash2"]
    return report
