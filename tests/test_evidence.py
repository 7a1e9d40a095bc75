"""Only like is compared with like: which runs make a study, which rates and pairs it has."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from study_results import SETTINGS, folder, pair, run, store

from minidiff.study.evidence import (
    RESULTS,
    Evidence,
    Study,
    difference,
    estimate,
    gap_over_training,
    load,
)


def test_files_with_equal_settings_are_one_study_and_others_are_not(tmp_path):
    folder(tmp_path, evidence_a=[run(seed=0)], evidence_b=[run("diff_v2", seed=0)])
    store(tmp_path, "evidence_other_text", [run()], SETTINGS | {"data": "another text"})
    store(tmp_path, "evidence_old", [run()], None)
    store(tmp_path, "evidence_old_too", [run()], None)
    assert sorted(study.files for study in Evidence(tmp_path).all) == [
        ["evidence_a", "evidence_b"], ["evidence_old"], ["evidence_old_too"],
        ["evidence_other_text"],
    ]  # fmt: skip


def test_a_setting_that_an_old_file_does_not_know_has_its_default(tmp_path):
    folder(tmp_path, evidence_a=[run(seed=0)])
    store(tmp_path, "evidence_b", [run(seed=1)], SETTINGS | {"weight_decay": 0.1})  # the default
    store(tmp_path, "evidence_c", [run(seed=2)], SETTINGS | {"weight_decay": 0.0})
    assert sorted(len(study.rows) for study in Evidence(tmp_path).all) == [1, 2]


def test_the_backend_and_how_much_was_probed_make_no_other_study_but_probes_are_not_mixed(tmp_path):
    folder(tmp_path, evidence_a=[run("diff_v2", val_loss=0.5, qk_top1_max=1.0)])
    other = SETTINGS | {"probe_windows": 64, "backend": "flash4"}
    store(tmp_path, "evidence_b", [run(val_loss=0.6, qk_top1_max=2.0)], other)
    (study,) = Evidence(tmp_path).all
    pairs = study.pairs("diff_v2", "softmax_1.5h", 1e-3)
    assert difference(pairs, "val_loss") == pytest.approx([-0.1])
    assert difference(pairs, "qk_top1_max") == []


def test_a_gain_from_context_is_of_windows_and_recall_of_prompts(tmp_path):
    asked = [{"probe_windows": windows, "retrieval_prompts": 128} for windows in (8, 64)]
    rows = [run(name, context_gain=0.1, recall_nats_16=1.0) for name in ("diff_v2", "softmax_1.5h")]
    folder(tmp_path)
    for name, row, more in zip("ab", rows, asked, strict=True):
        store(tmp_path, f"evidence_{name}", [row], SETTINGS | more)
    (study,) = Evidence(tmp_path).all
    pairs = study.pairs("diff_v2", "softmax_1.5h", 1e-3)
    assert difference(pairs, "recall_nats_16") == [0.0] and difference(pairs, "context_gain") == []


def test_a_run_made_twice_counts_once_and_a_diverged_one_not_at_all(tmp_path):
    gone = {k: v for k, v in run(seed=1).items() if k in ("variant", "seed", "lr", "steps")}
    rows = [run(val_loss=0.5), run(val_loss=0.9), gone | {"diverged": "nan", "val_loss": 0.1,
            "params": {"total": 1}}]  # fmt: skip
    (study,) = Evidence(folder(tmp_path, evidence_a=rows)).all
    assert {s: row["val_loss"] for s, row in study.runs("softmax_1.5h", 1e-3).items()} == {0: 0.5}


def test_the_best_rate_has_the_lowest_mean_loss_of_those_with_three_seeds(tmp_path):
    rows = [run(seed=s, lr=lr, val_loss=lr) for s in range(3) for lr in (0.1, 0.2)]
    rows.append(run(lr=0.05, val_loss=0.01))  # one lucky seed
    rows.append(run("diff_v2", lr=0.3, val_loss=0.4))  # where none has three, any will do
    (study,) = Evidence(folder(tmp_path, evidence_a=rows)).all
    assert study.best_rate("softmax_1.5h") == 0.1 and study.best_rate("diff_v2") == 0.3
    assert study.best_rate("gated") is None
    assert study.rates("softmax_1.5h", "diff_v2") == []


def test_rates_are_compared_on_the_seeds_that_they_share(tmp_path):
    rows = [run(seed=s, lr=0.1, val_loss=0.6 + 0.1 * (s > 2)) for s in range(6)]  # 3 to 5 are hard
    rows += [run(seed=s, lr=0.2, val_loss=0.62) for s in range(3)]  # under the mean of all six
    (study,) = Evidence(folder(tmp_path, evidence_a=rows)).all
    assert study.best_rate("softmax_1.5h") == 0.1


@given(st.permutations(range(4)))
def test_pairs_are_made_by_seed_whatever_the_order_of_the_rows(order):
    rows = pair([0.1, 0.2, 0.3, 0.4])
    study = Study({}, rows=[row for seed in order for row in rows[2 * seed : 2 * seed + 2]])
    found = difference(study.pairs("diff_v2", "softmax_1.5h", 1e-3), "val_loss")
    assert found == pytest.approx([0.1, 0.2, 0.3, 0.4])


@pytest.mark.parametrize("name", ["evidence_25m", "evidence_25m_lr", "evidence_25m_rates"])
def test_intervals_are_those_that_compare_has_stored(name):
    evidence = Evidence()
    (study,) = evidence.studies(name)
    stored = load(RESULTS / f"{name}.json")["pairs"]
    assert stored
    for row in stored:
        pairs = study.pairs(row["variant"], row["other"], row["lr"])
        pairs = [both for both in pairs if {run["file"] for run in both} == {name}]
        found = estimate(difference(pairs, row["metric"]))
        assert found == pytest.approx((row["difference"], row["low"], row["high"]))


def test_a_study_on_another_text_or_context_says_so():
    labels = {name: study.label for study in Evidence().all for name in study.files}
    assert labels["evidence_25m"] == "25M, 1000 steps"
    assert labels["evidence_25m_prose"] == "25M, 1000 steps, English"
    assert labels["evidence_25m_t4096"] == "25M, 1000 steps, 4096 tokens"


def test_runs_of_compare_in_equal_time_are_a_study_of_their_own_that_says_so(tmp_path):
    folder(tmp_path, evidence_a=[run("diff_v2")])
    own = [run("diff_v2"), run("softmax_h", steps=1179)]
    store(tmp_path, "evidence_b", own, SETTINGS | {"equal_time": True})
    labels = {study.files[0]: study.label for study in Evidence(tmp_path).all}
    assert "equal time" not in labels["evidence_a"]
    assert labels["evidence_b"].endswith("1179 steps, equal time")


def test_the_gap_at_every_step_is_the_paired_interval_of_scipy():
    (study,) = Evidence().studies("evidence_25m")
    pairs = study.pairs("diff_v2", "softmax_1.5h", 1e-3)
    gap = gap_over_training(pairs)
    assert len(pairs) == 12 and [row[0] for row in gap] == [250, 500, 750, 1000]
    for i, (_, mean, low, high) in enumerate(gap):
        curves = [[row["val_curve"][i][1] for row in both] for both in pairs]
        test = stats.ttest_rel(*zip(*curves, strict=True))
        expected = test.confidence_interval(0.95)
        assert (low, high) == pytest.approx((expected.low, expected.high))
        assert mean == pytest.approx((low + high) / 2)
    assert gap[-1][1] == pytest.approx(estimate(difference(pairs, "val_loss"))[0])


def test_a_gap_needs_both_runs_at_a_step_and_one_seed_has_no_interval():
    rows = pair([-0.5], steps=400)
    rows[0]["val_curve"] = [[100, 3.0], [400, 1.0]]
    rows[1]["val_curve"] = [[200, 2.0], [400, 0.5]]
    ((step, mean, low, high),) = gap_over_training([(rows[1], rows[0])])
    assert (step, mean) == (400, -0.5) and low != low and high != high
    assert gap_over_training([]) == []


def test_every_stored_pair_of_runs_has_a_gap_that_ends_at_its_loss():
    seen = 0
    for study in Evidence().all:
        for lr in study.rates("diff_v2", "softmax_1.5h"):
            pairs = study.pairs("diff_v2", "softmax_1.5h", lr)
            if pairs:
                end = gap_over_training(pairs)[-1]
                assert end[1] == pytest.approx(estimate(difference(pairs, "val_loss"))[0])
                seen += len(pairs)
    assert seen >= 30


def test_studies_of_equal_time_differ_in_their_pace_only(tmp_path):
    folder(tmp_path, evidence_25m=[run("diff_v2")])
    for name, settings in (("evidence_equal_time", {"steps": 1200, "eval_every": 300}),
                           ("evidence_equal_time_b", {"steps": 1200, "weight_decay": 0.0}),
                           ("evidence_longer", {"steps": 1300})):  # fmt: skip
        store(tmp_path, name, [run(steps=1200)], SETTINGS | settings)
    evidence = Evidence(tmp_path)
    (main,) = evidence.studies("evidence_25m")
    found = evidence.equal_time(main, "evidence_*equal_time*")
    assert [study.files for study in found] == [["evidence_equal_time"]]


def test_a_missing_results_file_is_named_with_the_fix(tmp_path):
    with pytest.raises(ValueError, match=r"claims_cpu.json is missing: .* measure.sh makes it"):
        Evidence(tmp_path)
