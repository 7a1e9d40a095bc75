"""The README's figure draws the numbers it is given, and can be read."""

import math

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.text import Text

from minidiff.look import worth

PYTHON = {
    "DIFF V2": {5e-4: (0.67, math.nan, math.nan), 1e-3: (0.66, 0.65, 0.67), 6e-3: (0.8, 0.7, 0.9)},
    "softmax 1.5h": {1e-3: (0.68, 0.67, 0.69), 6e-3: (1.1, 0.9, 1.3)},
}
ENGLISH = {
    "DIFF V2": {1e-3: (0.99, 0.97, 1.01), 2e-3: (1.0, 0.98, 1.02)},
    "softmax 1.5h": {1e-3: (0.98, 0.96, 1.0), 2e-3: (0.95, 0.93, 0.97)},
}
LOSSES = {"Python": PYTHON, "English": ENGLISH}
GAPS = {
    "1000, 0.001 (6 seeds)": [(500, -0.02, -0.03, -0.01), (1000, -0.01, -0.02, 0.0)],
    "1500, 0.003 (1 seed)": [(750, 0.3, math.nan, math.nan), (1500, 0.1, math.nan, math.nan)],
}
FAIR = {"equal steps": (-0.014, -0.02, -0.009), "equal time": (0.001, -0.004, 0.006)}


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def drawn(ax):
    """The points of all lines of an axes that have more than one."""
    return [np.array(line.get_xydata()) for line in ax.lines]


def test_the_gaps_are_drawn_bold_with_a_band_or_thin_without():
    (ax,) = worth.training_gaps(GAPS).axes
    lines = {line.get_label(): line for line in ax.lines}
    for label, rows in GAPS.items():
        assert np.allclose(lines[label].get_xydata(), [row[:2] for row in rows])
    several, one = (lines[label] for label in GAPS)
    assert several.get_linewidth() > one.get_linewidth()
    assert several.get_linestyle() != one.get_linestyle()
    (band,) = ax.collections
    ends = band.get_paths()[0].vertices[:, 1]
    assert (ends.min(), ends.max()) == (-0.03, 0.0)


def test_losses_have_their_intervals_and_those_too_high_are_written():
    upper, lower = worth.worth_it(LOSSES, GAPS).axes[:2]
    for ax, models in ((upper, PYTHON), (lower, ENGLISH)):
        bars = [c.lines[2][0].get_segments() for c in ax.containers]
        ends = sorted(round(float(y), 6) for segments in bars for s in segments for y in s[:, 1])
        best = min(mean for rates in models.values() for mean, *_ in rates.values())
        for rates in models.values():
            for mean, *span in rates.values():
                drawn = mean < best + worth.CLOSE
                assert math.isnan(span[0]) or all((y in ends) == drawn for y in span)
    (far,) = upper.texts
    assert far.get_text() == "at 6 thousandths: DIFF V2 0.80, softmax 1.5h 1.10"
    assert [text.get_text() for text in lower.texts] == [""]
    ticks = [label.get_text() for label in lower.get_xticklabels()]
    assert ticks == ["0.5", "1", "2"]  # of both texts, which share the axis


def test_equal_time_has_a_part_of_its_own_where_it_was_run():
    assert len(worth.worth_it(LOSSES, GAPS).axes) == 3
    part = worth.worth_it(LOSSES, GAPS, FAIR).axes[3]
    assert [label.get_text() for label in part.get_yticklabels()] == list(FAIR)
    spans = [tuple(points[:, 0]) for points in drawn(part)]
    assert (-0.02, -0.009) in spans and (-0.004, 0.006) in spans


def test_every_study_has_a_panel_with_its_own_lines():
    studies = [(label, {label: rows}) for label, rows in GAPS.items()] * 2
    axes = worth.gap_panels(studies).axes
    assert [ax.get_title() for ax in axes] == [title for title, _ in studies]
    for ax, (_, gaps) in zip(axes, studies, strict=True):
        (rows,) = gaps.values()
        assert any(np.array_equal(points, [row[:2] for row in rows]) for points in drawn(ax))
        low, high = ax.get_ylim()
        assert low < -0.3 and high > 0.3  # one scale for all


def test_text_can_be_read_from_the_back_row():
    panels = [(f"study {i}", GAPS) for i in range(4)]
    for fig in (
        worth.worth_it(LOSSES, GAPS, FAIR),
        worth.training_gaps(GAPS),
        worth.gap_panels(panels),
    ):
        fig.canvas.draw()
        sizes = [t.get_fontsize() for t in fig.findobj(Text) if t.get_visible() and t.get_text()]
        assert min(sizes) >= 13
        for ax in fig.axes:  # the upper of two that share an axis leaves the words to the lower
            alike = ax.get_shared_x_axes().get_siblings(ax)
            assert any(other.get_xlabel() for other in alike)


def test_the_two_models_differ_in_line_style_too():
    ax = worth.worth_it(LOSSES, GAPS).axes[0]
    styles = {c.get_label(): c.lines[0].get_linestyle() for c in ax.containers}
    assert styles["DIFF V2"] != styles["softmax 1.5h"]
