"""The folder of a run: what a stranger, a second process or a cut file may do to it."""

import contextlib
import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from training import losses

from minidiff import GPT, GPTConfig
from minidiff.checkpoint import Run
from minidiff.data import open_data
from minidiff.files import alone, replace_text
from minidiff.runs import export_run, load_run, read_metrics
from minidiff.train import UNSCALED, TrainConfig, evaluate, make_optimizer, train


@pytest.fixture
def folder(config):
    return train(config)


def refused(call, *names):
    """The one line of the ValueError; it names all of the names."""
    with pytest.raises(ValueError) as error:
        call()
    line = str(error.value)
    assert "\n" not in line and all(str(name) in line for name in names), line
    return line


# ---- Damaged and foreign files -----------------------------------------------------------------


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def pipe(path):
    path.unlink()
    os.mkfifo(path)


def settings_of(path, **changed):
    saved = json.loads(path.read_text(encoding="utf-8"))
    saved["model"] = {k: v for k, v in (saved["model"] | changed).items() if v is not None}
    path.write_text(json.dumps(saved), encoding="utf-8")


def with_nan(path):
    tensors = load_file(path)
    tensors["embed.weight"][3] = torch.nan
    save_file(tensors, path)


DAMAGE = {
    "empty": lambda path: path.write_bytes(b""),
    "cut": cut,
    "a pointer": lambda path: path.write_text(
        "version https://git-lfs.github.com/spec/v1\noid 1", encoding="utf-8"
    ),
    "a picture": lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n\0\0\xff\xfe"),
    "a list": lambda path: path.write_text("[1, 2]", encoding="utf-8"),
    "deep": lambda path: path.write_text("[" * 100_000, encoding="utf-8"),
    "a pipe": pipe,
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "gone": lambda path: path.unlink(),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_damaged_file_is_named_in_one_line(folder, name, damage):
    DAMAGE[damage](folder / name)
    line = refused(lambda: load_run(folder), name, folder)
    if (damage, name) == ("a pointer", "model.safetensors"):
        assert "git lfs pull" in line


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"n_embd": 32}, "different models"),
        ({"rope_theta": 500.0}, "different models"),  # the shapes would fit
        ({"n_head": 1, "head_dim": 16}, "different models"),
        ({"n_head": "two"}, "n_head='two'"),
        ({"attention": ["softmax"]}, "config.json"),
        ({"attention": "llama"}, "attention='llama'"),
        ({"block_size": None}, "must name"),
        ({"hidden_size": 4096}, "must name"),
        ({"block_size": 10**11}, "block_size=100000000000"),
        ({"n_embd": 10**9}, "GB of memory"),
        ({"n_layer": 10**9}, "GB of memory"),
    ],
)
def test_settings_that_are_not_those_of_the_weights_are_refused(folder, changed, message):
    settings_of(folder / "config.json", **changed)
    refused(lambda: load_run(folder), "config.json", message)


def test_weights_that_name_no_settings_must_still_fit(folder, tmp_path):
    """Exported runs hold the bare weights."""
    export_run(folder, tmp_path / "exported")
    load_run(tmp_path / "exported")
    settings_of(tmp_path / "exported" / "config.json", n_embd=32)
    refused(lambda: load_run(tmp_path / "exported"), "model.safetensors", "fit the settings")


def test_weights_that_are_not_finite_are_refused(folder):
    with_nan(folder / "model.safetensors")
    refused(lambda: load_run(folder), "model.safetensors", "embed.weight", "no finite number")


@pytest.mark.parametrize("damage", ["empty", "cut", "a picture", "a pipe", "a list", "gone"])
def test_damaged_metrics_never_block_a_resume(config, folder, damage):
    before = losses(folder)
    DAMAGE[damage](folder / "metrics.jsonl")
    if damage == "a list":
        assert "line 1 is damaged" in refused(lambda: read_metrics(folder), "metrics.jsonl")
    train(dataclasses.replace(config, resume=True, steps=14))
    kept = losses(folder)
    assert len(kept) >= 2 and kept[:-2] == before[: len(kept) - 2]


@pytest.mark.parametrize("damage", ["empty", "cut", "a pointer", "a picture", "a pipe"])
def test_a_damaged_checkpoint_is_named(config, folder, damage):
    DAMAGE[damage](folder / "checkpoint.safetensors")
    resume = dataclasses.replace(config, resume=True, steps=14)
    refused(lambda: train(resume), "checkpoint.safetensors")
    train(dataclasses.replace(config, overwrite=True))


