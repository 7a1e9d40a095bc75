"""Ablations, V1 and cures at the rate that is best for DIFF V2 and softmax alike (notebook 08)."""

import dataclasses

from minidiff.study.checks import Pairs, made_by
from minidiff.study.entries import MAIN
from minidiff.study.evidence import difference
from minidiff.study.findings import SHOWN, holm, p_value

BOTH = "diff_v2", "softmax_1.5h"  # whom each is compared with
KINDS = {  # heading -> {variant: its label}
    "Ablations": {
        "diff_halves": "1: pairs in halves",
        "diff_no_lambda": "2: no λ",
        "diff_no_sigmoid": "3: no sigmoid",
        "softmax_1.5h": "4: softmax, 1.5h heads",
    },
    "More softmax": {
        "softmax_h": "softmax, h heads",
        "softmax_2h": "softmax, 2h heads",
        "constructed": "2h heads, tied to subtract",
    },
    "DIFF V1": {
        "diff_v1": "V1",
        "diff_v1_no_norm": "V1 without its norm",
        "diff_v1_sigmoid": "V1, λ by a sigmoid",
    },
    "Cures": {"off_by_one": "off by one", "sink_logit": "sink logit", "gated": "gate"},
}
STARTS = {
    "Other starts": {
        "diff_v2": "DIFF V2",
        "diff_v2_doubled": "its output doubled",
        "diff_late_lambda": "its λ from 0.02",
        "diff_no_decay": "its λ without decay",
        "softmax_1.5h_quiet": "softmax, as quiet",
    }
}


class AtBestRate:
    """Differences at the best rate of DIFF V2, which must be that of softmax 1.5h as well.

    Raises:
        ValueError: the two have different best rates in these results: no rate is fair to both.
    """

    def __init__(self, evidence):
        self.evidence = evidence
        study = evidence.studies(MAIN)[0]
        rates = {name: study.best_rate(name) for name in BOTH}
        if len({*rates.values()}) > 1:
            raise ValueError(f"no rate is the best one of both: {rates}; compare each at its own")
        self.study, self.rate = study, rates["diff_v2"]
        names = [name for kind in (*KINDS.values(), *STARTS.values()) for name in kind]
        self.seeds = set.intersection(*({*self.runs(name)} for name in names))  # that all have
        self.losses = {
            (one, other): self.minus(one, other)
            for kind in KINDS.values()
            for one in kind
            for other in BOTH
            if one != other
        }

    def minus(self, one, other, metric="val_loss", seeds=None):
        """The Finding of one minus other, seed by seed: over all that both have, or over these."""
        found = next(Pairs(metric, SHOWN, one, other, MAIN, "best").findings(self.evidence))
        if seeds is None:
            return found
        pairs = self.study.pairs(one, other, self.rate)
        pairs = [pair for pair in pairs if pair[0]["seed"] in seeds]
        made = made_by(row for pair in pairs for row in pair)
        return dataclasses.replace(found, sample=tuple(difference(pairs, metric)), made=made)

    def runs(self, name):
        """{seed: row} of a variant, in order."""
        return dict(sorted(self.study.runs(name, self.rate).items()))

    def rows(self, kinds=KINDS, seeds=None):
        """For comparing.against_both: heading -> {label: its two findings, None against itself}."""
        return {
            kind: {label: [None if one == other else self.minus(one, other, seeds=seeds)
                           for other in BOTH]
                   for one, label in names.items()}
            for kind, names in kinds.items()
        }  # fmt: skip

    def clear(self, pairs):
        """Those of the pairs (one, other) whose interval does not hold 0, each for itself."""
        return [pair for pair in pairs if p_value(self.minus(*pair)) < 0.05]

    def holm(self, pairs):
        """Those that stay clear when all of the pairs are to err with at most 5%."""
        kept = holm([p_value(self.minus(*pair)) for pair in pairs])
        return [pair for pair, keeps in zip(pairs, kept, strict=True) if keeps]

    def line(self, name):
        """A variant's one line of result."""
        found = [(other, self.minus(name, other)) for other in BOTH if other != name]
        against = ", ".join(f"minus {other} {finding}" for other, finding in found)
        return f"{name}: loss {against}, {found[0][1].of}, rate {self.rate:g}"

    def elsewhere(self, name, other="diff_v2"):
        """The same difference at the other rates and in the other studies, a line for each."""
        found = Pairs("val_loss", SHOWN, name, other).findings(self.evidence)
        return "\n".join(
            f"  elsewhere, minus {other}: {finding!s:24} {finding.of}, {finding.where}"
            for finding in found
            if finding != self.minus(name, other)
        )
