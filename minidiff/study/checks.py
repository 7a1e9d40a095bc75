"""Checks: each reads one kind of number from the results, and knows which sign a claim gives it.

A check is what a claim says in numbers: a metric, who is compared with whom, where, and which side
is claimed. It gives findings, one number each, one for each study and learning rate that the stored
results hold. Without such results it gives none.
"""

import math
import re
import statistics
from collections.abc import Callable
from dataclasses import dataclass

from minidiff.study.evidence import difference
from minidiff.study.findings import ABOVE, BELOW, SHOWN, Finding
from minidiff.study.results import WORDS


@dataclass(frozen=True)
class Pairs:
    """One variant minus another, seed by seed, in every study of which a file fits the pattern.

    ``rate``: "best", where DIFF V2's loss is lowest, for both; "own", each model at its own best;
    "largest"; "all"; "large", all above the best ones, where a seed counts once, by its sum.
    ``equal_time`` is the pattern of the files that hold the other's longer runs.
    """

    metric: str
    claimed: int = BELOW
    one: str = "diff_v2"
    other: str = "softmax_1.5h"
    files: str = "evidence_*"
    rate: str = "all"
    test: str = "t"
    equal_time: str = ""

    def findings(self, evidence):
        """One for each study and rate."""
        for study in evidence.studies(self.files):
            others = evidence.equal_time(study, self.equal_time) if self.equal_time else [study]
            for baseline in others:
                against = f" against {baseline.steps} of {self.other}" if self.equal_time else ""
                for where, runs in self._runs(study, baseline):
                    if sample := self._sample(runs):
                        yield self._finding(f"{study.label}{against}, {where}", sample, runs)

    def _runs(self, study, baseline):
        """(where, [pairs of one rate, ...]): what goes into one number."""
        ours, theirs = study.best_rate(self.one), baseline.best_rate(self.other)
        best = study.best_rate("diff_v2") or ours
        if ours is None or theirs is None:
            return
        if self.rate == "own" or self.equal_time:
            where = f"rate {ours:g}" if ours == theirs else f"rates {ours:g} and {theirs:g}"
            yield where, [study.pairs(self.one, self.other, ours, theirs, baseline)]
            return
        rates = study.rates(self.one, self.other)
        if self.rate == "large":
            if rates := [lr for lr in rates if lr > max(ours, theirs)]:
                *few, last = (f"{lr:g}" for lr in rates)
                where = f"rates {', '.join(few)} and {last}" if few else f"rate {last}"
                yield where, [study.pairs(self.one, self.other, lr) for lr in rates]
            return
        found = {lr: [study.pairs(self.one, self.other, lr)] for lr in rates}
        if self.rate == "best":
            found = {lr: runs for lr, runs in found.items() if lr == best}
        elif self.rate == "largest":
            found = {lr: runs for lr, runs in found.items() if len(runs[0]) > 1}
            found = dict(list(found.items())[-1:])
        yield from ((f"rate {lr:g}", runs) for lr, runs in found.items())

    def _sample(self, runs):
        """A number for each seed: the difference, summed over the rates."""
        seeds = {}
        for pairs in runs:
            for pair in pairs:
                for value in difference([pair], self.metric):
                    seeds[pair[0]["seed"]] = seeds.get(pair[0]["seed"], 0.0) + value
        return tuple(seeds.values())

    def _finding(self, where, sample, runs):
        words, digits = WORDS[self.metric]
        made = made_by(row for pairs in runs for pair in pairs for row in pair)
        if self.test == "t":
            what = f"{words}: {self.one} minus {self.other}"
            return Finding(what, where, sample, "t", self.claimed, 0.0, digits, made=made)
        more = "more" if self.claimed == ABOVE else "fewer"
        sample = tuple(-x for x in sample) if more == "more" else sample
        what = f"seeds with {more} {words}: {self.one}, {self.other}"
        return Finding(what, where, sample, "sign", self.claimed and ABOVE, 0.5, made=made)


@dataclass(frozen=True)
class Runs:
    """One variant's own values against a bound, at DIFF V2's best rate ("best") or at each ("all").

    Counts (spikes) are no normal numbers: of them the median is shown, and the range.
    """

    metric: str
    claimed: int
    bound: float
    variant: str = "diff_v2"
    files: str = "evidence_*"
    rate: str = "all"

    def findings(self, evidence):
        """One for each study and rate."""
        words, digits = WORDS[self.metric]
        side = {BELOW: f", at most {self.bound:.3g}", ABOVE: f", at least {self.bound:.3g}"}
        for study in evidence.studies(self.files):
            best = study.best_rate("diff_v2") or study.best_rate(self.variant)
            for lr in study.rates(self.variant):
                rows = [r for r in study.runs(self.variant, lr).values() if self.metric in r]
                if rows and (self.rate == "all" or lr == best):
                    sample, test = tuple(row[self.metric] for row in rows), "t"
                    unit = "seeds"
                    if self.metric == "n_spikes":
                        unit, test = f"range of {len(rows)}", "range"
                        sample = (statistics.median(sample), min(sample), max(sample))
                    yield Finding(
                        f"{words}: {self.variant}{side.get(self.claimed, '')}",
                        f"{study.label}, rate {lr:g}", sample, test, self.claimed, self.bound,
                        digits, unit, made_by(rows), signed=False,
                    )  # fmt: skip


