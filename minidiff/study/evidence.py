"""The stored results of notebooks/results, read the way the table of claims needs them.

Variants are compared seed by seed: the interval is Student's t at 95% of the paired differences.
"""

import json
import statistics
from pathlib import Path

from minidiff.study.compare import interval

LR = 3e-3  # of the runs that have all variants
RESULTS = Path(__file__).parents[2] / "notebooks" / "results"


class Evidence:
    """The stored results, and the few ways in which the table reads them."""

    def __init__(self, folder=RESULTS):
        def load(name):
            path = Path(folder) / f"{name}.json"
            if not path.exists():
                raise ValueError(f"{path} is missing: claims --measure or measure.sh makes it")
            return json.loads(path.read_text())

        def runs(name):
            return [row for row in load(name)["rows"] if "diverged" not in row]

        self.cpu, self.train, self.decode = (
            load(n) for n in ("claims_cpu", "bench_train", "bench_decode")
        )
        self.main, self.short = runs("evidence_25m"), runs("evidence_25m_rates")
        self.full = [*self.main, *runs("evidence_25m_lr")]  # 25M, 1000 steps, at all rates
        others = ("25m_long", "5m", "5m_deep", "25m_small_data")
        self.all_rows = [self.full, *(runs(f"evidence_{n}") for n in others)]
        planned = len(load("evidence_25m_rates")["rows"])
        self.diverged = (planned - len(self.short), planned)  # short runs: so many of so many

    def differences(self, metric, one="diff_v2", other="softmax_1.5h", lr=LR, short=False):
        """Of one variant minus the other, seed by seed, where both have the seed."""
        runs = {
            (row["variant"], row["seed"]): row[metric]
            for row in (self.short if short else self.full)
            if row["lr"] == lr and metric in row
        }
        seeds = [seed for name, seed in runs if name == one and (other, seed) in runs]
        return [runs[one, seed] - runs[other, seed] for seed in seeds]

    def pair(self, *which, **more):
        """(mean, low, high) of the differences."""
        differences = self.differences(*which, **more)
        return statistics.fmean(differences), *interval(differences)

    def sweep(self, *which, short=False):
        """{learning rate: (mean, low, high)}, for each with two seeds or more."""
        rates = sorted({row["lr"] for row in (self.short if short else self.full)})
        return {
            lr: self.pair(*which, lr=lr, short=short)
            for lr in rates
            if len(self.differences(*which, lr=lr, short=short)) > 1
        }

    def mean(self, name, metric, lr=LR):
        """Over the seeds of the 25M runs."""
        rows = [row for row in self.full if (row["variant"], row["lr"]) == (name, lr)]
        return statistics.fmean(row[metric] for row in rows)

    def best_rate(self, name):
        """The learning rate at which a variant's 25M runs have the lowest mean loss."""
        rates = {row["lr"] for row in self.full if row["variant"] == name}
        return min(rates, key=lambda lr: self.mean(name, "val_loss", lr))

    def smaller(self, metric):
        """(in how many pairs of runs of any size and rate DIFF V2 has less, of how many)."""
        found = []
        for rows in self.all_rows:
            runs = {(row["variant"], row["lr"], row["seed"]): row[metric] for row in rows}
            found += [
                runs["diff_v2", lr, seed] < runs["softmax_1.5h", lr, seed]
                for name, lr, seed in runs
                if name == "diff_v2" and ("softmax_1.5h", lr, seed) in runs
            ]
        return sum(found), len(found)
