"""The page in Chromium: links, pictures, runs of one's own; and that everybody can use it."""

import json
import xml.etree.ElementTree

import pytest
from test_page import PAGE, store

from minidiff.model import GPT, GPTConfig

pytest_plugins = ["page_tools"]  # its fixtures
pytestmark = pytest.mark.slow

AXE = PAGE / "node_modules" / "axe-core" / "axe.min.js"
TABS = "All heads", "Take the wheel", "Step by step", "Write on"


# ---- Sharing, saving, own runs -----------------------------------------------------------------


def test_a_share_link_opens_the_same_view(visit, site):
    page = visit()
    page.get_by_label("Prompt").fill("x = [1, 2]")
    page.settle()
    page.get_by_role("tab", name="Take the wheel").click()
    slider = page.get_by_label("DIFF V2: hold λ at")
    slider.focus()
    page.keyboard.press("End")
    page.settle()
    page.locator(".card.softmax .cell").nth(4).hover()
    page.get_by_role("button", name="Copy link").click()
    page.wait_for_function("() => document.querySelector('.status').textContent.includes('link')")
    other = visit(page.url)
    state = '() => { const { bytes, query, tab, places, wheels } = document.querySelector("main")'
    state += ".minidiff.state; return { bytes, query, tab, places, wheels }; }"
    assert other.evaluate(state) == page.evaluate(state)
    assert other.get_by_label("Prompt").input_value() == "x = [1, 2]"
    assert other.voice("diff_v2", "v.seen.losses") == page.voice("diff_v2", "v.seen.losses")


def test_the_picture_is_saved(visit, tmp_path):
    page = visit()
    for kind, start in (("SVG", b"<svg"), ("PNG", b"\x89PNG")):
        with page.expect_download() as download:
            page.get_by_role("button", name=f"Save {kind}").click()
        path = tmp_path / download.value.suggested_filename
        download.value.save_as(path)
        assert path.read_bytes().startswith(start)
        if kind == "SVG":
            texts = [node.text for node in xml.etree.ElementTree.parse(path).iter()]
            assert "Softmax" in texts and "= A₁ − λA₂" in texts
    assert path.stat().st_size > 10_000


def test_a_run_folder_is_dropped(visit, server, tmp_path):
    config = GPTConfig(n_layer=2, n_head=2, n_kv_head=1, head_dim=16, n_embd=32, block_size=64)
    run = store(GPT(config), tmp_path / "mine")
    for address in (None, server + "/"):
        page = visit(address)
        drop(page, run)
        page.wait_for_function(
            "() => document.querySelector('main').minidiff.voices.some((v) => v.layers === 2)"
        )
        page.settle()
        assert page.voice("diff_v2", "[v.layers, v.heads, v.limit]") == [2, 2, 64]
        assert page.locator(".card.diff_v2 h2").inner_text() == "DIFF V2: mine"
        assert page.locator(".problem").inner_text() == ""
        page.get_by_label("Prompt").fill("y" * 64)
        assert page.locator(".problem").inner_text() == "64 bytes: these models read up to 63"


def test_files_that_are_no_run_of_the_page_get_one_line(visit, tmp_path):
    config = GPTConfig(n_layer=2, n_head=2, n_kv_head=1, head_dim=16, n_embd=32, block_size=64)
    run = store(GPT(config), tmp_path / "mine")
    settings = json.loads((run / "config.json").read_text(encoding="utf-8"))
    settings["model"]["attention"] = "diff_v1"
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    (other / "model.safetensors").write_bytes((run / "model.safetensors").read_bytes())
    page = visit()
    for path, problem in (
        (PAGE / "index.html", "no config.json and no model.safetensors here: give a whole run"),
        (other, 'attention "diff_v1" is not drawn here: the page reads softmax and diff_v2'),
    ):
        drop(page, path)
        page.wait_for_function(
            "(start) => document.querySelector('.problem').textContent.startsWith(start)",
            arg=problem,
        )
        assert "\n" not in page.locator(".problem").inner_text()
    assert page.voice("diff_v2", "v.layers") == 7  # what was there is still there
    page.locator("input[type=file]").set_input_files(
        [run / "config.json", run / "model.safetensors"]
    )
    page.wait_for_function(
        "() => document.querySelector('main').minidiff.voices.some((v) => v.layers === 2)"
    )
    page.settle()
    assert page.locator(".problem").inner_text() == ""


# ---- For everyone ------------------------------------------------------------------------------


@pytest.mark.skipif(not AXE.exists(), reason=f"run `npm ci` in {PAGE} first")
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width, height", [(1280, 720), (640, 360), (390, 844)])
def test_no_barriers_and_nothing_beside_the_screen(visit, width, height, theme):
    page = visit(viewport={"width": width, "height": height}, color_scheme=theme)
    assert page.locator("main").get_attribute("data-theme") == theme
    page.add_script_tag(path=AXE)
    for tab in TABS:
        page.get_by_role("tab", name=tab).click()
        page.settle()
        found = page.evaluate(
            "async () => (await axe.run()).violations.map((v) => [v.id, v.nodes[0].html])"
        )
        assert not found, (tab, found)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, tab
    sliders = page.locator("input[type=range]:visible, .cells:visible")
    assert min(sliders.nth(i).bounding_box()["width"] for i in range(sliders.count())) > 100


@pytest.mark.skipif(not AXE.exists(), reason=f"run `npm ci` in {PAGE} first")
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_formulas_next_door(visit, theme):
    page = visit(offline=True, color_scheme=theme)
    page.get_by_role("link", name="The formulas behind it").click()
    page.wait_for_function("() => document.querySelectorAll('.minidiff-form svg').length === 10")
    page.add_script_tag(path=AXE)
    found = page.evaluate(
        "async () => (await axe.run()).violations.map((v) => [v.id, v.nodes[0].html])"
    )
    assert not found
    assert page.locator(".minidiff-form").first.get_attribute("data-theme") == theme
    page.get_by_role("link", name="The trained models").click()
    page.wait_for_selector(".cell.query")


def test_by_keyboard_alone(visit):
    page = visit()
    page.get_by_label("Prompt").focus()
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.getAttribute('role')") == "tab":
            break
    page.keyboard.press("ArrowRight")
    page.settle()
    assert page.get_by_role("tab", name="Take the wheel").get_attribute("aria-selected") == "true"
    assert page.locator(".wheel").is_visible() and not page.locator(".heads").is_visible()


def drop(page, path):
    """Drop a file or folder on the page, as a file manager does."""
    browser = page.context.new_cdp_session(page)
    data = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        browser.send("Input.dispatchDragEvent", {"type": kind, "x": 500, "y": 300, "data": data})
