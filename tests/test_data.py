"""Data: windows start with BOS, splits share no document, bad sources are named before training."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minidiff.data import DataError, Split, decode, encode, open_data


@pytest.fixture
def folder(tmp_path):
    for i in range(30):
        (tmp_path / f"doc{i:02}.txt").write_text(f"document {i} " * (20 + i))
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
    (tmp_path / name).write_text("a long book " * 9000)
    (tmp_path / "notes.txt").write_text("notes " * 500)
    corpus = open_data(str(tmp_path), block_size=32)
    assert len(corpus.val) / (len(corpus.train) + len(corpus.val)) == pytest.approx(0.1, abs=0.01)
    assert corpus.train.documents[-1][2] == corpus.val.documents[0][1]  # one goes on as the other


def test_a_file_that_changed_is_read_anew(tmp_path):
    for letter in "ab":
        (tmp_path / "text.txt").write_text(letter * 2000)
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
        file.truncate(3 << 30)
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    x, _ = open_data(str(path), block_size=64).train.batch(16, 64, 0, 0)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before  # KiB on Linux
    assert x.shape == (16, 64) and grown < 200 * 1024


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


def test_text_survives_encoding_and_bos_is_first():
    text = "naïve → def f():\n"
    tokens = encode(text)
    assert tokens[0, 0] == 256 and decode(tokens[0]) == text


def test_what_a_run_left_in_the_folder_is_no_text(folder):
    before = open_data(str(folder), block_size=32).fingerprint
    (folder / "runs" / "diff_v2").mkdir(parents=True)
    for name in ("config.json", "metrics.jsonl", "sample.txt"):
        (folder / "runs" / "diff_v2" / name).write_text("{}")
    assert open_data(str(folder), block_size=32).fingerprint == before


def test_binary_hidden_and_empty_files_of_a_folder_are_left_out(folder):
    (folder / "image.png").write_bytes(b"\x89PNG\0\0" * 100)
    (folder / ".hidden").write_text("secret " * 100)
    (folder / "empty.txt").write_text("")
    corpus = open_data(str(folder), block_size=32)
    names = {d[0].name for d in corpus.train.documents + corpus.val.documents}
    assert names == {f"doc{i:02}.txt" for i in range(30)}


def _bins(folder, train, val=b"\1\0" * 200):
    (folder / "train.bin").write_bytes(train)
    if val is not None:
        (folder / "val.bin").write_bytes(val)


@pytest.mark.parametrize(
    ("make", "vocab_size", "message"),
    [
        (lambda p: None, 257, "no text in it"),
        (lambda p: (p / "a.txt").write_text("short"), 257, "fewer than one window"),
        (lambda p: (p / "a.txt").write_text("long " * 99), 100, "257"),
        (lambda p: _bins(p, b"\1\0" * 200, None), 257, "val.bin is missing"),
        (lambda p: _bins(p, b"\1" * 401), 257, "odd number of bytes"),
        (lambda p: _bins(p, b"\1\1" * 200), 257, "--vocab-size 259"),
        (lambda p: _bins(p, b""), 257, "fewer than one window"),
    ],
)
def test_bad_data_is_named_in_one_line(tmp_path, make, vocab_size, message):
    make(tmp_path)
    with pytest.raises(DataError, match=message) as error:
        open_data(str(tmp_path), vocab_size, block_size=32)
    assert "\n" not in str(error.value)


def test_missing_and_unreadable_sources_are_named(tmp_path, monkeypatch):
    with pytest.raises(DataError, match="no such file"):
        open_data(str(tmp_path / "nowhere"))
    for i in range(3):
        (tmp_path / f"{i}.txt").write_text("text " * 100)
    (tmp_path / "loop.txt").symlink_to(tmp_path / "gone.txt")  # a broken link is no file
    assert len(open_data(str(tmp_path), block_size=32).train.documents) == 3
    (tmp_path / "1.txt").chmod(0)
    try:
        (tmp_path / "1.txt").read_bytes()
    except PermissionError:
        with pytest.raises(DataError, match=r"cannot read .*1\.txt"):
            open_data(str(tmp_path), block_size=32)
    else:
        pytest.skip("root may read every file: the unreadable case cannot be made here")
