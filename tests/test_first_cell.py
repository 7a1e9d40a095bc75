"""The cell for Colab and Kaggle: fetches the course there, and does nothing elsewhere."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="the notebook packages are not installed here")

from minidiff.course import first_cell  # noqa: E402

ROOT = Path(__file__).parents[1]
COURSE = sorted(ROOT.glob("notebooks/[0-9]*.ipynb"))


@pytest.mark.parametrize("path", COURSE, ids=lambda path: path.stem)
def test_a_course_notebook_has_exactly_this_cell_behind_its_title(path):
    cells = nbformat.read(path, as_version=4).cells
    assert cells[1].source == first_cell.CELL
    assert cells[1].metadata == first_cell.FOLDED and not cells[1].outputs
    assert sum(map(first_cell.is_first_cell, cells)) == 1


def run(text, folder, **env):
    """Run the cell in a process whose home is a folder; it then says where it is, and the path."""
    text += "\nimport os, sys; print(os.getcwd(), sys.path[0], sep='|')"
    own = {"HOME": str(folder), "USERPROFILE": str(folder), "PIP_DRY_RUN": "1"}
    own |= {"PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    here = {k: v for k, v in os.environ.items() if "COLAB" not in k and "KAGGLE" not in k}
    env = here | own | env
    command = [sys.executable, "-c", text]
    return subprocess.run(
        command, cwd=folder, env=env, capture_output=True, text=True, timeout=300, encoding="utf-8"
    )


def test_elsewhere_it_does_nothing_and_prints_nothing(tmp_path):
    done = run(first_cell.CELL, tmp_path)
    assert (done.stdout, done.stderr) == (f"{tmp_path.resolve()}|\n", "")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("place", ["COLAB_RELEASE_TAG", "KAGGLE_KERNEL_RUN_TYPE"])
def test_on_colab_and_kaggle_it_fetches_the_course_and_goes_there(tmp_path, place):
    """From a small repository on this disk; pip installs nothing in a dry run."""
    pytest.importorskip("anywidget", reason="the notebook packages are not installed here")
    source = tmp_path / "source"
    (source / "notebooks").mkdir(parents=True)
    (source / "notebooks" / "a.md").touch()
    git = ["git", "-C", str(source), "-c", "user.name=a", "-c", "user.email=a@b.c"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "all"]):
        subprocess.run([*git, *words], check=True)
    cell = first_cell.CELL.replace(first_cell.REPOSITORY, source.as_uri())
    for _ in "twice":
        done = run(cell, tmp_path, **{place: "1"})
        course = (tmp_path / "minidiff-course").resolve()
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1] == f"{course / 'notebooks'}|{tmp_path}/minidiff-course"
    gone = first_cell.CELL.replace(first_cell.REPOSITORY, (tmp_path / "gone").as_uri())
    (tmp_path / "other").mkdir()
    failed = run(gone, tmp_path / "other", **{place: "1"})
    assert "internet access on?" in failed.stderr.splitlines()[-1]


def test_it_is_put_behind_the_title_once_and_the_counts_go_up():
    code, text = nbformat.v4.new_code_cell, nbformat.v4.new_markdown_cell
    shown = code("1 + 1", execution_count=1)
    shown.outputs = [nbformat.v4.new_output("execute_result", {"text/plain": "2"})]
    shown.outputs[0].execution_count = 1
    notebook = nbformat.v4.new_notebook(cells=[text("# Title"), shown, text("End")])
    first_cell.insert(notebook)
    once = nbformat.writes(notebook)
    first_cell.insert(notebook)
    assert nbformat.writes(notebook) == once
    assert [c.source for c in notebook.cells] == ["# Title", first_cell.CELL, "1 + 1", "End"]
    assert [c.get("execution_count") for c in notebook.cells] == [None, 1, 2, None]
    assert notebook.cells[2].outputs[0].execution_count == 2
    notebook.cells[1].source = first_cell.CELL.replace("OWNER", "someone")
    first_cell.insert(notebook)
    assert nbformat.writes(notebook) == once
    nbformat.validate(notebook)
    with pytest.raises(ValueError, match="no title"):
        first_cell.insert(nbformat.v4.new_notebook(cells=[shown]))
