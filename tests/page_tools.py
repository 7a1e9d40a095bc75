"""The page in Chromium, for the tests of the page: a browser, the built site, a server, a visit."""

import http.server
import shutil
import threading
from functools import partial
from pathlib import Path

import pytest

from minidiff.look.page import build

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed here")

READY = """() => document.querySelector("main").minidiff?.voices.length === 2 &&
              document.querySelectorAll(".cell.query").length === 4"""


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        names = "chromium", "chromium-browser", "google-chrome"
        own = playwright.chromium.executable_path
        program = next(filter(None, map(shutil.which, names)), own)
        if not Path(program).exists():
            pytest.skip("no Chromium here: install it, or run `playwright install chromium`")
        running = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    out = tmp_path_factory.mktemp("site")
    build.build(out)
    return out


def voice(page, key, expression):
    """A value of the page's Voice `v` of this key."""
    return page.evaluate(
        f"""() => {{
            const page = document.querySelector("main").minidiff;
            const v = page.voices.find((v) => v.key === "{key}");
            return {expression};
        }}"""
    )


def settle(page):
    """Wait until nothing is left to compute."""
    page.evaluate('() => document.querySelector("main").minidiff.refresh()')


@pytest.fixture
def visit(browser, site):
    """Open the page: visit(hash="", ...options of the context) -> a page without errors."""
    contexts, problems = [], []

    def visit(address=None, hash="", **options):
        contexts.append(
            browser.new_context(**{"viewport": {"width": 1280, "height": 720}} | options)
        )
        page = contexts[-1].new_page()
        page.requests, page.voice, page.settle = [], partial(voice, page), partial(settle, page)
        page.on("request", lambda request: page.requests.append(request.url))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto((address or (site / "index.html").as_uri()) + hash)
        page.wait_for_function(READY)
        return page

    yield visit
    for context in contexts:
        context.close()
    assert not problems


@pytest.fixture(scope="module")
def server(site):
    """The site's address, from a server of static files."""
    handler = partial(Quiet, directory=site)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass
