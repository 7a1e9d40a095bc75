"""Pictures of notebook 10: what a prompt computes and keeps, how that grows, what a GPU took."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import LogLocator

from minidiff.files import read_json
from minidiff.look.plots import DASHED, DOT, colour, styled

RESULTS = Path(__file__).parents[2] / "notebooks" / "results"
COMPUTED = "#b9dcf0"


@styled
def prompt(models):
    """Which cells of layers x tokens are computed, and where keys and values are kept.

    Args:
        models: label -> (computed, kept), each (n_layer, T) bool, layer 0 first.
    """
    fig, axes = plt.subplots(1, len(models), figsize=(13, 4.8))
    for ax, (label, (computed, kept)) in zip(axes, models.items(), strict=True):
        layers, tokens = np.shape(computed)
        for layer, token in np.ndindex(layers, tokens):
            shade = COMPUTED if computed[layer][token] else "white"
            cell = plt.Rectangle(
                (token - 0.5, layer - 0.5), 1, 1, facecolor=shade, edgecolor="#888888"
            )
            ax.add_patch(cell)
        layer, token = np.nonzero(np.asarray(kept))
        ax.plot(token, layer, "o", color="black", markersize=11)
        ax.set(xlim=(-0.6, tokens - 0.4), ylim=(-0.6, layers - 0.4), title=label, xlabel="token")
        ax.set_xticks(range(tokens))
        ax.set_yticks(range(layers))
        ax.grid(visible=False)
    axes[0].set_ylabel("layer")
    keys = [
        plt.Rectangle((0, 0), 1, 1, facecolor="#b9dcf0", edgecolor="#888888", label="computed"),
        plt.Rectangle((0, 0), 1, 1, facecolor="white", edgecolor="#888888", label="not computed"),
        plt.Line2D([], [], color="black", marker="o", linestyle="", markersize=11,
                   label="keys and values kept"),
    ]  # fmt: skip
    fig.legend(handles=keys, ncols=3, loc="outside lower center")
    return fig


@styled
def growth(tokens, costs):
    """Costs against the length of the prompt: title -> {model: a number for each length}."""
    fig, axes = plt.subplots(1, len(costs), figsize=(6.5 * len(costs), 5))
    for ax, (title, models) in zip(axes, costs.items(), strict=True):
        for name, values in models.items():
            ax.plot(tokens, values, _line(name), color=colour(name), label=name, **DOT)
        ax.set(title=title, xlabel="tokens of the prompt")
        _log_log(ax, tokens)
        ax.legend()
    return fig


@styled
def learning(curves, chance):
    """The loss of every batch: label -> one curve a seed, thin, and their mean, thick."""
    fig, ax = plt.subplots(figsize=(11, 5.2))
    dashes = iter(("--", ":", "-."))
    for label, runs in curves.items():
        style = next(dashes) if _line(label) == "--" else "-"
        line = {"color": colour(label), "linestyle": style}
        for run in runs:
            ax.plot(run, linewidth=1, alpha=0.5, **line)
        ax.plot(np.mean(runs, axis=0), label=label, **line)
    ax.axhline(chance, label="guessing", **DASHED)
    ax.set(xlabel="training steps", ylabel="loss (nats for each answer)", ylim=(0, 1.6 * chance))
    fig.legend(loc="outside lower center", ncols=3)
    return fig


# ---- What a GPU took -----------------------------------------------------------------------------


def context_rows(folder=RESULTS):
    """Rows of bench_context.json that measure whole models: (what, variant, T) -> the row.

    Rows that hold an error instead are left out (where the memory was too small, for instance).

    Raises:
        ValueError: the file is missing, or it is none of the bench's.
    """
    path, fix = Path(folder) / "bench_context.json", "`measure.sh context` makes it, on a GPU"
    if not path.exists():
        raise ValueError(f"{path} is missing: {fix}")
    rows = read_json(path, fix).get("rows")
    if not isinstance(rows, list):
        raise ValueError(f"{path}: has no rows; {fix}")
    whole = [row for row in rows if row.get("what") in ("prefill", "step") and "error" not in row]
    return {(row["what"], row["variant"], row["T"]): row for row in whole}


@styled
def measured(rows):
    """Prefill, step and cache against the length of the prompt, from :func:`context_rows`."""
    panels = (("prefill", "ms", "reading the prompt (ms)"), ("step", "ms", "one more token (ms)"),
              ("step", "cache_mb", "KV cache (MB)"))  # fmt: skip
    fig, axes = plt.subplots(1, 3, figsize=(16, 5.6))
    for ax, (what, column, title) in zip(axes, panels, strict=True):
        for name in dict.fromkeys(variant for _, variant, _ in rows):
            own = {T: row[column] for (w, v, T), row in rows.items() if (w, v) == (what, name)}
            line = DOT | {"color": colour(name), "linestyle": _line(name), "label": name}
            if "softmax" in name:  # wider: that of DIFF V2 may lie upon it
                line |= {"marker": "s", "linewidth": 6, "markersize": 14}
            ax.plot(list(own), list(own.values()), **line)
        ax.set(title=title, xlabel="tokens of the prompt")
        _log_log(ax, sorted({T for _, _, T in rows}))
    axes[1].set_yscale("linear")  # a step takes about as long everywhere
    axes[1].set_ylim(bottom=0)
    fig.legend(*axes[0].get_legend_handles_labels(), ncols=4, loc="outside lower center")
    return fig


def _line(name):
    return "--" if name.lower().startswith("yoco") else "-"  # apart in grey, too


def _log_log(ax, tokens):
    ax.set(xscale="log", yscale="log")
    ax.set_xticks(tokens, [f"{T // 1024}k" if T >= 1024 else str(T) for T in tokens])
    ax.minorticks_off()
    low, high = ax.get_ylim()
    if high < 100 * low:  # powers of ten would be one tick, or none
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter("{x:g}")
