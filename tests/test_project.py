"""The files around the package: environment.yml, the lock, the import order, the README."""

import ast
import json
import re
import runpy
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
CONDA_NAMES = {"torch": "pytorch-gpu", "playwright": "playwright-python"}


def needed():
    """Names of all packages that pyproject.toml asks for, extras included."""
    project = PYPROJECT["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    return {re.match(r"[\w-]+", line)[0] for group in groups for line in group}


def test_pyproject_declares_what_the_core_imports():
    declared = {re.match(r"[\w-]+", line)[0] for line in PYPROJECT["project"]["dependencies"]}
    for path in PACKAGE.glob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Import):
                names = {alias.name.split(".")[0] for alias in node.names}
            else:
                outside = isinstance(node, ast.ImportFrom) and not node.level
                names = {node.module.split(".")[0]} if outside else set()
            assert names <= declared | sys.stdlib_module_names | {"minidiff"}, path


def test_environment_names_what_pyproject_needs():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    conda = [d for d in environment["dependencies"] if isinstance(d, str)]
    names = {re.match(r"[\w-]+", line)[0] for line in conda}
    assert {CONDA_NAMES.get(name, name) for name in needed()} <= names
    for spec in (f"python{PYPROJECT['project']['requires-python']}", "pytorch-gpu>=2.11"):
        assert spec in conda


def test_the_lock_pins_what_pyproject_needs_and_nothing_twice():
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").split()
    names = [line.split("==")[0].lower() for line in lines]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines)
    assert len(names) == len(set(names))
    optional = {"flash-attn", "tensorboard"}  # the first needs a GPU and its compiler
    assert needed() - optional <= set(names)


# ---- The house: a core in one folder, wings beside it ------------------------------------------

PACKAGE = ROOT / "minidiff"
# "": the core
FLOOR = {"": 0, "fast": 1, "variants": 1, "look": 2, "study": 3, "bench": 3, "course": 3}


def imported(path):
    """Modules of minidiff that a file imports, also inside functions, as "study.compare"."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            module = f"minidiff.{module}".strip(".") if node.level else module
            names = [module, *(f"{module}.{alias.name}" for alias in node.names)]
        else:
            continue
        yield from (name.removeprefix("minidiff.") for name in names if "minidiff." in name)


def wing(module):
    """The folder that a module lies in; "" for one of the core, or for a name out of one."""
    first = module.split(".")[0]
    return first if (PACKAGE / first).is_dir() else ""


def test_imports_point_down():
    """The core imports no wing, and nothing imports study; only __init__ and __main__ see all."""
    assert {p.name for p in PACKAGE.iterdir() if (p / "__init__.py").exists()} == {*FLOOR} - {""}
    for path in PACKAGE.rglob("*.py"):
        own = "" if path.parent == PACKAGE else path.relative_to(PACKAGE).parts[0]
        if path in (PACKAGE / "__init__.py", PACKAGE / "__main__.py"):
            continue
        for module in imported(path):
            other = wing(module)
            assert other == own or FLOOR[other] < FLOOR[own], f"{path} imports minidiff.{module}"
            assert "study" not in (other,) or own == "study", f"{path} imports minidiff.{module}"


def test_the_forward_pass_is_two_files_that_import_nothing_else():
    assert not set(imported(PACKAGE / "attention.py"))
    assert {m.split(".")[0] for m in imported(PACKAGE / "model.py")} == {"attention", "generate"}
    lines = [
        len((PACKAGE / f).read_text(encoding="utf-8").splitlines())
        for f in ("attention.py", "model.py")
    ]
    assert sum(lines) <= 420


TAKEN_AWAY = """
import sys, torch
from mine.model import GPT, GPTConfig
device, results = sys.argv[1], []
for backend in ("naive", "sdpa"):
    torch.manual_seed(0)
    model = GPT(GPTConfig(attention="diff_v2", backend=backend)).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    idx = torch.arange(2 * 33, device=device).view(2, 33)
    for _ in range(2):
        loss = model(idx[:, :-1], idx[:, 1:])[1]
        loss.backward(); optimizer.step(); optimizer.zero_grad()
        results.append(loss.item())
