"""Resuming as people do it, fine-tuning, and what outlives a signal or a terminal."""

import dataclasses
import json
import logging
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from training import TINY, cli, losses, run_python

from minidiff import __main__ as command
from minidiff import devices
from minidiff.devices import pick_device, pick_dtype, processes, why_not_compile
from minidiff.interrupt import Interrupt, Terminal
from minidiff.runs import load_run, read_metrics
from minidiff.train import train


def step_of(folder, name="checkpoint"):
    with safe_open(folder / f"{name}.safetensors", "pt") as file:
        return int(file.metadata()["step"])


# ---- Resume ------------------------------------------------------------------------------------


def test_more_steps_on_a_finished_run(config, caplog):
    folder = train(config)
    before = losses(folder)
    with caplog.at_level(logging.INFO, "minidiff"):
        train(dataclasses.replace(config, resume=True, steps=16))
    assert "from step 12 on the learning rate is that of a run of 16 steps" in caplog.text
    assert losses(folder)[:12] == before and len(losses(folder)) == 16
    assert json.loads((folder / "config.json").read_text(encoding="utf-8"))["steps"] == 16
    assert step_of(folder) == step_of(folder, "model") == 16
    load_run(folder)
    with pytest.raises(ValueError, match=r"--steps 12: .* has done 16 already"):
        train(dataclasses.replace(config, resume=True))


def test_what_has_no_influence_on_the_numbers_may_change(config, tmp_path, monkeypatch):
    whole = losses(train(dataclasses.replace(config, out=str(tmp_path / "whole"))))
    folder = train(dataclasses.replace(config, steps=6))
    monkeypatch.chdir(tmp_path)
    model = dataclasses.replace(TINY, backend="sdpa")
    spelled = {"data": "text", "out": "run", "log_every": 1, "save_every": 2, "compile": "none"}
    train(dataclasses.replace(config, resume=True, model=model, **spelled))
    assert losses(folder)[:3] == whole[:3] and len(losses(folder)) == 12


@pytest.mark.slow
def test_settings_come_from_the_folder_that_is_resumed(config, tmp_path, monkeypatch):
    words = cli(config, "--variants", "softmax_1.5h", "diff_v2")
    with monkeypatch.context() as patch:
        patch.setattr(Interrupt, "seen", lambda *_: True)
        with pytest.raises(SystemExit):
            command.main(words)
    command.main(["train", "--resume", "--out", config.out])
    for name in ("softmax_1.5h", "diff_v2"):
        assert losses(tmp_path / "run" / name)
        assert read_metrics(tmp_path / "run" / name)[-1]["step"] == config.steps
    command.main(["train", "--resume", "--out", config.out, "--steps", "15"])
    assert read_metrics(tmp_path / "run" / "diff_v2")[-1]["step"] == 15
    (tmp_path / "run" / "train.json").write_text(
        '{"variants": ["diff_v2"], "model": []}', encoding="utf-8"
    )
    with pytest.raises(SystemExit, match=r"train\.json: not the settings"):
        command.main(["train", "--resume", "--out", config.out])


def test_text_that_has_grown_gives_the_choice_in_words(config, tmp_path):
    folder = train(config)
    (tmp_path / "text" / "new.txt").write_text("another text " * 50, encoding="utf-8")
    with pytest.raises(ValueError, match="--init-from") as error:
        train(dataclasses.replace(config, resume=True, steps=16))
    assert "\n" not in str(error.value)
    fine = dataclasses.replace(config, out=str(tmp_path / "fine"), init_from=str(folder), lr=1e-4)
    assert losses(train(fine))[0] < losses(folder)[0]


def test_other_text_in_files_of_the_same_names_and_sizes_is_refused(config, tmp_path):
    before = losses(folder := train(config))
    for path in (tmp_path / "text").iterdir():
        path.write_bytes(b"X" * path.stat().st_size)
    with pytest.raises(ValueError, match=r"same names and sizes, with other bytes.*--init-from"):
        train(dataclasses.replace(config, resume=True, steps=16))
    assert losses(folder) == before


def test_fine_tuning_begins_with_the_weights_of_the_other_run(config, tmp_path):
    first = train(config)
    shape = dataclasses.replace(TINY, block_size=8)  # may differ: weights do not depend on it
    fine = dataclasses.replace(
        config, model=shape, init_from=str(first), out=str(tmp_path / "fine"), steps=1, lr=1e-30
    )
    weights = load_file(train(fine) / "model.safetensors")
    before = load_file(first / "model.safetensors")
    for name in weights:
        torch.testing.assert_close(weights[name], before[name], rtol=1e-6, atol=0)
    wide = dataclasses.replace(TINY, n_embd=32)
    with pytest.raises(ValueError, match=r"--init-from .*: its n-embd is 16, not 32"):
        train(dataclasses.replace(fine, model=wide, out=str(tmp_path / "wide")))
    with pytest.raises(ValueError, match="is it a run folder"):
        train(dataclasses.replace(fine, init_from=str(tmp_path), out=str(tmp_path / "none")))


