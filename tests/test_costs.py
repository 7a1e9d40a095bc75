"""Costs of notebook 06: read as the benches wrote them, and drawn as they are."""

import re

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import pytest
from matplotlib.text import Text

from minidiff.course import costs
from minidiff.study.evidence import RESULTS, load

BENCH = {name: load(RESULTS / f"bench_{name}.json") for name in ("pair", "decode")}
ROOFLINE = load(RESULTS / "roofline.json")


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def test_a_card_is_named_however_the_file_names_its_machine():
    assert costs.card({"machine": "NVIDIA H200"}) == "H200"
    assert costs.card({"machine": {"device": "NVIDIA H100 80GB HBM3"}}) == "H100"


def test_extra_time_of_speeds_and_of_times_are_not_mixed_up():
    row = {"vs_softmax_1.5h": 0.8, "vs_softmax_1.5h_low": 0.5, "vs_softmax_1.5h_high": 1.0}
    assert costs.extra_time(row) == pytest.approx((25, 0, 100))  # slowest round: twice the time
    row = {"vs_softmax_h": 1.1, "vs_softmax_h_low": 1.0, "vs_softmax_h_high": 1.3}
    assert costs.extra_time(row, "softmax_h", speed=False) == pytest.approx((10, 0, 30))


def test_a_slower_step_in_ms_is_one_with_extra_time():
    rows = {(row["size"], row["variant"]): row for row in BENCH["pair"]["rows"]}
    for size, label in costs.SIZES.items():
        fused = "pair" if size == "1b_layers" else "diff_v2"  # not taken by auto at d = 128
        for way, name in (("fused pair", fused), ("two steps", "two_steps")):
            ms = rows[size, name]["ms"] / rows[size, "softmax_1.5h"]["ms"]
            found = costs.training_costs(BENCH["pair"])[label][way][0]
            assert found == pytest.approx(100 * (ms - 1), abs=1)  # medians of ratios, of times


def test_the_parts_of_a_step_make_the_step():
    """And every group of kernels belongs to one part."""
    found = costs.profiled_steps(ROOFLINE)
    ms = {(row["size"], row["variant"]): row["ms"] for row in BENCH["pair"]["rows"]}
    for size, steps in found.items():
        assert list(steps) == ["softmax 1.5h", "softmax, pair's code", "fused pair", "two steps"]
        for label, parts in steps.items():
            assert list(parts) == list(costs.PARTS)
            assert min(parts.values()) >= 0, label
        assert sum(steps["two steps"].values()) == pytest.approx(ms[size, "two_steps"], 1e-3)
    kinds = {group: costs.KINDS[group.replace(",", "").split()[0]] for group in ROOFLINE["groups"]}
    assert set(kinds.values()) == set(costs.PARTS) - {"in no kernel"}
    assert kinds["norms and residual, backward"] == kinds["subtraction"] == "element by element"


def test_the_tables_of_the_readme_are_the_files():
    readme = (RESULTS.parents[1] / "README.md").read_text(encoding="utf-8")
    pair, flash4 = (
        {(row["size"], row["variant"]): row for row in load(RESULTS / f"{name}.json")["rows"]}
        for name in ("bench_pair", "bench_pair_flash4")
    )
    for size, begin in (
        ("25m", "25M,"),
        ("350m", "350M*,"),
        ("1b_layers", "layers of a 1B model,"),
    ):
        (line,) = re.findall(rf"^\| {re.escape(begin)}.*", readme, re.MULTILINE)
        fused = "pair" if size == "1b_layers" else "diff_v2"
        expected = [
            pair[size, name]["vs_softmax_1.5h"] for name in ("softmax_h", "two_steps", fused)
        ]
        expected += [flash4[size, name]["vs_softmax_1.5h"] for name in ("two_steps", "pair")]
        found = [float(re.match(r" ([\d.]+)", cell)[1]) for cell in line.split("|")[3:-1]]
        assert found == [round(x, 2) for x in expected]
    settings = {what: costs.by_setting(BENCH["decode"], what) for what in ("attention", "step")}
    lines = re.findall(r"^\| (\d+) x (\d+)k \| (.*) \|$", readme, re.MULTILINE)
    assert len(lines) == 8
    for batch, context, cells in lines:
        alone, step = (of[int(batch), 1024 * int(context)] for of in settings.values())
        found = [float(re.match(r"[\d.]+", cell)[0]) for cell in cells.split(" | ")]
        assert found == [
            round(alone["diff_v2"]["vs_softmax_h"], 2), round(100 * alone["diff_v2"]["of_copy"]),
            *(round(row["vs_softmax_h"], 2) for row in (alone["diff_v1"], step["diff_v2"])),
            round(step["diff_v1"]["vs_softmax_h"], 2),
        ]  # fmt: skip


