"""look/sketches_trained.py: what each figure must show."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.path import Path

from minidiff.course.one_head import Found
from minidiff.look import sketches_trained


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


def test_reachable_is_the_set_of_differences_of_the_hull():
    values = torch.tensor([[2.0, 0.0], [1.0, 1.0], [1.0, -1.0]])
    draw = torch.Generator().manual_seed(0)
    p, q = (5 * torch.randn(2, 3000, 3, generator=draw)).softmax(-1) @ values
    lams = (None, 0.3, 0.8)
    for ax, lam in zip(sketches_trained.reachable(values, lams).axes, lams, strict=True):
        shape = Path(ax.patches[0].get_xy())
        found = (p - (lam or 0) * q).numpy()
        assert shape.contains_points(found, radius=1e-3).all(), lam
        assert shape.contains_point((0, 0)) == (lam == 0.8)  # λ of at least ½ is needed
        assert ("softmax" in ax.get_title()) == (lam is None)


def test_lambda_of_heads_has_a_bar_and_a_dot_for_each_head():
    lams = [torch.rand(50, 4, generator=torch.Generator().manual_seed(i)) for i in range(3)]
    ax = sketches_trained.lambda_of_heads(lams).axes[0]
    dots = np.concatenate([line.get_ydata() for line in ax.lines if line.get_marker() == "o"])
    np.testing.assert_allclose(dots, torch.stack(lams).mean(1).flatten(), rtol=1e-5)
    for bars, lam in zip(ax.collections, lams, strict=True):
        for (low, high), head in zip(bars.get_segments(), lam.T, strict=True):
            assert low[1] < head.mean() < high[1]
            inside = (head >= low[1]) & (head <= high[1])
            assert 0.86 <= inside.float().mean() <= 0.94


def test_lambda_on_text_puts_each_token_on_its_lambda():
    labels, lam = ["BOS", *"abcdefg"], torch.linspace(0, 1, 8)
    ax = sketches_trained.lambda_on_text(labels, lam, width=5).axes[0]
    grid = ax.images[0].get_array()
    for text, value in zip(ax.texts, lam.tolist(), strict=True):
        x, y = text.get_position()
        assert grid[y, x] == pytest.approx(value)
    assert [text.get_text() for text in ax.texts] == labels
    assert np.ma.getmaskarray(np.ma.masked_invalid(grid)).sum() == 2  # 10 places, 8 tokens


def test_trained_heads_shows_every_seed():
    def one(error):
        return Found(error, 2 * error, 0.5, 0.1, (0.4,))

    found = {
        (name, bos): [one(error) for error in (1e-3, 2e-3, 3e-3)]
        for name in ("softmax", "diff_v2")
        for bos in (True, False)
    }
    left, right = sketches_trained.trained_heads(found).axes
    assert len(left.lines) == 4 and len(right.lines) == 2  # asking and silent; one for each name
    for line in left.lines:
        error = np.array([1e-3, 2e-3, 3e-3])
        expected = error if line.get_marker() == "^" else 2 * error
        np.testing.assert_allclose(line.get_ydata(), expected)
    sizes = [line.get_markersize() for line in right.lines]
    assert sizes == sorted(sizes, reverse=True)  # the later, on top, is smaller


def test_maps_of_one_head_hide_later_keys():
    maps = [{"softmax": torch.full((3, 3), 0.5), "diff_v2": torch.zeros(3, 3)}] * 2
    fig = sketches_trained.one_head_maps(maps, [["B", "!", "?"], ["·", "!", "?"]])
    titles = [ax.get_title() for ax in fig.axes[:4]]
    assert titles == ["softmax, BOS", "DIFF V2, BOS", "softmax, no BOS", "DIFF V2, no BOS"]
    shown = fig.axes[0].images[0].get_array()
    assert np.isnan(shown[0, 1]) or np.ma.getmaskarray(shown)[0, 1]
    assert shown[2, 0] == 0.5


def test_numbers_by_layer():
    panels = {"length": {"softmax": [3, 2], "DIFF V2": torch.tensor([2.0, 1])}, "ratio": {"a": [1]}}
    fig = sketches_trained.by_layer(panels)
    assert [ax.get_ylabel() for ax in fig.axes] == ["length", "ratio"]
    assert fig.axes[0].get_ylim()[0] == 0
    np.testing.assert_array_equal(fig.axes[0].lines[1].get_ydata(), [2, 1])


def test_lambda_by_depth():
    fig = sketches_trained.lambda_by_depth([0.3, 0.4], [0.2, 0.36])
    curves = [line.get_ydata() for line in fig.axes[0].lines]
    np.testing.assert_array_equal(curves[0], [0.2, 0.36])
    np.testing.assert_array_equal(curves[1], [0.3, 0.4])
