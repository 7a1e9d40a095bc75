"""Hostile files and settings for every command: a refusal is one line, and nothing else happens.

Each example runs in process: main() may end with SystemExit and with nothing else, so a traceback
fails the test. A refusal is one line that names the file or the option. Time and memory are
limited, so waiting for a pipe, or allocating what a number asks for, fails too.
"""

import contextlib
import json
import os
import resource
import shutil
import signal
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from training import cli, tiny_config

from minidiff import __main__ as command
from minidiff.study.evidence import RESULTS

pytestmark = pytest.mark.slow  # each draws dozens of examples
SECONDS, KILOBYTES = 120, 3_000_000
quick = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
some, few = settings(quick, max_examples=30), settings(quick, max_examples=15)


class TookTooLong(BaseException):
    """Not an Exception: main() must not turn it into a line."""


def outcome(words):
    """What the command says when it ends: 0, tyro's 2, or a message. Anything else is raised."""

    def stop(*_):
        raise TookTooLong(words)

    before, memory = signal.signal(signal.SIGALRM, stop), peak()
    signal.alarm(SECONDS)
    try:
        command.main([str(word) for word in words])
        return 0
    except SystemExit as end:
        return end.code
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        assert peak() - memory < KILOBYTES, words


def peak():
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / 1024 if sys.platform == "darwin" else most  # bytes there


