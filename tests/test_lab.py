"""make lab, started for real: the first notebook opens, its explorer lives before anything runs."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

WHY = "the notebook packages are not installed here"
pytest.importorskip("jupyterlab", reason=WHY)
pytest.importorskip("playwright.sync_api", reason="playwright is not installed here")

import nbformat  # noqa: E402
from nbformat.sign import NotebookNotary  # noqa: E402

from minidiff.course import lab as lab_module  # noqa: E402

pytest_plugins = ["page_tools"]  # browser
pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
TIMEOUT = 90_000  # milliseconds, of every single wait


@pytest.fixture(params=["home", "no home"])
def lab(request, tmp_path):
    """Start it as the Makefile does, in an empty home or in one that cannot be written."""
    home = tmp_path / "home"
    home.mkdir()
    env = {k: v for k, v in os.environ.items() if not k.startswith(("JUPYTER", "XDG"))}
    env |= {"HOME": str(home) if request.param == "home" else os.devnull}  # nothing is under it
    env |= {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    command = (
        (ROOT / "Makefile").read_text(encoding="utf-8").split("\nlab: ")[1].split("\n")[1].split()
    )
    assert command[0] == "$(BIN)/python"
    options = ["--no-browser", "--ServerApp.port=0", "--LabApp.expose_app_in_browser=True"]
    log, copies = tmp_path / "lab.log", ROOT / "notebooks" / ".ipynb_checkpoints"
    had_copies = copies.exists()
    with log.open("w") as out:
        server = subprocess.Popen(
            [sys.executable, *command[1:], *options], cwd=ROOT, env=env, stdout=out, stderr=out
        )
    try:
        for _ in range(900):
            found = re.search(
                r"http://127\.0\.0\.1:\d+/lab/tree/\S+", log.read_text(encoding="utf-8")
            )
            if found:
                break
            assert server.poll() is None, log.read_text(encoding="utf-8")
            time.sleep(0.1)
        yield found[0], log, request.param
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(60)
        if not had_copies:
            shutil.rmtree(copies, ignore_errors=True)


def test_it_opens_the_first_notebook_alive_and_asks_nothing(browser, lab):
    address, log, home = lab
    assert "/lab/tree/00_start_here.ipynb?token=" in address
    said = log.read_text(encoding="utf-8")
    assert ("The home folder cannot be written" in said) == (home == "no home")
    assert ("You are root" in said) == (os.geteuid() == 0)
    page = browser.new_page(viewport={"width": 1280, "height": 720})
    page.goto(address, timeout=TIMEOUT)
    page.wait_for_selector(".minidiff-form svg", timeout=TIMEOUT)  # trusted: its script ran
    page.wait_for_function(
        "() => jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'",
        timeout=TIMEOUT,
    )
    page.wait_for_timeout(3000)  # the question about news comes late
    assert page.locator(".jp-toast-message, .Toastify__toast, .jp-Dialog").count() == 0
    assert page.locator(".jp-NotebookPanel").count() == 1
    page.close()


def test_without_jupyterlab_one_line_says_so(tmp_path):
    (tmp_path / "jupyterlab.py").write_text("raise ImportError", encoding="utf-8")
    env = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    done = subprocess.run(
        [sys.executable, "-m", "minidiff.course.lab"], env=env, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: JupyterLab is not installed: run `make lab`")
    assert "Traceback" not in done.stderr


def test_a_notebook_that_cannot_be_read_is_named_and_the_others_are_signed(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "data"))
    whole = tmp_path / "whole.ipynb"
    nbformat.write(nbformat.v4.new_notebook(), whole)
    (tmp_path / "torn.ipynb").write_text('{"cells": [', encoding="utf-8")
    torn, gone = tmp_path / "torn.ipynb", tmp_path / "gone.ipynb"
    lab_module.trust([torn, gone, whole])
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in said] == ["torn.ipynb", "gone.ipynb"]
    assert all("git checkout" in line for line in said)
    notary = NotebookNotary()
    assert notary.check_signature(nbformat.read(whole, as_version=4))
