"""The choice of the pair that ships: the median seed, its loss on held-out windows, its export."""

import json

import pytest
import torch
import torch.nn.functional as F

from minidiff import GPTConfig
from minidiff.data import open_data
from minidiff.runs import load_run
from minidiff.study import shipped
from minidiff.study.compare import Compare
from minidiff.train import TrainConfig

TINY = GPTConfig(n_layer=1, n_head=4, n_kv_head=2, head_dim=8, n_embd=16, block_size=32)


def test_the_pair_with_the_median_difference_is_chosen():
    losses = {  # differences -0.3, -0.1, -0.2
        seed: {"diff_v2": [1.0 - gap, 1.2 - gap, 0.9 - gap], "softmax_1.5h": [1.0, 1.2, 0.9]}
        for seed, gap in ((4, 0.3), (7, 0.1), (9, 0.2))
    }
    found = shipped.summary(losses)
    assert found["median_seed"] == 9
    assert found["over_seeds"] == pytest.approx([-0.2, -0.2 - 0.248, -0.2 + 0.248], abs=1e-3)
    assert found["difference"][7][0] == pytest.approx(-0.1)


@pytest.mark.slow
def test_from_runs_to_the_shipped_folder(tmp_path):
    (tmp_path / "text").mkdir()
    for i in range(20):
        (tmp_path / "text" / f"{i}.py").write_text(
            f"def f{i}(x):\n    return x + {i}\n" * 20, encoding="utf-8"
        )
    config = TrainConfig(
        model=TINY, data=str(tmp_path / "text"), out=str(tmp_path / "runs"), steps=3, batch_size=2,
        eval_batches=1,
    )  # fmt: skip
    results = tmp_path / "runs" / "compare.json"
    Compare(config, seeds=(0, 1), results=results, probe_windows=2, keep_weights=True).run()
    shipped.main(tmp_path / "runs", tmp_path / "out")
    found = json.loads((tmp_path / "out" / "held_out.json").read_text(encoding="utf-8"))
    idx, targets = next(open_data(config.data, 257, 32).val.fixed_batches(64, 8, 32))
    for name in shipped.PAIR:
        model = load_run(tmp_path / "out" / name)
        logits, _ = model(idx)
        loss = F.cross_entropy(logits[0], targets[0]).item()
        assert found["window_losses"][name][0] == pytest.approx(loss, abs=2e-5)
    assert len(found["window_losses"]["diff_v2"]) == 512
    weights = load_run(tmp_path / "out" / "diff_v2").embed.weight
    assert torch.equal(weights, weights.bfloat16().float())


def test_a_folder_without_a_pair_is_named(tmp_path):
    with pytest.raises(ValueError, match="no seed has both"):
        shipped.pairs_of_runs(tmp_path)
