"""Files that outlive kills, second processes and strangers: how to write, lock and read them.

What goes wrong with a file is said in one line: its path, what is wrong, what to do.
"""

import contextlib
import json
import logging
import os
import stat
from pathlib import Path

from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open

log = logging.getLogger("minidiff")


def replace_file(path, write):
    """Call write(new) for a new file beside path, then rename it: nobody ever meets half a file.

    A link in the place of the file is replaced, not written through. The mode is what the umask
    gives: safetensors alone makes files that only their owner can read.
    """
    path = Path(path)
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)  # a killed process left it, or it is a link
    try:
        new.touch()
        mode = stat.S_IMODE(new.stat().st_mode)
        write(new)
        new.chmod(mode)
        os.replace(new, path)
    finally:
        new.unlink(missing_ok=True)  # still there if the disk was full


def replace_text(path, text):
    """Write a text file, whole or not at all."""
    replace_file(path, lambda new: new.write_text(text, encoding="utf-8"))


@contextlib.contextmanager
def alone(path):
    """Hold a folder, or a file, against a second process; the lock of a killed one is free."""
    path = Path(path)
    lock = path / ".lock" if path.is_dir() else path.with_name(f".{path.name}.lock")
    lock = FileLock(lock, timeout=0, is_singleton=True)  # a singleton may be taken twice in here
    try:
        lock.acquire()
    except Timeout:
        if not os.path.exists(lock.lock_file):
            raise ValueError(f"{path}: nothing can be written beside it") from None
        raise ValueError(
            f"{path}: another process is writing it; wait for its end, or give another name"
        ) from None
    except NotImplementedError:
        log.warning("%s: this file system has no locks: start no second process on it", path)
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def new_file(path):
    """Hold a file that is still to be made, as :func:`alone` does; its folder is made if need be.

    Raises:
        ValueError: it is there already, or another process is making it.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with alone(path):
        if Path(path).exists():
            raise ValueError(f"{path}: there already; remove it, or give another --out")
        yield


def read_text(path, fix, errors="strict"):
    """The text of a UTF-8 file; ``fix`` ends the message where there is none."""
    try:
        _check_regular(path)
        return Path(path).read_text(encoding="utf-8", errors=errors)
    except (OSError, UnicodeDecodeError) as error:
        what = "not text in UTF-8" if isinstance(error, ValueError) else error.strerror
        raise ValueError(f"{path}: {what}; {fix}") from None


def read_json(path, fix):
    """The dict in a JSON file."""
    try:
        data = json.loads(read_text(path, fix))
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path}: not JSON ({error}); {fix}") from None
    if not isinstance(data, dict):
        raise ValueError(f"{path}: holds a {type(data).__name__}, not settings by name; {fix}")
    return data


@contextlib.contextmanager
def open_weights(path, fix):
    """As safetensors' safe_open: names, shapes and metadata are there, no tensor is read yet."""
    try:
        _check_regular(path)
        with safe_open(path, "pt") as file:
            yield file
    except SafetensorError as error:
        with open(path, "rb") as file:
            pointer = file.read(40).startswith(b"version https://git-lfs")
        what = f"not a whole safetensors file ({error})"
        fix = "fetch the file itself with git lfs pull" if pointer else fix
        what = "a Git LFS pointer, not the weights" if pointer else what
        raise ValueError(f"{path}: {what}; {fix}") from None
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or error}; {fix}") from None


def _check_regular(path):
    """A pipe or a device would be waited for without end."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(0, "a folder, pipe or device, not a file")
