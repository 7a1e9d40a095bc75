"""Data: windows start with BOS, splits share no document, bad sources are named before training."""

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_sources import peak_mb

from minidiff.data import DataError, Split, decode, encode, open_data, text_changed


@pytest.fixture
def folder(tmp_path):
    for i in range(30):
        (tmp_path / f"doc{i:02}.txt").write_text(f"document {i} " * (20 + i), encoding="utf-8")
    return tmp_path


@given(st.lists(st.binary(min_size=1, max_size=9), min_size=1, max_size=6), st.data())
def test_any_part_of_the_stream_is_what_concatenation_gives(tmp_path_factory, documents, data):
    folder = tmp_path_factory.mktemp("documents")
    spans, stream = [], []
    for i, content in enumerate(documents):
        (folder / str(i)).write_bytes(b"xx" + content)  # a part of a file: skip two bytes
        spans.append((folder / str(i), 2, len(content)))
        stream += [256, *content]
    split = Split(spans, np.uint8, bos=256)
    assert len(split) == len(stream)
    start = data.draw(st.integers(0, len(stream) - 1))
    count = data.draw(st.integers(1, len(stream) - start))
    assert split.read(start, count).tolist() == stream[start : start + count]


def test_windows_start_with_bos_and_targets_are_shifted_by_one(folder):
    x, y = open_data(str(folder), block_size=32).train.batch(8, 32, seed=0, step=0)
    assert x.shape == y.shape == (8, 32) and x.dtype == torch.int64
    assert (x[:, 0] == 256).all()
    assert torch.equal(x[:, 1:], y[:, :-1])


def test_a_batch_depends_on_seed_and_step_only(folder):
    train = open_data(str(folder), block_size=32).train
    first = train.batch(4, 32, seed=0, step=7)[0]
    train.batch(4, 32, seed=0, step=8)
    assert torch.equal(first, open_data(str(folder), block_size=32).train.batch(4, 32, 0, 7)[0])
    assert not torch.equal(first, train.batch(4, 32, seed=0, step=8)[0])
    assert not torch.equal(first, train.batch(4, 32, seed=1, step=7)[0])


def test_splits_share_no_document_and_validation_is_about_a_tenth(folder):
    corpus = open_data(str(folder), block_size=32)
    train, val = ({d[0] for d in s.documents} for s in (corpus.train, corpus.val))
    assert not train & val and len(train | val) == 30
    assert 0.05 < len(corpus.val) / (len(corpus.train) + len(corpus.val)) < 0.2


@pytest.mark.parametrize("name", ["a.txt", "book.txt", "z.txt", "0.txt"])
def test_a_large_document_is_cut_and_does_not_become_the_validation(tmp_path, name):
    (tmp_path / name).write_text("a long book " * 9000, encoding="utf-8")
    (tmp_path / "notes.txt").write_text("notes " * 500, encoding="utf-8")
    corpus = open_data(str(tmp_path), block_size=32)
    assert len(corpus.val) / (len(corpus.train) + len(corpus.val)) == pytest.approx(0.1, abs=0.01)
    assert corpus.train.documents[-1][2] == corpus.val.documents[0][1]  # one goes on as the other


def test_fingerprints_stay_as_results_have_stored_them(folder):
    assert open_data(str(folder), block_size=32).fingerprint == "998bd4cdb72cb415"


def test_a_file_that_changed_is_read_anew(tmp_path):
    for letter in "ab":
        (tmp_path / "text.txt").write_text(letter * 2000, encoding="utf-8")
        x, _ = open_data(str(tmp_path / "text.txt"), block_size=32).train.batch(1, 32, 0, 0)
        assert (x[0, 1:] == ord(letter)).all()


