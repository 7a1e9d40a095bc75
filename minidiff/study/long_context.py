"""Retrieval by the models of many runs: which kind uses its context better, and by how much?

    python -m minidiff.study.long_context RUN_FOLDER ... --out results.json

Every model meets the same prompts and windows, within the context that it was trained with and up
to twice as long. A difference is taken seed by seed, and its interval is over the seeds: one over
the prompts would say that two models differ, and not that two kinds of model do.
"""

import dataclasses
import datetime
import itertools
import json
import shlex
import statistics
import sys
from pathlib import Path

import torch
import tyro

from minidiff.data import open_data
from minidiff.devices import pick_device
from minidiff.files import new_file, read_json, replace_text
from minidiff.parsing import one_line_errors, one_line_refusals
from minidiff.runs import load_run
from minidiff.study.compare import interval
from minidiff.study.retrieval import induction, longer, losses_by_position, recall, retrieval


def beyond(model, text, seed=0, *, prompts=64, sequences=8):
    """What :func:`minidiff.study.retrieval.retrieval` measures, up to twice the trained context T.

    Args:
        text: (N, 2T) windows of text, BOS first.
    Returns:
        (numbers, losses): recall of a third more lines than fit into T, and of twice as many;
        ``loss_after_n`` up to n = T; ``induction_beyond``, of T tokens and their copy. And the loss
        of every window, {n: (N,)}, to compare two models by.
    """
    T = model.config.block_size
    twin, found = longer(model, 2 * T), {}
    losses = losses_by_position(twin, text)
    for n, values in losses.items():
        found[f"loss_after_{n}"] = values.mean().item()
    most = (T - len("?abcd = '123")) // len("abcd = '1234'\n")  # lines that fit into T
    for n_lines in (4 * most // 3, 2 * most):
        found |= recall(twin, n_lines, seed, prompts)
    task = induction(twin, T, seed, sequences)
    return found | {f"induction_beyond_{key}": value for key, value in task.items()}, losses


def differences(rows):
    """For every two variants and every number that both have, one minus the other, seed by seed.

    Returns:
        dicts with variant, other, metric, seeds, differences; and mean, low, high (Student's t,
        95%) where two seeds or more have both.
    Raises:
        ValueError: two rows of one variant and seed, as of two learning rates.
    """
    runs = {(row["variant"], row["seed"]): row for row in rows}
    if len(runs) < len(rows):
        raise ValueError("two runs of one variant and seed: give one rate at a time")
    names = list(dict.fromkeys(row["variant"] for row in rows))
    found = []
    for one, other in itertools.combinations(names, 2):
        seeds = [s for name, s in runs if name == one and (other, s) in runs]
        pairs = [(runs[one, s], runs[other, s]) for s in seeds]
        for metric in pairs[0][0] if pairs else ():
            values = [[row.get(metric) for row in pair] for pair in pairs]
            if metric.endswith("_se") or not all(isinstance(x, float) for v in values for x in v):
                continue
            gaps = [a - b for a, b in values]
            row = {"variant": one, "other": other, "metric": metric, "seeds": seeds}
            row |= {"differences": gaps}
            if len(gaps) > 1:
                low, high = interval(gaps)
                row |= {"mean": statistics.fmean(gaps), "low": low, "high": high}
            found.append(row)
    return found


def one_a_line(found):
    """JSON with one model, or one difference, on a line: a file that can be read and compared."""
    parts = []
    for key, value in found.items():
        text = json.dumps(value)
        if isinstance(value, list):
            text = "[\n  " + ",\n  ".join(map(json.dumps, value)) + "\n ]"
        parts.append(f"{json.dumps(key)}: {text}")
    return "{\n " + ",\n ".join(parts) + "\n}\n"


@dataclasses.dataclass
class LongContext:
    """Recall, loss by position and induction of trained models, and their differences by seed."""

    folders: tyro.conf.Positional[tuple[Path, ...]]  # of runs; a name begins with its variant
    out: Path = Path("runs/retrieval.json")  # a new file, which grows model by model
    data: str = "python"  # validation text, as for training
    windows: int = 64  # of it, twice as long as block_size
    prompts: int = 256  # of each number of lines; beyond the trained context a quarter
    sequences: int = 32  # of each kind of induction; beyond the trained context a quarter
    seed: int = 0  # of the prompts
    device: str = "auto"  # auto (a GPU if there is one), cpu, cuda

    def __post_init__(self):
        for name in ("windows", "prompts", "sequences"):  # of one alone there is no error
            if getattr(self, name) < 2:
                raise ValueError(f"--{name} {getattr(self, name)}: give at least 2")

    def run(self):
        """Measure and write; returns what the file holds."""
        if not self.folders:
            raise ValueError("give the run folders to measure")
        with new_file(self.out):
            return self._run()

    def _run(self):
        device = pick_device(self.device)
        models = [load_run(folder) for folder in self.folders]  # a wrong folder ends it here
        abouts = [self._about(folder) for folder in self.folders]
        differences(abouts)  # refuses two rates
        T, vocab_size = models[0].config.block_size, models[0].config.vocab_size
        if any((m.config.block_size, m.config.vocab_size) != (T, vocab_size) for m in models):
            raise ValueError("these models have other contexts or tokens: measure them apart")
        corpus = open_data(self.data, vocab_size, 2 * T)
        text, _ = next(corpus.val.fixed_batches(1, self.windows, 2 * T))
        self.found = {
            "command": shlex.join(["python", *sys.orig_argv[1:]]),
            "date": str(datetime.date.today()),
            "machine": torch.cuda.get_device_name() if device.type == "cuda" else "CPU",
            "torch": torch.__version__,
            "trained_context": T,
            "data_fingerprint": corpus.fingerprint,
            "windows": self.windows,
            "prompts": self.prompts,
            "sequences": self.sequences,
            "differences": [],
            "rows": [],
        }
        for about, model in zip(abouts, models, strict=True):
            self._add(about | self._measured(model.to(device), text))
        return self.found

    def _about(self, folder):
        seed = read_json(folder / "config.json", "give a run folder").get("seed", 0)
        return {"run": folder.name, "variant": folder.name.split("-")[0], "seed": seed}

    def _measured(self, model, text):
        few = {"prompts": max(2, self.prompts // 4), "sequences": max(2, self.sequences // 4)}
        found = retrieval(model, self.seed, prompts=self.prompts, sequences=self.sequences)
        longer, losses = beyond(model, text, self.seed, **few)
        losses = {str(n): [round(x, 4) for x in values.tolist()] for n, values in losses.items()}
        return found | longer | {"window_losses": losses}

    def _add(self, row):
        self.found["rows"].append(row)
        self.found["differences"] = differences(self.found["rows"])
        replace_text(self.out, one_a_line(self.found))
        print(row["run"], flush=True)


def main(arguments=None):
    """The command line; what cannot be measured ends it with one line."""
    with one_line_errors():
        with one_line_refusals():
            study = tyro.cli(LongContext, args=arguments)
        study.run()


if __name__ == "__main__":
    main()
