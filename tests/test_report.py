"""What is written from the claims holds what the results say, and nothing else."""

import itertools
import re
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import pytest
from study_results import SETTINGS, folder, pair, run, store

from minidiff.__main__ import main
from minidiff.study import report
from minidiff.study.claims import claims
from minidiff.study.evidence import RESULTS, Evidence

README = Path(__file__).parent.parent / "README.md"
MAKE = "python -m minidiff claims --write --readme README.md"


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def test_claims_md_is_what_the_results_give():
    text = report.claims_text(claims(), Evidence())
    assert text == (RESULTS / "CLAIMS.md").read_text(encoding="utf-8"), MAKE


def test_the_command_prints_the_stored_table(capsys):
    main(["claims"])
    assert capsys.readouterr().out == (RESULTS / "CLAIMS.md").read_text(encoding="utf-8")


def test_a_readme_that_would_not_be_written_is_refused(tmp_path):
    with pytest.raises(SystemExit, match=r"^error: --readme .*: give --write as well"):
        main(["claims", "--readme", str(tmp_path / "README.md")])


def test_the_readme_is_what_the_results_give(tmp_path):
    copy = tmp_path / "README.md"
    copy.write_text(README.read_text(encoding="utf-8"), encoding="utf-8")
    report.put_into(copy, report.readme_text(claims()))
    assert copy.read_text(encoding="utf-8") == README.read_text(encoding="utf-8"), MAKE


def test_claims_md_has_every_number_on_a_line_of_its_own():
    found, text = claims(), report.claims_text(claims(), Evidence())
    table = text.split("## Every number")[1].split("## ")[0]
    assert table.count("\n| ") == 1 + sum(len(each.findings) for each in found)
    for each in found:
        for finding in each.findings:
            assert str(finding) in table and finding.where in table
    assert "nan" not in text


@pytest.mark.slow
def test_the_answer_has_at_most_60_words_whatever_comes_out(tmp_path):
    gaps = {"yes": [-0.02, -0.021, -0.019], "no": [0.02, 0.021, 0.019], "open": [-1, 1, 0]}
    for i, (best, time, large) in enumerate(itertools.product(gaps, repeat=3)):
        rows = pair(gaps[best]) + pair(gaps[large], lr=6e-3, n_spikes=1)
        path = folder(tmp_path / str(i), evidence_25m=rows)
        longer = [run(seed=s, steps=1196, val_loss=0.7 + 0.01 * s + gaps[best][s] - gaps[time][s])
                  for s in range(3)]  # fmt: skip
        store(path, "evidence_25m_equal_time", longer, SETTINGS | {"steps": 1196})
        answer = report.readme_text(claims(path)).split("![")[0]
        assert len(answer.split()) <= 60, answer


def test_the_answer_of_the_readme_has_at_most_60_words():
    answer = report.readme_text(claims()).split("![")[0]
    assert len(answer.split()) <= 60, answer


def test_only_what_was_timed_beside_flash_attn_4_is_said_to_be(tmp_path):
    path = folder(tmp_path, evidence_25m=pair([-0.02, -0.021, -0.019]))
    for name, steps, less in (
        ("equal", 1100, 0.001),
        ("flash4", 1200, 0.01),
        ("cudnn", 1300, 0.03),
    ):
        rows = [r | {"steps": steps, "val_loss": r["val_loss"] - less} for r in pair([0, 0, 0])]
        rows = [r for r in rows if r["variant"] == "softmax_1.5h"]
        store(path, f"evidence_25m_{name}_time", rows, SETTINGS | {"steps": steps})
    text = report.readme_text(claims(path)).split("![")[0]
    assert text.count("flash-attn 4") == 1
    assert "Same GPU time: **yes and no**, -0.019 [" in text
    assert "(flash-attn 4: **yes**; cuDNN for both: **no**)" in text


def test_the_answer_says_what_was_planted(tmp_path):
    rows = pair([0.02, 0.021, 0.019]) + pair([-0.3, -0.31, -0.29], lr=6e-3)
    for row in rows:
        row["val_loss"] += row["lr"]  # 0.006 is too large
    text = report.readme_text(claims(folder(tmp_path, evidence_25m=rows)))
    assert "equal-size softmax (25M, 1000 steps)?" in text
    assert "Python, same steps: **yes and no**" in text  # it is lower at the large rate
    assert "English: **not tested**" in text
    assert "Same GPU time: **not tested**, not run yet" in text
    assert "Large rate, 0.006: **yes**, -0.300 [-0.325, -0.275]" in text


def test_the_readme_never_mixes_the_baselines_of_training_and_decoding():
    """Training is compared with 1.5h heads, decoding with h: never in one row or sentence."""
    for line in report.readme_text(claims()).splitlines():
        assert not ("1.5h" in line and "h heads" in line.replace("1.5h heads", "")), line


def test_the_readme_links_its_figure_and_the_whole_table():
    text = README.read_text(encoding="utf-8")
    head = text.split("## Worth it?")[0]
    assert len(head.strip().split("\n\n")) == 2  # title and first paragraph, nothing between
    for name in ("worth_it.png", "CLAIMS.md"):
        assert f"notebooks/results/{name}" in text and (RESULTS / name).exists()
    assert not re.search(r"no better at equal time", text)


def test_a_file_without_the_marks_is_refused_and_left_alone(tmp_path):
    (tmp_path / "README.md").write_text("no marks\n", encoding="utf-8")
    with pytest.raises(ValueError, match="end of claims"):
        report.put_into(tmp_path / "README.md", "text")
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == "no marks\n"


def test_a_diverged_run_has_no_number_and_is_named(tmp_path):
    rows = pair([-0.02, -0.021, -0.019])
    gone = {k: rows[0][k] for k in ("key", "variant", "lr", "steps", "params", "val_curve")}
    rows.append(gone | {"seed": 9, "val_loss": float("nan"), "diverged": "the loss is nan"})
    path = folder(tmp_path, evidence_25m=rows)
    text = report.claims_text(claims(path), Evidence(path))
    assert "nan" not in text and "1 of 7 runs. softmax_1.5h at 0.001, seed 9" in text


@pytest.mark.slow
def test_everything_is_written_and_the_same_each_time(tmp_path):
    path = folder(tmp_path, evidence_25m=pair([-0.02, -0.021, -0.019]))
    (tmp_path / "README.md").write_text(report.BEGIN + report.END, encoding="utf-8")
    written = []
    for _ in "ab":
        report.write(path, tmp_path / "README.md")
        written.append(
            [
                (path / name).read_bytes()
                for name in ("CLAIMS.md", "worth_it.png", "gap_over_training.png", "README.md")
            ]
        )
    assert written[0] == written[1]
    assert b"supported" in written[0][0] and b"supported" in written[0][3]
