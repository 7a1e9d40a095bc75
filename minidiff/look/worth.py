"""The figure of the README, is DIFF V2 worth it; and the gap over training of all pairs of runs."""

import math

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import MaxNLocator

from minidiff.look.style import DASHED, DOT, clear_colour, dotted_line, styled

CLOSE = 0.08  # nats: of rates whose loss is further from the lowest, the losses are written


@styled
def training_gaps(gaps):
    """Loss of DIFF V2 minus softmax against the step, with a band where there are several seeds.

    Args:
        gaps: label -> [(step, mean, low, high)] in nats a byte, as evidence.gap_over_training
            gives them; low and high are nan for one seed.
    """
    fig, ax = plt.subplots(figsize=(13, 7))
    _gaps(ax, gaps)
    ax.legend(fontsize=13, loc="center left", bbox_to_anchor=(1, 0.5))
    return fig


@styled
def gap_panels(studies):
    """The gap over training: a panel for each study, a line for each learning rate.

    Args:
        studies: [(title, gaps)], gaps as for training_gaps.
    """
    across = 3
    down = math.ceil(len(studies) / across)
    fig, axes = plt.subplots(down, across, figsize=(24, 4.8 * down), sharey=True, squeeze=False)
    for ax, (title, gaps) in zip(axes.flat, studies, strict=False):
        _gaps(ax, gaps)
        ax.set_title(title)
        ax.legend(fontsize=13, title="rate (seeds)", loc="upper left", bbox_to_anchor=(1, 1))
    for ax in axes.flat[len(studies) :]:
        ax.remove()
    for ax in axes[:, 1:].flat:
        ax.set_ylabel("")
    return fig


@styled
def worth_it(losses, gaps, fair=None):
    """Loss against learning rate; the gap over training; and, where it was run, equal time.

    Args:
        losses: a text -> label of a model -> {learning rate: (mean, low, high)}, nats a byte:
            one or two texts, one above the other.
        gaps: as for training_gaps. fair: label -> (mean, low, high) of the difference, such as
            {"equal steps": ..., "equal time": ...}; None leaves that part out.
    """
    parts = 3 if fair else 2
    fig = plt.figure(figsize=(8 * parts, 7.6), layout="constrained")
    left, *rest = fig.subfigures(1, parts)
    upper = left.subplots(len(losses), sharex=True, squeeze=False)[:, 0]
    ticks = set()
    for ax, (text, models) in zip(upper, losses.items(), strict=True):
        ticks |= _losses(ax, models)
        ax.set(title=f"The learning rate decides: {text}", ylabel="loss (nats/byte)")
    upper[-1].set_xticks(sorted(ticks), [f"{1000 * lr:g}" for lr in sorted(ticks)])
    upper[-1].set_xlabel("peak learning rate (thousandths)")
    upper[-1].legend(loc="lower left")
    axes = [left, *(part.subplots() for part in rest)]
    _gaps(axes[1], gaps)
    axes[1].legend(fontsize=13, title="steps, rate, seeds")
    widest = max(abs(y) for rows in gaps.values() for row in rows for y in row[1:] if y == y)
    axes[1].set_ylim(-1.3 * widest, 1.3 * widest)
    if fair:
        for y, (mean, low, high) in enumerate(fair.values()):
            clear = {"color": clear_colour(low, high)}
            axes[2].plot([low, high], [y, y], linewidth=4, **clear)
            axes[2].plot(mean, y, markersize=13, **clear, **DOT)
        axes[2].set_yticks(range(len(fair)), list(fair))
        axes[2].set(xlabel="DIFF V2 − softmax (nats/byte)", ylim=(len(fair) - 0.5, -0.5))
        axes[2].xaxis.set_major_locator(MaxNLocator(4))
        axes[2].set_title("What is held equal")
        axes[2].axvline(0, zorder=0, **DASHED)
    return fig


def _losses(ax, losses):
    """Draw mean and interval of each model at each rate; write what lies too high. The rates."""
    best = min(mean for rates in losses.values() for mean, *_ in rates.values())
    shifts = np.linspace(0.97, 1.03, len(losses))  # side by side: no interval hides another
    far = {}
    for (label, rates), shift in zip(losses.items(), shifts, strict=True):
        close = {lr: row for lr, row in rates.items() if row[0] < best + CLOSE}
        for lr in rates.keys() - close.keys():
            far.setdefault(lr, []).append(f"{label} {rates[lr][0]:.2f}")
        mean, low, high = np.array(list(close.values())).T
        bars = np.nan_to_num([mean - low, high - mean])  # one seed: no interval
        look = {"label": label, "capsize": 5} | dotted_line(label)
        ax.errorbar(shift * np.array(list(close)), mean, bars, **look)
    lines = (f"at {1000 * lr:g} thousandths: {', '.join(far[lr])}" for lr in sorted(far))
    ax.text(0.5, 0.97, "\n".join(lines), transform=ax.transAxes, ha="center", va="top", fontsize=13)
    ax.set_xscale("log")
    ax.minorticks_off()
    return {lr for rates in losses.values() for lr in rates} - far.keys()


def _gaps(ax, gaps):
    """Draw the gaps: bold with a band where there is an interval, thin and dotted for one seed."""
    tints = plt.get_cmap("viridis")(np.linspace(0, 0.85, max(len(gaps), 1)))
    for i, (label, rows) in enumerate(gaps.items()):
        step, mean, low, high = np.array(rows, dtype=float).T
        several = np.isfinite(low).all()
        ax.plot(step, mean, color=tints[i], label=label, marker="osD^vP*X"[i % 8], markersize=9,
                markeredgecolor="white", linestyle="-" if several else ":",
                linewidth=2.5 if several else 1.5)  # fmt: skip
        if several:
            ax.fill_between(step, low, high, color=tints[i], alpha=0.15, linewidth=0)
    ax.axhline(0, zorder=0, **DASHED)
    ax.set_yscale("symlog", linthresh=0.03, linscale=2)  # 0.01 and 0.3 in one picture
    ticks = [-0.5, -0.1, -0.03, -0.02, -0.01, 0, 0.01, 0.02, 0.03, 0.1, 0.5]
    ax.set_yticks(ticks, [f"{y:+g}" if y else "0" for y in ticks])
    ax.minorticks_off()
    ax.set(xlabel="training step", ylabel="DIFF V2 − softmax (nats/byte)")
    ax.set_title("The gap over training (below 0: DIFF V2 is better)")
