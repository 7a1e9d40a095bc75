"""The stored results of notebooks/results, put together so that only like is compared with like.

A study is all runs with the same settings and the same text, whichever files hold them; within it
runs differ in variant, learning rate and seed. A new file ``evidence_*.json`` joins the study whose
settings it has, or is one of its own: nothing here names a file. Differences are taken seed by
seed, since the variants of a seed see the same data in the same order.
"""

import dataclasses
import fnmatch
import json
import math
import statistics
from dataclasses import dataclass, field
from pathlib import Path

from minidiff.files import read_json
from minidiff.study.compare import interval
from minidiff.study.results import RETRIEVAL
from minidiff.train import PRESETS, TrainConfig

RESULTS = Path(__file__).parents[2] / "notebooks" / "results"
OTHER_FILES = ("claims_cpu", "bench_pair", "bench_decode")
OPTIONAL = "bench_pair_flash4"  # needs flash-attn 4
SET_ASIDE = ("evidence_25m_rates_first",)  # no claim uses it: README.md beside it says why
OF_A_ROW = ("machine", "date", "torch", "commit", "backend", "probe_windows", "retrieval_prompts")
PACE = ("steps", "warmup_steps", "eval_every")  # what may differ between runs of equal time
TEXTS = {"99d16ec69afe755a": "English"}  # by fingerprint: what is not Python, of make_prose.py
CONTEXT = PRESETS["gpu"].model.block_size  # of nearly all runs
TRAINING = ("val_loss", "n_spikes")  # all other metrics depend on how much was asked
SEEDS = 3  # a rate with fewer is no candidate for the best one, where another has as many


def load(path):
    """A results file as a dict; a missing one is named with the fix."""
    fix = "claims --measure or measure.sh makes it"
    if not Path(path).exists():
        raise ValueError(f"{path} is missing: {fix}")
    return read_json(path, fix)


@dataclass
class Study:
    """Runs that differ in variant, learning rate and seed, and in nothing else."""

    settings: dict
    files: list[str] = field(default_factory=list)  # stems of the files that hold its rows
    rows: list[dict] = field(default_factory=list)  # of compare, with "file" and what made it

    @property
    def steps(self):
        """Of each run."""
        return max(row["steps"] for row in self.rows)

    @property
    def label(self):
        """Size and length, and what else is its own: "25M, 1000 steps, English"."""
        words = [f"{self.rows[0]['params']['total'] / 1e6:.0f}M", f"{self.steps} steps"]
        tokens = self.settings.get("block_size", CONTEXT)
        words += [f"{tokens} tokens"] if tokens != CONTEXT else []
        words += [TEXTS[text]] if (text := self.settings.get("data")) in TEXTS else []
        words += ["equal time"] if self.settings.get("equal_time") else []
        return ", ".join(words)

    def runs(self, variant, lr=None):
        """{seed: row} of the runs that ended; at one learning rate, or at any."""
        return {
            row["seed"]: row
            for row in reversed(self.rows)  # a run made twice counts once: the first
            if row["variant"] == variant and lr in (None, row["lr"]) and "diverged" not in row
        }

    def repeats(self, variant, lr):
        """[(row, row)]: runs of a seed that was run again, and its first one."""
        first = self.runs(variant, lr)
        return [
            (row, first[row["seed"]])
            for row in self.rows
            if (row["variant"], row["lr"]) == (variant, lr) and "diverged" not in row
            if row is not first[row["seed"]]
        ]

    def rates(self, *variants):
        """Learning rates at which all of these have a run, in order."""
        rates = {row["lr"] for row in self.rows}
        return sorted(lr for lr in rates if all(self.runs(name, lr) for name in variants))

    def shared_seeds(self, variant):
        """Seeds that a variant was run with at every rate that has three seeds, if any has."""
        runs = [set(self.runs(variant, lr)) for lr in self.rates(variant)]
        several = [seeds for seeds in runs if len(seeds) >= SEEDS]
        return set.intersection(*several) if several else set()

    def best_rate(self, variant):
        """Where its mean validation loss is lowest, of the rates with three seeds; None: no run.

        The means are over the seeds that all of these rates have: some seeds are harder.
        """
        rates = self.rates(variant)
        rates = [lr for lr in rates if len(self.runs(variant, lr)) >= SEEDS] or rates
        seeds = self.shared_seeds(variant)
        loss = {lr: self.mean(variant, "val_loss", lr, seeds)[0] for lr in rates}
        return min(loss, key=loss.get, default=None)

    def mean(self, variant, metric, lr, seeds=()):
        """(mean, low, high) over the seeds at one rate: over those given, where it has any."""
        runs = self.runs(variant, lr)
        runs = {seed: runs[seed] for seed in runs if seed in seeds} or runs
        return estimate([row[metric] for row in runs.values() if row.get(metric) is not None])

    def pairs(self, one, other, lr, other_lr=None, baseline=None):
        """[(row of one, row of other)] with the same seed, in the order of the seeds.

        ``other_lr`` is the other's rate where it has one of its own; ``baseline`` the study that
        holds the other's runs where that is not this one.
        """
        mine, theirs = self.runs(one, lr), (baseline or self).runs(other, other_lr or lr)
        return [(mine[seed], theirs[seed]) for seed in sorted(mine.keys() & theirs.keys())]


