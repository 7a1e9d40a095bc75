"""Sources: what is text, and what is left out and why."""

import bz2
import contextlib
import gzip
import io
import lzma
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from minidiff.data import DataError, open_data, printable
from minidiff.sources import judge, python_files

TEXT = "naïve → a line of text, and some more of it\n" * 30
RESULTS = Path(__file__).parent.parent / "notebooks" / "results"
POSIX = pytest.mark.skipif(
    not hasattr(os, "fork"), reason="needs links, pipes and fork as of POSIX"
)


@pytest.fixture
def folder(tmp_path):
    for i in range(30):
        (tmp_path / f"doc{i:02}.txt").write_text(f"document {i} " * (20 + i), encoding="utf-8")
    return tmp_path


def peak_mb():
    """The largest memory of this process until now."""
    resource = pytest.importorskip("resource", reason="Windows has no rusage to measure with")
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / (1e6 if sys.platform == "darwin" else 1e3)  # macOS counts bytes, Linux kB


@POSIX
def test_packages_are_read_once_where_lib64_is_a_link_to_lib(tmp_path, monkeypatch):
    """As in a venv of Fedora: the same file lay in training and in validation."""
    (tmp_path / "lib" / "site-packages").mkdir(parents=True)
    (tmp_path / "lib" / "site-packages" / "a.py").write_text("a = 1\n", encoding="utf-8")
    (tmp_path / "lib64").symlink_to("lib")
    paths = {key: str(tmp_path / lib / "site-packages")
             for key, lib in (("purelib", "lib"), ("platlib", "lib64"))}  # fmt: skip
    paths["stdlib"] = str(tmp_path / "lib")
    monkeypatch.setattr("sysconfig.get_paths", lambda: paths)
    found = python_files("python")
    assert [path for path, _ in found.files] == [tmp_path / "lib" / "site-packages" / "a.py"]


def names(corpus):
    return {path.name for split in (corpus.train, corpus.val) for path, _, _ in split.documents}


