"""A run for other tools: the graph of torch.export, ONNX, the published module's names."""

import dataclasses
import importlib.util
import json
import re
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from test_model import PublishedAttention
from torch.testing import assert_close
from training import TINY

from minidiff import GPT, GPTConfig, export
from minidiff import __main__ as command
from minidiff.export import from_published, to_published, write_onnx
from minidiff.model import rope_table
from minidiff.runs import load_run
from minidiff.train import train

SMALL = GPTConfig(n_layer=1, n_head=4, n_kv_head=2, head_dim=8, n_embd=16, block_size=24)
SIZES = [(2, 9), (1, 1), (3, 2), (1, 24)]  # (B, T)


def graph(model):
    """torch.export of a model for every B and T."""
    sizes = {0: torch.export.Dim("B"), 1: torch.export.Dim("T", max=model.config.block_size)}
    return torch.export.export(
        model, (torch.zeros(2, 9, dtype=torch.long),), dynamic_shapes=(sizes,)
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("attention", "backend"),
    [("diff_v2", "auto"), ("diff_v2", "naive"), ("softmax", "auto"), ("diff_v1", "auto")],
)
def test_torch_export_with_a_free_length_gives_the_same_logits(attention, backend):
    model = GPT(dataclasses.replace(SMALL, attention=attention, backend=backend)).eval()
    exported = graph(model).module()
    for size in SIZES:
        idx = torch.randint(0, 257, size)
        assert_close(exported(idx)[0], model(idx)[0])


# ---- ONNX --------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("attention", ["diff_v2", "softmax"])
def test_an_onnx_file_gives_the_same_logits_for_every_length(tmp_path, caplog, attention):
    runtime = pytest.importorskip("onnxruntime", reason="pip install onnx onnxscript onnxruntime")
    pytest.importorskip("onnxscript", reason="pip install onnx onnxscript onnxruntime")
    model = GPT(dataclasses.replace(SMALL, attention=attention)).eval()
    path = tmp_path / "model.onnx"
    with caplog.at_level("INFO"):
        write_onnx(model, path)
    assert len(caplog.records) < 3, caplog.text  # the exporter's own lines are hundreds
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert [put.name for put in session.get_inputs() + session.get_outputs()] == ["idx", "logits"]
    for size in SIZES:
        idx = torch.randint(0, 257, size)
        (found,) = session.run(None, {"idx": idx.numpy()})
        assert_close(torch.from_numpy(found), model(idx)[0], rtol=1e-4, atol=1e-5)
    about = session.get_modelmeta().custom_metadata_map["minidiff"]
    assert json.loads(about)["block_size"] == 24


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install onnx onnxscript"):
        write_onnx(GPT(TINY), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_a_model_that_no_onnx_file_holds_is_refused(tmp_path, monkeypatch):
    pytest.importorskip("onnxscript", reason="pip install onnx onnxscript onnxruntime")
    monkeypatch.setattr(export, "LARGEST", 1000)
    with pytest.raises(ValueError, match="holds 2 GB at most"):
        write_onnx(GPT(TINY), tmp_path / "model.onnx")


@pytest.mark.slow
def test_a_model_without_a_graph_for_every_length_is_refused(tmp_path):
    pytest.importorskip("onnxscript", reason="pip install onnx onnxscript onnxruntime")
    model = GPT(dataclasses.replace(SMALL, attention="moe_softmax"))
    with pytest.raises(ValueError, match="moe_softmax has no ONNX graph") as error:
        write_onnx(model, tmp_path / "model.onnx")
    assert "\n" not in str(error.value) and not list(tmp_path.iterdir())


# ---- The published module's names --------------------------------------------------------------


@pytest.mark.parametrize("attention", ["diff_v2", "softmax"])
def test_renaming_there_and_back_changes_nothing(attention):
    weights = GPT(dataclasses.replace(SMALL, attention=attention)).state_dict()
    theirs = to_published(weights)
    back = from_published(theirs)
    assert set(back) == {name for name in weights if ".attn." in name}
    assert all(back[name] is weights[name] for name in back)  # renamed, not computed
    assert to_published(back).keys() == theirs.keys()
    with pytest.raises(ValueError, match=r"0\.qkv\.weight: not a name"):
        from_published(theirs | {"0.qkv.weight": torch.ones(1)})


def test_published_modules_load_an_export_strictly_and_compute_the_same(config, tmp_path):
    folder = train(dataclasses.replace(config, model=SMALL, steps=1))
    command.main(["export", str(folder), "--to", "published", "--out", str(tmp_path / "w")])
    with safe_open(tmp_path / "w", "pt") as file:
        about = json.loads(file.metadata()["arguments"])
    sizes = (about[name] for name in ("d_model", "num_heads", "num_kv_heads", "head_dim"))
    assert about["use_diff_v2"]
    sizes = tuple(sizes)
    layers = torch.nn.ModuleList([PublishedAttention(*sizes) for _ in range(1)])
    layers.load_state_dict(load_file(tmp_path / "w"))  # strict
    model, x = load_run(folder), torch.randn(2, 11, 16)
    rope = rope_table(SMALL)[:11]
    for layer, block in zip(layers, model.blocks, strict=True):
        assert_close(layer(x), block.attn(x, rope), rtol=1e-4, atol=1e-5)


def test_what_cannot_be_exported_is_one_line(config, tmp_path):
    name = dataclasses.replace(SMALL, attention="gated")
    folder = train(dataclasses.replace(config, model=name, steps=1))
    for words, says in (
        ([str(folder), "--to", "published"], "diff_v2 or softmax, and this is gated"),
        ([str(folder), "--out", str(tmp_path)], "there already"),
        ([str(folder), "--out", str(tmp_path / "no" / "x")], "there is no folder"),
        ([str(tmp_path / "text")], "is it a run folder"),
    ):
        with pytest.raises(SystemExit, match=says) as error:
            command.main(["export", *words])
        assert "\n" not in error.value.code
    assert not list(folder.glob("*.onnx"))


def test_a_file_that_is_there_is_named_without_an_option_that_nobody_gave(config):
    (path := Path(config.out) / "model.onnx").parent.mkdir()
    path.touch()
    with pytest.raises(SystemExit, match=f"^error: {re.escape(str(path))}: there already"):
        command.main(["export", config.out])
