"""The command line: ``python -m minidiff COMMAND --help``. Every option is a dataclass field."""

import dataclasses
import logging
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import torch
import torch.distributed as dist
import tyro
from safetensors import SafetensorError

from minidiff.bench.decode import DecodeBench
from minidiff.bench.decode import decode as decode_speed
from minidiff.bench.ops import OpsBench
from minidiff.bench.ops import ops as ops_speed
from minidiff.bench.tools import defaults
from minidiff.bench.train import TrainBench
from minidiff.bench.train import train as train_speed
from minidiff.data import decode, encode
from minidiff.runs import load_run, read_metrics, refuse_to_overwrite
from minidiff.study.claims import claims
from minidiff.study.compare import Compare
from minidiff.study.evidence import RESULTS, Evidence
from minidiff.study.measure import measure
from minidiff.study.report import claims_text, write
from minidiff.train import PRESETS, TrainConfig, pick_device, train
from minidiff.variants import START, variant

TEXT_TOKENS = 257  # bytes and BOS; nanoGPT's folders may hold other tokens


@dataclass
class Train:
    """Train DIFF V2 and its softmax baseline with as many parameters, one after the other, on real
    text. Leaves a folder for each model under --out, and a figure that compares them."""

    config: TrainConfig = field(default_factory=TrainConfig)
    preset: Literal["auto", "laptop", "gpu"] = "auto"  # all defaults; auto: gpu where there is one
    variants: tuple[str, ...] = ("diff_v2", "softmax_1.5h")  # which models: minidiff/variants

    def run(self):
        """Train every variant, sample from each, and draw the comparison."""
        if not self.variants:
            raise ValueError("--variants: give at least one name")
        out, main = Path(self.config.out), int(os.environ.get("RANK", "0")) == 0
        models = {name: variant(self.config.model, name) for name in self.variants}
        for name in models:  # all folders, before the first model takes its time
            if not (self.config.resume or self.config.overwrite):
                refuse_to_overwrite(out / name)
        for name, model in models.items():
            folder = out / name
            resume = self.config.resume and (  # stopped in the first model, there is no second yet
                (folder / "checkpoint.safetensors").exists() or name == self.variants[0]
            )
            settings = {"model": model, "out": str(folder), "resume": resume}
            train(dataclasses.replace(self.config, **settings), on_start=START.get(name))
            if main and model.vocab_size == TEXT_TOKENS:
                text = [sample(folder, prompt) for prompt in ("def ", "class ", "import ")]
                (folder / "sample.txt").write_text("\n\n-----\n".join(text) + "\n")
        if main:
            self._report(out)

    def _report(self, out):
        from minidiff.look import plots

        runs = {name: read_metrics(out / name) for name in self.variants}
        plots.training_curves(runs).savefig(out / "compare.png", dpi=120)
        text = self.config.model.vocab_size == TEXT_TOKENS
        unit = "nats/byte" if text else "nats/token"
        for name, rows in runs.items():
            print(f"{name:14s} validation loss {rows[-1]['val_loss']:.4f} {unit}: {out / name}")
        if text:
            print((out / self.variants[0] / "sample.txt").read_text().split("\n-----\n")[0])
        print(f"\nfigure: {out / 'compare.png'}")


@dataclass
class CompareCommand(Compare):
    """Train every variant with every seed and learning rate, probe it, and write one JSON file."""

    config: TrainConfig = field(default_factory=TrainConfig)
    preset: Literal["auto", "laptop", "gpu"] = "auto"  # as for train


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
        {OpsBench: ops_speed, TrainBench: train_speed, DecodeBench: decode_speed}[type(self.what)](
            self.what
        )


@dataclass
class Sample:
    """Write text with a trained model."""

    folder: tyro.conf.Positional[Path]  # a run folder
    prompt: str = "def "  # how the text begins
    tokens: int = 500  # how many bytes to write at most
    temperature: float = 0.8  # 0 takes the likeliest byte each time
    top_k: int = 40  # draw among this many likeliest bytes
    seed: int = 0  # of the draw
    device: Literal["auto", "cpu", "cuda"] = "auto"  # auto: a GPU if there is one

    def run(self):
        """Print the prompt and its continuation."""
        print(sample(**vars(self)))


@dataclass
class Claims:
    """The published claims, and what was measured of each: prints the whole table, CLAIMS.md."""

    measure: bool = False  # first measure again what a CPU can, within a minute
    write: bool = False  # write CLAIMS.md and the figures beside the results
    results: Path = RESULTS  # the folder of the results files
    readme: Path | None = None  # with --write: put the answer and its table into this file

    def run(self):
        """Print the table, or write it."""
        if self.measure:
            measure(self.results)
        if self.write:
            write(self.results, self.readme)
        else:
            print(claims_text(claims(self.results), Evidence(self.results)), end="")


def sample(folder, prompt, tokens=500, temperature=0.8, top_k=40, seed=0, device="auto"):
    """The prompt and what the model of a run folder makes of it, as text."""
    device = pick_device(device)
    model = load_run(folder, device)
    if model.config.vocab_size != TEXT_TOKENS:
        raise ValueError(f"{folder}: this model's tokens are not bytes, so it cannot write text")
    if device.type == "cuda":
        model = model.bfloat16()  # decoding reads every weight for every token: half the bytes
    idx = encode(prompt, model.config.vocab_size).to(device)
    room = model.config.block_size - idx.shape[1]
    new = model.generate(
        idx, max(0, min(tokens, room)), temperature=temperature, top_k=top_k, seed=seed
    )
    return decode(new[0])


def main(argv=None):
    """Parse, run, and turn an expected failure into one line and an exit code."""
    argv = sys.argv[1:] if argv is None else argv
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")

    @dataclass
    class Peek:  # the preset must be known first: it sets the defaults of the other options
        preset: Literal["auto", "laptop", "gpu"] = "auto"

    peek, _ = tyro.cli(Peek, args=argv, return_unknown_args=True, add_help=False)
    gpu = torch.cuda.is_available() if peek.preset == "auto" else peek.preset == "gpu"
    config = PRESETS["gpu" if gpu else "laptop"]
    command = tyro.cli(
        Annotated[Train, tyro.conf.subcommand("train", default=Train(config))]
        | Annotated[Sample, tyro.conf.subcommand("sample")]
        | Annotated[CompareCommand, tyro.conf.subcommand("compare", default=CompareCommand(config))]
        | Annotated[Bench, tyro.conf.subcommand("bench")]
        | Annotated[Claims, tyro.conf.subcommand("claims")],
        config=(tyro.conf.OmitSubcommandPrefixes, tyro.conf.OmitArgPrefixes),
        args=argv,
        prog="python -m minidiff",
        description=__doc__,
    )
    try:
        command.run()
        if dist.is_initialized():  # by torchrun
            dist.destroy_process_group()
    except (ValueError, RuntimeError, FloatingPointError, OSError, SafetensorError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt as stopped:
        print(f"\n{stopped or 'stopped'}", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