def test_fine_tuning_that_was_stopped_before_its_first_checkpoint(config, tmp_path):
    first = train(config)
    fine = dataclasses.replace(config, init_from=str(first), out=str(tmp_path / "fine"), lr=1e-5)

    class Killed(Exception):
        pass

    def kill(rows):
        raise Killed

    with pytest.raises(Killed):
        train(fine, on_log=kill)
    assert not (tmp_path / "fine" / "checkpoint.safetensors").exists()
    train(dataclasses.replace(fine, resume=True))
    assert losses(tmp_path / "fine")[0] < losses(first)[0] - 0.1


@pytest.mark.slow
def test_fine_tuning_takes_each_models_own_weights(config, tmp_path):
    words = cli(config, "--variants", "diff_v2", "softmax_1.5h")
    command.main(words)
    fine = ["--init-from", config.out, "--out", str(tmp_path / "fine"), "--lr", "1e-5"]
    command.main([*words, *fine])
    for name in ("diff_v2", "softmax_1.5h"):
        assert losses(tmp_path / "fine" / name)[0] < losses(tmp_path / "run" / name)[0] - 0.1


def test_an_exported_run_is_not_overwritten_by_resume(config):
    folder = train(config)
    (folder / "checkpoint.safetensors").unlink()
    before = (folder / "model.safetensors").read_bytes()
    with pytest.raises(ValueError, match="nothing to resume"):
        train(dataclasses.replace(config, resume=True, steps=14))
    assert (folder / "model.safetensors").read_bytes() == before


# ---- Signals and terminals ---------------------------------------------------------------------


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_saves_after_its_step(config, name):
    config = dataclasses.replace(config, steps=1000, save_every=1000, eval_every=1000)

    def on_log(rows):
        if rows[-1]["step"] == 4:
            signal.raise_signal(getattr(signal, name))

    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # these tests, too, may run under nohup
    try:
        with pytest.raises(KeyboardInterrupt, match="--resume continues"):
            train(config, on_log=on_log)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert step_of(Path(config.out)) == len(losses(config.out)) == 5


def test_nohup_is_respected():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interrupt() as interrupt:
            signal.raise_signal(signal.SIGHUP)
            assert not interrupt.seen("cpu", 1)
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.slow
def test_ctrl_c_on_a_pipe_to_tee_saves(config, tmp_path):
    """tee dies of the same Ctrl-C, so the progress bar writes into a broken pipe."""
    config = dataclasses.replace(config, steps=100_000, save_every=100_000, eval_every=100_000)
    words = shlex.join([sys.executable, "-m", "minidiff", *cli(config, "--variants", "diff_v2")])
    script = f"{words} 2>&1 | tee {tmp_path}/log"
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    shell = subprocess.Popen(["bash", "-c", script], env=env, start_new_session=True)
    folder, deadline = tmp_path / "run" / "diff_v2", time.time() + 90
    while not ((folder / "metrics.jsonl").exists() and losses(folder)):
        assert time.time() < deadline and shell.poll() is None
        time.sleep(0.2)
    os.killpg(shell.pid, signal.SIGINT)
    shell.wait(timeout=60)
    deadline = time.time() + 60
    while not (folder / "checkpoint.safetensors").exists():
        assert time.time() < deadline
        time.sleep(0.2)
    assert step_of(folder) > 0
    process = run_python("-m", "minidiff", "train", "--resume", "--out", config.out, "--steps", "1",
                         stderr=subprocess.PIPE)  # fmt: skip
    assert "has done" in process.communicate(timeout=90)[1]


@pytest.mark.slow
@pytest.mark.parametrize("how", ["broken", "closed"])
def test_a_dead_terminal_does_not_end_a_run(config, monkeypatch, how):
    read, write = os.pipe()
    os.close(read)
    stream = os.fdopen(write, "w")
    if how == "closed":
        stream.close()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(logging.root, "handlers", [])
    command.main(cli(config, "--variants", "diff_v2"))
    monkeypatch.undo()
    assert step_of(Path(config.out) / "diff_v2") == config.steps


def test_a_character_that_the_terminal_lacks_ends_nothing(tmp_path):
    with open(tmp_path / "log", "w", encoding="ascii", errors="strict") as stream:
        terminal = Terminal(stream)
        terminal.write("\u03bb")  # UnicodeEncodeError is a ValueError
        print("more", file=terminal)


# ---- Machines ----------------------------------------------------------------------------------


