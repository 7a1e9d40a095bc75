"""Pictures of notebooks 07 and 08: differences with their intervals, and what V1's parts do."""

import math

import matplotlib.pyplot as plt

from minidiff.look.style import (
    DASHED,
    DOT,
    bar,
    clear_colour,
    colour,
    dots,
    dotted_line,
    styled,
)


def _row(ax, y, finding, label=""):
    """A finding's dot and interval, vermilion where clear of 0; open where it is a single run.

    With a label the picture's alternative text says the number.
    """
    low, high = finding.interval()
    clear = {"color": clear_colour(low, high)}
    if math.isnan(low):
        ax.plot(finding.number, y, "o", fillstyle="none", markersize=12, mew=2.5, **clear)
    else:
        ax.plot([low, high], [y, y], linewidth=4, solid_capstyle="butt", **clear)
        ax.plot(finding.number, y, markersize=13, label=label, **clear, **DOT)


@styled
def headline(found, xlabel):
    """One finding a row, with its interval, on an axis that shows 0.01 and 0.3 alike.

    Args:
        found: label -> study.findings.Finding, or None for a question that nobody has run.
            A single run has no interval: its dot is open.
    """
    fig, ax = plt.subplots(figsize=(11, 1.6 + 0.5 * len(found)))
    for y, finding in enumerate(found.values()):
        if finding is None:
            ax.annotate("not run: undecided", (0, y), (8, 0), textcoords="offset points",
                        va="center", fontsize=14)  # fmt: skip
            continue
        _row(ax, y, finding)
    ax.axvline(0, zorder=0, **DASHED)
    ax.set_xscale("symlog", linthresh=0.03, linscale=2)
    ticks = (-0.5, -0.1, -0.02, -0.01, 0, 0.01, 0.02, 0.1, 0.5)
    ax.set_xticks(ticks, [f"{x:+g}" if x else "0" for x in ticks], fontsize=13)
    ax.minorticks_off()
    ax.set_yticks(range(len(found)), list(found), fontsize=14)
    ax.set(xlabel=xlabel, xlim=(-0.9, 0.6), ylim=(len(found) - 0.4, -0.6))
    ax.grid(axis="y", visible=False)
    return fig


@styled
def single_runs(losses):
    """The loss of each seed, a row for each model: label -> one number a seed."""
    fig, ax = plt.subplots(figsize=(10, 3.6))
    for y, (label, values) in enumerate(losses.items()):
        ax.plot(values, [y] * len(values), markersize=14, **dots(label))
        for seed, value in enumerate(values):
            ax.annotate(f"seed {seed}", (value, y + 0.17), ha="center", va="top", fontsize=13)
    ax.set_yticks(range(len(losses)), list(losses))
    ax.set(xlabel="validation loss (nats/byte)", ylim=(len(losses) - 0.4, -0.5))
    return fig


@styled
def losses_by_rate(losses, zoom=None):
    """Mean loss with its interval against the learning rate; ``zoom``: the range of a second panel.

    Args:
        losses: label -> {rate: (mean, low, high)}; low and high are nan for one seed.
    """
    fig, axes = plt.subplots(1, 2, figsize=(13, 5.4))
    for ax in axes:
        for shift, (label, rates) in zip((0.97, 1.03), losses.items(), strict=True):
            mean, low, high = zip(*rates.values(), strict=True)
            bars = [[0 if math.isnan(b) else abs(a - b) for a, b in zip(mean, end, strict=True)]
                    for end in (low, high)]  # fmt: skip
            look = {"label": label, "capsize": 5} | dotted_line(label)
            ax.errorbar([shift * lr for lr in rates], mean, bars, **look)
        ticks = list(next(iter(losses.values())))
        ax.set(xscale="log", xlabel="peak learning rate (thousandths)")
        ax.set_ylabel("validation loss (nats/byte)")
        ax.set_xticks(ticks, [f"{1000 * lr:g}" for lr in ticks])
        ax.minorticks_off()
    axes[0].legend(loc="upper left")
    if zoom:
        axes[1].set(ylim=zoom, title="The lower end of the left picture")
    return fig


