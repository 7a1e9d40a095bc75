"""course/caching.py: the pictures of notebook 10, and the rows that a GPU measured."""

import json

import matplotlib.pyplot as plt
import numpy as np
import pytest
from study_results import folder, pair

from minidiff.course import caching
from minidiff.study.checks import Pairs
from minidiff.study.evidence import Evidence
from minidiff.study.findings import SHOWN


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def row(what, variant, T, **more):
    return {"what": what, "variant": variant, "T": T} | more


ROWS = [
    row("prefill", "diff_v2", 8192, ms=20.0),
    row("prefill", "diff_v2", 32768, ms=200.0),
    row("prefill", "yoco_diff_v2", 8192, ms=8.0),
    row("step", "diff_v2", 8192, ms=1.0, cache_mb=33.6),
    row("step", "diff_v2", 32768, error="out of memory"),
    row("step", "yoco_diff_v2", 8192, ms=0.9, cache_mb=4.7),
    row("blocks", "sparse_pair", 8192, ms=3.0),
]


def test_rows_of_whole_models_are_read_without_those_that_failed(tmp_path):
    (tmp_path / "bench_context.json").write_text(json.dumps({"rows": ROWS}), encoding="utf-8")
    rows = caching.context_rows(tmp_path)
    assert len(rows) == 5 and rows["step", "yoco_diff_v2", 8192]["cache_mb"] == 4.7
    panels = caching.measured(rows).axes
    drawn = [{line.get_label(): list(line.get_ydata()) for line in ax.lines} for ax in panels]
    assert drawn == [
        {"diff_v2": [20.0, 200.0], "yoco_diff_v2": [8.0]},
        {"diff_v2": [1.0], "yoco_diff_v2": [0.9]},
        {"diff_v2": [33.6], "yoco_diff_v2": [4.7]},
    ]


@pytest.mark.parametrize("text", [None, "{}", "[]", "{"])
def test_a_file_without_rows_is_named_with_the_command_that_makes_it(tmp_path, text):
    if text is not None:
        (tmp_path / "bench_context.json").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"bench_context\.json.*measure\.sh context"):
        caching.context_rows(tmp_path)


def test_the_prompt_shows_what_is_computed_and_kept():
    computed, kept = np.eye(2, 3, dtype=bool), np.ones((2, 3), dtype=bool)
    kept[0, 1] = False
    ax, _ = caching.prompt({"a": (computed, kept), "b": (kept, computed)}).axes
    shades = [cell.get_facecolor() for cell in ax.patches]
    white = [shade == (1, 1, 1, 1) for shade in shades]
    assert white == [False, True, True, True, False, True]
    (dots,) = ax.lines
    assert list(zip(*dots.get_data(), strict=True)) == [(0, 0), (2, 0), (0, 1), (1, 1), (2, 1)]


def test_costs_and_curves_are_drawn_as_they_are():
    left, _ = caching.growth([512, 2048], {"A": {"softmax": [1, 2]}, "B": {"YOCO": [3, 4]}}).axes
    assert [t.get_text() for t in left.get_xticklabels()] == ["512", "2k"]
    (line,) = left.lines
    assert list(line.get_ydata()) == [1, 2]
    lines = caching.learning({"DIFF V2": [[1.0, 0.5], [2.0, 0.5]]}, chance=1.4).axes[0].lines
    assert list(lines[2].get_ydata()) == [1.5, 0.5] and lines[3].get_ydata()[0] == 1.4


def test_losses_of_yoco_meet_those_of_the_plain_models_in_one_study(tmp_path):
    plain = pair([-0.02, -0.03, -0.01])
    yoco = pair([-0.01, 0.0, 0.01], one="yoco_diff_v2", other="yoco_softmax")
    evidence = Evidence(folder(tmp_path, evidence_25m_lr=plain, evidence_25m_yoco=yoco))
    for other, expected in (("yoco_softmax", 0.0), ("diff_v2", 0.02), ("softmax_1.5h", 0.0)):
        check = Pairs("val_loss", SHOWN, "yoco_diff_v2", other, "evidence_*yoco*")
        (found,) = check.findings(evidence)
        assert found.number == pytest.approx(expected) and found.of == "3 seeds"
