"""Several variants, several seeds, one results file: who is better, and by more than chance?

All variants of one seed see the same data in the same order, so differences are taken seed by seed
(paired). The interval is Student's t at 95%; with one seed there is none, and none is printed.
"""

import dataclasses
import itertools
import json
import math
import statistics
import sys
from dataclasses import dataclass, field
from pathlib import Path

from minidiff.data import DataError, open_data
from minidiff.devices import only_one_process, pick_device
from minidiff.files import alone, replace_text
from minidiff.look.probe import probe, spikes, summary
from minidiff.runs import CHECKPOINT, WEIGHTS, load_run, read_metrics
from minidiff.study.equal_time import equal_steps
from minidiff.study.opposed import opposed_heads
from minidiff.study.results import METRICS, RETRIEVAL, made_here, read_results
from minidiff.study.retrieval import LEAST_BLOCK, retrieval
from minidiff.train import TrainConfig, check_machine, train
from minidiff.variants import START, parameter_counts, variant

MATCHED_PERCENT = 0.5  # parameter counts that differ by more are marked in the table


@dataclass
class Compare:
    """Train every variant with every seed and learning rate, probe it, and write one JSON file."""

    config: TrainConfig = field(default_factory=TrainConfig)
    variants: tuple[str, ...] = ("diff_v2", "softmax_1.5h")  # which models: minidiff/variants
    seeds: tuple[int, ...] = (0, 1, 2)  # each gives new initial weights and a new order of the data
    lrs: tuple[float, ...] = ()  # peak learning rates; none: the one of --lr
    results: Path = Path("runs/compare.json")  # grows run by run; what it holds is not run again
    probe_windows: int = 8  # validation windows that the probes look at
    retrieval_prompts: int = 0  # for each number of lines of study/retrieval.py; 0: do not ask
    keep_weights: bool = False  # keep each run folder's weights after probing
    # --steps are the first variant's (a file keeps its first); others get as many as in that time
    equal_time: bool = False

    def __post_init__(self):
        if not self.variants:
            raise ValueError("--variants: give at least one name")
        if self.probe_windows < 1:
            raise ValueError("--probe-windows must be at least 1")
        if self.retrieval_prompts:  # an error of each mean wants two prompts and two windows
            if min(self.retrieval_prompts, self.probe_windows) < 2:
                raise ValueError("--retrieval-prompts and --probe-windows must be at least 2 here")
            if self.config.model.block_size < LEAST_BLOCK:
                raise ValueError(f"--retrieval-prompts needs a block_size of {LEAST_BLOCK} or more")
        if not self.seeds:
            raise ValueError("--seeds: give at least one")
        self._steps = dict.fromkeys(self.variants, self.config.steps)
        for lr, seed, name in self._grid():
            self._config(name, lr, seed)  # an unknown or impossible one stops here

    def run(self):
        """Run what the results file lacks, then print the tables."""
        only_one_process("compare")
        device = pick_device(self.config.device)
        for name in self.variants:  # all of them, before the first run takes its time
            check_machine(self._config(name, self.config.lr, 0), device, processes=1)
        self.results.parent.mkdir(parents=True, exist_ok=True)
        model = self.config.model  # the text once: files of the first run are no text of the second
        self._corpus = open_data(self.config.data, model.vocab_size, model.block_size)
        try:  # what the probes cannot read, no run should wait for
            next(self._windows(model.block_size))
        except DataError as error:
            raise ValueError(f"--probe-windows {self.probe_windows}: {error}") from None
        print(self._corpus.report)
        with alone(self.results):
            data = self._opened()
            if self.equal_time:
                configs = {name: self._config(name, self.config.lr, 0) for name in self.variants}
                self._steps = equal_steps(data, configs, device, self.results)
            done = {row["key"]: row for row in data["rows"]}
            for lr, seed, name in self._grid():
                key = self._key(name, lr, seed)
                if key not in done:
                    self._write(data)  # if that cannot be done, then not an hour later
                    done[key] = self.one_run(key, name, lr, seed)
                    data["rows"].append(done[key])
                    self._write(data)
                if done[key].get("weights_kept") is False:  # only now: the row is written
                    for file in WEIGHTS:
                        (Path(self.config.out) / key / file).unlink(missing_ok=True)
        print(table(data["rows"]))
        print(pair_table(pairs(data["rows"])))

    def _grid(self):
        return itertools.product(self.lrs or (self.config.lr,), self.seeds, self.variants)

    def _config(self, name, lr, seed, **more):
        more |= {"model": variant(self.config.model, name), "steps": self._steps[name]}
        return dataclasses.replace(self.config, lr=lr, seed=seed, **more)

    def _opened(self):
        """The results file, or an empty one; refused where its runs do not compare with these."""
        settings = dataclasses.asdict(self.config)
        settings |= settings.pop("model") | {"data": self._corpus.fingerprint}
        settings["probe_windows"] = self.probe_windows
        settings["retrieval_prompts"] = self.retrieval_prompts
        for name in ("lr", "seed", "out", "device", "compile", "resume", "overwrite", "log_every",
                     "save_every", "tensorboard"):  # fmt: skip
            del settings[name]  # in each run's key, or of no influence on its numbers
        settings |= {"equal_time": True} if self.equal_time else {}  # older files lack it
        if not self.results.exists():
            return {"settings": settings, "command": [], "rows": []}
        data = read_results(self.results)
        before = {f.name: f.default for f in dataclasses.fields(self.config)}  # of older versions
        before |= {"retrieval_prompts": 0, "equal_time": False}
        before |= data.get("settings") or dict.fromkeys(settings)
        asked = settings | {"equal_time": self.equal_time}
        changed = [name for name in asked if asked[name] != before.get(name)]
        if changed:
            raise ValueError(
                f"{self.results} holds runs with other settings ({', '.join(changed)}), which do "
                "not compare with these: give another --results"
            )
        return data

    def one_run(self, key, name, lr, seed):
        """Train and probe one model; returns its row of the results."""
        out = Path(self.config.out) / key
        begun = (out / CHECKPOINT).exists()  # it was stopped on the way
        config = self._config(name, lr, seed, out=str(out), resume=begun, overwrite=not begun)
        row = {"key": key, "variant": name, "lr": lr, "seed": seed, "steps": config.steps}
        row |= {"params": parameter_counts(self.config.model, name)} | made_here()
        try:
            train(config, on_start=START.get(name), corpus=self._corpus)
        except FloatingPointError as error:
            row["diverged"] = str(error)
        rows = read_metrics(out)
        row |= curve(rows) | {"weights_kept": self.keep_weights}
        if "diverged" not in row:
            if sum("loss" in logged for logged in rows) != config.steps:
                raise ValueError(f"{out}/metrics.jsonl lacks steps: delete {out}, and run it again")
            row |= self._probed(out, seed)
        return row

    def _windows(self, block_size):
        """Yield what the probes look at, once: (idx, targets), each (probe_windows, block_size)."""
        return self._corpus.val.fixed_batches(1, self.probe_windows, block_size)

    def _probed(self, folder, seed):
        model = load_run(folder, pick_device(self.config.device))
        idx, _ = next(self._windows(model.config.block_size))
        found = summary(probe(model, idx)) | opposed_heads(model)
        if self.retrieval_prompts:
            found |= retrieval(model, seed, text=idx, prompts=self.retrieval_prompts, sequences=32)
        return {k: v for k, v in found.items() if v is not None}

    def _key(self, name, lr, seed):
        size = f"D{self.config.model.n_embd}-L{self.config.model.n_layer}"
        rate = f"{lr:g}" if float(f"{lr:g}") == lr else repr(lr)  # no two rates look alike
        return f"{name}-{size}-{self._steps[name]}x{self.config.batch_size}-lr{rate}-seed{seed}"

    def _write(self, data):
        data |= made_here()
        if (command := " ".join(sys.argv)) not in data["command"]:
            data["command"].append(command)
        data["pairs"] = pairs(data["rows"])
        replace_text(self.results, json.dumps(data, indent=1) + "\n")


