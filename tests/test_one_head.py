"""course/one_head.py: the task, and that heads trained together learn as they would alone."""

import pytest
import torch

import minidiff.variants  # noqa: F401 - registers the cures
from minidiff.course import one_head
from minidiff.model import ATTENTION, GPTConfig


@pytest.mark.parametrize("bos", [True, False])
def test_a_batch_asks_for_the_marked_token_and_for_nothing_else(bos):
    x, target, asks = one_head.make_batch(50, 0, bos)
    marked = x[..., 8] == 2
    assert (marked.sum(1) == 1).all() and not marked[:, one_head.FIRST :].any()
    assert not asks[:, : one_head.FIRST].any() and torch.equal(asks, x[..., 9] == 2)
    content = x[..., :8][marked][:, None].expand_as(target)
    assert torch.equal(target[asks], content[asks]) and not target[~asks].any()
    assert (x[:, 0, 10] == (2 if bos else 0)).all()
    assert bos == (not x[:, 0, :8].any())


def test_training_together_is_training_alone():
    together = one_head.train_heads("diff_v2", steps=3, seeds=2)
    for seed, bos in ((0, True), (1, False)):
        torch.manual_seed(seed)
        config = GPTConfig("diff_v2", n_head=1, n_kv_head=1, head_dim=8, n_embd=one_head.D)
        alone = ATTENTION["diff_v2"](config)
        optimizer = torch.optim.Adam(alone.parameters(), lr=1e-2)
        for step in range(3):
            x, target, _ = one_head.make_batch(32, step, bos)
            out = alone(x, one_head.STILL)[..., :8]
            optimizer.zero_grad()
            (out - target)[:, 1:].square().mean().backward()
            optimizer.step()
        for ours, theirs in zip(together[bos][seed].parameters(), alone.parameters(), strict=True):
            torch.testing.assert_close(
                ours, theirs, rtol=0, atol=5e-3
            )  # a step is 1e-2, whatever the gradient


def test_examine_sees_what_a_head_does():
    head = one_head.train_heads("softmax", steps=1, seeds=1)[True][0]
    for weight in head.parameters():
        weight.data.zero_()  # uniform maps, output 0
    found = one_head.examine(head, bos=True)
    _, target, asks = one_head.make_batch(256, 10**6, True)
    assert found.silent == 0 and found.asking == pytest.approx(target[asks].square().mean().item())
    assert found.total == pytest.approx(1)
    assert found.share == pytest.approx(found.on_bos[0])
    assert 1 / 16 < found.share < 1 / one_head.FIRST  # 1/n over 6 to 16 tokens