def test_one_row_of_a_setting_is_that_of_our_kernel_and_of_the_way_asked_for():
    step = {"batch": 1, "context": 2048, "variant": "diff_v2", "what": "step", "ms": 1.0}
    step |= {"how": "modules", "kernel": "modules"}
    fused = {key: step[key] for key in step if key != "kernel"} | {"how": "fused"}
    alone = {key: step[key] for key in step if key != "how"} | {"what": "attention"}
    failed = {key: step[key] for key in step if key != "ms"} | {"context": 4096, "error": "memory"}
    alone, others = alone | {"kernel": "cached"}, [alone | {"kernel": "sdpa"}, failed]
    rows = {"rows": [step, fused, alone, *others, step | {"what": "copy"}]}
    for what, row in (("step", step), ("fused", fused), ("attention", alone)):
        assert costs.by_setting(rows, what) == {(1, 2048): {"diff_v2": row}}
    assert list(costs.writing_costs(BENCH["decode"]))[:2] == ["1 × 2k", "1 × 8k"]


def all_figures():
    training = costs.training_costs(BENCH["pair"])
    writing = costs.writing_costs(BENCH["decode"])
    rows = [found["diff_v2"] for found in costs.by_setting(BENCH["decode"], "attention").values()]
    profiled = costs.profiled_steps(ROOFLINE)
    return {
        "answer": costs.answer(training, writing, ["Training on an H200", "Writing on an H200"]),
        "roofline": costs.roofline(rows, 989e12, 4.2e12, "H200"),
        "steps": costs.measured_steps(profiled),
    }


@pytest.mark.slow
def test_every_panel_says_what_it_shows_in_which_unit_and_is_legible():
    for name, fig in all_figures().items():
        for ax in fig.axes:
            assert ax.get_title() and ax.get_xlabel(), name
            assert any(unit in ax.get_xlabel() for unit in ("%", "ms", "per byte")), name
            assert len(ax.get_yticks()), f"{name} has no y axis"
        fig.draw_without_rendering()
        words = [text for text in fig.findobj(Text) if text.get_text() and text.get_visible()]
        assert min(text.get_fontsize() for text in words) >= 13, name


def test_the_bars_are_the_numbers():
    training = {"25M": {"two steps": (20, 19, 21), "fused pair": (10, 9, 11)}}
    writing = {"1 × 2k": ((12, 11, 13), (1, 0, 2))}
    left, right = costs.answer(training, writing, ["a", "b"]).axes
    assert [bar.get_width() for bar in left.patches] == [20, 10]
    assert [bar.get_width() for bar in right.patches] == [12]
    assert {text.get_text() for text in left.texts} == {"20%, two steps", "10%, fused pair"}
    parts = dict(zip(costs.PARTS, (1, 2, 3, 4, 5), strict=True))
    (ax,) = costs.measured_steps({"25m": {"softmax": parts}}).axes
    assert [(bar.get_x(), bar.get_width()) for bar in ax.patches] == [
        (0, 1), (1, 2), (3, 3), (6, 4), (10, 5)
    ]  # fmt: skip
