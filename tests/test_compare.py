"""Comparisons: pairing by seed, intervals, resuming run by run, and the parameter mark."""

import dataclasses
import json
import math
import subprocess
import sys

import pytest
import torch
from scipy import stats

from minidiff import GPT, GPTConfig
from minidiff.__main__ import main
from minidiff.checkpoint import Run
from minidiff.data import open_data
from minidiff.interrupt import Interrupt
from minidiff.look.probe import probe
from minidiff.runs import read_metrics
from minidiff.study.compare import (
    METRICS,
    Compare,
    interval,
    join,
    opposed_heads,
    pair_table,
    pairs,
    table,
)
from minidiff.study.equal_time import step_ms
from minidiff.study.results import RETRIEVAL
from minidiff.study.retrieval import retrieval
from minidiff.train import TrainConfig


@pytest.fixture
def compare(tmp_path):
    (tmp_path / "text").mkdir()
    for i in range(12):
        (tmp_path / "text" / f"{i}.txt").write_text(
            f"line {i} of the text\n" * 60, encoding="utf-8"
        )
    model = GPTConfig(n_layer=1, n_head=2, n_kv_head=1, head_dim=8, n_embd=16, block_size=32)
    config = TrainConfig(
        model=model, out=str(tmp_path / "runs"), data=str(tmp_path / "text"), steps=15,
        batch_size=4, warmup_steps=2, eval_every=5, eval_batches=1, device="cpu",
    )  # fmt: skip
    return Compare(config, seeds=(0, 1), results=tmp_path / "results.json", probe_windows=2)


def test_every_run_gets_a_row_and_every_pair_an_interval(compare, capsys):
    compare.run()
    data = json.loads(compare.results.read_text(encoding="utf-8"))
    assert [(r["variant"], r["seed"]) for r in data["rows"]] == [
        ("diff_v2", 0), ("softmax_1.5h", 0), ("diff_v2", 1), ("softmax_1.5h", 1),
    ]  # fmt: skip
    for row in data["rows"]:
        assert math.isfinite(row["val_loss"]) and abs(row["params"]["percent"]) < 0.5
        assert set(METRICS) <= set(row) and row["val_curve"][-1][0] == 15
    assert {pair["metric"] for pair in data["pairs"]} == set(METRICS)
    assert all(pair["seeds"] == 2 and pair["low"] <= pair["difference"] <= pair["high"]
               for pair in data["pairs"])  # fmt: skip
    assert "over 2 seeds" in capsys.readouterr().out


def test_a_second_start_runs_only_what_is_missing(compare, monkeypatch):
    compare.run()
    before = json.loads(compare.results.read_text(encoding="utf-8"))["rows"]
    more = dataclasses.replace(compare, seeds=(0, 1, 2))
    ran = []
    one_run = Compare.one_run
    monkeypatch.setattr(
        Compare, "one_run", lambda self, key, *a: ran.append(key) or one_run(self, key, *a)
    )
    more.run()
    assert len(ran) == 2 and all("seed2" in key for key in ran)
    assert json.loads(compare.results.read_text(encoding="utf-8"))["rows"][:4] == before


def test_the_probes_look_at_validation_text(compare, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "minidiff.study.compare.probe", lambda model, idx: seen.append(idx) or probe(model, idx)
    )
    dataclasses.replace(compare, seeds=(0,), variants=("diff_v2",)).run()
    val = open_data(compare.config.data, block_size=32).val
    assert torch.equal(seen[0], next(val.fixed_batches(1, 2, 32))[0])


def test_variants_of_a_seed_see_the_same_data(compare, monkeypatch):
    from minidiff import data

    seen = []
    batch = data.Split.batch

    def watched(self, *args):
        x, y = batch(self, *args)
        seen.append((args, x.sum().item()))
        return x, y

    monkeypatch.setattr(data.Split, "batch", watched)
    dataclasses.replace(compare, seeds=(3,)).run()
    half = len(seen) // 2
    assert seen[:half] == seen[half:]


