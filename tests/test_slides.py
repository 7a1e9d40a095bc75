"""The lesson fits its forty minutes, and its slides are one file that needs nothing else."""

import re
import shutil
from itertools import pairwise
from pathlib import Path

import pytest

WHY = "the notebook packages are not installed here"
nbformat = pytest.importorskip("nbformat", reason=WHY)
pytest.importorskip("nbconvert", reason=WHY)
pytest.importorskip("latex2mathml", reason=WHY)

from minidiff.course import slides  # noqa: E402

LESSON = Path(__file__).parents[1] / "notebooks" / "lesson.ipynb"
MARK = re.compile(r"\AMinute (\d+) to (\d+)\n")
SPOKEN = 130  # words a minute: slow, to a class


def notes():
    """The speaker notes of each slide but the title's."""
    cells = nbformat.read(LESSON, as_version=4).cells
    return [c.source for c in cells if c.metadata.slideshow.slide_type == "notes"][1:]


def marks(source):
    """(first minute, last minute) of a slide's notes, which begin with them."""
    first, last = MARK.match(source).groups()
    return int(first), int(last)


def rehearsed(source):
    """Minutes that a slide takes, spoken slowly: a minute a question, and the pauses asked for."""
    parts = re.findall(r"\*\*(\w+):\*\*(.*?)(?=\*\*\w+:\*\*|\Z)", source, re.DOTALL)
    assert {kind for kind, _ in parts} <= {"Say", "Do", "Ask", "Wait", "Expect"}
    assert {"Expect"} < {kind for kind, _ in parts}
    speaking = sum(len(words.split()) for kind, words in parts if kind in ("Say", "Do", "Ask"))
    waiting = sum(int(re.search(r"\d+", words)[0]) for kind, words in parts if kind == "Wait")
    return speaking / SPOKEN + waiting + sum(kind == "Ask" for kind, _ in parts)


def test_the_marks_follow_each_other_and_leave_ten_minutes():
    every = [marks(source) for source in notes()]
    assert every[0][0] == 0 and every[-1][1] <= 40
    assert all(before[1] == after[0] for before, after in pairwise(every))
    everywhere = "".join(c.source for c in nbformat.read(LESSON, as_version=4).cells)
    assert len(re.findall(r"[Mm]inute \d+ to", everywhere)) == len(every)  # none on a slide


@pytest.mark.parametrize("source", notes(), ids=lambda source: source.partition("\n")[0])
def test_a_rehearsal_of_each_slide_fits_between_its_marks(source):
    (first, last), minutes = marks(source), rehearsed(source)
    room = last - first
    assert room - 1 < minutes <= room, f"{minutes:.1f} of {room} minutes"


def test_the_notes_come_back_to_what_was_said_in_the_right_minute():
    """A mark that moves must move the minutes that the notes mention, too."""
    starts = {str(marks(source)[0]) for source in notes()}
    text = nbformat.read(LESSON, as_version=4).cells[1].source + "".join(notes())
    mentioned = set(re.findall(r"\bminute (\d+)", text))
    assert mentioned and mentioned <= starts


# ---- The exported file -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    out = tmp_path_factory.mktemp("slides") / "lesson.html"
    slides.export(LESSON, out)
    return out


def test_mathematics_is_drawn_by_the_browser_alone():
    source = slides.with_mathml("A $w_1$ and $$\\frac{1}{2}$$ cost 5$.")
    assert source.count("<math") == 2 and "<mfrac>" in source and source.endswith("cost 5$.")


def test_a_picture_from_elsewhere_is_refused(tmp_path):
    cell = nbformat.v4.new_markdown_cell('<img src="https://example.org/cat.png">')
    cell.metadata.slideshow = {"slide_type": "slide"}
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "cat.ipynb")
    with pytest.raises(ValueError, match=r"would fetch .*cat\.png"):
        slides.export(tmp_path / "cat.ipynb", tmp_path / "cat.html")
    assert not (tmp_path / "cat.html").exists()


@pytest.mark.slow
def test_the_file_holds_everything(exported):
    page = exported.read_text(encoding="utf-8")
    assert len(page) < 3e6 and "$" not in re.sub(r"<(script|style).*?</\1>", "", page, flags=re.S)
    starts = [c.metadata.slideshow.slide_type for c in nbformat.read(LESSON, as_version=4).cells]
    assert page.count("<aside class=") == starts.count("notes") >= 10


BOX = """(el) => {
    const { left, top, right, bottom } = el.getBoundingClientRect();
    return [left, top, right, bottom];
}"""


@pytest.mark.slow
def test_the_slides_run_offline_fit_the_screen_and_are_alive(exported):
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed here")
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if not program:
        pytest.skip("no Chromium here")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        size = {"width": 1280, "height": 720}
        context = browser.new_context(offline=True, viewport=size, color_scheme="dark")
        page, problems = context.new_page(), []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("requestfailed", lambda request: problems.append(request.url))
        page.goto(exported.as_uri())
        page.wait_for_function("window.Reveal?.isReady()")
        total, alive = page.evaluate("Reveal.getTotalSlides()"), 0
        for _ in range(total + 3):
            here = page.evaluate(
                """() => {
                    const slide = Reveal.getCurrentSlide();
                    return { height: slide.scrollHeight, width: slide.scrollWidth,
                             notes: Reveal.getSlideNotes() !== null, words: slide.innerText };
                }"""
            )
            assert here["height"] <= 720 and here["width"] <= 1280 and here["notes"], here
            explorer = page.locator("section.present:not(.stack) .minidiff-form")
            if explorer.count():
                alive += 1
                assert explorer.get_attribute("data-theme") == "light"  # as the slides are
                left, top, right, bottom = explorer.evaluate(BOX)
                for box in explorer.locator("input, .picture").evaluate_all(
                    f"(all) => all.map({BOX})"
                ):
                    assert left <= box[0] and top <= box[1] and box[2] <= right, box
                    assert box[3] <= bottom + 1, box  # reveal.js has moved nothing out of it
                slider, drawn = (
                    explorer.locator("[data-key=lam]").first,
                    explorer.locator("svg").last,
                )
                before = drawn.inner_html()
                slider.focus()
                page.keyboard.press("ArrowRight")  # moves lambda, not the slides
                assert drawn.inner_html() != before
                slider.blur()
            page.keyboard.press("Space")
        assert page.evaluate("Reveal.isLastSlide()") and alive == 2 and not problems, problems
        browser.close()


def test_a_picture_keeps_its_words(tmp_path):
    cell = nbformat.v4.new_code_cell("plt.show()", metadata={"slideshow": {"slide_type": "slide"}})
    picture = nbformat.v4.new_output("display_data", {"image/png": "iVBORw0KGgo="})
    picture.metadata["image/png"] = {"alt": 'Loss "falls".'}
    cell.outputs = [picture]
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "a.ipynb")
    page = slides.export(tmp_path / "a.ipynb", tmp_path / "a.html")
    (image,) = re.findall(r"<img[^>]*iVBORw0KGgo=[^>]*>", page)
    assert "Loss &quot;falls&quot;." in image or "'Loss \"falls\".'" in image
