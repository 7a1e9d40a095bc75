"""Words that the command line does not understand are refused in one line, without a box."""

import re
import subprocess
import sys

import pytest
import tyro
from hypothesis import given
from hypothesis import strategies as st
from training import cli

from minidiff import __main__ as command
from minidiff.parsing import one_line, one_line_refusals
from minidiff.study.long_context import LongContext

REFUSED = {
    "": "Expected one of {train, sample, export, compare, bench, claims}",
    "tran": "Unrecognized options: tran; available subcommands: train, sample",
    "train --stesp 5": "--stesp, 5; perhaps you meant --steps",
    "train --steps x": r"--steps: .*'x'; it takes --steps INT; see python -m minidiff",
    "train --steps": "Missing value for argument '--steps'",
    "train --preset x": "'x' for argument '--preset'",
    "train --n-layer 1.5": "--n-layer: .*'1.5'",
    "train --resume 5": "Unrecognized options: 5",
    "train --model.n-layer 3": "--model.n-layer",
    "sample": "Missing from python -m minidiff sample: PATH",
    "sample a b": "Unrecognized options: b",
    "sample a --device tpu": r"'tpu' for argument '--device'.*see python -m minidiff sample --help",
    "compare --seeds a": "--seeds: .*'a'",
    "compare --seeds": "--seeds: give at least one",
    "bench opss": "opss; available subcommands: ops, train, decode",
    "bench ops --lenghts 5": "--lenghts",
    "train --device tpu": "device='tpu': use auto, cpu, cuda, mps",
    "train --n-head 3": "n_head=3 must be a multiple of n_kv_head=2",
}


@pytest.mark.parametrize("words", REFUSED)
def test_words_that_do_not_fit_are_refused_in_one_line(words, capsys):
    with pytest.raises(SystemExit) as stop:
        command.main(words.split())
    said = stop.value.code
    assert isinstance(said, str) and re.search(REFUSED[words], said), said
    assert "\n" not in said and not set(said) & set("│─╭╰╮╯") and "tyro" not in said
    assert len(said) < 400, said
    assert capsys.readouterr() == ("", "")  # nothing beside it


def test_a_narrow_terminal_changes_nothing(monkeypatch):
    monkeypatch.setenv("COLUMNS", "30")
    with pytest.raises(SystemExit, match="n_head=3 must be a multiple of n_kv_head=2"):
        command.main(["train", "--n-head", "3"])
    with pytest.raises(SystemExit, match="--stesp"):
        command.main(["train", "--stesp", "5"])


def test_help_is_printed_and_ends_well(capsys):
    with pytest.raises(SystemExit) as stop:
        command.main(["train", "--help"])
    assert not stop.value.code and "--n-layer" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("minidiff.study.sparsity {0}/nowhere", "nowhere: no config.json"),
        ("minidiff.study.sparsity --no", "--no"),
        ("minidiff.study.shipped {0}/nowhere {0}/out", "nowhere: no seed"),
        ("minidiff.study.shipped", "give two names: runs out"),
        ("minidiff.bench.context --device tpu", "device"),
        ("minidiff.course.slides {0} {0}/out", "directory"),
        ("minidiff.course.first_cell {0}", "{0}"),
    ],
)
def test_the_smaller_programs_too_end_in_one_line(tmp_path, words, says):
    command_line = [sys.executable, "-m", *words.format(tmp_path).split()]
    done = subprocess.run(command_line, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    line = done.stderr.strip()
    assert done.returncode and line.startswith("error: ") and "\n" not in line, line
    assert says.format(tmp_path) in line, line


def test_an_error_of_the_system_names_its_file_and_no_number(config, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit, match=r"file/.*: not a directory") as stop:
        command.main([*cli(config), "--out", str(tmp_path / "file" / "x")])
    assert "Errno" not in stop.value.code


def test_what_a_library_says_meanwhile_is_not_lost(capsys):
    with one_line_refusals():
        print("a driver that is too old", file=sys.stderr)
    assert capsys.readouterr().err == "a driver that is too old\n"


def test_a_program_of_one_class_too_refuses_in_the_words_of_the_class():
    with pytest.raises(ValueError, match=r"^--prompts 1: give at least 2$"), one_line_refusals():
        tyro.cli(LongContext, args=["folder", "--prompts", "1"])


@given(st.text(st.sampled_from("│╭─╮╰╯|+-\n\x1b[0m a-z:{}"), max_size=200))
def test_a_box_of_any_shape_becomes_one_line(box):
    assert "\n" not in one_line(box)
