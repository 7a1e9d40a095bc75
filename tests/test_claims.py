"""The table of claims: what it measures, and that the README holds what the results say."""

import json
import math
import shutil
from pathlib import Path

import pytest
import torch

from minidiff import GPT, GPTConfig
from minidiff.study.claims import claims, markdown, put_into, rounding_errors, v1_gradients
from minidiff.study.evidence import RESULTS, Evidence

ROOT = Path(__file__).parent.parent


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


def test_the_readme_holds_the_table_that_the_results_give(tmp_path):
    copy = tmp_path / "README.md"
    copy.write_text((ROOT / "README.md").read_text())
    put_into(copy, claims())
    assert copy.read_text() == (ROOT / "README.md").read_text(), (
        "python -m minidiff claims --readme README.md"
    )


def test_every_claim_has_a_verdict():
    rows = claims()
    numbers = [number for row in rows for number in row[0].split(", ")]
    assert sorted(numbers, key=int) == [str(i) for i in range(1, 18)]
    assert {row[2] for row in rows} <= {"holds", "partly", "not shown", "not measured"}
    assert markdown(rows).count("\n") == len(rows) + 2


@pytest.mark.parametrize(
    ("number", "metric", "main", "sweep", "verdict"),
    [
        ("3, 12", "val_loss", (-0.02, -0.03, -0.01), (-0.02, -0.03, -0.01), "holds"),
        ("3, 12", "val_loss", (-0.02, -0.03, -0.01), (-0.02, -0.05, 0.01), "partly"),
        ("3, 12", "val_loss", (-0.02, -0.05, 0.01), (-0.02, -0.05, 0.01), "not shown"),
        ("3, 12", "val_loss", (0.02, 0.01, 0.03), (0.02, 0.01, 0.03), "not shown"),
        ("4", "n_spikes", (-3.0, -4.0, -2.0), (-3.0, -4.0, -2.0), "holds"),
        ("9", "val_loss", (0.0, -1.0, 1.0), (0.02, 0.01, 0.03), "partly"),
        ("9", "val_loss", (0.0, -1.0, 1.0), (-0.02, -0.03, -0.01), "not shown"),
        ("2", "first_share_eff_max", (-0.2, -0.5, 0.1), None, "not shown"),
    ],
)
def test_a_verdict_follows_from_the_intervals(monkeypatch, number, metric, main, sweep, verdict):
    pair = Evidence.pair

    def changed(evidence, name, *which, short=False, **more):
        if name == metric:
            return sweep if short else main
        return pair(evidence, name, *which, short=short, **more)

    monkeypatch.setattr(Evidence, "pair", changed)
    assert {row[0]: row[2] for row in claims()}[number] == verdict


def test_a_verdict_follows_from_the_ratios_and_errors_and_a_diverged_run_has_no_figures(tmp_path):
    def change(name, how):
        data = json.loads((tmp_path / f"{name}.json").read_text())
        how(data)
        (tmp_path / f"{name}.json").write_text(json.dumps(data))

    def diverge(data):
        kept = {k: v for k, v in data["rows"][-1].items() if k in ("variant", "lr", "seed")}
        data["rows"][-1] = kept | {"diverged": "the loss is nan", "val_loss": math.nan}

    shutil.copytree(RESULTS, tmp_path, dirs_exist_ok=True)
    change("bench_train", lambda data: [r.update({"vs_softmax_1.5h": 0.97}) for r in data["rows"]])
    change("claims_cpu", lambda data: data["rounding"].update(diff_v2=[{"heads": 1e-4}]))
    for name in ("evidence_25m", "evidence_25m_lr", "evidence_25m_rates"):
        change(name, diverge)
    rows = {row[0]: row for row in claims(tmp_path)}
    assert rows["7"][2] == rows["17"][2] == "holds"
    assert "1 of 36 of these diverged" in rows["4"][3] and "nan" not in str(rows)


@pytest.mark.parametrize("name", ["evidence_25m", "evidence_25m_lr", "evidence_25m_rates"])
def test_intervals_are_those_of_compare(name):
    evidence, stored = Evidence(), json.loads((RESULTS / f"{name}.json").read_text())["pairs"]
    for row in stored:
        which = row["metric"], row["variant"], row["other"]
        expected = (row["difference"], row["low"], row["high"])
        found = evidence.pair(*which, lr=row["lr"], short=name == "evidence_25m_rates")
        assert found == pytest.approx(expected)


def test_the_best_rate_has_the_lowest_mean_loss_and_single_runs_have_no_interval():
    evidence = Evidence()
    evidence.full = [
        {"variant": name, "lr": lr, "seed": seed, "val_loss": loss}
        for name, lr, seed, loss in (
            ("diff_v2", 0.1, 0, 3.0), ("diff_v2", 0.1, 1, 1.0), ("diff_v2", 0.2, 0, 1.9),
            ("softmax_1.5h", 0.1, 0, 2.0), ("softmax_1.5h", 0.1, 1, 0.5),
            ("softmax_1.5h", 0.2, 0, 2.5),
        )
    ]  # fmt: skip
    assert (evidence.best_rate("diff_v2"), evidence.best_rate("softmax_1.5h")) == (0.2, 0.1)
    assert evidence.differences("val_loss", lr=0.1) == [1.0, 0.5]
    assert list(evidence.sweep("val_loss")) == [0.1]


def test_a_file_without_the_marks_is_refused(tmp_path):
    (tmp_path / "README.md").write_text("no marks\n")
    with pytest.raises(ValueError, match="end of claims"):
        put_into(tmp_path / "README.md", claims())
    assert (tmp_path / "README.md").read_text() == "no marks\n"


def test_a_missing_results_file_is_named_with_the_fix(tmp_path):
    with pytest.raises(ValueError, match=r"claims_cpu.json is missing: .* measure.sh makes it"):
        claims(tmp_path)
