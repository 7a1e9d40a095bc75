"""The benchmarks run on a CPU at a small size, and what they write means what it says."""

import dataclasses
import json
import math
import subprocess
import sys
import time

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from minidiff import GPT, devices, variant
from minidiff.bench import decode, ops, tools, train

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """What each benchmark wrote: name -> (JSON data, folder). One run serves all tests."""
    folder, found = tmp_path_factory.mktemp("bench"), {}
    for name, run, settings, quick in (
        ("ops", ops.ops, ops.OpsBench, {"lengths": (64,)}),
        ("train", train.train, train.TrainBench, {"profile": True, "peak_tflops": 0.5}),
        ("decode", decode.decode, decode.DecodeBench, {"contexts": (64,)}),
    ):
        out = folder / f"{name}.json"
        config = settings(**{**settings.CPU, **quick, "device": "cpu", "out": str(out)})
        returned = run(config)
        found[name] = json.loads(out.read_text(encoding="utf-8"))
        assert found[name] == json.loads(json.dumps(returned))
    return found, folder


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ops", "train", "decode"])
def test_report_says_what_ran_where_and_leaves_a_figure(reports, name):
    data, folder = reports[0][name], reports[1]
    assert data["machine"]["torch"] == torch.__version__
    assert {"device", "cuda", "flash_attn_2", "flash_attn_4"} <= set(data["machine"])
    assert data["date"][:2] == "20" and "python" in data["command"]
    assert data["config"]["out"].endswith(f"{name}.json") and len(data["notes"]) > 100
    assert not [row for row in data["rows"] if "error" in row]
    assert (folder / f"{name}.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert not list(folder.glob("*.new"))


@pytest.mark.slow
@pytest.mark.parametrize("text", ["precious", '{"rows": []}', "[]", ""])
def test_a_file_that_is_no_result_of_bench_is_not_overwritten(tmp_path, text):
    out = tmp_path / "precious.json"
    out.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"precious\.json.* give another --out"):
        ops.ops(ops.OpsBench(**{**ops.OpsBench.CPU, "device": "cpu", "out": str(out)}))
    assert out.read_text(encoding="utf-8") == text


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ops", "train", "decode"])
def test_medians_lie_between_their_extremes(reports, name):
    measured = [row for row in reports[0][name]["rows"] if "ms" in row]
    assert measured
    for row in measured:
        for key in (key for key in row if f"{key}_low" in row):
            assert 0 < row[f"{key}_low"] <= row[key] <= row[f"{key}_high"]


@pytest.mark.slow
def test_ops_covers_every_operation_and_counts_the_causal_half(reports):
    rows = reports[0]["ops"]["rows"]
    assert {(r["backend"], r["op"]) for r in rows} == {
        (backend, op)
        for backend in ("naive", "sdpa")
        for op in ("softmax_h", "softmax_2h", "diff_v2")
    }
    for row in rows:
        heads = row["h"] * (1 if row["op"] == "softmax_h" else 2)
        product = 2 * row["B"] * heads * row["T"] ** 2 * row["d"]  # q k^T, add and multiply
        operations = 2 * product / 2 * 3  # and A v; half is masked; the backward is twice as much
        assert row["tflops"] == pytest.approx(operations / row["ms"] / 1e9, rel=1e-3)


@pytest.mark.slow
def test_train_rows_hold_speed_mfu_and_ratios(reports):
    rows = {row["variant"]: row for row in reports[0]["train"]["rows"]}
    assert set(rows) == {*train.TrainBench.CPU["variants"]}
    assert rows["softmax_1.5h"]["vs_softmax_1.5h"] == rows["published"]["vs_published"] == 1
    for row in rows.values():
        assert row["tokens_per_s"] == pytest.approx(1e3 * 2 * 32 / row["ms"], rel=1e-3)
        assert row["mfu"] == pytest.approx(row["tflops"] / 0.5, rel=1e-3)
        per_second = row["tokens_per_s"] * row["flops_per_token"]
        assert row["tflops"] == pytest.approx(per_second / 1e12, rel=1e-3)
    profile = reports[0]["train"]["profile"]["tiny"]
    assert set(profile) == set(rows)
    assert all(any("mm" in line for line in lines) for lines in profile.values())


