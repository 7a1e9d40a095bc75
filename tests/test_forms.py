"""look.forms: the closed-form explorers, in Chromium as an exported page has them."""

import json
import re
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest

pytest.importorskip("anywidget", reason="the notebook packages are not installed here")

from test_page import PAGE

from minidiff.look import forms

pytest_plugins = ["page_tools"]
AXE = PAGE / "node_modules" / "axe-core" / "axe.min.js"
ALL = [
    forms.difference_explorer,
    forms.rms_explorer,
    forms.cost_explorer,
    forms.hull_explorer,
    forms.pairs_explorer,
]


@pytest.mark.parametrize("explorer", ALL)
def test_a_notebook_stores_a_picture_and_the_program(explorer):
    shown = explorer()._repr_html_()
    assert '<img alt="' in shown and "minidiffForms.open(el)" in shown
    assert not hasattr(explorer(), "_repr_mimebundle_")  # no widget: nothing to be lost
    assert len(shown) < 150_000


def test_stored_notebooks_hold_the_program_of_today():
    bundle = forms.BUNDLE.read_text(encoding="utf-8")
    for path in sorted((PAGE.parents[2] / "notebooks").glob("*.ipynb")):
        outputs = [
            output.get("data", {}).get("text/html", "")
            for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]
            for output in cell.get("outputs", [])
        ]
        alive = ["".join(html) for html in outputs if "minidiffForms.open(el)" in "".join(html)]
        old = [html for html in alive if bundle not in html]
        assert not old, f"an explorer in {path.name} is old: notebooks/build.py {path.stem}"


@pytest.mark.parametrize(
    "wrong, problem",
    [
        (lambda: forms.rms_explorer(n=0), "n=0 must be a whole number from 2 to 16384"),
        (lambda: forms.rms_explorer(n=10**9), "n=1000000000 must be a whole number from 2"),
        (lambda: forms.rms_explorer(gap1="x"), "gap1='x' must be a number from 0 to 14"),
        (lambda: forms.rms_explorer(rho=float("nan")), "rho=nan must be"),
        (lambda: forms.difference_explorer(scores1=(0, 1)), "must be three numbers each"),
        (lambda: forms.difference_explorer(scores2=(0, 7, 0)), "b2=7 must be a number from -6"),
        (lambda: forms.cost_explorer(n_keys=2**25), "n_keys=33554432 must be a whole number"),
        (lambda: forms.cost_explorer(n_head=6, n_kv_head=4), "n_kv_head=4 must divide n_head=6"),
        (lambda: forms.hull_explorer(lam=1.5), "lam=1.5 must be a number from 0 to 1"),
        (lambda: forms.hull_explorer(a1=(0.5, 0.6, 0)), "a1=.* must be three weights"),
        (lambda: forms.pairs_explorer(n_head=4, n_kv_head=3), "n_kv_head=3 must divide 2 n_head"),
    ],
)
def test_what_makes_no_sense_is_refused(wrong, problem):
    open_figures = plt.get_fignums()
    with pytest.raises(ValueError, match=problem) as found:
        wrong()
    assert "\n" not in str(found.value)
    assert plt.get_fignums() == open_figures  # a notebook would show it


def test_numpys_numbers_are_numbers():
    shown = forms.rms_explorer(n=np.int64(64), lam=np.float32(0.5))._repr_html_()
    assert "&quot;n&quot;: 64, " in shown and "&quot;lam&quot;: 0.5" in shown


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """All explorers on one page, in a file."""
    bodies = "".join(explorer()._repr_html_() for explorer in ALL)
    head = '<!doctype html><html lang="en"><meta charset="utf-8"><title>t</title>'
    path = tmp_path_factory.mktemp("forms") / "page.html"
    path.write_text(f"{head}<main><h1>Explorers</h1>{bodies}</main>", encoding="utf-8")
    return path.as_uri()


@pytest.fixture
def page(browser, address):
    """That page, opened with no network."""
    context = browser.new_context(offline=True, viewport={"width": 1092, "height": 720})
    page, problems = context.new_page(), []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(address)
    page.wait_for_function("() => document.querySelectorAll('.minidiff-form svg').length === 10")
    yield page
    context.close()
    assert not problems


def one(page, name):
    return page.get_by_role("group", name=name)


@pytest.mark.slow
def test_sliders_and_boxes(page):
    rms = one(page, "Context RMS explorer")
    lam = rms.get_by_label("λ", exact=True)
    lam.focus()
    page.keyboard.press("ArrowRight")
    assert rms.get_by_label("λ, as a number").input_value() == "0.52"
    assert lam.get_attribute("aria-valuetext") == "0.52"
    box = rms.get_by_label("λ, as a number")
    box.fill("0,25")  # a decimal comma is understood
    assert lam.get_attribute("aria-valuetext") == "0.25"
    n = rms.get_by_label("n, tokens seen", exact=True)
    n.focus()
    page.keyboard.press("End")
    assert n.get_attribute("aria-valuetext") == "16,384"
    assert "n = 16,384" in rms.locator("svg").first.text_content()


