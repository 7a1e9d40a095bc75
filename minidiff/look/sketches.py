"""Figures that one notebook needs (01, 02, 02b), so that its cells show ideas and no plumbing.

As in plots: data in, Figure out, nothing is shown. Each docstring says what can be read off.
"""

import matplotlib.pyplot as plt
import numpy as np

from minidiff import theory
from minidiff.look import plots, style
from minidiff.look.style import bar, colour, dots, dotted_line, styled

SHADES = ("#a9cfe8", "#5ea6d3", "#0072B2", "#004B75")  # of softmax's blue, light to dark

# ---- 01: differential attention ----------------------------------------------------------------


@styled
def weight_bars(rows, tokens):
    """The weights of one query: label -> (n,) weights, a group of bars for each token."""
    fig, ax = plt.subplots(figsize=(10, 4.2))
    looks = bar("softmax"), {"color": style.MINUS}, bar("diff_v2")
    for i, ((label, weights), look) in enumerate(zip(rows.items(), looks, strict=False)):
        x = np.arange(len(tokens)) + 0.27 * (i - 1)
        bars = ax.bar(x, np.asarray(weights), width=0.25, label=label, **look)
        ax.bar_label(bars, fmt="%.3g", padding=2, fontsize=13)
    ax.set_xticks(range(len(tokens)), tokens)
    ax.set(xlabel="token", ylabel="weight")
    ax.margins(y=0.15)
    ax.grid(axis="x", visible=False)
    ax.axhline(0, color="black", linewidth=1)
    ax.legend()
    return fig


