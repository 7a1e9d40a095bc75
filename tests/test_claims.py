"""Claims: every verdict can be reached by a planted effect, and new results only add rows."""

from pathlib import Path

import pytest
from study_results import SETTINGS, folder, pair, run, store

from minidiff.study import claims as claims_module
from minidiff.study import computed, entries
from minidiff.study.checks import Pairs, Repeats, Runs, made_by
from minidiff.study.claims import claims
from minidiff.study.entries import CLAIMS
from minidiff.study.evidence import Evidence
from minidiff.study.findings import ABOVE, BELOW, SHOWN
from minidiff.study.report import claims_text

WORDS = {"supported", "mixed", "undecided", "contradicted", "not tested"}
LOWER, HIGHER, EITHER = [-0.02, -0.021, -0.019], [0.02, 0.021, 0.019], [-0.02, 0.02, 0.001]


def judged(path, **files):
    """{number: judged claim} of a folder with these rows."""
    return {each.claim.number: each for each in claims(folder(path, **files))}


@pytest.mark.parametrize(
    ("best", "elsewhere", "word"),
    [
        (LOWER, None, "supported"),
        (HIGHER, None, "contradicted"),
        (EITHER, None, "undecided"),
        ([-0.02], None, "undecided"),  # one seed has no interval
        (LOWER, EITHER, "supported"),
        (LOWER, HIGHER, "mixed"),
        (HIGHER, LOWER, "mixed"),
        (EITHER, HIGHER, "undecided"),
    ],
)
def test_every_verdict_follows_from_a_planted_effect(tmp_path, best, elsewhere, word):
    folder(tmp_path, evidence_25m=pair(best))
    if elsewhere:
        short = pair(elsewhere, lr=6e-3, steps=300)
        store(tmp_path, "evidence_25m_rates", short, SETTINGS | {"steps": 300})
    (loss,) = (each for each in claims(tmp_path) if each.claim.number == "3, 12")
    assert loss.verdict == word
    assert len(loss.findings) == 1 + (elsewhere is not None)


def test_where_only_secondary_checks_have_results_a_claim_is_open_and_not_untested(tmp_path):
    store(folder(tmp_path), "evidence_25m_rates", pair(LOWER, steps=300), SETTINGS | {"steps": 300})
    found = {each.claim.number: each for each in claims(tmp_path)}
    assert found["3, 12"].verdict == "undecided" and found["3, 12"].primary is None
    assert found["10b"].verdict == "not tested"


def test_without_any_runs_what_needs_runs_is_not_tested(tmp_path):
    found = judged(tmp_path)
    assert {found[number].verdict for number in ("2a", "3, 12", "4", "9a", "14")} == {"not tested"}
    assert found["1"].verdict == found["11a"].verdict == "supported"  # theorems


def test_a_claim_of_a_higher_loss_is_judged_the_other_way(tmp_path):
    rows = pair([0.0] * 3) + pair(HIGHER, one="diff_halves", other="diff_v2")
    rows += pair(LOWER, one="diff_no_lambda", other="diff_v2")
    found = judged(tmp_path, evidence_25m=list({row["key"]: row for row in rows}.values()))
    assert (found["9a"].verdict, found["10b"].verdict) == ("supported", "contradicted")


def test_spikes_are_judged_by_signs_in_which_a_seed_counts_once(tmp_path):
    rows = pair([-0.02] * 6, lr=1e-3)
    rows += pair([-3, -3, 1, -1, -1, -1], "n_spikes", lr=3e-3, val_loss=0.8)
    rows += pair([1, -9, -9, 0, 0, 0], "n_spikes", lr=6e-3, val_loss=0.9)
    found = judged(tmp_path, evidence_25m=rows)["4"]
    assert found.primary.sample == pytest.approx((-2, -12, -8, -1, -1, -1))
    assert found.verdict == "supported" and str(found.primary) == "6 of 6 [54%, 100%]"
    assert found.primary.where.endswith("rates 0.003 and 0.006")


