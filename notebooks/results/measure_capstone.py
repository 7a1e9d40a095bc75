"""Train the capstone's models on a CPU, and store what they recall in capstone.json.

    python notebooks/results/measure_capstone.py [processes]

Some minutes. Runs that the file holds are not trained again. The two variants of the notebooks are
executed from there: the cells tagged "variant".
"""

import datetime
import json
import multiprocessing
import platform
import sys
from pathlib import Path

import torch
import torch.nn as nn

from minidiff import model, variant
from minidiff.files import replace_text
from minidiff.study import capstone as lab

NOTEBOOKS = Path(__file__).parents[1]
PAIR = "softmax 1.5h", "DIFF V2"
LONGER, FEWER = 3 * lab.STEPS, range(4)  # does the gap stand? For the pair alone


def main(processes):
    run_cells()
    models = {
        "softmax 1.5h": variant(lab.MODEL, "softmax_1.5h"),
        "DIFF V2": lab.MODEL,
        "my_variant": lab.changed(attention="my_variant"),
        "diff no lambda": variant(lab.MODEL, "diff_no_lambda"),
        "minus_mean": lab.changed(attention="minus_mean", n_head=3),  # of the solutions
        "DIFF V2 doubled": lab.changed(attention="diff_doubled"),
    }
    with multiprocessing.get_context("fork").Pool(processes, torch.set_num_threads, [1]) as pool:
        for name in models:
            tuning = [(name, seed, lr, lab.STEPS) for lr in lab.RATES for seed in lab.TUNING]
            train(pool, models, tuning)
            best = lab.best_rate(name)
            grid = [(name, seed, best, lab.STEPS) for seed in lab.SEEDS]
            grid += [(name, seed, best, LONGER) for seed in FEWER if name in PAIR]
            train(pool, models, grid)


def run_cells():
    names = {"nn": nn, "torch": torch} | vars(model)
    for path in (NOTEBOOKS / "13_capstone.ipynb", NOTEBOOKS / "solutions" / "13_capstone.ipynb"):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            if "variant" in cell["metadata"].get("tags", ()):
                exec("".join(cell["source"]), names)


def train(pool, models, grid):
    """Train what is not stored yet; the file grows run by run."""
    data = (
        json.loads(lab.RESULTS.read_text(encoding="utf-8"))
        if lab.RESULTS.exists()
        else {"rows": []}
    )
    done = {(r["label"], r["seed"], r["lr"], r["steps"]) for r in data["rows"]}
    runs = [(name, models[name], *rest) for name, *rest in grid if (name, *rest) not in done]
    for row in pool.imap_unordered(run, runs):
        print(row["label"], row["seed"], row["lr"], round(row["nats"], 3), flush=True)
        data["rows"].append(row)
        data["rows"].sort(key=lambda r: (r["label"], r["steps"], r["lr"], r["seed"]))
        data |= {
            "command": "python notebooks/results/measure_capstone.py",
            "machine": f"CPU, {platform.machine()}, one thread a run",
            "torch": torch.__version__,
            "date": str(datetime.date.today()),
        }
        replace_text(lab.RESULTS, json.dumps(data, indent=1) + "\n")


def run(arguments):
    return lab.measured(*arguments)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2)
