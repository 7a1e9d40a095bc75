"""The course's figures: every function takes data and returns a matplotlib Figure.

Nothing is shown: end a notebook cell with ``plt.show()``, and ``plt.close(fig)`` what a program has
saved. Colours, line styles and markers are those of style.py, large enough for the back row of a
classroom; ``plt.rcParams.update(plots.STYLE)`` gives a notebook's own figures the same look.
"""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import LogLocator, MaxNLocator

from minidiff import theory
from minidiff.look.style import COLOURS as COLOURS  # for those who ask plots for them
from minidiff.look.style import DASHED, SIGNED, STYLE, clear_colour, colour, dots, line, styled
from minidiff.look.style import DOT as DOT

# ---- Training and results ----------------------------------------------------------------------


@styled
def training_curves(runs):
    """Loss and gradient norm of several runs: label -> rows of a metrics.jsonl.

    A row has "step" and any of loss, val_loss (nats a token), grad_norm (before clipping).
    """
    fig, (loss, norm) = plt.subplots(1, 2, figsize=(13, 5.2))
    for label, rows in runs.items():
        for ax, key in ((loss, "loss"), (norm, "grad_norm"), (loss, "val_loss")):
            pairs = [(row["step"], row[key]) for row in rows if row.get(key) is not None]
            if key == "val_loss" and pairs:
                ax.plot(*np.transpose(pairs), **dots(label))
            elif pairs:  # faint: every row; bold: the median of k rows
                k = 1 + len(pairs) // 40
                pieces = np.lib.stride_tricks.sliding_window_view(pairs, k, axis=0)
                ax.plot(*np.transpose(pairs), color=colour(label), alpha=0.3, linewidth=1)
                ax.plot(*np.median(pieces, -1).T, label=label, **line(label))
    loss.set(xlabel="training step", ylabel="loss (nats/token)", title="Loss (dots: validation)")
    norm.set(xlabel="training step", ylabel="norm before clipping", title="Gradient norm")
    norm.set_yscale("log")
    loss.legend()
    return fig


@styled
def intervals(estimates, xlabel, reference=None):
    """A point with its confidence interval for each variant: label -> (mean, low, high).

    ``xlabel`` says what is measured, with its unit; ``reference`` is the x of a dashed line: then
    intervals that hold it are black, as the axis says, and the others vermilion.
    """
    fig, ax = plt.subplots(figsize=(10, 1.5 + 0.55 * len(estimates)))
    for y, (label, (mean, low, high)) in enumerate(estimates.items()):
        look = dots(label)
        if reference is not None:
            look = DOT | {"color": clear_colour(low, high, reference)}
        bar = {"color": look["color"], "linewidth": 4, "solid_capstyle": "butt"}
        ax.plot([low, high], [y, y], label=f"interval of {label}", **bar)
        ax.plot(mean, y, markersize=13, label=label, **look)
    ax.set_yticks(range(len(estimates)), list(estimates))
    ax.set(xlabel=xlabel, ylim=(len(estimates) - 0.4, -0.6))
    ax.grid(axis="y", visible=False)
    if reference is not None:
        ax.set_xlabel(f"{xlabel}\n(black: holds {reference:g})")
        ax.axvline(reference, zorder=0, **DASHED)
    return fig


# ---- Context RMS and lambda --------------------------------------------------------------------


@styled
def rms_against_n(points, *, lam=None, rho=0.0):
    """Context RMS against the number of tokens that a query sees: theory as bands, data as points.

    Args:
        points: label -> (n, rms) or (n, rms, standard deviation), arrays of one length.
        lam: lambda of the DIFF V2 band; None leaves it out. rho: correlation of the values.
    """
    fig, ax = plt.subplots()
    largest = max(max(n) for n, *_ in points.values())
    whole = np.unique(np.geomspace(1, max(largest, 2), 60).round().astype(int))
    rms_bands(ax, whole, lam, rho)
    for label, (n, rms, *spread) in points.items():
        n, rms, *spread = (np.asarray(column) for column in (n, rms, *spread))
        ax.errorbar(n, rms, *spread, label=label, capsize=4, **dots(label))
    ax.legend(loc="lower left")
    return fig


