"""Pictures that one notebook needs; what several need is in look/plots.py."""

import matplotlib.pyplot as plt

from minidiff.look import plots, style


@plots.styled
def copying(found, tokens, following):
    """Where the last query of a copying head looks: a softmax head, and one of DIFF V2 in two rows.

    Args:
        found: {"softmax": (view, head), "DIFF V2": (view, head)}, views from probe.attention_maps.
        tokens: (T,) token ids. following: the position of the byte that should be copied.
    """
    (softmax, i), (diff, j) = found["softmax"], found["DIFF V2"]
    a1, taken = diff.a1[j, -1], diff.lam[-1, j] * diff.a2[j, -1]  # (T,) each
    blue, red = plots.colour("softmax"), plots.colour("diff_v2")
    rows = {
        "softmax: a": [(softmax.weights[i, -1], blue)],
        "DIFF V2: a1, and λ a2 taken away": [(a1, blue), (-taken, style.MINUS)],
        "DIFF V2: a1 − λ a2": [(diff.weights[j, -1], red)],
    }
    fig, axes = plt.subplots(3, figsize=(11, 6.6), sharex=True, sharey=True)
    for ax, (title, bars) in zip(axes, rows.items(), strict=True):
        for weights, colour in bars:
            ax.bar(range(len(tokens)), weights, color=colour)
        ax.axvspan(following - 0.5, following + 0.5, fill=False, linewidth=2)
        ax.axhline(0, color="black", linewidth=1)
        ax.set_title(title, loc="left")
        ax.grid(axis="x", visible=False)
    axes[1].set(ylabel="weight", xlim=(-0.7, len(tokens) - 0.3))
    axes[2].set_xticks(range(len(tokens)), plots.token_labels(tokens), fontfamily="monospace")
    axes[2].set_xlabel("key (the framed byte is the one to copy; the query is the last)")
    return fig
