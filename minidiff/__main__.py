"""The command line: ``python -m minidiff COMMAND --help``. Every option is a dataclass field."""

import contextlib
import dataclasses
import json
import logging
import math
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import torch
import torch.distributed as dist
import tyro

from minidiff.bench.decode import DecodeBench
from minidiff.bench.decode import decode as decode_speed
from minidiff.bench.ops import OpsBench
from minidiff.bench.ops import ops as ops_speed
from minidiff.bench.tools import defaults
from minidiff.bench.train import TrainBench
from minidiff.bench.train import train as train_speed
from minidiff.checkpoint import NOT_KEPT, Run
from minidiff.data import open_data, printable
from minidiff.devices import only_one_process, pick_device, processes
from minidiff.export import Export
from minidiff.files import alone, read_json, read_text, replace_file, replace_text
from minidiff.interrupt import patient_terminal
from minidiff.limits import check_training
from minidiff.model import GPTConfig
from minidiff.parsing import one_line_errors, one_line_refusals
from minidiff.runs import SAMPLE, can_resume, read_metrics
from minidiff.study.claims import claims
from minidiff.study.compare import Compare
from minidiff.study.evidence import RESULTS, Evidence
from minidiff.study.measure import measure
from minidiff.study.report import claims_text, write
from minidiff.train import PRESETS, TrainConfig, check_machine, train
from minidiff.variants import START, variant
from minidiff.writing import Sample, sample

PROMPTS = ("def ", "class ", "import ")  # of the samples that train writes


@dataclass
class Train:
    """Train DIFF V2 and its softmax baseline with as many parameters, one after the other, on real
    text. Leaves a folder for each model under --out, and a figure that compares them."""

    config: TrainConfig = field(default_factory=TrainConfig)
    preset: Literal["auto", "laptop", "gpu"] = "auto"  # all defaults; auto: gpu where there is one
    variants: tuple[str, ...] = ("diff_v2", "softmax_1.5h")  # which models: minidiff/variants

    def run(self):
        """Train every variant, sample from each, and draw the comparison."""
        check_variants(self)
        out, main = Path(self.config.out), processes()[0] == 0
        device = pick_device(self.config.device)
        check_training(self.config, device, processes()[1])
        configs = {name: self._config_of(name) for name in self.variants}
        for config in configs.values():  # all of them, before the first model takes its time
            check_machine(config, device, processes()[1])
        shape = self.config.model  # the text is opened once, or the first run's files become text
        corpus = open_data(self.config.data, shape.vocab_size, shape.block_size)
        text = corpus.tokens == "bytes"
        for config in configs.values():
            Run(config, corpus)
        with contextlib.ExitStack() as folders:
            for config in configs.values() if main else ():
                Path(config.out).mkdir(parents=True, exist_ok=True)
                folders.enter_context(alone(config.out))
            if main:
                print(corpus.report)
                self._write_settings(corpus)
            for name, config in configs.items():
                train(config, on_start=START.get(name), corpus=corpus)
                if main and text:
                    said = [
                        sample(config.out, prompt, min(500, shape.block_size - 1 - len(prompt)))
                        for prompt in PROMPTS
                        if len(prompt) < shape.block_size
                    ]
                    replace_text(out / name / SAMPLE, "\n\n-----\n".join(said) + "\n")
            if main:
                self._report(out, text)

    def _config_of(self, name):
        """The TrainConfig of one model. A run that was stopped in the first has no second yet."""
        folder, start = Path(self.config.out) / name, self.config.init_from
        if start and (Path(start) / name).is_dir():  # of several models, each has its own
            start = str(Path(start) / name)
        return dataclasses.replace(
            self.config,
            model=variant(self.config.model, name),
            out=str(folder),
            init_from=start,
            resume=self.config.resume and (can_resume(folder) or name == self.variants[0]),
        )

    def _write_settings(self, corpus):
        """What --resume needs to know, beside the folders of the models."""
        settings = dataclasses.asdict(self.config) | {"variants": self.variants} | corpus.facts
        settings = {name: value for name, value in settings.items() if name not in NOT_KEPT}
        replace_text(Path(self.config.out) / SETTINGS, json.dumps(settings, indent=2) + "\n")

    def _report(self, out, text):
        from minidiff.look import plots

        runs = {name: read_metrics(out / name) for name in self.variants}
        figure = plots.training_curves(runs)
        replace_file(out / "compare.png", lambda new: figure.savefig(new, format="png", dpi=120))
        unit = "nats/byte" if text else "nats/token"
        for name, rows in runs.items():
            losses = [row["val_loss"] for row in rows if "val_loss" in row] or [math.nan]
            best = f" (best {min(losses):.4f})" if min(losses) < losses[-1] else ""
            print(f"{name:14s} validation loss {losses[-1]:.4f}{best} {unit}: {out / name}")
        if text:
            said = read_text(out / self.variants[0] / SAMPLE, "").split("\n-----\n")[0]
            print(printable(said) if sys.stdout.isatty() else said)
        print(f"\nfigure: {out / 'compare.png'}")


