"""The file that ``compare`` writes: settings, command, rows (one a run) and pairs, by name."""

from datetime import date

import torch

from minidiff.files import read_json

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
RETRIEVAL = (  # the same, of runs with --retrieval-prompts: see study/retrieval.py
    "recall_16",
    "recall_nats_16",
    "context_gain",
    "induction_near_gain",
    "induction_far_gain",
)
WORDS = {  # of a metric for a reader, and its digits
    "val_loss": ("loss, nats a byte", 3),
    "n_spikes": ("gradient spikes", 1),
    "first_share_eff_max": ("attention on BOS, worst head", 2),
    "first_share_eff_mean": ("attention on BOS, mean of all heads", 3),
    "first_share_a1_max": ("attention on BOS, worst head, A1 alone", 2),
    "first_share_a2_max": ("attention on BOS, worst head, A2 alone", 2),
    "sink_rate_eff_mean": ("share of heads and windows over 0.3", 4),
    "rms_high_max": ("largest context RMS of a token", 2),
    "out_top1_max": ("largest activation", 1),
    "out_ratio_max": ("largest over median activation", 1),
    "qk_top1_max": ("largest q·k logit", 1),
    "sparsity_mean": ("share of keys under 1/n", 3),
    "recall_16": ("recall of one line in 16", 3),
    "recall_nats_16": ("recall of one line in 16, nats a digit", 3),
    "context_gain": ("loss early in the context minus late, nats a byte", 3),
    "induction_near_gain": ("gain from 64 repeated bytes, nats a byte", 2),
    "induction_far_gain": ("gain from half a context repeated, nats a byte", 2),
    "opposed_min": ("smallest cosine of two heads", 2),
}


def made_here():
    """The card, PyTorch's version and the day: of a run, as a file may grow on several machines."""
    card = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    return {"machine": card, "torch": torch.__version__, "date": str(date.today())}


def read_results(path):
    """A results file of ``compare`` as a dict.

    Raises:
        ValueError: it is damaged, or something else; the message names it.
    """
    fix = "it is no results file of compare: give another"
    data = read_json(path, fix)
    if not (isinstance(data.get("rows"), list) and isinstance(data.get("command"), list)):
        raise ValueError(f'{path}: has no "rows" and "command"; {fix}')
    if not isinstance(data.get("settings", {}), dict):
        raise ValueError(f'{path}: its "settings" have no names; {fix}')
    ms = data.get("step_ms", {})  # of compare --equal-time
    if not isinstance(ms, dict) or not all(
        isinstance(t, (int, float)) and t > 0 for t in ms.values()
    ):
        raise ValueError(f'{path}: its "step_ms" are no times; {fix}')
    for i, row in enumerate(data["rows"], 1):
        if not _usable(row):
            raise ValueError(f"{path}: row {i} is damaged; {fix}")
    return data


def _usable(row):
    """Whether the table and the pairs can be made of it."""
    try:
        numbers = [row["lr"], row["seed"], row["params"]["total"], row["params"]["percent"]]
        numbers += [row.get(name, 0) for name in METRICS + RETRIEVAL]
        text = isinstance(row["key"], str) and isinstance(row["variant"], str)
    except (KeyError, TypeError, AttributeError):
        return False
    return text and all(isinstance(number, (int, float)) for number in numbers)
