"""A roofline of the training step: what each group of kernels needs, and how long it took.

    python -m minidiff.bench.roofline

reads the stored profiles (of ``bench train --profile``), prints a table, and writes roofline.json.
Which work a group needs is in work.py. Its roof: the sum, over its operations, of the larger of
FLOPs / peak and bytes / bandwidth.
"""

import argparse
import re
import shlex
import statistics
import sys
from json import dumps
from pathlib import Path

import torch

from minidiff.bench.tools import rounded
from minidiff.bench.train import SIZES, flops_per_token
from minidiff.bench.work import needed
from minidiff.files import read_json, replace_text
from minidiff.model import GPT
from minidiff.variants import variant

STEPS, COPY = "bench_pair.json", "bench_decode.json"  # the speed of a copy is in the second
PEAK = 989e12  # FLOP/s of an H100 or H200, dense bf16, by the data sheet
WAYS = {  # to train: the name of its model among the variants
    "softmax 1.5h": "softmax_1.5h", "softmax, pair's code": "softmax_1.5h",
    "fused pair": "diff_v2", "two steps": "diff_v2",
}  # fmt: skip
# targets: FLOPs used, and speed against softmax 1.5h
MFU, SPEED = {"25m": 0.35, "350m": 0.5}, {"25m": 0.95, "350m": 0.95, "1b_layers": 0.9}

# Which kernels compute what, by their names. cuBLAS names the layout of its operands: y = x W^T is
# a TN, dx = dy W an NN, dW = dy^T x an NT product. One name serves matrices of many shapes: q, k,
# v, lambda, o and the MLP cannot be told apart.
GROUPS = {
    "matmuls, forward": r"^nvjet_.*_TN[NT]$",
    "matmuls, input gradient": r"^nvjet_.*_NN[NT]$",
    "matmuls, weight gradient": r"^nvjet_.*_NT[NT]$|splitKreduce_kernel<.*false, float",
    "logits": r"cutlass::Kernel2|splitKreduce_kernel<.*false, __nv_bf",
    "attention, forward": r"_sdpa_.*_fprop_|^_forward$",
    "attention, backward": r"_sdpa_.*_bprop_|cudnn::fusion|^_backward_(queries|keys)$",
    "subtraction": r"^triton_.*sigmoid",  # also its backward, and that of lambda
    "norms and residual, forward": r"^triton_(?!.*rms_norm_backward).*(rms_norm|_view_add_\d+$)",
    # with the sum of the gradients of what a norm feeds, and of the gains over the tokens
    "norms and residual, backward": r"^triton_.*rms_norm_backward|_to_copy_view_\d+$"
    r"|reduce_kernel<128, 4",
    "rotary": r"^triton_(?!.*sigmoid).*_stack_",
    "SwiGLU": r"^triton_.*silu",
    "casts of weights": r"^triton_poi_fused__to_copy(_t)?_\d+$",  # to bf16; their gradients back
    "clipping and AdamW": r"multi_tensor_apply|NormTwoOps|lpnorm",
    "cross entropy": r"nll_loss|softmax_warp",
    "embedding, last norm": r"layer_norm|GammaBeta|vectorized_gather|compute_grad_weight"
    r"|sum_and_scatter|at_cuda_detail|krn_partial|num_of_partial",
    # copies, memsets and scalars, whose names do not say for whom, and the profiler; nobody needs
    # them
    "others": r"elementwise_kernel|Mem(set|cpy)|CatArray|^cu[A-Z]|^cuda[A-Z]|^Command Buffer",
}  # fmt: skip
NOTES = """
FLOPs and least bytes of a training step by group of kernels, from the model's shape: bench/work.py.
roof_ms: the sum, over operations, of the larger of FLOPs / peak and bytes / bandwidth. ms, calls:
of one step, the mean of four profiled in a row after two seconds of such steps, so at the clock of
a training run. share: roof_ms / ms. saves_ms: ms - roof_ms, what perfect kernels would save.
step_ms: the median of whole steps, four in a row, the variants taking turns. no_kernel_ms: step_ms
less the kernels: gaps between them, and what differs between the two measurements. mfu: of the
whole step; mfu_kernels: without no_kernel_ms; mfu_roof: with every group at its roof. over_mfu_ms:
what a step takes too long for an MFU of 35% (25m) or 50% (350m); over_softmax_ms: for 0.95 of the
speed of softmax 1.5h (1b_layers: 0.90). vs_softmax_1.5h: ratios of tokens/s. Peak: the data
sheet's, dense bf16. Bandwidth: that of a copy, by bench_decode.json. fused pair: the row that auto
gives at d = 64, and the row "pair" at d = 128. softmax, pair's code: the row "one_by_one".
"""


def group_of(kernel):
    """The one group that a kernel's name belongs to."""
    found = [group for group, pattern in GROUPS.items() if re.search(pattern, kernel)]
    if len(found) != 1:
        raise ValueError(f"kernel {kernel!r} is of {found or 'no group'}: mend roofline.GROUPS")
    return found[0]


def measured(lines):
    """Group -> (ms, calls), of the lines "ms share calls kernel" of a profile."""
    found = {}
    for line in lines:
        ms, _, _, calls, kernel = line.split(None, 4)  # "2.441 ms 6.6% 8x name"
        before = found.get(group := group_of(kernel), (0.0, 0))
        found[group] = (before[0] + float(ms), before[1] + int(calls[:-1]))
    return found