def test_a_checkpoint_of_another_tool_is_named(config, folder):
    path = folder / "checkpoint.safetensors"
    about = {"step": "5", "settings": (folder / "config.json").read_text(encoding="utf-8")}
    resume = dataclasses.replace(config, resume=True, steps=14)
    save_file({"lm_head.weight": torch.ones(2)}, path, about)
    refused(lambda: train(resume), path, "fit the settings")
    save_file(load_file(folder / "model.safetensors"), path)
    refused(lambda: train(resume), path, "not written by minidiff")


# ---- Links, leftovers, modes -------------------------------------------------------------------


def test_links_in_a_strangers_folder_are_not_written_through(config, tmp_path):
    precious, folder = tmp_path / "precious", tmp_path / "run"
    precious.write_text("mine", encoding="utf-8")
    folder.mkdir()
    names = ("config.json", "metrics.jsonl", "best.safetensors", "model.safetensors")
    for name in names:
        (folder / name).symlink_to(precious)
        (folder / f"{name}.new").symlink_to(precious)
    train(dataclasses.replace(config, overwrite=True))
    assert precious.read_text(encoding="utf-8") == "mine"
    assert not any((folder / name).is_symlink() for name in names)
    (folder / "metrics.jsonl").unlink()
    (folder / "metrics.jsonl").symlink_to(precious)
    train(dataclasses.replace(config, resume=True, steps=14))
    assert precious.read_text(encoding="utf-8") == "mine" and len(losses(folder)) == 2


def test_a_link_in_place_of_the_lock_is_refused(config, tmp_path):
    (tmp_path / "precious").write_text("mine", encoding="utf-8")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match=r"\.lock"):
        train(config)
    assert (tmp_path / "precious").read_text(encoding="utf-8") == "mine"


def test_leftovers_of_a_killed_save_are_removed_at_the_next_start(config, folder):
    (folder / "checkpoint.safetensors.new").write_bytes(b"half")
    train(dataclasses.replace(config, resume=True))
    assert not list(folder.glob("*.new"))


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_weights_get_the_mode_that_the_umask_says(config, umask):
    before = os.umask(umask)
    try:
        folder = train(config)
    finally:
        os.umask(before)
    for name in ("model.safetensors", "best.safetensors", "config.json", "metrics.jsonl"):
        assert (folder / name).stat().st_mode & 0o777 == 0o666 & ~umask, name


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    replace_text(tmp_path / "a.json", "old")
    with pytest.raises(UnicodeEncodeError):
        replace_text(tmp_path / "a.json", "new \ud800")
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == "old"


# ---- Two processes -----------------------------------------------------------------------------

HOLD = """
import sys, time, filelock
lock = filelock.FileLock(sys.argv[1])
lock.acquire()
print("held", flush=True)
time.sleep(60)
"""


@contextlib.contextmanager
def held(lock):
    """Another process holds the lock until the block ends; then it is killed."""
    command = [sys.executable, "-c", HOLD, str(lock)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        yield
        process.kill()


def test_a_second_process_in_a_run_folder_gets_one_line_and_changes_nothing(config, folder):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with held(folder / ".lock"):
        for how in ({"overwrite": True}, {"resume": True}):
            refused(lambda how=how: train(dataclasses.replace(config, **how)), folder, "process")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    train(dataclasses.replace(config, resume=True))  # the lock of a killed process is free


def test_a_lock_may_be_taken_twice_in_one_process(tmp_path):
    with alone(tmp_path), alone(tmp_path):
        pass
    with held(tmp_path / ".lock"), pytest.raises(ValueError, match="another process"):
        alone(tmp_path).__enter__()


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="needs a folder that nobody can write")
def test_a_lock_that_cannot_be_made_is_no_second_process():
    with pytest.raises(ValueError, match=r"^/proc/a\.json: nothing can be written"):
        alone("/proc/a.json").__enter__()


def test_a_run_that_another_process_finished_meanwhile_is_not_lost(config, tmp_path):
    """Both saw an empty folder; the second gets the lock when the first has ended."""
    second = Run(config, open_data(config.data, block_size=16))
    train(config)
    model = GPT(config.model)
    with pytest.raises(ValueError, match="holds a run"):
        second.open(model, make_optimizer(model, config), UNSCALED).__enter__()


