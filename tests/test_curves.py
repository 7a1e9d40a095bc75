"""The pictures of notebook 05: no line hides another, and a difference is that of equal steps."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

pytest.importorskip("IPython", reason="IPython is not installed here")
from minidiff.course import curves


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def rows(losses, norm=0.5):
    return [{"step": t, "loss": x, "grad_norm": norm} for t, x in enumerate(losses, 1)]


def test_both_lines_can_be_seen_where_they_have_one_place():
    live = curves.LiveLoss(3, 2.4, "bigram table")
    same = [*rows([3.0, 2.0, 1.0]), {"step": 3, "val_loss": 1.1}]
    live.add("DIFF V2", same)
    live.add("softmax 1.5h", same)
    (wide, big), (narrow, small) = (
        [artist for artist, _ in lines.values()] for lines in live.lines.values()
    )
    assert wide.get_linewidth() > 2 * narrow.get_linewidth()
    assert big.get_markersize() > 1.5 * small.get_markersize()
    assert wide.get_zorder() < narrow.get_zorder() and big.get_zorder() < small.get_zorder()
    assert wide.get_color() != narrow.get_color()
    assert np.array_equal(wide.get_xydata(), narrow.get_xydata())


def test_rows_that_come_in_groups_are_put_one_after_the_other():
    live = curves.LiveLoss(4, 2.4, "bigram table")
    for part in (rows([3.0, 2.5])[:1], [], rows([3.0, 2.5])[1:], [{"step": 2, "val_loss": 2.6}]):
        live.add("DIFF V2", part)
    line, dots = (artist.get_xydata().tolist() for artist, _ in live.lines["DIFF V2"].values())
    assert line == [[1, 3.0], [2, 2.5]] and dots == [[2, 2.6]]
    low, high = live.ax.get_xlim()
    assert low <= 0 and high > 4  # the last dot is whole


def test_the_first_minus_the_second_is_shown_at_each_step():
    one, other = np.linspace(3, 1, 80), np.linspace(3, 2, 80)
    fig = curves.step_by_step({"DIFF V2": rows(one), "softmax": rows(other, 2.0)}, grad_clip=1.0)
    left, right = fig.axes
    dots, median, zero = left.lines[:3]
    assert np.allclose(dots.get_ydata(), one - other) and np.allclose(zero.get_ydata(), 0)
    inside = left.get_ylim()
    assert inside[0] < median.get_ydata().min() and median.get_ydata().max() < inside[1]
    assert np.allclose(right.lines[-1].get_ydata(), 1.0) and right.get_yscale() == "log"
    assert {line.get_linestyle() for line in right.lines if len(line.get_xdata()) > 2} >= {
        "-",
        "--",
    }


def test_runs_of_other_steps_are_refused():
    with pytest.raises(ValueError, match="not the same steps"):
        curves.step_by_step({"DIFF V2": rows([3, 2, 1]), "softmax": rows([3, 2])}, grad_clip=1.0)
    shifted = [{**row, "step": row["step"] + 1} for row in rows([3, 2, 1])]
    with pytest.raises(ValueError, match="not the same steps"):
        curves.step_by_step({"DIFF V2": rows([3, 2, 1]), "softmax": shifted}, grad_clip=1.0)
