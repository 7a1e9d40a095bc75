"""build.py stores the same bytes each time, and the picture of a widget in its place."""

import base64
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="the notebook packages are not installed here")
pytest.importorskip("nbclient", reason="the notebook packages are not installed here")
pytest.importorskip("anywidget", reason="the notebook packages are not installed here")
pytestmark = pytest.mark.slow  # each starts a kernel

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
spec = importlib.util.spec_from_file_location("build", NOTEBOOKS / "build.py")
build = importlib.util.module_from_spec(spec)
spec.loader.exec_module(build)

DEMO = [
    "import time\nimport ipywidgets\nimport matplotlib.pyplot as plt\n"
    "from minidiff.look import forms, plots, sketches_forms",
    "print('one')\nprint('two')\nprint({name for name in ('a', 'b', 'c')})",
    "plots.bounds_over_lambda(64)\nplt.show()",
    "picture = ipywidgets.Image(value=sketches_forms.png(plots.bounds_over_lambda(4)))\n"
    "plt.close()\n"
    "slider = ipywidgets.IntSlider()\nipywidgets.VBox([slider, picture])",
    "forms.rms_explorer()",
]
TIMED = "print(time.time())"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A small notebook and its bytes after each of two builds."""
    path = tmp_path_factory.mktemp("notebooks") / "demo.ipynb"
    cells = [nbformat.v4.new_markdown_cell("# Demo"), *map(nbformat.v4.new_code_cell, DEMO)]
    timed = nbformat.v4.new_code_cell(TIMED, metadata={"tags": ["nbval-ignore-output"]})
    nbformat.write(nbformat.v4.new_notebook(cells=[*cells, timed]), path)
    results = []
    for _ in range(2):
        assert build.main([str(path)]) == 0
        results.append(path.read_bytes())
    return path, results


def test_two_builds_give_the_same_bytes(built):
    _, (first, second) = built
    assert first == second


def test_nothing_of_the_run_is_stored_but_its_results(built):
    notebook = nbformat.read(built[0], as_version=4)
    assert "widgets" not in notebook.metadata
    for i, cell in enumerate(notebook.cells):
        assert cell.id == f"cell-{i}" and "execution" not in cell.metadata  # times of day
        assert not any(build.VIEW in output.get("data", {}) for output in cell.get("outputs", []))
    assert [c.execution_count for c in notebook.cells[1:]] == [1, 2, 3, 4, 5, 6]
    assert notebook.cells[2].outputs[0].text.startswith("one\ntwo\n{")


def test_a_widget_is_stored_as_its_picture(built):
    cells = nbformat.read(built[0], as_version=4).cells
    figure, box = cells[3].outputs[0].data, cells[4].outputs[0].data
    for data in (figure, box):
        pixels = base64.b64decode(data["image/png"])
        assert pixels.startswith(build.PNG_SIGNATURE) and pixels[-8:-4] == b"IEND"
        assert b"tEXt" not in pixels and b"Software" not in pixels
    assert "text/html" in cells[5].outputs[0].data


def test_timings_stay_until_the_source_changes(built):
    notebook = nbformat.read(built[0], as_version=4)
    timed = notebook.cells[-1]
    assert build.keeps_outputs(timed)
    timed.source += "  # changed"
    assert not build.keeps_outputs(timed)
    assert not build.keeps_outputs(notebook.cells[2])  # compared by nbval: always run anew


def test_nbval_accepts_what_build_stored_and_finds_a_changed_number(built):
    notebook = nbformat.read(built[0], as_version=4)
    notebook.cells[2].outputs[0].text = notebook.cells[2].outputs[0].text.replace("two", "2")
    path = built[0].with_name("tampered.ipynb")
    nbformat.write(notebook, path)
    command = [sys.executable, "-m", "pytest", "-o", "addopts=", "-p", "no:cacheprovider"]
    command += ["--nbval", "--nbval-current-env", path.name]
    command += ["--nbval-sanitize-with", str(NOTEBOOKS / "nbval.cfg")]
    done = subprocess.run(command, cwd=path.parent, capture_output=True, text=True, timeout=300)
    assert "1 failed, 5 passed" in done.stdout, done.stdout


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs a home that nobody can write")
def test_nbval_needs_no_home(built, tmp_path):
    """With the folders that the Makefile names; without them matplotlib warns in a cell."""
    makefile = (NOTEBOOKS.parent / "Makefile").read_text(encoding="utf-8")
    own = {name: str(tmp_path / name) for name in ("IPYTHONDIR", "MPLCONFIGDIR")}
    assert all(f"quick test notebooks: export {name} = " in makefile for name in own)
    env = os.environ | own | {"HOME": "/proc/none"}
    fonts = [sys.executable, "-c", "import matplotlib.font_manager"]  # as the tests before do
    subprocess.run(fonts, env=env, check=True, capture_output=True)
    command = [sys.executable, "-m", "pytest", "-o", "addopts=", "-p", "no:cacheprovider"]
    command += ["--nbval", "--nbval-current-env", built[0].name]
    command += ["--nbval-sanitize-with", str(NOTEBOOKS / "nbval.cfg")]
    done = subprocess.run(
        command, cwd=built[0].parent, env=env, capture_output=True, text=True, timeout=300
    )
    assert "6 passed" in done.stdout, done.stdout


def test_every_figure_has_words(built):
    cells = nbformat.read(built[0], as_version=4).cells
    figure, box = cells[3].outputs[0].metadata, cells[4].outputs[0].metadata
    assert figure["image/png"]["alt"].startswith("The lowest and highest context RMS")
    assert box["image/png"]["alt"].startswith("VBox(")


def test_a_failing_notebook_is_left_as_it_was(tmp_path, capsys):
    path = tmp_path / "bad.ipynb"
    cells = [nbformat.v4.new_code_cell("1 / 0")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    before = path.read_bytes()
    assert build.main([str(path)]) == 1
    assert "ZeroDivisionError" in capsys.readouterr().err
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_an_unknown_name_is_refused():
    with pytest.raises(SystemExit, match="no notebook is called 99_nothing"):
        build.find(["99_nothing"])


def test_the_output_of_a_prediction_is_folded_away_until_asked_for():
    folded = {"tags": ["predict", "hide-output"], "jupyter": {"outputs_hidden": True}}
    assert build.hidden({"tags": ["predict"]}) == build.hidden(folded) == folded
    assert build.hidden({"tags": ["hide-input"]}) == {"tags": ["hide-input"]}
    assert build.hidden({}) == {}
    machine = {"tags": ["remove-cell"]}
    assert build.hidden(machine) == machine | {"jupyter": {"source_hidden": True}}
