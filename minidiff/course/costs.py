"""Notebook 06: what DIFF V2 costs and where the time goes, from the files of the benches.

The first half reads such files, the second half draws.
"""

import matplotlib.pyplot as plt
import numpy as np

from minidiff.look.plots import DASHED, DOT, colour, styled

WAYS = (  # to train DIFF V2: name, place beside the other, colour
    ("two steps", -0.2, "#f0b48a"),
    ("fused pair", 0.2, colour("diff_v2")),
)
SIZES = {"25m": "25M", "350m": "350M", "1b_layers": "layers of\na 1B model"}
PARTS = {  # of a training step: kind of kernel -> its colour
    "attention": "#0072B2",
    "element by element": "#E69F00",
    "matrix products": "#009E73",
    "other kernels": "#999999",
    "in no kernel": "#e8e8e8",
}
KINDS = {  # group of kernels in roofline.json, by how its name begins -> its part of the step
    "attention": "attention", "matmuls": "matrix products", "logits": "matrix products",
    "subtraction": "element by element", "norms": "element by element",
    "rotary": "element by element", "SwiGLU": "element by element",
    "casts": "other kernels", "clipping": "other kernels", "cross": "other kernels",
    "embedding": "other kernels", "others": "other kernels",
}  # fmt: skip


def card(file):
    """The GPU that made a results file: "H100"."""
    machine = file["machine"]
    return (machine if isinstance(machine, str) else machine["device"]).split()[1]


def extra_time(row, baseline="softmax_1.5h", speed=True):
    """(median, low, high) of the time that a row takes more than the baseline, in percent.

    Args:
        row: of a bench. speed: its ratios are of tokens/s (training), else of times (decoding).
    """
    ratios = [row[f"vs_{baseline}{end}"] for end in ("", "_low", "_high")]
    more = [100 * ((1 / ratio if speed else ratio) - 1) for ratio in ratios]
    return more[0], min(more), max(more)


def profiled_steps(roofline):
    """size -> {way: the ms of a training step by PARTS}, of roofline.json."""
    found = {}
    for step in roofline["steps"]:
        parts = found.setdefault(step["size"], {})[step["way"]] = dict.fromkeys(PARTS, 0.0)
        parts["in no kernel"] = step["no_kernel_ms"]
    for row in roofline["rows"]:
        kind = KINDS[row["group"].replace(",", "").split()[0]]
        found[row["size"]][row["way"]][kind] += row["ms"]
    return found


def training_costs(bench_pair):
    """Size -> {"fused pair": extra_time, "two steps": extra_time}, of a training step."""
    rows = {(row["size"], row["variant"]): row for row in bench_pair["rows"]}
    found = {}
    for size, label in SIZES.items():
        auto = rows[size, "diff_v2"]
        fused = auto if auto["backend"] == "pair" else rows[size, "pair"]
        ways = {"fused pair": fused, "two steps": rows[size, "two_steps"]}
        found[label] = {way: extra_time(row) for way, row in ways.items()}
    return found


def by_setting(bench_decode, what):
    """(sequences, tokens in the cache) -> {variant: row}, of "attention" (our kernel), of "step" by
    the model's modules, or of "fused", the step in six kernels a layer."""
    wanted = {"attention": ("attention", None), "step": ("step", "modules"),
              "fused": ("step", "fused")}[what]  # fmt: skip
    found = {}
    for row in bench_decode["rows"]:
        ours = row["what"] == "step" or row.get("kernel") == "cached"
        if (row["what"], row.get("how")) == wanted and ours and "ms" in row:
            found.setdefault((row["batch"], row["context"]), {})[row["variant"]] = row
    return dict(sorted(found.items()))


def writing_costs(bench_decode):
    """Setting, such as "1 × 2k" -> (extra_time of a whole step, extra_time of attention alone)."""
    steps, alone = (by_setting(bench_decode, what) for what in ("step", "attention"))
    return {
        f"{batch} × {context // 1024}k": tuple(
            extra_time(found[batch, context]["diff_v2"], "softmax_h", speed=False)
            for found in (steps, alone)
        )
        for batch, context in steps
        if "diff_v2" in steps[batch, context]
    }