@dataclass(frozen=True)
class Count:
    """In how many of all pairs of runs DIFF V2 has less: shown without a vote.

    Pairs share seeds, text and shapes, so that they are no independent coins: the interval would be
    too short by as much as they repeat each other.
    """

    metric: str

    def findings(self, evidence):
        """One, over all studies and rates."""
        studies = evidence.studies()
        pairs = [
            pair
            for study in studies
            for lr in study.rates("diff_v2", "softmax_1.5h")
            for pair in study.pairs("diff_v2", "softmax_1.5h", lr)
        ]
        if sample := tuple(difference(pairs, self.metric)):
            words, where = WORDS[self.metric][0], f"all pairs of {len(studies)} studies"
            made = made_by(row for pair in pairs for row in pair)
            less = "fewer" if self.metric == "n_spikes" else "less"
            yield Finding(f"{less} {words}: diff_v2, softmax_1.5h", where, sample, "sign", SHOWN,
                          0.5, unit="pairs", made=made)  # fmt: skip


@dataclass(frozen=True)
class Repeats:
    """By how much a run's loss differs when it is run again with its seed: a range.

    First at the rate with most repetitions: runs of another part may repeat some by the way.
    """

    files: str
    variants: tuple[str, ...] = ("diff_v2", "softmax_1.5h")
    bound: float = 0.001

    def findings(self, evidence):
        """One for each study and rate that has repeated runs."""
        for study in evidence.studies(self.files):
            again = {
                lr: [pair for name in self.variants for pair in study.repeats(name, lr)]
                for lr in study.rates(*self.variants)
            }
            for lr, pairs in sorted(again.items(), key=lambda item: -len(item[1])):
                if apart := [abs(d) for d in difference(pairs, "val_loss")]:
                    sample = statistics.median(apart), min(apart), max(apart)
                    yield Finding(
                        f"loss, nats a byte: a run and its repetition, at most {self.bound}",
                        f"{study.label}, rate {lr:g}", sample, "range", BELOW, self.bound, 4,
                        f"{len(apart)} repetitions", made_by(row for p in pairs for row in p),
                    )  # fmt: skip


@dataclass(frozen=True)
class Bench:
    """A ratio of times or of speeds in a bench file, the row that is largest by ``size`` first."""

    file: str
    what: str
    column: str
    claimed: int
    bound: float
    rows: dict  # what a row must have
    size: tuple[str, ...]  # numbers of a row: their product is its size
    where: str  # with the row's own names in braces

    def findings(self, evidence):
        """One for each row; none where a file is missing that need not be there."""
        data = evidence.files.get(self.file, {"rows": []})
        rows = [r for r in data["rows"] if all(r.get(k) == v for k, v in self.rows.items())]
        for row in sorted(rows, key=lambda row: -math.prod(row[name] for name in self.size)):
            sample = tuple(row[self.column + end] for end in ("", "_low", "_high"))
            machine = {"machine": data["machine"]["device"], "date": data["date"][:10]}
            machine |= {"file": self.file}
            rounds = f"{data['config']['rounds']} rounds"
            made = made_by([machine | {k: row[k] for k in ("backend",) if k in row}])
            yield Finding(self.what, self.where.format(**row), sample, "range", self.claimed,
                          self.bound, 2, rounds, made)  # fmt: skip


@dataclass(frozen=True)
class Cpu:
    """Numbers of claims_cpu.json: ``values`` takes what the file holds and gives a sample."""

    what: str
    where: str
    values: Callable
    claimed: int
    unit: str
    digits: int = 3
    bound: float = 0.0
    test: str = "t"  # or "range" or "parts", as in Finding

    def findings(self, evidence):
        """One."""
        data = evidence.files["claims_cpu"] | {"file": "claims_cpu"}
        sample = tuple(self.values(data))
        if self.test != "t":
            sample = statistics.median(sample), min(sample), max(sample)
        yield Finding(self.what, self.where, sample, self.test, self.claimed,
                      self.bound, self.digits, self.unit, made_by([data]))  # fmt: skip


@dataclass(frozen=True)
class Theorem:
    """A number that minidiff.theory computes: it has no error."""

    what: str
    where: str
    value: Callable
    claimed: int
    bound: float
    digits: int = 3
    per_cent: bool = False

    def findings(self, evidence):
        """One; the results do not matter."""
        yield Finding(self.what, self.where, (self.value(),), "exact", self.claimed, self.bound,
                      self.digits, "", "computed", per_cent=self.per_cent)  # fmt: skip


def made_by(rows):
    """File, card, date, backend and commit, as far as the rows say: one line."""
    found = {}
    for row in rows:
        for key in ("file", "machine", "date", "backend", "commit"):
            value = str(row.get(key, "auto"))
            cards = re.findall(r"NVIDIA (\w+)", value) if key == "machine" else []
            found.setdefault(key, []).extend(cards or ([value] if value != "auto" else []))
    lines = (" + ".join(dict.fromkeys(values)) for values in found.values())
    return ", ".join(line for line in lines if line)