@pytest.mark.slow
def test_ratios_are_of_tokens_per_second_in_training_and_of_time_in_decoding(tmp_path, monkeypatch):
    """With a DIFF V2 that takes twice as long as its baseline."""

    def planted(calls, *_):
        return {key: [2.0 if "diff_v2" in (key, key[0]) else 1.0] * 3 for key in calls}

    monkeypatch.setattr(devices, "time_rounds", planted)
    kept = {"device": "cpu", "out": str(tmp_path / "bench.json")}
    names = ("softmax_1.5h", "diff_v2", "published")
    settings = train.TrainBench.CPU | kept | {"variants": names}
    rows = train.train(train.TrainBench(**settings))["rows"]
    assert [row["vs_softmax_1.5h"] for row in rows] == [1, 0.5, 1]
    assert [row["compile"] for row in rows] == ["none"] * 3
    settings = decode.DecodeBench.CPU | kept | {"variants": ("softmax_h", "diff_v2")}
    rows = decode.decode(decode.DecodeBench(**settings))["rows"]
    found = {(row["variant"], row["vs_softmax_h"]) for row in rows if "vs_softmax_h" in row}
    assert found == {("softmax_h", 1), ("diff_v2", 2)}


def test_operations_of_a_token_counted_by_hand():
    """diff_v2, 2 layers, h=4, h_kv=2, d=8, D=32, T=32, 257 tokens; MLP 128 wide (8/3 * 32 up)."""
    shape, _ = train.SIZES["tiny"]
    attention = 32 * (2 * 4 * 8) + 2 * 32 * (2 * 8) + (4 * 8) * 32 + 32 * 4  # q, k and v, o, lambda
    matmuls = 2 * (attention + 3 * 32 * 128) + 257 * 32  # the output embedding is a matmul too
    maps = 2 * (2 * 4) * (2 * 8 * 32 + 2 * 8 * 32) / 2 * 3  # layers, query heads, q k^T + A v
    assert train.flops_per_token(GPT(shape)) == 6 * matmuls + maps

    v1 = train.flops_per_token(GPT(variant(shape, "diff_v1")))  # 6 heads of q, k; values of 16
    attention = 2 * 32 * (6 * 8) + 2 * 32 * (2 * 8)
    matmuls = 2 * (attention + 3 * 32 * 128) + 257 * 32
    assert v1 == 6 * matmuls + 2 * 6 * (2 * 8 * 32 + 2 * 16 * 32) / 2 * 3


def test_operations_agree_with_what_pytorch_counts():
    """FlopCounterMode sees the naive backend's matmuls, which do not skip the masked half."""
    shape = dataclasses.replace(train.SIZES["tiny"][0], backend="naive")
    tokens = torch.randint(shape.vocab_size, (1, shape.block_size))
    model = GPT(shape)
    with FlopCounterMode(display=False) as counter:
        model(tokens, tokens)[1].backward()
    masked = 6 * shape.n_layer * 2 * shape.n_head * shape.head_dim * shape.block_size
    per_token = train.flops_per_token(model) + masked
    assert counter.get_total_flops() == pytest.approx(per_token * shape.block_size, rel=1e-9)


