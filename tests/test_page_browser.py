"""What one does on the page, in Chromium: open, type, point, hold lambda, step, write on."""

import re

import pytest
import torch
from safetensors.torch import load_file
from test_page import CLOSE, PAGE, TEXT, reference

from minidiff import data, runs
from minidiff.look.page import build

pytest_plugins = ["page_tools"]  # its fixtures
pytestmark = pytest.mark.slow

# ---- Opening -----------------------------------------------------------------------------------


def test_it_opens_from_a_file_with_no_network(visit):
    page = visit(offline=True)
    schemes = {address.split(":")[0] for address in page.requests}
    assert schemes == {"file", "blob"}
    assert page.locator(".card h2").all_inner_texts() == ["Softmax", "DIFF V2"]
    assert page.voice("diff_v2", "v.seen.losses.length") == len("for name in names:\n    print(na")


def test_from_a_server_it_fetches_its_own_files_only(visit, server):
    page = visit(server + "/")
    assert {address.split("/")[2] for address in page.requests if address.startswith("http")} == {
        server.removeprefix("http://")
    }
    assert not [address for address in page.requests if address.endswith("diff_v2.js")]


def test_what_is_typed_while_the_models_come_is_kept(browser, server):
    context = browser.new_context()
    page, held = context.new_page(), []
    page.route(
        "**/model.safetensors", lambda route: held.append(route)
    )  # on its way, until continued
    page.goto(server + "/#text=from+a+link&diff_v2=2.3&diff_v2.lam=all:0.5")
    box = page.get_by_label("Prompt")
    assert box.input_value() == "from a link" and page.get_by_label("begin with BOS").is_checked()
    box.fill("my own text")
    page.get_by_role("button", name="Save SVG").click()  # nothing to save yet: nothing happens
    page.wait_for_function("() => document.querySelector('.status')")
    while len(held) < 2:
        page.wait_for_timeout(20)
    for route in held:
        route.continue_()
    page.wait_for_function("() => document.querySelector('main').minidiff.voices.length === 2")
    state = page.evaluate("() => document.querySelector('main').minidiff.state")
    assert bytes(state["bytes"]).decode() == box.input_value() == "my own text"
    assert state["places"]["diff_v2"] == {"layer": 2, "head": 3}
    assert set(state["wheels"]["diff_v2"]["lam"]) == {0.5}
    context.close()


@pytest.mark.parametrize("name", build.MODELS.values())
def test_in_chromium_too_the_model_agrees_with_pytorch(visit, name):
    page, run = visit(), build.SHIPPED / name
    idx = data.encode(TEXT[:45])
    wanted = reference(runs.load_run(run), idx)
    page.set_content("<input type=file multiple>")
    page.add_script_tag(path=PAGE / "dist" / "explorer.js")
    page.locator("input").set_input_files([run / "config.json", run / "model.safetensors"])
    found = page.evaluate(
        """async (tokens) => {
            const [config, weights] = document.querySelector("input").files;
            const engine = new minidiff.Engine(), told = {};
            const info = await engine.ask("load", {
                config: await config.text(),
                weights: new Uint8Array(await weights.arrayBuffer()),
            });
            const { n_layer, n_head } = info.config;
            for (let layer = 0; layer < n_layer; layer++) {
                for (let head = 0; head < n_head; head++) {
                    const seen = await engine.ask("look", { tokens, layer, head });
                    for (const [name, map] of Object.entries(seen.maps))
                        if (map?.length) told[`${layer}.${head}.${name}`] = [...map];
                    told.logits = [...seen.logits];
                    for (const [name, values] of Object.entries(seen.numbers.layers[layer]))
                        told[`${layer}.${name}`] = [...values];
                }
            }
            return told;
        }""",
        idx[0].tolist(),
    )
    compared = set(wanted) & set(found)
    assert {"logits", "0.rms", "6.3.weights", "6.first"} <= compared
    assert len(compared) > 7 * 4 + 14
    for key in compared:
        assert torch.allclose(torch.tensor(found[key]), wanted[key].flatten(), atol=CLOSE), key


# ---- Prompt and pointing -----------------------------------------------------------------------


def test_typing_and_pointing(visit):
    page = visit()
    page.get_by_label("Prompt").fill("import os\nimport o")
    page.wait_for_function("() => document.querySelectorAll('.cells')[0].children.length === 19")
    page.settle()
    assert page.locator(".next h2").inner_text() == "Next byte after “o”"
    cells = page.locator(".card.diff_v2 .line.weights .cell")
    cells.nth(6).hover()
    assert "query" in cells.nth(6).get_attribute("class")
    assert "later" in cells.nth(7).get_attribute("class")
    row = page.voice("diff_v2", "[...v.row('weights', 6)]")
    assert len(row) == 7
    percent = lambda x: f"{100 * x:.{int(0.0005 <= abs(x) < 0.0995)}f}%".replace("-", "−")  # noqa: E731
    aside = page.locator(".card.diff_v2 .line.weights .aside").inner_text()
    assert aside.startswith(f"{percent(row[0])} on BOS")
    slider = page.get_by_role("slider", name="DIFF V2, A1 minus lambda A2")
    slider.focus()
    page.keyboard.press("ArrowRight")
    assert slider.get_attribute("aria-valuenow") == "7"
    assert re.match(r"byte 7 of 18: space looks most at ", slider.get_attribute("aria-valuetext"))
    page.keyboard.press("End")
    assert slider.get_attribute("aria-valuenow") == "18"