assert results[1] < results[0] and abs(results[1] - results[3]) < 1e-4, results
try:
    model.generate(idx, 1)
except ImportError as error:
    assert "mine.generate" in str(error), error
else:
    raise AssertionError("generate.py is not there")
ours = {name for name in sys.modules if name.split(".")[0] in ("mine", "minidiff")}
assert ours == {"mine", "mine.attention", "mine.model"}, ours
"""


@pytest.mark.slow
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_two_files_copied_into_another_project_train(tmp_path, device):
    (tmp_path / "mine").mkdir()
    for name in ("attention.py", "model.py"):
        shutil.copy(PACKAGE / name, tmp_path / "mine" / name)
    command = [sys.executable, "-c", TAKEN_AWAY, device]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_every_wing_says_what_is_inside_and_which_file_to_open_first():
    for name in {*FLOOR} - {""}:
        doc = ast.get_docstring(
            ast.parse((PACKAGE / name / "__init__.py").read_text(encoding="utf-8"))
        )
        first = re.search(r"[Oo]pen (\w+\.py) first", doc)
        assert first and (PACKAGE / name / first[1]).exists(), name
        assert len(doc.splitlines()) <= 6, name


def test_nothing_unpickles_or_executes_data():
    for path in ROOT.glob("minidiff/**/*.py"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"import pickle|torch\.load\(|\bexec\(|\beval\((?!\))", text), path


def test_the_files_that_the_readme_names_exist():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for path in re.findall(r"\]\((?!http)([^)#]+)\)", readme):
        assert (ROOT / path).exists(), path


def test_the_python_example_of_the_readme_runs(tmp_path, capsys):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    example = re.search(r"```python\n(.*?)```", readme, re.DOTALL)[1]
    (tmp_path / "example.py").write_text(example, encoding="utf-8")
    names = runpy.run_path(str(tmp_path / "example.py"))
    assert names["logits"].shape == (1, 13, 257)
    assert capsys.readouterr().out.splitlines()[1].startswith("def forward(")


def test_files_are_text_in_utf_8_whatever_the_locale():
    """What ruff's PLW1514 sees, also where it does not know that something is a path."""
    files = [*PACKAGE.rglob("*.py"), *(ROOT / "notebooks").rglob("*.py"), *ROOT.glob("docs/*.py")]
    for path in (p for p in files if "node_modules" not in p.parts):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute):
                given = {k.arg for k in call.keywords} | {ast.unparse(a) for a in call.args}
                reads = call.func.attr in ("read_text", "write_text")
                where = f"{path}:{call.lineno}: encoding='utf-8' is missing"
                assert not reads or given & {"encoding", "'utf-8'"}, where


def relative_paths(source):
    """Calls of a cell that open a path which depends on the working directory."""
    lines = ["" if line[:1] in "%!" else line for line in source.split("\n")]
    for call in ast.walk(ast.parse("\n".join(lines))):
        if isinstance(call, ast.Call) and call.args and isinstance(call.args[0], ast.Constant):
            name, first = ast.unparse(call.func).split(".")[-1], call.args[0].value
            opens = name in ("open", "Path", "savefig", "imread", "loadtxt", "read_results")
            if opens and isinstance(first, str) and not Path(first).is_absolute():
                yield ast.unparse(call)


def test_every_notebook_runs_from_any_working_directory():
    assert list(relative_paths('x = open("a.json")\nPath("..") / "b"\n%ls\nPath(FOLDER)')) == [
        "open('a.json')", "Path('..')"
    ]  # fmt: skip
    notebooks = [*ROOT.glob("notebooks/*.ipynb"), *ROOT.glob("notebooks/solutions/*.ipynb")]
    for path in notebooks:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
        found = [call for source in code for call in relative_paths(source)]
        assert not found, f"{path.name}: {found}"
