"""The pictures of the explorers in forms.py, for where nothing runs; also figures of their own.

As in plots: data in, Figure out, nothing is shown.
"""

import io

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from minidiff import theory
from minidiff.look import plots, style

LARGEST_N = 2**20  # tokens of a row in rms_figure: 16 MB
VALUES = [[-0.9, -0.5], [1.1, -0.3], [0.1, 1.1]]  # of three tokens, where hull_figure starts


def png(fig):
    """A figure as PNG in 128 colours, a quarter of the size: it travels in every notebook."""
    buffer, small = io.BytesIO(), io.BytesIO()
    fig.savefig(buffer, format="png", dpi=80)
    Image.open(buffer).convert("RGB").quantize(128).save(small, "png", optimize=True)
    return small.getvalue()


@plots.styled
def difference_figure(lam, **scores):
    """The picture of :func:`difference_explorer`: two softmax rows over three tokens, and w."""
    logits = np.array([[scores[token + query] for token in "abc"] for query in "12"], dtype=float)
    a1, a2 = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    fig, axes = plt.subplots(1, 3, figsize=(13, 4), sharey=True)
    looks = plots.colour("softmax"), style.MINUS, plots.colour("diff_v2")
    titles = "A1: softmax", "− λ A2", "A1 − λ A2: DIFF V2"
    rows = a1, 0 - lam * a2, a1 - lam * a2
    for ax, weights, title, colour in zip(axes, rows, titles, looks, strict=True):
        ax.bar_label(ax.bar(list("ABC"), weights, color=colour), fmt="%.3g", padding=2)
        ax.set(title=title, xlabel=f"sum {weights.sum():.3g}", ylim=(np.min(rows) - 0.15, 1.1))
        ax.axhline(0, color="black", linewidth=1)
        ax.grid(axis="x", visible=False)
    axes[0].set_ylabel("weight")
    return fig


@plots.styled
def rms_figure(n=1024, gap1=6.0, gap2=6.0, lam=0.5, rho=0.0, same=True):
    """The picture of :func:`rms_explorer` at one setting: a query's weights, and RMS against n."""
    theory.rms_bounds(n, lam)  # refuses a wrong n or lam, before there is a figure
    if n > LARGEST_N:
        raise ValueError(f"n={n} is over {LARGEST_N}, the longest row that is drawn here")
    a1, a2 = _peaked_rows(n, gap1, gap2, same)
    fig, (bars, ax) = plt.subplots(1, 2, figsize=(14, 5.6), width_ratios=(3, 4))
    named = 1 if same else 2  # tokens with a bar of their own
    shown = {"A1 (softmax)": a1, "λ A2": lam * a2, "A1 − λ A2": a1 - lam * a2}
    looks = style.bar("softmax"), {"color": style.MINUS}, style.bar("diff_v2")
    for i, ((label, w), look) in enumerate(zip(shown.items(), looks, strict=True)):
        x, heights = np.arange(named + 1) + 0.28 * (i - 1), [*w[:named], w[named:].sum()]
        drawn = bars.bar(x, heights, width=0.25, label=label, **look)
        bars.bar_label(drawn, fmt="%.2f", fontsize=13, padding=2)
    names = [*["token A", "token B"][:named], f"other {n - named} together"]
    bars.set_xticks(range(named + 1), names)
    bars.set(ylabel="weight", ylim=(-1.15, 1.3), title=f"Weights of one query, n = {n}")
    bars.legend(ncols=3, loc="lower center", columnspacing=1)
    grid = 2 ** np.arange(1, 15)
    plots.rms_bands(ax, grid, lam, rho)
    for label, factor in (("softmax", 0), ("DIFF V2", lam)):
        rows = (_peaked_rows(k, gap1, gap2, same) for k in grid)
        curve = [theory.expected_rms(first - factor * second, rho) for first, second in rows]
        ax.plot(grid, curve, label=label, **style.line(label))
        here = theory.expected_rms(a1 - factor * a2, rho)
        size = 19 if label == "softmax" else 12  # both can be seen where they have one place
        ax.plot(n, here, markersize=size, **style.dots(label))
    ax.legend(loc="lower left")
    return fig


def _peaked_rows(n, gap1, gap2, same):
    """Two softmax rows (2, n): A1 peaks at token 0, A2 at token 0 or 1."""
    logits = np.zeros((2, n))
    logits[0, 0] = gap1
    logits[1, 0 if same else 1] = gap2
    rows = np.exp(logits)
    return rows / rows.sum(1, keepdims=True)


