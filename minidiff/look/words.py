"""What a figure shows in words: the alternative text of its picture, for who cannot see it.

In a notebook every figure, a student's own too, gets it as metadata of its output: ``alt`` of
image/png. The site (MyST), the slides and nbconvert's classic pages say it; JupyterLab 4.6 stores
it and does not say it yet. nbval does not compare metadata.
"""

import contextlib
import re
import sys

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.container import BarContainer, ErrorbarContainer
from matplotlib.figure import Figure

LONGEST = 700  # characters: a screen reader cannot skim
FEW = 6  # bars whose heights are said


def first_sentence(text):
    """Of a docstring, without what stands in brackets and after a colon; "" for None."""
    first = " ".join((text or "").split("\n\n")[0].split())
    first = re.sub(r":\w+:`(\w+)`", r"\1", first)
    first = re.split(r"(?<=[^.])[.:;](?:\s|$)", re.sub(r"(, a list of)? \([^)]*\)", "", first))[0]
    return f"{first.rstrip('.')}." if first else ""


def describe(fig, begin=""):
    """Title, axes and series of a figure, with the numbers at their ends, in sentences."""
    parts = [begin] if begin else []
    title = fig.get_suptitle()
    parts += [f"{title}."] if title else []
    for ax in fig.axes:
        if ax.get_label() != "<colorbar>" and (said := _panel(ax)):
            parts.append(said)
    text = " ".join(" ".join(parts).split()) or "A figure without words."
    return text if len(text) <= LONGEST else text[: LONGEST - 1].rsplit(" ", 1)[0] + "…"


def _panel(ax):
    across, up = (re.sub(r"\s+", " ", label) for label in (ax.get_xlabel(), ax.get_ylabel()))
    axes = f"{up} against {across}" if across and up else across or up
    head = ": ".join(part for part in (ax.get_title() or ax.get_title("left"), axes) if part)
    series = [*_bars(ax), *_lines(ax)]
    series += [f"a map of {'×'.join(map(str, im.get_array().shape[:2]))}" for im in ax.get_images()]
    written = [t.get_text() for t in (() if series else ax.texts)]
    series += [text for text in written if not text.isdecimal()][:FEW]
    series += _names_at_ticks(ax) if len(series) <= 1 and not ax.get_images() else []
    series += [x for x in ax.get_legend_handles_labels()[1] if x not in " ".join(series)]
    said = "; ".join([head] * bool(head) + series)
    return f"{said}." if said else ""


def _named(label):
    return str(label) if label and not str(label).startswith("_") else ""


def _lines(ax):
    errors = {c[0]: c.get_label() for c in ax.containers if isinstance(c, ErrorbarContainer) and c}
    panels = ax.get_shared_y_axes().get_siblings(ax)  # one of them has the names of all
    rows = [t.get_text() for panel in panels for t in panel.yaxis.get_ticklabels()]
    named = any(re.search(r"[^\W\d_]{2}", row) for row in rows)  # then the numbers lie across
    for line in ax.get_lines():
        name = _named(errors.get(line, line.get_label()))
        y = np.asarray(line.get_xdata() if named else line.get_ydata(), dtype=float)
        y = y[np.isfinite(y)]
        if name and len(y):
            yield f"{name}, from {y[0]:.3g} to {y[-1]:.3g}" if len(y) > 1 else f"{name}, {y[0]:.3g}"


def _bars(ax):
    for bars in ax.containers:
        if isinstance(bars, BarContainer) and len(bars):
            long = [b.get_width() if bars.orientation == "horizontal" else b.get_height()
                    for b in bars]  # fmt: skip
            name = _named(bars.get_label())
            if len(long) <= FEW:
                yield f"{name} {', '.join(f'{x:.3g}' for x in long)}".strip()
            else:
                yield f"{name or 'bars'}, {len(long)} from {min(long):.3g} to {max(long):.3g}"


def _names_at_ticks(ax):
    labels = [t.get_text() for a in (ax.yaxis, ax.xaxis) for t in a.get_ticklabels()]
    names = [x for x in dict.fromkeys(labels) if re.search(r"[^\W\d_]{2}", x)]  # no numbers
    return [", ".join(names)] if 1 < len(names) <= 2 * FEW else []


# ---- In a notebook -----------------------------------------------------------------------------


def give_pictures_an_alt():
    """Where IPython runs: every figure that is shown as PNG says what it shows; else nothing."""
    if "IPython" not in sys.modules or (shell := sys.modules["IPython"].get_ipython()) is None:
        return
    if "inline" in plt.get_backend():
        with contextlib.suppress(ImportError):
            import matplotlib_inline.backend_inline  # noqa: F401  (it sets its own way to draw)
    formatter = shell.display_formatter.formatters["image/png"]
    with contextlib.suppress(KeyError):  # IPython draws no figures here
        draw = formatter.lookup_by_type(Figure)
        if not isinstance(draw, WithWords):
            formatter.for_type(Figure, WithWords(draw))


class WithWords:
    """A formatter of figures that adds their alternative text to what another one returns."""

    def __init__(self, draw):
        self.draw = draw

    def __call__(self, fig):
        """The picture and its metadata."""
        found = self.draw(fig)
        picture, about = found if isinstance(found, tuple) else (found, {})
        return picture, {**about, "alt": getattr(fig, "words", None) or describe(fig)}
