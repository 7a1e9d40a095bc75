"""Text to tokens to batches, without reading a corpus into memory.

A token is a byte (0..255); one more token, BOS, is always the last id of the vocabulary. Every
window starts with BOS: a token that carries no content is where an attention sink forms, and
without one there is nothing to study.

``open_data`` takes the sources of this course: "stdlib" (Python's own sources, which lie on every
machine with Python), "python" (those and all installed packages: larger), any text file or folder,
and a folder in nanoGPT's format. What counts as text is written in sources.py.
"""

import functools
import hashlib
import operator
import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from minidiff.limits import memory
from minidiff.sources import (
    LOOK,
    DataError,
    Found,
    listing,
    name_of,
    python_files,
    read_tokens,
    shown,
    text_files,
    token_file,
)
from minidiff.sources import printable as printable  # for what a model writes on a terminal

VAL_SHARE = 0.1  # of the bytes


@dataclass
class Split:
    """One stream of tokens, BOS document BOS document ..., over parts of files on disk."""

    documents: list  # of (path, first token in the file, number of tokens)
    dtype: type  # uint8: bytes of text; uint16: nanoGPT's tokens
    bos: int
    ends: np.ndarray = field(init=False)  # where in the stream each document ends

    def __post_init__(self):
        self.ends = np.cumsum([count + 1 for _, _, count in self.documents], dtype=np.int64)

    def __len__(self):
        return int(self.ends[-1]) if len(self.ends) else 0

    def read(self, start, count):
        """Tokens start .. start + count - 1 of the stream, int64 (count,)."""
        pieces, i = [], int(np.searchsorted(self.ends, start, side="right"))
        while count > 0:
            path, first, size = self.documents[i]
            offset = start - int(self.ends[i]) + size + 1  # in [BOS, document]
            take = min(count, size + 1 - offset)
            if offset == 0:
                pieces.append([self.bos])
            begin, end = first + max(offset - 1, 0), first + offset - 1 + take
            if begin < end:
                pieces.append(read_tokens(path, self.dtype, begin, end - begin))
            start, count, i = start + take, count - take, i + 1
        return np.concatenate(pieces).astype(np.int64)

    def windows(self, starts, length):
        """Inputs and targets, int64 (B, length) each: window i begins with BOS at starts[i].

        Raises:
            DataError: windows that fill the memory or pass the split's end, files that have gone.
        """
        self._check(len(starts), length)
        tokens = np.stack([self.read(int(s), length + 1) for s in starts])
        tokens[:, 0] = self.bos
        if tokens.max() > self.bos:  # on a GPU this would end in an error that names nothing
            raise DataError(
                f"token {tokens.max()} in the data: give --vocab-size {tokens.max() + 2}"
            )
        tokens = torch.from_numpy(tokens)
        return tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()

    def batch(self, batch_size, length, seed, step):
        """The random batch of one step. It depends on (seed, step) only, so a resumed run, another
        variant and any number of processes all see the same data."""
        self._check(batch_size, length)
        rng = np.random.default_rng([_whole("seed", seed, 0), _whole("step", step, 0)])
        return self.windows(rng.integers(0, len(self) - length, batch_size), length)

    def fixed_batches(self, n_batches, batch_size, length):
        """Yield the same evenly spaced windows each time: for validation."""
        self._check(batch_size, length)
        self._check(n_batches * batch_size, 1)  # where they start
        starts = np.linspace(0, len(self) - length - 1, n_batches * batch_size).astype(np.int64)
        for part in starts.reshape(n_batches, batch_size):
            yield self.windows(part, length)

    def _check(self, rows, length):
        """Refuse impossible windows before anything is allocated."""
        rows, length = _whole("windows", rows, 1), _whole("window", length, 1)
        if length >= len(self):
            raise DataError(f"{len(self)} tokens hold no window of {length + 1}: give more text")
        need = 3 * 8 * rows * (length + 1)  # int64: as read, inputs, targets
        have = memory(torch.device("cpu"))
        if need > have / 2:
            raise DataError(
                f"{rows:,} windows of {length:,} tokens need {need / 1e9:,.1f} GB, over half of "
                f"the {have / 1e9:,.1f} GB here: use a smaller --batch-size, --block-size or "
                "--eval-batches"
            )


