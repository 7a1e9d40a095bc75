"""How the course's figures look: colours, line styles, markers, sizes; and what they say in words.

Softmax is always blue, dashed, with squares; DIFF V2 is vermilion, solid, with circles. The colours
are those of Okabe and Ito, which colour-blind readers can tell apart; in grey print the lines and
markers do it. ``plt.rcParams.update(plots.STYLE)`` gives a notebook's own figures the same look.
"""

import functools

import matplotlib.pyplot as plt

from minidiff.look import words

STYLE = {
    "figure.figsize": (10, 5.2),
    "figure.dpi": 100,
    "figure.constrained_layout.use": True,
    "font.size": 14,
    "axes.labelsize": 15,
    "axes.titlesize": 16,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "lines.linewidth": 2.5,
    "lines.markersize": 9,
    "legend.edgecolor": "none",
    "legend.handlelength": 2.6,  # or a dashed line shows one dash
}
COLOURS = {  # keys: the names in minidiff.variants
    "softmax": "#0072B2",
    "softmax_h": "#7FB8DA",
    "softmax_2h": "#004B75",
    "softmax_2h_start": "#6A8CFF",
    "constructed": "#332288",
    "diff_v2": "#D55E00",
    "diff_v1": "#009E73",
    "diff_v1_no_norm": "#7ACDB4",
    "diff_v1_sigmoid": "#005C3C",
    "softmax_1.5h_quiet": "#4C78A8",
    "diff_v2_doubled": "#FF9B59", "diff_late_lambda": "#FFD500", "diff_no_decay": "#7A3300",
    "diff_halves": "#CC79A7",
    "diff_no_lambda": "#E69F00",
    "diff_no_sigmoid": "#882255",
    "off_by_one": "#56B4E9",
    "sink_logit": "#999933",
    "gated": "#444444",
    "gated_headwise": "#999999",
    "sparse_softmax": "#0003D6", "sparse_pair": "#C0010B", "sparse_head": "#9F03D7",
    "sparse_a1": "#D6D66B", "sparse_group": "#D50787", "yoco_softmax": "#03D7C8",
    "yoco_diff_v2": "#28C602", "moe_softmax": "#6B53B8", "moe_diff_v2": "#00730A",
}  # fmt: skip
LINES = {  # line style and marker, by the same names; all others are as DIFF V2
    "softmax": ("--", "s"), "yoco_softmax": ("--", "s"), "moe_softmax": ("--", "s"),
    "sparse_softmax": ("--", "s"), "diff_v1": ("-.", "^"), "": ("-", "o"),
}  # fmt: skip
SIGNED = plt.get_cmap("RdBu_r").with_extremes(bad="#ececec")  # red adds, blue takes away
MINUS = "#5E4C92"  # λ A2, which is taken away
DOT = {"marker": "o", "markeredgecolor": "white"}
DASHED = {"color": "black", "linestyle": "--", "linewidth": 1.5}


def colour(name):
    """The colour of a variant's name or label ("DIFF V2, seed 1" too); black for one of your own.

    The longest name in COLOURS that starts the label wins.
    """
    return _of(name, {"": "black", **COLOURS})


def line(name):
    """Colour and line style of a variant's curve: ``ax.plot(x, y, **line("softmax"))``."""
    return {"color": colour(name), "linestyle": _of(name, LINES)[0]}


def clear_colour(low, high, bound=0.0):
    """Of an interval: vermilion where it lies on one side of the bound, else (nan, too) black."""
    return colour("diff_v2" if low > bound or high < bound else "other")


def dots(name):
    """Colour and marker of a variant's points, without a line between them."""
    marker = _of(name, LINES)[1]
    return {**DOT, "color": colour(name), "marker": marker, "linestyle": ""}


def dotted_line(name):
    """Colour, line style and marker: points and the line between them."""
    return dots(name) | line(name)


def bar(name):
    """Fill of a variant's bars, where bars of several stand side by side: DIFF V2's is hatched."""
    hatch = "//" if _of(name, LINES) == LINES[""] else ""
    return {"color": colour(name), "hatch": hatch, "edgecolor": "white", "linewidth": 0}


def _of(name, table):
    label = name.lower().replace(" ", "_").replace("-", "_")
    return table[max((key for key in table if label.startswith(key)), key=len)]


def styled(draw):
    """Decorator: draw in the shared STYLE, also the ticks that matplotlib only makes when drawn.

    The figure knows what it shows in words: ``fig.words``, an alternative text for its picture.
    """

    @functools.wraps(draw)
    def styled(*args, **kwargs):
        with plt.rc_context(STYLE):
            fig = draw(*args, **kwargs)
            fig.draw_without_rendering()
        fig.words = words.describe(fig, words.first_sentence(draw.__doc__))
        return fig

    return styled


words.give_pictures_an_alt()