def ways(file, size):
    """The way to train -> its row in bench_pair.json."""
    rows = {row["variant"]: row for row in file["rows"] if row["size"] == size}
    fused = rows["diff_v2"] if rows["diff_v2"]["backend"] == "pair" else rows["pair"]
    found = rows["softmax_1.5h"], rows["one_by_one"], fused, rows["two_steps"]
    return dict(zip(WAYS, found, strict=True))


def step(size, way, lines, step_ms, bandwidth):
    """(facts of one training step, a row for each group of its kernels, most to save first).

    Args:
        size: of train.SIZES. way: of WAYS. lines: its profile. step_ms: time of a whole step.
        bandwidth: bytes/s.
    """
    config, batch = SIZES[size]
    with torch.device("meta"):
        model = GPT(variant(config, WAYS[way]))
    work, rows = needed(model, batch, pair=way == "fused pair"), []
    for group, (ms, calls) in measured(lines).items():
        roof = sum(part.roof_ms(PEAK, bandwidth) for part in work[group])
        rows.append({
            "group": group, "calls": calls,
            "gflop": rounded(sum(part.flops for part in work[group]) / 1e9),
            "gb": rounded(sum(part.bytes for part in work[group]) / 1e9),
            "roof_ms": rounded(roof), "ms": rounded(ms),
            "share": rounded(roof / ms, 3), "saves_ms": rounded(ms - roof, 3),
        })  # fmt: skip
    roof, kernels = (sum(row[key] for row in rows) for key in ("roof_ms", "ms"))
    ideal = 1e3 * batch * config.block_size * flops_per_token(model) / PEAK  # ms at an MFU of 1
    facts = {
        "step_ms": step_ms, "kernels_ms": rounded(kernels), "roof_ms": rounded(roof),
        "no_kernel_ms": rounded(step_ms - kernels, 3), "mfu": rounded(ideal / step_ms, 3),
        "mfu_kernels": rounded(ideal / kernels, 3), "mfu_roof": rounded(ideal / roof, 3),
    }  # fmt: skip
    if size in MFU:
        facts["over_mfu_ms"] = rounded(step_ms - ideal / MFU[size], 3)
    return facts, sorted(rows, key=lambda row: -row["saves_ms"])


def roofline(results):
    """What roofline.json holds: the profiles in a folder of results, beside what they need."""
    read = [STEPS, COPY]
    steps, decode = (read_json(Path(results, name), "see README.md there") for name in read)
    gpu = card(steps)
    if card(decode) != gpu:
        raise ValueError(f"{STEPS} is of an {gpu}, {COPY} of an {card(decode)}: measure on one")
    copies = [row["gb_per_s"] for row in decode["rows"] if row["what"] == "copy"]
    bandwidth = 1e9 * statistics.median(copies)
    data = {"notes": " ".join(NOTES.split()), "files": read, "card": gpu,
            "flops_and_bytes_per_s": [PEAK, bandwidth], "groups": GROUPS, "steps": [],
            "rows": []}  # fmt: skip
    try:
        found = [(size, way, profile[row["variant"]], row["ms"])
                 for size, profile in steps["profile"].items()
                 for way, row in ways(steps, size).items()]  # fmt: skip
    except KeyError as lacking:
        fix = "measure it by bench train --profile, as measure.sh pair_bench does"
        raise ValueError(f"{STEPS}: no {lacking} in it: {fix}") from None
    softmax = None  # the first way of each size
    for size, way, lines, ms in found:
        where = {"size": size, "way": way}
        facts, rows = step(size, way, lines, ms, bandwidth)
        softmax = facts if way == "softmax 1.5h" else softmax
        if WAYS[way] == "diff_v2":
            longest = softmax["step_ms"] / SPEED[size]
            facts["over_softmax_ms"] = rounded(facts["step_ms"] - longest, 3)
        for what in ("step", "kernels", "roof"):
            ratio = softmax[f"{what}_ms"] / facts[f"{what}_ms"]
            facts[f"vs_softmax_1.5h_{what}"] = rounded(ratio, 4)
        data["steps"].append(where | facts)
        data["rows"] += [where | row for row in rows]
    return data


def card(file):
    """The GPU that made a results file: "H100"."""
    machine = file["machine"]
    return (machine if isinstance(machine, str) else machine["device"]).split()[1]


def show(data):
    """Print each step and, below it, the groups of its kernels."""
    for facts in data["steps"]:
        print("\n" + ", ".join(f"{key} {value}" for key, value in facts.items()))
        print(f"{'':31}{'GFLOP':>9}{'GB':>8}{'roof ms':>9}{'ms':>9}{'share':>7}{'saves ms':>10}")
        for row in data["rows"]:
            if (row["size"], row["way"]) == (facts["size"], facts["way"]):
                print(f"{row['group']:31}{row['gflop']:9.0f}{row['gb']:8.2f}{row['roof_ms']:9.2f}"
                      f"{row['ms']:9.2f}{row['share']:7.2f}{row['saves_ms']:10.2f}")  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--results", type=Path, default=Path("notebooks/results"))
    parser.add_argument("--out", type=Path, help="default: roofline.json in that folder")
    args = parser.parse_args()
    try:
        found = {"command": shlex.join(["python", *sys.orig_argv[1:]])} | roofline(args.results)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    show(found)
    replace_text(args.out or args.results / "roofline.json", dumps(found, indent=1) + "\n")