@dataclass
class Corpus:
    """A training and a validation stream that share no document.

    Of a file that holds most of the text, though, each has a part: validation has the end.
    Open it once and hand it to all that read it: of files that change meanwhile (or a log that
    lies in the folder) two openings would see different texts.
    """

    train: Split
    val: Split
    name: str
    fingerprint: str  # of the names and sizes of the documents: results are grouped by it
    tokens: str = "bytes"  # or "ids": nanoGPT's, which only their own tokenizer can read
    left_out: list = ()  # of (name of a file, reason)
    not_utf8: list = ()  # names of files that are read all the same, as bytes

    @functools.cached_property
    def content(self):
        """A hash of both ends of every document: most edits that keep all sizes change it."""
        ends = hashlib.sha256()
        for split in (self.train, self.val):
            for path, first, count in split.documents:
                size = min(count, LOOK)
                for start in sorted({first, first + count - size}):
                    ends.update(read_tokens(path, split.dtype, start, size))
        return ends.hexdigest()[:16]

    @property
    def facts(self):
        """What a run stores of its data, and :func:`text_changed` compares."""
        documents = self.train.documents + self.val.documents
        tokens = sum(count for _, _, count in documents)
        return {
            "data_fingerprint": self.fingerprint,
            "data_content": self.content,
            "data_tokens": self.tokens,
            "data_files": len({path for path, _, _ in documents}),
            "data_bytes": tokens * np.dtype(self.train.dtype).itemsize,
        }

    @property
    def report(self):
        """One line: what was read, and what was left out and why."""
        facts = self.facts
        read = listing(facts["data_files"], facts["data_bytes"], self.left_out, self.not_utf8)
        return f"minidiff data: {shown(self.name)}: {read}"  # a log is known by this line


def open_data(source="stdlib", vocab_size=257, block_size=256):
    """Open a text source for training; reads the two ends of each file, and nanoGPT tokens.

    Args:
        source: "stdlib" or "python"; a text file; a folder of text files; or a folder with
            train.bin and val.bin, uint16 tokens as nanoGPT writes them.
        vocab_size: tokens of the data plus one for BOS: 257 for text.
        block_size: every split must be longer than one window of this many tokens.
    Raises:
        DataError: missing, empty, too short, unreadable, no text, or tokens outside the vocabulary.
    """
    bos = _whole("--vocab-size", vocab_size, 2) - 1
    block_size = _whole("--block-size", block_size, 1)
    root = None if source in ("stdlib", "python") else _existing(source)
    bins = [root / "train.bin", root / "val.bin"] if root else []
    if any(map(os.path.exists, bins)):
        found, dtype = Found([root]), np.uint16
        parts = [[(path, 0, token_file(path, bos))] for path in bins]
    else:
        found, dtype = text_files(root) if root else python_files(source), np.uint8
        if bos < 256:
            raise DataError(f"--vocab-size {vocab_size}: text is bytes and BOS, so 257 tokens")
        if not found.files:
            read = listing(0, 0, found.left_out)
            raise DataError(f"--data {shown(source)}: {read}; give a file or folder with text")
        parts = _split([(path, 0, size) for path, size in sorted(found.files)], found.roots)
    train, val = (Split(part, dtype, bos) for part in parts)
    for split, what in ((train, "training"), (val, "validation")):
        if len(split) < block_size + 2:
            raise DataError(
                f"--data {shown(source)}: {len(split)} {what} tokens are fewer than one window of "
                f"{block_size + 1}; give more text or a smaller --block-size"
            )
    tokens = "ids" if dtype is np.uint16 else "bytes"
    fingerprint = _fingerprint(train.documents + val.documents, found.roots)
    return Corpus(train, val, str(source), fingerprint, tokens, found.left_out, found.not_utf8)


