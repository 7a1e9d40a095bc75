"""Figures of notebooks 03 and 04: lambda and sinks, in fresh and in trained models.

As in plots: data in, Figure out, nothing is shown. Each docstring says what can be read off.
"""

import matplotlib.pyplot as plt
import numpy as np

from minidiff.look import plots
from minidiff.look.style import DASHED, colour, dots, dotted_line, line, styled

NAMES = {"off_by_one": "off by one", "sink_logit": "sink logit", "diff_v2": "DIFF V2"}

# ---- 03: lambda --------------------------------------------------------------------------------


@styled
def lambda_by_depth(fresh, init):
    """V1's lambda of each layer of a fresh model (n_layer,) over its lambda_init, and V2's 1/2."""
    fig, ax = plt.subplots(figsize=(10, 3.8))
    ax.plot(range(len(init)), init, label="λ_init of V1", **line("diff_v1"))
    ax.plot(range(len(fresh)), fresh, label="λ of a fresh V1 model", **dots("diff_v1"))
    ax.axhline(0.5, label="DIFF V2 at the start, every layer", **line("diff_v2"))
    ax.set(xlabel="layer", ylabel="λ", ylim=(0, 1.1))
    ax.legend(loc="lower right")
    return fig


@styled
def lambda_of_heads(lams):
    """Lambda of every head, a list of (T, h): dot the mean, bar from the 5% to the 95% quantile."""
    fig, ax = plt.subplots(figsize=(12, 4.6))
    for layer, lam in enumerate(np.asarray(one) for one in lams):
        h = lam.shape[1]
        x = layer + 0.7 * ((np.arange(h) + 0.5) / h - 0.5)
        ax.vlines(x, *np.quantile(lam, (0.05, 0.95), axis=0), colour("diff_v2"), linewidth=5)
        ax.plot(x, lam.mean(0), "o", color="black", markersize=8)
    ax.axhline(0.5, **DASHED)
    ax.set(xlabel="layer (one bar for each head)", ylabel="λ", ylim=(0, 1), xticks=range(len(lams)))
    ax.set_title("λ over the tokens: mean, and 90% of them (dashed: the start)")
    ax.grid(axis="x", visible=False)
    return fig