def zipped(text):
    with zipfile.ZipFile(file := io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.txt", text)
    return file.getvalue()


NOT_TEXT = {
    "gzip": gzip.compress(TEXT.encode(), mtime=1),
    "zip": zipped(TEXT),
    "bzip2": bz2.compress(TEXT.encode()),
    "xz": lzma.compress(TEXT.encode()),
    "UTF-16": TEXT.encode("utf-16"),
    "UTF-16; save": TEXT.encode("utf-16-be"),  # no byte-order mark in these two
    "UTF-16; save it": TEXT.encode("utf-16-le"),
    "UTF-32": TEXT.encode("utf-32"),
    "binary": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\1\0\0\0\1\0\x08\2\0\0\0" + bytes(range(256)) * 4,
    "safetensors": save({"w": np.ones((8, 8), np.float32)}),
    "a Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 9\n" * 9,
    "PDF": b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n1 0 obj\n<< /Type /Catalog >>\n" * 20,
    "empty": b"",
}  # fmt: skip


@pytest.mark.parametrize("kind", NOT_TEXT)
def test_what_is_no_text_is_named_alone_and_in_a_folder(folder, kind):
    path = folder / "odd.dat"
    path.write_bytes(NOT_TEXT[kind])
    with pytest.raises(
        DataError, match=rf"^--data \S+odd\.dat: .*\({kind}.*; give a file"
    ) as error:
        open_data(str(path), block_size=32)
    assert "\n" not in str(error.value)
    corpus = open_data(str(folder), block_size=32)
    assert "odd.dat" not in names(corpus) and len(names(corpus)) == 30
    assert f"30 files, 12,175 bytes; 1 left out: odd.dat ({kind}" in corpus.report


def test_zeros_at_the_end_of_a_file_are_seen(tmp_path):
    """What a full disk or `>>` in PowerShell leaves behind text."""
    (tmp_path / "a.txt").write_bytes(TEXT.encode() * 40 + TEXT.encode("utf-16"))
    assert judge(tmp_path / "a.txt")[0] == "binary"


def test_text_in_an_old_encoding_is_read_and_named(folder):
    (folder / "old.txt").write_text("Übermäßig " * 99, encoding="latin-1")
    corpus = open_data(str(folder), block_size=32)
    assert "old.txt" in names(corpus) and "not UTF-8, read as bytes: old.txt" in corpus.report
    assert (
        "not UTF-8, read as bytes: old.txt"
        in open_data(str(folder / "old.txt"), block_size=32).report
    )


def test_the_named_fixes_work(tmp_path):
    (tmp_path / "a.txt.gz").write_bytes(NOT_TEXT["gzip"])
    subprocess.run([sys.executable, "-m", "gzip", "-d", tmp_path / "a.txt.gz"], check=True)
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == TEXT
    (tmp_path / "a.zip").write_bytes(NOT_TEXT["zip"])
    command = [sys.executable, "-m", "zipfile", "-e", tmp_path / "a.zip", tmp_path / "out"]
    subprocess.run(command, check=True)
    assert judge(tmp_path / "out" / "a.txt") == (None, True)


def test_a_file_of_tokens_is_no_text_and_its_folder_is_named(tmp_path):
    for name in ("train.bin", "val.bin"):
        np.arange(300, 900, dtype=np.uint16).tofile(tmp_path / name)
        with pytest.raises(DataError, match=r"the folder that holds train\.bin and val\.bin"):
            open_data(str(tmp_path / name))
    (tmp_path / "train.bin").unlink()
    with pytest.raises(DataError, match=r"train\.bin is no file"):  # not: val.bin read as text
        open_data(str(tmp_path), 50304, 32)


def test_the_report_is_one_line_however_much_is_left_out(folder):
    for i in range(200):
        (folder / f"{i}.png").write_bytes(NOT_TEXT["binary"])
    (folder / "a\nb\x1b[2J.txt").write_bytes(NOT_TEXT["UTF-16"])
    (folder / ".git").mkdir()
    corpus = open_data(str(folder), block_size=32)
    assert len(corpus.left_out) == 202 and ("0.png", "binary") in corpus.left_out
    assert "202 left out: a\\nb\\x1b[2J.txt (UTF-16; save" in corpus.report
    assert corpus.report.endswith(".git (hidden), 0.png, 1.png and 198 more (binary)")
    assert corpus.report.isprintable()


# ---- What minidiff writes ------------------------------------------------------------------------


@pytest.mark.slow
def test_what_minidiff_writes_is_never_text(folder, capfd):
    from minidiff.__main__ import main

    before = open_data(str(folder), block_size=32)
    print(before.report)
    sizes = (
        "--n-layer 1 --n-head 2 --n-kv-head 1 --head-dim 8 --n-embd 16 --block-size 32 --steps 3"
    )
    sizes += f" --eval-batches 1 --batch-size 2 --device cpu --data {folder}"
    main(f"train {sizes} --out {folder}/runs".split())
    out, err = capfd.readouterr()
    (folder / "stdout.log").write_text(out, encoding="utf-8")
    (folder / "stderr.log").write_text(err, encoding="utf-8")
    (folder / "both.log").write_text(err + out, encoding="utf-8")
    (folder / "old.log").write_text(out.split("\n", 1)[1], encoding="utf-8")  # without the report
    main(f"compare {sizes} --out {folder}/cmp --results {folder}/results.json --seeds 0".split())
    bench = "--device cpu --backends naive --lengths 32 --tokens 64 --shapes 2 1 8"
    main(f"bench ops --out {folder}/speed.json {bench}".split())
    run = folder / "runs" / "diff_v2"
    for name in ("config.json", "metrics.jsonl"):
        (folder / f"copy_of_{name}").write_bytes((run / name).read_bytes())
    with pytest.raises(DataError, match="a run of minidiff"):
        open_data(str(run))
    after = open_data(str(folder), block_size=32)
    assert after.fingerprint == before.fingerprint and names(after) == names(before)
    left_out = dict(after.left_out)
    for name in ("results.json", "speed.json", "stdout.log", "stderr.log", "both.log", "old.log"):
        assert left_out[name] == "written by minidiff"


def test_the_stored_results_are_known_as_such():
    files = {*RESULTS.glob("*.json")} - {RESULTS / "capstone.json"}  # made by a script beside it
    assert files and all(judge(path)[0] == "written by minidiff" for path in files)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", '{"rows": [{"key": 1}]}'),
        ("a.json", '{"rows": [{"key": "alpha", "label": "a line of my own"}]}'),
        ("a.json", '{"settings": {"data": "my"}}'),
        ("a.json", '{"command": "ls",\n "date": "Monday",\n "notes": "none"}'),
        ("a.jsonl", '{"step": 1, "loss": 2.5, "lr": 0.001}\n'),
        ("a.log", "minidiff is a course\n"),
        ("a.log", "step 3/10 [done]\n"),
        ("a.log", "fit: 3/10 [00:01<00:02, 5.10step/s]\n"),
        ("notes.md", "minidiff data: how it works, in a few lines\n"),
        ("a.txt", "A bar says: 3/10 [00:01<00:02, 5.10step/s, loss 2.512, 3.1k tokens/s]\n"),
        ("a.txt", "softmax validation loss 2.51 nats/byte, they say\n"),
        ("code.py", 'SAVED = """\n{"data_fingerprint": "0123456789abcdef"}\n"""\n'),
    ],
)
def test_what_others_write_is_text(tmp_path, name, text):
    (tmp_path / name).write_text(text * 50, encoding="utf-8")
    assert judge(tmp_path / name) == (None, True)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", '{\n  "model": {},\n  "data_fingerprint": "0123456789abcdef"\n}\n'),
        ("a.jsonl", '{"step": 1, "loss": 2.5, "lr": 0.1, "grad_norm": 1, "tokens_per_s": 9}\n'),
        ("nohup.out", "minidiff data: stdlib: 9 files, 99 bytes\n"),
        ("log", "a: 3/10 [00:01<00:02, 5.10step/s, loss 2.512, 3.1k tokens/s]\n"),
    ],
)
def test_what_minidiff_writes_is_known_by_name_and_content(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert judge(tmp_path / name)[0] == "written by minidiff"


# ---- Links, pipes and what may not be read -------------------------------------------------------


@POSIX
def test_links_and_pipes_are_named_and_no_document_is_read_twice(folder):
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / "b.txt").write_text("another text " * 30, encoding="utf-8")
    (folder / "link.txt").symlink_to("doc03.txt")
    (folder / "a_hard.txt").hardlink_to(folder / "doc04.txt")
    (folder / "loop").symlink_to("loop")
    (folder / "gone").symlink_to("nowhere")
    (folder / "up").symlink_to("..")
    (folder / "zero").symlink_to("/dev/zero")
    os.mkfifo(folder / "pipe")
    (folder / "here").symlink_to(".")
    corpus = open_data(str(folder), block_size=32)
    assert len(names(corpus)) == 31
    assert open_data(str(folder / "here"), block_size=32).fingerprint == corpus.fingerprint
    reasons = dict(corpus.left_out)
    assert {"link.txt", "doc04.txt", "loop", "gone", "up", "here", "zero", "pipe"} == set(reasons)
    assert reasons["link.txt"] == reasons["doc04.txt"] == "the same file once more"
    assert (
        "link to a folder" in reasons["up"]
        and "pipe" in reasons["zero"]
        and "pipe" in reasons["pipe"]
    )
    with pytest.raises(DataError, match="pipe, socket or device; write its text into a file"):
        open_data(str(folder / "pipe"))


