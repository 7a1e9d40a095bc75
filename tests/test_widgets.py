"""The explorers' JavaScript agrees with theory.py; the map explorer shows what probe finds."""

import io
import json
import math
import shutil
import subprocess
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from IPython.core.formatters import DisplayFormatter
from PIL import Image

import minidiff
from minidiff import GPT, GPTConfig, data, theory
from minidiff.course import example
from minidiff.look import probe

pytest.importorskip("ipywidgets", reason="the notebook packages are not installed here")

from minidiff.look import widgets

HERE = Path(widgets.__file__).parent


def node():
    """A JavaScript engine: node itself, or the copy that comes with playwright."""
    found = shutil.which("node")
    if found is None:
        playwright = pytest.importorskip("playwright", reason="neither node nor playwright is here")
        found = Path(playwright.__file__).parent / "driver" / "node"
    return str(found)


def javascript(program, inputs):
    """Run theory.js and explorers.js, then the program, which turns `inputs` into a result."""
    source = f"{widgets._CODE}\nconst inputs = {json.dumps(inputs)};\n"
    source += f"console.log(JSON.stringify({program}));"
    command = [node(), "--input-type=module", "-"]
    done = subprocess.run(command, input=source, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


# ---- theory.js is theory.py --------------------------------------------------------------------


def peaked_rows(case):
    """The two softmax rows (n,) float64 that the RMS explorer describes, written out in full."""
    logits = torch.zeros(2, case["n"], dtype=torch.float64)
    logits[0, 0] = case["gap1"]
    logits[1, 0 if case["same"] else 1] = case["gap2"]
    return logits.softmax(-1)


def test_rms_and_effective_tokens_agree_with_python():
    rng = np.random.default_rng(0)
    cases = [
        {
            "n": int(2 ** rng.uniform(1, 12)),
            "gap1": rng.uniform(0, 14),
            "gap2": rng.uniform(0, 14),
            "lam": rng.uniform(),
            "rho": rng.uniform(),
            "same": bool(rng.integers(2)),
        }
        for _ in range(200)
    ]
    program = """inputs.map((s) => {
        const row = differenceRow(s.n, s.gap1, s.gap2, s.lam, s.same);
        const a1 = differenceRow(s.n, s.gap1, s.gap2, 0, s.same);
        return [expectedRms(row, s.rho), sumOver(row, (w) => w), effectiveTokens(a1)];
    })"""
    for case, (rms, total, tokens) in zip(cases, javascript(program, cases), strict=True):
        a1, a2 = peaked_rows(case)
        row = a1 - case["lam"] * a2
        # float64 rounding over up to 4096 terms: well under 1e-9
        assert rms == pytest.approx(float(theory.expected_rms(row, case["rho"])), rel=1e-9)
        assert total == pytest.approx(1 - case["lam"], abs=1e-12)
        assert tokens == pytest.approx(float(theory.effective_tokens(a1)), rel=1e-9)


def test_bounds_agree_with_python():
    rng = np.random.default_rng(1)
    cases = [[int(2 ** rng.uniform(0, 14)), rng.uniform(), rng.uniform()] for _ in range(100)]
    program = """inputs.map(([n, lam, rho]) =>
        [rmsBounds(n), rmsBounds(n, lam), rmsBounds(n, null, rho), rmsBounds(n, lam, rho)])"""
    for (n, lam, rho), found in zip(cases, javascript(program, cases), strict=True):
        softmax, diff, softmax_rho, diff_rho = found
        assert softmax == pytest.approx(theory.rms_bounds(n), rel=1e-9)
        assert diff == pytest.approx(theory.rms_bounds(n, lam), rel=1e-9)
        # rows at the ends of what is possible, and what the theorem says of them
        uniform, peak = torch.full((n,), 1 / n, dtype=torch.float64), torch.eye(n, 1)[:, 0].double()
        other = torch.roll(peak, 1) if n > 1 else peak
        rows = [uniform, peak, (1 - lam) * uniform, peak - lam * other]
        expected = [float(theory.expected_rms(row, rho)) for row in rows]
        assert [*softmax_rho, *diff_rho] == pytest.approx(expected, rel=1e-9)


def test_costs_agree_with_python():
    rng = np.random.default_rng(2)
    cases = []
    for _ in range(100):
        n_kv_head = int(rng.integers(1, 9))
        n_head = n_kv_head * int(rng.integers(1, 9))
        sizes = 64 * int(rng.integers(1, 100)), n_head, n_kv_head, 2 * int(rng.integers(1, 129))
        cases.append([*sizes, int(rng.integers(1, 10**6))])
    program = """inputs.map(([D, h, hKv, d, n]) => [
        attentionParams(D, h, hKv, d), attentionParams(D, h, hKv, d, true),
        saved(D, h, hKv, d), decodeAttentionCost(n, h, hKv, d)])"""
    for case, found in zip(cases, javascript(program, cases), strict=True):
        *shape, n = case
        assert found[0] == theory.attention_params(*shape)
        assert found[1] == theory.attention_params(*shape, diff_v2=True)
        assert found[2] == pytest.approx(theory.saved_against_2h_heads(*shape), rel=1e-9, abs=1e-12)
        assert tuple(found[3]) == theory.decode_attention_cost(n, *shape[1:])


def test_the_published_size_shows_22_percent():
    # FACTS: D=4096, h=32, h_kv=8, d=128 saves 22.05% against 2h heads and adds 40.3% against h
    words = javascript("cost.draw(shape(32, 8, 128, 4096, 8192))", None)
    assert "22.05% fewer" in words and "40.31% more" in words


SCORES = [f"{token}{query}" for query in "12" for token in "abc"]


def test_the_difference_of_three_tokens_is_that_of_the_package():
    rng = np.random.default_rng(4)
    cases = [dict(zip([*SCORES, "lam"], rng.uniform(-6, 6, 7), strict=True)) for _ in range(100)]
    cases = [case | {"lam": rng.uniform()} for case in cases]
    for case, found in zip(cases, javascript("inputs.map(differenceOfThree)", cases), strict=True):
        logits = torch.tensor(
            [[case[key] for key in SCORES[:3]], [case[key] for key in SCORES[3:]]]
        )
        maps = logits.double().softmax(-1)
        logit = torch.logit(torch.tensor(case["lam"]))[None, None, None]
        w = minidiff.differential(maps[None, None], logit)[0, 0, 0]
        for name, expected in (("a1", maps[0]), ("a2", maps[1]), ("w", w)):
            assert found[name] == pytest.approx(expected.tolist(), abs=1e-6)


def test_the_first_scene_and_the_start_are_the_courses_example():
    start = widgets.difference_explorer().start
    scene = javascript("EXPLORERS.difference.scenes['Noise in both']", None)
    scores = [*example.SCORES_1.tolist(), *example.SCORES_2.tolist()]
    expected = dict(zip(SCORES, scores, strict=True)) | {"lam": example.LAM}
    assert start == pytest.approx(expected) and scene == pytest.approx(expected)
    drawing = javascript("EXPLORERS.difference.draw(inputs)", start)
    for number in ("0.25", "0.375", "0.125", "1 − λ = 0.5", "<b>50%</b>", "<b>75%</b>"):
        assert number in drawing
    bars = [
        bar.get_height() for ax in widgets.difference_figure(**start).axes for bar in ax.patches
    ]
    rows = example.A1, example.LAM * example.A2, example.W
    assert bars == pytest.approx(torch.cat(rows).tolist())


# ---- the explorers in the browser --------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "says"),
    [
        ({"n": 1}, "n must be"),
        ({"n": 2.5}, "n must be"),
        ({"lam": 1.5}, "λ must be"),
        ({"lam": math.inf}, "λ must be"),
        ({"rho": -0.1}, "ρ must be"),
        ({"gap1": "sharp"}, "logit gap"),
        ({}, None),
    ],
)
def test_the_rms_explorer_says_what_is_wrong(start, says):
    given = widgets.rms_explorer().start | start
    given = {k: "Infinity" if v == math.inf else v for k, v in given.items()}  # as it is typed
    problem = javascript("rms.check(inputs)", given)
    assert problem is None if says is None else says in problem