def text_changed(before, corpus):
    """Why a run cannot go on with this text, or None where it is the text that it began with.

    Args:
        before: the settings that the run stored, with the :attr:`Corpus.facts` of its text; of
            older runs only ``data_fingerprint``.
        corpus: what --data gives today. Compared are names, sizes and both ends of all files.
    """
    now = corpus.facts
    same_sizes, same_ends = (
        before.get(key) in (None, now[key]) for key in ("data_fingerprint", "data_content")
    )
    if same_sizes and same_ends:
        return None
    was, then = "", [before.get(name) for name in ("data_files", "data_bytes")]
    if same_sizes:
        was = " (files of the same names and sizes, with other bytes)"
    elif all(isinstance(number, int) for number in then):
        today = listing(now["data_files"], now["data_bytes"])
        was = f" (then {listing(*then)}, now {today})"
    return (
        f"--data {shown(corpus.name)}: not the text that this run began with{was}: bring that text "
        "back to go on with --resume; or train on today's text, from the start with --overwrite "
        "or another --out, or from this run's weights with --init-from"
    )


def encode(text, vocab_size=257):
    """Text -> (1, T) token ids that start with BOS."""
    return torch.tensor([[vocab_size - 1, *text.encode(errors="surrogatepass")]])


def decode(tokens):
    """(T,) or (1, T) token ids -> text; BOS is left out, bytes that are no UTF-8 become U+FFFD."""
    if tokens.ndim == 2 and len(tokens) == 1:
        tokens = tokens[0]
    if tokens.ndim != 1:
        raise ValueError(
            f"decode takes one text, (T,) or (1, T), not {tuple(tokens.shape)}: give decode(x[0])"
        )
    return bytes(t for t in tokens.tolist() if t < 256).decode(errors="replace")


def _whole(name, value, least):
    """A whole number, also one of NumPy's, as a Python int."""
    try:
        value = operator.index(value)
    except TypeError:
        raise DataError(f"{name} {value}: must be a whole number") from None
    if value < least:
        raise DataError(f"{name} {value}: must be at least {least}")
    return value


def _existing(source):
    if not str(source).strip():
        raise DataError("--data is empty; give a file or folder, or 'stdlib', which needs no file")
    try:
        root = Path(source).absolute()  # or a change of the working directory would lose it
        os.stat(root)
    except (OSError, ValueError) as error:  # ValueError: a zero in the name
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise DataError(f"--data {shown(source)}: {reason}; 'stdlib' needs no file") from None
    return root


def _split(documents, roots):
    """Whole documents go to validation, in the order of a hash of their names, up to a tenth.

    None that holds over a quarter of the text. Where the others fill no tenth (a single file, or
    one that holds most of the text), the largest is cut, and its end is the validation.
    """

    def shuffled(document):
        return hashlib.sha256(name_of(document[0], roots).encode(errors="surrogatepass")).digest()

    documents = sorted(documents, key=shuffled)
    total = sum(size for _, _, size in documents)
    tenth = VAL_SHARE * total
    fitting = [document for document in documents if document[2] <= total / 4]
    filled = np.cumsum([size for _, _, size in fitting])
    if fitting and filled[-1] >= tenth:
        val = fitting[: int(np.searchsorted(filled, tenth)) + 1]
        chosen = set(val)
        return [document for document in documents if document not in chosen], val
    largest = max(documents, key=lambda document: document[2])
    path, _, size = largest
    cut = int(size - tenth)
    rest = [document for document in documents if document != largest]
    return [*rest, (path, 0, cut)], [(path, cut, size - cut)]


def _fingerprint(documents, roots):
    listed = hashlib.sha256()
    for path, first, count in documents:
        line = f"{name_of(path, roots)}:{first}:{count};"
        listed.update(line.encode(errors="surrogatepass"))
    return listed.hexdigest()[:16]
