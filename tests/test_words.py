"""Figures for those who see no colour, or nothing: line styles, markers, alternative texts."""

import queue
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import same_color

from minidiff.look import forms, sketches, sketches_forms, sketches_trained, style, words, worth
from minidiff.look import plots as p

ROOT = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = [*ROOT.glob("*.ipynb"), *ROOT.glob("solutions/*.ipynb")]


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def rows(end):
    found = [{"step": i, "loss": 3 - i / 50 * (3 - end), "grad_norm": 1.0} for i in range(51)]
    return [*found, {"step": 25, "val_loss": 2.0}, {"step": 50, "val_loss": end}]


N = np.arange(2, 40)
BOTH = {"softmax": N**-0.4, "DIFF V2": 0.5 * N**-0.4}
FIGURES = {
    "curves": lambda: p.training_curves({"softmax_1.5h": rows(1.0), "diff_v2": rows(0.9)}),
    "rms": lambda: p.rms_against_n({k: (N, v) for k, v in BOTH.items()}, lam=0.5),
    "bounds": lambda: p.bounds_over_lambda(64),
    "intervals": lambda: p.intervals(dict.fromkeys(BOTH, (0.1, 0, 0.2)), "nats"),
    "positions": lambda: sketches.rms_by_position(BOTH, 0.5),
    "rho": lambda: sketches.rho_by_depth({k: [v] for k, v in BOTH.items()}),
    "layers": lambda: sketches_trained.by_layer({"outliers": BOTH, "kurtosis": BOTH}),
    "explorer": sketches_forms.rms_figure,
    "worth": lambda: worth.worth_it(
        {"Python": {k: {1e-3: (0.6, 0.5, 0.7), 2e-3: (0.55, 0.4, 0.6)} for k in BOTH}},
        {"a": [(1, 0.1, 0, 0.2), (2, 0, -0.1, 0.1)]},
    ),
}


@pytest.mark.parametrize("name", FIGURES)
def test_softmax_and_diff_v2_differ_without_colour(name):
    seen = {"softmax": (set(), set()), "diff_v2": (set(), set())}
    for line in (line for ax in FIGURES[name]().axes for line in ax.get_lines()):
        for model, (styles, markers) in seen.items():
            bold = line.get_alpha() in (None, 0.8)  # the others: every single step
            if bold and same_color(line.get_color(), style.COLOURS[model]):
                styles |= {line.get_linestyle()} - {"None"}
                markers |= {line.get_marker()} - {"None", None, "", "_", 1}  # ends of intervals
    for kind in (0, 1) if name != "intervals" else (1,):  # there the lines are bars with names
        softmax, diff = (found[kind] for found in seen.values())
        assert not softmax & diff, seen
        assert bool(softmax) == bool(diff)
    assert any(seen["softmax"]) and any(seen["diff_v2"])


def test_bars_side_by_side_differ_without_colour():
    drawn = sketches.weight_bars({"A1": [0.5, 0.5], "λ A2": [0.2, 0.2], "diff": [0.3, 0.3]}, "ab")
    assert [bars[0].get_hatch() or "" for bars in drawn.axes[0].containers] == ["", "", "//"]
    assert style.bar("softmax_h")["hatch"] == "" != style.bar("DIFF V2")["hatch"]


def test_a_label_finds_its_line_style_as_it_finds_its_colour():
    for label in ("softmax", "softmax_1.5h, seed 0", "Softmax 2h"):
        assert style.line(label)["linestyle"] == "--" and style.dots(label)["marker"] == "s"
    for label in ("DIFF V2", "diff_v2, seed 1", "my own idea"):
        assert style.line(label)["linestyle"] == "-" and style.dots(label)["marker"] == "o"


@pytest.mark.parametrize(
    ("low", "high", "bound", "clear"),
    [(-2, -1, 0, True), (1, 2, 0, True), (-1, 1, 0, False), (0, 1, 0, False), (1, 2, 1.5, False)],
)
def test_an_interval_is_vermilion_only_beside_the_bound(low, high, bound, clear):
    assert (style.clear_colour(low, high, bound) == style.colour("diff_v2")) == clear
    assert style.clear_colour(float("nan"), float("nan"), bound) == style.colour("other")


# ---- Alternative texts -------------------------------------------------------------------------