@pytest.mark.slow
def test_bad_text_stays_until_it_is_mended(page):
    rms = one(page, "Context RMS explorer")
    box, problem = rms.get_by_label("n, tokens seen, as a number"), rms.locator(".problem")
    box.fill("many")
    assert problem.inner_text() == "n, tokens seen: a whole number from 2 to 16,384"
    lam = rms.get_by_label("λ", exact=True)
    lam.focus()
    page.keyboard.press("ArrowRight")  # another control moves: the text is not touched
    assert box.input_value() == "many" and problem.inner_text()
    box.fill("300")
    assert problem.inner_text() == "" and "n = 300" in rms.locator("svg").first.text_content()


@pytest.mark.slow
def test_the_cost_explorer_steps_through_what_is_possible(page):
    cost = one(page, "Cost explorer")
    heads = cost.get_by_label("h, output heads", exact=True)
    heads.focus()
    for wanted in ("40", "48", "56"):  # multiples of h_kv = 8
        page.keyboard.press("ArrowRight")
        assert cost.get_by_label("h, output heads, as a number").input_value() == wanted
        assert cost.locator(".problem").inner_text() == ""


@pytest.mark.slow
def test_values_are_dragged_by_mouse_and_by_key(page):
    hull = one(page, "Three values")
    value = hull.get_by_role("slider", name="value of token A")
    before = value.get_attribute("aria-valuetext")
    value.scroll_into_view_if_needed()
    x, y, width, height = value.bounding_box().values()
    page.mouse.move(x + width / 2, y + height / 2)
    page.mouse.down()
    page.mouse.move(x + 60, y - 30, steps=4)
    page.mouse.up()
    dragged = value.get_attribute("aria-valuetext")
    assert dragged != before
    value.focus()
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")  # the focus stays, though the picture is drawn anew
    numbers = [float(word) for word in re.findall(r"-?[\d.]+", dragged)]
    after = [float(word) for word in re.findall(r"-?[\d.]+", value.get_attribute("aria-valuetext"))]
    assert after == pytest.approx([numbers[0], numbers[1] + 0.1], abs=0.011)
    hull.get_by_role("button", name="Softmax: λ = 0").click()
    assert hull.get_by_label("λ", exact=True).get_attribute("aria-valuetext") == "0"


@pytest.mark.slow
def test_the_wrong_pairing_is_seen_unless_there_is_one_key_value_head(page):
    pairs = one(page, "Pairing of heads")
    assert pairs.locator(".arc.wrong").count() == 0
    pairs.get_by_label("the known mistake").check()
    assert pairs.locator(".arc.wrong").count() == 4
    pairs.get_by_role("button", name="One key/value head hides it").click()
    assert pairs.locator(".arc.wrong").count() == 0
    assert "cannot be seen" in pairs.locator(".told").inner_text()


TOUCHING = (
    (Path(__file__).parent / "js" / "touching.mjs")
    .read_text(encoding="utf-8")
    .replace("export ", "")
)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["difference", "rms", "cost", "hull", "pairs"])
def test_labels_do_not_touch_and_stay_in_the_picture(page, name):
    page.add_script_tag(path=forms.BUNDLE)
    found = page.evaluate(f"({TOUCHING})('{name}', 150)")
    assert found["states"] == 150 and not found["touching"]


@pytest.mark.slow
@pytest.mark.skipif(not AXE.exists(), reason=f"run `npm ci` in {PAGE} first")
@pytest.mark.parametrize("width", [1092, 640, 390])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_no_barriers_and_no_slider_without_room(page, width, theme):
    page.set_viewport_size({"width": width, "height": 720})
    page.evaluate(
        "(theme) => document.querySelectorAll('.minidiff-form').forEach("
        "(el) => (el.dataset.theme = theme))",
        theme,
    )
    page.add_script_tag(path=AXE)
    found = page.evaluate(
        "async () => (await axe.run()).violations.map((v) => [v.id, v.nodes[0].html])"
    )
    assert not found
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    sliders = page.locator("input[type=range]")
    assert min(sliders.nth(i).bounding_box()["width"] for i in range(sliders.count())) > 90
    if width == 1092:  # what JupyterLab leaves of 1280 x 720
        heights = page.evaluate(
            "[...document.querySelectorAll('.minidiff-form')].map((el) => el.scrollHeight)"
        )
        assert max(heights) <= 600
