"""Results files with planted effects, for the tests of study/."""

import json
import random
import shutil

from minidiff.study.evidence import RESULTS

SETTINGS = {"data": "a text", "steps": 1000, "batch_size": 64, "block_size": 1024,
            "probe_windows": 8}  # fmt: skip
BASE = {"val_loss": 0.7, "n_spikes": 2, "first_share_eff_max": 0.2, "first_share_a1_max": 0.2,
        "sink_rate_eff_mean": 0.01, "rms_high_max": 2.0, "out_top1_max": 50.0, "qk_top1_max": 40.0,
        "out_ratio_max": 80.0, "recall_nats_16": 1.5, "sparsity_mean": 0.8}  # fmt: skip


def run(variant="softmax_1.5h", seed=0, lr=1e-3, steps=1000, **metrics):
    """A row of a results file."""
    noise = random.Random(f"{variant}{seed}{lr}")  # what was not planted differs by chance
    chance = {k: v if k in ("val_loss", "n_spikes") else v * noise.uniform(0.9, 1.1)
              for k, v in BASE.items()}  # fmt: skip
    found = chance | metrics
    curve = [[steps // 2, found["val_loss"] + 0.1], [steps, found["val_loss"]]]
    params = {"attention": 1, "total": 24_814_592, "percent": 0.0}
    key = f"{variant}-{steps}-lr{lr:g}-seed{seed}"
    return {"key": key, "variant": variant, "seed": seed, "lr": lr, "steps": steps,
            "params": params, "val_curve": curve} | found  # fmt: skip


def pair(differences, metric="val_loss", lr=1e-3, one="diff_v2", other="softmax_1.5h", **more):
    """Rows of two variants whose seeds differ in one metric by these numbers."""
    rows = []
    for seed, difference in enumerate(differences):
        level = BASE[metric] + 0.01 * seed  # the seeds differ, too
        rows.append(run(other, seed, lr, **{metric: level}, **more))
        rows.append(run(one, seed, lr, **{metric: level + difference}, **more))
    return rows


def store(folder, name, rows, settings=SETTINGS, **more):
    """Write a results file; settings=None is how the oldest ones are."""
    data = {"machine": "NVIDIA H100", "torch": "2.11", "date": "2026-11-25", "command": []} | more
    data |= {"settings": settings} if settings else {}
    (folder / f"{name}.json").write_text(json.dumps(data | {"rows": rows}), encoding="utf-8")


def folder(path, **files):
    """A results folder with the real benches, and these files: name=rows."""
    path.mkdir(exist_ok=True)
    for name in ("claims_cpu", "bench_pair", "bench_pair_flash4", "bench_decode"):
        shutil.copy(RESULTS / f"{name}.json", path)
    for name, rows in files.items():
        store(path, name, rows)
    return path
