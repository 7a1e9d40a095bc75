"""The benchmark of long contexts, at a size that a CPU measures in seconds."""

import json

import pytest

from minidiff.bench import tools
from minidiff.bench.context import ContextBench, context


def test_every_row_is_measured_and_the_cache_is_that_of_theory(tmp_path):
    config = ContextBench(**ContextBench.CPU | {"out": str(tmp_path / "context.json")})
    data = context(config)
    assert (
        json.loads((tmp_path / "context.json").read_text(encoding="utf-8"))["rows"] == data["rows"]
    )
    assert (tmp_path / "context.png").exists()
    rows = data["rows"]
    assert not [row for row in rows if "error" in row]
    assert {row["what"] for row in rows} == {"prefill", "step", "choose", "blocks"}
    assert all(row["ms"] > 0 for row in rows)
    cache = {(row["variant"], row["T"]): row["cache_mb"] for row in rows if "cache_mb" in row}
    size = 2 * 2 * 8 * 4 / 1e6  # of a token in a layer: k and v, h_kv, d, float32
    assert cache["diff_v2", 256] == pytest.approx(2 * (256 + 3) * size)
    assert cache["yoco_diff_v2", 256] == pytest.approx((128 + 256 + 3) * size)


@pytest.mark.slow
def test_queries_that_agree_load_fewer_tiles(tmp_path):
    small = {"contexts": (), "lengths": (1024,), "block": 128, "out": str(tmp_path / "a.json")}
    rows = context(ContextBench(**ContextBench.CPU | small))["rows"]
    tiles = {(row["variant"], row["keys"]): row["tiles"] for row in rows if "tiles" in row}
    assert tiles["sparse_pair", "agree"] < 0.5 < tiles["sparse_pair", "random"] <= 1
    assert tools.defaults(ContextBench).contexts