def test_a_click_holds_a_byte_on_the_way_to_a_button(visit):
    page = visit()
    cells, looks = page.locator(".card.softmax .cell"), page.locator(".card.softmax .cell.query")
    cells.nth(7).click()
    cells.nth(3).hover()
    assert looks.get_attribute("data-i") == "7"
    cells.nth(7).click()
    cells.nth(3).hover()
    assert looks.get_attribute("data-i") == "3"
    cells.nth(5).click()
    page.get_by_label("Prompt").fill("another text")
    page.settle()
    cells.nth(2).hover()
    assert looks.get_attribute("data-i") == "2"


def test_bytes_that_are_no_ascii_and_prompts_of_a_wrong_length(visit):
    page = visit()
    box, problem = page.get_by_label("Prompt"), page.locator(".problem")
    box.fill("é")
    page.settle()
    assert page.locator(".card.softmax .cell").all_inner_texts() == ["BOS", "C3", "A9"]
    box.fill("x" * 1024)
    assert problem.inner_text() == "1024 bytes: these models read up to 1023"
    box.fill("")
    assert problem.inner_text() == "Type something: at least one byte"
    box.fill("x" * 300)
    page.settle()
    assert problem.inner_text() == "" and page.voice("softmax", "v.seen.tokens.length") == 301


# ---- Heads, the wheel, steps, writing on -------------------------------------------------------


def test_the_overview_enters_a_head_by_mouse_and_by_key(visit):
    page = visit()
    page.get_by_role("button", name=re.compile("^layer 3, head 2: ")).nth(1).click()
    page.settle()
    assert page.voice("diff_v2", "v.place") == {"layer": 3, "head": 2}
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowLeft")
    page.settle()
    assert page.voice("diff_v2", "v.place") == {"layer": 4, "head": 1}
    page.get_by_role("combobox", name="DIFF V2: layer").select_option("0")
    page.settle()
    assert page.voice("diff_v2", "v.place") == {"layer": 0, "head": 1}
    painted = page.locator(".maps canvas").evaluate_all("all => all.map((c) => c.width)")
    assert painted == [page.voice("softmax", "v.seen.tokens.length")] * 4
    page.get_by_label("Prompt").fill("x = 1")  # the small maps follow when the reader pauses
    page.wait_for_function(
        "() => [...document.querySelectorAll('.thumb canvas')].every((c) => c.width === 6)"
    )


def test_holding_lambda_and_switching_heads_off(visit):
    page = visit(hash="#tab=wheel&diff_v2=5.1&softmax=1.5")
    loss = lambda key: page.voice(key, "v.summary().loss")  # noqa: E731
    trained, softmax = loss("diff_v2"), loss("softmax")
    page.get_by_label("all heads", exact=True).check()
    slider = page.get_by_label("DIFF V2: hold λ at")
    slider.focus()
    page.keyboard.press("Home")
    page.settle()
    assert slider.get_attribute("aria-valuetext") == "held at 0.00"
    assert page.voice("diff_v2", "v.seen.maps.a1.every((a, i) => a === v.seen.maps.weights[i])")
    assert loss("diff_v2") != trained and loss("softmax") == softmax
    assert page.locator("td.changed").count() >= 2
    page.get_by_role("button", name="All as trained").click()
    page.settle()
    assert loss("diff_v2") == pytest.approx(trained, abs=1e-5)
    page.get_by_label("switch this head off").first.check()
    page.settle()
    assert loss("softmax") != softmax
    assert page.locator(".card.softmax .held").inner_text() == "switched off"


def test_without_bos_the_first_byte_stands_first(visit):
    page = visit()
    page.get_by_label("begin with BOS").uncheck()
    page.settle()
    assert page.voice("softmax", "v.seen.tokens[0]") == ord("f")
    assert "on the first byte" in page.locator(".card.softmax .aside").inner_text()
    assert page.locator(".cell.bos").count() == 0


def test_step_by_step_with_the_keys(visit):
    page = visit(hash="#tab=steps&diff_v2=5.1")
    page.get_by_role("button", name="Next ›").focus()
    titles = []
    for _ in range(6):
        titles.append(page.locator(".steps h3").inner_text())
        page.keyboard.press("ArrowRight")
    names = "Scores", "Softmax", "Times the values", "Lambda", "Subtract", "Out"
    assert titles == [f"{i}. {name}" for i, name in enumerate(names, 1)]
    page.keyboard.press("ArrowLeft")
    says = page.locator(".steps .says").inner_text()
    at = "v.seen.tokens.length - 1"
    assert says.endswith(f"becomes {page.voice('diff_v2', f'v.number(`rms`, {at})'):.2f}.")
    page.get_by_label("The model to follow").select_option("softmax")
    page.wait_for_function("() => document.querySelectorAll('.track-steps li').length === 4")


def test_writing_on_is_what_the_model_writes(visit, site):
    prompt = "for name in names:\n    print(na"
    model, state = (
        runs.load_pretrained("diff_v2"),
        load_file(site / "models/diff_v2/model.safetensors"),
    )
    for key, tensor in model.state_dict().items():
        scale = state.get(f"{key}.scale")
        tensor.copy_(state[key] if scale is None else state[key] * scale[:, None])
    wanted = data.decode(model.generate(data.encode(prompt), 6, temperature=0)[0])
    page = visit(hash="#tab=write&temperature=0")
    for _ in range(6):
        page.get_by_role("button", name="One byte").click()
        page.settle()
    assert page.get_by_label("Prompt").input_value() == wanted
    page.get_by_role("button", name="Take back").click()
    page.settle()
    assert page.get_by_label("Prompt").input_value() == prompt
    page.get_by_role("button", name="Write on", exact=True).click()
    page.wait_for_function("() => document.querySelectorAll('.cells')[0].children.length > 40")
    page.get_by_role("button", name="Stop").click()
    page.settle()
    assert page.get_by_label("Prompt").input_value().startswith(wanted)
