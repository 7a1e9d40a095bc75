"""The stored results of notebooks/results, read the way the table of claims needs them.

Variants are compared seed by seed: the interval is Student's t at 95% of the paired differences.
"""

import json
import statistics
from pathlib import Path

from minidiff.compare import interval

RESULTS = Path(__file__).parent.parent / "notebooks" / "results"


class Evidence:
    """The stored results, and the few ways in which the table reads them."""

    def __init__(self, folder=RESULTS):
        def load(name):
            path = Path(folder) / f"{name}.json"
            if not path.exists():
                raise ValueError(f"{path} is missing: claims --measure or measure.sh makes it")
            return json.loads(path.read_text())

        self.main, self.rates = load("evidence_25m"), load("evidence_25m_rates")
        self.cpu, self.train, self.decode = (
            load(n) for n in ("claims_cpu", "bench_train", "bench_decode")
        )
        others = ("25m_long", "5m", "5m_deep", "25m_small_data")
        self.all_rows = [self.main["rows"], *(load(f"evidence_{n}")["rows"] for n in others)]

    def runs(self, lr=None):
        """{(variant, seed): row} of the 25M runs, or of the short ones at a larger rate."""
        rows = self.main["rows"] if lr is None else [r for r in self.rates["rows"] if r["lr"] == lr]
        return {(row["variant"], row["seed"]): row for row in rows if "diverged" not in row}

    def mean(self, name, metric):
        """Over the seeds of the 25M runs."""
        return statistics.fmean(
            row[metric] for (variant, _), row in self.runs().items() if variant == name
        )

    def differences(self, metric, one="diff_v2", other="softmax_1.5h", lr=None):
        """Of one variant minus the other, seed by seed, where both have the seed."""
        runs = self.runs(lr)
        seeds = [seed for name, seed in runs if name == one and (other, seed) in runs]
        return [runs[one, seed][metric] - runs[other, seed][metric] for seed in seeds]

    def pair(self, *which, **more):
        """(mean, low, high) of the differences."""
        differences = self.differences(*which, **more)
        return statistics.fmean(differences), *interval(differences)

    def sweep(self, *which):
        """{learning rate: (mean, low, high)} of the short runs."""
        return {
            lr: self.pair(*which, lr=lr) for lr in sorted({r["lr"] for r in self.rates["rows"]})
        }

    def smaller(self, metric):
        """(in how many pairs of runs DIFF V2 has the smaller figure, of how many), all sizes."""
        found = []
        for rows in self.all_rows:
            runs = {(row["variant"], row["seed"]): row[metric] for row in rows}
            seeds = [seed for name, seed in runs if name == "diff_v2"]
            found += [runs["diff_v2", s] < runs["softmax_1.5h", s] for s in seeds]
        return sum(found), len(found)
