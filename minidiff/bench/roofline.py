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

COPY = "bench_decode.json"
PROFILES = {"two steps": "bench_profile.json", "fused pair": "bench_pair_profile.json"}
READ = [COPY, *PROFILES.values()]
MODELS = ("softmax_1.5h", "diff_v2")
SHEETS = {"H100": (989e12, 3.35e12), "H200": (989e12, 4.8e12)}  # dense bf16 FLOP/s, bytes/s
MFU, SPEED = {"25m": 0.35, "350m": 0.5}, 0.95  # targets: FLOPs used, speed against softmax 1.5h

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
    r"|at_cuda_detail|krn_partial|num_of_partial",
    # copies, memsets and scalars, whose names do not say for whom; nobody needs them
    "others": r"elementwise_kernel|Mem(set|cpy)|CatArray|^cu[A-Z]|^cuda[A-Z]",
}  # fmt: skip
NOTES = """
FLOPs and least bytes of a training step by group of kernels, from the model's shape: bench/work.py.
roof_ms: the sum, over operations, of the larger of FLOPs / peak and bytes / bandwidth. ms, calls:
of one profiled step. share: roof_ms / ms. saves_ms: ms - roof_ms, what perfect kernels would save.
step_ms: the median of whole steps, some in a row. no_kernel_ms: step_ms less the kernels of the
profiled step: idle time, or kernels that are slower in steps in a row; the files cannot tell. mfu:
of the whole step; mfu_kernels: without no_kernel_ms; mfu_roof: with every group at its roof.
over_mfu_ms: what a step takes too long for an MFU of 35% (25m) or 50% (350m); over_softmax_ms: for
0.95 of the speed of softmax 1.5h. vs_softmax_1.5h: ratios of tokens/s.
Peak: the data sheet's, dense bf16. Bandwidth: on an H200 that of a copy (bench_decode.json); on an
H100, where none was measured, the same share of the data sheet's.
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


def step(size, name, pair, lines, step_ms, peak, bandwidth):
    """(facts of one training step, a row for each group of its kernels, most to save first).

    Args:
        size: of train.SIZES. name: a variant. pair: DIFF V2 as one operation. lines: its profile.
        step_ms: time of a whole step. peak: FLOP/s. bandwidth: bytes/s.
    """
    config, batch = SIZES[size]
    with torch.device("meta"):
        model = GPT(variant(config, name))
    work, rows = needed(model, batch, pair), []
    for group, (ms, calls) in measured(lines).items():
        roof = sum(part.roof_ms(peak, bandwidth) for part in work[group])
        rows.append({
            "group": group, "calls": calls,
            "gflop": rounded(sum(part.flops for part in work[group]) / 1e9),
            "gb": rounded(sum(part.bytes for part in work[group]) / 1e9),
            "roof_ms": rounded(roof), "ms": rounded(ms),
            "share": rounded(roof / ms, 3), "saves_ms": rounded(ms - roof, 3),
        })  # fmt: skip
    roof, kernels = (sum(row[key] for row in rows) for key in ("roof_ms", "ms"))
    ideal = 1e3 * batch * config.block_size * flops_per_token(model) / peak  # ms at an MFU of 1
    return {
        "step_ms": step_ms, "kernels_ms": rounded(kernels), "roof_ms": rounded(roof),
        "no_kernel_ms": rounded(step_ms - kernels, 3), "mfu": rounded(ideal / step_ms, 3),
        "mfu_kernels": rounded(ideal / kernels, 3), "mfu_roof": rounded(ideal / roof, 3),
        "over_mfu_ms": rounded(step_ms - ideal / MFU[size], 3),
    }, sorted(rows, key=lambda row: -row["saves_ms"])  # fmt: skip


def roofline(results):
    """What roofline.json holds: the profiles in a folder of results, beside what they need."""
    files = {name: read_json(Path(results, name), "see README.md there") for name in READ}
    copies = [row["gb_per_s"] for row in files[COPY]["rows"] if row["what"] == "copy"]
    share = 1e9 * statistics.median(copies) / SHEETS[card(files[COPY])][1]
    roofs = {gpu: (peak, rounded(share * sheet)) for gpu, (peak, sheet) in SHEETS.items()}
    data = {"notes": " ".join(NOTES.split()), "files": READ, "flops_and_bytes_per_s": roofs,
            "groups": GROUPS, "steps": [], "rows": []}  # fmt: skip
    for way, name in PROFILES.items():
        file, gpu = files[name], card(files[name])
        for size, profile in file["profile"].items():
            found = []
            for model in MODELS:
                pair = model == "diff_v2" and way == "fused pair"
                where = {"card": gpu, "size": size, "model": model}
                where |= {"way": way} if model == "diff_v2" else {}
                ms = step_ms(file, size, model)
                facts, rows = step(size, model, pair, profile[model], ms, *roofs[gpu])
                found.append(where | facts)
                data["rows"] += [where | row for row in rows]
            softmax, diff = found
            diff["over_softmax_ms"] = rounded(diff["step_ms"] - softmax["step_ms"] / SPEED, 3)
            for what in ("step", "kernels", "roof"):
                ratio = softmax[f"{what}_ms"] / diff[f"{what}_ms"]
                diff[f"vs_softmax_1.5h_{what}"] = rounded(ratio, 4)
            data["steps"] += found
    return data


def card(file):
    """The GPU that made a results file: "H100"."""
    machine = file["machine"]
    return (machine if isinstance(machine, str) else machine["device"]).split()[1]


def step_ms(file, size, model):
    """The median time of a whole step, measured apart from its profile, in the same process."""
    if "ms" in file:
        return file["ms"][size][model]
    return next(r["ms"] for r in file["rows"] if (r["size"], r["variant"]) == (size, model))


def show(data):
    """Print each step and, below it, the groups of its kernels."""
    for facts in data["steps"]:
        print("\n" + ", ".join(f"{key} {value}" for key, value in facts.items()))
        print(f"{'':31}{'GFLOP':>9}{'GB':>8}{'roof ms':>9}{'ms':>9}{'share':>7}{'saves ms':>10}")
        for row in data["rows"]:
            if all(row.get(key) == facts.get(key) for key in ("card", "size", "model", "way")):
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