def test_a_run_that_was_stopped_goes_on_where_it_stopped(compare, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Interrupt, "seen", lambda *_: True)
        with pytest.raises(KeyboardInterrupt):
            compare.run()
    first = []
    begin = Run._begin
    monkeypatch.setattr(Run, "_begin", lambda run: (first.append(run.name), begin(run)))
    compare.run()
    rows = json.loads(compare.results.read_text(encoding="utf-8"))["rows"]
    assert len(rows) == len(first) + 1 and rows[0]["key"] not in first


def test_a_leftover_of_other_settings_is_named_and_no_option_that_nobody_gave(compare, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Interrupt, "seen", lambda *_: True)
        with pytest.raises(KeyboardInterrupt):
            compare.run()
    model = dataclasses.replace(compare.config.model, block_size=16)
    shorter = dataclasses.replace(compare, config=dataclasses.replace(compare.config, model=model))
    shorter.results.unlink()
    with pytest.raises(ValueError, match=r"^the run in .* has another block_size: give the same"):
        shorter.run()


def test_a_diverged_run_is_a_row_that_says_so(compare):
    wild = dataclasses.replace(compare, seeds=(0,), lrs=(1e30,), variants=("diff_v2",))
    wild.run()
    (row,) = json.loads(wild.results.read_text(encoding="utf-8"))["rows"]
    assert "learning rate" in row["diverged"]
    assert "DIVERGED" in table([row])


@pytest.mark.slow
def test_the_row_is_written_before_the_weights_are_deleted(compare, monkeypatch):
    """An hour's run must not be lost with them; and what was asked for to be kept, is kept."""
    seen = []
    write = Compare._write

    def watched(self, data):
        seen.append((len(data["rows"]), len(list(tmp.glob("runs/*/model.safetensors")))))
        write(self, data)

    tmp = compare.results.parent
    one = dataclasses.replace(compare, seeds=(0,), variants=("diff_v2",))
    monkeypatch.setattr(Compare, "_write", watched)
    one.run()
    assert seen == [(0, 0), (1, 1)] and not list(tmp.glob("runs/*/*.safetensors"))
    dataclasses.replace(one, seeds=(0, 1), keep_weights=True).run()
    dataclasses.replace(one, seeds=(0, 1)).run()
    assert [path.parent.name[-1] for path in tmp.glob("runs/*/model.safetensors")] == ["1"]


def test_a_results_path_that_cannot_be_written_is_refused_before_training(compare, tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    (tmp_path / "folder").mkdir()
    for results in (tmp_path / "file" / "results.json", tmp_path / "folder"):
        with pytest.raises((OSError, ValueError), match=r"/(file|folder)"):
            dataclasses.replace(compare, results=results).run()
    assert not (tmp_path / "runs").exists()


def test_windows_that_the_probes_cannot_read_are_refused_before_training(compare, tmp_path):
    many = dataclasses.replace(compare, probe_windows=10**9)
    with pytest.raises(ValueError, match=r"^--probe-windows 1000000000: .* need [\d.,]+ GB"):
        many.run()
    assert not (tmp_path / "runs").exists() and not many.results.exists()


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", '{"rows": [1], "command": []}', '{"rows": {}, "command": []}', "\0\1",
     '{"rows": [{"key": "a", "variant": "b", "lr": "x"}], "command": [], "settings": {}}',
     *(f'{{"rows": [], "command": [], "settings": {{}}, "step_ms": {ms}}}'
       for ms in ("[]", "null", '{"a": "x"}', '{"a": 0}'))],
)  # fmt: skip
def test_a_foreign_results_file_is_named_and_left_alone(compare, text):
    compare.results.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"results\.json") as error:
        compare.run()
    assert "\n" not in str(error.value) and compare.results.read_text(encoding="utf-8") == text


