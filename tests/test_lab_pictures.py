"""The figures of notebook 13: legible, labelled, and true to what they are given."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.text import Text

from minidiff.course import lab_pictures

ROWS = [{"curve": list(np.linspace(2.8, end, 20)), "steps": 400} for end in (1.0, 2.0)]


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


@pytest.mark.slow
def test_every_figure_has_labels_and_legible_text():
    for fig in (
        lab_pictures.learning({"short": {"DIFF V2": ROWS}, "long": {"softmax": ROWS}}, {2.2: "x"}),
        lab_pictures.by_seed({"DIFF V2": [0.1, 0.5], "softmax": [0.2, 0.3]}, "share", level=0.1),
    ):
        fig.canvas.draw()
        texts = [t for t in fig.findobj(Text) if t.get_visible() and t.get_text().strip()]
        assert min(t.get_fontsize() for t in texts) >= 13
        assert all(ax.get_xlabel() for ax in fig.axes)


def test_a_curve_is_each_part_of_the_run_at_its_middle_and_the_thick_one_their_mean():
    (ax,) = lab_pictures.learning({"a": {"DIFF V2": ROWS}}, {}).axes
    *thin, thick = ax.lines
    assert len(thin) == 2 and list(thick.get_xdata()[:2]) == [10, 30]
    mean = np.mean([row["curve"] for row in ROWS], 0)
    assert thick.get_ydata() == pytest.approx(mean)


def test_there_is_a_dot_for_each_seed_and_a_bar_at_the_mean():
    (ax,) = lab_pictures.by_seed({"DIFF V2": [0.1, 0.5]}, "share").axes
    dots, bar = ax.lines
    assert list(dots.get_xdata()) == [0.1, 0.5] and list(bar.get_xdata()) == [0.3, 0.3]
