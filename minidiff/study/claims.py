"""Claims as data: what was published or is asked, by which check it is judged, and the verdict.

The claims themselves are in entries.py. Nothing here or there says what came out: a verdict follows
from the findings, by findings.verdict.
"""

from dataclasses import dataclass

from minidiff.study.checks import (
    Bench,
    Count,
    Cpu,
    Pairs,
    Repeats,
    Runs,
    Theorem,
)
from minidiff.study.evidence import RESULTS, Evidence
from minidiff.study.findings import Finding, holm, p_value, verdict

Check = Pairs | Runs | Count | Repeats | Bench | Cpu | Theorem


@dataclass(frozen=True)
class Claim:
    """A claim and how it is judged. The primary check decides and gives the one number."""

    number: str  # as in the notebooks; Q1, Q2, ... are this project's own questions
    says: str
    source: str
    primary: Check  # of its findings the first: the longest runs, the largest shape
    secondary: tuple[Check, ...] = ()
    notebook: str = "07_how_to_compare"  # where it is explained
    command: str = "measure.sh main lr more_lr more_seeds"  # what makes its primary number
    question: str = ""  # its row in the README has this; "" for none


@dataclass(frozen=True)
class Judged:
    """A claim with what the results say of it."""

    claim: Claim
    verdict: str
    primary: Finding | None
    secondary: tuple[Finding, ...]

    @property
    def findings(self):
        """All of them, the primary one first."""
        return ([self.primary] if self.primary else []) + list(self.secondary)


def judge(claim, evidence):
    """Run a claim's checks on the results."""
    found = list(claim.primary.findings(evidence))
    primary = found[0] if found else None
    rest = [*found[1:], *(f for check in claim.secondary for f in check.findings(evidence))]
    rest = [f for f in dict.fromkeys(rest) if f != primary]  # a number has one vote
    return Judged(claim, verdict(primary, rest), primary, tuple(rest))


def claims(folder=RESULTS):
    """All claims, judged by the results in a folder."""
    from minidiff.study.entries import CLAIMS

    evidence = Evidence(folder)
    return [judge(claim, evidence) for claim in CLAIMS]


def by_holm(judged):
    """(how many claims have a test, the numbers of those that keep their side by Holm).

    All primary checks together are then to err with at most 5%.
    """
    tested = [(each.claim.number, p_value(each.primary)) for each in judged if each.primary]
    tested = [(number, p) for number, p in tested if p is not None]
    kept = holm([p for _, p in tested])
    return len(tested), [number for (number, _), keeps in zip(tested, kept, strict=True) if keeps]