@pytest.mark.slow
def test_in_equal_time_each_variant_makes_its_own_number_of_steps(compare, capsys):
    """Timed once: a second start must not give other steps than the rows of the first."""
    equal = dataclasses.replace(
        compare, equal_time=True, variants=("diff_v2", "softmax_h"), seeds=(0,)
    )
    equal.run()
    first = json.loads(equal.results.read_text(encoding="utf-8"))
    ms = first["step_ms"]
    steps = {"diff_v2": 15, "softmax_h": round(15 * ms["diff_v2"] / ms["softmax_h"])}
    assert {row["variant"]: row["steps"] for row in first["rows"]} == steps
    assert {row["variant"]: row["val_curve"][-1][0] for row in first["rows"]} == steps
    for name, n in steps.items():
        out = equal.config.out
        assert sum("loss" in row for row in read_metrics(f"{out}/{equal._key(name, 3e-3, 0)}")) == n
    dataclasses.replace(equal, seeds=(0, 1)).run()
    again = json.loads(equal.results.read_text(encoding="utf-8"))
    assert again["step_ms"] == ms and again["rows"][:2] == first["rows"]
    assert [row["steps"] for row in again["rows"]] == [*steps.values()] * 2
    assert f"diff_v2 15, softmax_h {steps['softmax_h']}\n" in capsys.readouterr().out


@pytest.fixture
def timed(compare, monkeypatch):
    """A comparison in equal time whose times are planted: softmax_h takes half as long."""
    monkeypatch.setattr(
        "minidiff.study.equal_time.step_ms",
        lambda configs, _: {name: 5.0 if name == "softmax_h" else 10.0 for name in configs},
    )
    return dataclasses.replace(
        compare, equal_time=True, seeds=(0,), variants=("diff_v2", "softmax_h")
    )


def test_equal_time_and_equal_steps_never_share_a_file(timed, tmp_path):
    for before, after in ((True, False), (False, True)):
        one = dataclasses.replace(timed, results=tmp_path / f"{before}.json")
        dataclasses.replace(one, equal_time=before).run()
        with pytest.raises(ValueError, match=r"other settings \(equal_time\).*--results"):
            dataclasses.replace(one, equal_time=after).run()


def test_a_file_keeps_its_timing_whatever_is_asked_next(timed, capsys):
    timed.run()
    dataclasses.replace(timed, variants=("softmax_h", "diff_v2")).run()  # diff_v2 was the first
    assert "softmax_h 30, diff_v2 15\n" in capsys.readouterr().out
    assert len(json.loads(timed.results.read_text(encoding="utf-8"))["rows"]) == 2
    more = dataclasses.replace(timed, variants=("diff_v2", "softmax_1.5h", "softmax_2h"))
    with pytest.raises(ValueError, match=r"has no time of softmax_1.5h, softmax_2h: give"):
        more.run()
    data = json.loads(timed.results.read_text(encoding="utf-8"))
    assert data["step_ms_of"]["machine"] == "CPU"
    del data["step_ms"]
    timed.results.write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(ValueError, match=r"holds runs but not their timing: give another"):
        timed.run()


def test_what_equal_time_cannot_do_is_said_before_training(timed, monkeypatch):
    with pytest.raises(ValueError, match=r"^--equal-time: give at least two --variants"):
        dataclasses.replace(timed, variants=("diff_v2",)).run()
    monkeypatch.setattr(
        "minidiff.study.equal_time.step_ms", lambda *_: {"diff_v2": 1.0, "softmax_h": 40.0}
    )
    with pytest.raises(ValueError, match=r"^--equal-time leaves softmax_h no step: give more"):
        timed.run()
    assert not timed.results.exists() and not list(timed.results.parent.glob("runs/*"))


def test_files_in_equal_time_join_only_by_one_timing(timed, tmp_path):
    timed.run()
    data = json.loads(timed.results.read_text(encoding="utf-8"))
    other = tmp_path / "other.json"
    other.write_text(json.dumps(data), encoding="utf-8")
    join([timed.results, other], tmp_path / "joined.json")
    apart = data | {"step_ms": {"diff_v2": 10.0, "softmax_h": 6.0}}
    other.write_text(json.dumps(apart), encoding="utf-8")
    with pytest.raises(ValueError, match="timed apart"):
        join([timed.results, other], tmp_path / "no.json")
    assert not (tmp_path / "no.json").exists()


