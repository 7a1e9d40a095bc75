"""The pictures of notebook 07: what is drawn is what was found."""

import matplotlib.pyplot as plt
import pytest

from minidiff.course import comparing
from minidiff.study.findings import Finding

TEXTS = {
    "Python": {0.001: Finding("loss", "", (-0.01, -0.012, -0.014), "t"),
               0.006: Finding("loss", "", (-0.2, -0.3), "t")},
    "English": {0.001: Finding("loss", "", (0.01, 0.02, 0.06), "t"),
                0.002: Finding("loss", "", (0.048,), "t")},
}  # fmt: skip


@pytest.fixture
def axes():
    fig = comparing.differences_by_rate(TEXTS, {"Python": 0.001, "English": 0.001})
    yield fig.axes[0]
    plt.close(fig)


def test_each_text_has_a_line_through_its_numbers(axes):
    lines = {line.get_label(): line for line in axes.get_lines()}
    for text, found in TEXTS.items():
        assert [*lines[text].get_ydata()] == [finding.number for finding in found.values()]
        assert [*lines[text].get_xdata()] == pytest.approx([*found], rel=0.02)
    assert lines["Python"].get_linestyle() != lines["English"].get_linestyle()
    assert lines["Python"].get_marker() != lines["English"].get_marker()


def test_each_interval_is_a_bar_and_a_single_run_has_an_open_dot(axes):
    bars = [tuple(line.get_ydata()) for line in axes.get_lines() if line.get_alpha()]
    several = [f for found in TEXTS.values() for f in found.values() if len(f.sample) > 1]
    assert bars == [tuple(finding.interval()) for finding in several]
    (dot,) = [line for line in axes.get_lines() if line.get_markerfacecolor() == "white"]
    assert [*dot.get_ydata()] == [0.048]


def test_every_rate_is_a_tick_and_the_best_is_named_once_a_text(axes):
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["1", "2", "6"]
    named = [text for text in axes.texts if text.get_text() == "best rate"]
    assert [text.xy[1] for text in named] == [
        TEXTS["Python"][0.001].number,
        TEXTS["English"][0.001].number,
    ]


def test_a_third_text_is_refused():
    with pytest.raises(ValueError, match="longer"):
        three = TEXTS | {"French": TEXTS["English"]}
        comparing.differences_by_rate(three, dict.fromkeys(three, 0.001))
