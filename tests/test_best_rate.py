"""Ablations, V1 and cures at the best rate: what notebook 08 shows."""

import dataclasses

import matplotlib.pyplot as plt
import pytest

from minidiff.course import comparing
from minidiff.study.best_rate import BOTH, KINDS, STARTS, AtBestRate
from minidiff.study.evidence import Evidence
from minidiff.variants import VARIANTS


@pytest.fixture(scope="module")
def best():
    return AtBestRate(Evidence())


def test_every_variant_is_there_at_the_best_rate_with_three_seeds(best):
    names = [name for kind in KINDS.values() for name in kind]
    assert {*names, *BOTH} <= {*VARIANTS} and len(best.losses) == 2 * len(names) - 1
    for (one, other), finding in best.losses.items():
        assert len(finding.sample) >= 3 and finding.where.endswith(f"rate {best.rate:g}")
        mine, theirs = best.runs(one), best.runs(other)
        seeds = sorted({*mine} & {*theirs})
        assert finding.sample == pytest.approx(
            [mine[seed]["val_loss"] - theirs[seed]["val_loss"] for seed in seeds]
        )


def test_a_row_has_one_finding_for_each_of_both_and_none_against_itself(best):
    rows = best.rows()
    against = {label: found for kind in rows.values() for label, found in kind.items()}
    assert against["2: no λ"] == [best.losses["diff_no_lambda", other] for other in BOTH]
    assert against["4: softmax, 1.5h heads"][1] is None


def test_findings_over_the_seeds_that_all_have_differ_from_those_over_more(best):
    assert best.seeds == {*best.runs("softmax_h")} < {*best.runs("diff_v2")}
    few, many = (best.minus("diff_v2", "softmax_1.5h", seeds=seeds) for seeds in (best.seeds, None))
    own = [best.runs("diff_v2")[s]["val_loss"] - best.runs("softmax_1.5h")[s]["val_loss"]
           for s in sorted(best.seeds)]  # fmt: skip
    assert few.sample == pytest.approx(own) and len(few.sample) < len(many.sample)
    (rows,) = best.rows(STARTS, best.seeds).values()
    assert rows["DIFF V2"] == [None, few] and len(rows) == 5
    assert rows["its λ from 0.02"][0] == best.minus("diff_late_lambda", "diff_v2")
    assert "more_seeds" in many.made and "more_seeds" not in few.made


def test_the_figure_has_a_panel_for_each_of_both(best):
    fig = comparing.against_both(best.rows(), BOTH)
    for other, ax in zip(BOTH, fig.axes, strict=True):
        shown = [line.get_xdata()[0] for line in ax.get_lines() if line.get_marker() == "o"]
        assert shown == [f.number for (_, against), f in best.losses.items() if against == other]
    plt.close(fig)


def test_holm_keeps_a_part_of_what_is_clear(best):
    clear, kept = best.clear(best.losses), best.holm([*best.losses])
    assert {*kept} < {*clear} < {*best.losses}
    for pair, finding in best.losses.items():  # p under 5%, and 95% without 0, are one thing
        low, high = finding.interval()
        assert (pair in clear) == (low > 0 or high < 0)
    assert best.holm(clear[:1]) == clear[:1]  # one question needs no correction


def test_a_line_says_both_and_elsewhere_leaves_the_best_rate_out(best):
    line = best.line("diff_no_lambda")
    assert all(f"minus {other} {best.losses['diff_no_lambda', other]}" in line for other in BOTH)
    assert line.endswith("3 seeds, rate 0.001")
    assert "minus softmax_1.5h" not in best.line("softmax_1.5h")
    assert best.elsewhere("diff_no_lambda").count("elsewhere") == 1
    assert "rate 0.001" not in best.elsewhere("diff_halves")
    assert not best.elsewhere("diff_v1_sigmoid")  # it was run at the best rate only


def test_two_best_rates_are_refused():
    evidence = Evidence()
    study = evidence.studies("evidence_25m*@1000")[0]
    moved = dataclasses.replace(
        study,
        rows=[r | {"val_loss": 0.1 if r["lr"] == 0.003 else 1.0} if r["variant"] == "diff_v2" else r
              for r in study.rows],
    )  # fmt: skip
    evidence.all[evidence.all.index(study)] = moved
    with pytest.raises(ValueError, match="no rate is the best one of both"):
        AtBestRate(evidence)