def test_five_seeds_with_fewer_spikes_decide_nothing(tmp_path):
    rows = pair([-0.02] * 5) + pair([-90] * 5, "n_spikes", lr=3e-3, val_loss=0.8)
    assert judged(tmp_path, evidence_25m=rows)["4"].verdict == "undecided"


def test_equal_time_is_judged_by_longer_runs_of_the_other(tmp_path):
    rows = [run("diff_v2", s, val_loss=0.70 + 0.01 * s) for s in range(3)]
    rows += [run(seed=s, val_loss=0.8 + 0.01 * s) for s in range(3)]  # equal steps: not asked here
    folder(tmp_path, evidence_25m=rows)
    longer = [run(seed=s, steps=1196, val_loss=0.69 + 0.0101 * s) for s in range(3)]
    store(tmp_path, "evidence_25m_equal_time", longer, SETTINGS | {"steps": 1196})
    found = {each.claim.number: each for each in claims(tmp_path)}
    assert found["Q2"].verdict == "contradicted" and found["3, 12"].verdict == "supported"
    assert found["Q2"].primary.number == pytest.approx(0.0099)
    assert "1000 steps against 1196 of softmax_1.5h" in found["Q2"].primary.where


def test_each_model_is_taken_at_its_own_best_rate(tmp_path):
    rows = [run("diff_v2", s, lr, val_loss=loss + 0.01 * s)
            for s in range(3) for lr, loss in ((7e-4, 0.60), (1e-3, 0.62))]  # fmt: skip
    rows += [run("softmax_1.5h", s, lr, val_loss=loss + 0.01 * s)
             for s in range(3) for lr, loss in ((1e-3, 0.66), (2e-3, 0.61))]  # fmt: skip
    evidence = Evidence(folder(tmp_path, evidence_25m=rows))
    (own,) = Pairs("val_loss", rate="own").findings(evidence)
    assert own.number == pytest.approx(-0.01) and own.where.endswith("rates 0.0007 and 0.002")
    (same,) = Pairs("val_loss").findings(evidence)
    assert same.number == pytest.approx(-0.04) and same.where.endswith("rate 0.001")
    assert not list(Pairs("val_loss", rate="best").findings(evidence))  # softmax lacks 7e-4


def test_the_longest_runs_answer_whether_a_gain_lasts(tmp_path):
    folder(tmp_path, evidence_25m=pair(LOWER))
    for name, steps, gaps in (("long", 1500, HIGHER), ("long_4000", 4000, LOWER)):
        rows = pair(gaps, steps=steps)
        store(tmp_path, f"evidence_25m_{name}", rows, SETTINGS | {"steps": steps})
    (q3,) = (each for each in claims(tmp_path) if each.claim.number == "Q3")
    assert "4000 steps" in q3.primary.where and q3.verdict == "mixed"


def test_a_models_own_values_are_held_against_a_bound(tmp_path):
    rows = [run("diff_v2", s, first_share_eff_max=x) for s, x in enumerate((0.01, 0.011, 0.012))]
    evidence = Evidence(folder(tmp_path, evidence_25m=rows))
    (below,) = Runs("first_share_eff_max", BELOW, 0.03).findings(evidence)
    (above,) = Runs("first_share_eff_max", ABOVE, 0.03).findings(evidence)
    (spikes,) = Runs("n_spikes", SHOWN, 0.0).findings(evidence)
    assert (below.side(), above.side(), spikes.side()) == ("for", "against", "shown")
    assert spikes.sample == (2, 2, 2) and spikes.of == "range of 3"