@styled
def differences_by_rate(texts, best):
    """A difference in loss against the learning rate, with its interval: a line for each text.

    Args:
        texts: label -> {rate: study.findings.Finding}. A single run has no interval: its dot is
            open.
        best: label -> the rate that is best for both models there.
    """
    fig, ax = plt.subplots(figsize=(11, 5.4))
    looks = (("black", "-", "o"), (colour("diff_v1"), "--", "^"))  # no model's: these are texts
    for shift, (hue, style, marker), (label, found) in zip((0.985, 1.015), looks, texts.items(),
                                                           strict=True):  # fmt: skip
        rates = [shift * lr for lr in found]
        numbers = [finding.number for finding in found.values()]
        ax.plot(rates, numbers, style, color=hue, marker=marker, markersize=11, label=label)
        for x, finding in zip(rates, found.values(), strict=True):
            low, high = finding.interval()
            if math.isnan(low):
                ax.plot(x, finding.number, marker, color="white", mec=hue, mew=2.5, markersize=11)
            else:
                look = {"color": hue, "linewidth": 3.5, "solid_capstyle": "butt", "alpha": 0.6}
                ax.plot([x, x], [low, high], **look)
        at = shift * best[label], found[best[label]].number
        ax.annotate("best rate", at, (9, -13), textcoords="offset points", color=hue, fontsize=14)
    ax.axhline(0, zorder=0, **DASHED)
    ticks = sorted({lr for found in texts.values() for lr in found})
    ax.set(xscale="log", xlabel="peak learning rate (thousandths)")
    ax.set_xticks(ticks, [f"{1000 * lr:g}" for lr in ticks])
    ax.set_yscale("symlog", linthresh=0.06, linscale=2)
    marks = (-0.3, -0.06, -0.04, -0.02, 0, 0.02, 0.04, 0.06)
    ax.set_yticks(marks, [f"{y:+g}" if y else "0" for y in marks], fontsize=13)
    ax.minorticks_off()
    lowest, highest = ax.dataLim.intervaly
    ax.set_ylim(1.3 * min(lowest, -0.01), 1.25 * max(highest, 0.01))
    ax.set_ylabel("DIFF V2 minus softmax 1.5h\n(nats/byte, 95%)")
    for side, words in ((1, "softmax is better"), (-1, "DIFF V2 is better")):
        ax.annotate(words, (ticks[-1], 0), (0, 12 * side), textcoords="offset points", ha="right",
                    va="center", fontsize=14)  # fmt: skip
    ax.legend(loc="lower left")
    return fig


# ---- Notebook 08 -------------------------------------------------------------------------------


@styled
def against_both(kinds, others):
    """Losses minus that of each of two models, with 95% intervals: a row a variant, by kind.

    Args:
        kinds: heading -> {label: a Finding for each of ``others``, None where it is that model}.
    """
    rows = [row for kind, found in kinds.items() for row in ((kind, ()), *found.items())]
    fig, axes = plt.subplots(1, len(others), sharey=True, figsize=(13, 1.4 + 0.33 * len(rows)))
    for column, (ax, other) in enumerate(zip(axes, others, strict=True)):
        for y, (label, findings) in enumerate(rows):
            if findings and findings[column]:
                _row(ax, y, findings[column], label)
        ax.axvline(0, zorder=0, **DASHED)
        ax.set_xscale("symlog", linthresh=0.05, linscale=3)
        ticks = (-0.02, 0, 0.02, 0.04, 0.25)
        ax.set_xticks(ticks, [f"{x:+g}" if x else "0" for x in ticks], fontsize=13)
        ax.minorticks_off()
        ax.set(title=f"minus {other}", xlabel="loss (nats/byte); right: worse")
        ax.set(xlim=(-0.03, 0.4), ylim=(len(rows) - 0.4, -0.6))
        ax.grid(axis="y", visible=False)
    axes[0].set_yticks(range(len(rows)), [label for label, _ in rows], fontsize=14)
    for text in axes[0].get_yticklabels():
        text.set_fontweight("bold" if text.get_text() in kinds else "normal")
    return fig