def test_validation_windows_are_the_same_each_time_from_the_first_to_the_last(folder):
    val = open_data(str(folder), block_size=32).val
    once, again = (torch.stack([x for x, _ in val.fixed_batches(3, 2, 32)]) for _ in range(2))
    assert torch.equal(once, again) and once.shape == (3, 2, 32)
    last = len(val) - 32 - 1  # the target of its last token is the last of all
    for i, window in enumerate(once.flatten(0, 1)):
        assert window[1:].tolist() == val.read(last * i // 5, 32)[1:].tolist()


def test_a_single_file_is_cut_once(tmp_path):
    text = bytes(range(97, 117)) * 50
    (tmp_path / "one.txt").write_bytes(text)
    corpus = open_data(str(tmp_path / "one.txt"), block_size=32)
    train = corpus.train.read(0, len(corpus.train))[1:]
    val = corpus.val.read(0, len(corpus.val))[1:]
    assert bytes(train.tolist() + val.tolist()) == text and len(val) == 100


def test_a_large_file_is_not_read_into_memory(tmp_path):
    """A sparse 3 GB file: opening it and drawing a batch touches a few windows only."""
    path = tmp_path / "large.txt"
    with path.open("wb") as file:
        file.write(b"text " * 2000)
        file.truncate(3 << 30)
        file.seek(0, 2)
        file.write(b"text " * 2000)
    before = peak_mb()
    x, _ = open_data(str(path), block_size=64).train.batch(16, 64, 0, 0)
    assert x.shape == (16, 64) and peak_mb() - before < 200


@pytest.mark.slow
def test_the_standard_library_is_the_default_and_is_python():
    corpus = open_data()
    assert len(corpus.train) > 5e6 and all(d[0].suffix == ".py" for d in corpus.val.documents)
    assert corpus.fingerprint == open_data().fingerprint


@pytest.mark.slow
def test_python_adds_the_installed_packages_and_nothing_twice():
    stdlib, python = open_data("stdlib"), open_data("python")
    small, large = ([d[0] for s in (c.train, c.val) for d in s.documents] for c in (stdlib, python))
    assert set(small) < set(large) and len(large) == len(set(large))
    assert any(path.parts[-2:] == ("torch", "__init__.py") for path in large)


def test_nanogpt_folder(tmp_path):
    tokens = np.arange(1000, dtype=np.uint16) % 500
    tokens.tofile(tmp_path / "train.bin")
    tokens[:200].tofile(tmp_path / "val.bin")
    x, y = open_data(str(tmp_path), vocab_size=501, block_size=16).train.batch(4, 16, 0, 0)
    assert (x[:, 0] == 500).all() and (y[:, 1:] == (y[:, :-1] + 1) % 500).all()


def test_a_nanogpt_folder_of_few_symbols_is_not_bytes(tmp_path):
    _bins(tmp_path, bytes([1, 0, 64, 0]) * 100)  # "shakespeare_char" has 65 symbols
    corpus = open_data(str(tmp_path), block_size=16)
    assert corpus.tokens == "ids" and corpus.report.endswith("2 files, 800 bytes")


def test_a_token_outside_the_vocabulary_that_opening_did_not_see(tmp_path):
    _bins(tmp_path, b"\1\0" * 200)
    train = open_data(str(tmp_path), block_size=16).train
    np.full(200, 600, np.uint16).tofile(tmp_path / "train.bin")
    with pytest.raises(DataError, match="token 600 in the data: give --vocab-size 602"):
        train.batch(1, 16, 0, 0)


def test_meta_pkl_is_not_unpickled(tmp_path):
    _bins(tmp_path, np.arange(999, dtype=np.uint16).tobytes())
    ran = tmp_path / "ran"
    (tmp_path / "meta.pkl").write_bytes(f"cos\nmkdir\n(S'{ran}'\ntR.".encode())
    with pytest.raises(DataError, match=r"--vocab-size 1000 .*meta\.pkl is not read"):
        open_data(str(tmp_path))
    assert not ran.exists()


def test_text_survives_encoding_and_bos_is_first():
    text = "naïve → def f():\n"
    tokens = encode(text)
    assert tokens[0, 0] == 256 and decode(tokens) == decode(tokens[0]) == text


def test_a_batch_is_not_decoded_as_one_text():
    """generate gives (B, T); of a single text it may stay as it is."""
    with pytest.raises(ValueError, match=r"not \(2, 3\): give decode\(x\[0\]\)"):
        decode(torch.zeros(2, 3, dtype=torch.long))
    with pytest.raises(ValueError, match=r"not \(\)"):
        decode(torch.tensor(7))


def _bins(folder, train, val=b"\1\0" * 200):
    (folder / "train.bin").write_bytes(train)
    if val is not None:
        (folder / "val.bin").write_bytes(val)


@pytest.mark.parametrize(
    ("make", "vocab_size", "message"),
    [
        (lambda p: None, 257, "no text"),
        (
            lambda p: (p / "a.txt").write_text("short", encoding="utf-8"),
            257,
            "fewer than one window",
        ),
        (lambda p: (p / "a.txt").write_text("long " * 99, encoding="utf-8"), 100, "257"),
        (lambda p: _bins(p, b"\1\0" * 200, None), 257, "val.bin is no file"),
        (lambda p: _bins(p, b"\1" * 401), 257, "odd number of bytes"),
        (lambda p: _bins(p, b"\1\1" * 200), 257, "--vocab-size 259"),
        (lambda p: _bins(p, b""), 257, "fewer than one window"),
        (lambda p: _bins(p, np.arange(999, dtype=np.uint32).tobytes()), 50304, "uint32"),
        (lambda p: _bins(p, np.arange(200_000, dtype=np.uint32).tobytes()), 50304, "uint32"),
        (lambda p: _bins(p, np.arange(999).tobytes()), 50304, "uint32"),  # int64
        (lambda p: (p / "train.bin").mkdir(), 257, "train.bin is no file"),
    ],
)
def test_bad_data_is_named_in_one_line(tmp_path, make, vocab_size, message):
    make(tmp_path)
    with pytest.raises(DataError, match=message) as error:
        open_data(str(tmp_path), vocab_size, block_size=32)
    assert "\n" not in str(error.value)


def test_a_file_that_is_cut_or_gone_after_opening_is_named(tmp_path):
    (tmp_path / "a.txt").write_text("text " * 1000, encoding="utf-8")
    corpus = open_data(str(tmp_path), block_size=32)
    (tmp_path / "a.txt").write_text("text", encoding="utf-8")
    with pytest.raises(DataError, match=r"a\.txt is shorter than when it was opened"):
        corpus.train.batch(4, 32, 0, 0)
    (tmp_path / "a.txt").unlink()
    with pytest.raises(DataError, match=r"cannot read .*a\.txt"):
        corpus.train.batch(4, 32, 0, 0)


def test_what_is_appended_after_opening_is_not_read(folder):
    """A log that lies in the folder grows while the run reads it."""
    corpus = open_data(str(folder), block_size=32)
    before = corpus.val.read(0, len(corpus.val))
    for path, _, _ in corpus.val.documents:
        with path.open("a", encoding="utf-8") as file:
            file.write("more")
    assert (corpus.val.read(0, len(corpus.val)) == before).all()


def test_a_relative_folder_survives_a_change_of_the_working_directory(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    train = open_data(folder.name, block_size=32).train
    before = train.batch(4, 32, 0, 0)[0]
    monkeypatch.chdir("/")
    assert torch.equal(train.batch(4, 32, 0, 0)[0], before)


@pytest.mark.slow
def test_no_document_keeps_a_descriptor():
    resource = pytest.importorskip("resource", reason="Windows counts no descriptors")
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, limit[1]))
    try:
        corpus = open_data("stdlib")
        opened = len(os.listdir("/dev/fd"))
        for split in (corpus.train, corpus.val):
            for end in split.ends.tolist():  # one token of every document
                split.read(end - 1, 1)
        assert len(os.listdir("/dev/fd")) == opened and len(split.ends) > 100
        maps = Path("/proc/self/maps")
        if maps.exists():  # on Linux
            assert str(split.documents[0][0]) not in maps.read_text(encoding="utf-8")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)


