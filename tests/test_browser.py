"""The explorers as they live in the world: JupyterLab, and an exported page with no kernel."""

import json
import os
import socket
import subprocess
import sys
import time

import pytest

WHY = "the notebook packages are not installed here"
nbformat = pytest.importorskip("nbformat", reason=WHY)
pytest.importorskip("jupyterlab", reason=WHY)

from minidiff.look import forms  # noqa: E402

pytest_plugins = ["page_tools"]  # browser
pytestmark = pytest.mark.slow

FORM = ".minidiff-form"
SLIDER = f"{FORM} input[type=range][data-key=lam]"
PICTURE = f"() => document.querySelector('{FORM} .picture')?.innerHTML"
KERNEL_READY = """() => {
    const context = window.jupyterapp?.shell.currentWidget?.sessionContext;
    return context?.isReady && context.session?.kernel?.status === "idle";
}"""
TOKEN = "a-token-for-this-test"
TIMEOUT = 60_000  # milliseconds, of every single wait


def stored_notebook():
    """A notebook as build.py leaves it: a cell with an explorer's page."""
    source = "from minidiff.look import forms\n\nforms.rms_explorer()"
    explorer = forms.rms_explorer()
    data = {"text/plain": repr(explorer), "text/html": explorer._repr_html_()}
    output = nbformat.v4.new_output("execute_result", data=data, execution_count=1)
    cell = nbformat.v4.new_code_cell(source, execution_count=1, outputs=[output])
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return nbformat.v4.new_notebook(cells=[cell], metadata={"kernelspec": kernel})


def press_right(page):
    """Move the lambda slider one step by keyboard; what its box says then."""
    before = page.evaluate(PICTURE)
    page.locator(SLIDER).focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function(f"before => ({PICTURE})() !== before", arg=before, timeout=TIMEOUT)
    return page.locator(f"{FORM} input.box[data-key=lam]").input_value()


# ---- An exported page --------------------------------------------------------------------------


@pytest.fixture
def exported(browser, tmp_path):
    """The notebook as HTML, opened from a file with no network, with a list of page errors."""
    nbconvert = pytest.importorskip("nbconvert", reason=WHY)
    notebook = stored_notebook()
    notebook.cells += stored_notebook().cells  # two on one page must not disturb each other
    html, _ = nbconvert.HTMLExporter().from_notebook_node(notebook)
    (tmp_path / "page.html").write_text(html, encoding="utf-8")
    context = browser.new_context(offline=True)
    page = context.new_page()
    page.problems = []
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.goto((tmp_path / "page.html").as_uri(), wait_until="domcontentloaded")
    page.wait_for_function(f"() => document.querySelectorAll('{FORM} svg').length === 4")
    yield page
    context.close()


def test_an_exported_page_is_alive_without_kernel_or_network(exported):
    page = exported
    first, second = (page.locator(FORM).nth(i) for i in range(2))
    untouched = second.locator(".picture").inner_html()
    first.locator("[data-key=lam]").first.focus()
    before = first.locator(".picture").inner_html()
    page.keyboard.press("ArrowRight")
    assert first.locator("input.box[data-key=lam]").input_value() == "0.52"
    assert first.locator(".picture").inner_html() != before
    assert second.locator(".picture").inner_html() == untouched
    assert not [problem for problem in page.problems if "minidiff" in problem.lower()]


def test_a_scene_sets_all_controls(exported):
    explorer = exported.locator(FORM).first
    explorer.get_by_text("Two different tokens").click()
    assert explorer.locator("input.box[data-key=lam]").input_value() == "1"
    assert not explorer.locator("input[type=checkbox]").is_checked()
    # two disjoint, almost one-hot maps at lambda = 1: the upper end, sqrt(2)
    assert "1.41" in explorer.locator("table").inner_text()


def test_a_move_takes_under_30_milliseconds(exported):
    times = exported.evaluate(
        """(slider) => {
            const one = document.querySelector(slider);
            const timed = (value) => {
                const began = performance.now();
                one.value = value;
                one.dispatchEvent(new Event("input", { bubbles: true }));
                document.body.offsetHeight;  // lay the new picture out
                return performance.now() - began;
            };
            return Array.from({ length: 40 }, (_, i) => timed(i));
        }""",
        SLIDER,
    )
    assert sorted(times)[len(times) // 2] < 30, times


def test_on_paper_nothing_is_cut_off(exported):
    exported.set_viewport_size({"width": 700, "height": 900})  # a page of A4 has about 700 px
    exported.emulate_media(media="print")
    cut = "(els) => els.map((el) => el.scrollHeight - el.clientHeight)"
    assert exported.locator(FORM).evaluate_all(cut) == [0, 0]
    assert min(exported.locator(SLIDER).evaluate_all(ROOM)) > 70


ROOM = "(sliders) => sliders.map((one) => one.offsetWidth)"


# ---- JupyterLab --------------------------------------------------------------------------------


@pytest.fixture
def lab(tmp_path):
    """JupyterLab on a folder with the notebook; gives its address."""
    nbformat.write(stored_notebook(), tmp_path / "explorer.ipynb")
    home = tmp_path / "jupyter"
    (home / "labconfig").mkdir(parents=True)
    quiet = {"@jupyterlab/apputils-extension:notification": {"fetchNews": "false"}}
    (home / "labconfig" / "default_setting_overrides.json").write_text(
        json.dumps(quiet), encoding="utf-8"
    )
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
            assert server.poll() is None, (tmp_path / "lab.log").read_text(encoding="utf-8")
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        try:
            server.wait(30)  # it may have just started a kernel
        except subprocess.TimeoutExpired:  # and then sometimes never ends
            server.kill()
            server.wait()


def fits_where_people_have_little_room(page):
    """At 1280 x 720 with the sidebar, on tablets, on a phone, at 200%: never over 600 px high."""
    size = page.viewport_size
    for width, height, sidebar in (
        (1280, 720, True),
        (1280, 720, False),
        (1024, 768, True),
        (768, 1024, False),
        (640, 360, False),
        (390, 844, False),
    ):
        page.set_viewport_size({"width": width, "height": height})
        opened = page.evaluate("() => document.querySelector('#jp-left-stack').offsetWidth > 0")
        if opened != sidebar:
            page.evaluate("() => jupyterapp.commands.execute('application:toggle-left-area')")
        page.wait_for_timeout(700)  # the panels move
        assert min(page.locator(f"{FORM} input[type=range]").evaluate_all(ROOM)) > 90, width
        outer, inner = page.locator(FORM).evaluate("(el) => [el.offsetHeight, el.scrollHeight]")
        assert outer <= 600, width
        assert inner <= outer or width < 1280, width  # whole on a projector, with the sidebar too
    page.set_viewport_size(size)


def keys_on_a_button_leave_the_notebook_alone(page):
    cells = page.locator(".jp-Notebook .jp-CodeCell").count()
    page.get_by_role("button", name="Two equal maps").click()
    for key in "abddxm":  # cell above, below, delete, cut, to Markdown
        page.keyboard.press(key)
    assert page.locator(".jp-Notebook .jp-CodeCell").count() == cells
    assert page.locator(f"{FORM} input.box[data-key=lam]").input_value() == "0.5"


def test_the_rms_explorer_in_jupyterlab(browser, lab, tmp_path):
    page = browser.new_page(viewport={"width": 1500, "height": 1050})
    page.goto(f"{lab}/lab/tree/explorer.ipynb?token={TOKEN}&reset", timeout=TIMEOUT)
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
    fits_where_people_have_little_room(page)
    keys_on_a_button_leave_the_notebook_alone(page)
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
