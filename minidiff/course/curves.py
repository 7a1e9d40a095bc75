"""Pictures of notebook 05: a loss that grows while two models train, and two runs step by step.

Two models that see the same batches have almost the same curve. So one line is wide and the other
narrow, drawn over it; and what differs is drawn by itself.
"""

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import display
from matplotlib.patheffects import withStroke

from minidiff.look.plots import DASHED, STYLE, colour, styled


class LiveLoss:
    """One picture of the loss against the step; each group of new rows is drawn into it.

    It is an image and no widget: a saved notebook keeps it.
    """

    def __init__(self, steps, level, label):
        """``steps`` of the whole run; ``level``: a dashed line, such as a simpler model's loss."""
        with plt.rc_context(STYLE):
            self.fig, self.ax = plt.subplots(figsize=(10, 4.4), dpi=80)
        plt.close(self.fig)  # shown by show() alone
        self.ax.axhline(level, label=label, zorder=4, **DASHED)
        self.ax.set(
            xlim=(0, 1.02 * steps), ylim=(0, 5.8), xlabel="training step", ylabel="loss (nats/byte)"
        )
        self.lines, self.handle = {}, None

    def show(self):
        self.handle = display(self.fig, display_id=True)

    def add(self, label, rows):
        """Draw the rows of ``metrics.jsonl`` that ``train`` hands to its ``on_log``."""
        if label not in self.lines:
            first = not self.lines  # the wide line, on which the second one lies
            width, size = (5, 14) if first else (1.8, 7)
            look = {"color": colour(label), "zorder": 2 + len(self.lines)}
            (line,) = self.ax.plot([], [], linewidth=width, label=label, **look)
            (dots,) = self.ax.plot([], [], "o", markersize=size, markeredgecolor="white", **look)
            self.lines[label] = {"loss": (line, []), "val_loss": (dots, [])}
            with plt.rc_context(STYLE):
                self.ax.legend(title="dots: validation")
        for key, (artist, points) in self.lines[label].items():
            points += [(row["step"], row[key]) for row in rows if key in row]
            artist.set_data(*np.reshape(points, (-1, 2)).T)
        if self.handle:
            self.handle.update(self.fig)


@styled
def step_by_step(runs, grad_clip):
    """Difference of two losses on the same batch, and both gradient norms, at each step.

    Args:
        runs: two of label -> rows of a ``metrics.jsonl``; the first minus the second is shown.
        grad_clip: the norm to which a larger gradient is cut.
    """
    (one, other), (name, minus) = runs.values(), runs
    fig, (left, right) = plt.subplots(1, 2, figsize=(13, 5.2))
    steps, losses = zip(*(_column(rows, "loss") for rows in (one, other)), strict=True)
    if not np.array_equal(*steps):
        raise ValueError(f"{name} and {minus} have not the same steps: there is no difference")
    difference = losses[0] - losses[1]
    left.plot(steps[0], difference, ".", markersize=4, color="#9a9a9a", label="one step")
    middle = _running_median(steps[0], difference)
    left.plot(*middle, color="black", label="running median")
    left.axhline(0, **DASHED)
    shown = [*np.percentile(difference, (2, 98)), *middle[1], -0.01, 0.01]
    left.set_ylim(1.1 * min(shown), 1.1 * max(shown))
    left.set(xlabel="training step", ylabel="difference of losses (nats/byte)")
    left.set_title(f"{name} minus {minus}, on the same batch")
    rim = withStroke(linewidth=5, foreground="white")  # a line stays visible on its own dots
    for (label, rows), line in zip(runs.items(), ("-", "--"), strict=True):
        x, norms = _column(rows, "grad_norm")
        look = {"color": colour(label), "path_effects": [rim]}
        right.plot(x, norms, ".", markersize=3, alpha=0.35, color=colour(label))
        right.plot(*_running_median(x, norms), line, zorder=3, label=label, **look)
    right.axhline(grad_clip, color="black", linestyle=":", label="clipped above")
    right.set(yscale="log", xlabel="training step", ylabel="norm before clipping")
    right.set_title("Gradient norm")
    for ax in (left, right):
        ax.legend()
    return fig


def _column(rows, key):
    """Steps, and the values of one column, of the rows that have it: two arrays."""
    return np.array([(row["step"], row[key]) for row in rows if key in row]).T


def _running_median(x, y):
    """Medians over a fortieth of the values, at the middle of each such stretch."""
    k = 1 + len(x) // 40
    pieces = np.lib.stride_tricks.sliding_window_view(np.stack([x, y]), k, axis=1)
    return np.median(pieces, -1)