@dataclass
class CompareCommand(Compare):
    """Train every variant with every seed and learning rate, probe it, and write one JSON file."""

    config: TrainConfig = field(default_factory=TrainConfig)
    preset: Literal["auto", "laptop", "gpu"] = "auto"  # as for train

    def run(self):
        """Run what the results file lacks."""
        check_variants(self)
        if seed := self.config.seed:
            raise ValueError(f"--seed {seed}: give --seeds {seed} instead")
        super().run()


@dataclass
class Bench:
    """Measure speed and memory: of attention, of training steps, of decoding."""

    what: (
        Annotated[OpsBench, tyro.conf.subcommand("ops", default=defaults(OpsBench))]
        | Annotated[TrainBench, tyro.conf.subcommand("train", default=defaults(TrainBench))]
        | Annotated[DecodeBench, tyro.conf.subcommand("decode", default=defaults(DecodeBench))]
    )

    def run(self):
        """Run the benchmark that was chosen: it prints, and writes JSON and a figure."""
        only_one_process("bench")
        {OpsBench: ops_speed, TrainBench: train_speed, DecodeBench: decode_speed}[type(self.what)](
            self.what
        )


@dataclass
class Claims:
    """The published claims, and what was measured of each: prints the whole table, CLAIMS.md."""

    measure: bool = False  # first measure again what a CPU can, within a minute
    write: bool = False  # write CLAIMS.md and the figures beside the results
    results: Path = RESULTS  # the folder of the results files
    readme: Path | None = None  # with --write: put the answer and its table into this file

    def run(self):
        """Print the table, or write it."""
        if self.readme and not self.write:
            raise ValueError(f"--readme {self.readme}: give --write as well")
        if self.measure:
            measure(self.results)
        try:
            if self.write:
                write(self.results, self.readme)
            else:
                print(claims_text(claims(self.results), Evidence(self.results)), end="")
        except (LookupError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{self.results}: the table needs what is not there ({error!r}); see its README.md"
            ) from None


def check_variants(command):
    """--variants decides the attention: --attention would be another way to say it."""
    if not command.variants:
        raise ValueError("--variants: give at least one name")
    if (name := command.config.model.attention) != "diff_v2":
        raise ValueError(f"--attention {name}: give --variants {name} instead; see --help for all")


# ---- Parsing -----------------------------------------------------------------------------------

SETTINGS = "train.json"  # in --out: the settings of all its models


def begun(out):
    """The Train command that began in a folder, with its settings; None if none did."""
    path, fix = Path(out) / SETTINGS, "give all settings again, after removing this file"
    if not path.exists():
        return None
    saved = {k: v for k, v in read_json(path, fix).items() if not k.startswith("data_")}
    try:
        model, variants = GPTConfig(**saved.pop("model")), tuple(map(str, saved.pop("variants")))
        return Train(TrainConfig(model=model, out=str(out), **saved), variants=variants)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: not the settings of a training ({error}); {fix}") from None


@dataclass
class Peek:
    """What must be known first, since it sets the defaults of the other options."""

    preset: Literal["auto", "laptop", "gpu"] = "auto"
    resume: bool = False
    out: str = "runs"


def parse(argv):
    """The command that the words ask for.

    Raises:
        ValueError: they do not fit; the message is one line. SystemExit: --help was asked for.
    """
    with one_line_refusals():
        peek, _ = tyro.cli(Peek, args=argv, return_unknown_args=True, add_help=False)
    gpu = torch.cuda.is_available() if peek.preset == "auto" else peek.preset == "gpu"
    config = PRESETS["gpu" if gpu else "laptop"]
    resumed = begun(peek.out) if peek.resume and "train" in argv else None
    with one_line_refusals():
        return tyro.cli(
            Annotated[Train, tyro.conf.subcommand("train", default=resumed or Train(config))]
            | Annotated[Sample, tyro.conf.subcommand("sample")]
            | Annotated[Export, tyro.conf.subcommand("export")]
            | Annotated[
                CompareCommand, tyro.conf.subcommand("compare", default=CompareCommand(config))
            ]
            | Annotated[Bench, tyro.conf.subcommand("bench")]
            | Annotated[Claims, tyro.conf.subcommand("claims")],
            config=(tyro.conf.OmitSubcommandPrefixes, tyro.conf.OmitArgPrefixes),
            args=argv,
            prog="python -m minidiff",
            description=__doc__,
        )


def main(argv=None):
    """Parse, run, and turn an expected failure into one line and an exit code."""
    argv = sys.argv[1:] if argv is None else argv
    with patient_terminal():
        logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
        with one_line_errors():
            parse(argv).run()
            if dist.is_initialized():  # by torchrun
                dist.destroy_process_group()


if __name__ == "__main__":
    main()
