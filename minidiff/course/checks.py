"""Checks of exercises: each says what is wrong with an answer, and never tells the right one.

    from minidiff.course import check

    check.weight_zero(my_lambda)   # prints one line: right, not yet and why, or not answered yet

A check is a short function under ``@checks``. It calls ``expect(condition, what is wrong)`` in
the order in which a student should mend things, and returns what is worth adding to "Right". The
tools below turn what a student may hand in (number, tensor, list, function) into what is expected.
A notebook's checks lie in a file of their own, such as checks_00.py; check.py collects them.
"""

import functools
import math

import torch


class Wrong(Exception):
    """What is wrong with an answer, in one or two sentences."""


def checks(judge):
    """Decorator: ``check(answer, ...)`` prints the verdict; ``check.verdict(...)`` gives it as
    (right, words), where right is None while any part of the answer is still None."""

    @functools.wraps(judge)
    def verdict(*answers):
        if not answers or any(answer is None for answer in answers):
            return None, "Not answered yet."
        try:
            added = judge(*answers)
        except Wrong as wrong:
            return False, f"Not yet. {wrong}"
        return True, f"Right. {added or ''}".rstrip()

    @functools.wraps(judge)
    def check(*answers):
        print(verdict(*answers)[1])

    check.verdict = verdict
    return check


def expect(condition, wrong):
    """Go on if the condition holds; otherwise the answer is wrong, for this reason."""
    if not condition:
        raise Wrong(wrong)


def number(answer, what="the answer"):
    """A finite float from a number or a tensor of one element."""
    try:
        value = float(answer)
    except (TypeError, ValueError, RuntimeError):
        raise Wrong(f"{what} must be one number; this is {_named(answer)}.") from None
    expect(math.isfinite(value), f"{what} is {value}: somewhere a division by 0 or an overflow.")
    return value


def numbers(answer, shape, what="the answer"):
    """A float64 tensor of this shape from a tensor, an array or nested lists."""
    try:
        values = torch.as_tensor(answer).detach().double().cpu()
    except (TypeError, ValueError, RuntimeError):
        raise Wrong(f"{what} must be numbers; this is {_named(answer)}.") from None
    given = tuple(values.shape)
    expect(given == tuple(shape), f"{what} has the shape {given}, and {tuple(shape)} is asked for.")
    expect(values.isfinite().all(), f"{what} holds a number that is not finite.")
    return values


def truth(answer, what="the answer"):
    """A bool; 0, 1 and words such as "yes" are refused, since they are easily meant otherwise."""
    expect(isinstance(answer, bool), f"{what} must be True or False; this is {_named(answer)}.")
    return answer


def call(function, *arguments):
    """What the student's function returns; an error in it becomes the verdict."""
    expect(callable(function), f"Hand in the function itself; this is {_named(function)}.")
    try:
        result = function(*arguments)
    except Exception as error:
        raise Wrong(f"Your function raised {type(error).__name__}: {error}") from error
    expect(result is not None, "Your function returns nothing: is there a `return`?")
    return result


def close(a, b, tolerance=1e-3):
    """Whether two numbers or tensors agree to a part in a thousand, or as said."""
    a, b = torch.as_tensor(a).double(), torch.as_tensor(b).double()
    return bool(torch.allclose(a, b, rtol=tolerance, atol=tolerance * 1e-3))


def _named(answer):
    """What was handed in, short enough for a line."""
    words = repr(answer).replace("\n", " ")
    return words if len(words) <= 40 else f"a {type(answer).__name__}"
