"""The figures of single notebooks: legible, labelled, and true to what they are given."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.text import Text

from minidiff import theory
from minidiff.look import sketches

SMALLEST = 13  # points


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def rows_of(rng, n=8):
    keys = "first_share_eff", "rms_expected", "rms"
    return [dict(zip(keys, rng.random(3), strict=True)) for _ in range(n)]


def all_figures():
    rng = np.random.default_rng(0)
    pairs = [(0, 4), (1, 5), (2, 6), (3, 7)]
    bins, ratios = [(4, 8), (8, 16)], {"softmax": [0.6, 1.1], "DIFF V2": [0.9, 1.1]}
    return {
        "bars": sketches.weight_bars({"A1": [0.2, 0.8], "λ A2": [0.1, 0.4]}, "AB"),
        "heads": sketches.who_reads_whom({"halves": (4, 2, pairs)}),
        "compared": sketches.compared_with_what(),
        "sharpness": sketches.sharpness(),
        "draws": sketches.rms_of_draws({s: {1: np.ones(3), 4: rng.random(3)} for s in (0, 1, 3)}),
        "position": sketches.rms_by_position({"softmax": rng.random(32) + 0.1}, lam=0.5),
        "depth": sketches.rho_by_depth({"softmax": rng.random((2, 4))}),
        "theorem": sketches.theorem_and_heads({"softmax": rows_of(rng), "DIFF V2": rows_of(rng)}),
        "off": sketches.off_by_position(bins, ratios, ratios),
    }


@pytest.mark.slow
def test_every_figure_has_labels_and_legible_text():
    for name, fig in all_figures().items():
        fig.canvas.draw()
        texts = [t for t in fig.findobj(Text) if t.get_visible() and t.get_text().strip()]
        assert min(t.get_fontsize() for t in texts) >= SMALLEST, name
        assert all(ax.get_xlabel() for ax in fig.axes), name
        assert name == "heads" or any(ax.get_ylabel() for ax in fig.axes), name


def test_bars_are_the_weights_they_are_given():
    fig = sketches.weight_bars({"A1": [0.25, 0.75], "A1 − λ A2": [-0.1, 0.6]}, ["A", "B"])
    heights = [bar.get_height() for bar in fig.axes[0].patches]
    assert heights == pytest.approx([0.25, 0.75, -0.1, 0.6])


def test_wrong_pairs_are_counted_and_drawn_apart():
    cases = {"right": (4, 2, [(0, 1), (2, 3)]), "one wrong": (3, 2, [(0, 1), (2, 3), (4, 5)])}
    fig = sketches.who_reads_whom(cases)
    dotted = [sum(line.get_linestyle() == ":" for line in ax.lines) for ax in fig.axes]
    assert dotted == [0, 1]
    assert "0 of 4" in fig.axes[0].get_xlabel() and "1 of 3" in fig.axes[1].get_xlabel()


def test_a_dot_lies_where_the_weight_of_one_token_is_half():
    for n in (16, 16384):
        p = 1 / (1 + (n - 1) * np.exp(-np.log(n - 1)))
        row = np.array([p] + [(1 - p) / (n - 1)] * (n - 1))
        assert p == pytest.approx(0.5)
        tokens = sketches.peaked_tokens(n, np.log(n - 1))
        assert tokens == pytest.approx(float(theory.effective_tokens(row)))
        assert tokens == pytest.approx(4 * (n - 1) / n)  # 3.75 and not 4 for n = 16
    dots = [line for line in sketches.sharpness().axes[0].lines if len(line.get_xdata()) == 1]
    found = [float(dot.get_ydata()[0]) for dot in dots]
    assert found == pytest.approx([4 * (n - 1) / n for n in (16, 256, 4096, 16384)])


@pytest.mark.slow
def test_no_curve_runs_through_parts_of_a_token():
    for name in ("position", "off", "draws"):
        for ax in all_figures()[name].axes:
            for line in ax.lines:
                n = np.asarray(line.get_xdata(), dtype=float)
                assert (n == n.round()).all(), name


def test_the_percentages_are_those_of_the_theory():
    fig = sketches.compared_with_what(h=4, head_dim=8, n_embd=32)
    against_2h = fig.axes[0].lines[2].get_ydata()
    expected = [-100 * theory.saved_against_2h_heads(32, 4, kv, 8) for kv in (1, 2, 4)]
    assert list(against_2h) == pytest.approx(expected)


def test_the_crosses_are_the_heads_with_most_weight_on_bos():
    table = [{"first_share_eff": i / 10, "rms_expected": i, "rms": 2 * i} for i in (5, 1, 9, 3, 7)]
    fig = sketches.theorem_and_heads({"softmax": table}, most=2)
    dots, crosses = (np.asarray(c.get_offsets()) for c in fig.axes[0].collections[:2])
    assert crosses.tolist() == [[7, 14], [9, 18]] and len(dots) == 3
