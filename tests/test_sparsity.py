"""What sparse attention keeps of a trained model: the numbers against their definitions."""

import dataclasses
import json

import pytest
import torch
from safetensors.torch import save_file
from test_runs import held
from torch.testing import assert_close

from minidiff import GPT, GPTConfig, load_pretrained
from minidiff.data import encode
from minidiff.study.sparsity import Study, sparse_twin, sparsity

TINY = GPTConfig(n_layer=2, n_head=4, n_kv_head=2, head_dim=8, n_embd=16, block_size=64)
TEXT = "".join(f"def area_{i}(width, height):\n    return width * height + {i}\n" for i in range(9))


@pytest.fixture(scope="module")
def model():
    return load_pretrained("diff_v2")


@pytest.fixture(scope="module")
def text():
    return torch.cat((encode(TEXT[:159]), encode(TEXT[200:359])))


def test_a_twin_that_sees_every_block_is_the_dense_model():
    for attention in ("diff_v2", "softmax"):
        dense = GPT(GPTConfig(attention=attention, n_layer=2, block_size=64)).double()
        idx = torch.randint(0, 256, (2, 40))
        twin = sparse_twin(dense, "group", block=8, top_k=5)
        assert_close(twin(idx)[0], dense(idx)[0], rtol=1e-10, atol=1e-10)
        assert not torch.allclose(sparse_twin(dense, "group", 8, 2)(idx)[0], dense(idx)[0])


@pytest.mark.parametrize("share", ["head", "pair", "a1", "group"])
def test_numbers_lie_where_they_must(model, text, share):
    found = sparsity(model, text, share, block=16, top_k=3)
    assert json.loads(json.dumps(found)) == found
    assert 48 / 160 - 16 / 160 < found["keys_seen"] < 48 / 49
    assert found["tiles_loaded"] == 1  # 160 tokens are three causal tiles: 48 keys are in each
    assert 0 < found["mass_kept"] < 1 and found["map_change"] > 0
    assert (found["supports_differ"] > 0) == (share == "head")
    assert found["loss_change"] == pytest.approx(found["loss"] - found["loss_dense"])


def test_mass_kept_and_keys_seen_of_uniform_attention_are_the_same():
    model = GPT(TINY)
    with torch.no_grad():
        for block in model.blocks:
            block.attn.q_proj.weight.zero_()
    found = sparsity(model, torch.randint(0, 256, (2, 64)), "pair", block=8, top_k=2)
    assert found["mass_kept"] == pytest.approx(found["keys_seen"])
    # The sparse map is uniform over what it sees: what it takes elsewhere it adds there.
    assert found["map_change"] == pytest.approx(2 * (1 - found["keys_seen"]), rel=1e-4)


def test_more_blocks_change_less(model, text):
    few, many = (sparsity(model, text, "pair", block=16, top_k=n) for n in (2, 6))
    assert few["map_change"] > many["map_change"] and few["mass_kept"] < many["mass_kept"]


def test_softmax_has_no_pairs(text):
    found = sparsity(load_pretrained("softmax_1.5h"), text, "head", block=16, top_k=3)
    assert "supports_differ" not in found and found["map_change"] > 0
    with pytest.raises(ValueError, match="no pairs of heads; use head or group"):
        sparsity(load_pretrained("softmax_1.5h"), text, "pair")


def test_a_text_that_is_seen_whole_is_refused(model, text):
    with pytest.raises(ValueError, match="160 tokens is seen whole by 10 blocks of 16"):
        sparsity(model, text, "pair", block=16, top_k=10)
    with pytest.raises(ValueError, match="'gated': only diff_v2 and softmax"):
        sparse_twin(GPT(GPTConfig(attention="gated", n_layer=1)), "head")


@pytest.mark.parametrize("prompts", [0, 2])
def test_a_study_measures_every_choice_of_every_model(tmp_path, prompts):
    text, out, folders = tmp_path / "text.py", tmp_path / "out" / "rows.json", []
    out.parent.mkdir()
    text.write_text(TEXT * 20, encoding="utf-8")
    for attention in ("diff_v2", "softmax"):
        model = GPT(dataclasses.replace(TINY, attention=attention, block_size=80))
        folders.append(tmp_path / attention)
        folders[-1].mkdir()
        settings = json.dumps({"model": dataclasses.asdict(model.config)})
        (folders[-1] / "config.json").write_text(settings, encoding="utf-8")
        save_file(model.state_dict(), folders[-1] / "model.safetensors")
    study = Study(
        tuple(folders), out, str(text), windows=2, budgets=((16, 2),), prompts=prompts, device="cpu"
    )
    with held(tmp_path / "out" / ".rows.json.lock"), pytest.raises(ValueError, match="process"):
        study.run()
    found = study.run()
    with pytest.raises(ValueError, match=r"rows\.json: there already"):
        study.run()
    assert (
        json.loads(out.read_text(encoding="utf-8")) == found and found["torch"] == torch.__version__
    )
    rows = found["rows"]
    assert [(row["attention"], row["share"]) for row in rows] == [
        *(("diff_v2", s) for s in ("dense", "head", "pair", "a1", "group")),
        *(("softmax", s) for s in ("dense", "head", "group")),
    ]
    assert all(0.3 < row["keys_seen"] < 1 for row in rows if row["share"] != "dense")
    assert all(("recall_4" in row) == bool(prompts) for row in rows)


@pytest.mark.parametrize("few", [{"windows": 1}, {"prompts": 1}])
def test_a_mean_of_one_has_no_error_and_is_refused(few):
    with pytest.raises(ValueError, match=f"--{next(iter(few))} 1: give at least 2"):
        Study((), **few)
