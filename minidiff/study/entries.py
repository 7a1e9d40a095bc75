"""The claims: what was published, and what a reader asks besides. One entry each.

The primary checks were named on 2026-11-25, before the second round of runs and with the first one
known; Q13 was added a day later, when its first runs were known. A claim that says two things has
two entries. A new results file changes numbers and adds rows, and no line of this file.
"""

import math

from minidiff import theory
from minidiff.study.checks import (
    Bench,
    Count,
    Cpu,
    Pairs,
    Repeats,
    Runs,
    Theorem,
)
from minidiff.study.claims import Claim
from minidiff.study.computed import (
    outside_the_bounds,
    rounding_of_heads,
    start_without_lambda,
    two_one_hot_maps,
    v1_exponents,
    without_lambda,
)
from minidiff.study.findings import ABOVE, BELOW, SHOWN

MAIN = "evidence_25m*@1000"  # 25M, 1000 steps; of several texts the one with most runs is first
SHORT = "evidence_25m*@300"  # at large rates
LONG = "evidence_25m_long*"
ENGLISH = "evidence_25m_prose*"
EQUAL_TIME = "evidence_*equal_time*"  # softmax for as many more steps as DIFF V2's time allows
TIMED = {"flash4_time": "flash-attn 4", "cudnn_time": "cuDNN for both"}  # the same, other kernels
BLOG = "Microsoft 2026, blog"
ABLATIONS = "08_ablations_v1_cures"  # the notebook


def timed_against(finding):
    """Of a difference in equal time: the kernels, or with those of EQUAL_TIME the other model."""
    other = finding.what.rpartition(" ")[2]
    return next((words for file, words in TIMED.items() if file in finding.made), other)


def everywhere(metric, claimed=BELOW, one="diff_v2", other="softmax_1.5h"):
    """The same difference in every study and at every rate; spikes are counts: their signs."""
    return Pairs(metric, claimed, one, other, test="sign" if metric == "n_spikes" else "t")


def both_models(metric, files=MAIN):
    """What each of the pair has, at each rate: shown beside the differences."""
    return tuple(Runs(metric, SHOWN, 0.0, name, files) for name in ("diff_v2", "softmax_1.5h"))


def ablation(number, says, one, metric="val_loss"):
    """Loss, or spikes, against DIFF V2, both at the rate that is best for DIFF V2."""
    test = "sign" if metric == "n_spikes" else "t"
    return Claim(
        number, says, BLOG, Pairs(metric, ABOVE, one, "diff_v2", MAIN, "best", test),
        (everywhere(metric, ABOVE, one, "diff_v2"),), ABLATIONS, "measure.sh lr best",
    )  # fmt: skip


def cure(number, says, one):
    """Another cure for sinks, against softmax."""
    return Claim(
        number, says, "this project",
        Pairs("first_share_eff_max", BELOW, one, rate="best", files=MAIN),
        (everywhere("first_share_eff_max", BELOW, one), everywhere("val_loss", SHOWN, one)),
        notebook="04_attention_sinks", command="measure.sh lr best",
    )  # fmt: skip


def inside(number, where, one, other, notebook, *more):
    """Loss of DIFF V2 and of softmax, both in an architecture of another kind."""
    part = one.partition("_")[0]
    return Claim(
        number, f"works with {where}: lower loss than softmax in it", BLOG,
        Pairs("val_loss", BELOW, one, other, MAIN, "own"), more, notebook,
        f"measure.sh {part}",
    )  # fmt: skip


STARTS = ("diff_v2_doubled", "diff_late_lambda", "diff_no_decay")
SAVED = {h_kv: theory.saved_against_2h_heads(4096, 32, h_kv, 128) for h_kv in (32, 8, 1)}


def decoding(what, words, **more):
    """Time of a token against softmax with h heads: at most 5% more is as fast."""
    return Bench(
        "bench_decode", "time of a token over that of softmax_h, at most 1.05", "vs_softmax_h",
        BELOW, 1.05, {"what": what, "variant": "diff_v2", "kernel": None} | more,
        ("batch", "context"),
        words + ", {batch} x {context}",
    )  # fmt: skip