def refused(words, *names):
    """One line that has one of the names in it."""
    said = outcome(words)
    assert isinstance(said, str) and said.startswith("error: "), (said, words)
    assert "\n" not in said and any(str(name) in said for name in names), (said, names)
    assert "allocate" not in said and "has no attribute" not in said, said


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(a TrainConfig of one step, its finished run folder)."""
    folder = tmp_path_factory.mktemp("hostile")
    config = tiny_config(folder)
    words = cli(config, "--variants", "diff_v2", "--steps", "1")
    assert outcome(words) == 0
    return config, folder / "run" / "diff_v2"


# ---- Settings ----------------------------------------------------------------------------------

BAD_COUNT = st.sampled_from(["0", "-1", "nan", "1e3", "x", "", str(2**63), str(-(2**70)), "1.5"])
HUGE = st.sampled_from([str(2 * 10**9), str(10**13), str(2**62)])
BAD_NUMBER = st.sampled_from(["nan", "inf", "-inf", "-1", "x", "", "1e999"])
BAD_NAME = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8).filter(
    lambda text: (
        text not in ("auto", "cpu", "cuda", "mps", "none", "model", "blocks", "naive")
        and not text.startswith("-")
    )
)
COUNTS = [
    "steps",
    "batch-size",
    "grad-accum",
    "eval-every",
    "eval-batches",
    "log-every",
    "save-every",
]
SIZES = ["n-layer", "n-head", "n-kv-head", "head-dim", "n-embd", "block-size", "vocab-size"]
NUMBERS = ["lr", "min-lr-ratio", "weight-decay", "beta1", "beta2", "grad-clip", "rope-theta"]
NAMES = ["device", "dtype", "compile", "backend", "attention"]
WRONG_SETTING = st.one_of(
    st.tuples(st.sampled_from(COUNTS + SIZES), BAD_COUNT),
    st.tuples(st.sampled_from(["batch-size", "eval-batches", *SIZES]), HUGE),
    st.tuples(st.sampled_from(NUMBERS), BAD_NUMBER),
    st.tuples(st.sampled_from(NAMES), BAD_NAME),
    st.tuples(st.just("seed"), st.sampled_from(["-1", "x", "1.5", str(2**64)])),
    st.tuples(st.just("data"), st.sampled_from(["", "/nowhere", "/dev/zero", "/dev/null"])),
    st.tuples(st.just("init-from"), st.sampled_from(["/nowhere", "/dev/null", "/"])),
)


@quick
@given(WRONG_SETTING, st.sampled_from(["train", "compare"]))
@example(("n-embd", "30000000"), "train")
@example(("batch-size", str(10**9)), "compare")
@example(("block-size", str(10**8)), "train")
def test_a_wrong_setting_is_refused_by_its_name(run, setting, what):
    config, folder = run
    option, value = setting
    if (option, value) == ("weight-decay", "-1"):
        value = "-2"
    words = cli(config, "--variants", "diff_v2", "--steps", "1")
    out = folder.parent.parent / "never"
    words = [what, *words[1:], "--out", out]
    if what == "compare":
        words += ["--seeds", "0", "--results", out / "results.json"]
    name = option.replace("-", "_")
    refused([*words, f"--{option}={value}"], name, option, value)
    assert not list(out.rglob("*.safetensors"))


@quick
@given(
    st.one_of(
        st.tuples(st.sampled_from(["tokens", "top-k", "seed"]),
                  st.sampled_from(["-1", "x", "1.5", str(-(2**70))])),
        st.tuples(st.just("temperature"), st.sampled_from(["nan", "-1", "inf", "x"])),
        st.tuples(st.just("device"), BAD_NAME),
        st.tuples(st.just("prompt"), st.just("a" * 10_000)),
        st.tuples(st.just("seed"), st.just(str(2**80))),
    )
)  # fmt: skip
def test_a_wrong_setting_of_sample_is_refused(run, setting):
    refused(["sample", run[1], f"--{setting[0]}={setting[1]}"], *setting)


@few
@given(
    st.sampled_from(["ops", "train", "decode"]),
    st.one_of(
        st.tuples(st.just("rounds"), st.sampled_from(["0", "-1", "x"])),
        st.tuples(st.just("device"), BAD_NAME),
        st.tuples(st.just("out"), st.sampled_from(["/", "/dev/null", "/dev/null/x.json"])),
    ),
)
def test_a_wrong_setting_of_bench_is_refused(tmp_path, what, setting):
    out = [] if setting[0] == "out" else [f"--out={tmp_path}/bench.json"]
    refused(["bench", what, *out, f"--{setting[0]}={setting[1]}"], *setting, "/dev/null")


# ---- Files -------------------------------------------------------------------------------------

LEAF = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5),
    st.sampled_from([10**11, 2**70, -1, [], {}, "diff_v2", [[[]]]]),
)  # fmt: skip
JSON = st.recursive(
    LEAF, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner)
)
CONTENT = st.one_of(
    st.binary(max_size=200),
    JSON.map(lambda data: json.dumps(data).encode()),
    st.sampled_from([
        b"", b"{", b"[" * 50_000, b"\xff\xfe{\0}\0", b"version https://git-lfs.github.com/spec/v1",
        b"\xff" * 8 + b"{}", b"\x02\0\0\0\0\0\0\0{}", b'{"architectures": ["LlamaForCausalLM"]}',
    ]),
)  # fmt: skip


def mutated(data, draw):
    """A copy of some JSON with one place changed, lost or added."""
    data = json.loads(json.dumps(data))
    place = data
    while isinstance(place, dict) and place:
        key = draw(st.sampled_from(sorted(place)))
        if not isinstance(place[key], (dict, list)) or draw(st.booleans()):
            break
        place = place[key] if isinstance(place[key], dict) else next(
            (row for row in place[key] if isinstance(row, dict)), {})  # fmt: skip
    if isinstance(place, dict) and place:
        how = draw(st.sampled_from(["change", "lose", "add"]))
        if how == "lose":
            del place[key]
        else:
            place["extra" if how == "add" else key] = draw(LEAF)
    return data


@st.composite
def damage(draw, path):
    """Bytes in the place of a file's."""
    data = path.read_bytes()
    how = draw(st.sampled_from(["cut", "other", "settings", "flip"]))
    if how == "cut":
        return data[: draw(st.integers(0, len(data) - 1))]
    if how == "flip":
        at = draw(st.integers(0, min(len(data) - 1, 2000)))
        return data[:at] + bytes([data[at] ^ draw(st.integers(1, 255))]) + data[at + 1 :]
    if how == "settings" and path.suffix == ".json":
        return json.dumps(mutated(json.loads(data), draw)).encode()
    return draw(CONTENT)


