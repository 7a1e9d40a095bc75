"""Training: resume, interruption, several processes, and the errors that stop it."""

import dataclasses
import json
import math
import signal
import subprocess
import time

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch.testing import assert_close
from training import TINY, cli, losses, run_python

from minidiff import GPT, checkpoint, devices, limits, runs
from minidiff.data import DataError, open_data
from minidiff.interrupt import Interrupt
from minidiff.runs import load_run, read_metrics
from minidiff.train import (
    TrainConfig,
    check_machine,
    evaluate,
    learning_rate,
    make_optimizer,
    pick_device,
    train,
    training_step,
)
from minidiff.variants import VARIANTS, variant


def test_a_run_leaves_what_it_promises(config):
    seen = []
    folder = train(config, on_log=seen.extend)
    rows = read_metrics(folder)
    assert [r["step"] for r in rows if "loss" in r] == list(range(1, 13))
    assert [r["step"] for r in rows if "val_loss" in r] == [6, 12]
    assert {"step", "loss", "lr", "grad_norm", "tokens_per_s"} == set(rows[0])
    assert seen == rows
    assert json.loads((folder / "config.json").read_text(encoding="utf-8"))["model"]["n_embd"] == 16
    model = load_run(folder)
    idx = torch.randint(0, 256, (1, 9))
    assert_close(model(idx)[0], load_run(folder)(idx)[0], rtol=0, atol=0)
    assert not list(folder.glob("*.new"))


def test_an_exported_run_loads_and_is_small(config, tmp_path):
    folder = train(config)
    runs.export_run(folder, tmp_path / "exported")
    model, exported = load_run(folder), load_run(tmp_path / "exported")
    for name, weight in model.state_dict().items():
        assert_close(exported.state_dict()[name], weight, rtol=2**-8, atol=0)  # bfloat16
    size = (tmp_path / "exported" / "model.safetensors").stat().st_size
    assert size < 0.6 * (folder / "model.safetensors").stat().st_size


def test_the_loss_falls_and_the_same_command_gives_the_same_numbers(config):
    config = dataclasses.replace(config, steps=60)
    first = losses(train(config))
    assert sum(first[-5:]) < 0.8 * sum(first[:5])
    assert losses(train(dataclasses.replace(config, overwrite=True))) == first


def test_resume_is_bitwise_the_uninterrupted_run(config, tmp_path):
    whole = train(dataclasses.replace(config, out=str(tmp_path / "whole")))
    broken = dataclasses.replace(config, out=str(tmp_path / "broken"))

    class Killed(Exception):
        pass

    def kill(rows):
        if rows[-1]["step"] >= 8:  # after the checkpoint of step 5, before that of step 10
            raise Killed

    with pytest.raises(Killed):
        train(broken, on_log=kill)
    train(dataclasses.replace(broken, resume=True))
    assert losses(tmp_path / "broken") == losses(whole)
    a, b = (load_file(folder / "model.safetensors") for folder in (whole, tmp_path / "broken"))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_gradient_accumulation_gives_the_same_training(config, tmp_path):
    whole = losses(train(config))
    cut = dataclasses.replace(config, grad_accum=4, out=str(tmp_path / "cut"))
    assert losses(train(cut)) == pytest.approx(whole, rel=1e-5)


def losses_of_two_processes(config, folder):
    """Train with torchrun, which starts two processes that share every batch."""
    words = cli(dataclasses.replace(config, out=str(folder)), "--variants", "diff_v2")
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    process = run_python(*torchrun, "-m", "minidiff", *words, stderr=subprocess.PIPE)
    assert process.wait(timeout=120) == 0, process.stderr.read()
    return losses(folder / "diff_v2")


