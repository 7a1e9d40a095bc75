"""The folder of one training run: what is in it, and how to read it.

    config.json              all settings, the data's two fingerprints, PyTorch's version
    metrics.jsonl            a line a step (loss, lr, grad_norm before clipping, tokens_per_s)
                             and one for each validation (val_loss)
    model.safetensors        the weights
    best.safetensors         those of the lowest validation loss
    checkpoint.safetensors   weights and AdamW's state, for --resume
    sample.txt, model.onnx, published.safetensors    made from the weights, by train and export

checkpoint.py writes them. Nothing is pickled, so nothing that is loaded can run code; whatever is
damaged, or of another tool, is said in one line.
"""

import dataclasses
import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from minidiff.files import open_weights, read_json, read_text, replace_file, replace_text
from minidiff.limits import check_model
from minidiff.model import GPT, GPTConfig

CHECKPOINT, MODEL, BEST = WEIGHTS = tuple(
    f"{name}.safetensors" for name in ("checkpoint", "model", "best")
)
SAMPLE, ONNX, PUBLISHED = MADE = "sample.txt", "model.onnx", "published.safetensors"


def refuse_to_overwrite(folder):
    """Raise a ValueError where a folder holds a trained model."""
    if any((folder / name).exists() for name in WEIGHTS):
        raise ValueError(f"{folder} holds a run: give --resume, --overwrite or another --out")


def can_resume(folder):
    """Whether a run was begun there: it has a checkpoint, or was stopped before the first one."""
    checkpoint, settings, model = (Path(folder) / n for n in (CHECKPOINT, "config.json", MODEL))
    return checkpoint.exists() or (settings.exists() and not model.exists())


def saved_settings(folder):
    """(settings, step) of a run that was begun: its checkpoint's, or at step 0 its config.json's.

    Raises:
        ValueError: there is none, or it is damaged.
    """
    path, step, fix = Path(folder) / CHECKPOINT, "0", "start anew with --overwrite"
    if not can_resume(folder):
        raise ValueError(f"--resume: nothing to resume in {folder}; leave --resume out to start")
    if path.exists():
        with open_weights(path, fix) as file:
            settings, step = stored_settings(file), (file.metadata() or {}).get("step", "")
    else:
        path = path.with_name("config.json")
        settings = read_json(path, fix)
    if not step.isdecimal() or not isinstance(settings.get("model"), dict):
        raise ValueError(f"{path}: not written by minidiff (no step and settings in it); {fix}")
    return settings, int(step)


def stored_settings(file):
    """The settings beside the tensors of a safetensors file; {} where there are none."""
    try:
        settings = json.loads((file.metadata() or {}).get("settings", "{}"))
    except (ValueError, RecursionError):
        return {}
    return settings if isinstance(settings, dict) else {}


def checked_tensors(file, expected, path, fix):
    """The tensors of an open file, if their names and shapes are the expected ones, and finite."""
    found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    wrong = sorted(
        name for name in found.keys() | expected if found.get(name) != expected.get(name)
    )
    if wrong:
        raise ValueError(
            f"{path}: {len(wrong)} tensors do not fit the settings, {wrong[0]} first; {fix}"
        )
    tensors = {name: file.get_tensor(name) for name in expected}
    for name, tensor in tensors.items():
        if not tensor.is_floating_point() or not tensor.float().isfinite().all():
            raise ValueError(f"{path}: {name} holds what is no finite number; {fix}")
    return tensors