def test_on_several_texts_the_study_with_most_runs_answers_where_it_can(tmp_path):
    folder(tmp_path, evidence_25m=pair(2 * LOWER))
    rows = pair(HIGHER) + pair([0.05, 0.052, 0.049], one="diff_halves")[1::2]
    store(tmp_path, "evidence_25m_again", rows, SETTINGS | {"data": "another text"})
    found = {each.claim.number: each for each in claims(tmp_path)}
    assert found["3, 12"].primary.made.startswith("evidence_25m, ")
    assert found["3, 12"].verdict == "mixed" and found["9a"].verdict == "supported"
    assert found["9a"].primary.made.startswith("evidence_25m_again, ")


def test_a_new_results_file_adds_rows_and_changes_none(tmp_path):
    before = judged(tmp_path, evidence_25m=pair(LOWER))
    store(tmp_path, "evidence_25m_verse", pair(EITHER, lr=7e-4), SETTINGS | {"data": "verse"})
    after = {each.claim.number: each for each in claims(tmp_path)}
    for number, each in before.items():
        assert each.primary == after[number].primary
        assert set(each.findings) <= set(after[number].findings) or number in (
            "2a",
            "5a",
            "5b",
            "4",
        )
    assert len(after["3, 12"].findings) == len(before["3, 12"].findings) + 1


def test_inside_another_architecture_diff_v2_is_compared_with_softmax_in_it(tmp_path):
    """Its runs join the study of the main pair, whose difference is another."""
    within = pair(HIGHER, one="moe_diff_v2", other="moe_softmax")
    found = judged(tmp_path, evidence_25m=pair(LOWER), evidence_25m_moe=within)
    assert found["Q8"].verdict == "contradicted" and found["3, 12"].verdict == "supported"
    assert found["15"].verdict == found["16"].verdict == "not tested"


def test_a_repeated_run_shows_how_far_its_loss_was_off(tmp_path):
    first, again = pair([0.0, 0.0]), pair([0.0, 0.004])  # diff_v2, seed 1, came out otherwise
    folder(tmp_path, evidence_25m=first, evidence_25m_noise=again)
    (found,) = Repeats("evidence_25m*").findings(Evidence(tmp_path))
    assert found.interval() == pytest.approx((0.0, 0.004)) and found.unit == "4 repetitions"
    assert found.side() == "open"
    folder(tmp_path, evidence_25m_noise=first)
    (same,) = Repeats("evidence_25m*").findings(Evidence(tmp_path))
    assert same.side() == "for" and same.number == 0
    assert not list(
        Repeats("evidence_25m*").findings(Evidence(folder(tmp_path / "b", evidence_25m=first)))
    )


def test_the_rate_with_most_repetitions_answers_whether_runs_repeat(tmp_path):
    first = pair([0.0, 0.0]) + pair([0.0], lr=5e-4)
    again = pair([0.0, 0.004]) + pair([0.1], lr=5e-4)  # a later part made one pair again, too
    path = folder(tmp_path, evidence_25m=first, evidence_25m_noise=again)
    (q12,) = (each for each in claims(path) if each.claim.number == "Q12")
    assert q12.primary.where.endswith("rate 0.001") and len(q12.findings) == 2


def test_what_another_question_answers_has_no_vote(tmp_path):
    """V1 with a sigmoid that is worse than V1 says nothing on V2 against V1; nor spikes on loss."""
    rows = pair(HIGHER, one="diff_v1_sigmoid", other="diff_v1")
    rows += pair(HIGHER, one="diff_halves", other="diff_v2")
    for row, spikes in zip(rows[-6:], [9, 1] * 3, strict=True):  # DIFF V2 has more of them
        row["n_spikes"] = spikes
    longer = pair(LOWER, one="diff_v2", other="diff_v1", steps=2000)
    store(tmp_path := folder(tmp_path, evidence_25m=rows), "evidence_25m_v1_2000", longer,
          SETTINGS | {"steps": 2000})  # fmt: skip
    found = {each.claim.number: each for each in claims(tmp_path)}
    assert found["Q10"].verdict == "supported" and len(found["Q10"].findings) == 2
    assert found["9a"].verdict == "supported" and found["9b"].verdict == "undecided"
    assert str(found["9b"].primary) == "0 of 3 [0%, 71%]"