@pytest.mark.slow
def test_two_processes_give_the_losses_of_one(config, tmp_path):
    alone = losses(train(config))
    config = dataclasses.replace(config, grad_accum=2)
    assert losses_of_two_processes(config, tmp_path / "two") == pytest.approx(alone, rel=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@pytest.mark.parametrize("how", ["none", "blocks"])
def test_two_gpus_give_the_losses_of_one(config, tmp_path, how):
    config = dataclasses.replace(config, device="cuda", compile="none")
    alone = losses(train(config))
    config = dataclasses.replace(config, compile=how, grad_accum=2)
    two = losses_of_two_processes(config, tmp_path / "two")
    assert two == pytest.approx(alone, rel=1e-2)  # in bfloat16


def test_resume_goes_on_to_a_second_model_that_was_not_begun(config, tmp_path, monkeypatch):
    """Ctrl-C during the first model: --resume must finish it, and then start the second."""
    from minidiff import __main__ as command

    words = cli(config, "--variants", "diff_v2", "softmax_1.5h")
    first = dataclasses.replace(config, out=str(tmp_path / "run" / "diff_v2"))
    with monkeypatch.context() as patch:
        patch.setattr(Interrupt, "seen", lambda *_: True)
        with pytest.raises(KeyboardInterrupt):
            train(first)
    with pytest.raises(SystemExit, match="holds a run"):
        command.main(words)
    command.main([*words, "--resume"])
    for name in ("diff_v2", "softmax_1.5h"):
        assert read_metrics(tmp_path / "run" / name)[-1]["step"] == config.steps
    with pytest.raises(SystemExit, match="nothing to resume"):  # that to resume is still an error
        command.main([*words, "--resume", "--out", str(tmp_path / "elsewhere")])


@pytest.mark.slow
def test_a_signal_writes_a_last_checkpoint_that_can_be_resumed(config, tmp_path):
    long = dataclasses.replace(config, steps=100_000, save_every=100_000, eval_every=100_000)
    process = run_python(
        "-m", "minidiff", *cli(long, "--variants", "diff_v2"), stderr=subprocess.PIPE
    )
    folder = tmp_path / "run" / "diff_v2"
    deadline = time.time() + 60
    while not ((folder / "metrics.jsonl").exists() and read_metrics(folder)):
        assert time.time() < deadline and process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, messages = process.communicate(timeout=60)
    assert process.returncode == 130 and "--resume continues" in messages
    assert "Traceback" not in messages
    assert not list(folder.glob("*.new"))
    done = read_metrics(folder)[-1]["step"]
    with safe_open(folder / "checkpoint.safetensors", "pt") as file:
        assert int(file.metadata()["step"]) == done > 0


def test_a_second_signal_ends_it_at_once_but_not_torchruns_copy_of_the_first(monkeypatch):
    clock, before = [100.0], signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    with Interrupt() as interrupt:
        assert not interrupt.seen("cpu", 1)
        signal.raise_signal(signal.SIGINT)
        clock[0] += 0.1
        signal.raise_signal(signal.SIGINT)
        assert interrupt.seen("cpu", 1)
        clock[0] += 3
        with pytest.raises(KeyboardInterrupt, match="saved before is whole"):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_an_interrupted_write_leaves_the_previous_checkpoint_whole(config, monkeypatch):
    write, calls = checkpoint.save_file, []

    def disk_fills_up(tensors, path, metadata):
        calls.append(path)
        if len(calls) > 2:  # step 5 writes two files; the first of step 10 breaks off
            path.write_bytes(b"half a file")
            raise OSError("No space left on device")
        write(tensors, path, metadata)

    monkeypatch.setattr(checkpoint, "save_file", disk_fills_up)
    with pytest.raises(OSError, match="No space"):
        train(config)
    monkeypatch.undo()
    folder = train(dataclasses.replace(config, resume=True))  # from step 5
    assert len(losses(folder)) == 12


def test_a_gradient_that_is_not_finite_is_not_saved(config):
    """The loss may still be finite when the step makes every weight NaN."""
    with pytest.raises(FloatingPointError, match="gradient norm is"):
        train(dataclasses.replace(config, lr=1e30, warmup_steps=0, save_every=1, log_every=1))
    for name, tensor in load_file(f"{config.out}/checkpoint.safetensors").items():
        assert tensor.isfinite().all(), name


def test_a_line_that_a_full_disk_cut_off_does_not_stop_a_resume(config):
    folder = train(config)
    metrics = folder / "metrics.jsonl"
    whole = losses(folder)
    metrics.write_text(metrics.read_text(encoding="utf-8") + '{"step": 13, "lo', encoding="utf-8")
    train(dataclasses.replace(config, resume=True))
    assert losses(folder) == whole


def test_all_folders_are_checked_before_the_first_model_trains(config, tmp_path):
    from minidiff import __main__ as command

    train(dataclasses.replace(config, out=str(tmp_path / "run" / "softmax_1.5h")))
    words = cli(config, "--variants", "diff_v2", "softmax_1.5h")
    with pytest.raises(SystemExit, match=r"softmax_1\.5h holds a run"):
        command.main(words)
    assert not (tmp_path / "run" / "diff_v2").exists()


def test_a_special_start_is_trained_from(config, tmp_path):
    from minidiff import __main__ as command

    command.main(cli(config, "--variants", "softmax_2h", "softmax_2h_start"))
    first = [losses(tmp_path / "run" / name)[0] for name in ("softmax_2h", "softmax_2h_start")]
    assert first[0] != first[1]


@pytest.mark.parametrize("backend", ["flash2", "pair"])
def test_wrong_settings_leave_an_old_run_alone(config, backend):
    """Neither can run on a CPU; "pair" is asked of diff_v2 only, the others have no pairs."""
    from minidiff import __main__ as command

    words = cli(config, "--variants", "diff_v2")
    folder = train(dataclasses.replace(config, out=f"{config.out}/diff_v2"))
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    with pytest.raises(SystemExit, match="cannot run here"):
        command.main([*words, "--overwrite", "--backend", backend])
    assert before == {file.name: file.read_bytes() for file in folder.iterdir()}
    assert [path.name for path in folder.parent.iterdir()] == ["diff_v2"]


@pytest.mark.parametrize("name", VARIANTS)
def test_what_would_fail_in_its_first_step_is_refused_before(config, name):
    """backend=pair on a CPU; what has no pairs of heads runs by another kernel."""
    shape = dataclasses.replace(TINY, n_layer=2, n_head=4, n_kv_head=2, backend="pair")
    config = dataclasses.replace(config, model=variant(shape, name))
    try:
        check_machine(config, torch.device("cpu"), 1)
    except RuntimeError as error:
        assert "cannot run here" in str(error) and "softmax" not in name
    else:
        GPT(config.model)(torch.zeros(1, 4, dtype=torch.long))


def test_validation_is_the_mean_over_its_own_windows(config):
    corpus, model = open_data(config.data, block_size=16), GPT(TINY)
    found = evaluate(model, corpus.val, config, torch.device("cpu"))
    with torch.no_grad():
        each = [model(x, y)[1].item() for x, y in corpus.val.fixed_batches(2, 4, 16)]
    assert len(set(each)) == 2 and found == pytest.approx(sum(each) / 2)


def test_a_loss_that_is_not_finite_stops_with_step_rate_and_advice(config):
    with pytest.raises(FloatingPointError, match=r"at step \d+ with learning rate .*--lr") as error:
        train(dataclasses.replace(config, lr=1e30, warmup_steps=0, log_every=1))
    assert "\n" not in str(error.value)
    logged = len(losses(config.out))
    assert f"at step {logged + 1} " in str(error.value)  # the next of metrics.jsonl


def test_the_optimizer_has_the_settings_of_the_config():
    config = TrainConfig(weight_decay=0.3, beta1=0.8, beta2=0.97, lr=0.02)
    groups = make_optimizer(GPT(TINY), config).param_groups
    assert sorted(group["weight_decay"] for group in groups) == [0, 0.3]
    assert all(group["betas"] == (0.8, 0.97) and group["lr"] == 0.02 for group in groups)


def test_resume_on_other_text_is_refused(config, tmp_path):
    train(config)
    (tmp_path / "text" / "new.txt").write_text("another text " * 50, encoding="utf-8")
    with pytest.raises(ValueError, match=r"not the text that .* began with.*--init-from"):
        train(dataclasses.replace(config, resume=True))


def test_weight_decay_is_on_matrices_only():
    model = GPT(TINY)
    decayed, free = make_optimizer(model, TrainConfig()).param_groups
    assert decayed["weight_decay"] == 0.1 and free["weight_decay"] == 0.0
    assert all(p.dim() == 2 for p in decayed["params"]) and len(free["params"]) == 3  # norms
    assert sum(map(len, (decayed["params"], free["params"]))) == len(list(model.parameters()))


def test_the_reported_gradient_norm_is_from_before_clipping():
    model = GPT(TINY)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    x = torch.randint(0, 256, (4, 16))
    model(x, x)[1].backward()
    expected = torch.cat([p.grad.flatten() for p in model.parameters()]).norm()
    optimizer.zero_grad()
    _, norm = training_step(model, optimizer, [x], [x], grad_clip=1e-3)
    assert_close(norm, expected)


def test_learning_rate_warms_up_and_ends_at_its_minimum():
    config = TrainConfig(steps=100, warmup_steps=10, lr=1.0, min_lr_ratio=0.1)
    rates = [learning_rate(step, config) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and rates[9] == rates[10] == 1.0
    assert rates[-1] == pytest.approx(0.1)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[54] == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi * 44 / 89)) / 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "at least 1"),
        ({"lr": -1.0}, "positive"),
        ({"compile": "yes"}, "blocks"),
        ({"beta2": 2.0}, "beta2"),
        ({"seed": -1}, "negative"),
        ({"resume": True, "overwrite": True}, "exclude"),
    ],
)
def test_a_wrong_setting_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**change)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_missing_gpu_is_named():
    with pytest.raises(ValueError, match="no GPU"):
        pick_device("cuda")


