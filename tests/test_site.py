"""The site that `make site` builds: complete, small, alive, and nothing comes from elsewhere."""

import re
import subprocess
import sys
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

for name in ("sphinx", "myst_nb", "furo", "nbformat", "latex2mathml"):
    pytest.importorskip(name, reason="the packages of the site are not installed: make .venv/ready")
import nbformat  # noqa: E402

ROOT = Path(__file__).parents[1]
COURSE = ROOT / "notebooks"
NOTEBOOKS = [*sorted(COURSE.glob("*.ipynb")), *sorted(COURSE.glob("solutions/*.ipynb"))]
FIRST = f"notebooks/{NOTEBOOKS[0].stem}.html"  # it has an explorer, links and mathematics
ALIVE = r"<div[^>]* data-(?:model|form)="  # an explorer
AXE = ROOT / "minidiff" / "look" / "page" / "node_modules" / "axe-core" / "axe.min.js"
pytest_plugins = ["page_tools"]  # browser, server
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Built as make does it, but here a warning is an error: a link to nowhere, an orphan page."""
    out, trees = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("trees")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "-c", "docs", "-d", trees, ROOT, out]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return out


class Page(HTMLParser):
    """What a page refers to: (tag, address); and the names in it that an address may end with."""

    def __init__(self, path):
        super().__init__()
        self.path, self.links, self.names = path, [], set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.names |= {attrs[key] for key in ("id", "name") if attrs.get(key)}
        self.links += [(tag, attrs[key]) for key in ("href", "src") if attrs.get(key)]


@pytest.fixture(scope="module")
def pages(site):
    return {path: Page(path) for path in site.rglob("*.html")}


def test_every_notebook_has_its_page_with_every_cell_and_picture(site):
    assert len(NOTEBOOKS) > 10
    for path in NOTEBOOKS:
        page = (site / path.relative_to(ROOT)).with_suffix(".html").read_text(encoding="utf-8")
        cells = [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
        hidden = {"remove-input", "remove-cell"}  # on the slides; the cell for Colab
        shown = [c for c in cells if not hidden & set(c.metadata.get("tags", []))]
        data = [out.data for c in cells for out in c.outputs if "data" in out]
        assert page.count('class="cell_input ') == len(shown), path.name
        pictures = [d for d in data if "image/png" in d and "text/html" not in d]
        assert len(re.findall(r'<img[^>]*src="[^"]*_images/\w+\.png"', page)) >= len(pictures)
        explorers = sum(len(re.findall(ALIVE, d.get("text/html", ""))) for d in data)
        assert len(re.findall(ALIVE, page)) == explorers, path.name


def test_a_figure_has_a_name_and_its_place_before_it_is_loaded(site):
    page = (site / FIRST).read_text(encoding="utf-8")
    figures = re.findall(r'<img[^>]*src="[^"]*_images/\w+\.png"[^>]*>', page)
    assert figures and all('loading="lazy"' in figure for figure in figures)
    assert not re.search(r'alt="[^"]*_images/', page)
    width, height = re.search(r'width="(\d+)" height="(\d+)"', figures[0]).groups()
    assert int(width) > 500 and int(height) > 200


def test_every_link_and_anchor_leads_somewhere(site, pages):
    for path, page in pages.items():
        for _, address in page.links:
            parts = urlsplit(address)
            if parts.scheme in ("http", "https", "data", "mailto"):
                continue
            assert not parts.scheme and not parts.netloc, f"{path}: {address}"
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            assert target.is_file() and target.is_relative_to(site), f"{path}: {address}"
            if parts.fragment and target in pages and not parts.fragment.startswith("/"):
                names = {parts.fragment, unquote(parts.fragment)}  # a browser tries both
                assert names & pages[target].names, f"{path}: {address}"


def test_nothing_is_loaded_from_elsewhere(pages):
    for path, page in pages.items():
        loaded = [address for tag, address in page.links if tag != "a"]
        assert not [x for x in loaded if x.startswith(("http", "//"))], path


def test_sizes_and_licences(site):
    files = [path for path in site.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 60e6
    licences = (site / "licences.txt").read_text(encoding="utf-8")
    for name in ("MathJax", "Sphinx", "furo", "reveal.js", "snowballstemmer"):
        assert re.search(rf"# {re.escape(name)}\n\n\W*\w", licences), name
    assert (site / "explorer" / "NOTICE.txt").exists()


def test_the_picture_of_the_start_page_is_a_subtraction(site):
    rows = re.findall(
        r'<div class="row.*?</div>', (site / "index.html").read_text(encoding="utf-8")
    )
    signed = r'class="(plus|minus)" style="--w:([\d.]+)"'
    softmax, a1, taken, diff = (
        [float(w) * (1 if sign == "plus" else -1) for sign, w in re.findall(signed, row)]
        for row in rows
    )
    assert sum(softmax) == pytest.approx(1, abs=0.15) and sum(a1) == pytest.approx(1, abs=0.15)
    assert diff == pytest.approx([x + y for x, y in zip(a1, taken, strict=True)], abs=0.016)
    assert max(softmax[1:]) > 0.3 and max(taken) == 0 > min(taken)  # it copies; it takes away


@pytest.fixture
def visit(browser, site):
    """visit(address, ...options of the context) -> a page that has loaded, without errors."""
    contexts, problems = [], []

    def visit(address, **options):
        size = {"viewport": {"width": 1280, "height": 720}}
        contexts.append(browser.new_context(**size | options))
        page = contexts[-1].new_page()
        page.requests, page.loaded = [], 0
        page.on("request", lambda request: page.requests.append(request.url))
        page.on("response", partial(weigh, page))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(address, wait_until="networkidle")
        return page

    yield visit
    for context in contexts:
        context.close()
    assert not problems


def weigh(page, response):
    page.loaded += int(response.headers.get("content-length", 0))


def test_no_request_leaves_the_host(visit, server):
    for address in ("index.html", FIRST, "search.html?q=sigmoid", "lesson.html", "explorer/"):
        page = visit(f"{server}/{address}")
        assert page.requests and all(
            url.startswith((server, "data:", "blob:")) for url in page.requests
        ), page.requests


def test_the_first_load_of_every_page_is_small(visit, server):
    notebooks = [f"notebooks/{path.stem}.html" for path in NOTEBOOKS if path.parent == COURSE]
    for address in ("index.html", "README.html", *notebooks):
        page = visit(f"{server}/{address}")
        assert 0 < page.loaded < 3e6, (address, page.loaded)


@pytest.mark.parametrize("served", [True, False], ids=["server", "file"])
def test_an_explorer_in_a_notebook_reacts(visit, site, server, served):
    base = server if served else site.as_uri()
    page = visit(f"{base}/{FIRST}")
    explorer = page.locator(".cell_output").filter(has=page.locator("input[type=range]")).first
    slider = explorer.locator("input[type=range]").last
    before = explorer.inner_text()
    slider.focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    page.wait_for_function(
        "([el, before]) => el.innerText !== before", arg=[explorer.element_handle(), before]
    )
    page.wait_for_selector("mjx-container svg")  # mathematics, from the same folder
    assert "$" not in page.locator("article p").first.inner_text()


@pytest.mark.parametrize("served", [True, False], ids=["server", "file"])
def test_search_finds(browser, site, server, served):
    base = server if served else site.as_uri()
    page = browser.new_page()  # from a file it finds titles; their excerpts need a server
    page.goto(f"{base}/search.html?q=sigmoid")
    page.wait_for_selector("#search-results li a[href*='glossary.html']")
    page.close()


def test_the_start_page_leads_to_play_read_and_run(visit, site):
    doors = visit(f"{site.as_uri()}/index.html").locator(".doors a")
    assert [door.inner_text().split("\n")[0] for door in doors.all()] == ["Play", "Read", "Run"]
    for i in range(3):
        page = visit(f"{site.as_uri()}/index.html")
        page.locator(".doors a").nth(i).click()
        page.wait_for_selector(
            ("main#explorer canvas, main#explorer .cell", "article h1", "#the-commands")[i]
        )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_scrolls_one_way_only(visit, site, scheme):
    for path in ["index.html", FIRST, "README.html", "notebooks/results/CLAIMS.html"]:
        size = {"width": 390, "height": 844}
        page = visit(f"{site.as_uri()}/{path}", viewport=size, color_scheme=scheme)
        wide = page.evaluate("document.scrollingElement.scrollWidth")
        assert wide <= 390, f"{path} is {wide} pixels wide"


PAGES = [FIRST, "notebooks/glossary.html", "README.html", "explorer/index.html"]
PAGES += ["index.html", "explorer/forms.html", "docs/contents.html"]
SIZES = [(1280, 720), (390, 844), (640, 360)]  # the last is 1280 x 720 at 200%


@pytest.mark.skipif(not AXE.exists(), reason="axe-core is not here: npm ci in minidiff/look/page")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", PAGES)
def test_axe_finds_nothing(visit, site, path, scheme):
    run = "async () => (await axe.run()).violations.map((v) => [v.id, v.nodes[0].html])"
    for width, height in SIZES:
        size = {"width": width, "height": height}
        page = visit(f"{site.as_uri()}/{path}", viewport=size, color_scheme=scheme)
        page.wait_for_timeout(200)  # the models of the explorer
        page.add_script_tag(path=AXE)
        assert page.evaluate(run) == [], (width, height)


def test_the_live_pages_lead_back_to_the_course(visit, site):
    for address in ("explorer/index.html", "explorer/forms.html"):
        page = visit(f"{site.as_uri()}/{address}")
        page.get_by_role("link", name="The course").click()
        page.wait_for_selector(".start h1")


def test_an_explorer_follows_the_theme_of_its_page(visit, site):
    page = visit(f"{site.as_uri()}/{FIRST}", color_scheme="light")
    form = page.locator(".minidiff-form").first
    themes = {form.get_attribute("data-theme")}
    for _ in range(2):  # auto, light, dark
        page.locator(".theme-toggle:visible").first.click()
        body = page.evaluate("document.body.dataset.theme")
        wanted = "dark" if body == "dark" else "light"
        page.wait_for_function(
            f"() => document.querySelector('.minidiff-form').dataset.theme === '{wanted}'"
        )
        themes.add(wanted)
    assert themes == {"light", "dark"}