def test_rows_of_several_lengths_say_their_steps(compare):
    def row(name, steps):
        return {"key": name, "variant": name, "lr": 1e-3, "seed": 0, "steps": steps,
                "params": {"total": 10**6, "percent": 0.0}}  # fmt: skip

    assert "steps" not in table([row("diff_v2", 15), row("softmax", 15)])
    lines = table([row("diff_v2", 15), row("softmax", 18)]).splitlines()
    assert lines[1].endswith("15 steps") and lines[2].endswith("18 steps")


@pytest.mark.slow
def test_a_longer_step_takes_longer(compare):
    deep = dataclasses.replace(compare.config.model, n_layer=8)
    configs = {"deep": dataclasses.replace(compare.config, model=deep), "flat": compare.config}
    ms = step_ms(configs, torch.device("cpu"))
    assert [*ms] == ["deep", "flat"] and ms["deep"] > 2 * ms["flat"] > 0


def test_models_that_do_not_fit_together_are_named(compare, monkeypatch):
    """The GPU's own error is planted: here is none."""

    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB")

    monkeypatch.setattr("minidiff.study.equal_time.training_step", full)
    equal = dataclasses.replace(compare, equal_time=True)
    with pytest.raises(ValueError, match=r"diff_v2, softmax_1.5h need more memory .* --variants"):
        equal.run()
    assert not compare.results.exists()


