"""What the command line says where something is wrong: one line, no traceback, and no box.

tyro draws a box over several lines, with the names of its own classes in some. Its words are kept:
the first paragraph, the option that was perhaps meant, and where the help is.
"""

import contextlib
import io
import re
import sys

from safetensors import SafetensorError

EXPECTED = (
    ValueError, RuntimeError, ArithmeticError, OSError, MemoryError, ImportError, SafetensorError,
)  # fmt: skip


@contextlib.contextmanager
def one_line_errors():
    """While it lasts, an expected failure ends the program with one line and an exit code."""
    try:
        yield
    except EXPECTED as error:
        said = str(error)
        if isinstance(error, OSError) and error.filename and error.strerror:
            said = f"{error.filename}: {error.strerror.lower()}"  # "[Errno 13]" helps nobody
        sys.exit(f"error: {' '.join(said.split()) or type(error).__name__}")
    except KeyboardInterrupt as stopped:
        print(f"\n{stopped or 'stopped'}", file=sys.stderr)
        sys.exit(130)


def two_names(usage):
    """The two words behind a small program's name, or its usage as the one line."""
    if len(sys.argv) != 3:
        raise ValueError(f"give two names: {usage}")
    return sys.argv[1:]


@contextlib.contextmanager
def one_line_refusals():
    """While it lasts, a refusal of ``tyro.cli`` is a ValueError with one line.

    Raises:
        ValueError: the words do not fit; the message names the option and what it takes. A setting
            that a dataclass refused comes in the dataclass's own words.
        SystemExit: --help was asked for.
    """
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            yield
    except SystemExit as stop:
        box = said.getvalue()
        if not stop.code or not box:
            print(box, end="", file=sys.stderr)
            raise
        refused = stop.__context__ and (stop.__context__.__context__ or stop.__context__)
        of_a_class = re.search(r"Error parsing (?!-)", box)
        if of_a_class and isinstance(refused, ValueError):
            raise refused from None
        raise ValueError(one_line(box)) from None
    print(said.getvalue(), end="", file=sys.stderr)  # a warning of a library, perhaps


def one_line(box):
    """The sense of one of tyro's boxes in one line."""
    plain = re.sub(r"\x1b\[[\d;]*m", "", box)
    rows = [re.sub(r"^[│|]|[│|]$", "", row.strip()).strip() for row in plain.splitlines()[1:-1]]
    paragraphs = re.split(r"^[─-]{9,}$", "\n".join(rows), flags=re.MULTILINE)
    said = [" ".join(paragraph.split()) for paragraph in paragraphs if paragraph.strip()]
    first, *others = said or [" ".join(plain.split())]  # a box of another version, perhaps
    first = first.removeprefix("Error parsing ")
    for paragraph in others:
        if meant := re.match(r"Perhaps you meant: (--[\w-]+)", paragraph):
            first += f"; perhaps you meant {meant[1]}"
        elif takes := re.match(r"Argument helptext: (--\S+ [^a-z]*[^a-z ])", paragraph):
            first += f"; it takes {takes[1]}"
        elif paragraph.startswith("Available"):
            first += f"; {paragraph[0].lower()}{paragraph[1:]}"
    helps = re.search(r"For full helptext, (?:run|see):? (.*? --help)", " ".join(others))
    return f"{first.rstrip('. ')}; see {helps[1] if helps else '--help'}"
