"""The capstone's lab: its task, its stored runs, and that they can be made again."""

import json
import math
import runpy

import pytest
import torch

from minidiff.course import checks_13
from minidiff.model import ATTENTION, GPT
from minidiff.study import capstone as lab
from minidiff.study.retrieval import induction_heads

STORED = json.loads(lab.RESULTS.read_text(encoding="utf-8"))
LABELS = sorted({row["label"] for row in STORED["rows"]})
PAIR = "softmax 1.5h", "DIFF V2"


def test_only_what_can_be_recalled_counts():
    x, y = lab.batch(seed=3, step=7, size=5)
    length = x.shape[1] // 2
    assert lab.LENGTHS[0] <= length <= lab.LENGTHS[1] and (x[:, 0] == lab.KINDS).all()
    assert (y[:, : length + 1] == -100).all() and (y[:, length + 1 :] >= 0).all()
    assert torch.equal(y[:, length + 1 :], x[:, 2 : length + 1])  # stood in the first copy


def test_batches_are_those_of_the_seed_and_vary_in_length():
    assert torch.equal(lab.batch(1, 2)[0], lab.batch(1, 2)[0])
    lengths = {lab.batch(0, step, 1)[0].shape[1] // 2 for step in range(200)}
    assert lengths == set(range(lab.LENGTHS[0], lab.LENGTHS[1] + 1))


def test_the_check_tests_classes_in_the_labs_own_model():
    assert checks_13.MODEL == lab.MODEL
    assert (lab.KINDS, lab.LENGTHS[1]) == (checks_13.KINDS, checks_13.LENGTH)


def test_the_most_frequent_token_by_simulation():
    tokens = torch.randint(16, (20_000, 16), generator=torch.Generator().manual_seed(0))
    counts = torch.nn.functional.one_hot(tokens, 16).sum(1).amax(1).double() / 16
    share = checks_13._share_of_the_most_frequent(16)
    assert share == pytest.approx(counts.mean().item(), abs=4 * counts.std().item() / 20_000**0.5)
    assert checks_13._share_of_the_most_frequent(1) == pytest.approx(1)


def test_a_check_leaves_no_class_behind():
    before = dict(ATTENTION)
    checks_13.own_attention.verdict(ATTENTION["softmax"])
    assert before == ATTENTION


@pytest.mark.parametrize("attention", ["diff_v2", "softmax"])
def test_the_share_at_the_right_place_is_that_of_retrieval(attention):
    torch.manual_seed(0)
    model = GPT(lab.changed(attention=attention, n_layer=1)).eval()
    found = lab.at_offset(model)
    same = induction_heads(model, lab.LENGTHS[1], lab.UNSEEN)["induction_attention_max"]
    assert found["share"] == pytest.approx(same, rel=1e-4)
    assert ("a1" in found) == (attention == "diff_v2")


@pytest.mark.slow
def test_a_run_is_a_row_of_numbers_and_the_same_again():
    config = lab.changed(n_layer=1, n_embd=32)
    one, two = (lab.measured("x", config, seed=0, lr=1e-3, steps=20) for _ in range(2))
    assert one == two and len(one["curve"]) == 20
    assert all(math.isfinite(v) for v in one["curve"]) and json.loads(json.dumps(one)) == one
    assert abs(one["curve"][0] - math.log(17)) < 0.2 and 0 <= one["right"] < 0.2


# ---- What is stored ----------------------------------------------------------------------------


@pytest.mark.parametrize("label", LABELS)
def test_each_model_has_its_own_best_rate_from_the_same_rates(label):
    best = lab.best_rate(label)
    means = {lr: lab.mean_nats(lab.stored(label, lr, seeds=lab.TUNING)) for lr in lab.RATES}
    assert means[best] == min(means.values()) and len(means) == 5
    assert [row["seed"] for row in lab.stored(label)] == list(lab.SEEDS)
    if label in PAIR:
        assert best not in (lab.RATES[0], lab.RATES[-1])  # else better ones may lie outside


def test_no_run_is_stored_twice_and_none_is_missing_silently():
    keys = [(r["label"], r["seed"], r["lr"], r["steps"]) for r in STORED["rows"]]
    assert len(keys) == len(set(keys))
    assert STORED["command"] == "python notebooks/results/measure_capstone.py"
    with pytest.raises(ValueError, match="no stored run of 'DIFF V2'"):
        lab.stored("DIFF V2", seeds=[10**6])


def test_the_task_tells_the_pair_apart_and_is_not_saturated():
    softmax, diff = (lab.stored(label) for label in PAIR)
    assert all(1 / 16 + 0.02 < row["right"] < 0.97 for row in softmax + diff)
    differences = [a["nats"] - b["nats"] for a, b in zip(diff, softmax, strict=True)]
    low, high = checks_13._interval(differences)
    assert high < 0 or low > 0


@pytest.mark.slow
def test_a_stored_run_comes_out_again():
    row = lab.stored("DIFF V2")[0]
    found = lab.measured("DIFF V2", lab.MODEL, row["seed"], row["lr"])
    assert found["curve"][:3] == pytest.approx(row["curve"][:3], abs=0.02)
    assert found["nats"] == pytest.approx(row["nats"], abs=0.3)


def test_the_variants_are_executed_from_the_notebooks_where_they_stand():
    before = dict(ATTENTION)
    script = runpy.run_path(str(lab.RESULTS.with_name("measure_capstone.py")))
    try:
        script["run_cells"]()
        assert set(ATTENTION) - set(before) == {"my_variant", "minus_mean", "diff_doubled"}
    finally:
        for name in set(ATTENTION) - set(before):
            del ATTENTION[name]