@pytest.mark.slow
def test_decode_rows_cover_the_grid_and_count_the_cache_once(reports):
    rows = reports[0]["decode"]["rows"]
    names = {"softmax_h", "softmax_1.5h", "diff_v2", "diff_v1", "softmax_2h"}
    for what in ("attention", "step"):
        seen = {(r["variant"], r["batch"], r["context"]) for r in rows if r["what"] == what}
        assert seen == {(name, batch, 64) for name in names for batch in (1, 2)}
    written = [r for r in rows if r["what"] == "generate"]
    assert {r["variant"] for r in written} == names
    assert all(r["first_token_ms"] < r["ms"] * r["context"] for r in written)
    assert all(r["how"] == "modules" for r in rows if r["what"] in ("generate", "step"))
    copies = {r["batch"]: r["gb_per_s"] for r in rows if r["what"] == "copy"}
    for row in (r for r in rows if r["what"] == "attention"):
        cache = 2 * row["batch"] * 64 * 2 * 16 * 4  # k and v, S, h_kv=2, d=16, float32
        assert row["gb_per_s"] == pytest.approx(cache / row["ms"] / 1e6, rel=1e-3)
        assert row["of_copy"] == pytest.approx(row["gb_per_s"] / copies[row["batch"]], rel=1e-3)
    intensity = {r["variant"]: r["flops_per_byte"] for r in rows if r["what"] == "attention"}
    assert intensity["diff_v2"] == 2 * intensity["softmax_h"]  # twice the queries, the same bytes


@pytest.mark.slow
def test_a_size_can_run_in_its_own_process(tmp_path):
    settings = decode.DecodeBench.CPU | {
        "contexts": (64,),
        "batches": (1,),
        "generate": False,
    }
    names = ("softmax_h", "diff_v2")
    config = decode.DecodeBench(**settings | {"own_process": True}, variants=names,
                                      device="cpu", out=str(tmp_path / "own.json"))  # fmt: skip
    rows = decode.decode(config)["rows"]
    assert [row["what"] for row in rows] == ["copy", *["attention"] * 2, *["step"] * 2]


