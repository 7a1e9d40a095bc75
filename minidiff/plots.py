"""The course's figures: every function takes data and returns a matplotlib Figure.

Nothing is computed here beyond the closed forms of theory.py, and nothing is shown: end a notebook
cell with ``plt.show()``; a program that only saves a figure closes it with ``plt.close(fig)``.

One colour for one idea, everywhere: softmax is blue, DIFF V2 is vermilion. The colours are those of
Okabe and Ito, which colour-blind readers can tell apart. ``plt.rcParams.update(plots.STYLE)`` gives
a notebook's own figures the same look, large enough for the back row of a classroom.
"""

import functools

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import MaxNLocator

from minidiff import theory

STYLE = {
    "figure.figsize": (10, 5),
    "figure.dpi": 100,
    "figure.constrained_layout.use": True,
    "font.size": 14,
    "axes.labelsize": 15,
    "axes.titlesize": 16,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "lines.linewidth": 2.5,
    "lines.markersize": 8,
    "legend.frameon": False,
}
COLOURS = {
    "softmax": "#0072B2",
    "diff_v2": "#D55E00",
    "diff_v1": "#009E73",
    "halves": "#CC79A7",
    "no_lambda": "#E69F00",
    "no_sigmoid": "#7F3C8D",
    "off_by_one": "#56B4E9",
    "sink_logit": "#8C6D1F",
    "gated": "#5A5A5A",
}
SIGNED_MAP = plt.get_cmap("RdBu_r").with_extremes(bad="#ececec")  # red adds, blue subtracts


def colour(name):
    """The colour of a variant's name or label ("DIFF V2, seed 1" too); black for one of your own.

    The longest name in COLOURS that starts the label wins.
    """
    label = name.lower().replace(" ", "_").replace("-", "_")
    known = [key for key in COLOURS if label.startswith(key)]
    return COLOURS[max(known, key=len)] if known else "black"


def _styled(draw):
    """Decorator: draw in the shared STYLE, also the ticks that matplotlib only makes when drawn."""

    @functools.wraps(draw)
    def styled(*args, **kwargs):
        with plt.rc_context(STYLE):
            fig = draw(*args, **kwargs)
            fig.draw_without_rendering()
        return fig

    return styled


# ---- Training and results ----------------------------------------------------------------------


@_styled
def training_curves(runs):
    """Loss and gradient norm against the step.

    Args:
        runs: label -> rows of a metrics.jsonl; a row has "step" and any of loss, val_loss (nats a
            token) and grad_norm (before clipping).
    """
    fig, (loss, norm) = plt.subplots(1, 2, figsize=(12, 5))
    for label, rows in runs.items():
        look = {"color": colour(label)}
        for ax, key in ((loss, "loss"), (norm, "grad_norm")):
            ax.plot(*_column(rows, key), alpha=0.4, linewidth=1.2, **look)
            ax.plot(*_smooth(*_column(rows, key)), label=label, **look)
        loss.plot(*_column(rows, "val_loss"), "o", markeredgecolor="white", **look)
    loss.set(xlabel="training step", ylabel="loss (nats/token)", title="Loss (dots: validation)")
    norm.set(xlabel="training step", ylabel="gradient norm before clipping", yscale="log")
    norm.set_title("Gradient norm")
    loss.legend()
    return fig


def _column(rows, key):
    rows = [row for row in rows if row.get(key) is not None]
    return [row["step"] for row in rows], [row[key] for row in rows]


