"""Every figure has the data it was given, labels, and text that the back row can read."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from matplotlib.text import Text

from minidiff import GPT, GPTConfig, data, theory
from minidiff.look import plots, probe
from minidiff.variants import VARIANTS

SMALLEST = 13  # points


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def view():
    torch.manual_seed(0)
    return probe.attention_maps(GPT(GPTConfig()), data.encode("def f(x): return"))[0]


def metrics(rng, n_steps):
    rows = [
        {"step": i, "loss": 3 - i / n_steps, "grad_norm": rng.uniform(0.5, 2), "lr": 1e-3}
        for i in range(n_steps)
    ]
    return [*rows, {"step": n_steps, "val_loss": 2.1}]


def all_figures(view):
    rng = np.random.default_rng(0)
    maps = {"A1": view.a1[0], "A2": view.a2[0], "A1 − λ A2": view.weights[0]}
    tokens = plots.token_labels(data.encode("def f(x): return")[0])
    n = 2 ** np.arange(8)
    return {
        "curves": plots.training_curves({"DIFF V2": metrics(rng, 300), "softmax": metrics(rng, 5)}),
        "intervals": plots.intervals({"DIFF V2": (0.1, 0, 0.2)}, "difference (nats/token)", 0),
        "rms": plots.rms_against_n({"softmax": (n, n**-0.4, 0.1 * n**-0.4)}, lam=0.5, rho=0.1),
        "bounds": plots.bounds_over_lambda(64),
        "lambda map": plots.lambda_map(view.lam, tokens),
        "histogram": plots.lambda_histogram({"layer 0": view.lam, "layer 1": view.lam}),
        "maps": plots.attention_maps(maps, tokens, lam=view.lam[:, 0]),
        "one map": plots.attention_maps({"A": view.a1[0]}),
        "sinks": plots.sink_bars({"softmax": rng.random((3, 6)), "DIFF V2": rng.random((3, 4))}),
        "one model": plots.sink_bars({"softmax": rng.random((3, 6))}),
    }


@pytest.mark.slow
def test_every_figure_has_labels_and_legible_text(view):
    for name, fig in all_figures(view).items():
        fig.canvas.draw()
        sizes = {
            text.get_text(): text.get_fontsize()
            for text in fig.findobj(Text)
            if text.get_visible() and text.get_text().strip()
        }
        assert min(sizes.values()) >= SMALLEST, (name, sizes)
        assert any(ax.get_xlabel() for ax in fig.axes), name
        assert fig.get_supylabel() or any(
            ax.get_ylabel() or ax.get_yticks().size for ax in fig.axes
        )


def test_a_figure_leaves_the_readers_style_alone():
    before = dict(plt.rcParams)
    plots.bounds_over_lambda(8)
    assert dict(plt.rcParams) == before


def test_a_figure_is_the_same_each_time():
    first, second = (np.asarray(plots.bounds_over_lambda(16).canvas.buffer_rgba()) for _ in "ab")
    assert np.array_equal(first, second)


def test_every_variant_has_its_own_colour():
    colours = {name: plots.colour(name) for name in VARIANTS}
    assert "black" not in colours.values(), colours
    fair = [name for name in colours if name != "softmax_1.5h"]  # the softmax of the course
    assert colours["softmax_1.5h"] == plots.colour("softmax")
    rgb = np.array([to_rgb(colours[name]) for name in fair])
    distance = np.linalg.norm(rgb[:, None] - rgb, axis=-1) + np.eye(len(rgb))
    assert distance.min() > 0.15


@pytest.mark.parametrize(
    ("label", "same_as"),
    [("DIFF V2", "diff_v2"), ("diff-v2, seed 1", "diff_v2"), ("softmax 1.5h", "softmax")],
)
def test_labels_find_their_colour(label, same_as):
    assert plots.colour(label) == plots.COLOURS[same_as]


def test_a_students_own_variant_is_black():
    assert plots.colour("my idea") == "black"


def test_softmax_and_diff_v2_differ_for_colour_blind_readers():
    # Viénot et al. 1999: what a reader without the green cones sees, in linear RGB
    deuteranopia = np.array([[0.29, 0.71, 0.0], [0.29, 0.71, 0.0], [-0.02, 0.02, 1.0]])
    seen = [deuteranopia @ np.power(to_rgb(plots.COLOURS[k]), 2.2) for k in ("softmax", "diff_v2")]
    assert np.abs(seen[0] - seen[1]).max() > 0.3


def test_curves_show_every_logged_step_and_skip_what_a_row_lacks():
    rows = [{"step": 0, "loss": 3.0}, {"step": 1, "loss": 2.0}, {"step": 2, "val_loss": 2.5}]
    loss, norm = plots.training_curves({"softmax": rows}).axes
    drawn = [tuple(line.get_ydata()) for line in loss.lines]
    assert (3.0, 2.0) in drawn and (2.5,) in drawn
    assert not norm.lines


def test_bands_are_drawn_over_whole_tokens_only():
    fig = plots.rms_against_n({"softmax": ([1, 4, 1000], [1, 0.7, 0.6])}, lam=0.25)
    for line in fig.axes[0].lines:
        n = np.asarray(line.get_xdata())
        assert (n == n.round()).all() and n.max() == 1000
    with pytest.raises(ValueError, match="whole numbers"):
        plots.rms_bands(fig.axes[0], [1, 1.5])


def test_bands_are_the_bounds_of_the_theory():
    fig = plots.rms_against_n({"softmax": ([4, 16], [0.7, 0.6])}, lam=0.25)
    ends = {
        round(float(y), 9)
        for line in fig.axes[0].lines
        for y in (line.get_ydata()[0], line.get_ydata()[-1])
    }
    for bound in (*theory.rms_bounds(16), *theory.rms_bounds(16, 0.25)):
        assert round(bound, 9) in ends


def test_correlated_band_is_the_expected_rms_of_uniform_rows():
    _, ax = plt.subplots()
    n, lam, rho = 8, 0.25, 0.3
    plots.rms_bands(ax, np.array([n]), lam, rho)
    row = torch.full((n,), 1 / n)
    drawn = [float(line.get_ydata()[0]) for line in ax.lines]
    for weights in (row, (1 - lam) * row):
        expected = float(theory.expected_rms(weights, rho))
        assert any(abs(y - expected) < 1e-6 for y in drawn)


def test_maps_share_one_scale_around_zero_and_hide_the_future(view):
    maps = {"A1": view.a1[1], "A1 − λ A2": view.weights[1]}
    fig = plots.attention_maps(maps)
    for ax, weights in zip(fig.axes, maps.values(), strict=False):
        image = ax.images[0]
        low, high = image.get_clim()
        assert low == -high == fig.axes[0].images[0].get_clim()[0]
        shown = image.get_array()
        lower = np.tri(len(weights), dtype=bool)
        assert np.array_equal(shown[lower].filled(np.nan), weights.numpy()[lower])
        assert shown.mask[~lower].all() and not shown.mask[lower].any()


def test_tokens_are_written_only_where_they_fit():
    few, many = np.eye(6), np.eye(200)
    labels = [
        t.get_text() for t in plots.attention_maps({"A": few}, "abcdef").axes[0].get_xticklabels()
    ]
    assert labels == list("abcdef")
    crowded = plots.attention_maps({"A": many}, "x" * 200).axes[0].get_xticklabels()
    assert "x" not in {t.get_text() for t in crowded} and len(crowded) < 20


def test_tokens_get_smaller_before_they_give_way_to_positions():
    def labels(n):
        ax = plots.attention_maps({"A": np.eye(n)}, "x" * n).axes[0]
        return ax.get_xticklabels(), ax.get_yticklabels()

    for found in labels(28):  # a line of code
        assert {t.get_text() for t in found} == {"x"} and 9 <= found[0].get_fontsize() < 13
    across, down = labels(35)
    assert {t.get_text() for t in across} == {"x"} and "x" not in {t.get_text() for t in down}


def test_token_labels():
    assert plots.token_labels([256, 97, 32, 10, 9, 0xC3]) == ["BOS", "a", "␣", "↵", "⇥", "C3"]


def test_sink_bars_keep_models_with_other_head_counts_in_their_layers():
    shares = {"softmax": np.full((2, 6), 0.4), "DIFF V2": np.full((2, 4), 0.1)}
    for ax, share in zip(plots.sink_bars(shares).axes, shares.values(), strict=True):
        layer = [round(bar.get_x() + bar.get_width() / 2) for bar in ax.patches]
        assert layer == np.repeat([0, 1], share.shape[1]).tolist()
        assert [bar.get_height() for bar in ax.patches] == share.ravel().tolist()
