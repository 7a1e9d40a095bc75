"""Make the pair of models that ships with the course from several seeds: the median one.

    python -m minidiff.study.shipped RUNS OUT    # RUNS: a folder with NAME-...-seedN of compare

Both models of every seed are rounded to bfloat16, as they will be shipped, and read the same
held-out windows. The pair whose difference of the mean losses is the median over the seeds goes to
OUT/diff_v2 and OUT/softmax_1.5h; OUT/held_out.json holds the loss of every window.
"""

import json
import statistics
from pathlib import Path

import torch
import torch.nn.functional as F
from tqdm import tqdm

from minidiff.data import open_data
from minidiff.parsing import one_line_errors, two_names
from minidiff.runs import export_run, load_run, replace_file
from minidiff.study.compare import interval
from minidiff.train import pick_device

PAIR = ("diff_v2", "softmax_1.5h")


def pairs_of_runs(runs):
    """{seed: {name: run folder}} of what compare left in a folder with --keep-weights."""
    folders = {}
    for name in PAIR:
        for folder in sorted(Path(runs).glob(f"{name}-*-seed*")):
            folders.setdefault(int(folder.name.rpartition("seed")[2]), {})[name] = folder
    folders = {seed: pair for seed, pair in folders.items() if len(pair) == len(PAIR)}
    if not folders:
        raise ValueError(f"{runs}: no seed has both {' and '.join(PAIR)}; use --keep-weights")
    return folders


def held_out(folders, n_windows=512, batch_size=8):
    """Read the same windows with every pair; what held_out.json holds.

    Args:
        folders: as :func:`pairs_of_runs` finds them.
    Raises:
        ValueError: they were trained on other text than this machine has.
    """
    config = next(iter(folders.values()))["diff_v2"] / "config.json"
    config = json.loads(config.read_text(encoding="utf-8"))
    T, device = config["model"]["block_size"], pick_device()
    corpus = open_data(config["data"], config["model"]["vocab_size"], T)
    if corpus.fingerprint != config["data_fingerprint"]:
        raise ValueError("these runs saw other text than this machine has; run this where they ran")
    batches = list(corpus.val.fixed_batches(n_windows // batch_size, batch_size, T))
    losses = {
        seed: {name: window_losses(load_run(pair[name], device), batches) for name in PAIR}
        for seed, pair in tqdm(folders.items(), desc="held-out text", unit="pair")
    }
    text = {"source": config["data"], "fingerprint": corpus.fingerprint}
    text |= {"train_bytes": len(corpus.train), "held_out_bytes": len(corpus.val)}
    machine = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    about = {"windows": n_windows, "window_bytes": T, "torch": torch.__version__}
    return {"text": text} | about | {"machine": machine} | summary(losses)


@torch.no_grad()
def window_losses(model, batches):
    """The mean loss of every window, nats per token, with weights rounded to bfloat16."""
    for parameter in model.parameters():
        parameter.copy_(parameter.bfloat16())
    device, losses = next(model.parameters()).device, []
    for x, y in batches:
        logits, _ = model(x.to(device))  # (B, T, vocab_size), float32
        loss = F.cross_entropy(logits.transpose(1, 2), y.to(device), reduction="none")  # (B, T)
        losses += loss.mean(1).tolist()
    return losses


def summary(losses):
    """Means, 95% intervals and the median seed of {seed: {name: loss of every window}}.

    ``difference`` is DIFF V2 minus softmax, [mean, low, high] over the windows of one seed;
    ``over_seeds`` the same over the means of the seeds, which is what a claim needs.
    """
    difference = {}
    for seed, pair in losses.items():
        gaps = [a - b for a, b in zip(*(pair[name] for name in PAIR), strict=True)]
        difference[seed] = [statistics.fmean(gaps), *interval(gaps)]
    means = {seed: mean for seed, (mean, _, _) in difference.items()}
    median = sorted(means, key=means.get)[len(means) // 2]
    over_seeds = [statistics.fmean(means.values())]
    over_seeds += interval(list(means.values())) if len(means) > 1 else ()
    return {
        "loss": {s: {n: statistics.fmean(v[n]) for n in PAIR} for s, v in losses.items()},
        "difference": difference,
        "over_seeds": over_seeds,
        "median_seed": median,
        "window_losses": {n: [round(x, 5) for x in losses[median][n]] for n in PAIR},
    }


def main(runs, out):
    """Measure, choose, export."""
    folders = pairs_of_runs(runs)
    found = held_out(folders)
    for name in PAIR:
        export_run(folders[found["median_seed"]][name], Path(out) / name)
    text = json.dumps(found, indent=1) + "\n"
    replace_file(Path(out) / "held_out.json", lambda path: path.write_text(text, encoding="utf-8"))
    for seed, (mean, low, high) in found["difference"].items():
        print(f"seed {seed}: DIFF V2 minus softmax {mean:+.5f} [{low:+.5f}, {high:+.5f}] nats/byte")
    print(f"exported seed {found['median_seed']}, the median, to {out}")


if __name__ == "__main__":
    with one_line_errors():
        main(*two_names("runs out"))