def test_a_softmax_that_gains_as_much_by_a_small_start_takes_the_gain_away(tmp_path):
    doubled = pair(LOWER, one="diff_v2_doubled")
    quiet = pair([0.01, 0.011, 0.009], one="diff_v2", other="softmax_1.5h_quiet")
    assert judged(tmp_path, evidence_25m=doubled)["Q9"].verdict == "supported"
    assert judged(tmp_path, evidence_25m=doubled + quiet)["Q9"].verdict == "mixed"


def test_recall_is_compared_where_equally_many_prompts_were_asked(tmp_path):
    rows = pair([-0.1, -0.12, -0.11], "recall_nats_16")
    folder(tmp_path)
    store(tmp_path, "evidence_25m_long", rows, SETTINGS | {"retrieval_prompts": 128})
    found = {each.claim.number: each for each in claims(tmp_path)}
    assert found["Q11"].verdict == "supported" and len(found["Q11"].primary.sample) == 3
    folder(tmp_path / "b")
    for part, prompts in ((rows[0::2], 128), (rows[1::2], 64)):  # softmax, DIFF V2
        more = SETTINGS | {"retrieval_prompts": prompts}
        store(tmp_path / "b", f"evidence_25m_long_{prompts}", part, more)
    found = {each.claim.number: each for each in claims(tmp_path / "b")}
    assert found["Q11"].verdict == "not tested" and found["Q3"].primary is not None


def test_a_row_says_on_which_card_it_was_made_and_when(tmp_path):
    rows = pair(LOWER)
    rows[0]["commit"], rows[0]["backend"] = "abc1234", "flash4"
    made = judged(tmp_path, evidence_25m=rows)["3, 12"].primary.made
    assert made == "evidence_25m, H100, 2026-11-25, flash4, abc1234"
    assert made_by([{"machine": "NVIDIA H200; added: NVIDIA H100 80GB"}]) == "H200 + H100"


def test_all_published_claims_are_there_and_none_has_a_verdict_or_a_number_by_hand():
    numbers = [n for claim in CLAIMS for n in claim.number.split(", ") if not n.startswith("Q")]
    assert {int(n.rstrip("abc")) for n in numbers} == set(range(1, 18))
    assert len({claim.number for claim in CLAIMS}) == len(CLAIMS)
    for module in (entries, claims_module):
        text = Path(module.__file__).read_text(encoding="utf-8")
        assert not any(f'"{word}"' in text for word in WORDS), module


def test_every_claim_has_a_verdict_from_the_stored_results():
    found = claims()
    assert [each.claim for each in found] == list(CLAIMS)
    assert {each.verdict for each in found} <= WORDS
    assert all(each.findings or each.verdict == "not tested" for each in found)


def test_the_ranges_of_the_theorem_can_be_left(monkeypatch):
    """The check of claim 1 is no tautology: rows that sum to 2 would leave the bounds."""
    assert computed.outside_the_bounds() == 0
    real = computed.theory.expected_rms
    monkeypatch.setattr(computed.theory, "expected_rms", lambda w, rho=0.0: 2 * real(w, rho))
    assert computed.outside_the_bounds() > 0.3


def test_without_flash_attn_4_the_claim_on_speed_has_fewer_findings_and_no_other_changes(tmp_path):
    path = folder(tmp_path, evidence_25m=pair([-0.02, -0.021, -0.019]))
    whole = {each.claim.number: each for each in claims(path)}
    (path / "bench_pair_flash4.json").unlink()
    judged = claims(path)
    assert claims_text(judged, Evidence(path))  # and it can be written
    for each in judged:
        more = len(whole[each.claim.number].findings) - len(each.findings)
        assert more == (6 if each.claim.number == "7" else 0)  # two ways, three sizes
