"""Notebook 05's table of pairs says what its check computes with."""

import json
import re
from pathlib import Path

from minidiff.course import checks_05
from minidiff.train import TrainConfig

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "05_train_diff_v2.ipynb"


def test_the_table_of_exercise_7_is_the_one_that_is_checked():
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    text = "\n".join("".join(cell["source"]) for cell in cells)
    rows = dict(re.findall(r"^\| ([A-Z]) \| (.+) \|$", text, re.MULTILINE))
    assert rows.keys() == checks_05.PAIRS.keys()
    base = TrainConfig()
    told = {
        "D": (base.warmup_steps, checks_05.PAIRS["D"][1]["warmup_steps"]),
        "E": (base.model.block_size, checks_05.PAIRS["E"][1]["model"].block_size),
        "G": (base.seed, checks_05.PAIRS["G"][1]["seed"]),
    }
    for letter, numbers in told.items():
        assert tuple(map(int, re.findall(r"\d+", rows[letter]))) == numbers, letter
    assert checks_05.PAIRS["A"][0] == "softmax_1.5h" and "1.5h" in rows["A"]
    assert checks_05.PAIRS["B"][0] == "softmax_h" and "1.5" not in rows["B"]
