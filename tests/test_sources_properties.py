"""Whatever lies in a folder: a corpus, or one line that names path and fix; no hang, no leak."""

import contextlib
import os
import signal
import socket
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_sources import NOT_TEXT, POSIX, TEXT, peak_mb

from minidiff.data import Corpus, DataError, decode, encode, open_data, printable
from minidiff.sources import judge, shown


@pytest.mark.slow
@given(st.integers(0, 2**32), st.integers(300, 20_000))
def test_random_bytes_are_no_text(seed, size):
    with tempfile.TemporaryDirectory() as name:
        (path := Path(name) / "a.txt").write_bytes(np.random.default_rng(seed).bytes(size))
        assert judge(path)[0] is not None


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1).map(lambda t: t * 300))
def test_text_in_any_script_is_text(text):
    with tempfile.TemporaryDirectory() as name:
        (path := Path(name) / "a.txt").write_bytes(text.encode())
        reason, utf8 = judge(path)
        assert (reason, utf8) == (None, True)


@given(st.text())
def test_any_text_is_encoded_and_printed_without_harm(text):
    assert encode(text)[0, 0] == 256
    seen = printable(decode(encode(text)[0]))
    assert all(c.isprintable() or c in "\n\t\u200c\u200d\u3000" or c.isspace() for c in seen)
    assert "\x1b" not in seen and "\r" not in seen
    if text.isprintable():
        assert seen == text


# ---- Hostile folders -----------------------------------------------------------------------------

ENCODINGS = ["utf-8", "utf-16", "utf-16-le", "utf-32", "latin-1", "cp1252", "shift_jis", "utf-7"]
NAMES = st.sampled_from(
    ["train.bin", "val.bin", "meta.pkl", "metrics.jsonl", "config.json", "a.txt"]
)
NAMES |= st.binary(min_size=1, max_size=40).map(
    lambda b: os.fsdecode(b.replace(b"\0", b"").replace(b"/", b""))
)
CONTENTS = st.sampled_from(
    [*NOT_TEXT.values(), bytes(range(256)) * 50, b"\xff" * 5000, b"7\0\0\0" * 400]
)
CONTENTS |= st.binary(max_size=600)
CONTENTS |= st.builds(
    lambda text, code, times: text.encode(code, "replace") * times,
    st.text(min_size=1), st.sampled_from(ENCODINGS), st.integers(1, 2000),
)  # fmt: skip
TARGETS = ["a.txt", ".", "..", "/", "/dev/zero", "/dev/random", "/dev/stdin", "/proc/self/mem",
           "/proc/kmsg", "nowhere", "a.txt/b", "n" * 300]  # fmt: skip
ENTRIES = st.tuples(NAMES, st.one_of(
    st.tuples(st.just("file"), CONTENTS), st.tuples(st.just("link"), st.sampled_from(TARGETS)),
    st.tuples(st.just("sparse"), st.integers(1, 1 << 40)), st.tuples(st.just("pipe"), st.none()),
    st.tuples(st.just("socket"), st.none()), st.tuples(st.just("folder"), st.none()),
))  # fmt: skip


def put(folder, name, kind, what):
    """Make one entry; what the file system refuses is not made."""
    path = folder / name
    if os.path.lexists(path):  # never write through what an earlier entry made
        return
    if kind == "file":
        path.write_bytes(what)
    elif kind == "link":
        path.symlink_to(what)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as unix:
            unix.bind(str(path))
    elif kind == "sparse":
        with path.open("wb") as file:
            file.truncate(what)
    else:
        path.mkdir()
        (path / "inside.txt").write_bytes(TEXT.encode())


@contextlib.contextmanager
def within(seconds):
    """A hang becomes an error (of a kind that no one catches: TimeoutError is an OSError)."""

    def stop(*_):
        raise AssertionError(f"took over {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.slow
@POSIX
@settings(max_examples=300)
@given(st.lists(ENTRIES, max_size=8), st.integers(0, 8), st.sampled_from([257, 50304]))
def test_a_hostile_folder_is_a_corpus_or_one_line(entries, which, vocab_size):
    before = peak_mb()
    with tempfile.TemporaryDirectory() as name, within(20):
        folder = Path(name)
        for entry, (kind, what) in entries:
            with contextlib.suppress(OSError, ValueError):
                put(folder, entry, kind, what)
        made = sorted(folder.iterdir())
        source = made[which] if which < len(made) else folder  # one entry, or all of them
        if os.path.islink(source) and os.path.isdir(source):
            source = folder  # not all of this machine
        opened = len(os.listdir("/dev/fd"))
        try:
            corpus = open_data(str(source), vocab_size, block_size=8)
        except DataError as error:
            line = str(error)
            assert shown(folder) in line and line.isprintable()
            assert any(
                word in line for word in ("give ", "write it anew", "write tokens", "needs no")
            )
        else:
            assert isinstance(corpus, Corpus) and corpus.report.isprintable()
            assert len(corpus.fingerprint) == 16 and len(corpus.facts) == 5
            for split in (corpus.train, corpus.val):
                x, _ = split.batch(4, 8, 0, 0)
                assert x.min() >= 0 and x.max() < vocab_size
            train, val = (set(split.documents) for split in (corpus.train, corpus.val))
            assert not train & val
        assert len(os.listdir("/dev/fd")) == opened
    assert peak_mb() - before < 300
