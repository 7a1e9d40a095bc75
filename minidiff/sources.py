"""Which files are text: the files of a source, and what is left out of it and why.

Only plain files are opened (a pipe would wait for ever), none stays open, and of each no more than
its two ends is read. What minidiff itself writes is never text: a run must not learn its own log.
"""

import codecs
import os
import re
import stat
import sysconfig
import unicodedata
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

LOOK = 8192  # bytes at each end of a file that tell whether it is text
CHUNK = 1 << 22  # tokens that are checked at once

UTF16 = "UTF-16; save it as UTF-8: iconv -f UTF-16 -t UTF-8 OLD > NEW"
FORMATS = (  # how the bytes of a file begin, what it is, and what to do
    (rb"\x1f\x8b", "gzip; unpack it: python -m gzip -d FILE"),
    (rb"PK\x03\x04", "zip; unpack it: python -m zipfile -e FILE FOLDER"),
    (rb"BZh\d1AY&SY", "bzip2; unpack it: bunzip2 FILE"),
    (rb"\xfd7zXZ\0", "xz; unpack it: unxz FILE"),
    (rb"\x28\xb5\x2f\xfd", "zstd; unpack it: unzstd FILE"),
    (rb"%PDF-", "PDF; save its text: pdftotext FILE"),
    (rb"PAR1", "Parquet; write its text column into a file"),
    (rb".{4}\0{4}\{\"", "safetensors; weights are no text"),
    (rb"\xff\xfe\0\0", "UTF-32; save it as UTF-8: iconv -f UTF-32 -t UTF-8 OLD > NEW"),
    (rb"\xff\xfe|\xfe\xff", UTF16),
    (rb"version https://git-lfs\.github\.com/spec/", "a Git LFS pointer; fetch it: git lfs pull"),
)
_RESULTS = re.compile(  # of compare, also of older versions; of claims; of bench; of a training
    rb'\A\{\s*("settings": \{\s*"data": "[0-9a-f]{16}"|"rows": \[\s*\{\s*"key": "[\w.]+-D\d+-L\d'
    rb'|"command": (\[\s*)?"(python[^"\n]* -m minidiff|[^\n]*\n\s*"date": "[^\n]*\n\s*"machine": )'
    rb'|[^\0]*?"data_fingerprint": "[0-9a-f]{16}")'
)
_METRICS = re.compile(rb'\A\{"step": \d+, [^\n]*"tokens_per_s": \d+\}')
_LOG = re.compile(  # what is printed first, the progress bar, what is printed last
    rb"(?m)^minidiff( data: |: attention )|step/s, loss [\d.]+, |^\S+ +validation loss \S+ nats/"
)
# By the end of a name, and only then by the content: other people's text may quote both.
OWN = {".json": _RESULTS, ".jsonl": _METRICS, ".log": _LOG, ".out": _LOG, "log": _LOG}
CONTROL = bytes({*range(32), 127} - set(b"\b\t\n\f\r\x1b"))  # rare in text, 1 of 10 elsewhere
CONTINUATION = bytes(range(0x80, 0xC0))  # never first in a character of UTF-8
JOINERS = "\u200c\u200d"  # invisible, but emoji and several scripts are written with them


class DataError(ValueError):
    """The data cannot be trained on; the message names the cause and the fix."""


@dataclass
class Found:
    """The files of a source, and the rest of it."""

    roots: list  # document names are relative to these folders
    files: list = field(default_factory=list)  # of (path, bytes)
    left_out: list = field(default_factory=list)  # of (name, reason)
    not_utf8: list = field(default_factory=list)  # names of files that are read all the same

    def leave_out(self, path, reason):
        self.left_out.append((self._name(path), reason))

    def add(self, path):
        """Take a file if it is text, else note why not."""
        try:
            size = os.stat(path).st_size
            reason, utf8 = judge(path)
        except OSError as error:
            reason = _reason(error)
        if reason:
            self.leave_out(path, reason)
            return
        self.files.append((path, size))
        if not utf8:
            self.not_utf8.append(self._name(path))

    def _name(self, path):
        return path.name if path in self.roots else name_of(path, self.roots)