@styled
def rms_ranges(rows):
    """Context RMS of trained models, from the smallest to the largest token: label -> a row."""
    fig, ax = plt.subplots(figsize=(11, 1.8 + 0.45 * len(rows)))
    for y, (name, row) in enumerate(rows.items()):
        span = max(row["rms_low_min"], 5e-4), row["rms_high_max"]  # off by one can reach 0
        ax.plot(span, [y, y], color=colour(name), linewidth=7, solid_capstyle="butt")
        ax.plot(row["rms_mean"], y, color=colour(name), markersize=13, **DOT)
    for x, words, style in ((2**0.5, "√2", "--"), (1 / 32, "1/√1024", ":")):
        ax.axvline(x, zorder=0, color="black", linestyle=style, linewidth=1.5)
        ax.annotate(words, (1.05 * x, -0.65), fontsize=15)
    ax.set_yticks(range(len(rows)), list(rows))
    ax.set(xscale="log", xlim=(5e-4, 20), ylim=(len(rows) - 0.4, -1.4))
    ax.set_xticks([1e-3, 1e-2, 0.1, 1, 10], ["0.001", "0.01", "0.1", "1", "10"])
    ax.minorticks_off()
    ax.set(xlabel="context RMS: dot mean, bar smallest to largest token")
    ax.grid(axis="y", visible=False)
    return fig


@styled
def norm_gain(rows):
    """What V1's norm multiplies the gradient of a uniform head by: rows of measure.v1_gradients."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(13, 5))
    lengths = [row["n"] for row in rows]
    looks = {"diff_v1": ("V1", "-"), "diff_v1_no_norm": ("V1, no norm", "--"),
             "diff_v2": ("V2", ":")}  # fmt: skip
    for name, (label, style) in looks.items():
        norms = [row[name] for row in rows]
        left.plot(lengths, norms, style, color=colour(name), label=label, **DOT)
    gain = [row["diff_v1"] / row["diff_v1_no_norm"] for row in rows]
    right.plot(lengths, gain, color=colour("diff_v1"), label="V1 / V1 without norm", **DOT)
    right.plot(lengths, [n**0.5 for n in lengths], label="√n", **DASHED)
    left.set(ylabel="gradient at the values / at the output", title="A uniform head", yscale="log")
    left.set_yticks([0.01, 0.03, 0.1, 0.3, 1], ["0.01", "0.03", "0.1", "0.3", "1"])
    right.set(ylabel="gain by the norm", title="What the norm multiplies by", yscale="log")
    right.set_yticks([3, 10, 30, 100], ["3", "10", "30", "100"])
    for ax in (left, right):
        ax.set(xscale="log", xlabel="n, tokens that the head averages")
        ax.set_xticks([16, 128, 1024, 8192], ["16", "128", "1024", "8192"])
        ax.minorticks_off()
        ax.legend()
    return fig


@styled
def pushed(paths):
    """λ under a steady push: (variant, learning rate) -> λ after each step."""
    fig, ax = plt.subplots(figsize=(10, 5))
    styles = dict(zip(sorted({lr for _, lr in paths}), (":", "--", "-"), strict=False))
    for (name, lr), path in paths.items():
        label = f"{name[5:].upper()}, learning rate {lr:g}"
        ax.plot(path, styles[lr], color=colour(name), label=label)
    ax.set(yscale="log", ylim=(0.1, 1e6), xlabel="steps of AdamW with the loss −λ", ylabel="λ")
    ax.set_yticks([0.1, 1, 10, 1e3, 1e5], ["0.1", "1", "10", "1000", "100,000"])
    ax.minorticks_off()
    ax.set_title("A steady push on λ")
    fig.legend(fontsize=13, ncols=2, loc="outside lower center")
    return fig


@styled
def rounding(softmax, diff):
    """Relative error of bfloat16 attention, layer by layer: lists of measure.rounding_errors."""
    fig, ax = plt.subplots(figsize=(10, 4.8))
    bars = {
        "softmax 1.5h, into W_O": ([e["heads"] for e in softmax], bar("softmax")),
        "DIFF V2, before the subtraction": ([e["branches"] for e in diff], {"color": "#f0b48a"}),
        "DIFF V2, into W_O": ([e["heads"] for e in diff], bar("diff_v2")),
    }
    for i, (label, (heights, look)) in enumerate(bars.items()):
        x = [layer + 0.27 * (i - 1) for layer in range(len(heights))]
        ax.bar(x, [100 * height for height in heights], 0.25, label=label, **look)
    ax.set(xlabel="layer", ylabel="relative error (%)")
    ax.set_xticks(range(len(diff)))
    ax.set_ylim(0, 1.6 * 100 * max(e["heads"] for e in diff))
    ax.grid(axis="x", visible=False)
    ax.legend(loc="upper right", fontsize=13)
    return fig