@pytest.mark.parametrize(
    ("start", "says"),
    [
        ({"n_head": 12, "n_kv_head": 8}, "h = 12 must be a multiple of h_kv = 8"),
        ({"head_dim": 33}, "d = 33 must be even"),
        ({"n_embd": 0}, "D must be"),
        ({"n_keys": 1.5}, "n must be"),
        ({}, None),
    ],
)
def test_the_cost_explorer_says_what_is_wrong(start, says):
    problem = javascript("cost.check(inputs)", widgets.cost_explorer().start | start)
    assert problem is None if says is None else says in problem


@pytest.mark.parametrize(
    ("start", "says"),
    [
        ({"lam": -0.1}, "λ must be"),
        ({"b2": 7}, "score of B, query 2: a number from −6 to 6"),
        ({"a1": "high"}, "score of A, query 1"),
        ({}, None),
    ],
)
def test_the_difference_explorer_says_what_is_wrong(start, says):
    given = widgets.difference_explorer().start | start
    problem = javascript("EXPLORERS.difference.check(inputs)", given)
    assert problem is None if says is None else says in problem


def test_drawings_hold_no_number_that_is_none():
    rng = np.random.default_rng(3)
    rms = [
        {"n": int(n), "gap1": g1, "gap2": g2, "lam": lam, "rho": rho, "same": same}
        for n in (2, 3, 16384)
        for g1, g2 in ((0, 0), (14, 14), (14, 0))
        for lam, rho in ((0, 0), (1, 0), (1, 1), (0.5, float(rng.uniform())))
        for same in (True, False)
    ]
    cost = [[1, 1, 2, 1, 1], [512, 512, 1024, 65536, 2**24]]
    tokens = [dict.fromkeys(SCORES, score) | {"lam": lam} for score in (-6, 6) for lam in (0, 1)]
    program = """[...inputs[0].map(rms.draw), ...inputs[1].map((s) => cost.draw(shape(...s))),
        ...inputs[2].map((s) => EXPLORERS.difference.draw(s))]"""
    for drawing in javascript(program, [rms, cost, tokens]):
        assert "NaN" not in drawing and "undefined" not in drawing and "Infinity" not in drawing