@pytest.mark.slow
def test_a_process_that_crashes_or_hangs_costs_only_its_own_rows(tmp_path, monkeypatch):
    (tmp_path / "job.py").write_text(
        "import json, os, sys, time\n"
        "request = json.loads(sys.stdin.readline())\n"
        "print('a library says hello')\n"
        "print(json.dumps({'row': request}), flush=True)\n"
        "if request == [0, 'crash']: os.abort()\n"
        "if request == [0, 'hang']: time.sleep(60)\n",
        encoding="utf-8",
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    requests = [[0, "crash"], [0, "hang"], [0, "fine"]]
    rows = list(tools.in_own_processes("job", requests, time_limit_s=1.5))
    assert [row["row"] for row in rows if "row" in row] == requests
    crash, hang = (row["error"] for row in rows if "error" in row)
    assert "['crash'] ended with -6" in crash and "['hang'] ended with -9" in hang


def test_a_process_that_dies_while_it_waits_costs_only_its_own_rows(tmp_path, monkeypatch):
    """It imports while the one before it works: then nobody reads its request."""
    (tmp_path / "job.py").write_text(
        "import os, pathlib, sys, time\n"
        "made = pathlib.Path(__file__).with_name('dead')\n"
        "try:\n"
        "    made.mkdir()\n"
        "except FileExistsError:\n"
        "    sys.exit(3)\n"
        "sys.stdin.readline()\n"
        "time.sleep(1)\n"
        "print('{}', flush=True)\n",
        encoding="utf-8",
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    first, second = tools.in_own_processes("job", [[0, "a"], [0, "b"]], time_limit_s=30)
    assert {*first, *second} == {"error"} and "ended with 3" in (first | second)["error"]


def test_one_failure_is_a_row_and_not_the_end(tmp_path, monkeypatch):
    """A GPU without room for one variant must still give the others' rows."""
    build = train.GPT

    def no_room(shape):
        if shape.attention == "diff_v1":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 64 GiB\nmore")
        return build(shape)

    monkeypatch.setattr(train, "GPT", no_room)
    config = train.TrainBench(**train.TrainBench.CPU, device="cpu", out=str(tmp_path / "t.json"))
    failed, *measured = train.train(config)["rows"]
    assert failed["variant"] == "diff_v1" and "out of memory" in failed["error"]
    assert "\n" not in failed["error"]
    assert len(measured) == len(config.variants) - 1 and all("ms" in row for row in measured)


def test_rows_are_on_disk_before_the_next_is_measured(tmp_path):
    config = ops.OpsBench(out=str(tmp_path / "folder" / "rows.json"))
    report = tools.Report(config, CPU, ["ms:6"], "notes")
    for n in range(3):
        report.add({"ms": float(n)})
        assert len(json.loads(report.path.read_text(encoding="utf-8"))["rows"]) == n + 1


def test_a_second_process_on_one_file_is_refused(tmp_path):
    config = ops.OpsBench(out=str(tmp_path / "rows.json"))
    lock = str(tmp_path / ".rows.json.lock")
    code = "import sys, filelock; lock = filelock.FileLock(sys.argv[1]); lock.acquire()"
    command = [sys.executable, "-c", f"{code}; print(1, flush=True); sys.stdin.read()", lock]
    with subprocess.Popen(command, stdin=-1, stdout=-1) as process:  # -1: a pipe
        process.stdout.readline()
        with pytest.raises(ValueError, match=r"rows\.json: another process is writing it"):
            tools.Report(config, CPU, ["ms:6"], "notes")
        process.stdin.close()
    report = tools.Report(config, CPU, ["ms:6"], "notes")
    report.held.close()


def test_rounds_interleave_and_times_are_real():
    calls, order = {}, []
    for name in "ab":
        calls[name] = lambda name=name: order.append(name)
    times = devices.time_rounds(calls, rounds=3, repeats=2, device=CPU)
    assert "".join(order) == "aabb" * 3
    assert all(len(ms) == 3 and min(ms) > 0 for ms in times.values())
    assert 20 <= devices.elapsed_ms(lambda: time.sleep(0.02), 2, CPU) < 500


def test_spread_is_the_median_and_the_extremes():
    assert tools.spread("ms", [3.0, 1.0, 10.0]) == {"ms": 3.0, "ms_low": 1.0, "ms_high": 10.0}
    found = tools.ratios("r", {"a": [2.0, 6.0], "b": [1.0, 2.0]}, of="a", to="b")
    assert found == {"r": 2.5, "r_low": 2.0, "r_high": 3.0}
    assert math.isclose(tools.rounded(123456.0, 3), 123000.0)


@pytest.mark.parametrize(
    ("run", "config", "message"),
    [
        (ops.ops, ops.OpsBench(backends=("sdpa", "fast")), "backend 'fast'.*flash4"),
        (train.train, train.TrainBench(sizes=("7b",)), "size '7b'.*350m"),
        (train.train, train.TrainBench(variants=("diff_v3",)), "variant 'diff_v3'.*published"),
        *(
            (train.train, train.TrainBench(variants=("diff_v2", name)), f"'{name}'.*leave it out")
            for name in ("moe_softmax", "sparse_pair", "yoco_diff_v2")
        ),
        (train.train, train.TrainBench(compile="yes"), "compile 'yes'.*blocks"),
        (train.train, train.TrainBench(steps=0), "--steps must be at least 1"),
        (ops.ops, ops.OpsBench(lengths=(8, 0)), "--lengths must be at least 1"),
        (decode.decode, decode.DecodeBench(kernels=("x",)), "kernel 'x'.*cached"),
        (decode.decode, decode.DecodeBench(n_kv_head=5), "multiple of n_kv_head"),
    ],
)
def test_a_wrong_setting_is_named_in_one_line_before_any_work(run, config, message, tmp_path):
    config = dataclasses.replace(config, out=str(tmp_path / "none.json"))
    with pytest.raises(ValueError, match=message) as error:
        run(config)
    assert "\n" not in str(error.value) and not list(tmp_path.iterdir())