def python_files(source):
    """Python's own sources ("stdlib"), or those and all installed packages ("python")."""
    where = ["stdlib"] if source == "stdlib" else ["stdlib", "purelib", "platlib"]
    roots = sorted((Path(sysconfig.get_paths()[key]) for key in where), reverse=True)
    found = Found(sorted({r.resolve(): r for r in roots}.values()))  # lib64 may be a link to lib
    files = {f for root in found.roots for f in root.rglob("*.py") if _own(f, root)}
    for path in sorted(files):
        try:
            path.open("rb").close()
            size = path.stat().st_size
        except OSError as error:
            found.leave_out(path, _reason(error))
        else:
            found.files += [(path, size)] if size else []
    return found


def text_files(root):
    """The text of a folder and of the folders in it, or one text file.

    Hidden files, runs of minidiff and links to folders are left out, and of several links to one
    file all but one: or the same text would be in training and in validation.
    """
    found, folders, paths, seen = Found([root]), [root], [], set()
    if not os.path.isdir(root):
        found.add(root)
        return found
    while folders:
        folder = folders.pop()
        try:
            names = sorted(os.listdir(folder))
        except OSError as error:
            found.leave_out(folder, _reason(error))
            continue
        if {"metrics.jsonl", "config.json"} <= set(names):
            found.leave_out(folder, "a run of minidiff, not its text")
            continue
        for path in (folder / name for name in names):
            if path.name.startswith("."):
                found.leave_out(path, "hidden")
            elif not os.path.isdir(path):
                paths.append((os.path.islink(path), path))
            elif os.path.islink(path):
                found.leave_out(path, "a link to a folder; give that folder itself")
            else:
                folders.append(path)
    for _, path in sorted(paths):  # a file before the links to it
        identity = _identity(path)
        if identity in seen:
            found.leave_out(path, "the same file once more")
        else:
            found.add(path)
            seen |= {identity} - {None}
    return found


def judge(path):
    """Whether a file is text: (None, whether it is UTF-8), or (why not, False).

    Raises:
        OSError: the file cannot be read.
    """
    status = os.stat(path)
    size = status.st_size
    if not stat.S_ISREG(status.st_mode):
        return "a pipe, socket or device; write its text into a file", False
    if size == 0:
        return "empty", False
    head, tail = read_part(path, 0, LOOK), read_part(path, max(LOOK, size - LOOK), LOOK)
    if len(head) < min(size, LOOK):
        return "not of the size that its folder names", False
    for start, reason in FORMATS:
        if re.match(start, head, re.DOTALL):
            return reason, False
    if path.name in ("train.bin", "val.bin"):
        return "tokens; give the folder that holds train.bin and val.bin", False
    if _is_utf16(head):
        return UTF16, False
    for part in (head, tail):
        controls = len(part) - len(part.translate(None, CONTROL))
        if b"\0" in part or controls > len(part) / 50:
            return "binary", False
    if (own := OWN.get(path.suffix or path.name)) and own.search(head):
        return "written by minidiff", False
    return None, all(map(_is_utf8, (head, tail)))


def read_part(path, start, count):
    """Up to count bytes of a file; it is closed again, as descriptors are few."""
    with open(path, "rb", buffering=0) as file:
        file.seek(start)
        return file.read(count)