@pytest.mark.slow
def test_the_bundle_carries_a_page_that_needs_no_kernel():
    explorers = widgets.rms_explorer(n=64), widgets.cost_explorer(), widgets.difference_explorer()
    for explorer in explorers:
        bundle, _ = DisplayFormatter().format(explorer)
        assert set(bundle) == {"text/plain", "text/html"}  # no widget: that would need its kernel
        page = bundle["text/html"]
        assert "data:image/png;base64," in page and "explore(el" in page
        assert "http:" not in page.replace("http://www.w3.org", "") and "https:" not in page
        assert page == explorer._repr_html_()  # the same bytes each time


@pytest.mark.parametrize("start", [{"lam": 2}, {"n": 0}, {"n": 1, "same": False}, {"gap1": "x"}])
def test_a_wrong_start_is_left_to_the_explorer(start):
    open_figures = plt.get_fignums()
    page = widgets.rms_explorer(**start)._repr_html_()
    assert plt.get_fignums() == open_figures  # a notebook would show it
    assert "explore(el" in page


def test_the_figures_show_the_numbers_of_the_theory():
    fig = widgets.rms_figure(n=256, gap1=5, gap2=4, lam=0.5, rho=0.2, same=False)
    a1, a2 = peaked_rows({"n": 256, "gap1": 5, "gap2": 4, "same": False})
    points = [
        float(line.get_ydata()[0]) for line in fig.axes[1].lines if len(line.get_xdata()) == 1
    ]
    expected = [float(theory.expected_rms(w, 0.2)) for w in (a1, a1 - 0.5 * a2)]
    assert points == pytest.approx(expected, rel=1e-6)
    widths = [bar.get_width() for bar in widgets.cost_figure().axes[0].patches]
    assert widths == pytest.approx([41.94304, 58.720256, 75.497472, 58.851328], rel=1e-9)


