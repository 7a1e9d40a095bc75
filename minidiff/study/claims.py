"""The published claims, each with what this project measured: the table in the README.

``python -m minidiff claims`` prints it from the files of notebooks/results. A verdict is "holds"
where every check of its row passes, "partly" where some do, "not shown" where none does. A check is
an interval (see evidence.py) that does not contain 0, or the same sign in all pairs of runs of all
sizes. The verdicts of rows 1, 6, 8, 10, 11 and 13, whose figures are theorems, ratios or few runs,
are judgements; notebook 07 has the checks behind them.
"""

import copy
import dataclasses
import json
import platform
import statistics
from datetime import date
from pathlib import Path

import torch

from minidiff.data import open_data
from minidiff.look.probe import probe, summary
from minidiff.model import ATTENTION, GPT, GPTConfig
from minidiff.runs import load_pretrained, replace_file
from minidiff.study.evidence import RESULTS, Evidence
from minidiff.theory import saved_against_2h_heads
from minidiff.train import PRESETS
from minidiff.variants import variant

# ---- What a CPU can measure --------------------------------------------------------------------


def v1_gradients(lengths=(16, 64, 256, 1024, 4096, 8192), head_dim=64):
    """How much of a gradient reaches the values through a uniform head of n keys (claim 13).

    The norm of the gradient of the values, for a random output gradient: in V1, V1 without its
    RMSNorm, and V2. Divided by the norm of the output gradient: 1 / sqrt(n) and a constant for an
    average over n keys; V1's norm multiplies that by sqrt(n).

    Returns:
        [{"n": n, "diff_v1": norm, "diff_v1_no_norm": norm, "diff_v2": norm}, ...]
    """
    rows = []
    for n in lengths:
        row = {"n": n}
        for name in ("diff_v1", "diff_v1_no_norm", "diff_v2"):
            torch.manual_seed(0)
            config = GPTConfig(name, n_head=4, n_kv_head=2, head_dim=head_dim)
            attn = ATTENTION[name](config)
            heads = attn.query_heads_per_head * config.n_head
            q = torch.zeros(1, 1, heads, head_dim)  # scores 0: uniform maps
            k, v = torch.randn(2, 1, n, config.n_kv_head, head_dim)
            out = attn.mix(q, k, v.requires_grad_(), torch.zeros(1, 1, config.n_embd))
            direction = torch.randn_like(out)
            (gradient,) = torch.autograd.grad(out, v, direction)
            row[name] = (gradient.norm() / direction.norm()).item()
        rows.append(row)
    return rows


@torch.no_grad()
def rounding_errors(model, idx, dtype=torch.bfloat16):
    """Relative rounding error of attention in a low precision, against float64 (claim 17).

    Each layer gets the same input, that of the float32 model, so errors do not add up over depth.

    Returns:
        For each layer {"branches": error of the outputs of all query heads, "heads": error of
        what enters W_O}; for softmax the two are the same. |low - exact| / |exact| over all tokens.
    """
    x, errors = model.embed(idx), []
    rope = model.rope[: idx.shape[1]]
    for block in model.blocks:
        attn, normed = block.attn, block.attn_norm(x)
        q, k, v = attn.qkv(normed, rope)
        low, exact = (
            (layer.attend(*tensors[:3]), layer.mix(*tensors))  # branches, heads
            for precision in (dtype, torch.float64)
            for layer in [copy.deepcopy(attn).to(precision)]
            for tensors in [[t.to(precision) for t in (q, k, v, normed)]]
        )
        branches, heads = (_relative(a, b) for a, b in zip(low, exact, strict=True))
        errors.append({"branches": branches, "heads": heads})
        x = block(x, rope)
    return errors


def _relative(low, exact):
    return ((low.double() - exact).norm() / exact.norm()).item()