def test_a_resumed_run_that_another_process_went_on_with_meanwhile_is_not_lost(config):
    """It had no checkpoint when it was looked at, so the second process began at step 0."""
    folder = Path(config.out)
    folder.mkdir()
    first = Run(config, corpus := open_data(config.data, block_size=16))
    replace_text(folder / "config.json", json.dumps(first.settings))  # begun, and stopped at once
    second = Run(dataclasses.replace(config, resume=True), corpus)
    train(dataclasses.replace(config, resume=True))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    model = GPT(config.model)
    with pytest.raises(ValueError, match="another process went on with this run"):
        second.open(model, make_optimizer(model, config), UNSCALED).__enter__()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_what_was_made_from_the_old_weights_does_not_lie_beside_new_ones(config, folder):
    made = [folder / name for name in ("sample.txt", "model.onnx", "published.safetensors")]
    for path in made:
        path.touch()
    train(dataclasses.replace(config, overwrite=True, steps=1))
    assert not any(path.exists() for path in made)


def test_a_run_that_starts_from_itself_is_refused_and_keeps_its_weights(config, folder, tmp_path):
    (tmp_path / "link").symlink_to(folder)
    before = (folder / "model.safetensors").read_bytes()
    again = dataclasses.replace(config, init_from=str(tmp_path / "link"), overwrite=True)
    refused(lambda: train(again), "--init-from", "another --out")
    assert (folder / "model.safetensors").read_bytes() == before


# ---- The weights of the best validation --------------------------------------------------------


def test_the_best_weights_are_those_of_the_lowest_validation_loss(config, tmp_path):
    """At this rate the loss rises again."""
    wild = dataclasses.replace(config, lr=1.0, min_lr_ratio=1, eval_every=1)
    folder = train(wild)
    rows = [row for row in read_metrics(folder) if "val_loss" in row]
    best = min(rows, key=lambda row: row["val_loss"])
    assert best["val_loss"] < rows[-1]["val_loss"]
    val = open_data(config.data, block_size=16).val
    found = evaluate(load_run(folder, best=True), val, wild, torch.device("cpu"))
    assert found == pytest.approx(best["val_loss"], rel=1e-6)
    assert evaluate(load_run(folder), val, wild, torch.device("cpu")) > found


def test_numpy_integers_are_integers_and_what_is_not_finite_is_named():
    config = GPTConfig(n_layer=np.int64(2), n_embd=np.int32(64))
    assert json.dumps(dataclasses.asdict(config)) and type(config.n_layer) is int
    config = TrainConfig(steps=np.int64(3), lr=np.float32(0.5))
    assert json.dumps(dataclasses.asdict(config)) and config.lr == 0.5
    for name in ("lr", "min_lr_ratio", "weight_decay", "beta1", "beta2", "grad_clip"):
        for value in (float("nan"), float("inf"), "fast"):
            with pytest.raises(ValueError, match=f"^{name}="):
                TrainConfig(**{name: value})
    for value in (float("nan"), float("inf"), 0.0):
        with pytest.raises(ValueError, match=re.escape(f"rope_theta={value}")):
            GPTConfig(rope_theta=value)
    with pytest.raises(ValueError, match=r"steps=2\.5"):
        TrainConfig(steps=2.5)


# ---- TensorBoard -------------------------------------------------------------------------------


def test_tensorboard_gets_every_row_of_the_metrics_once(config):
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="pip install tensorboard"
    )
    config = dataclasses.replace(config, tensorboard=True)

    class Killed(Exception):
        pass

    def kill(rows):
        if rows[-1]["step"] >= 8:  # logged, but not in a checkpoint
            raise Killed

    with pytest.raises(Killed):
        train(config, on_log=kill)
    folder = train(dataclasses.replace(config, resume=True))
    events = accumulator.EventAccumulator(str(folder)).Reload()
    for name in ("loss", "val_loss", "lr"):
        expected = {row["step"]: row[name] for row in read_metrics(folder) if name in row}
        found = [(event.step, event.value) for event in events.Scalars(name)]
        assert [step for step, _ in found] == sorted(expected)
        assert [value for _, value in found] == pytest.approx(list(expected.values()))


def test_tensorboard_that_is_not_installed_is_named_before_training(config, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    for name in [name for name in sys.modules if name.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    refused(lambda: train(dataclasses.replace(config, tensorboard=True)), "pip install tensorboard")
    assert not os.path.exists(config.out)
