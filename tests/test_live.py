"""look.live_explorer: the page in a cell, alive in JupyterLab and a picture elsewhere."""

import json
import re

import pytest
import torch

WHY = "the notebook packages are not installed here"
nbformat = pytest.importorskip("nbformat", reason=WHY)
pytest.importorskip("anywidget", reason=WHY)
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed here")

import test_browser as lab_tools  # noqa: E402

from minidiff import data  # noqa: E402
from minidiff.look import live, probe  # noqa: E402
from minidiff.model import GPT, GPTConfig  # noqa: E402

lab = lab_tools.lab  # JupyterLab on tmp_path
pytest_plugins = ["page_tools"]
SHAPE = {"n_layer": 2, "n_head": 2, "n_kv_head": 1, "head_dim": 16, "n_embd": 32, "block_size": 64}


def tiny(attention="diff_v2", **changes):
    torch.manual_seed(1)
    return GPT(GPTConfig(attention=attention, **SHAPE | changes))


@pytest.mark.parametrize(
    "models, text, problem",
    [
        ({"V0": tiny("softmax"), "halves": tiny("diff_halves")}, "x", "halves: attention='diff_ha"),
        (tiny(vocab_size=300), "x", "model: 300 tokens are not bytes and BOS"),
        (tiny(), "", "0 bytes of text: model reads 1 to 63"),
        (tiny(), "é" * 32, "64 bytes of text: model reads 1 to 63"),
    ],
)
def test_what_the_page_cannot_draw_is_refused_at_once(models, text, problem):
    with pytest.raises(ValueError, match=re.escape(problem)):
        live.live_explorer(models, text)


@pytest.mark.parametrize(
    "heads, problem",
    [
        ({"softmax": (0, 0)}, "heads names 'softmax'; the models are model"),
        ({"model": (2, 0)}, "model has layers 0 to 1 and heads 0 to 1, not layer 2, head 0"),
    ],
)
def test_a_head_that_is_not_there_is_refused_at_once(heads, problem):
    with pytest.raises(ValueError, match=re.escape(problem)):
        live.live_explorer(tiny(), "abc", heads=heads)


def test_the_picture_is_of_the_head_that_copies_most():
    model, idx = tiny(), data.encode("abcabcab")
    figure = live._figure("mine", model, idx)
    views, tokens = probe.attention_maps(model, idx), idx[0].tolist()
    scores = {}
    for layer, view in enumerate(views):
        for head in range(2):
            pairs = [
                (t, s) for t in range(9) for s in range(1, t + 1) if tokens[s - 1] == tokens[t]
            ]
            scores[layer, head] = sum(view.weights[head, t, s].item() for t, s in pairs)
    best = max(scores, key=scores.get)
    assert figure.get_suptitle() == "mine: layer {}, head {}".format(*best)
    chosen = live._figure("mine", model, idx, (1, 0))
    assert chosen.get_suptitle() == "mine: layer 1, head 0"
    assert [ax.get_title() for ax in figure.axes[:3]] == ["A1", "A2", "A1 − λ A2"]


CELL = """
import torch
from minidiff.model import GPT, GPTConfig
from minidiff.look.live import live_explorer
shape = dict(n_layer=2, n_head=2, n_kv_head=1, head_dim=16, n_embd=32, block_size=64)
torch.manual_seed(1)
models = {name: GPT(GPTConfig(attention=name, **shape)) for name in ("softmax", "diff_v2")}
live_explorer(models, "for i in range(3): i", heads={"softmax": (1, 1)})
"""
FORM = "from minidiff.look.forms import rms_explorer\n\nrms_explorer()"
IDLE = """() => {
    const context = window.jupyterapp?.shell.currentWidget?.sessionContext;
    return context?.isReady && context.session?.kernel?.status === "idle";
}"""
ALIVE = "() => document.querySelector('.minidiff-live')?.minidiff?.voices.length === 2"


@pytest.mark.slow
def test_in_jupyterlab_it_lives_and_what_is_saved_is_a_picture(browser, lab, tmp_path):
    notebook = nbformat.v4.new_notebook(cells=list(map(nbformat.v4.new_code_cell, (CELL, FORM))))
    notebook.metadata.kernelspec = {
        "display_name": "Python 3",
        "language": "python",
        "name": "python3",
    }
    path = tmp_path / "live.ipynb"
    nbformat.write(notebook, path)
    page = browser.new_page(viewport={"width": 1280, "height": 720})
    address = f"{lab}/doc/tree/live.ipynb?token={lab_tools.TOKEN}&reset"
    page.goto(address, timeout=lab_tools.TIMEOUT)
    page.wait_for_function(IDLE, timeout=lab_tools.TIMEOUT)
    page.evaluate("() => jupyterapp.commands.execute('notebook:run-all-cells')")
    page.wait_for_function(ALIVE, timeout=lab_tools.TIMEOUT)
    cell = page.locator(".minidiff-live")
    assert cell.bounding_box()["height"] <= 600
    page.wait_for_function("() => document.querySelectorAll('.minidiff-live .query').length === 4")
    place = "() => document.querySelector('.minidiff-live').minidiff.state.places.softmax"
    assert page.evaluate(place) == {"layer": 1, "head": 1}  # as asked for
    # the numbers are those of the model in the kernel
    torch.manual_seed(1)
    models = [GPT(GPTConfig(attention=name, **SHAPE)) for name in ("softmax", "diff_v2")]
    idx = data.encode("for i in range(3): i")
    for i, model in enumerate(models):
        found = page.evaluate(
            f"() => [...document.querySelector('.minidiff-live').minidiff.voices[{i}].seen.logits]"
        )
        with torch.no_grad():
            wanted = model(idx)[0].flatten()
        assert torch.allclose(torch.tensor(found), wanted, atol=1e-4)
    # keys on its controls are not JupyterLab's: b, d d and a would edit the notebook
    cell.get_by_role("tab", name="All heads").click()
    for key in "bdda":
        page.keyboard.press(key)
    assert page.locator(".jp-Notebook .jp-CodeCell").count() == 2
    page.get_by_role("button", name="Two equal maps").click()
    page.keyboard.press("b")
    assert page.locator(".jp-Notebook .jp-CodeCell").count() == 2
    page.evaluate("() => jupyterapp.commands.execute('docmanager:save')")
    page.wait_for_function("() => !jupyterapp.shell.currentWidget.context.model.dirty")
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        (output,) = cell["outputs"]
        assert set(output["data"]) == {"text/html", "text/plain"}  # and no widget
        assert len(json.dumps(output)) < 400_000  # nor the weights
    # opened again, before anything runs: the picture; what needs no model is alive
    page.evaluate("() => jupyterapp.commands.execute('kernelmenu:shutdown')")
    page.goto(address, timeout=lab_tools.TIMEOUT)
    page.wait_for_function(
        "() => document.querySelectorAll('.minidiff-live img').length === 2",
        timeout=lab_tools.TIMEOUT,
    )
    assert page.locator(".minidiff-live img").first.is_visible()
    page.wait_for_function("() => document.querySelector('.minidiff-form svg')")
    page.wait_for_function(IDLE, timeout=lab_tools.TIMEOUT)  # or the server waits for a kernel
    page.close()
