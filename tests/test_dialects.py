"""course/dialects.py: the task has the losses that it should, and training learns from it."""

import dataclasses
import math

import pytest
import torch

from minidiff.course import dialects


def test_a_batch_is_bos_and_letters_and_targets_are_one_ahead():
    x, y, dialect = dialects.make_batch(50, 0)
    assert x.shape == y.shape == (50, dialects.T) and dialect.shape == (50,)
    assert (x[:, 0] == dialects.BOS).all() and torch.equal(x[:, 1:], y[:, :-1])
    assert x[:, 1:].max() < dialects.LETTERS and dialect.max() < dialects.DIALECTS
    again, _, _ = dialects.make_batch(50, 0)
    other, _, _ = dialects.make_batch(50, 1)
    assert torch.equal(x, again) and not torch.equal(x, other)


def test_letters_follow_the_table_of_their_dialect():
    x, y, dialect = dialects.make_batch(20_000, 0)
    mine = dialect == 3
    before, after = x[mine, 1:].flatten(), y[mine, 1:].flatten()
    counts = torch.bincount(before * dialects.LETTERS + after, minlength=dialects.LETTERS**2)
    counts = counts.view(dialects.LETTERS, -1)
    seen, often = counts / counts.sum(1, keepdim=True), counts.sum(1) > 500
    assert (seen - dialects.tables()[3])[often].abs().max() < 0.08


def test_the_best_loss_lies_between_that_of_one_table_and_that_of_who_is_told_the_dialect():
    x, y, dialect = dialects.make_batch(500, 0)
    first, mean = math.log(dialects.LETTERS), dialects.tables().mean(0)
    told = dialects.tables()[dialect[:, None], x[:, 1:], y[:, 1:]].log().sum(1)
    blind = mean[x[:, 1:], y[:, 1:]].log().sum(1)
    told, blind = ((first - part.mean().item()) / dialects.T for part in (told, blind))
    assert told < dialects.best_loss(x, y) < blind - 0.5


@pytest.mark.slow
def test_training_learns_and_is_measured():
    config = dataclasses.replace(dialects.CONFIG, steps=12)
    dense = dialects.examine(dialects.train_model("diff_v2", 0, config=config))
    assert dense.load is None and 0 < dense.on_bos < 1
    assert 1.8 < dense.loss < math.log(dialects.LETTERS + 1)
    models = [dialects.train_model("moe_diff_v2", 0, w, config) for w in (None, 0.01, 0.0)]
    found = [dialects.examine(model) for model in models]
    assert found[0].loss == found[1].loss != found[2].loss  # 0.01 is the package's
    assert torch.allclose(found[0].load.mean(1), torch.ones(2))


def test_load_curves_are_ranked_with_a_line_for_each_seed_and_a_mean():
    loads = {"with": [torch.tensor([[1.5, 0.5, 1.0]])] * 2, "without": [torch.ones(1, 3)] * 2}
    fig = dialects.load_curves(loads)
    lines = fig.axes[0].get_lines()
    assert len(lines) == 2 * 3 + 1  # and the dotted one at 1
    assert lines[2].get_ydata().tolist() == [1.5, 1.0, 0.5]
    assert fig.axes[-1].get_legend()
