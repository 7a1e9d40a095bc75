"""Text from a run folder: what ``python -m minidiff sample`` prints."""

import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from minidiff.data import decode, encode, printable
from minidiff.devices import pick_device, pick_dtype
from minidiff.runs import load_run, writes_text


@dataclass
class Sample:
    """Write text with a trained model."""

    folder: tyro.conf.Positional[Path]  # a run folder
    prompt: str = "def "  # how the text begins
    tokens: int = 500  # how many bytes to write at most
    temperature: float = 0.8  # 0 takes the likeliest byte each time
    top_k: int = 40  # draw among this many likeliest bytes
    seed: int = 0  # of the draw
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"  # auto: a GPU if there is one
    best: bool = False  # the weights of the lowest validation loss, not the last ones

    def run(self):
        """Print the prompt and its continuation."""
        said = sample(**vars(self))
        print(printable(said) if sys.stdout.isatty() else said)


def sample(folder, prompt, tokens=500, temperature=0.8, top_k=40, seed=0, device="auto",
           best=False):  # fmt: skip
    """The prompt and what the model of a run folder makes of it, as text."""
    device = pick_device(device)
    if not 0 <= temperature < math.inf or top_k < 1 or tokens < 0 or not 0 <= seed < 2**63:
        raise ValueError("--temperature, --tokens, --seed must be at least 0, --top-k at least 1")
    model = load_run(folder, device, best, writes=True)
    if not writes_text(folder):
        raise ValueError(f"{folder}: this model's tokens are not bytes, so it cannot write text")
    model = model.to(pick_dtype(device))  # decoding reads every weight: on a GPU, half the bytes
    idx = encode(prompt, model.config.vocab_size).to(device)
    new = model.generate(idx, tokens, temperature=temperature, top_k=top_k, seed=seed)
    return decode(new)
