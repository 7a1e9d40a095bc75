"""The explorers in a real browser: in JupyterLab with a kernel, and in a page that has none."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

WHY = "the notebook packages are not installed here"
nbformat = pytest.importorskip("nbformat", reason=WHY)
pytest.importorskip("jupyterlab", reason=WHY)
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed here")

from minidiff.look import widgets  # noqa: E402

pytestmark = pytest.mark.slow

SLIDER = ".minidiff input[type=range][data-key=lam]"
PICTURE = "() => document.querySelector('.minidiff svg')?.outerHTML"
KERNEL_READY = """() => {
    const context = window.jupyterapp?.shell.currentWidget?.sessionContext;
    return context?.isReady && context.session?.kernel?.status === "idle";
}"""
TOKEN = "a-token-for-this-test"
TIMEOUT = 60_000  # milliseconds, of every single wait


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        own = playwright.chromium.executable_path
        names = "chromium", "chromium-browser", "google-chrome"
        program = next(filter(None, map(shutil.which, names)), own)
        if not Path(program).exists():
            pytest.skip("no Chromium here: install it, or run `playwright install chromium`")
        running = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield running
        running.close()


def stored_notebook():
    """A notebook as build.py leaves it: a cell with an explorer's page."""
    source = "from minidiff.look import widgets\n\nwidgets.rms_explorer()"
    explorer = widgets.rms_explorer()
    data = {"text/plain": repr(explorer), "text/html": explorer._repr_html_()}
    output = nbformat.v4.new_output("execute_result", data=data, execution_count=1)
    cell = nbformat.v4.new_code_cell(source, execution_count=1, outputs=[output])
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return nbformat.v4.new_notebook(cells=[cell], metadata={"kernelspec": kernel})


def press_right(page):
    """Move the lambda slider one step by keyboard; what its box and the picture say then."""
    before = page.evaluate(PICTURE)
    page.locator(SLIDER).focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function(f"before => ({PICTURE})() !== before", arg=before, timeout=TIMEOUT)
    return page.locator(".minidiff input[type=text][data-key=lam]").input_value()


# ---- An exported page --------------------------------------------------------------------------


@pytest.fixture
def exported(browser, tmp_path):
    """The notebook as HTML, opened from a file with no network, with a list of page errors."""
    nbconvert = pytest.importorskip("nbconvert", reason=WHY)
    notebook = stored_notebook()
    notebook.cells += stored_notebook().cells  # two on one page must not disturb each other
    html, _ = nbconvert.HTMLExporter().from_notebook_node(notebook)
    (tmp_path / "page.html").write_text(html)
    context = browser.new_context(offline=True)
    page = context.new_page()
    page.problems = []
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.goto((tmp_path / "page.html").as_uri(), wait_until="domcontentloaded")
    page.wait_for_function("() => document.querySelectorAll('.minidiff svg').length === 2")
    yield page
    context.close()


def test_an_exported_page_is_alive_without_kernel_or_network(exported):
    page = exported
    first, second = (page.locator(".minidiff").nth(i) for i in range(2))
    untouched = second.locator("svg").inner_html()
    first.locator("[data-key=lam]").first.focus()
    before = first.locator("svg").inner_html()
    page.keyboard.press("ArrowRight")
    assert first.locator("input[type=text][data-key=lam]").input_value() == "0.52"
    assert first.locator("svg").inner_html() != before
    assert second.locator("svg").inner_html() == untouched
    ours = [problem for problem in page.problems if "minidiff" in problem or "explore" in problem]
    assert not ours


def test_wrong_input_gets_a_red_line_and_the_picture_waits(exported):
    explorer = exported.locator(".minidiff").first
    box, message = explorer.locator("input[type=text][data-key=n]"), explorer.locator(".message")
    before = explorer.locator("svg").inner_html()
    for typed in ("0", "1e9", "many", "", "3.5"):
        box.fill(typed)
        assert message.inner_text() == "n must be a whole number from 2 to 16384"
        assert explorer.locator("svg").inner_html() == before
        assert box.input_value() == typed  # what the reader types is not rewritten
    assert message.evaluate("node => getComputedStyle(node).color") == "rgb(176, 0, 32)"
    box.fill("300")
    assert message.inner_text() == "" and "n = 300" in explorer.locator("svg").inner_html()


@pytest.mark.parametrize("width", [390, 768, 900, 1280])
def test_explorers_fold_and_fit(browser, tmp_path, width):
    """JupyterLab leaves 608 px of a 1280x720 screen; a phone must not scroll sideways."""
    makers = widgets.difference_explorer, widgets.rms_explorer, widgets.cost_explorer
    for make in makers:
        (tmp_path / "one.html").write_text(f"<meta charset='utf-8'>{make()._repr_html_()}")
        page = browser.new_page(viewport={"width": width, "height": 620})
        page.goto((tmp_path / "one.html").as_uri())
        page.wait_for_selector(".minidiff svg")
        height, sliders = page.evaluate(
            """() => {
                const ranges = [...document.querySelectorAll("input[type=range]")];
                return [document.querySelector(".minidiff").offsetHeight,
                    ranges.map((one) => one.offsetWidth)];
            }"""
        )
        assert min(sliders) > 70, make
        assert height <= 600 or width < 900, make
        sideways = page.evaluate("() => document.documentElement.scrollWidth - innerWidth")
        assert sideways <= 0, make
        page.close()


