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
from datetime import date
from pathlib import Path

import torch

from minidiff.data import open_data
from minidiff.look.probe import probe, spikes, summary
from minidiff.runs import load_run, read_metrics, replace_file
from minidiff.train import TrainConfig, pick_device, train
from minidiff.variants import START, parameter_counts, variant

MATCHED_PERCENT = 0.5  # parameter counts that differ by more are marked in the table
METRICS = (  # of a run's row; what the pairs of variants are compared on
    "val_loss",
    "first_share_eff_mean",
    "first_share_eff_max",
    "sink_rate_eff_mean",
    "rms_mean",
    "out_top1_max",
    "out_ratio_max",
    "qk_top1_max",
    "n_spikes",
)


@dataclass
class Compare:
    """Train every variant with every seed and learning rate, probe it, and write one JSON file."""

    config: TrainConfig = field(default_factory=TrainConfig)
    variants: tuple[str, ...] = ("diff_v2", "softmax_1.5h")  # which models: minidiff/variants
    seeds: tuple[int, ...] = (0, 1, 2)  # each gives new initial weights and a new order of the data
    lrs: tuple[float, ...] = ()  # peak learning rates; none: the one of --lr
    results: Path = Path("runs/compare.json")  # grows run by run; what it holds is not run again
    probe_windows: int = 8  # validation windows that the probes look at
    keep_weights: bool = False  # keep each run folder's weights after probing

    def __post_init__(self):
        if not self.variants:
            raise ValueError("--variants: give at least one name")
        for name in self.variants:
            variant(self.config.model, name)  # an unknown or impossible one stops here

    def run(self):
        """Run what the results file lacks, then print the tables."""
        data = self._opened()
        done = {row["key"] for row in data["rows"]}
        grid = itertools.product(self.lrs or (self.config.lr,), self.seeds, self.variants)
        for lr, seed, name in grid:
            key = self._key(name, lr, seed)
            if key not in done:
                done.add(key)
                data["rows"].append(self.one_run(key, name, lr, seed))
                data["pairs"] = pairs(data["rows"])
                self._write(data)
        print(table(data["rows"]))
        print(pair_table(pairs(data["rows"])))

    def _opened(self):
        """The results file, or an empty one; refused where its runs do not compare with these."""
        settings = dataclasses.asdict(self.config)
        settings |= settings.pop("model") | {"data": self._data().fingerprint}
        settings["probe_windows"] = self.probe_windows
        for name in ("lr", "seed", "out", "device", "compile", "resume", "overwrite", "log_every",
                     "save_every"):  # fmt: skip
            del settings[name]  # in each run's key, or of no influence on its numbers
        if not self.results.exists():
            return {"settings": settings, "command": [], "rows": []}
        data = json.loads(self.results.read_text())
        before = data.get("settings", {})
        changed = [name for name in settings if settings[name] != before.get(name)]
        if changed:
            raise ValueError(
                f"{self.results} holds runs with other settings ({', '.join(changed)}), which do "
                "not compare with these: give another --results"
            )
        return data

    def one_run(self, key, name, lr, seed):
        """Train and probe one model; returns its row of the results."""
        settings = {"model": variant(self.config.model, name), "lr": lr, "seed": seed}
        out = Path(self.config.out) / key
        begun = (out / "checkpoint.safetensors").exists()  # it was stopped on the way
        settings |= {"out": str(out), "resume": begun, "overwrite": not begun}
        config = dataclasses.replace(self.config, **settings)
        row = {"key": key, "variant": name, "lr": lr, "seed": seed, "steps": config.steps}
        row["params"] = parameter_counts(self.config.model, name)
        try:
            train(config, on_start=START.get(name))
        except FloatingPointError as error:
            row["diverged"] = str(error)
        row |= curve(read_metrics(out))
        if "diverged" not in row:
            row |= self._probed(out)
        if not self.keep_weights:
            for file in out.glob("*.safetensors"):
                file.unlink()
        return row

    def _probed(self, folder):
        model = load_run(folder, pick_device(self.config.device))
        idx, _ = next(
            self._data().val.fixed_batches(1, self.probe_windows, model.config.block_size)
        )
        found = summary(probe(model, idx)) | opposed_heads(model)
        return {k: v for k, v in found.items() if v is not None}

    def _data(self):
        model = self.config.model
        return open_data(self.config.data, model.vocab_size, model.block_size)

    def _key(self, name, lr, seed):
        size = f"D{self.config.model.n_embd}-L{self.config.model.n_layer}"
        return f"{name}-{size}-{self.config.steps}x{self.config.batch_size}-lr{lr:g}-seed{seed}"

    def _write(self, data):
        gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
        data |= {"machine": gpu, "torch": torch.__version__, "date": str(date.today())}
        if (command := " ".join(sys.argv)) not in data["command"]:
            data["command"].append(command)
        self.results.parent.mkdir(parents=True, exist_ok=True)
        replace_file(self.results, lambda path: path.write_text(json.dumps(data, indent=1) + "\n"))


def join(files, result):
    """Put the rows of several results files into one: of processes that shared a GPU, say.

    Raises:
        ValueError: the files hold runs with different settings or on different texts.
    """
    parts = [json.loads(Path(file).read_text()) for file in files]
    settings = parts[0].get("settings")  # a file from before they were kept has none
    if settings is None or any(part.get("settings") != settings for part in parts):
        raise ValueError("these runs had different settings or texts: their losses do not compare")
    rows = {row["key"]: row for part in parts for row in part["rows"]}
    commands = list(dict.fromkeys(line for part in parts for line in part["command"]))
    joined = parts[-1] | {"command": commands, "rows": list(rows.values())}
    joined["pairs"] = pairs(joined["rows"])
    replace_file(Path(result), lambda path: path.write_text(json.dumps(joined, indent=1) + "\n"))


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
        for (one, other), metric in itertools.product(itertools.combinations(names, 2), METRICS):
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
    for row in rows:
        total, off = row["params"]["total"] / 1e6, row["params"]["percent"]
        notes = [f"params {off:+.1f}%"] if abs(off) > MATCHED_PERCENT else []
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
    return "\n".join(lines if len(lines) > 1 else ["one seed: no interval, so no comparison"])


def opposed_heads(model):
    """Cosines between the W_O slices of heads that share keys and values: is one minus another?

    A softmax model with 2h heads computes DIFF V2's subtraction where the cosine is -1 (claim 14);
    two independent slices have a cosine near 0.

    Returns:
        opposed_min, the smallest cosine in the model, and opposed_share, the share of heads that
        have a partner with a cosine below -0.9. Nothing for another attention than softmax, or
        where no two heads share keys and values.
    """
    c, closest = model.config, []
    if c.attention != "softmax" or c.n_head == c.n_kv_head:
        return {}
    for block in model.blocks:
        weight = block.attn.o_proj.weight.detach().float()  # (D, h*d)
        slices = weight.T.unflatten(0, (c.n_kv_head, -1, c.head_dim))
        slices = torch.nn.functional.normalize(slices.flatten(2), dim=-1)  # (h_kv, group, d*D)
        closest.append((slices @ slices.mT).amin(-1).flatten())  # (h,)
    closest = torch.cat(closest)
    share = (closest < -0.9).float().mean()
    return {"opposed_min": closest.min().item(), "opposed_share": share.item()}