def test_the_words_name_what_is_shown_and_the_numbers_at_its_ends():
    said = FIGURES["curves"]().words
    assert said.startswith("Loss and gradient norm of several runs. ")
    assert "loss (nats/token) against training step; softmax_1.5h, from 2.98 to 1.02" in said
    assert "diff_v2, from 2.98 to 0.921" in said
    said = FIGURES["intervals"]().words
    assert "nats; interval of softmax, from 0 to 0.2; softmax, 0.1; interval of DIFF V2" in said
    said = p.intervals({"softmax": (0.1, 0, 0.2)}, "nats", 0.5).words
    assert "nats (black: holds 0.5); interval" in said
    fig, ax = plt.subplots()
    ax.bar(["one", "two"], [1, 0.25], label="share")
    ax.set(title="Two heads", ylabel="weight")
    assert words.describe(fig) == "Two heads: weight; share 1, 0.25; one, two."
    assert words.describe(plt.figure()) == "A figure without words."


def test_panels_that_share_their_rows_say_numbers_and_not_rows():
    fig, axes = plt.subplots(1, 2, sharey=True)
    for ax, x in zip(axes, (0.1, 0.2), strict=True):
        ax.plot(x, 5, "o", label="gate")
    axes[0].set_yticks([5], ["gate"])
    assert words.describe(fig) == "gate, 0.1. gate, 0.2."


@pytest.mark.parametrize("name", FIGURES)
def test_words_are_sentences_of_readable_length(name):
    said = FIGURES[name]().words
    assert 40 < len(said) <= words.LONGEST and "\n" not in said
    assert said[0].isupper() and said[-1] in ".…" and not set("`[]{}") & set(said), said


def test_the_first_sentence_of_a_docstring():
    assert words.first_sentence("All outputs (n, 2), a panel each; None is softmax.\n\nMore") == (
        "All outputs, a panel each."
    )
    assert words.first_sentence("The picture of :func:`f` at 0.5.") == "The picture of f at 0.5."
    assert words.first_sentence("Lambda of heads, a list of (T, h): dots.") == "Lambda of heads."
    assert words.first_sentence(None) == ""


SHOWN = """
import matplotlib.pyplot as plt
from minidiff.look import plots
plots.bounds_over_lambda(64)
plt.show()
plt.plot([1, 2], label="mine")
plt.title("A student's own")
plt.show()
"""


@pytest.mark.slow
def test_a_notebook_shows_its_figures_with_their_words():
    manager = pytest.importorskip("jupyter_client.manager", reason="needs the notebook packages")
    pytest.importorskip("ipykernel", reason="needs the notebook packages")
    kernel, client = manager.start_new_kernel(kernel_name="python3")
    try:
        client.execute(SHOWN)
        shown = []
        while len(shown) < 2:
            message = client.get_iopub_msg(timeout=120)
            assert message["msg_type"] != "error", message["content"]
            if message["msg_type"] == "display_data":
                shown.append(message["content"])
    except queue.Empty:
        pytest.fail("no figure came")
    finally:
        client.stop_channels()
        kernel.shutdown_kernel(now=True)
    alts = [content["metadata"]["image/png"]["alt"] for content in shown]
    assert "What a head can reach over n = 64 tokens" in alts[0]
    assert alts[1] == "A student's own; mine, from 1 to 2."
    assert all(content["data"]["image/png"] for content in shown)


def without_words(notebook):
    """Pictures in the outputs of a notebook that say nothing to who cannot see them."""
    for i, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", ()):
            about = output.get("metadata", {}).get("image/png", {})
            if "image/png" in output.get("data", {}) and len(about.get("alt", "")) < 10:
                yield f"cell {i}: a picture without an alternative text: rebuild the notebook"


def test_a_picture_without_words_is_found():
    nbformat = pytest.importorskip("nbformat", reason="needs the notebook packages")
    cell = nbformat.v4.new_code_cell("plt.show()")
    cell.outputs = [nbformat.v4.new_output("display_data", {"image/png": "iVBORw0KGgo="})]
    notebook = nbformat.v4.new_notebook(cells=[cell])
    assert len(list(without_words(notebook))) == 1
    cell.outputs[0].metadata = {"image/png": {"alt": "Loss against steps."}}
    assert not list(without_words(notebook))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_every_stored_figure_has_words(path):
    nbformat = pytest.importorskip("nbformat", reason="needs the notebook packages")
    problems = list(without_words(nbformat.read(path, as_version=4)))
    assert not problems, "\n".join(problems)


def test_a_row_that_fills_the_memory_is_not_drawn():
    """16 GB of numbers for a picture."""
    with pytest.raises(ValueError, match="n=1000000000 is over 1048576"):
        sketches_forms.rms_figure(n=10**9)
    with pytest.raises(ValueError, match="n=1000000000 must be a whole number from"):
        forms.rms_explorer(n=10**9)