def test_a_decimal_comma_and_half_typed_numbers_are_understood(exported):
    explorer = exported.locator(".minidiff").first
    box = explorer.locator("input[type=text][data-key=lam]")
    box.fill("0,25")
    assert explorer.locator("input[type=range][data-key=lam]").get_attribute("aria-valuetext") == (
        "0.25"
    )
    box.fill("many")
    explorer.locator("input[type=range][data-key=n]").focus()
    exported.keyboard.press("ArrowRight")
    assert box.input_value() == "many"  # and not NaN


def test_a_scene_sets_all_controls(exported):
    explorer = exported.locator(".minidiff").first
    explorer.get_by_text("Two different tokens").click()
    assert explorer.locator("input[type=text][data-key=lam]").input_value() == "1"
    assert not explorer.locator("input[type=checkbox]").is_checked()
    # two disjoint, almost one-hot maps at lambda = 1: the upper end, sqrt(2)
    assert "1.41" in explorer.locator("table").inner_text()


def test_a_move_takes_under_30_milliseconds(exported):
    times = exported.evaluate(
        """() => {
            const slider = document.querySelector(".minidiff input[type=range][data-key=lam]");
            const timed = (value) => {
                const began = performance.now();
                slider.value = value;
                slider.dispatchEvent(new Event("input", { bubbles: true }));
                document.body.offsetHeight;  // lay the new picture out
                return performance.now() - began;
            };
            return Array.from({ length: 40 }, (_, i) => timed(i));
        }"""
    )
    assert sorted(times)[len(times) // 2] < 30, times


# ---- JupyterLab --------------------------------------------------------------------------------


@pytest.fixture
def lab(tmp_path):
    """JupyterLab on a folder with the notebook; gives its address."""
    nbformat.write(stored_notebook(), tmp_path / "explorer.ipynb")
    home = tmp_path / "jupyter"
    (home / "labconfig").mkdir(parents=True)
    quiet = {"@jupyterlab/apputils-extension:notification": {"fetchNews": "false"}}
    (home / "labconfig" / "default_setting_overrides.json").write_text(json.dumps(quiet))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    names = "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"
    names += "JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR"
    own = {name: str(home / ("" if name.endswith("CONFIG_DIR") else name)) for name in names}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
    command += [
        f"--ServerApp.port={port}",
        "--ServerApp.port_retries=0",
        "--ServerApp.ip=127.0.0.1",
    ]
    command += [f"--ServerApp.root_dir={tmp_path}", f"--IdentityProvider.token={TOKEN}"]
    command += ["--LabApp.expose_app_in_browser=True"]
    with (tmp_path / "lab.log").open("w") as log:
        server = subprocess.Popen(
            command, env=os.environ | own, stdout=log, stderr=log, cwd=tmp_path
        )
    try:
        for _ in range(600):
            with socket.socket() as attempt:
                if attempt.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert server.poll() is None, (tmp_path / "lab.log").read_text()
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(60)  # it may have just started a kernel


def test_the_rms_explorer_in_jupyterlab(browser, lab, tmp_path):
    page = browser.new_page(viewport={"width": 1500, "height": 1050})
    page.goto(f"{lab}/doc/tree/explorer.ipynb?token={TOKEN}&reset", timeout=TIMEOUT)
    # before anything runs, in a notebook that nobody trusts yet: the stored picture is seen
    page.wait_for_function(
        "() => document.querySelector('.jp-OutputArea img')?.naturalWidth > 500", timeout=TIMEOUT
    )
    assert page.locator(SLIDER).count() == 0
    page.wait_for_function(KERNEL_READY, timeout=TIMEOUT)
    page.evaluate("() => jupyterapp.commands.execute('notebook:run-all-cells')")
    page.wait_for_selector(SLIDER, timeout=TIMEOUT)
    assert page.locator(".jp-OutputArea img").count() == 0  # the live explorer is in its place
    assert press_right(page) == "0.52"
    assert press_right(page) == "0.54"
    page.screenshot(path=os.environ.get("MINIDIFF_SCREENSHOT", tmp_path / "lab.png"))
    # saved, its kernel gone, and opened again: alive with nothing run
    page.evaluate("() => jupyterapp.commands.execute('docmanager:save')")
    page.wait_for_function(
        "() => !window.jupyterapp.shell.currentWidget.context.model.dirty", timeout=TIMEOUT
    )
    page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.session.shutdown()")
    page.reload(timeout=TIMEOUT)
    page.wait_for_selector(SLIDER, timeout=TIMEOUT)
    assert page.locator(".jp-OutputArea img").count() == 0
    assert press_right(page) == "0.52"  # again from the start
    page.wait_for_function(KERNEL_READY, timeout=TIMEOUT)  # a server cannot stop one that starts
    page.close()