def test_torchrun_is_refused(compare, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(ValueError, match="without torchrun"):
        compare.run()
    assert not compare.results.exists()


def test_a_second_process_on_one_results_file_is_refused(compare):
    code = (
        "import sys, time, filelock; lock = filelock.FileLock(sys.argv[1]); lock.acquire();"
        "print('held', flush=True); time.sleep(60)"
    )
    lock = compare.results.with_name(".results.json.lock")
    command = [sys.executable, "-c", code, str(lock)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        with pytest.raises(ValueError, match="another process"):
            compare.run()
        process.kill()


@pytest.mark.slow
def test_the_text_is_read_once_and_results_inside_it_change_nothing(compare, tmp_path):
    """--data . with runs and results below it: the second run must see the text of the first."""
    inside = tmp_path / "text"
    config = dataclasses.replace(compare.config, out=str(inside / "runs"))
    dataclasses.replace(compare, config=config, results=inside / "results.json").run()
    folders = sorted((inside / "runs").iterdir())
    prints = {
        json.loads((f / "config.json").read_text(encoding="utf-8"))["data_fingerprint"]
        for f in folders
    }
    assert len(folders) == 4 and len(prints) == 1


def test_learning_rates_that_print_alike_have_keys_of_their_own(compare):
    rates = (1e-3, 1.0000001e-3, 0.3, 0.1 + 0.2)
    keys = [compare._key("diff_v2", lr, 0) for lr in rates]
    assert len(set(keys)) == 4 and keys[0].endswith("lr0.001-seed0")


def test_every_setting_is_checked_before_the_first_run(compare):
    for wrong in ({"seeds": (0, -1)}, {"lrs": (1e-3, math.nan)}, {"seeds": ()}, {"variants": ()},
                  {"probe_windows": 0}, {"retrieval_prompts": 1},
                  {"retrieval_prompts": 64}):  # fmt: skip
        with pytest.raises(ValueError):
            dataclasses.replace(compare, **wrong)


def test_what_this_machine_cannot_run_is_refused_before_the_first_run(compare):
    """backend=pair on a CPU, of the second variant: the first would train for its hours."""
    model = dataclasses.replace(compare.config.model, backend="pair")
    config = dataclasses.replace(compare.config, model=model)
    with pytest.raises(RuntimeError, match="cannot run here"):
        dataclasses.replace(compare, config=config, variants=("softmax_1.5h", "diff_v2")).run()
    assert not (compare.results.parent / "runs").exists()


@pytest.mark.slow
def test_recall_is_asked_of_every_run_with_prompts_of_its_seed(compare, monkeypatch):
    model = dataclasses.replace(compare.config.model, block_size=320)
    config = dataclasses.replace(compare.config, model=model, steps=2, eval_every=1)
    asked = []
    monkeypatch.setattr(
        "minidiff.study.compare.retrieval",
        lambda model, seed, **more: asked.append(seed) or retrieval(model, seed, **more),
    )
    more = dataclasses.replace(compare, config=config, retrieval_prompts=4)
    more.run()
    data = json.loads(compare.results.read_text(encoding="utf-8"))
    assert asked == [0, 0, 1, 1] and data["settings"]["retrieval_prompts"] == 4
    for row in data["rows"]:
        assert set(RETRIEVAL) <= set(row) and all(math.isfinite(row[key]) for key in RETRIEVAL)
    assert {pair["metric"] for pair in data["pairs"]} == set(METRICS) | set(RETRIEVAL)
    with pytest.raises(ValueError, match="other settings"):
        dataclasses.replace(more, retrieval_prompts=8).run()


def test_the_interval_is_students_t():
    values = [0.1, 0.3, -0.2, 0.25]
    low, high = interval(values)
    expected = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert (low, high) == pytest.approx((expected.low, expected.high))


def row(variant, seed, val_loss, percent=0.0):
    params = {"attention": 1, "total": 1_000_000, "percent": percent}
    return {"variant": variant, "seed": seed, "lr": 1e-3, "val_loss": val_loss, "n_spikes": 0,
            "params": params}  # fmt: skip


def test_differences_are_taken_seed_by_seed():
    """The seeds differ far more than the variants: only pairing shows the difference."""
    rows = [row("a", s, 10.0 * s) for s in range(3)] + [row("b", s, 10.0 * s + 1) for s in range(3)]
    (pair,) = (p for p in pairs(rows) if p["metric"] == "val_loss")
    assert (pair["difference"], pair["low"], pair["high"]) == pytest.approx((-1, -1, -1))


def test_one_seed_has_no_interval_and_unequal_parameters_are_marked():
    rows = [row("a", 0, 1.0), row("b", 0, 2.0, percent=12.0)]
    assert "no interval" in pair_table(pairs(rows))
    alone = [row("a", 0, 1.0), row("a", 1, 1.0)]
    assert "one seed" not in pair_table(pairs(alone)) and "two variants" in pair_table(pairs(alone))
    assert "params +12.0%" in table(rows) and "params +0.0%" not in table(rows)


def test_one_seed_is_asked_for_by_seeds(tmp_path):
    """--help lists --seed, and it did nothing."""
    with pytest.raises(SystemExit, match=r"^error: --seed 7: give --seeds 7 instead"):
        main(["compare", "--seed", "7", "--results", str(tmp_path / "results.json")])


def test_an_unknown_variant_stops_before_any_run(compare):
    with pytest.raises(ValueError, match="did you mean 'diff_v2'"):
        dataclasses.replace(compare, variants=("dif_v2",))


def test_opposed_heads_finds_a_head_that_is_the_negative_of_another():
    model = GPT(GPTConfig("softmax", n_layer=2, n_head=4, n_kv_head=2, head_dim=8, n_embd=32))
    assert abs(opposed_heads(model)["opposed_min"]) < 0.3
    slices = model.blocks[1].attn.o_proj.weight.data.unflatten(1, (4, 8))  # (D, h, d)
    slices[:, 2] = -0.5 * slices[:, 0]  # other keys and values: does not count
    assert opposed_heads(model)["opposed_min"] > -0.3
    slices[:, 1] = -0.5 * slices[:, 0]
    assert opposed_heads(model) == pytest.approx({"opposed_min": -1.0, "opposed_share": 2 / 8})
    first, second = torch.nn.functional.normalize(torch.randn(2, 32 * 8), dim=1)
    second = torch.nn.functional.normalize(second - (second @ first) * first, dim=0)
    for cosine, share in ((-0.95, 2 / 8), (-0.85, 0)):  # counted below -0.9
        slices[:, 0] = first.view(32, 8)
        slices[:, 1] = (cosine * first + (1 - cosine**2) ** 0.5 * second).view(32, 8)
        expected = {"opposed_min": cosine, "opposed_share": share}
        assert opposed_heads(model) == pytest.approx(expected, abs=1e-5)


def test_only_softmax_heads_that_share_keys_can_be_opposed():
    for name, heads in (("diff_v2", 4), ("constructed", 4), ("softmax", 2)):
        config = GPTConfig(name, n_layer=1, n_head=heads, n_kv_head=2, head_dim=8, n_embd=32)
        assert opposed_heads(GPT(config)) == {}


def test_joined_files_hold_every_run_once_and_pair_them(compare, tmp_path):
    files = [tmp_path / f"{name}.json" for name in compare.variants]
    for name, file in zip(compare.variants, files, strict=True):
        dataclasses.replace(compare, variants=(name,), results=file).run()
    first = json.loads(files[0].read_text(encoding="utf-8"))
    files[0].write_text(json.dumps(first | {"command": ["the first"]}), encoding="utf-8")
    join(files, compare.results)
    join([compare.results, files[0]], compare.results)  # a joined file can be joined again
    data = json.loads(compare.results.read_text(encoding="utf-8"))
    assert [row["variant"] for row in data["rows"]] == ["diff_v2"] * 2 + ["softmax_1.5h"] * 2
    assert data["command"][0] == "the first" and len(data["command"]) == 2
    assert {pair["metric"] for pair in data["pairs"]} == set(METRICS)
    compare.run()  # finds nothing left to do
    assert json.loads(compare.results.read_text(encoding="utf-8"))["rows"] == data["rows"]


def test_runs_that_do_not_compare_are_refused(compare, tmp_path):
    alone = dataclasses.replace(compare, variants=("diff_v2",), seeds=(0,))
    alone.run()
    decayed = dataclasses.replace(alone.config, weight_decay=0.9)
    wider = dataclasses.replace(
        alone.config, model=dataclasses.replace(alone.config.model, head_dim=16)
    )
    for config, name in ((decayed, "weight_decay"), (wider, "head_dim")):
        with pytest.raises(ValueError, match=rf"other settings \({name}\).* another --results"):
            dataclasses.replace(alone, config=config).run()
    (tmp_path / "text" / "more.txt").write_text("another text\n" * 60, encoding="utf-8")
    with pytest.raises(ValueError, match=r"other settings \(data\)"):
        alone.run()
    dataclasses.replace(alone, results=tmp_path / "new.json").run()
    with pytest.raises(ValueError, match="different settings or texts"):
        join([alone.results, tmp_path / "new.json"], tmp_path / "joined.json")
    old = json.loads(alone.results.read_text(encoding="utf-8"))
    del old["settings"]  # a file from before they were kept
    alone.results.write_text(json.dumps(old), encoding="utf-8")
    with pytest.raises(ValueError, match="another --results"):
        alone.run()
    with pytest.raises(ValueError, match="different settings or texts"):
        join([alone.results, alone.results], tmp_path / "joined.json")


def test_a_diverged_run_is_not_averaged():
    rows = [row(name, seed, 1.0 + seed) for name in "ab" for seed in (0, 1, 2)]
    rows[0]["diverged"] = "the loss is nan"
    assert {pair["seeds"] for pair in pairs(rows)} == {2}


def test_learning_rates_are_not_mixed():
    rows = [row("a", s, 1.0) | {"lr": lr} for s in (0, 1) for lr in (1e-3, 1e-2)]
    rows += [row("b", s, lr) | {"lr": lr} for s in (0, 1) for lr in (1e-3, 1e-2)]
    found = {p["lr"]: p["difference"] for p in pairs(rows) if p["metric"] == "val_loss"}
    assert found == {1e-3: pytest.approx(1 - 1e-3), 1e-2: pytest.approx(1 - 1e-2)}


def test_a_constructed_start_is_where_training_starts_and_not_what_it_keeps(compare):
    config = dataclasses.replace(compare.config, lr=1e-5)
    one = dataclasses.replace(
        compare, config=config, variants=("softmax_2h", "softmax_2h_start"), seeds=(0,)
    )
    one.run()
    free, started = json.loads(one.results.read_text(encoding="utf-8"))["rows"]
    assert free["params"] == started["params"] and free["val_loss"] != started["val_loss"]
    assert (started["opposed_share"], free["opposed_share"]) == (1, 0)