def token_file(path, bos):
    """How many uint16 tokens a file of nanoGPT's holds, once they are known to be below BOS.

    Looks at up to 64 * CHUNK tokens, in pieces from all over the file.

    Raises:
        DataError: no such file, uint32 tokens, or tokens outside the vocabulary.
    """
    if not os.path.isfile(path):
        raise DataError(
            f"{shown(path)} is no file; give a folder with train.bin and val.bin, or with neither"
        )
    size, largest = os.path.getsize(path), 0
    if size % 2:
        raise DataError(f"{shown(path)} has an odd number of bytes; write tokens as uint16")
    starts = range(0, size // 2, CHUNK)
    for start in starts[:: 1 + len(starts) // 64]:
        tokens = read_tokens(path, np.uint16, start, min(CHUNK, size // 2 - start))
        if start == 0 and _is_uint32(tokens):
            raise DataError(
                f"{shown(path)} seems to hold uint32 tokens (every second uint16 is near 0): "
                "write it anew as uint16, with a tokenizer of at most 65,535 tokens"
            )
        largest = max(largest, int(tokens.max()))
    if largest >= bos:
        raise DataError(
            f"{shown(path)} holds token {largest}: give --vocab-size {largest + 2} or more (the "
            "tokenizer's size and one for BOS; meta.pkl is not read, as a pickle can run code)"
        )
    return size // 2


def read_tokens(path, dtype, start, count):
    """Tokens start .. start + count - 1 of a file."""
    size = np.dtype(dtype).itemsize
    try:
        data = read_part(path, start * size, count * size)
    except OSError as error:
        raise DataError(f"cannot read {shown(path)} ({_reason(error)}); give --data anew") from None
    if len(data) < count * size:
        raise DataError(f"{shown(path)} is shorter than when it was opened; give --data anew")
    return np.frombuffer(data, dtype)


def listing(files, size, left_out=(), not_utf8=()):
    """What was read and what was not, in one line; the rarest reasons come first."""
    amount = f"{size / 1e6:,.1f} MB" if size >= 1e5 else f"{size:,} bytes"
    line = f"{files:,} file{'s' * (files != 1)}, {amount}" if files else "no text"
    if not_utf8:
        line += f"; not UTF-8, read as bytes: {_some(not_utf8)}"
    groups = defaultdict(list)
    for name, reason in left_out:
        groups[reason].append(name)
    reasons = sorted(groups, key=lambda reason: (len(groups[reason]), reason))
    parts = [f"{_some(groups[reason])} ({reason})" for reason in reasons]
    return f"{line}; {len(left_out):,} left out: {', '.join(parts)}" if parts else line


def name_of(path, roots):
    """The document's name, which is the same wherever its root folder lies."""
    return next(path.relative_to(root).as_posix() for root in roots if path.is_relative_to(root))


def printable(text, keep="\n\t"):
    """Text for a terminal: control characters as escapes (``\\x1b``), or they would steer it."""

    def harmless(c):
        return c.isprintable() or c in keep or c in JOINERS or unicodedata.category(c) == "Zs"

    return "".join(c if harmless(c) else ascii(c)[1:-1] for c in text.replace("\r\n", "\n"))


def shown(path):
    """A path or name as it can stand in a line of a message."""
    return printable(str(path), keep="")


def _some(names, most=2):
    some = ", ".join(shown(name) for name in names[:most])
    return some if len(names) <= most else f"{some} and {len(names) - most:,} more"


def _reason(error):
    return (error.strerror or str(error)).lower()


def _own(path, root):
    """Whether a file belongs to this root and not to packages that are installed inside it."""
    inside = {"site-packages", "dist-packages"} & set(path.relative_to(root).parts)
    return not inside and os.path.isfile(path)  # not a folder, nor a link to nowhere


def _identity(path):
    """What all links to one file share; None where there is none to tell."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return (status.st_dev, status.st_ino) if status.st_ino else None


def _is_utf8(part):
    """Whether the bytes are UTF-8, but for characters that are cut at the ends of the part."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(part.lstrip(CONTINUATION))
    except UnicodeDecodeError:
        return False
    return True


def _is_uint32(tokens):
    """Read as uint16, ids of up to four times 65,536 are pairs of any number and one below 4."""
    low, high = tokens[::2], tokens[1::2]
    return high.size > 0 and high.max() < 4 <= low.max()


def _is_utf16(head):
    """Without a byte-order mark: text in one half of the bytes and zeros in the other."""
    zeros = [2 * head[i::2].count(0) / len(head) for i in (0, 1)]
    text = head[0::2] if zeros[1] > zeros[0] else head[1::2]
    return max(zeros) > 0.5 and min(zeros) < 0.05 and b"" != text == text.translate(None, CONTROL)