@styled
def answer(training, writing, titles):
    """The box of notebook 06: extra time of a training step, and of a written token.

    Args:
        training, writing: what training_costs and writing_costs give. titles: of both panels.
    """
    fig, (left, right) = plt.subplots(1, 2, figsize=(14, 6.4))
    for y, ways in enumerate(training.values()):
        for way, shift, tint in WAYS:
            _bar(left, y + shift, ways[way], tint, 0.36, f", {way}")
    for y, (step, alone) in enumerate(writing.values()):
        _bar(right, y, step, colour("diff_v2"), 0.7)
        look = {"color": "black", "linestyle": "", "markersize": 10, **DOT}
        right.plot(alone[0], y, label=None if y else "attention alone", **look)
    left.set_xlabel("extra time of a step (%), softmax 1.5h = 0")
    right.set_xlabel("extra time of a token (%), softmax h = 0")
    right.set_ylabel("sequences × tokens in the cache")
    for ax, labels, title in zip(fig.axes, (training, writing), titles, strict=True):
        ax.set_title(title)
        ax.set_yticks(range(len(labels)), list(labels))
        ax.grid(axis="y", visible=False)
        ax.invert_yaxis()
        ax.margins(x=0.14)
    left.margins(x=0.45)  # for the names
    right.patches[0].set_label("whole step")
    right.legend(loc="lower right")
    return fig


def _bar(ax, y, found, tint, height, name=""):
    """A bar of the median with the range over rounds, its number and its name."""
    median, low, high = found
    ax.barh(y, median, height, color=tint)
    ax.plot([low, high], [y, y], color="black", linewidth=2)
    ax.annotate(f"{median:.0f}%{name}", (high, y), (6, 0), textcoords="offset points", va="center")


@styled
def roofline(rows, peak, copy, device):
    """What the card can do at each intensity, and what decoding's attention did.

    Args:
        rows: of bench decode, attention alone. peak: FLOP/s. copy: bytes/s.
    """
    fig, ax = plt.subplots(figsize=(12, 5.4))
    x = np.geomspace(1, 2000, 200)
    ax.plot(x, np.minimum(peak, x * copy) / 1e12, **DASHED)
    marks = dict(zip(sorted({row["batch"] for row in rows}), "os^", strict=True))
    for row in rows:
        look = {"color": colour(row["variant"]), "marker": marks[row["batch"]]}
        aside = {"o": 0.93, "s": 1, "^": 1.07}[look["marker"]]  # or one hides the other
        x = aside * row["flops_per_byte"]
        ax.plot(x, row["tflops"], markersize=10, fillstyle="none", markeredgewidth=2, **look)
    for name, label in (("softmax_h", "softmax h"), ("diff_v2", "DIFF V2")):
        ax.plot([], [], "o", color=colour(name), label=label)
    for batch, mark in marks.items():
        ax.plot([], [], mark, color="grey", label=f"{batch} sequence{'s' * (batch > 1)}")
    ax.axvline(peak / copy, color="grey", linewidth=1)
    ax.annotate(f"ridge: {peak / copy:.0f}", (peak / copy * 1.1, 3), color="#555555")
    ax.set(xscale="log", yscale="log", xlabel="operations per byte of cache", ylabel="TFLOP/s")
    ax.set_xticks([1, 4, 8, 32, 128, 1024], ["1", "4", "8", "32", "128", "1024"])
    ax.set_yticks([1, 10, 100, 1000], ["1", "10", "100", "1000"])
    ax.minorticks_off()
    ax.set_title(f"Attention for one token on an {device}; dashed: its roof")
    ax.legend(loc="upper left")
    return fig


@styled
def measured_steps(steps):
    """Where the time of a training step goes: what profiled_steps gives."""
    fig, axes = plt.subplots(1, len(steps), figsize=(14, 5), squeeze=False)
    for ax, (size, found) in zip(axes[0], steps.items(), strict=True):
        for y, parts in enumerate(found.values()):
            start = 0.0
            for kind, ms in parts.items():
                ax.barh(y, ms, 0.7, left=start, color=PARTS[kind], label=None if y else kind)
                if ms > 0.06 * sum(parts.values()):
                    ink = "white" if kind in ("attention", "matrix products") else "black"
                    ax.text(start + ms / 2, y, f"{ms:.0f}", ha="center", va="center", color=ink)
                start += ms
            ax.text(1.01 * start, y, f"{start:.0f}", va="center", fontweight="bold")
        ax.set_yticks(range(len(found)), found if ax is axes[0][0] else [""] * len(found))
        ax.set(xlabel="ms of one training step", title=SIZES[size].replace("\n", " "))
        ax.locator_params(axis="x", nbins=5)
        ax.margins(x=0.1)
        ax.grid(axis="y", visible=False)
        ax.invert_yaxis()
    handles, labels = axes[0][0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside upper center", ncols=len(labels), fontsize=13)
    return fig
