"""What a CPU measures of the claims: V1's gradients, rounding, the RMS at the start."""

import math
import os
import shutil
import subprocess

import pytest
import torch

from minidiff import GPT, GPTConfig
from minidiff.study.evidence import RESULTS, load
from minidiff.study.measure import (
    initial_rms,
    rounding_errors,
    steps_in_equal_time,
    v1_gradients,
)


def test_the_norm_of_v1_gains_sqrt_n_and_nothing_else_does():
    few, many = v1_gradients((64, 4096))
    gain = [row["diff_v1"] / row["diff_v1_no_norm"] for row in (few, many)]
    assert gain[1] / gain[0] == pytest.approx(math.sqrt(4096 / 64), rel=0.15)
    for name in ("diff_v1_no_norm", "diff_v2"):  # an average over n keys: 1 / sqrt(n)
        assert few[name] / many[name] == pytest.approx(math.sqrt(4096 / 64), rel=0.15)


def test_rounding_is_that_of_the_precision_and_leaves_the_model_alone():
    torch.manual_seed(0)
    model = GPT(GPTConfig(n_layer=2, block_size=64))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    idx = torch.randint(0, 256, (2, 64))
    half, double = rounding_errors(model, idx), rounding_errors(model, idx, torch.float32)
    assert len(half) == 2
    for layer in half:
        assert 2**-10 < layer["branches"] < layer["heads"] < 2**-5  # bfloat16 keeps 8 bits
    assert all(layer["heads"] < 1e-5 for layer in double)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    (softmax,) = rounding_errors(GPT(GPTConfig("softmax", n_layer=1)), idx)
    assert softmax["branches"] == pytest.approx(softmax["heads"])


@pytest.mark.slow
def test_without_lambda_the_start_is_small_with_every_seed():
    shape = GPTConfig(n_head=4, n_kv_head=2, head_dim=16, n_embd=64, block_size=64)
    found = initial_rms(("diff_v2", "diff_no_lambda"), (0, 1), shape)
    assert [len(values) for values in found.values()] == [2, 2]
    for whole, half in zip(found["diff_no_lambda"], found["diff_v2"], strict=True):
        assert whole < half / 3


def test_equal_time_has_as_many_more_steps_as_the_bench_says():
    rows = load(RESULTS / "bench_pair.json")["rows"]
    ms = {row["variant"]: row["ms"] for row in rows if row["size"] == "25m"}
    steps = steps_in_equal_time("softmax_1.5h", 1000)
    assert steps * ms["softmax_1.5h"] == pytest.approx(1000 * ms["diff_v2"], rel=1e-3)
    assert steps_in_equal_time("diff_v2", 1000) == 1000 < steps


@pytest.mark.skipif(os.name == "nt" or not shutil.which("bash"), reason="needs bash")
def test_measure_keeps_its_runs_in_a_folder_of_its_own(tmp_path):
    """With a program in the place of Python that writes down what it is asked for."""
    (tmp_path / "python").write_text('#!/bin/sh\necho "$@" >> "$ASKED"\n', encoding="utf-8")
    (tmp_path / "python").chmod(0o755)
    env = os.environ | {"PYTHON": str(tmp_path / "python"), "ASKED": str(tmp_path / "asked")}
    env |= {"TMPDIR": str(tmp_path / "tmp"), "OUT": str(tmp_path / "out")}
    env.pop("WORK", None)
    subprocess.run(["bash", str(RESULTS / "measure.sh"), "main", "rates"], env=env, check=True)
    asked = (tmp_path / "asked").read_text(encoding="utf-8").splitlines()
    assert len(asked) == 2
    (own,) = (tmp_path / "tmp").iterdir()
    for line in asked:
        assert f"--out {own} " in line and f"--results {tmp_path}/out/evidence_" in line
    (stale := tmp_path / "out" / "sparsity.json").touch()  # which the study would refuse
    subprocess.run(["bash", str(RESULTS / "measure.sh"), "sparsity"], env=env, check=True)
    assert not stale.exists()
    assert "/tmp/runs" not in (RESULTS / "measure.sh").read_text(encoding="utf-8")
    done = subprocess.run(["bash", str(RESULTS / "measure.sh"), "nothing"], env=env, text=True,
                          capture_output=True)  # fmt: skip
    assert done.returncode == 2 and done.stderr == "unknown part nothing\n"