def join(files, result):
    """Put the rows of several results files into one: of processes that shared a GPU, say.

    Raises:
        ValueError: the files hold runs with different settings or on different texts, or runs in
            equal time by different timings.
    """
    parts = [read_results(file) for file in files]
    settings = parts[0].get("settings")  # a file from before they were kept has none
    if settings is None or any(part.get("settings") != settings for part in parts):
        raise ValueError("these runs had different settings or texts: their losses do not compare")
    if any(part.get("step_ms") != parts[0].get("step_ms") for part in parts):
        raise ValueError("these runs in equal time were timed apart: their steps do not compare")
    rows = {row["key"]: row for part in parts for row in part["rows"]}
    commands = list(dict.fromkeys(line for part in parts for line in part["command"]))
    joined = parts[-1] | {"command": commands, "rows": list(rows.values())}
    joined["pairs"] = pairs(joined["rows"])
    replace_text(result, json.dumps(joined, indent=1) + "\n")


def curve(rows):
    """What is kept of a run's metrics: losses, gradient norms, spikes, speed."""
    steps = [row for row in rows if "loss" in row]
    val = [(row["step"], row["val_loss"]) for row in rows if "val_loss" in row]
    size = max(1, len(steps) // 50)  # 50 points of the training curve, each a mean
    parts = [steps[i : i + size] for i in range(0, len(steps), size)]
    found = [steps[i]["step"] for i in spikes([row["grad_norm"] for row in steps])]
    return {
        "val_loss": val[-1][1] if val else math.nan,
        "val_curve": val,
        "curve_steps": [part[-1]["step"] for part in parts],
        "train_curve": [round(statistics.fmean(r["loss"] for r in part), 4) for part in parts],
        "grad_norm_curve": [round(max(r["grad_norm"] for r in part), 4) for part in parts],
        "spike_steps": found,
        "n_spikes": len(found),
        "tokens_per_s": statistics.median(row["tokens_per_s"] for row in steps) if steps else 0,
    }


def pairs(rows, confidence=0.95):
    """Mean and interval of the difference of every two variants, for each learning rate and metric.

    Returns rows with variant, other, lr, metric, difference (variant minus other), low, high and
    seeds. Two variants that share a single seed get no row: one difference has no interval. A run
    that diverged has no place in a mean: it is left out, and the table says DIVERGED.
    """
    found = []
    rows = [row for row in rows if "diverged" not in row]
    names = list(dict.fromkeys(row["variant"] for row in rows))
    for lr in dict.fromkeys(row["lr"] for row in rows):
        runs = {(row["variant"], row["seed"]): row for row in rows if row["lr"] == lr}
        for (one, other), metric in itertools.product(
            itertools.combinations(names, 2), METRICS + RETRIEVAL
        ):
            differences = [
                row[metric] - runs[other, seed][metric]
                for (name, seed), row in runs.items()
                if name == one and metric in row and metric in runs.get((other, seed), ())
            ]
            if len(differences) > 1:
                low, high = interval(differences, confidence)
                found.append({"variant": one, "other": other, "lr": lr, "metric": metric,
                              "difference": statistics.fmean(differences), "low": low,
                              "high": high, "seeds": len(differences)})  # fmt: skip
    return found


def interval(values, confidence=0.95):
    """(low, high): Student's t interval of the mean of two or more values."""
    from scipy import stats  # half a second that the other commands do not need

    half = stats.t.ppf((1 + confidence) / 2, len(values) - 1) * statistics.stdev(values)
    half /= math.sqrt(len(values))
    return statistics.fmean(values) - half, statistics.fmean(values) + half


def table(rows):
    """One line a run, as text: loss, share of attention on BOS, largest activation, spikes."""
    shown = ("val_loss", "first_share_eff_mean", "first_share_eff_max", "out_top1_max", "n_spikes")
    lines = [f"{'variant':16} {'lr':>7} seed  params " + " ".join(f"{name:>20}" for name in shown)]
    several = len({row.get("steps") for row in rows}) > 1
    for row in rows:
        total, off = row["params"]["total"] / 1e6, row["params"]["percent"]
        notes = [f"params {off:+.1f}%"] if abs(off) > MATCHED_PERCENT else []
        notes += [f"{row['steps']} steps"] if several else []
        notes += ["DIVERGED"] if "diverged" in row else []
        numbers = " ".join(f"{row.get(name, math.nan):20.4f}" for name in shown)
        head = f"{row['variant']:16} {row['lr']:7.1e} {row['seed']:4d} {total:6.2f}M"
        lines.append(f"{head} {numbers} {' '.join(notes)}".rstrip())
    return "\n".join(lines)


def pair_table(found, metric="val_loss"):
    """The differences of one metric with their intervals, as text."""
    lines = [f"difference in {metric}, 95% t interval, paired by seed"]
    lines += [
        f"{row['variant']:>16} - {row['other']:16} lr {row['lr']:.1e} {row['difference']:+.4f} "
        f"[{row['low']:+.4f}, {row['high']:+.4f}] over {row['seeds']} seeds"
        for row in found
        if row["metric"] == metric
    ]
    return "\n".join(lines if len(lines) > 1 else ["no two variants share two seeds: no interval"])