@POSIX
def test_what_may_not_be_read_is_left_out_and_named():
    """In a child that gives up root's right to read everything."""

    def attempt():
        with contextlib.suppress(PermissionError):
            os.setuid(65534)
        corpus = open_data(name, block_size=32)
        assert names(corpus) == {"0.txt", "1.txt", "3.txt"}
        assert dict(corpus.left_out) == dict.fromkeys(["2.txt", "private"], "permission denied")
        with pytest.raises(DataError, match=r"2\.txt \(permission denied\); give"):
            open_data(f"{name}/2.txt")
        with pytest.raises(DataError, match=r"permission denied"):
            open_data(f"{name}/private")
        with pytest.raises(DataError, match=r"permission denied"):
            open_data(f"{name}/private/a.txt")

    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        for i in range(4):
            Path(name, f"{i}.txt").write_text(TEXT, encoding="utf-8")
        Path(name, "2.txt").chmod(0)
        Path(name, "private").mkdir()
        Path(name, "private", "a.txt").write_text(TEXT, encoding="utf-8")
        Path(name, "private").chmod(0)
        assert in_child(attempt) == ""
        Path(name, "private").chmod(0o700)


def in_child(call):
    """Run it in a forked process; returns the text of its error, or nothing."""
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        try:
            call()
        except BaseException as error:
            os.write(writer, repr(error).encode())
        os._exit(0)
    os.close(writer)
    with open(reader, encoding="utf-8") as pipe:
        message = pipe.read()
    os.waitpid(child, 0)
    return message


# ---- What a model writes -------------------------------------------------------------------------


def test_control_characters_are_escaped():
    assert printable("\x1b[2Ja\r\nb\tc\rd\x00\x9b\u202e") == (
        "\\x1b[2Ja\nb\tc\\rd\\x00\\x9b\\u202e"
    )
    assert printable("naïve → 数\u3000学 \U0001f468\u200d\U0001f469") == (
        "naïve → 数\u3000学 \U0001f468\u200d\U0001f469"
    )
