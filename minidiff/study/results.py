"""The file that ``compare`` writes: settings, command, rows (one a run) and pairs, by name."""

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
    for i, row in enumerate(data["rows"], 1):
        if not _usable(row):
            raise ValueError(f"{path}: row {i} is damaged; {fix}")
    return data


def _usable(row):
    """Whether the table and the pairs can be made of it."""
    try:
        numbers = [row["lr"], row["seed"], row["params"]["total"], row["params"]["percent"]]
        numbers += [row.get(name, 0) for name in METRICS]
        text = isinstance(row["key"], str) and isinstance(row["variant"], str)
    except (KeyError, TypeError, AttributeError):
        return False
    return text and all(isinstance(number, (int, float)) for number in numbers)