def test_text_that_has_changed_gives_the_choice_in_words(folder):
    before = open_data(str(folder), block_size=32)
    assert text_changed(before.facts, before) is None
    (folder / "more.txt").write_text("more", encoding="utf-8")
    now = open_data(str(folder), block_size=32)
    message = text_changed(before.facts, now)
    assert "then 30 files, 12,175 bytes, now 31 files, 12,179 bytes" in message
    for way in ("--resume", "--overwrite", "--out", "--init-from"):
        assert way in message
    old = {"data_fingerprint": before.fingerprint}  # of a run from before the facts were stored
    assert "(then" not in text_changed(old, now) and text_changed({}, now) is None


@pytest.mark.parametrize("where", [0, 7000, -1])
def test_text_of_the_same_names_and_sizes_is_known_by_its_ends(tmp_path, where):
    (tmp_path / "a.txt").write_text("text " * 2000, encoding="utf-8")
    (tmp_path / "b.txt").write_text("text " * 2000, encoding="utf-8")
    before = open_data(str(tmp_path), block_size=32).facts
    text = bytearray((tmp_path / "b.txt").read_bytes())
    text[where] = ord("X")
    (tmp_path / "b.txt").write_bytes(text)
    now = open_data(str(tmp_path), block_size=32)
    assert now.fingerprint == before["data_fingerprint"]  # results stay where they were
    assert "same names and sizes, with other bytes" in text_changed(before, now)
    old = {"data_fingerprint": now.fingerprint}  # of a run that did not store more
    assert text_changed(old, now) is None is text_changed(now.facts, now)


@pytest.mark.parametrize(
    ("rows", "length", "message"),
    [
        (10**9, 32, "1,000,000,000 windows of 32 tokens need 792.0 GB"),
        (4, 10**8, "no window of 100000001"),
        (math.nan, 32, "windows nan: must be a whole number"),
        (0, 32, "windows 0: must be at least 1"),
    ],
)
def test_a_batch_that_cannot_be_is_refused_before_it_is_allocated(folder, rows, length, message):
    val = open_data(str(folder), block_size=32).val
    with pytest.raises(DataError, match=message):
        val.batch(rows, length, 0, 0)
    if rows == rows:
        with pytest.raises(DataError, match=message):
            next(val.fixed_batches(1, rows, length))
        with pytest.raises(DataError, match=r"must be at least 1|need|no window"):
            next(val.fixed_batches(10**9, rows, length))


@pytest.mark.parametrize("value", [math.nan, math.inf, 32.0, -1, 0, "32", None])
def test_settings_that_are_no_whole_numbers_are_refused_by_name(folder, value):
    for name in ("vocab_size", "block_size"):
        with pytest.raises(DataError, match="--" + name.replace("_", "-")):
            open_data(str(folder), **{"block_size": 32, name: value})
    if value != 0:
        with pytest.raises(DataError, match="seed"):
            open_data(str(folder), block_size=32).train.batch(1, 32, value, 0)


def test_integers_of_numpy_are_integers(folder):
    plain = open_data(str(folder), 257, 32).train.batch(4, 32, 5, 7)[0]
    for kind in (np.uint32, np.int64, np.uint16):
        train = open_data(str(folder), kind(257), np.uint8(32)).train
        assert torch.equal(train.batch(kind(4), kind(32), kind(5), kind(7))[0], plain)