def rms_bands(ax, n, lam=None, rho=0.0):
    """Draw what theory allows over n tokens (whole numbers): softmax, and DIFF V2 at lam.

    DIFF V2 from n = 2 on: over one token it can only be 1 - lam, and a line from there to 2 lies.
    Correlation rho adds the part that all values share, times the sum of the weights.
    """
    if any(count != round(count) for count in n):
        raise ValueError("n must be whole numbers: there is no row over part of a token")
    bands = [] if lam is None else [("DIFF V2, further range", lam, 1 - lam, "#f7dfcc")]
    for label, value, total, tint in [*bands, ("softmax, range", None, 1, "#cce2f0")]:
        seen = [count for count in n if value is None or count > 1]
        ends = np.array([theory.rms_bounds(count, value) for count in seen]).reshape(-1, 2).T
        low, high = np.sqrt((1 - rho) * ends**2 + rho * total**2)
        ax.fill_between(seen, low, high, color=tint, linewidth=0, label=label)
        for bound in (low, high):
            ax.plot(seen, bound, linewidth=1.5, **line(label))
    ax.set(xscale="log", yscale="log", xlabel="n, tokens the query sees", ylabel="context RMS")
    ax.xaxis.set_major_locator(LogLocator(4, numticks=20))
    ax.yaxis.set_major_locator(LogLocator(10, subs=(1, 2, 5), numticks=20))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_major_formatter("{x:g}")
    ax.minorticks_off()
    ax.set_title(f"Context RMS, correlation of values ρ = {rho:g}")


@styled
def bounds_over_lambda(n):
    """The lowest and highest context RMS that DIFF V2 can give over n tokens, against lambda."""
    fig, ax = plt.subplots()
    lams = np.linspace(0, 1, 101)
    low, high = np.array([theory.rms_bounds(n, lam) for lam in lams]).T
    ax.fill_between(lams, low, high, color="#f7dfcc", linewidth=0)
    label = "DIFF V2: √(1 + λ²) and (1 − λ)/√n"
    ax.plot(lams, np.stack([high, low], 1), label=[label, None], **line(label))
    ax.plot(
        (0, 1), [theory.rms_bounds(n)] * 2, label=["softmax: 1 and 1/√n", None], **line("softmax")
    )
    ax.set(xlabel="λ", ylabel="context RMS", xlim=(0, 1), ylim=(0, 1.5))
    ax.set_title(f"What a head can reach over n = {n} tokens")
    ax.legend(loc="center right")
    return fig


@styled
def lambda_map(lam, tokens=None):
    """Heat map of lambda (T, h): tokens run to the right, one row for each head."""
    lam = np.asarray(lam)
    n_tokens, h = lam.shape
    fig, ax = plt.subplots(figsize=(13, 1.9 + 0.42 * h))
    look = {"vmin": 0, "vmax": 1, "cmap": "cividis", "interpolation": "none"}
    fig.colorbar(ax.imshow(lam.T, aspect="auto", **look), ax=ax, label="λ")
    ax.set(xlabel="token", ylabel="head")
    ax.grid(visible=False)
    ax.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    _name_ticks(ax.xaxis, tokens, room=11 * 72 / n_tokens)
    return fig


@styled
def lambda_histogram(groups):
    """How lambda is distributed: label, such as a layer -> values, one row for each."""
    fig, axes = plt.subplots(len(groups), figsize=(10, 1.7 + 0.9 * len(groups)), sharex=True)
    axes = np.atleast_1d(axes)
    axes[0].set_title("Height: how many tokens and heads have this λ")
    for ax, (label, lam) in zip(axes, groups.items(), strict=True):
        ax.hist(np.asarray(lam).ravel(), bins=50, range=(0, 1), color=colour("diff_v2"))
        ax.axvline(0.5, **DASHED)
        ax.set_ylabel(label, rotation=0, ha="right", va="center")
        ax.set(yticks=[], xlim=(0, 1))
    ax.set_xlabel("λ (dashed: 0.5, where training starts)")
    return fig


# ---- Looking inside a trained model ------------------------------------------------------------


