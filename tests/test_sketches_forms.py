"""The explorers' pictures show the numbers of the theory."""

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pytest
import torch

from minidiff import theory
from minidiff.course import example
from minidiff.look import sketches_forms as sketches


def test_the_rms_picture_shows_the_theorem():
    fig = sketches.rms_figure(n=256, gap1=5, gap2=4, lam=0.5, rho=0.2, same=False)
    logits = torch.zeros(2, 256, dtype=torch.float64)
    logits[0, 0], logits[1, 1] = 5, 4
    a1, a2 = logits.softmax(-1)
    points = [
        float(line.get_ydata()[0]) for line in fig.axes[1].lines if len(line.get_xdata()) == 1
    ]
    expected = [float(theory.expected_rms(w, 0.2)) for w in (a1, a1 - 0.5 * a2)]
    assert points == pytest.approx(expected, rel=1e-6)


def test_no_dot_hides_the_other():  # one flat map subtracted from a sharp one: the same RMS
    fig = sketches.rms_figure(n=64, gap1=4, gap2=0, lam=0.5)
    dots = [line for line in fig.axes[1].lines if len(line.get_xdata()) == 1]
    heights = [float(dot.get_ydata()[0]) for dot in dots]
    assert heights[1] == pytest.approx(heights[0], rel=0.06)
    assert dots[0].get_markersize() > 1.5 * dots[1].get_markersize()  # the later one lies on top


def test_the_cost_picture_has_the_weights_and_names_the_cache():
    widths = [bar.get_width() for bar in sketches.cost_figure().axes[0].patches]
    assert widths == pytest.approx([41.94304, 58.720256, 75.497472, 58.851328], rel=1e-9)
    for n_keys in (8192, 100):
        axes = sketches.cost_figure(n_keys=n_keys).axes
        named = [f"{n_keys} tokens in the cache" in ax.get_xlabel() for ax in axes]
        assert named == [False, True, True]  # weights have none


def test_the_difference_picture_is_the_courses_example():
    scores = {f"{t}1": s for t, s in zip("abc", example.SCORES_1.tolist(), strict=True)}
    scores |= {f"{t}2": s for t, s in zip("abc", example.SCORES_2.tolist(), strict=True)}
    axes = sketches.difference_figure(lam=example.LAM, **scores).axes
    bars = [bar.get_height() for ax in axes for bar in ax.patches]
    rows = example.A1, -example.LAM * example.A2, example.W  # what is taken away hangs down
    assert bars == pytest.approx(torch.cat(rows).tolist())


def test_the_picture_of_the_hull_has_its_corners():
    figure = sketches.hull_figure(0.5, (0.2, 0.3, 0.5), (0.5, 0.3, 0.2))
    filled = figure.axes[0].patches[0].get_xy()
    values = np.array(sketches.VALUES)
    corners = (values[:, None] - 0.5 * values[None]).reshape(-1, 2)
    assert all(np.abs(corners - point).sum(1).min() < 1e-9 for point in filled)
    assert filled[:, 0].max() == pytest.approx(corners[:, 0].max())


@pytest.mark.parametrize("halves, wrong", [(False, 0), (True, 4)])
def test_the_picture_of_pairs_dashes_what_reads_two_key_heads(halves, wrong):
    arcs = sketches.pairs_figure(4, 2, halves).axes[0].lines[:4]
    assert sum(arc.get_linestyle() == "--" for arc in arcs) == wrong