def straddling(h, h_kv, pairs):
    """How many pairs of query heads (i, j) read two different key/value heads."""
    group = 2 * h // h_kv
    return sum(i // group != j // group for i, j in pairs)


@styled
def who_reads_whom(cases):
    """Query heads above, key/value heads below, arcs between partners; one colour: a right pair.

    Args:
        cases: title -> (h, h_kv, pairs of query heads), a panel each; h_kv is 1 or 2.
    """
    fig, axes = plt.subplots(1, len(cases), figsize=(14, 4.4), squeeze=False)
    for ax, (title, (h, h_kv, pairs)) in zip(axes[0], cases.items(), strict=True):
        group = 2 * h // h_kv
        places = [(kv + 0.5) * group - 0.5 for kv in range(h_kv)]  # of the key/value heads
        marks = [(j, 1, "o", 26, str(j), j // group) for j in range(2 * h)]
        marks += [(place, 0, "s", 38, f"kv {kv}", kv) for kv, place in enumerate(places)]
        for j in range(2 * h):
            ax.plot([j, places[j // group]], [1, 0], color="#9a9a9a", linewidth=1.5)
        for place, y, shape, size, label, kv in marks:
            ax.plot(place, y, shape, markersize=size, color=("#56B4E9", "#E69F00")[kv])
            ax.text(place, y, label, ha="center", va="center")
        for i, j in pairs:
            wrong = straddling(h, h_kv, [(i, j)])
            look = {"color": "#C00040", "linestyle": ":"} if wrong else {"color": "black"}
            angle, radius = np.linspace(0, np.pi, 30), (j - i) / 2
            ax.plot(
                (i + j) / 2 + radius * np.cos(angle), 1.2 + 0.17 * radius * np.sin(angle), **look
            )
        ax.set(title=title, xlabel=f"{straddling(h, h_kv, pairs)} of {h} pairs have two colours")
        ax.set(xlim=(-0.7, 2 * h - 0.3), ylim=(-0.25, 1.65), xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    return fig


@styled
def compared_with_what(h=64, head_dim=128, n_embd=4096):
    """Attention weights of DIFF V2 in percent of three softmax layers, against h_kv / h."""
    fig, ax = plt.subplots(figsize=(11, 5.2))
    n_kv_heads = [kv for kv in range(1, h + 1) if h % kv == 0]
    against = (1, "softmax_h", "v"), (1.5, "softmax", "s"), (2, "softmax_2h", "^")
    for factor, name, marker in against:
        sizes = [
            (n_embd, heads, kv, head_dim) for heads in (h, int(factor * h)) for kv in n_kv_heads
        ]
        half = len(n_kv_heads)
        diff = [theory.attention_params(*size, diff_v2=True) for size in sizes[:half]]
        percent = 100 * (np.divide(diff, [theory.attention_params(*s) for s in sizes[half:]]) - 1)
        look = dotted_line(name) | {"marker": marker}
        ax.plot(np.divide(n_kv_heads, h), percent, **look)
        ax.text(1.1, percent[-1], f"against {factor:g}h heads".replace("1h", "h"), va="center")
    ax.axhline(-25, **plots.DASHED)
    ax.text(1.1, -26, "25% fewer", va="top")
    ax.set_xscale("log", base=2)
    ax.set_xticks([1 / 64, 1 / 16, 1 / 4, 1], ["1/64", "1/16", "1/4", "1"])
    ax.set(xlabel="h_kv / h", ylabel="more or fewer weights (%)", xlim=(None, 3.6), ylim=(-34, 56))
    ax.yaxis.set_major_formatter(lambda y, _: f"{y:+g}" if y else "0")
    ax.set_title(f"Attention weights of DIFF V2 against softmax (h = {h}, d = {head_dim})")
    return fig


# ---- 02: context RMS ---------------------------------------------------------------------------


@styled
def sharpness(ns=(16, 256, 4096, 16384)):
    """Effective tokens of a row with one logit g above n - 1 equal ones; dots: its weight is ½."""
    fig, ax = plt.subplots()
    gaps = np.linspace(0, 16, 161)
    for n, shade in zip(ns, SHADES, strict=True):
        ax.plot(gaps, peaked_tokens(n, gaps), color=shade, label=f"n = {n}")
        half = np.log(n - 1)  # the weight of the token that stands out is 1/2
        ax.plot(half, peaked_tokens(n, half), "o", color=shade)
    ax.set(
        yscale="log", xlabel="logit gap g of one token over all others", ylabel="effective tokens"
    )
    ax.set_yticks((1, 4, 16, 256, 4096, 16384), ("1", "4", "16", "256", "4096", "16384"))
    ax.minorticks_off()
    ax.set_title("A longer context needs sharper logits (dots: weight ½)")
    ax.legend()
    return fig


def peaked_tokens(n, gap):
    """1 / |a|^2 of the softmax row with one logit ``gap`` (numbers or arrays) above n - 1 zeros."""
    p = 1 / (1 + (n - 1) * np.exp(-gap))
    return 1 / (p**2 + (1 - p) ** 2 / (n - 1))


@styled
def rms_of_draws(measured):
    """Mean and scatter of drawn context RMS over softmax's range: sigma -> n -> (draws,)."""
    fig, ax = plt.subplots()
    plots.rms_bands(ax, [2**k for k in range(13)])
    for (sigma, draws), marker, shade in zip(measured.items(), "os^", SHADES[:0:-1], strict=True):
        mean = [float(rms.mean()) for rms in draws.values()]
        spread = [float(rms.std()) for rms in draws.values()]
        look = {"fmt": marker, "color": shade, "capsize": 4, "markeredgecolor": "white"}
        ax.errorbar(list(draws), mean, spread, label=f"logits of std {sigma}", **look)
    ax.legend(loc="lower left")
    return fig


@styled
def rms_by_position(curves, lam):
    """Context RMS at every position of a causal map, over the ranges at lam: name -> (T,)."""
    fig, ax = plt.subplots()
    n = range(1, 1 + len(next(iter(curves.values()))))
    plots.rms_bands(ax, n, lam=lam)
    for name, curve in curves.items():
        look = dots(name) | {"markersize": 5, "markeredgecolor": colour(name)}
        ax.plot(n, np.asarray(curve), label=f"{name}, measured", **look)
    ax.set(xlabel="n = position + 1", title=f"One causal map holds every n (λ = {lam:g})")
    ax.legend(loc="lower left")
    return fig


# ---- 02b: trained heads ------------------------------------------------------------------------


@styled
def rho_by_depth(depth):
    """Correlation of the values in each layer: name -> curves, one for each seed."""
    fig, ax = plt.subplots()
    for name, curves in depth.items():
        label = [f"{name} ({len(curves)} seeds)"] + [None] * (len(curves) - 1)
        ax.plot(np.transpose(curves), label=label, alpha=0.8, **dotted_line(name))
    ax.set(xlabel="layer", ylabel="ρ, correlation of values", ylim=(0, None))
    ax.set_title("Untrained models: what the values have in common, by depth")
    ax.legend()
    return fig


@styled
def theorem_and_heads(tables, most=3):
    """Each head's RMS, theorem across, measured up: label -> probe(); crosses: most on BOS."""
    fig, axes = plt.subplots(
        1, len(tables), figsize=(13, 6), sharex=True, sharey=True, squeeze=False
    )
    for ax, (label, table) in zip(axes[0], tables.items(), strict=True):
        by_share = sorted(table, key=lambda row: row["first_share_eff"])
        cross = {"marker": "X", "color": "black", "s": 160, "label": "most weight on BOS"}
        for rows, look in ((by_share[:-most], {}), (by_share[-most:], cross)):
            x, y = [r["rms_expected"] for r in rows], [r["rms"] for r in rows]
            ax.scatter(x, y, **({"color": colour(label), "s": 90, "edgecolor": "white"} | look))
        ax.axline((0, 0), slope=1, **plots.DASHED)
        ax.set(title=label, xlabel="theorem", xlim=(0, None), ylim=(0, None))
    axes[0, 0].set_ylabel("measured context RMS")
    axes[0, 0].legend(loc="upper left")
    return fig


@styled
def off_by_position(bins, solid, dashed):
    """Measured RMS over the theorem's, against n: (first, last + 1) of each bin, label -> ratios.

    Dashed: the same with BOS counted as a value of zero. Above the black line: too loud.
    """
    fig, ax = plt.subplots(figsize=(11, 5.2))
    middle = [round((a * b) ** 0.5) for a, b in bins]  # no parts of a token
    for label, ratio in solid.items():
        look = {"color": colour(label), "marker": dots(label)["marker"]}
        ax.plot(middle, ratio, "-", label=label, **look)
        ax.plot(middle, dashed[label], "--", label=f"{label}, BOS as zero", **look)
    ax.axhline(1, color="black", linewidth=1)
    ax.set(xscale="log", xlabel="n, tokens the query sees", ylabel="measured RMS / theorem")
    ax.set_xticks([a for a, _ in bins], [str(a) for a, _ in bins])
    ax.set_title("Median over the heads of a trained model")
    ax.minorticks_off()
    ax.set_ylim(0, None)
    ax.legend(loc="lower right", ncols=2)
    return fig
