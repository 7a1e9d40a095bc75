"""The checks know the right answer, and say of typical wrong ones what is wrong, not what is right.

The answers to the exercises of notebook NN lie in cases_NN.py.
"""

import inspect
import re
import runpy
from pathlib import Path

import pytest
import torch

import minidiff
from minidiff.course import check, checks, example

CASES = [runpy.run_path(str(path)) for path in sorted(Path(__file__).parent.glob("cases_*.py"))]
RIGHT = {name: answers for cases in CASES for name, answers in cases["RIGHT"].items()}
WRONG = {name: answers for cases in CASES for name, answers in cases["WRONG"].items()}


@pytest.mark.parametrize("name", check.__all__)
def test_a_right_answer_is_right_and_none_is_not_answered(name, capsys):
    function = getattr(check, name)
    for answers in RIGHT[name]:
        assert function.verdict(*answers)[0] is True, function.verdict(*answers)
        function(*answers)
        assert capsys.readouterr().out.startswith("Right.")
    for answers in ([], [None], [*RIGHT[name][0][:-1], None]):
        assert function.verdict(*answers) == (None, "Not answered yet.")
    function(None)
    assert capsys.readouterr().out == "Not answered yet.\n"


@pytest.mark.parametrize("name", check.__all__)
def test_a_wrong_answer_hears_what_is_wrong(name, capsys):
    function = getattr(check, name)
    assert len(WRONG[name]) >= 3
    for answers, says in WRONG[name]:
        right, words = function.verdict(*answers)
        assert right is False and says in words, (answers, words)
        assert words.startswith("Not yet. ") and "\n" not in words and len(words) < 200
        function(*answers)
        assert capsys.readouterr().out == words + "\n"


def test_no_wrong_answer_is_told_the_right_one():
    for name, wrong in WRONG.items():
        for answer in RIGHT[name][0]:
            if isinstance(answer, int) and not isinstance(answer, bool):
                for _, words in (getattr(check, name).verdict(*answers) for answers, _ in wrong):
                    assert not re.search(rf"(?<![\d.]){answer}(?![\d.]\d)\b", words), words


def test_every_check_belongs_to_an_exercise_and_is_tested():
    assert set(RIGHT) == set(WRONG) == set(check.__all__)
    for name in check.__all__:
        assert re.match(r"Exercise \d+: ", getattr(check, name).__doc__), name


# ---- The tools that turn what is handed in into numbers ----------------------------------------


def test_tools_accept_numbers_in_every_dress_and_say_what_does_not_fit():
    assert checks.number(torch.tensor([0.5])) == 0.5
    assert checks.numbers([[1, 2]], (1, 2)).dtype == torch.float64
    for bad in ([1, 2], "x", [[1], [2, 3]]):
        with pytest.raises(checks.Wrong, match=r"shape|must be numbers"):
            checks.numbers(bad, (3,))
    with pytest.raises(checks.Wrong, match="not finite"):
        checks.numbers([1, float("nan"), 2], (3,))
    with pytest.raises(checks.Wrong, match="a list"):
        checks.number(list(range(100)))


def test_an_error_in_a_students_function_names_itself_and_keeps_its_cause():
    def broken(x):
        return x / 0

    with pytest.raises(checks.Wrong, match="ZeroDivisionError: division by zero") as caught:
        checks.call(broken, 1)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


# ---- The example of three tokens ---------------------------------------------------------------


def test_the_example_is_round():
    expected = {
        "A1": [1 / 4, 2 / 4, 1 / 4],
        "A2": [2 / 4, 1 / 4, 1 / 4],
        "W": [0, 3 / 8, 1 / 8],
        "CONTEXT": [1 / 2, -1 / 4, 1 / 4, -1 / 2],
    }
    for name, numbers in expected.items():
        torch.testing.assert_close(getattr(example, name), torch.tensor(numbers).double())
    assert "0   | 3/8 | 1/8 | 1/2" in inspect.getdoc(example)


def test_the_examples_values_have_rms_1_and_no_correlation():
    gram = example.VALUES @ example.VALUES.T / example.VALUES.shape[1]
    assert torch.equal(gram, torch.eye(3).double())
    # The theorem: RMS = |w|.
    torch.testing.assert_close(example.CONTEXT.square().mean(), example.W.square().sum())


def test_the_package_agrees_with_the_example():
    both = torch.stack([example.A1 @ example.VALUES, example.A2 @ example.VALUES])  # (2h, d)
    logit = torch.logit(torch.tensor(example.LAM)).double().view(1, 1, 1)
    out = minidiff.differential(both[None, None], logit)  # (1, 1, h, d)
    torch.testing.assert_close(out[0, 0, 0], example.CONTEXT)


# ---- The glossary ------------------------------------------------------------------------------

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
PAGES = sorted([*NOTEBOOKS.rglob("*.ipynb"), *NOTEBOOKS.parent.glob("*.md")])


def glossary():
    """Anchor -> what is said of the term."""
    parts = (NOTEBOOKS / "glossary.md").read_text(encoding="utf-8").split("\n### ")[1:]
    terms = [part.split("\n", 1) for part in parts]
    return {title.replace(" ", "-"): words.strip() for title, words in terms}


def test_every_term_that_is_linked_is_in_the_glossary():
    linked = {
        (page.name, term)
        for page in PAGES
        for term in re.findall(r"glossary\.md#([^)\s\\]+)\)", page.read_text(encoding="utf-8"))
    }
    unknown = {(page, term) for page, term in linked if term not in glossary()}
    assert not unknown, unknown


def test_the_glossary_is_short_plain_and_in_order():
    terms = glossary()
    assert list(terms) == sorted(terms) and len(terms) == len(set(terms))
    for term, words in terms.items():
        assert term == term.lower(), f"{term}: JupyterLab and GitHub agree only on small letters"
        assert 5 < len(words.split()) < 55, term
