"""Retrieval by many runs: the command measures each alike, and takes differences seed by seed."""

import dataclasses
import json
import math

import pytest
import torch
from safetensors.torch import save_file
from scipy import stats
from test_runs import held

from minidiff import GPT, GPTConfig
from minidiff.study.long_context import LongContext, beyond, differences, main, one_a_line
from minidiff.study.retrieval import longer, losses_by_position, retrieval

TINY = GPTConfig(n_layer=1, n_head=2, n_kv_head=2, head_dim=8, n_embd=16, block_size=80)


def run_folder(tmp_path, variant, seed, **changes):
    attention = "diff_v2" if variant == "diff_v2" else "softmax"
    torch.manual_seed(seed)
    model = GPT(dataclasses.replace(TINY, attention=attention, **changes))
    folder = tmp_path / f"{variant}-D16-L1-seed{seed}"
    folder.mkdir()
    settings = json.dumps({"model": dataclasses.asdict(model.config), "seed": seed})
    (folder / "config.json").write_text(settings, encoding="utf-8")
    save_file(model.state_dict(), folder / "model.safetensors")
    return folder, model.eval()


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.py"
    path.write_text("".join(f"name_{i} = {i * i}\n" for i in range(1000)), encoding="utf-8")
    return str(path)


def test_a_study_measures_every_run_and_pairs_them_by_seed(tmp_path, text):
    order = [("diff_v2", 3), ("softmax_1.5h", 5), ("softmax_1.5h", 3), ("diff_v2", 5)]
    folders = {key: run_folder(tmp_path, *key) for key in order}
    out = tmp_path / "new" / "rows.json"
    study = LongContext(
        tuple(folder for folder, _ in folders.values()),
        out, text, windows=2, prompts=4, sequences=2, device="cpu",
    )  # fmt: skip
    found = study.run()
    assert json.loads(out.read_text(encoding="utf-8")) == found and found["trained_context"] == 80
    assert [(row["variant"], row["seed"]) for row in found["rows"]] == order
    rows = {(row["variant"], row["seed"]): row for row in found["rows"]}
    model = folders["diff_v2", 3][1]
    expected = retrieval(model, prompts=4, sequences=2)
    assert expected.items() <= rows["diff_v2", 3].items()
    gaps = {row["metric"]: row for row in found["differences"]}
    assert not any(name.endswith("_se") for name in gaps)
    for metric in ("recall_nats_4", "recall_nats_8", "loss_after_80", "induction_beyond_gain"):
        gap, values = gaps[metric], [rows["diff_v2", s][metric] for s in (3, 5)]
        values = [x - rows["softmax_1.5h", s][metric] for x, s in zip(values, (3, 5), strict=True)]
        assert gap["seeds"] == [3, 5] and gap["differences"] == pytest.approx(values)
        assert gap["low"] == pytest.approx(
            stats.ttest_1samp(values, 0).confidence_interval(0.95).low
        )


def test_beyond_the_trained_context_the_windows_and_lines_are_longer(tmp_path):
    _, model = run_folder(tmp_path, "diff_v2", 0, block_size=96)
    idx = torch.randint(0, 256, (3, 192))
    found, losses = beyond(model, idx, prompts=2, sequences=2)
    assert {"recall_nats_8", "recall_nats_12"} <= set(found)  # 6 lines fit into 96 bytes
    assert list(losses) == [1, 6, 12, 24, 48, 96] and "recall_6" not in found
    expected = losses_by_position(longer(model, 192), idx)
    assert found["loss_after_96"] == pytest.approx(expected[96].mean().item())
    # Up to the trained context the windows of double length say what single ones would.
    single = losses_by_position(model, idx[:, :96])
    torch.testing.assert_close(losses[48], single[48])


def test_one_seed_has_a_difference_and_no_interval():
    one = {"variant": "a", "seed": 0, "x": 1.0, "x_se": 0.5, "run": "a-seed0", "losses": {}}
    (found,) = differences([one, one | {"variant": "b", "x": 0.25}])
    assert found["differences"] == [0.75] and "low" not in found and found["metric"] == "x"
    assert differences([one, one | {"variant": "b", "seed": 1}]) == []
    rows = [v | {"seed": s, "x": s * v["x"]} for s in (1, 2) for v in (one, one | {"variant": "b"})]
    assert differences(rows)[0]["mean"] == 0 and not math.isnan(differences(rows)[0]["high"])


def test_a_file_has_one_model_on_a_line():
    found = {"date": "today", "rows": [{"a": 1.5, "b": [1, 2]}, {"a": 2.0}], "none": []}
    text = one_a_line(found)
    assert json.loads(text) == found and '\n  {"a": 1.5, "b": [1, 2]},\n' in text


def test_what_cannot_be_compared_is_refused_before_anything_is_measured(tmp_path, text):
    (short, _), (long, _) = (
        run_folder(tmp_path, name, 0, block_size=n) for name, n in (("a", 80), ("diff_v2", 96))
    )
    with pytest.raises(ValueError, match="other contexts"):
        LongContext((short, long), tmp_path / "out.json", text, device="cpu").run()
    for words, says in (
        ([], "give the run folders"),
        ([str(tmp_path)], "is it a run folder?"),
        ([str(short), "--prompt", "4"], "perhaps you meant --prompts"),
        ([str(short), "--prompts", "1"], "--prompts 1: give at least 2"),
        ([str(short), "--sequences", "0"], "--sequences 0: give at least 2"),
        ([str(short), "--out", "/dev/null/x/r.json"], "/dev/null"),
    ):
        with pytest.raises(SystemExit, match=f"^error: .*{says}") as error:
            main(words if "--out" in words else [*words, "--out", str(tmp_path / "out.json")])
        assert "\n" not in error.value.code and not (tmp_path / "out.json").exists()


def test_two_runs_of_one_variant_and_seed_are_refused(tmp_path, text):
    """Folders of several learning rates: the last one took the place of the others."""
    folders = []
    for rate in ("1e-3", "2e-3"):
        (tmp_path / rate).mkdir()
        folders.append(run_folder(tmp_path / rate, "diff_v2", 0)[0])
    with pytest.raises(ValueError, match="two runs of one variant and seed"):
        LongContext(tuple(folders), tmp_path / "out.json", text, device="cpu").run()
    assert not (tmp_path / "out.json").exists()


def test_a_file_that_is_there_is_kept_and_one_that_grows_is_held(tmp_path, text):
    folder, _ = run_folder(tmp_path, "diff_v2", 0)
    out = tmp_path / "out.json"
    settings = {"windows": 2, "prompts": 2, "sequences": 2, "device": "cpu"}
    study = LongContext((folder,), out, text, **settings)
    out.write_text("results of compare", encoding="utf-8")
    with pytest.raises(ValueError, match=r"out\.json: there already"):
        study.run()
    assert out.read_text(encoding="utf-8") == "results of compare"
    out.unlink()
    with held(tmp_path / ".out.json.lock"), pytest.raises(ValueError, match="another process"):
        study.run()
    assert not out.exists() and study.run()["rows"]