@styled
def attention_maps(maps, tokens=None, lam=None, limit=None):
    """Attention maps side by side on one signed scale: red adds a value, blue subtracts it.

    Args:
        maps: title -> causal map (T, T), such as {"A1": a1, "A2": a2, "A1 − λ A2": difference}.
        tokens: T labels, written where they fit. lam: (T,) lambda of each query, drawn below.
        limit: weight at the end of the scale; None takes the 99th percentile of what is shown.
    """
    shown = np.stack([np.asarray(weights, dtype=float) for weights in maps.values()])
    n_tokens, width = shown.shape[1], 4.4 * len(maps) + 1.4
    shown[:, ~np.tri(n_tokens, dtype=bool)] = np.nan  # keys after the query: grey
    limit = limit or max(np.nanquantile(np.abs(shown), 0.99), 1e-6)
    layout = {"figsize": (width, 5)}
    if lam is not None:
        layout = {"figsize": (width, 6.8), "height_ratios": (4.2, 1.2)}
    rows = [list(maps)] + ([["λ"] * len(maps)] if lam is not None else [])
    fig, axes = plt.subplot_mosaic(rows, **layout)
    for title, weights in zip(maps, shown, strict=True):
        ax = axes[title]
        look = {"cmap": SIGNED, "vmin": -limit, "vmax": limit, "interpolation": "none"}
        picture = ax.imshow(weights, **look)
        ax.set(title=title, xlabel="key token", ylabel="query token")
        ax.grid(visible=False)
        _name_ticks(ax.xaxis, tokens, room=3.5 * 72 / n_tokens)
        _name_ticks(ax.yaxis, tokens, room=3.5 * 72 / n_tokens)
    fig.colorbar(picture, ax=[axes[t] for t in maps], label="weight", extend="both", shrink=0.85)
    if lam is not None:
        ax = axes["λ"]
        ax.bar(range(n_tokens), np.asarray(lam), color=colour("diff_v2"))
        ax.axhline(0.5, **DASHED)
        ax.set(ylim=(0, 1), yticks=(0, 0.5, 1), xlim=(-0.6, n_tokens - 0.4))
        ax.set(ylabel="λ", xlabel="query token")
        _name_ticks(ax.xaxis, tokens, room=(width - 2) * 72 / n_tokens)
    return fig


def token_labels(tokens):
    """One short label for each byte token: a character, ␣ ↵ ⇥, hexadecimal, or BOS."""
    marks = {32: "␣", 10: "↵", 9: "⇥", **{byte: chr(byte) for byte in range(33, 127)}}
    return [marks.get(t, f"{t:02X}" if t < 256 else "BOS") for t in map(int, tokens)]


def _name_ticks(axis, tokens, room):
    """Write the tokens at the ticks, smaller where they are many; positions below 9 points."""
    across = axis.axis_name == "x"
    size = min(13, room * (1.4 if across else 1))  # a character is higher than it is wide
    if tokens is None or size < 9:
        axis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        return
    axis.set_ticks(range(len(tokens)), list(tokens), fontfamily="monospace", fontsize=size)
    axis.set_tick_params(length=0)
    for label, token in zip(axis.get_ticklabels(), tokens, strict=True):
        label.set_rotation(90 if across and len(token) > 1 else 0)


@styled
def sink_bars(shares, threshold=0.3):
    """Share of attention on the first token: label -> (n_layer, h); a row each, a bar for a head.

    Above the dashed ``threshold`` a head counts as a sink (arXiv 2410.10781).
    """
    size = (12, 1 + 1.9 * len(shares))
    fig, axes = plt.subplots(len(shares), figsize=size, sharex=True, sharey=True)
    for ax, (label, share) in zip(np.atleast_1d(axes), shares.items(), strict=True):
        share = np.asarray(share)
        n_layer, h = share.shape
        x = np.arange(n_layer)[:, None] + 0.85 * ((np.arange(h) + 0.5) / h - 0.5)  # layer, head
        ax.bar(x.ravel(), share.ravel(), color=colour(label), width=0.75 / h)
        ax.axhline(threshold, **DASHED)
        ax.set_title(f"{label}: mean {share.mean():.2f}, worst head {share.max():.2f}")
        ax.set(ylim=(0, 1), yticks=(0, 0.5, 1), xticks=range(n_layer))
        ax.grid(axis="x", visible=False)
    ax.set_xlabel("layer (one bar for each head)")
    fig.supylabel("attention on the first token", fontsize=STYLE["axes.labelsize"])
    return fig
