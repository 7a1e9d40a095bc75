"""A notebook with slideshow metadata as one HTML file that needs no network: ``make slides``.

    python -m minidiff.course.slides notebooks/lesson.ipynb lesson.html

In the file: reveal.js (reveal/, MIT licence), every picture, the live explorers, and mathematics as
MathML, which browsers draw by themselves. Keys: space goes on, S opens the speaker's window with
notes, clock and the next slide, O shows all slides. Nothing is run: it shows what is stored.
"""

import base64
import mimetypes
import re
import sys
from pathlib import Path

import nbformat
from latex2mathml.converter import convert
from nbconvert import SlidesExporter
from traitlets.config import Config

from minidiff.parsing import one_line_errors, two_names

REVEAL = Path(__file__).with_name("reveal")
PAGE = """{%- extends 'index.html.j2' -%}
{%- block html_head_js -%}{%- endblock -%}
{%- block html_head_js_mathjax -%}{%- endblock -%}
{%- block footer_js -%}<!-- scripts -->{%- endblock -%}
{%- block data_png scoped -%}
<div class="jp-RenderedImage jp-OutputArea-output"><img
  alt="{{ (output | get_metadata('alt', 'image/png') or '') | escape_html }}"
  src="data:image/png;base64,{{ output.data['image/png'] | escape_html }}"></div>
{%- endblock -%}
"""
STYLE = """
.reveal { font-family: sans-serif; color: #222 } .reveal .slides { text-align: left }
.reveal .slides section { height: 100%; padding: 20px 40px; box-sizing: border-box }
.reveal .jp-RenderedHTMLCommon { font: 32px/1.45 sans-serif; color: #222 }
.reveal .jp-RenderedHTMLCommon h1 { font-size: 76px; margin: 150px 0 20px; color: #D55E00 }
.reveal .jp-RenderedHTMLCommon h2 { font-size: 46px; margin: 0 0 10px }
.reveal .jp-RenderedHTMLCommon p, .reveal .jp-RenderedHTMLCommon li { margin: 14px 0 }
.reveal .jp-RenderedHTMLCommon table { font-size: 28px; margin: 14px 0 }
.reveal .jp-RenderedHTMLCommon :is(td, th) { padding: 7px 22px; text-align: center }
.reveal .jp-RenderedHTMLCommon img { display: block; margin: 0 auto }
.reveal .jp-RenderedImage img { max-height: 540px; margin: 0 auto; display: block }
.reveal .slide-number { right: auto; left: 8px; background: none; color: #5a5a5a }
.reveal .jp-Cell { padding: 2px 0 }
.reveal :is(.jp-InputPrompt, .jp-OutputPrompt, .jp-Collapser, .anchor-link) { display: none }
.reveal div.highlight > pre { font-size: 24px; line-height: 1.4; padding: 12px }
.reveal div.jp-OutputArea-output.jp-RenderedText > pre { font-size: 24px; line-height: 1.4 }
.reveal .minidiff-form { zoom: 1.12; margin: 0 auto }
.reveal .slides section:has(.minidiff-form) { padding: 4px 30px }
.reveal section:has(.minidiff-form) h2 { font-size: 34px; line-height: 1.3; margin: 0 }
.reveal .minidiff-form :is(table, p) { font: 16px/1.4 sans-serif; margin: 4px 0 }
.reveal .minidiff-form :is(td, th) { padding: 3px 22px 3px 0; text-align: left }
.reveal .minidiff-form th { white-space: nowrap }
.reveal small { color: #5a5a5a; font-size: 24px } .reveal math { font-size: 110% }
.reveal math[display=block] { margin: 24px 0 }
.reveal menclose { border: 3px solid #D55E00; border-radius: 8px; padding: 18px 24px }
"""
START = """<script>Reveal.initialize({ hash: true, slideNumber: "c/t", width: 1280, height: 720,
  margin: 0.02, center: false, transition: "none", controlsTutorial: false,
  plugins: [RevealNotes] });
</script>"""
OUTSIDE = re.compile(r"""<(?:script|img|iframe)[^>]*\ssrc="(?!data:)[^"]+|<link[^>]*href="[^"]+""")


def export(notebook, out):
    """Write the slides of a notebook (a path) to the path ``out``; returns the page.

    Raises:
        ValueError: something in the page would be fetched from elsewhere.
    """
    notebook = Path(notebook)
    content = nbformat.read(notebook, as_version=4)
    for cell in content.cells:
        if cell.cell_type == "markdown":
            cell.source = with_mathml(cell.source)
    remove = {"enabled": True, "remove_input_tags": {"remove-input"}}
    exporter = SlidesExporter(raw_template=PAGE, config=Config(TagRemovePreprocessor=remove))
    page, _ = exporter.from_notebook_node(content, {"metadata": {"name": notebook.stem}})
    page = re.sub(r'src="(?!data:)([^":]+)"', lambda found: _inside(notebook, found[1]), page)
    page = re.sub(r"<link [^>]*>", "", page)  # reveal.js and its theme, from a CDN
    page = page.replace("</head>", f"<style>{_part('reveal.css')}{STYLE}</style></head>", 1)
    if outside := OUTSIDE.search(page):
        raise ValueError(f"{notebook}: the slides would fetch {outside[0][:100]}")
    scripts = "".join(f"<script>{_part(name)}</script>" for name in ("reveal.js", "notes.js"))
    page = page.replace("<!-- scripts -->", scripts + START)
    Path(out).write_text(page, encoding="utf-8")
    return page


def _inside(notebook, name):
    """A picture beside the notebook, as an attribute that holds all of it."""
    path = notebook.parent / name
    data = base64.b64encode(path.read_bytes()).decode()
    return f'src="data:{mimetypes.guess_type(path)[0]};base64,{data}"'


def _part(name):
    return (REVEAL / name).read_text(encoding="utf-8")


def with_mathml(source):
    """Markdown whose $...$ and $$...$$ are MathML, so that no page needs a program for them."""

    def block(found):
        return convert(found[1].strip(), display="block")

    source = re.sub(r"\$\$(.+?)\$\$", block, source, flags=re.DOTALL)
    return re.sub(r"\$([^$\n]+)\$", lambda found: convert(found[1]), source)


if __name__ == "__main__":
    with one_line_errors():
        export(*two_names("notebook.ipynb slides.html"))
    print(f"{sys.argv[2]}: open it in a browser; S opens the notes")