def initial_rms(names=("softmax_1.5h", "diff_v2", "diff_no_lambda", "diff_no_sigmoid")):
    """Context RMS of untrained models on text, mean over the heads of two layers (claim 10)."""
    shape, found = dataclasses.replace(PRESETS["gpu"].model, n_layer=2), {}
    idx, _ = next(open_data("stdlib").val.fixed_batches(1, 2, shape.block_size))
    for name in names:
        torch.manual_seed(0)
        found[name] = summary(probe(GPT(variant(shape, name)), idx))["rms_mean"]
    return found


def measure(folder=RESULTS):
    """Run what a CPU can measure, within a minute, and keep it in claims_cpu.json."""
    idx, _ = next(open_data("stdlib").val.fixed_batches(1, 2, 1024))
    pair = {
        name: rounding_errors(load_pretrained(name), idx) for name in ("softmax_1.5h", "diff_v2")
    }
    found = {
        "command": "python -m minidiff claims --measure",
        "torch": torch.__version__,
        "machine": f"{platform.machine()} CPU",
        "date": str(date.today()),
        "v1_gradients": v1_gradients(),
        "rounding": pair,
        "initial_rms": initial_rms(),
    }
    text = json.dumps(found, indent=1) + "\n"
    replace_file(Path(folder) / "claims_cpu.json", lambda path: path.write_text(text))


# ---- The table ---------------------------------------------------------------------------------

COMPARE = "compare"  # the command behind evidence_*.json


def _verdict(checks):
    return "holds" if all(checks) else "partly" if any(checks) else "not shown"


def _signed(values, digits):
    return "{:+.{d}f} [{:+.{d}f}, {:+.{d}f}]".format(*values, d=digits)


def _swept(sweep, digits):
    return ", ".join(f"{_signed(values, digits)} at {lr:g}" for lr, values in sweep.items())


def _clear(sweep, digits):
    """Only the differences whose interval excludes 0."""
    found = {lr: values for lr, values in sweep.items() if values[1] > 0 or values[2] < 0}
    return _swept(found, digits) or "none"


def _of(count):
    return f"{count[0]} of {count[1]}"


