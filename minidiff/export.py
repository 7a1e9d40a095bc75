"""A trained model for other tools: ``python -m minidiff export RUN``, as ONNX or as weights.

ONNX: a graph from token ids (B, T), int64, to logits (B, T, vocab_size), float32, for any B and any
T up to block_size. It reads whole sequences: the KV cache stays here. Weights: the attention layers
alone, named as the published module of DIFF V2 names them (microsoft/unilm, MultiheadFlashDiffV2).
"""

import contextlib
import dataclasses
import importlib.util
import json
import logging
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import tyro
from safetensors.torch import save_file

from minidiff.files import replace_file
from minidiff.model import GPT
from minidiff.runs import ONNX, PUBLISHED, load_run

LARGEST = 2**31  # bytes of an ONNX file


@dataclass
class Export:
    """Write a trained model for other tools: as ONNX, or the weights of its attention under the
    published module's names."""

    folder: tyro.conf.Positional[Path]  # a run folder
    to: Literal["onnx", "published"] = "onnx"  # onnx needs: pip install onnx onnxscript
    out: Path | None = None  # the new file; none: model.onnx or published.safetensors in the folder
    best: bool = False  # the weights of the lowest validation loss, not the last ones

    def run(self):
        """Write the file and say where it is."""
        name = {"onnx": ONNX, "published": PUBLISHED}[self.to]
        path = self.out or self.folder / name
        if path.exists():
            raise ValueError(f"{path}: there already; remove it, or give another --out")
        if self.out and not path.parent.is_dir():
            raise ValueError(f"--out {path}: there is no folder {path.parent}")
        model = load_run(self.folder, best=self.best)
        {"onnx": write_onnx, "published": write_published}[self.to](model, path)
        print(path)


# ---- ONNX --------------------------------------------------------------------------------------


def write_onnx(model, path):
    """Write a GPT as one ONNX file, in float32.

    Raises:
        ValueError: a package is missing, or this model has no such graph; says which and why.
    """
    for package in ("onnx", "onnxscript"):
        if importlib.util.find_spec(package) is None:
            raise ValueError(f"ONNX needs the package {package}: pip install onnx onnxscript")
    if (size := sum(p.numel() * 4 for p in model.parameters())) > 0.95 * LARGEST:
        raise ValueError(f"an ONNX file holds 2 GB at most, and the weights take {size / 1e9:.1f}")
    config = dataclasses.replace(model.config, backend="sdpa")  # has no kernel of one machine in it
    with torch.device("cpu"):
        plain = GPT(config).float().eval()
    plain.load_state_dict(model.state_dict())
    try:
        program = _program(plain)
        _check(program.exported_program.module(), plain)
    except Exception as error:  # PyTorch has dozens
        why = " ".join(str(error.__cause__ or error).split())[:200]
        raise ValueError(f"{config.attention} has no ONNX graph for every length: {why}") from error
    program.model.metadata_props["minidiff"] = json.dumps(dataclasses.asdict(config))
    replace_file(path, lambda new: program.save(str(new), external_data=False))


def _program(model):
    sizes = {0: torch.export.Dim("B"), 1: torch.export.Dim("T", max=model.config.block_size)}
    example = torch.zeros(2, min(8, model.config.block_size), dtype=torch.long)
    with quiet("torch.onnx", "onnxscript", "onnx_ir"):
        return torch.onnx.export(
            Logits(model), (example,), input_names=["idx"], output_names=["logits"],
            dynamic_shapes=({**sizes},), dynamo=True, verbose=False,
        )  # fmt: skip


@contextlib.contextmanager
def quiet(*names):
    """Hundreds of lines on each constant that was folded are no news to who asked for a file."""
    logs = [logging.getLogger(name) for name in names]
    before = [log.level for log in logs]
    for log in logs:
        log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        for log, level in zip(logs, before, strict=True):
            log.setLevel(level)


def _check(graph, model):
    """A choice made in Python, of blocks of keys for one, would be that of the example's length."""
    for length in {1, min(2, model.config.block_size), model.config.block_size}:
        idx = torch.arange(length)[None] % model.config.vocab_size  # (1, T)
        with torch.no_grad():
            torch.testing.assert_close(graph(idx), model(idx)[0], rtol=1e-3, atol=1e-4)


class Logits(torch.nn.Module):
    """A GPT without the loss."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, idx):
        """(B, T) -> (B, T, vocab_size)."""
        return self.model(idx)[0]


# ---- The published module's names --------------------------------------------------------------

OURS = re.compile(r"blocks\.(\d+)\.attn\.((q|k|v|o|lambda)_proj\.weight)")
THEIRS = re.compile(r"(\d+)\.((q|k|v|o|lambda)_proj\.weight)")


def to_published(weights):
    """Attention weights of a GPT's state dict under the names that a torch.nn.ModuleList of
    published modules, one a layer, has for them: ``0.q_proj.weight``, ... Nothing else is kept."""
    found = {name: OURS.fullmatch(name) for name in weights}
    return {f"{m[1]}.{m[2]}": weights[name] for name, m in found.items() if m}


def from_published(weights):
    """The inverse: ``GPT.load_state_dict(from_published(w), strict=False)`` takes them in.

    Raises:
        ValueError: a name that the published module does not have.
    """
    found = {name: THEIRS.fullmatch(name) for name in weights}
    if wrong := [name for name, m in found.items() if not m]:
        raise ValueError(f"{wrong[0]}: not a name like 0.q_proj.weight of the published module")
    return {f"blocks.{m[1]}.attn.{m[2]}": weights[name] for name, m in found.items()}


def write_published(model, path):
    """Write the attention weights as safetensors, with the arguments of each published module.

    Raises:
        ValueError: another attention than softmax and DIFF V2, which alone the module can compute.
    """
    c = model.config
    if c.attention not in ("softmax", "diff_v2"):
        raise ValueError(f"the published module is diff_v2 or softmax, and this is {c.attention}")
    arguments = {
        "use_diff_v2": c.attention == "diff_v2", "d_model": c.n_embd, "num_heads": c.n_head,
        "num_kv_heads": c.n_kv_head, "head_dim": c.head_dim,
    }  # fmt: skip
    about = {"arguments": json.dumps(arguments), "n_layer": str(c.n_layer)}
    about["rope_theta"] = str(c.rope_theta)
    weights = {name: w.contiguous() for name, w in to_published(model.state_dict()).items()}
    replace_file(path, lambda new: save_file(weights, new, about))
