"""Text to tokens to batches, without reading a corpus into memory.

A token is a byte (0..255); one more token, BOS, is always the last id of the vocabulary. Every
window starts with BOS: a token that carries no content is where an attention sink forms, and
without one there is nothing to study.

``open_data`` takes the sources of this course: "stdlib" (Python's own sources, which lie on every
machine with Python), "python" (those and all installed packages: larger), any text file or folder,
and a folder in nanoGPT's format.
"""

import functools
import hashlib
import sysconfig
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

VAL_SHARE = 0.1  # of the bytes


class DataError(ValueError):
    """The data cannot be trained on; the message names the cause and the fix."""


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
            pieces.append(_mapped(path, self.dtype)[begin:end])
            start, count, i = start + take, count - take, i + 1
        return np.concatenate(pieces).astype(np.int64)

    def windows(self, starts, length):
        """Inputs and targets, int64 (B, length) each: window i begins with BOS at starts[i]."""
        tokens = np.stack([self.read(int(s), length + 1) for s in starts])
        tokens[:, 0] = self.bos
        tokens = torch.from_numpy(tokens)
        return tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()

    def batch(self, batch_size, length, seed, step):
        """The random batch of one step. It depends on (seed, step) only, so a resumed run, another
        variant and any number of processes all see the same data."""
        rng = np.random.default_rng([seed, step])
        return self.windows(rng.integers(0, len(self) - length, batch_size), length)

    def fixed_batches(self, n_batches, batch_size, length):
        """Yield the same evenly spaced windows each time: for validation."""
        starts = np.linspace(0, len(self) - length - 1, n_batches * batch_size).astype(np.int64)
        for part in starts.reshape(n_batches, batch_size):
            yield self.windows(part, length)


@dataclass
class Corpus:
    """A training and a validation stream that share no document."""

    train: Split
    val: Split
    name: str
    fingerprint: str  # of the names and sizes of the documents: the same data gives the same


def open_data(source="stdlib", vocab_size=257, block_size=256):
    """Open a text source for training; reads only directory entries (and checks nanoGPT's tokens).

    Args:
        source: "stdlib" or "python"; a text file; a folder of text files; or a folder with
            train.bin and val.bin, uint16 tokens as nanoGPT writes them.
        vocab_size: tokens of the data plus one for BOS: 257 for text.
        block_size: every split must be longer than one window of this many tokens.
    Raises:
        DataError: missing, empty, too short, unreadable, or tokens outside the vocabulary.
    """
    bos, roots = vocab_size - 1, [Path(source)]
    if source in ("stdlib", "python"):
        paths = sysconfig.get_paths()
        where = ["stdlib"] if source == "stdlib" else ["stdlib", "purelib", "platlib"]
        roots = sorted({Path(paths[key]) for key in where})
        files = {f for root in roots for f in root.rglob("*.py") if _own(f, root)}
    elif not roots[0].exists():
        raise DataError(f"--data {source}: no such file or folder; 'stdlib' needs no file at all")
    elif (roots[0] / "train.bin").exists():
        return _open_nanogpt(roots[0], bos, block_size)
    elif roots[0].is_dir():
        files = [f for f in roots[0].rglob("*") if f.is_file() and _is_text(f, roots[0])]
        files = [f for f in files if not (f.parent / "metrics.jsonl").exists()]  # a run's folder
    else:
        files = roots
    if vocab_size < 257:
        raise DataError(f"--vocab-size {vocab_size}: text is bytes and BOS, so 257 tokens")
    _mapped.cache_clear()  # a file may have changed since it was last opened
    documents = [(f, 0, f.stat().st_size) for f in sorted(files) if f.stat().st_size > 0]
    if not documents:
        raise DataError(
            f"--data {source}: no text in it (empty, hidden and binary files are left out)"
        )
    train, val = _split(documents, roots)
    return _corpus(
        Split(train, np.uint8, bos), Split(val, np.uint8, bos), source, roots, block_size
    )


def encode(text, vocab_size=257):
    """Text -> (1, T) token ids that start with BOS."""
    return torch.tensor([[vocab_size - 1, *text.encode()]])


def decode(tokens):
    """(T,) token ids -> text; BOS is left out, bytes that are no UTF-8 become U+FFFD."""
    return bytes(t for t in tokens.tolist() if t < 256).decode(errors="replace")


@functools.lru_cache(maxsize=8192)
def _mapped(path, dtype):
    """The file as an array that the system reads page by page, when a window touches it."""
    return np.memmap(path, dtype, "r").view(np.ndarray)


def _name(path, roots):
    """The document's name, which is the same wherever its root folder lies."""
    return next(path.relative_to(root).as_posix() for root in roots if path.is_relative_to(root))


def _own(path, root):
    """Whether a file belongs to this root and not to packages that are installed inside it."""
    inside = {"site-packages", "dist-packages"} & set(path.relative_to(root).parts)
    return not inside and path.is_file()  # not a folder, nor a link to nowhere


def _split(documents, roots):
    """Whole documents go to validation, in the order of a hash of their names, up to a tenth.

    None that holds over a quarter of the text; where the others fill no tenth, the largest is cut.
    """

    def shuffled(document):
        return hashlib.sha256(_name(document[0], roots).encode()).digest()

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


def _open_nanogpt(folder, bos, block_size):
    splits = []
    for name in ("train.bin", "val.bin"):
        path = folder / name
        if not path.exists():
            raise DataError(f"--data {folder}: {name} is missing beside the other .bin file")
        if path.stat().st_size % 2:
            raise DataError(f"{path} has an odd number of bytes: it must hold uint16 tokens")
        tokens = np.memmap(path, np.uint16, "r") if path.stat().st_size else np.zeros(0, np.uint16)
        step = 1 << 24  # 32 MB at a time
        largest = max(
            (int(tokens[i : i + step].max()) for i in range(0, len(tokens), step)), default=0
        )
        if largest >= bos:
            raise DataError(
                f"{path} holds token {largest}: give --vocab-size {largest + 2} or more (one for "
                "BOS), or write the file as uint16 if it has another type"
            )
        splits.append(Split([(path, 0, len(tokens))], np.uint16, bos))
    return _corpus(*splits, str(folder), [folder], block_size)


def _corpus(train, val, source, roots, block_size):
    for split, what in ((train, "training"), (val, "validation")):
        if len(split) < block_size + 2:
            raise DataError(
                f"--data {source}: {len(split)} {what} tokens are fewer than one window of "
                f"{block_size + 1}; give more text or a smaller --block-size"
            )
    listing = hashlib.sha256()
    for path, first, count in train.documents + val.documents:
        try:
            path.open("rb").close()
        except OSError as error:
            raise DataError(f"--data {source}: cannot read {path}: {error.strerror}") from None
        listing.update(f"{_name(path, roots)}:{first}:{count};".encode())
    return Corpus(train, val, source, listing.hexdigest()[:16])


def _is_text(path, root):
    """Neither hidden nor binary: binary files almost always have a zero byte near their start."""
    if any(part.startswith(".") for part in path.relative_to(root).parts):
        return False
    try:
        with path.open("rb") as file:
            return b"\0" not in file.read(8192)
    except OSError:
        return True  # reported, with its name, when the corpus is opened