def test_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(ValueError, match="--nproc_per_node 1"):
        pick_device()


def test_folders_and_data_are_checked_before_training(config, tmp_path):
    with pytest.raises(ValueError, match="nothing to resume"):
        train(dataclasses.replace(config, resume=True))
    with pytest.raises(DataError):
        train(dataclasses.replace(config, data=str(tmp_path / "nowhere")))
    with pytest.raises(ValueError, match="multiple of grad_accum"):
        train(dataclasses.replace(config, grad_accum=3))
    assert not (tmp_path / "run").exists()
    train(config)
    with pytest.raises(ValueError, match="holds a run"):
        train(config)
    with pytest.raises(ValueError, match="another lr"):
        train(dataclasses.replace(config, lr=1.0, resume=True))


@pytest.mark.gpu
@pytest.mark.parametrize("how", ["blocks", "model"])
def test_a_compiled_model_trains_to_the_same_losses(config, tmp_path, how):
    """Marked gpu since compiling for a CPU takes a minute; bfloat16, hence the tolerance."""
    config = dataclasses.replace(config, device="cuda", compile="none")
    eager = losses(train(config))
    compiled = dataclasses.replace(config, compile=how, out=str(tmp_path / "compiled"))
    assert losses(train(compiled)) == pytest.approx(eager, rel=1e-2)


def test_an_apple_gpu_takes_the_same_way_as_a_cpu(monkeypatch):
    """All that is decided by the device's name, without the device; the macOS jobs have one."""
    mps = torch.device("mps")
    assert devices.pick_dtype(mps) == torch.float32  # and no scaler, then
    with devices.autocast(mps):
        assert not torch.is_autocast_enabled("mps")
    with devices.autocast(mps, torch.float16):
        assert torch.is_autocast_enabled("mps")
    model = GPT(TINY)
    assert devices.compiled(model, "auto", mps) is model
    assert limits.memory(mps) == limits.memory(torch.device("cpu"))  # they share it
    limits.check_training(TrainConfig(device="mps"), mps)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert pick_device("mps") == mps  # asked for by name, whatever else there is


@pytest.mark.skipif(not torch.backends.mps.is_available(), reason="needs an Apple GPU")
def test_an_apple_gpu_trains_to_the_losses_of_a_cpu(config, tmp_path):
    alone = losses(train(config))
    folder = train(dataclasses.replace(config, device="mps", out=str(tmp_path / "mps")))
    assert losses(folder) == pytest.approx(alone, rel=1e-3)
    load_run(folder, "mps").generate(torch.tensor([[256]], device="mps"), 5, seed=0)