def estimate(values):
    """(mean, low, high) by Student's t at 95%; no interval (nan) for fewer than two values."""
    if len(values) < 2:
        return (values[0] if values else math.nan), math.nan, math.nan
    return statistics.fmean(values), *interval(values)


def difference(pairs, metric):
    """Of one minus other, a number a pair, for those that both have the metric, asked equally."""
    asked = "probe_windows"
    if metric in RETRIEVAL and metric != "context_gain":  # which is of windows of text, too
        asked = "retrieval_prompts"
    return [
        one[metric] - other[metric]
        for one, other in pairs
        if one.get(metric) is not None and other.get(metric) is not None
        if metric in TRAINING or one.get(asked) == other.get(asked)
    ]


def gap_over_training(pairs):
    """The difference in validation loss at every step at which all pairs were validated.

    Args:
        pairs: [(row, row)], the two runs of each seed; "val_curve" is [[step, nats], ...].

    Returns:
        [(step, mean, low, high)]: Student's t at 95% over the seeds, nan with one.
    """
    curves = [[dict(row["val_curve"]) for row in pair] for pair in pairs]
    steps = set.intersection(*(set(curve) for pair in curves for curve in pair)) if curves else ()
    return [(step, *estimate([a[step] - b[step] for a, b in curves])) for step in sorted(steps)]


class Evidence:
    """All stored results: the studies, and the files of the benches and of the CPU."""

    def __init__(self, folder=RESULTS):
        self.folder = Path(folder)
        self.files = {}  # stem: what the file says of itself
        studies = {}
        for path in sorted(self.folder.glob("evidence_*.json")):
            if path.stem in SET_ASIDE:
                continue
            data = load(path)
            self.files[path.stem] = {k: v for k, v in data.items() if k not in ("rows", "pairs")}
            settings = settings_of(data, path.stem)
            study = studies.setdefault(json.dumps(settings, sort_keys=True), Study(settings))
            study.files.append(path.stem)
            about = data.get("settings", {}) | data  # what the file says of all its rows
            about = {k: about[k] for k in OF_A_ROW if k in about}
            study.rows += [about | {"file": path.stem} | row for row in data["rows"]]
        found = [study for study in studies.values() if study.rows]
        self.all = sorted(found, key=lambda study: (-study.steps, -len(study.rows)))
        there = (self.folder / f"{OPTIONAL}.json").exists()
        for name in (*OTHER_FILES, *([OPTIONAL] if there else [])):
            self.files[name] = load(self.folder / f"{name}.json")

    def studies(self, where="evidence_*"):
        """Those of which a file's name fits the pattern: the longest runs first, then the most.

        A pattern may end in "@" and the number of steps: "evidence_25m*@1000".
        """
        files, _, steps = where.partition("@")
        return [
            study
            for study in self.all
            if any(fnmatch.fnmatch(name, files) for name in study.files)
            and steps in ("", str(study.steps))
        ]

    def equal_time(self, study, files):
        """Studies whose files fit the pattern, and that differ from this one only in their pace."""
        fixed = {k: v for k, v in study.settings.items() if k not in PACE}
        return [
            other
            for other in self.studies(files)
            if {k: v for k, v in other.settings.items() if k not in PACE} == fixed
        ]


def settings_of(data, name):
    """What must be equal for runs to be compared; an old file without settings is on its own.

    A setting that a file does not know yet had the default that it has today.
    """
    settings = data.get("settings")
    if settings is None:
        return {"file": name}
    config = TrainConfig()
    defaults = dataclasses.asdict(config) | dataclasses.asdict(config.model)
    apart = ("model", "lr", "seed", "out", "device", "compile", "resume", "overwrite", "log_every",
             "save_every", *OF_A_ROW)  # fmt: skip
    return {k: v for k, v in (defaults | settings).items() if k not in apart}
