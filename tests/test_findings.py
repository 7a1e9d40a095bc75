"""Intervals, sides and verdicts: against scipy, and by what must hold for all numbers."""

import math

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from minidiff.study.findings import (
    ABOVE,
    BELOW,
    SHOWN,
    Finding,
    holm,
    joint_confidence,
    p_value,
    verdict,
)

numbers = st.floats(-10, 10, allow_subnormal=False).map(lambda x: round(x, 3))
samples = st.lists(numbers, min_size=2, max_size=8).filter(lambda x: len(set(x)) > 1)
sides = st.sampled_from(["for", "against", "open"])


def finding(*sample, test="t", claimed=BELOW, bound=0.0, **more):
    return Finding("loss", "here", tuple(sample), test, claimed, bound, **more)


def with_side(side):
    """A finding whose interval lies far on one side, whatever the confidence, or around 0."""
    sample = {"for": (-5.0, -5.001, -5.002), "against": (5.0, 5.001, 5.002), "open": (-1.0, 1.0)}
    return finding(*sample[side])


@settings(max_examples=40)
@given(samples, numbers, st.sampled_from([0.9, 0.95, 0.999]))
def test_the_t_interval_and_its_probability_are_those_of_scipy(sample, bound, confidence):
    found = finding(*sample, bound=bound)
    test = stats.ttest_1samp(sample, bound)
    expected = test.confidence_interval(confidence)
    assert found.interval(confidence) == pytest.approx((expected.low, expected.high))
    assert p_value(found) == pytest.approx(test.pvalue)
    assume(abs(test.pvalue - (1 - confidence)) > 1e-9)
    assert (found.side(confidence) != "open") == (test.pvalue < 1 - confidence)


@settings(max_examples=40)
@given(st.lists(st.integers(-3, 3), max_size=12))
def test_signs_leave_out_ties_and_have_the_exact_interval(sample):
    below, above = sum(x < 0 for x in sample), sum(x > 0 for x in sample)
    found = finding(*sample, test="sign", claimed=ABOVE, bound=0.5)
    assert found.signs == (below, below + above)
    if not below + above:
        assert found.side() == "open" and math.isnan(found.number) and p_value(found) == 1
        return
    expected = stats.binomtest(below, below + above).proportion_ci(0.95, "exact")
    assert found.interval() == pytest.approx(tuple(expected))
    sure = stats.binomtest(below, below + above).pvalue < 0.05
    assert found.side() == (("for" if below > above else "against") if sure else "open")


def test_five_seeds_of_five_are_not_enough_for_a_sign_test_and_six_are():
    five, six = (finding(*[-1] * n, test="sign", claimed=ABOVE, bound=0.5) for n in (5, 6))
    assert (five.side(), six.side()) == ("open", "for")
    assert str(six) == "6 of 6 [54%, 100%]" and six.of == "6 seeds"


@given(samples, numbers)
def test_what_is_claimed_the_other_way_round_lies_on_the_other_side(sample, bound):
    there, back = (finding(*sample, claimed=c, bound=bound).side() for c in (BELOW, ABOVE))
    assert {there, back} in ({"for", "against"}, {"open"})
    mirrored = finding(*(-x for x in sample), claimed=ABOVE, bound=-bound)
    assert mirrored.side() == there
    assert finding(*sample, claimed=SHOWN).side() == "shown"


def test_one_run_has_no_interval_and_decides_nothing():
    one = finding(-5.0)
    assert one.side() == "open" and str(one) == "-5.000, one run" and one.of == "1 seed"
    assert p_value(one) is None


def test_rounds_of_a_bench_have_a_range_and_a_theorem_no_error():
    speed = finding(0.86, 0.85, 0.94, test="range", claimed=ABOVE, bound=0.95, digits=2)
    assert speed.side() == "against" and str(speed) == "0.86 [0.85, 0.94]"
    assert finding(0.86, 0.85, 0.96, test="range", claimed=ABOVE, bound=0.95).side() == "open"
    exact = finding(0.5, test="exact", claimed=BELOW, bound=0.5)
    assert exact.side() == "for"  # a bound that is reached is kept
    assert finding(0.2205, test="exact", per_cent=True, digits=2, bound=0.2).side() == "against"
    assert str(finding(0.2205, test="exact", per_cent=True, digits=2)) == "22.05%"


@given(st.none() | sides, st.lists(sides, max_size=5))
def test_the_primary_check_decides_and_others_only_take_away(first, others):
    primary = first and with_side(first)
    word = verdict(primary, [with_side(side) for side in others])
    if first is None:
        assert word == ("undecided" if others else "not tested")
    elif first == "open":
        assert word == "undecided"
    else:
        other = "against" if first == "for" else "for"
        alone = "supported" if first == "for" else "contradicted"
        assert word == ("mixed" if other in others else alone)
        assert verdict(primary, []) == alone


def test_what_claims_nothing_has_no_vote():
    shown = finding(5.0, 5.001, 5.002, claimed=SHOWN)
    assert verdict(None, [shown]) == "not tested"
    assert verdict(with_side("for"), [shown]) == "supported"


def test_twenty_checks_of_nothing_rarely_make_a_claim_mixed():
    """Without the wider intervals two in three such claims would be mixed."""
    draws = stats.norm(0, 1).rvs((100, 20, 4), random_state=0)
    words = [verdict(with_side("for"), [finding(*row) for row in claim]) for claim in draws]
    assert words.count("mixed") / 100 < 0.06
    alone = [any(finding(*row).side() == "against" for row in claim) for claim in draws]
    assert sum(alone) / 100 > 0.3
    assert joint_confidence([finding(*row) for row in draws[0]]) == pytest.approx(1 - 0.05 / 20)


def test_holm_on_an_example_worked_by_hand():
    # 0.005 <= 0.05/4, 0.01 <= 0.05/3, 0.03 > 0.05/2: stop, although 0.04 <= 0.05/1
    assert holm([0.01, 0.04, 0.03, 0.005]) == [True, False, False, True]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=10))
def test_holm_lies_between_bonferroni_and_no_correction(p_values):
    for p, kept in zip(p_values, holm(p_values), strict=True):
        assert (p <= 0.05 / len(p_values)) <= kept <= (p <= 0.05)
