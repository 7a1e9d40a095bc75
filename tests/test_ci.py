"""The files of continuous integration parse, and what they call exists."""

import re
import shlex
from pathlib import Path

import yaml
from conftest import POSIX_ONLY

from minidiff import __main__ as command

ROOT = Path(__file__).parents[1]
FILE = ROOT / ".github" / "workflows" / "ci.yml"
CI = yaml.safe_load(FILE.read_text(encoding="utf-8"))
JOBS = CI["jobs"]
COMMANDS = [step["run"] for job in JOBS.values() for step in job["steps"] if "run" in step]


def test_three_systems_and_every_python_that_is_promised():
    matrix = JOBS["each_system"]["strategy"]["matrix"]
    assert {name.split("-")[0] for name in matrix["os"]} == {"ubuntu", "macos", "windows"}
    assert matrix["python"][0] == "3.11"  # of pyproject.toml
    assert 'requires-python = ">=3.11"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for name in re.findall(r"matrix\.(\w+)", FILE.read_text(encoding="utf-8")):
        assert name in matrix


def test_what_is_called_exists():
    assert CI[True] == ["push", "pull_request"]  # YAML 1.1 reads "on" as true
    for line in COMMANDS:
        for word in shlex.split(line):
            if re.search(r"\.(ipynb|cfg|lock)$", word) or word.startswith(".ci"):
                assert (ROOT / word).exists(), line
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o100
    modules = {re.search(r"-m (\w+)", line)[1] for line in COMMANDS if "-m " in line}
    assert modules == {"pip", "ruff", "pytest", "minidiff"}
    names = {re.split(r"[=]+", line)[0].lower() for line in
             (ROOT / "requirements.lock").read_text(encoding="utf-8").split()}  # fmt: skip
    assert {"ruff", "pytest", "nbval", "pytest-xdist", "torch"} <= names
    markers = set(re.findall(r"not (\w+)", " ".join(COMMANDS)))
    declared = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert markers and all(f'"{name}: ' in declared for name in markers)


def test_the_commands_of_minidiff_parse():
    found = [line.split("-m minidiff ")[1] for line in COMMANDS if "-m minidiff " in line]
    assert [type(command.parse(shlex.split(words))).__name__ for words in found] == [
        "Train", "Sample"
    ]  # fmt: skip


def test_the_steps_are_those_that_the_readme_gives_without_make():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for words in ("-r requirements.lock", "--no-deps --editable ."):
        assert f"pip install {words}" in readme
        assert any(f"pip install {words}" in line for line in COMMANDS)


def test_what_windows_cannot_run_is_left_out_there():
    needs = re.compile(r"^import resource|os\.(mkfifo|umask|killpg)\(|SIGHUP|forkserver", re.M)
    files = {path.name: path.read_text(encoding="utf-8") for path in ROOT.glob("tests/test_*.py")}
    found = {name for name, text in files.items() if needs.search(text)} - {"test_ci.py"}
    assert found == set(POSIX_ONLY)