def test_half_an_environment_of_torchrun_is_refused(config, monkeypatch):
    for rank, world in (("1", None), ("2", "2"), ("x", "2"), ("0", "-1")):
        monkeypatch.setenv("RANK", rank)
        monkeypatch.delenv("WORLD_SIZE", raising=False)
        if world:
            monkeypatch.setenv("WORLD_SIZE", world)
        with pytest.raises(ValueError, match=f"RANK={rank} and WORLD_SIZE="):
            train(config)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.delenv("WORLD_SIZE")
    assert processes() == (0, 1)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_trains_and_resumes_bitwise(config, tmp_path, dtype):
    config = dataclasses.replace(config, dtype=dtype, steps=20)
    whole = train(config)
    assert losses(whole)[-1] < losses(whole)[0] - 0.1
    part = dataclasses.replace(config, out=str(tmp_path / "part"))

    class Killed(Exception):
        pass

    def kill(rows):
        if rows[-1]["step"] >= 12:
            raise Killed

    with pytest.raises(Killed):
        train(part, on_log=kill)
    again = train(dataclasses.replace(part, resume=True))
    assert losses(again) == losses(whole)
    full = train(dataclasses.replace(config, dtype="float32", out=str(tmp_path / "full")))
    assert losses(full) != losses(whole)
    assert losses(full)[-1] == pytest.approx(losses(whole)[-1], rel=0.05)


def test_float16_scales_its_loss_and_leaves_an_overflowing_step_out(config):
    """The scale starts at 65536, which is too much for these gradients: some steps overflow."""
    folder = train(dataclasses.replace(config, dtype="float16", lr=0.1, steps=20))
    rows = [row for row in read_metrics(folder) if "loss" in row]
    with safe_open(folder / "checkpoint.safetensors", "pt") as file:
        scale = json.loads(file.metadata()["scaler"])["scale"]
    skipped = sum(row["grad_norm"] == 0 for row in rows)
    assert scale == 65536 / 2**skipped
    for tensor in load_file(folder / "model.safetensors").values():
        assert tensor.isfinite().all()


@pytest.mark.gpu
@pytest.mark.parametrize("how", ["none", "blocks"])
def test_float16_on_a_gpu_trains_to_the_losses_of_float32(config, tmp_path, how):
    config = dataclasses.replace(config, device="cuda", steps=30)
    half = dataclasses.replace(config, dtype="float16", compile=how, out=str(tmp_path / "half"))
    full = dataclasses.replace(config, dtype="float32", compile="none")
    assert losses(train(half))[-1] == pytest.approx(losses(train(full))[-1], rel=0.05)


def test_the_dtype_is_what_the_gpu_is_fast_in(monkeypatch):
    cuda = torch.device("cuda")
    for capability, dtype in (((9, 0), torch.bfloat16), ((7, 5), torch.float16)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_, c=capability: c)
        assert pick_dtype(cuda) == dtype
    assert pick_dtype(torch.device("cpu")) == pick_dtype(torch.device("mps")) == torch.float32
    assert pick_dtype(torch.device("cpu"), "bfloat16") == torch.bfloat16


def test_an_apple_gpu_is_taken_where_pytorch_has_one(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert pick_device("mps") == torch.device("mps")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ValueError, match="no Apple GPU"):
        pick_device("mps")
    with pytest.raises(ValueError, match="--device tpu"):
        pick_device("tpu")


def test_compile_auto_says_why_it_does_not(monkeypatch, caplog):
    cuda = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (9, 0))
    monkeypatch.setattr(devices.importlib.util, "find_spec", lambda name: None)
    model = torch.nn.Linear(1, 1)
    assert devices.compiled(model, "auto", cuda) is model
    assert "not compiled" in caplog.text and "pip install triton" in caplog.text
    monkeypatch.undo()
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (6, 1))
    assert "7.0" in why_not_compile(cuda) or "Triton is missing" in why_not_compile(cuda)


def test_compiling_without_a_compiler_is_refused_at_the_start(config, monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(ValueError, match="--compile blocks: there is no C compiler"):
        train(dataclasses.replace(config, compile="blocks"))
    train(dataclasses.replace(config, compile="auto"))


def test_settings_that_a_class_refuses_come_in_its_own_words(capsys):
    for words, message in (
        (["--device", "tpu"], "device='tpu': use auto, cpu, cuda, mps"),
        (["--lr", "nan"], "lr=nan must be a finite number"),
        (["--n-head", "3"], "n_head=3 must be a multiple"),
    ):
        with pytest.raises(SystemExit, match=message):
            command.main(["train", *words])
        assert "tyro" not in capsys.readouterr().err
    with pytest.raises(SystemExit, match="give --variants softmax"):
        command.main(["train", "--attention", "softmax"])


def test_sample_says_what_does_not_fit(config, capsys, caplog):
    folder = str(train(dataclasses.replace(config, steps=1)))
    command.main(["sample", folder, "--prompt", "a", "--tokens", "500"])
    assert "block_size=16 is full after 14 new tokens" in caplog.text
    with pytest.raises(SystemExit, match="a prompt of 31 tokens does not fit"):
        command.main(["sample", folder, "--prompt", "a" * 30])
    command.main(["sample", folder, "--best", "--prompt", "a"])