def claims(folder=RESULTS):
    """Rows (numbers, claim, verdict, figures, command), numbered as in the notebooks."""
    e = Evidence(folder)
    loss, spikes, sink = (e.sweep(m) for m in ("val_loss", "n_spikes", "first_share_eff_max"))
    size = [e.sweep(m) for m in ("qk_top1_max", "out_top1_max", "out_ratio_max")]
    short_loss, short_spikes = (e.sweep(m, short=True) for m in ("val_loss", "n_spikes"))
    best = {name: e.best_rate(name) for name in ("softmax_1.5h", "diff_v2")}
    large = {lr: values for lr, values in spikes.items() if lr > best["softmax_1.5h"]}
    everything = [row for rows in e.all_rows for row in rows]
    halves = [
        values
        for metric in ("val_loss", "n_spikes")
        for values in (
            e.pair(metric, "diff_halves", "diff_v2"),
            *e.sweep(metric, "diff_halves", "diff_v2", short=True).values(),
        )
    ]
    smaller = [e.smaller(metric) for metric in ("qk_top1_max", "out_top1_max", "out_ratio_max")]
    ratios = {r["size"]: r["vs_softmax_1.5h"] for r in e.train["rows"] if r["variant"] == "diff_v2"}
    decode = {"attention": [], "step": [], "generate": []}
    for row in e.decode["rows"]:
        if row.get("variant") == "diff_v2" and row.get("kernel", "cached") == "cached":
            decode[row["what"]].append(row["vs_softmax_h"])
    alone, step, (generate,) = decode.values()
    gains = [(r["n"], r["diff_v1"] / r["diff_v1_no_norm"]) for r in e.cpu["v1_gradients"]]
    rounding = {k: statistics.fmean(r["heads"] for r in v) for k, v in e.cpu["rounding"].items()}
    rms = e.cpu["initial_rms"]
    saved = [saved_against_2h_heads(4096, 32, h_kv, 128) for h_kv in (32, 8)]
    opposed, opposed_short = (
        [(r["variant"], r["opposed_min"]) for r in rows if "opposed_min" in r]
        for rows in (e.full, e.short)
    )

    def ablation(name):
        """Loss and spikes of a variant minus DIFF V2's."""
        losses, spiked = (e.pair(metric, name, "diff_v2") for metric in ("val_loss", "n_spikes"))
        return f"loss {_signed(losses, 3)} nats, spikes {_signed(spiked, 1)}"

    def ablation_short(name):
        """The same in short runs at larger rates, where an interval excludes 0."""
        losses, spiked = (
            _clear(e.sweep(metric, name, "diff_v2", short=True), digits)
            for metric, digits in (("val_loss", 3), ("n_spikes", 1))
        )
        return f"in short runs, where an interval excludes 0: loss {losses}, spikes {spiked}"

    def high(name, runs=e.main):
        return max(r["rms_high_max"] for r in runs if r["variant"] == name)

    def both(metric, form, lr):
        return " to ".join(form.format(e.mean(n, metric, lr)) for n in ("softmax_1.5h", "diff_v2"))

    def sink_rate(lr):
        change = _signed([100 * x for x in e.pair("sink_rate_eff_mean", lr=lr)], 1)
        return f"{both('sink_rate_eff_mean', '{:.1%}', lr)} at {lr:g}, {change}"

    def nearest(name, runs=opposed):
        return min(cosine for variant, cosine in runs if variant.startswith(name))

    return [
        ("1", "context RMS in [1/sqrt n, 1) for softmax, (0, sqrt 2) for DIFF V2", "partly",
         f"exact for uncorrelated values of one size; trained ones are neither, and tokens reach "
         f"{high('softmax_1.5h', everything):.1f} and {high('diff_v2', everything):.1f}", COMPARE),
        ("2", "eliminates attention sinks",
         "partly" if any(values[2] < 0 for values in sink.values()) else "not shown",
         f"attention on BOS, worst head (of 96, of 64): "
         f"{both('first_share_eff_max', '{:.2f}', 1e-3)} at 0.001, "
         f"{both('first_share_eff_max', '{:.2f}', 3e-3)} at 0.003; {_swept(sink, 2)}; smaller in "
         f"{_of(e.smaller('first_share_eff_max'))} pairs of runs, but a uniform head has 0.003. "
         f"Heads and windows over 0.3: {sink_rate(1e-3)}; {sink_rate(3e-3)}", COMPARE),
        ("3, 12", "lower loss than softmax with as many parameters (1.5h heads)",
         _verdict([values[2] < 0 for values in (*loss.values(), *short_loss.values())]),
         f"{_swept(loss, 3)} nats per byte (softmax learns best at {best['softmax_1.5h']:g}, DIFF "
         f"V2 at {best['diff_v2']:g}); in short runs {_swept(short_loss, 3)}", COMPARE),
        ("4", "fewer gradient spikes at large learning rates",
         _verdict([values[2] < 0 for values in (*large.values(), *short_spikes.values())]),
         f"above the best rate: {_swept(large, 1)}; in short runs {_swept(short_spikes, 1)}; "
         f"{_of(e.diverged)} of these diverged; at 0.001 {_signed(spikes[1e-3], 1)}",
         COMPARE),
        ("5", "smaller activation outliers; smaller qk logits at the same sparsity",
         _verdict([values[2] < 0 for sweep in size for values in sweep.values()]
                  + [a == b for a, b in smaller]),
         f"largest logit {_swept(size[0], 1)}, smaller in {_of(smaller[0])} pairs of runs, but "
         f"less sparse in {_of(e.smaller('sparsity_mean'))}; largest activation "
         f"{_swept(size[1], 0)}, smaller in {_of(smaller[1])}; over the median "
         f"{_swept(size[2], 0)}, smaller in {_of(smaller[2])}", COMPARE),
        ("6", "decodes as fast as softmax with h heads", "partly",
         f"attention alone takes {min(alone):.2f} to {max(alone):.2f} of its time, a whole step "
         f"{min(step):.2f} (the cache dominates) to {max(step):.2f}, generate {generate:.2f}",
         "bench decode"),
        ("7", "training throughput almost unaffected", _verdict([min(ratios.values()) > 0.95]),
         "tokens/s against softmax 1.5h: " + ", ".join(f"{v:.2f} ({k})" for k, v in ratios.items()),
         "bench train"),
        ("8", "saves about 25% of the attention parameters of 2h heads", "partly",
         f"{saved[0]:.2%} with h_kv = h, {saved[1]:.2%} with h_kv = h/4; 25% is the limit for few "
         "key/value heads", "exact"),
        ("9", "ablation 1, pairing across groups: unstable, higher loss",
         _verdict([values[1] > 0 for values in halves]),
         f"{ablation('diff_halves')}; {ablation_short('diff_halves')}", COMPARE),
        ("10", "ablation 2, no lambda: tiny RMS at the start, higher loss, stable", "partly",
         f"RMS at the start, on text, {rms['diff_no_lambda']:.3f} against {rms['diff_v2']:.3f} "
         f"(softmax {rms['softmax_1.5h']:.3f}); {ablation('diff_no_lambda')}", COMPARE + ", CPU"),
        ("11", "ablation 3, no sigmoid: unbounded RMS, higher loss, less stable", "partly",
         f"largest RMS {high('diff_no_sigmoid'):.1f} against {high('diff_v2'):.1f}; but "
         f"{ablation('diff_no_sigmoid')}; {ablation_short('diff_no_sigmoid')}", COMPARE),
        ("13", "removing V1's per-head RMSNorm removes its gradient growth", "partly",
         "gradient of a uniform head, with the norm over without: "
         + ", ".join(f"{gain:.0f} at n = {n}" for n, gain in gains[-4:])
         + "; steps with a spike in training at 0.001, with over without: "
         + _signed(e.pair("n_spikes", "diff_v1", "diff_v1_no_norm", lr=1e-3), 0)
         + ", in a few bursts, and V1's lambda runs off there", COMPARE + ", CPU"),
        ("14", "a softmax model with 2h heads rarely learns exact negatives",
         _verdict([nearest("softmax", [*opposed, *opposed_short]) > -0.9]),
         f"smallest cosine of two heads in {len(opposed)} softmax runs {nearest('softmax'):.2f} "
         f"(exact negatives: -1), with 2h heads {nearest('softmax_2h'):.2f}, even where all pairs "
         f"started at -1, which equal gradients soon undo; in short runs at large rates "
         f"{nearest('softmax', opposed_short):.2f}", COMPARE),
        ("15, 16", "works with sparse attention and with YOCO", "not measured", "", ""),
        ("17", "cancelling may mitigate rounding error",
         _verdict([rounding["diff_v2"] < rounding["softmax_1.5h"]]),
         f"bf16 against float64, shipped pair: {rounding['diff_v2']:.2%} of the heads' output, "
         f"softmax {rounding['softmax_1.5h']:.2%}", "CPU"),
    ]  # fmt: skip


def markdown(rows):
    """The table as Markdown."""
    head = "| # | claim | here | figures | command |\n|---|---|---|---|---|\n"
    return head + "".join("| " + " | ".join(row) + " |\n" for row in rows)


def put_into(readme, rows):
    """Replace what stands between the two marks of a Markdown file by the table."""
    before, mark, rest = readme.read_text().partition("<!-- claims -->\n")
    _, end, after = rest.partition("<!-- end of claims -->\n")
    if not end:
        raise ValueError(f"{readme} has no <!-- claims --> and <!-- end of claims --> to fill")
    text = before + mark + markdown(rows) + end + after
    replace_file(readme, lambda path: path.write_text(text))