@plots.styled
def cost_figure(n_head=32, n_kv_head=8, head_dim=128, n_embd=4096, n_keys=8192):
    """The picture of :func:`cost_explorer` at one setting: a layer's weights, and decoding."""
    fig, axes = plt.subplots(1, 3, figsize=(14, 4.4), sharey=True)
    softmax = [(f"softmax, {factor}h heads", factor) for factor in ("", 1.5, 2)]
    for label, factor in [*softmax, ("DIFF V2", 1)]:
        diff, heads = label == "DIFF V2", (factor or 1) * n_head
        weights = theory.attention_params(n_embd, heads, n_kv_head, head_dim, diff_v2=diff)
        queries = 2 * heads if diff else heads
        cost = theory.decode_attention_cost(n_keys, queries, n_kv_head, head_dim)
        for ax, value in zip(axes, (weights, *cost), strict=True):
            bar = ax.barh(label, value / 1e6, color=plots.colour(label))
            ax.bar_label(bar, fmt="%.4g", padding=4)
    titles = "Weights of one layer", "Decode: operations", "Decode: bytes read"
    cache = f"for each token,\n{n_keys} tokens in the cache"
    units = "millions", f"millions {cache}", f"MB {cache}"
    for ax, title, label in zip(axes, titles, units, strict=True):
        ax.set(title=title, xlabel=label)
        ax.margins(x=0.22)
        ax.grid(axis="y", visible=False)
    axes[0].invert_yaxis()
    return fig


@plots.styled
def hull_figure(lam, a1, a2, values=VALUES):
    """Triangle of the softmax contexts, set of the differences, and both contexts of one query."""
    values, a1, a2 = np.array(values), np.array(a1), np.array(a2)  # (3, 2), (3,), (3,)
    corners = (values[:, None] - lam * values[None]).reshape(-1, 2)  # v_i - lam v_j: (9, 2)
    fig, ax = plt.subplots(figsize=(7, 5.6))
    angles = np.linspace(0, 2 * np.pi, 181)
    directions = np.stack((np.cos(angles), np.sin(angles)))  # (2, 181)
    outline = corners[(corners @ directions).argmax(0)]  # the farthest corner in each direction
    ax.fill(*outline.T, color="#f7dfcc", label="differences")
    ax.fill(*values.T, color="#cce2f0", label="softmax contexts")
    first, second = a1 @ values, a2 @ values
    dots = [(first, plots.colour("softmax"), "A1 V"), (second, style.MINUS, "A2 V")]
    dots += [(first - lam * second, plots.colour("diff_v2"), "A1 V − λ A2 V")]
    for point, colour, label in dots:
        ax.plot(*point, color=colour, linestyle="", label=label, **plots.DOT)
    ax.plot(0, 0, "k+", markersize=16, label="0: silence")
    middle = values.mean(0)
    for name, value in zip("ABC", values, strict=True):  # outside, where no dot is
        away = (value - middle) / np.linalg.norm(value - middle).clip(1e-9)
        look = {"ha": "center", "va": "center", "textcoords": "offset points", "weight": "bold"}
        ax.annotate(name, value, 11 * away, fontsize=16, **look)
    ax.margins(0.13)
    ax.set(aspect="equal", title=f"Three values, λ = {lam}")
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return fig


@plots.styled
def pairs_figure(n_head, n_kv_head, halves):
    """The 2h query heads in their key/value groups, and an arc for each pair."""
    fig, ax = plt.subplots(figsize=(10, 3.4))
    size = 2 * n_head // n_kv_head
    for group in range(n_kv_head):
        ax.axvspan(group * size - 0.5, group * size + size - 0.5, color="#e8eef3", alpha=group % 2)
    for i in range(n_head):
        first, second = (i, i + n_head) if halves else (2 * i, 2 * i + 1)
        right = first // size == second // size
        x = np.linspace(first, second, 50)
        height = (x - first) * (second - x) / (second - first)
        look = "-" if right else "--"
        ax.plot(x, height, look, color=plots.colour("diff_v2") if right else "#b00020")
    ax.plot(range(2 * n_head), [0] * (2 * n_head), "s", color="#444444")
    ax.set(xlabel="query head (shades: key/value heads)", yticks=(), xticks=range(2 * n_head))
    ax.grid(visible=False)
    ax.set_title("pairs: " + ("halves, dashed where keys differ" if halves else "neighbours"))
    return fig