CLAIMS = (
    Claim(
        "1", "context RMS in [1/sqrt n, 1) for softmax and in (0, sqrt 2) for DIFF V2", BLOG,
        Theorem("share of random rows outside, uncorrelated values of one size", "theory.py",
                outside_the_bounds, BELOW, 0.0, 1, per_cent=True),
        (Runs("rms_high_max", BELOW, math.sqrt(2), files=MAIN),
         Runs("rms_high_max", BELOW, 1.0, "softmax_1.5h", MAIN)),
        notebook="02_context_rms", command="python -m minidiff claims",
    ),
    Claim(
        "2a", "makes attention sinks smaller: the worst head gives BOS less", BLOG,
        Pairs("first_share_eff_max", rate="best", files=MAIN),
        (everywhere("first_share_eff_max"), everywhere("sink_rate_eff_mean"),
         everywhere("first_share_eff_mean"),  # the worst is of fewer heads in DIFF V2: the mean
         *both_models("first_share_eff_max"), Count("first_share_eff_max")),
        notebook="04_attention_sinks", question="Smaller attention sinks?",
    ),
    Claim(
        "2b", "eliminates attention sinks: no head gives BOS over 0.03, ten times an even share",
        BLOG,
        Runs("first_share_eff_max", BELOW, 0.03, files=MAIN, rate="best"),
        (Runs("first_share_eff_max", BELOW, 0.03, files=MAIN),
         Runs("first_share_eff_max", BELOW, 0.03, files=LONG), *both_models("sink_rate_eff_mean")),
        notebook="04_attention_sinks",
        question="No head gives BOS over 0.03, ten times an even share?",
    ),
    Claim(
        "Q1", "the sinks are avoided and not only cancelled: A1 alone gives BOS less than softmax",
        "this project", Pairs("first_share_a1_max", rate="best", files=MAIN),
        (everywhere("first_share_a1_max"), *both_models("first_share_a1_max"),
         Runs("first_share_a2_max", SHOWN, 0.0, files=MAIN)),
        notebook="04_attention_sinks",
    ),
    Claim(
        "3, 12", "lower loss than softmax with as many parameters (1.5h heads) and steps", BLOG,
        Pairs("val_loss", rate="own", files=MAIN), (everywhere("val_loss"),),
        question="Lower loss, with parameters and steps fixed?",
    ),
    Claim(
        "Q13", "lower loss than softmax on another text, English", "this project",
        Pairs("val_loss", rate="own", files=ENGLISH), (Pairs("val_loss", files=ENGLISH),),
        command="measure.sh prose", question="Lower loss on another text, English?",
    ),
    Claim(
        "Q2", "lower loss in the same GPU time", "this project",
        Pairs("val_loss", files=MAIN, equal_time=EQUAL_TIME),
        (*(Pairs("val_loss", files=MAIN, equal_time=f"evidence_*{name}*") for name in TIMED),
         Pairs("val_loss", other="softmax_h", files=MAIN, equal_time=EQUAL_TIME)),
        command="measure.sh lr more_seeds equal_time more_steps",
        question="Lower loss, with GPU time fixed?",
    ),
    Claim(
        "Q3", "the gain in loss lasts: the longest runs at 25M", "this project",
        Pairs("val_loss", rate="own", files=LONG),
        (Pairs("val_loss", files="evidence_pair*"), Pairs("val_loss", files="evidence_5m*")),
        command="measure.sh long", question="A lasting gain, in the longest runs at 25M?",
    ),
    Claim(
        "Q4", "lower loss at the largest rate of the runs of 1000 steps", "this project",
        Pairs("val_loss", rate="largest", files=MAIN), (Pairs("val_loss", files=SHORT),),
        command="measure.sh lr more_lr",
    ),
    Claim(
        "4", "fewer gradient spikes at large learning rates", BLOG,
        Pairs("n_spikes", rate="large", test="sign", files=MAIN),
        (Pairs("n_spikes", rate="large", test="sign"), everywhere("n_spikes", SHOWN),
         Count("n_spikes"), *both_models("n_spikes")),
        command="measure.sh main lr more_lr", question="Fewer gradient spikes at large rates?",
    ),
    Claim(
        "5a", "smaller activation outliers", BLOG,
        Pairs("out_top1_max", rate="best", files=MAIN),
        (everywhere("out_top1_max"), everywhere("out_ratio_max"), Count("out_top1_max"),
         Count("out_ratio_max")),
        question="Smaller largest activations?",
    ),
    Claim(
        "5b", "smaller qk logits at the same sparsity", BLOG,
        Pairs("qk_top1_max", rate="best", files=MAIN),
        (everywhere("qk_top1_max"), everywhere("sparsity_mean", ABOVE), Count("qk_top1_max"),
         Count("sparsity_mean")),
    ),
    Claim(
        "6", "decodes as fast as softmax with h heads (at most 5% more time)", BLOG,
        decoding("step", "whole step"),
        (decoding("attention", "attention alone", kernel="cached"),
         decoding("generate", "generate")),
        notebook="06_fast_paths", command="python -m minidiff bench decode",
        question="Decodes as fast as softmax with h heads?",
    ),
    Claim(
        "7", "training speed almost unaffected: 95% of that of softmax with 1.5h heads", BLOG,
        Bench("bench_pair", "tokens/s over those of softmax_1.5h, at least 0.95",
              "vs_softmax_1.5h", ABOVE, 0.95, {"variant": "diff_v2"}, ("flops_per_token",),
              "{size}"),
        (*(Bench("bench_pair_flash4", f"the same beside flash-attn 4, DIFF V2 {how}",
                 "vs_softmax_1.5h", ABOVE, 0.95, {"variant": way}, ("flops_per_token",), "{size}")
           for way, how in (("pair", "by the fused pair"), ("two_steps", "in two steps"))),
         Bench("bench_pair", "the fused pair against softmax_1.5h by the same code",
               "vs_one_by_one", ABOVE, 0.95, {"variant": "pair"}, ("flops_per_token",),
               "{size}")),
        notebook="06_fast_paths", command="measure.sh pair_bench",
        question="Trains as fast as softmax with 1.5h heads?",
    ),
    Claim(
        "8", "saves about 25% (at least 23%) of the attention parameters of 2h heads", BLOG,
        Theorem("saved at D = 4096, h = 32, h_kv = 8", "theory.py", lambda: SAVED[8], ABOVE, 0.23,
                2, True),
        (Theorem("the same with h_kv = 32", "theory.py", lambda: SAVED[32], ABOVE, 0.23, 2, True),
         Theorem("the same with h_kv = 1", "theory.py", lambda: SAVED[1], ABOVE, 0.23, 2, True)),
        notebook="01_differential_attention", command="python -m minidiff claims",
    ),
    ablation("9a", "ablation 1, pairing across groups: higher loss", "diff_halves"),
    ablation("9b", "ablation 1: less stable, more gradient spikes", "diff_halves", "n_spikes"),
    Claim(
        "10a", "ablation 2, no lambda: tiny context RMS at the start", BLOG,
        Theorem("RMS of uniform maps over that of softmax", "theory.py", without_lambda, BELOW,
                0.1),
        (Cpu("context RMS of untrained models: diff_no_lambda minus diff_v2", "two layers, on text",
             start_without_lambda, BELOW, "seeds"),),
        notebook=ABLATIONS, command="python -m minidiff claims --measure",
    ),
    ablation("10b", "ablation 2, no lambda: higher loss", "diff_no_lambda"),
    Claim(
        "11a", "ablation 3, no sigmoid: context RMS without a bound", BLOG,
        Theorem("RMS of disjoint one-hot maps, lambda = 8", "theory.py", two_one_hot_maps, ABOVE,
                math.sqrt(2), 2),
        (everywhere("rms_high_max", ABOVE, "diff_no_sigmoid", "diff_v2"),),
        notebook=ABLATIONS, command="python -m minidiff claims",
    ),
    ablation("11b", "ablation 3, no sigmoid: higher loss", "diff_no_sigmoid"),
    ablation("11c", "ablation 3: less stable, more gradient spikes", "diff_no_sigmoid", "n_spikes"),
    Claim(
        "13a", "V1's per-head norm magnifies the gradient of a uniform head, as a power of n", BLOG,
        Cpu("power of n, with the norm over without (by theory 1/2)", "a uniform head, 16 to 8192",
            v1_exponents, ABOVE, "range of 5 steps of n", 2, test="range"),
        notebook=ABLATIONS, command="python -m minidiff claims --measure",
    ),
    Claim(
        "13b", "V1 without its norm has fewer spikes in training", BLOG,
        Pairs("n_spikes", BELOW, "diff_v1_no_norm", "diff_v1", MAIN, "best", "sign"),
        (Runs("n_spikes", SHOWN, 0.0, "diff_v1"), Runs("n_spikes", SHOWN, 0.0, "diff_v1_no_norm")),
        notebook=ABLATIONS, command="measure.sh lr",
    ),
    Claim(
        "14", "a softmax model with 2h heads rarely learns exact negatives (cosine -1)", BLOG,
        Runs("opposed_min", ABOVE, -0.9, "softmax_2h", MAIN),
        (Runs("opposed_min", ABOVE, -0.9, "softmax_2h_start"),
         Runs("opposed_min", ABOVE, -0.9, "softmax_1.5h")),
        notebook=ABLATIONS, command="measure.sh variants best",
    ),
    inside("15", "sparse attention", "sparse_pair", "sparse_softmax", "09_sparse_attention",
           everywhere("val_loss", SHOWN, "sparse_head", "sparse_softmax"),
           everywhere("val_loss", SHOWN, "sparse_pair", "sparse_head")),
    inside("16", "YOCO", "yoco_diff_v2", "yoco_softmax", "10_yoco"),
    inside("Q8", "a mixture of experts", "moe_diff_v2", "moe_softmax", "11_moe",
           everywhere("first_share_eff_max", SHOWN, "moe_diff_v2", "moe_softmax")),
    Claim(
        "17", "cancelling may mitigate the rounding error of attention", BLOG,
        Cpu("relative error of the heads in bfloat16: diff_v2 minus softmax_1.5h", "shipped pair",
            rounding_of_heads, BELOW, "the layers of one pair", 5, test="parts"),
        notebook=ABLATIONS, command="python -m minidiff claims --measure",
    ),
    cure("Q5", "off-by-one softmax makes sinks smaller", "off_by_one"),
    cure("Q6", "a learned sink logit makes sinks smaller", "sink_logit"),
    cure("Q7", "a gate makes sinks smaller", "gated"),
    Claim(
        "Q9", "the gain is not only the small start: lower loss than softmax with W_O doubled",
        "this project", Pairs("val_loss", BELOW, "diff_v2_doubled", rate="best", files=MAIN),
        (everywhere("val_loss", BELOW, other="softmax_1.5h_quiet"),
         everywhere("val_loss", SHOWN, "softmax_1.5h_quiet"),
         everywhere("val_loss", BELOW, "diff_late_lambda"),
         *(everywhere("val_loss", SHOWN, name, "diff_v2") for name in STARTS)),
        notebook=ABLATIONS, command="measure.sh lr start",
    ),
    Claim(
        "Q10", "lower loss than V1 after 2000 steps, each at the one rate with three seeds",
        "this project",
        Pairs("val_loss", other="diff_v1", rate="own", files="evidence_25m_v1*"),
        (Pairs("val_loss", other="diff_v1_no_norm", rate="own", files="evidence_25m_v1*"),
         everywhere("val_loss", SHOWN, "diff_v1_sigmoid", "diff_v1")),
        notebook=ABLATIONS, command="measure.sh v1",
    ),
    Claim(
        "Q11", "recalls a line among 16 better: fewer nats for a digit", "this project",
        Pairs("recall_nats_16", rate="own", files=LONG),
        (everywhere("recall_nats_16"), everywhere("recall_16", ABOVE),
         everywhere("context_gain", SHOWN), everywhere("induction_near_gain", SHOWN),
         everywhere("induction_far_gain", SHOWN)),
        notebook="12_long_context", command="measure.sh long",
    ),
    Claim(
        "Q12", "the same seed again (on another card) gives the same loss, to 0.001 nats a byte",
        "this project", Repeats(MAIN), command="measure.sh lr noise",
    ),
)  # fmt: skip
