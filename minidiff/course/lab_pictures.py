"""Pictures of notebook 13: how soon each model learns to recall, and where its attention goes."""

import matplotlib.pyplot as plt
import numpy as np

from minidiff.look.style import DASHED, dots, line, styled


@styled
def learning(panels, levels):
    """Training curves: thin lines are seeds, the thick one is their mean.

    Args:
        panels: title -> label -> rows of study.capstone, with ``curve`` and ``steps``.
        levels: nats per token -> what a strategy without learning can have, a dashed line.
    """
    fig, axes = plt.subplots(1, len(panels), figsize=(14, 5.4), sharey=True, squeeze=False)
    for ax, (title, models) in zip(axes[0], panels.items(), strict=True):
        free = ["-.", ":", "--", "-"]  # for those whose own line style is taken
        for label, rows in models.items():
            look = line(label)
            look["linestyle"] = look["linestyle"] if look["linestyle"] in free else free[0]
            free.remove(look["linestyle"])
            curves = np.array([row["curve"] for row in rows])  # (seeds, 20)
            part = rows[0]["steps"] / curves.shape[1]
            step = part * (np.arange(curves.shape[1]) + 0.5)
            ax.plot(step, curves.T, alpha=0.25, linewidth=1, **look)
            mean = f"{label} ({len(rows)} seeds)"
            ax.plot(step, curves.mean(0), linewidth=3, label=mean, **look)
        for level, words in levels.items():
            ax.axhline(level, zorder=0, **DASHED)
            if ax is axes[0, -1]:  # the first panel's curves would cross it
                ax.text(0.99, level + 0.02, words, ha="right", transform=ax.get_yaxis_transform())
        ax.set(title=title, xlabel="training step", ylim=(0, None), xlim=(0, None))
        ax.legend(loc="lower left" if ax is axes[0, 0] else "center right")
    axes[0, 0].set_ylabel("loss (nats per token)")
    return fig


@styled
def by_seed(values, xlabel, level=None):
    """One number a seed, a row of dots for each label; the bar is the mean; dashed: a level."""
    fig, ax = plt.subplots(figsize=(11, 1.4 + 0.62 * len(values)))
    for y, (label, numbers) in enumerate(values.items()):
        ax.plot(numbers, [y] * len(numbers), markersize=12, **dots(label))
        mean = np.mean(numbers)
        ax.plot([mean, mean], [y - 0.32, y + 0.32], color="black", linewidth=3)
    if level is not None:
        ax.axvline(level, zorder=0, **DASHED)
    ax.set_yticks(range(len(values)), list(values))
    ax.set(xlabel=xlabel, ylim=(len(values) - 0.5, -0.5), xlim=(0, None))
    return fig