def _smooth(steps, values):
    """Means of about 40 pieces of equal length: a line for the eye; the raw one is behind it."""
    pieces = np.array_split(np.arange(len(steps)), max(1, min(40, len(steps) // 4)))
    return [[np.mean(np.take(xs, piece)) for piece in pieces if len(piece)] for xs in (steps, values)]


@_styled
def intervals(estimates, xlabel, reference=None):
    """One point with its confidence interval for each variant, from top to bottom.

    Args:
        estimates: label -> (mean, low, high).
        xlabel: what is measured, with its unit.
        reference: x of a dashed line, such as 0 for a difference, or None.
    """
    fig, ax = plt.subplots(figsize=(10, 1.5 + 0.55 * len(estimates)))
    for y, (label, (mean, low, high)) in enumerate(estimates.items()):
        ax.plot([low, high], [y, y], color=colour(label), linewidth=4, solid_capstyle="butt")
        ax.plot(mean, y, "o", color=colour(label), markersize=12, markeredgecolor="white")
    ax.set_yticks(range(len(estimates)), list(estimates))
    ax.set(xlabel=xlabel, ylim=(len(estimates) - 0.4, -0.6))
    ax.grid(axis="y", visible=False)
    if reference is not None:
        ax.axvline(reference, color="black", linestyle="--", linewidth=1.5, zorder=0)
    return fig


# ---- Context RMS and lambda --------------------------------------------------------------------


@_styled
def rms_against_n(points, *, lam=None, rho=0.0):
    """Context RMS against the number of tokens that a query sees: theory as bands, data as points.

    Args:
        points: label -> (n, rms) or (n, rms, standard deviation), arrays of one length.
        lam: lambda of the DIFF V2 band; None leaves the band out.
        rho: correlation of the values that the bands assume.
    """
    fig, ax = plt.subplots(figsize=(10, 5.5))
    largest = max(float(np.max(n)) for n, *_ in points.values())
    _rms_bands(ax, 2 ** np.linspace(0, np.log2(max(largest, 2)), 60), lam, rho)
    for label, (n, rms, *spread) in points.items():
        look = {"color": colour(label), "markeredgecolor": "white", "label": label}
        ax.errorbar(n, rms, *spread, fmt="o", capsize=4, zorder=3, **look)
    ax.legend(loc="lower left")
    return fig


def _rms_bands(ax, n, lam, rho):
    """Fill what theory allows; correlation adds the values' shared part, scaled by sum_j w_j."""
    for label, value, weight_sum in (("softmax", None, 1), ("DIFF V2", lam, 1 - (lam or 0))):
        if label == "softmax" or lam is not None:
            ends = np.array([theory.rms_bounds(count, value) for count in n]).T
            low, high = np.sqrt((1 - rho) * ends**2 + rho * weight_sum**2)
            look = {"color": colour(label), "hatch": None if value is None else "//"}
            ax.fill_between(n, low, high, alpha=0.18, linewidth=0, label=f"{label}: allowed", **look)
            ax.plot(n, low, color=colour(label), linewidth=1.5)
    ax.set(xscale="log", yscale="log", xlabel="tokens the query sees, n", ylabel="context RMS")
    ax.set_xscale("log", base=2)
    ax.set_title(f"Context RMS, values correlated by ρ = {rho:g}" if rho else "Context RMS")


@_styled
def bounds_over_lambda(n):
    """The lowest and highest context RMS that DIFF V2 can give over n tokens, against lambda."""
    fig, ax = plt.subplots(figsize=(10, 5.5))
    lams = np.linspace(0, 1, 101)
    low, high = np.array([theory.rms_bounds(n, lam) for lam in lams]).T
    ax.fill_between(lams, low, high, color=colour("diff_v2"), alpha=0.18, linewidth=0)
    ax.plot(lams, high, color=colour("diff_v2"), label="DIFF V2: √(1 + λ²) and (1 − λ)/√n")
    ax.plot(lams, low, color=colour("diff_v2"))
    for y in theory.rms_bounds(n):
        label = "softmax: 1 and 1/√n" if y == 1 else None
        ax.axhline(y, color=colour("softmax"), linestyle="--", label=label)
    ax.set(xlabel="λ", ylabel="context RMS", xlim=(0, 1), ylim=(0, 1.5))
    ax.set_title(f"What each attention can reach over n = {n} tokens")
    ax.legend(loc="center right")
    return fig


@_styled
def lambda_map(lam, tokens=None):
    """Heat map of lambda (T, h): tokens run to the right, one row for each head."""
    lam = np.asarray(lam)
    fig, ax = plt.subplots(figsize=(12, 1.9 + 0.42 * lam.shape[1]))
    picture = ax.imshow(lam.T, vmin=0, vmax=1, cmap="cividis", aspect="auto", interpolation="none")
    fig.colorbar(picture, ax=ax, label="λ")
    ax.set(xlabel="token", ylabel="head")
    ax.grid(visible=False)
    ax.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    _name_ticks(ax.xaxis, tokens, points_each=10.0 * 72 / lam.shape[0])
    return fig


@_styled
def lambda_histogram(groups):
    """How lambda is distributed: one row for each label, such as a layer -> values of any shape."""
    fig, axes = plt.subplots(len(groups), figsize=(10, 1.2 + 0.9 * len(groups)), sharex=True)
    for ax, (label, lam) in zip(np.atleast_1d(axes), groups.items(), strict=True):
        ax.hist(np.ravel(lam), bins=50, range=(0, 1), color=colour("diff_v2"))
        ax.axvline(0.5, color="black", linestyle="--", linewidth=1.5)
        ax.set_ylabel(label, rotation=0, ha="right", va="center")
        ax.set(yticks=[], xlim=(0, 1))
    ax.set_xlabel("λ (dashed: 0.5, where training starts)")
    return fig


# ---- Looking inside a trained model ------------------------------------------------------------


@_styled
def attention_maps(maps, tokens=None, lam=None, limit=None):
    """Attention maps side by side in one signed scale: red adds a value, blue subtracts it.

    Args:
        maps: title -> causal map (T, T), such as {"A1": a1, "A2": a2, "A1 − λ A2": difference}.
        tokens: T labels, written where they fit. lam: (T,) lambda of each query, drawn below.
        limit: weight at the end of the scale; None takes the 99th percentile of the maps' entries
            (a row's largest weights are clipped: the first row is always 1).
    """
    stacked = np.abs(np.stack([np.asarray(m) for m in maps.values()]))
    seen = np.tril(np.ones(stacked.shape[1:], dtype=bool))
    limit = limit or max(np.quantile(stacked[:, seen], 0.99), 1e-6)
    rows, size = [list(maps)], (4.4 * len(maps) + 1.2, 4.9)
    if lam is not None:
        rows, size = [*rows, ["lam"] * len(maps)], (size[0], 6.9)
    ratios = [4.2, 1.3][: len(rows)]
    fig, axes = plt.subplot_mosaic(rows, figsize=size, height_ratios=ratios)
    for title, weights in maps.items():
        ax, shown = axes[title], np.where(seen, weights, np.nan)
        picture = ax.imshow(shown, cmap=SIGNED_MAP, vmin=-limit, vmax=limit, interpolation="none")
        ax.set(title=title, xlabel="key token", ylabel="query token")
        ax.grid(visible=False)
        for axis in (ax.xaxis, ax.yaxis):
            _name_ticks(axis, tokens, points_each=3.6 * 72 / len(seen))
    shown_axes = [axes[title] for title in maps]
    fig.colorbar(picture, ax=shown_axes, label="weight", extend="both", shrink=0.85)
    if lam is not None:
        axes["lam"].bar(range(len(seen)), lam, color=colour("diff_v2"), width=0.8)
        axes["lam"].axhline(0.5, color="black", linestyle="--", linewidth=1.5)
        axes["lam"].set(ylim=(0, 1), xlim=(-0.6, len(seen) - 0.4), ylabel="λ", xlabel="query token")
        _name_ticks(axes["lam"].xaxis, tokens, points_each=(size[0] - 1.5) * 72 / len(seen))
    return fig


def _name_ticks(axis, tokens, points_each):
    """Write the tokens at the ticks if each has room, else positions at some of them."""
    room = 9 if axis.axis_name == "x" else 13  # a character's width and height in points
    if tokens is None or points_each < room:
        axis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        return
    labels = axis.set_ticks(range(len(tokens)), list(tokens), fontfamily="monospace", fontsize=13)
    for label, token in zip(axis.get_ticklabels(), tokens, strict=True):
        label.set_rotation(90 if axis.axis_name == "x" and len(token) > 1 else 0)
    axis.set_tick_params(length=0)


@_styled
def sink_bars(shares, threshold=0.3):
    """Share of attention on the first token: one row for each model, one bar for each head.

    Args:
        shares: label -> (n_layer, h), such as softmax, "DIFF V2: A1", "DIFF V2: |A1 − λ A2|".
        threshold: dashed line; above it a head counts as a sink (arXiv 2410.10781).
    """
    fig, axes = plt.subplots(
        len(shares), figsize=(12, 0.9 + 1.9 * len(shares)), sharex=True, sharey=True, squeeze=False
    )
    for ax, (label, share) in zip(axes.flat, shares.items(), strict=True):
        n_layer, h = np.shape(share)
        x = (np.arange(n_layer)[:, None] * (h + 1) + np.arange(h)).ravel()  # a gap between layers
        ax.bar(x, np.ravel(share), color=colour(label), width=0.9)
        ax.axhline(threshold, color="black", linestyle="--", linewidth=1.5)
        ax.set_title(f"{label}: mean {np.mean(share):.2f}, worst head {np.max(share):.2f}")
        ax.set(ylim=(0, 1), yticks=(0, 0.5, 1))
        ax.grid(axis="x", visible=False)
        ax.set_xticks(np.arange(n_layer) * (h + 1) + (h - 1) / 2, range(n_layer))
        ax.tick_params(axis="x", length=0)
    ax.set_xlabel("layer (one bar for each head)")
    fig.supylabel("attention on the first token", fontsize=STYLE["axes.labelsize"])
    return fig


@_styled
def outliers(ratios):
    """Largest over median absolute activation after each layer: label -> (n_layer,)."""
    fig, ax = plt.subplots(figsize=(10, 5))
    for label, ratio in ratios.items():
        ax.plot(range(len(ratio)), ratio, "o-", color=colour(label), label=label)
    ax.set(xlabel="layer", ylabel="largest / median activation", yscale="log")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_title("Outliers in the residual stream")
    ax.legend()
    return fig


# ---- What the explorers of widgets.py show, for readers without a kernel ------------------------


@_styled
def rms_scene(n=1024, gap1=6.0, gap2=3.0, lam=0.5, rho=0.0, same=False):
    """The RMS explorer's picture at one setting: the weights of a row, and RMS against n.

    A row is softmax of one logit that stands ``gap`` above n - 1 equal ones; the second map peaks
    at another token than the first, or at the ``same`` one.
    """
    fig, (bars, ax) = plt.subplots(1, 2, figsize=(14, 5.5), width_ratios=(3, 4))
    a1, a2 = _peaked_rows(n, gap1, gap2, same)
    named = 1 if same or n == 1 else 2
    for i, (label, w) in enumerate({"A1": a1, "λ A2": lam * a2, "A1 − λ A2": a1 - lam * a2}.items()):
        heights = [*w[:named], w[named:].sum()]
        look = {"color": ("#8a8a8a", "#c4c4c4", colour("diff_v2"))[i], "label": label}
        drawn = bars.bar(np.arange(named + 1) + 0.28 * (i - 1), heights, width=0.26, **look)
        bars.bar_label(drawn, fmt="%.2f", fontsize=13)
    bars.set_xticks(range(named + 1), [*("token A", "token B")[:named], f"other {n - named}"])
    bars.set(ylabel="weight", ylim=(-1, 1.25), title=f"One query over n = {n} tokens")
    bars.legend(ncols=3, loc="upper center")
    grid = 2 ** np.arange(15)
    _rms_bands(ax, grid, lam, rho)
    for label, factor in (("softmax A1", 0), ("DIFF V2", lam)):
        rows = [np.subtract(a, factor * b) for a, b in (_peaked_rows(k, gap1, gap2, same) for k in grid)]
        ax.plot(grid, [theory.expected_rms(w, rho) for w in rows], color=colour(label), label=label)
        here = theory.expected_rms(a1 - factor * a2, rho)
        ax.plot(n, here, "o", color=colour(label), markersize=14, markeredgecolor="white")
    ax.legend(loc="lower left")
    return fig


def _peaked_rows(n, gap1, gap2, same):
    logits = np.zeros((2, n))
    logits[0, 0], logits[1, 0 if same or n == 1 else 1] = gap1, gap2
    rows = np.exp(logits - logits.max(1, keepdims=True))
    return rows / rows.sum(1, keepdims=True)


@_styled
def costs(n_embd=4096, n_head=32, n_kv_head=8, head_dim=128, n_keys=8192):
    """The cost explorer's picture: weights of one layer, and one decoded token's attention."""
    fig, axes = plt.subplots(1, 3, figsize=(14, 4.2), sharey=True)
    names = {"softmax, h": 1, "softmax, 1.5h": 1.5, "softmax, 2h": 2, "DIFF V2": 1}
    for label, factor in names.items():
        diff, heads = label == "DIFF V2", factor * n_head
        shape = (n_embd, heads, n_kv_head, head_dim)
        operations, read = theory.decode_attention_cost(
            n_keys, heads * (1 + diff), n_kv_head, head_dim
        )
        values = theory.attention_params(*shape, diff_v2=diff) / 1e6, operations / 1e6, read / 1e6
        for ax, value in zip(axes, values, strict=True):
            bar = ax.barh(label, value, color=colour(label), alpha=1 if diff or factor == 1 else 0.5)
            ax.bar_label(bar, fmt="%.4g", padding=4)
    titles = "attention weights", "decoding: operations", "decoding: cache read"
    for ax, title, unit in zip(axes, titles, ("millions", "million a token", "MB a token"), strict=True):
        ax.set(title=title, xlabel=unit)
        ax.margins(x=0.2)
        ax.grid(axis="y", visible=False)
    axes[0].invert_yaxis()
    return fig