def load_run(folder, device="cpu", best=False, writes=False):
    """The trained model of a run folder (config.json and model.safetensors), in eval mode.

    Its weights are float32. To write on a GPU, call ``model.bfloat16()`` first.

    Args:
        best: the weights of the lowest validation loss instead of the last ones.
        writes: it will write text, so its KV cache must fit beside it.
    Raises:
        ValueError: the folder holds no run, or a damaged or foreign one; the message says which
            file, what is wrong, and what to do.
    """
    settings, path = Path(folder) / "config.json", Path(folder) / (BEST if best else MODEL)
    if not settings.exists() or not path.exists():
        raise ValueError(f"{folder}: no config.json and {path.name} in it; is it a run folder?")
    fix = "train again, or copy the whole folder again"
    saved = read_json(settings, fix).get("model")
    names = {field.name for field in dataclasses.fields(GPTConfig)}
    if not isinstance(saved, dict) or saved.keys() != names:
        raise ValueError(f'{settings}: its "model" must name {", ".join(sorted(names))}; {fix}')
    try:
        config = GPTConfig(**saved)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{settings}: {error}") from None
    with open_weights(path, fix) as file:
        check_model(config, torch.device(device), settings, writes)
        stored = stored_settings(file).get("model", saved)  # exported weights name no settings
        if not isinstance(stored, dict) or {**stored, "backend": ""} != {**saved, "backend": ""}:
            raise ValueError(f"{settings} and {path.name} are of different models; {fix}")
        with torch.device("meta"):
            expected = {name: tuple(t.shape) for name, t in GPT(config).state_dict().items()}
        weights = checked_tensors(file, expected, path, fix)
    model = GPT(config)
    model.load_state_dict(weights)
    return model.to(device).eval()


def writes_text(folder):
    """Whether a run's tokens are bytes; only their own tokenizer could read others (nanoGPT's)."""
    settings = read_json(Path(folder) / "config.json", "give a run folder")
    tokens = "bytes" if settings["model"]["vocab_size"] == 257 else "ids"  # of older runs
    return settings.get("data_tokens", tokens) == "bytes"


def start_from(model, folder):
    """Give a new model the weights of a run of the same shape (--init-from).

    Raises:
        ValueError: the run's model has another shape.
    """
    other = load_run(folder, next(model.parameters()).device)
    for field in dataclasses.fields(model.config):
        mine, theirs = (getattr(m.config, field.name) for m in (model, other))
        if field.name not in ("backend", "block_size") and mine != theirs:
            name = field.name.replace("_", "-")
            raise ValueError(f"--init-from {folder}: its {name} is {theirs}, not {mine}")
    model.load_state_dict(other.state_dict())


def metrics_row(line):
    """A line of metrics.jsonl as a dict of numbers; None if it is damaged."""
    try:
        row = json.loads(line)
    except (TypeError, ValueError, RecursionError):
        return None
    whole = isinstance(row, dict) and isinstance(row.get("step"), int)
    return row if whole and all(isinstance(v, (int, float)) for v in row.values()) else None


def read_metrics(folder):
    """metrics.jsonl of a run folder as a list of dicts, in the order of training."""
    path, fix = Path(folder) / "metrics.jsonl", "--resume leaves out what is damaged"
    rows = [metrics_row(line) for line in read_text(path, fix).splitlines()]
    if None in rows:
        raise ValueError(f"{path}: line {rows.index(None) + 1} is damaged; {fix}")
    return rows


def export_run(run, folder):
    """Copy a run without what only --resume needs, weights in bfloat16: small enough to ship."""
    run, folder = Path(run), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    weights = load_file(run / MODEL)
    weights = {name: tensor.bfloat16() for name, tensor in weights.items()}
    replace_file(folder / MODEL, lambda path: save_file(weights, path))
    for name in ("config.json", "metrics.jsonl"):
        replace_text(folder / name, read_text(run / name, "give a run folder"))


def load_pretrained(name, device="cpu"):
    """A trained model that ships with the course: "diff_v2" or "softmax_1.5h".

    Both were trained on the same text with the same settings, on a GPU, at a size where attention
    sinks and outliers form; notebooks/checkpoints/README.md has the command. No network is needed.
    As from :func:`load_run`, its weights are float32.

    Raises:
        ValueError: an unknown name, or the package is not inside the course's repository.
    """
    folder = Path(__file__).parent.parent / "notebooks" / "checkpoints"
    if not folder.exists():
        raise ValueError(
            f"{folder} is missing: work in a clone of the repository (pip install -e .)"
        )
    names = sorted(path.parent.name for path in folder.glob("*/model.safetensors"))
    if name not in names:
        raise ValueError(f"no pretrained model {name!r}: there are {', '.join(names)}")
    return load_run(folder / name, device)