@contextlib.contextmanager
def copied(folder, name, content):
    """A copy of a run's parent folder in which one file is another."""
    place = folder.parent.parent / "copy"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(folder.parent, place)
    target = place / name
    target.unlink()
    if content is None:
        os.mkfifo(target)
    else:
        target.write_bytes(content)
    yield place


FILES = ("config.json", "model.safetensors", "checkpoint.safetensors", "metrics.jsonl")


@some
@given(st.data(), st.sampled_from(FILES), st.sampled_from(["sample", "init", "resume", "export"]))
def test_a_damaged_run_is_refused_or_used_but_never_ends_in_a_traceback(run, data, name, what):
    config, folder = run
    content = data.draw(st.one_of(st.none(), damage(folder / name)))
    with copied(folder, f"diff_v2/{name}", content) as place:
        words = cli(config, "--variants", "diff_v2", "--steps", "2", "--out", place)
        if what == "sample":
            words = ["sample", place / "diff_v2", "--tokens", "2"]
        elif what == "export":
            words = ["export", place / "diff_v2", "--to", "published"]
        elif what == "init":
            words += ["--init-from", place / "diff_v2", "--out", place / "fine"]
        else:
            words += ["--resume"]
        said = outcome(words)
        if said != 0 and "at step" not in said:  # a flipped bit may make a finite weight huge
            assert "\n" not in said and (name in said or "--resume" in said), said
            assert str(place) in said and "allocate" not in said, said


@quick
@given(st.data())
def test_a_damaged_train_json_is_named(run, data):
    path = run[1].parent / "train.json"
    content = data.draw(damage(path))
    with copied(run[1], "train.json", content) as place:
        said = outcome(["train", "--resume", "--out", place, "--steps", "1"])
        assert said == 0 or "\n" not in said, said


@quick
@given(CONTENT)
def test_foreign_results_are_named_and_left_alone(run, content):
    config, folder = run
    path = folder.parent.parent / "foreign.json"
    path.write_bytes(content)
    words = cli(config, "--variants", "diff_v2", "--steps", "1")
    compare = ["compare", *words[1:], "--seeds", "0", "--results", path]
    for words in (compare, ["bench", "ops", "--device", "cpu", "--out", path]):
        refused(words, path)
        assert path.read_bytes() == content


@few
@given(st.data(), st.sampled_from(sorted(p.name for p in RESULTS.glob("*.json"))))
def test_damaged_evidence_is_named(tmp_path, data, name):
    for path in RESULTS.glob("*.json"):
        shutil.copy(path, tmp_path / path.name)
    (tmp_path / name).write_bytes(data.draw(damage(RESULTS / name)))
    said = outcome(["claims", "--results", tmp_path])
    assert said == 0 or (str(tmp_path) in said and "\n" not in said), said


@pytest.mark.parametrize("words", [
    ["sample", "{pipe}"], ["train", "--data", "{pipe}"], ["train", "--init-from", "{pipe}"],
    ["compare", "--results", "{pipe}", "--seeds", "0"], ["bench", "ops", "--out", "{pipe}"],
    ["export", "{pipe}"], ["claims", "--write", "--readme", "{pipe}", "--results", "{results}"],
])  # fmt: skip
def test_no_command_waits_for_a_pipe(tmp_path, words):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    shutil.copytree(RESULTS, tmp_path / "results")
    words = [w.format(pipe=pipe, results=tmp_path / "results") for w in words]
    more = ["--out", str(tmp_path / "out")] if words[0] in ("train", "compare") else []
    refused([*words, *more], pipe)
    assert Path(pipe).is_fifo()