@styled
def lambda_on_text(labels, lam, width=52):
    """The text itself, each token on the colour of its lambda (T,): bright subtracts more."""
    lam = np.asarray(lam)
    rows = -(-len(lam) // width)
    grid = np.full(rows * width, np.nan)
    grid[: len(lam)] = lam
    fig, ax = plt.subplots(figsize=(13, 0.7 + 0.42 * rows))
    look = {"vmin": 0, "vmax": 1, "cmap": "cividis", "aspect": "auto"}
    picture = ax.imshow(grid.reshape(rows, width), **look)
    fig.colorbar(picture, ax=ax, label="λ", pad=0.01)
    for i, label in enumerate(labels):
        tint = "black" if lam[i] > 0.5 else "white"
        size = 15 if len(label) == 1 else 9
        where = {"ha": "center", "va": "center", "fontfamily": "monospace"}
        ax.text(i % width, i // width, label, color=tint, fontsize=size, **where)
    ax.set(xticks=[], yticks=[])
    ax.grid(visible=False)
    return fig


# ---- 04: sinks ---------------------------------------------------------------------------------


@styled
def reachable(values, lams):
    """All outputs of a head over values (n, 2), a panel for each lambda; None stands for softmax.

    Softmax reaches the convex hull, DIFF V2 all p - lambda q with p and q in it. Star: silence.
    """
    values, angle = np.asarray(values), np.linspace(0, 2 * np.pi, 721)
    far = np.stack([np.cos(angle), np.sin(angle)], 1) @ values.T  # (directions, n)
    ahead, behind = values[far.argmax(1)], values[far.argmin(1)]
    fig, axes = plt.subplots(1, len(lams), figsize=(10, 4.6), sharex=True, sharey=True)
    for ax, lam in zip(axes, lams, strict=True):
        edge = ahead - (lam or 0) * behind  # the farthest point in each direction
        name = "softmax" if lam is None else "diff_v2"
        ax.fill(*edge.T, color=colour(name), alpha=0.35)
        ax.plot(*values.T, "o", color="black", markersize=7)
        ax.plot(0, 0, "k*", markersize=18)
        title = "softmax" if lam is None else f"DIFF V2, λ = {lam}"
        ax.set(title=title, aspect="equal", xlabel="output, channel 1")
    axes[0].set_ylabel("output, channel 2")
    return fig


@styled
def trained_heads(found):
    """One head that learned to be silent: (name, bos) -> a list of results, one for each seed.

    Left: mean square error without BOS, asking and silent rows apart. Right: where silent rows
    put their weight with BOS; at the upper right a head parks all of it there.
    """
    fig, (left, right) = plt.subplots(1, 2, figsize=(14, 5.2))
    names = list(dict.fromkeys(name for name, _ in found))
    for i, name in enumerate(names):
        tint, label = colour(name), NAMES.get(name, name)
        for part, shift, mark in (("asking", -0.15, "^"), ("silent", 0.15, "o")):
            error = [getattr(one, part) for one in found[name, False]]
            x = i + shift + 0.05 * (np.arange(len(error)) - 1)
            left.plot(x, error, mark, color=tint, markeredgecolor="white")
        share = [one.share for one in found[name, True]]
        total = [one.total for one in found[name, True]]
        size = 22 - 3.5 * i  # later ones on top of earlier ones, and smaller: none hides another
        right.plot(total, share, label=label, markersize=size, **dots(name))
    left.set(yscale="log", ylabel="mean square error", title="Without BOS: ▲ asking, ● silent rows")
    left.set_xticks(range(len(names)), [NAMES.get(name, name) for name in names], rotation=20)
    left.set_xlim(-0.5, len(names) - 0.5)
    right.set(xscale="log", xlabel="total |w| of a silent row", ylabel="share of BOS in it")
    right.set(title="With BOS: where silent rows put weight", ylim=(0, 1.05))
    for mark in right.legend(loc="lower right").get_lines():
        mark.set_markersize(11)
    return fig


@styled
def one_head_maps(maps, labels):
    """Maps of one example, on one signed scale, a row of panels for each list of labels.

    Args:
        maps: for each row name -> map (T, T). labels: for each row the names of its T tokens.
    """
    fig, axes = plt.subplots(len(maps), len(maps[0]), figsize=(15, 3.3 * len(maps)))
    for row, panels, names in zip(axes, maps, labels, strict=True):
        for ax, (name, w) in zip(row, panels.items(), strict=True):
            w = np.where(np.tri(len(names), dtype=bool), np.asarray(w), np.nan)
            look = {"cmap": plots.SIGNED, "vmin": -1, "vmax": 1, "interpolation": "none"}
            picture = ax.imshow(w, **look)
            with_bos = "BOS" if names[0] == "B" else "no BOS"
            ax.set_title(f"{NAMES.get(name, name)}, {with_bos}", fontsize=14)
            ax.set_xticks(range(len(names)), names, fontsize=11)
            ax.set_yticks(range(len(names)), names, fontsize=11)
            ax.tick_params(length=0)
            ax.grid(visible=False)
    fig.colorbar(picture, ax=axes, label="weight", shrink=0.6)
    fig.supylabel("query", fontsize=15)
    fig.supxlabel("key", fontsize=15)
    return fig


@styled
def by_layer(panels):
    """Two numbers of every layer, a panel each: y label -> {model: (n_layer,)}; dashed: 1."""
    fig, axes = plt.subplots(1, len(panels), figsize=(13, 4.4))
    for ax, (label, curves) in zip(axes, panels.items(), strict=True):
        for name, curve in curves.items():
            ax.plot(np.asarray(curve), label=name, **dotted_line(name))
        ax.axhline(1, **DASHED)
        ax.set(xlabel="layer", ylabel=label, ylim=(0, None))
    axes[0].legend()
    return fig
