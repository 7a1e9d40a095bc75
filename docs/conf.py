"""How Sphinx makes the site, for `make site`: the repository's own files, shown where they lie.

Notebooks are shown as stored and never run. A reader's browser fetches nothing from elsewhere:
MathJax lies in _static/mathjax, copied from npm (mathjax 3.2.2, es5/tex-svg.js).
"""

import logging
import re
import sys
from importlib.metadata import distribution
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]

import front  # noqa: E402
from PIL import Image  # noqa: E402

from minidiff.course import slides  # noqa: E402
from minidiff.look.page import build as explorer  # noqa: E402

for name in ("minidiff", "traitlets"):  # which backend; pictures of the slides without a text
    logging.getLogger(name).setLevel("ERROR")

project = html_title = "minidiff"
copyright = "the authors of minidiff, MIT licence"
extensions = ["myst_nb"]
root_doc = "docs/contents"  # index.html is the start page, from _templates/start.html
include_patterns = ["docs/*.md", "*.md", "notebooks/**.md", "notebooks/**.ipynb"]
exclude_patterns = [".*", "**/.*", "site", "runs"]
templates_path = ["_templates"]

nb_execution_mode = "off"
nb_merge_streams = True
myst_enable_extensions = ["dollarmath", "amsmath", "html_image"]
myst_heading_anchors = 4
# A cell may begin with a smaller heading. That a notebook was never run, test_notebooks.py says.
suppress_warnings = ["myst.header", "myst-nb.lexer"]
mathjax_path = "mathjax/tex-svg.js"

html_theme = "furo"
pygments_style, pygments_dark_style = "a11y-high-contrast-light", "a11y-high-contrast-dark"
html_static_path = ["_static"]
html_favicon = "_static/icon.svg"
html_css_files, html_js_files = ["site.css"], ["site.js"]
html_additional_pages = {"index": "start.html"}
html_copy_source = html_use_index = html_domain_indices = False
html_theme_options = {
    f"{theme}_css_variables": {"color-brand-primary": blue, "color-brand-content": blue}
    for theme, blue in {"light": "#005F99", "dark": "#6BBFF0"}.items()
}


def setup(app):
    app.connect("html-page-context", name_pages)
    app.connect("build-finished", add_the_rest)


def name_pages(app, pagename, templatename, context, doctree):
    """The name in the corner leads to the start page, and that one to the first notebook."""
    context["master_doc"] = "index"
    context["first"] = min(name for name in app.env.found_docs if re.match(r"notebooks/\d", name))
    if pagename == "index":
        context["picture"] = front.picture()


def add_the_rest(app, error):
    """What is no page of Sphinx: the explorer, the slides, the licences of what is copied."""
    if error:
        return
    site = Path(app.outdir)
    for page in site.rglob("*.html"):
        page.write_text(mended(page.read_text("utf-8"), page.parent), "utf-8")
    explorer.build(site / "explorer", home="../index.html")
    slides.export(ROOT / "notebooks" / "lesson.ipynb", site / "lesson.html")
    texts = {"minidiff": ROOT / "LICENSE", "reveal.js": slides.REVEAL / "LICENSE"}
    texts["MathJax"] = ROOT / "docs" / "_static" / "mathjax" / "LICENSE"
    for name in ("Sphinx", "furo", "myst-nb", "Pygments", "snowballstemmer"):
        files = distribution(name).files
        texts[name] = next(f for f in files if re.search("LICEN[CS]E|COPYING", f.name)).locate()
    parts = (f"# {name}\n\n{path.read_text('utf-8')}" for name, path in texts.items())
    (site / "licences.txt").write_text("\n\n".join(parts), "utf-8")


def mended(page, folder):
    """A page of furo with what it lacks: names, levels, figures that load when they are near."""
    for column, name in (("sidebar", "Pages of the course"), ("toc", "Sections of this page")):
        side = f'class="{column}-drawer'
        page = page.replace(f"<aside {side}", f'<aside aria-label="{name}" {side}')
    page = page.replace('role="heading"><span', 'role="heading" aria-level="2"><span')

    def figure(found):
        width, height = Image.open(folder / found[1]).size  # so that nothing moves when it comes
        alt = "A figure, drawn by the code above it"
        return f'<img loading="lazy" alt="{alt}" width="{width}" height="{height}" src="{found[1]}"'

    return re.sub(r'<img alt="[./]*_images/\w+\.png" src="([^"]+)"', figure, page)