def test_no_dot_hides_the_other():  # one flat map subtracted from a sharp one: the same RMS
    fig = widgets.rms_figure(n=64, gap1=4, gap2=0, lam=0.5)
    dots = [line for line in fig.axes[1].lines if len(line.get_xdata()) == 1]
    heights = [float(dot.get_ydata()[0]) for dot in dots]
    assert heights[1] == pytest.approx(heights[0], rel=0.06)
    assert dots[0].get_markersize() > 1.5 * dots[1].get_markersize()  # the later one lies on top


def test_the_cost_of_decoding_names_the_cache():
    for n_keys in (8192, 100):
        axes = widgets.cost_figure(n_keys=n_keys).axes
        named = [f"{n_keys} tokens in the cache" in ax.get_xlabel() for ax in axes]
        assert named == [False, True, True]  # weights have none


# ---- the map explorer --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def models():
    torch.manual_seed(0)
    wide = {"softmax": GPT(GPTConfig(attention="softmax", n_head=6, n_layer=2))}
    return {"DIFF V2": GPT(GPTConfig(n_layer=3)), **wide}


def drawn_map(explorer, i):
    return np.asarray(explorer.figure.axes[i].images[0].get_array().filled(0))


@pytest.mark.slow
def test_the_map_explorer_shows_the_maps_of_the_probe(models):
    text = "def f(x)"
    explorer = widgets.map_explorer(models, text)
    views = probe.attention_maps(models["DIFF V2"], data.encode(text))
    explorer.layer.value, explorer.head.value = 2, 3
    view = views[2]
    for i, expected in enumerate((view.a1, view.a2, view.weights)):
        assert np.array_equal(drawn_map(explorer, i), expected[3].numpy())
    heights = [bar.get_height() for bar in explorer.figure.axes[3].patches]
    assert heights == pytest.approx(view.lam[:, 3].tolist())
    explorer.model.value = "softmax"
    assert explorer.layer.max == 1 and explorer.layer.value == 1 and explorer.head.max == 5
    explorer.head.value = 5
    views = probe.attention_maps(models["softmax"], data.encode(text))
    assert np.array_equal(drawn_map(explorer, 0), views[1].weights[5].numpy())


@pytest.mark.slow
def test_a_slider_changes_the_picture_and_nothing_else_of_the_figure(models):
    explorer = widgets.map_explorer(models["DIFF V2"], "for i in x")
    figure, before = explorer.figure, explorer.picture.value
    explorer.layer.value = 1
    after = explorer.picture.value
    assert explorer.figure is figure and after != before
    old, new = (np.asarray(Image.open(io.BytesIO(p))).astype(int) for p in (before, after))
    assert old.shape == new.shape
    changed = np.abs(old - new).any(-1)
    assert 0 < changed.mean() < 0.3  # the maps, the bars and the title
    explorer.layer.value = 0
    assert explorer.picture.value == before


@pytest.mark.slow
def test_a_prompt_that_does_not_fit_gets_a_red_line():
    explorer = widgets.map_explorer(GPT(GPTConfig(n_layer=1, block_size=16)), "abc")
    picture = explorer.picture.value
    for text, says in (("", "0 bytes"), ("x" * 16, "16 bytes of text: type 1 to 15")):
        explorer.prompt.value = text
        assert says in explorer.message.value and "#b00020" in explorer.message.value
        assert explorer.picture.value == picture
    explorer.prompt.value = "x" * 15
    assert "bytes" not in explorer.message.value
    assert len(drawn_map(explorer, 0)) == 16


def test_a_model_with_other_tokens_gets_a_red_line():
    model = GPT(GPTConfig(n_layer=1, vocab_size=100))
    explorer = widgets.map_explorer(model, "abc")
    assert "not bytes" in explorer.message.value
