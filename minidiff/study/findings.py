"""A finding is one number with its interval; from some of them follows the verdict on a claim."""

import math
import statistics
from dataclasses import dataclass

from minidiff.study.compare import interval

ABOVE, BELOW, SHOWN = 1, -1, 0  # the side of its bound that a claim names; SHOWN: it names none


@dataclass(frozen=True)
class Finding:
    """One number with its interval.

    ``test`` says what the interval is made from ``sample`` with:
        "t"      Student's t for the mean of the sample, a value for each seed
        "sign"   exact (Clopper-Pearson): the share of values below 0 among those that are not 0
        "range"  the sample is (middle, lowest, highest) of repeated rounds; no confidence
        "parts"  the same of the parts of one run, which decides as little as any one run
        "exact"  the sample is one number that has no error
    """

    what: str
    where: str
    sample: tuple
    test: str
    claimed: int = SHOWN
    bound: float = 0.0
    digits: int = 3
    unit: str = "seeds"  # what the sample has one value of
    made: str = ""  # on which machine, when, from which commit
    per_cent: bool = False
    signed: bool = True  # print the + of a difference

    @property
    def number(self):
        """What is estimated."""
        if self.test == "sign":
            below, of = self.signs
            return below / of if of else math.nan
        return statistics.fmean(self.sample) if self.test == "t" else self.sample[0]

    @property
    def signs(self):
        """(how many values lie below 0, how many are not 0)."""
        return sum(x < 0 for x in self.sample), sum(x != 0 for x in self.sample)

    @property
    def of(self):
        """How many numbers it is made of: "6 seeds", "7 rounds"; nothing for a theorem."""
        if self.test not in ("t", "sign"):
            return self.unit
        return f"{len(self.sample)} {self.unit if len(self.sample) > 1 else self.unit[:-1]}"

    def interval(self, confidence=0.95):
        """(low, high); nan where one value has none."""
        if self.test == "t" and len(self.sample) > 1:
            return interval(self.sample, confidence)
        if self.test == "sign":
            from scipy import stats  # half a second that the other commands do not need

            below, of = self.signs
            return tuple(stats.binomtest(below, of).proportion_ci(confidence)) if of else (0.0, 1.0)
        if self.test in ("exact", "range", "parts"):
            return (self.number,) * 2 if self.test == "exact" else self.sample[1:]
        return math.nan, math.nan

    def side(self, confidence=0.95):
        """Where the interval lies: "for", "against" or "open"; "shown" where nothing is claimed."""
        if self.claimed == SHOWN:
            return "shown"
        low, high = self.interval(confidence)
        if self.test == "exact":  # a bound that is reached is kept
            return "for" if self.claimed * (self.number - self.bound) >= 0 else "against"
        if self.test != "parts" and (low > self.bound or high < self.bound):
            return "for" if (low > self.bound) == (self.claimed == ABOVE) else "against"
        return "open"

    def __str__(self):
        """ "-0.014 [-0.020, -0.009]", or "4 of 4 [40%, 100%]" for signs."""
        low, high = self.interval()
        if self.test == "sign":
            below, of = self.signs
            return f"{below} of {of} [{low:.0%}, {high:.0%}]"
        plus = "+" if self.test == "t" and self.signed else ""
        form = f"{plus}.{self.digits}{'%' if self.per_cent else 'f'}"
        number = f"{self.number:{form}}"
        if self.test == "exact":
            return number
        return f"{number} [{low:{form}}, {high:{form}}]" if low == low else f"{number}, one run"


def verdict(primary, secondary):
    """One word for a claim, from the finding of its primary check and those of all others.

    The primary check decides. Its interval lies on the claimed side of the bound: "supported"; on
    the other side: "contradicted"; around it, or there is no interval: "undecided". A secondary
    finding can only take away: "supported" and "contradicted" become "mixed" where one lies on the
    other side than the primary. As there are many, their intervals are made wider for that: 95% for
    all together (Bonferroni). If the primary check has no results, the claim is "undecided" where
    another check has some, and "not tested" where none has.
    """
    voting = [finding for finding in secondary if finding.claimed != SHOWN]
    if primary is None:
        return "undecided" if voting else "not tested"
    side = primary.side()
    if side == "open":
        return "undecided"
    confidence = joint_confidence(voting)
    other = "against" if side == "for" else "for"
    if any(finding.side(confidence) == other for finding in voting):
        return "mixed"
    return "supported" if side == "for" else "contradicted"


def joint_confidence(findings):
    """Of each interval, so that all of them together have 95%."""
    return 1 - 0.05 / max(sum(map(_can_decide, findings)), 1)


def _can_decide(finding):
    """Whether there is an interval at all: one run has none, nor has a count of ties."""
    if finding.claimed == SHOWN:
        return False
    several = finding.test == "t" and len(finding.sample) > 1
    return several or (finding.test == "sign" and finding.signs[1] > 0)


def holm(p_values, level=0.05):
    """Which of several tests reject when all of them are to err with at most 5% (Holm 1979).

    Returns:
        One bool for each. The k-th smallest of m p-values must lie under level / (m - k + 1), and
        so must all smaller ones.
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    kept = [False] * len(p_values)
    for rank, i in enumerate(order):
        if p_values[i] > level / (len(order) - rank):
            break
        kept[i] = True
    return kept


def p_value(finding):
    """Two-sided probability of what was seen, were the bound the truth; None without a test."""
    from scipy import stats

    if finding.test == "sign":
        below, of = finding.signs
        return stats.binomtest(below, of).pvalue if of else 1.0
    if finding.test == "t" and len(finding.sample) > 1:
        return stats.ttest_1samp(finding.sample, finding.bound).pvalue
    return None
