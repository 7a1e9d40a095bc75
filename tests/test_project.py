"""The files around the package: environment.yml, the lock, the import order, the README."""

import ast
import re
import runpy
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
CONDA_NAMES = {"torch": "pytorch-gpu", "playwright": "playwright-python"}


def needed():
    """Names of all packages that pyproject.toml asks for, extras included."""
    project = PYPROJECT["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    return {re.match(r"[\w-]+", line)[0] for group in groups for line in group}


def test_environment_names_what_pyproject_needs():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    conda = [d for d in environment["dependencies"] if isinstance(d, str)]
    names = {re.match(r"[\w-]+", line)[0] for line in conda}
    assert {CONDA_NAMES.get(name, name) for name in needed()} <= names
    for spec in (f"python{PYPROJECT['project']['requires-python']}", "pytorch-gpu>=2.11"):
        assert spec in conda


def test_the_lock_pins_what_pyproject_needs_and_nothing_twice():
    lines = (ROOT / "requirements.lock").read_text().split()
    names = [line.split("==")[0].lower() for line in lines]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines)
    assert len(names) == len(set(names))
    assert needed() - {"flash-attn"} <= set(names)  # flash-attn needs a GPU and its compiler


def test_imports_point_one_way():
    """attention <- model, variants <- data, train <- probe, compare <- plots <- bench, widgets."""
    order = [
        "theory", "decode_kernel", "backends", "attention", "generate", "model", "diff_v1",
        "variants", "data", "runs", "train", "probe", "compare", "evidence", "claims",
        "plots", "bench.tools", "bench.figures", "bench.ops", "bench.train", "bench.decode",
        "widgets", "__main__",
    ]  # fmt: skip
    for rank, name in enumerate(order):
        path = ROOT / "minidiff" / f"{name.replace('.', '/')}.py"
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("minidiff"):
                package = node.module.removeprefix("minidiff").removeprefix(".")
                names = {f"{package}.{alias.name}".strip(".") for alias in node.names}
                for imported in {package, *names} & {*order}:  # a module, or a name out of one
                    assert order.index(imported) < rank, f"{name}.py imports {imported}"
    files = {str(f.relative_to(ROOT / "minidiff")) for f in ROOT.glob("minidiff/**/*.py")}
    named = {f"{name.replace('.', '/')}.py" for name in order}
    assert files - named == {"__init__.py", "bench/__init__.py"}


def test_nothing_unpickles_or_executes_data():
    for path in ROOT.glob("minidiff/**/*.py"):
        text = path.read_text()
        assert not re.search(r"import pickle|torch\.load\(|\bexec\(|\beval\((?!\))", text), path


def test_the_files_that_the_readme_names_exist():
    readme = (ROOT / "README.md").read_text()
    for path in re.findall(r"\]\((?!http)([^)#]+)\)", readme):
        assert (ROOT / path).exists(), path


def test_the_python_example_of_the_readme_runs(tmp_path):
    readme = (ROOT / "README.md").read_text()
    example = re.search(r"```python\n(.*?)```", readme, re.DOTALL)[1]
    (tmp_path / "example.py").write_text(example)
    names = runpy.run_path(str(tmp_path / "example.py"))
    assert names["logits"].shape == (1, 13, 257)
