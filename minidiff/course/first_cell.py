"""The cell behind each notebook's title that makes the course run on Colab and Kaggle.

    python -m minidiff.course.first_cell notebooks/0*.ipynb notebooks/1*.ipynb

puts it there, or renews it. Elsewhere the cell does nothing and prints nothing, so a notebook need
not be run again: the counts of its other cells go up by one.
"""

import copy
import sys
from pathlib import Path

import nbformat

from minidiff.parsing import one_line_errors

REPOSITORY = "https://github.com/OWNER/minidiff"  # fill in, then run the line above
CELL = f'''\
# On Colab and Kaggle this fetches the course and what it needs; elsewhere it does nothing.
import os
import sys

if {{"COLAB_RELEASE_TAG", "KAGGLE_KERNEL_RUN_TYPE"}} & {{*os.environ}}:
    course, address = os.path.expanduser("~/minidiff-course"), "{REPOSITORY}"
    needs = f"{{sys.executable}} -m pip install -q 'torch>=2.11' tyro safetensors anywidget"
    if not os.path.exists(course) and os.system(f"git clone -q --depth 1 {{address}} {{course}}"):
        raise OSError(f"cannot fetch {{address}}: is the notebook's internet access on?")
    if os.system(needs):
        raise OSError("the packages cannot be installed: is the notebook's internet access on?")
    sys.path.insert(0, course)
    os.environ["PYTHONPATH"] = course  # for !python -m minidiff
    os.chdir(f"{{course}}/notebooks")'''
FOLDED = {"tags": ["remove-cell"], "jupyter": {"source_hidden": True}}  # the site, JupyterLab


def is_first_cell(cell):
    """Whether a cell is this one, perhaps an older version of it."""
    return cell.cell_type == "code" and cell.source.startswith(CELL.splitlines()[0])


def insert(notebook):
    """Put the cell behind the title, in the place of an older version. Changes the notebook.

    Raises:
        ValueError: the first cell is no title.
    """
    if not notebook.cells or not notebook.cells[0].source.startswith("# "):
        raise ValueError("the first cell is no title: '# ...'")
    if len(notebook.cells) < 2 or not is_first_cell(notebook.cells[1]):
        notebook.cells.insert(1, nbformat.v4.new_code_cell())
        for cell in notebook.cells:
            if cell.get("execution_count") is not None:
                cell.execution_count += 1
                for output in (o for o in cell.outputs if "execution_count" in o):
                    output.execution_count = cell.execution_count
        notebook.cells[1].execution_count = 1
    notebook.cells[1].source, notebook.cells[1].metadata = CELL, copy.deepcopy(FOLDED)
    for i, cell in enumerate(notebook.cells):
        cell.id = f"cell-{i}"  # as notebooks/build.py names them


def main(paths):
    """Insert the cell into notebooks on disk."""
    for path in map(Path, paths):
        notebook = nbformat.read(path, as_version=4)
        try:
            insert(notebook)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        path.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")
        print(path)


if __name__ == "__main__":
    with one_line_errors():
        main(sys.argv[1:])
