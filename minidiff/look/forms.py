"""Closed-form explorers that live in the browser: in JupyterLab, and in a page with no kernel.

    difference_explorer()  three tokens, the maps of two queries, lambda: what is left
    rms_explorer()         context RMS against n, peaks, lambda, correlation of the values
    cost_explorer()        weights of a layer, and what it costs to decode a token
    hull_explorer()        three values in a plane, which one drags: what only a difference can say
    pairs_explorer()       which query heads are subtracted, for any h and h_kv

Each is shown as HTML: a picture, and the program of page/forms/ that takes its place. Nothing of it
is a widget, so it lives on when a notebook is saved, opened again or exported; a notebook that
JupyterLab does not trust shows the picture.
"""

import base64
import html
import json
import math
from numbers import Integral, Real
from pathlib import Path

import matplotlib.pyplot as plt

from minidiff.look.sketches_forms import (
    VALUES,
    cost_figure,
    difference_figure,
    hull_figure,
    pairs_figure,
    png,
    rms_figure,
)

LOG2 = math.log(2)
BUNDLE = Path(__file__).parent / "page" / "dist" / "forms.js"


def difference_explorer(scores1=(0, LOG2, 0), scores2=(LOG2, 0, 0), lam=0.5):
    """Change the scores of one head's two queries over tokens A, B, C, and lambda; see the weights.

    Args:
        scores1, scores2: three logits each, from -6 to 6. lam: lambda. Defaults: course/example.py.
    Raises:
        ValueError: a score or lam is not in its range.
    """
    if not len(scores1) == len(scores2) == 3:
        raise ValueError(f"scores1={scores1}, scores2={scores2} must be three numbers each")
    keys = (token + query for query in "12" for token in "abc")
    scores = dict(zip(keys, (*scores1, *scores2), strict=True))
    for name, score in scores.items():
        _check(name, score, -6, 6)
    _check("lam", lam, 0, 1)
    start = scores | {"lam": lam}
    return Form("difference", start, difference_figure(**start))


def rms_explorer(n=1024, gap1=6.0, gap2=6.0, lam=0.5, rho=0.0, same=True):
    """Move sliders and see the context RMS of one query: softmax in blue, DIFF V2 in vermilion.

    A map is softmax over n logits, one of which, the peak, stands ``gap`` above the equal others.

    Args:
        n: tokens that the query sees. gap1, gap2: how sharply A1 and A2 peak; 0 is uniform.
        lam: lambda. rho: correlation of the values. same: both maps peak at the same token.
    Raises:
        ValueError: a value is not in its range: n 2 to 16384, gaps 0 to 14, lam and rho 0 to 1.
    """
    _check("n", n, 2, 16384, Integral)
    for name, value, most in (("gap1", gap1, 14), ("gap2", gap2, 14), ("lam", lam, 1)):
        _check(name, value, 0, most)
    _check("rho", rho, 0, 1)
    start = {"n": n, "gap1": gap1, "gap2": gap2, "lam": lam, "rho": rho, "same": same}
    return Form("rms", start, rms_figure(**start))


def cost_explorer(n_head=32, n_kv_head=8, head_dim=128, n_embd=4096, n_keys=8192):
    """Change a layer's shape and see its weights and the cost of decoding one token.

    Raises:
        ValueError: no such layer, or one that is larger than the explorer shows.
    """
    start = {"n_head": n_head, "n_kv_head": n_kv_head, "head_dim": head_dim}
    start |= {"n_embd": n_embd, "n_keys": n_keys}
    for (name, value), most in zip(start.items(), (512, 512, 1024, 65536, 2**24), strict=True):
        _check(name, value, 1, most, Integral)
    if n_head % n_kv_head or head_dim % 2:
        raise ValueError(
            f"n_kv_head={n_kv_head} must divide n_head={n_head}, and head_dim={head_dim} be even"
        )
    return Form("cost", start, cost_figure(**start))


def hull_explorer(lam=0.8, a1=(0.05, 0.15, 0.8), a2=(0.7, 0.2, 0.1), values=VALUES):
    """Drag three values and two contexts: softmax stays in the triangle, the difference does not.

    Args:
        lam: lambda. a1, a2: the weights of the two maps on three tokens; each sums to 1.
        values: of the three tokens: (x, y) with x from -1.7 to 1.7, y from -1.15 to 1.15.
    Raises:
        ValueError: weights that are no softmax row, a value off the picture, or lam outside 0 to 1.
    """
    if [len(value) for value in values] != [2, 2, 2]:
        raise ValueError(f"values={values} must be three pairs (x, y)")
    for x, y in values:
        _check("x of a value", x, -1.7, 1.7)
        _check("y of a value", y, -1.15, 1.15)
    for name, row in (("a1", a1), ("a2", a2)):
        if len(row) != 3 or min(row) < 0 or abs(sum(row) - 1) > 1e-6:
            raise ValueError(f"{name}={row} must be three weights >= 0 that sum to 1")
    _check("lam", lam, 0, 1)
    start = {"lam": lam, "a1": list(a1), "a2": list(a2), "values": [list(v) for v in values]}
    return Form("hull", start, hull_figure(lam, a1, a2, values))


def pairs_explorer(n_head=4, n_kv_head=2, halves=False):
    """See which two of the 2h query heads make a pair, and whether they read the same keys.

    Args:
        n_head: h, up to 16. n_kv_head: h_kv, which divides 2h. halves: pair head i with i + h.
    Raises:
        ValueError: too many heads, or 2h query heads cannot share the key/value heads evenly.
    """
    _check("n_head", n_head, 1, 16, Integral)
    _check("n_kv_head", n_kv_head, 1, 2 * n_head, Integral)
    if 2 * n_head % n_kv_head:
        raise ValueError(f"n_kv_head={n_kv_head} must divide 2 n_head = {2 * n_head} query heads")
    start = {"n_head": n_head, "n_kv_head": n_kv_head, "halves": halves}
    return Form("pairs", start, pairs_figure(n_head, n_kv_head, halves))


def _check(name, value, low, high, kind=Real):
    """Refuse what the explorer's own box would refuse."""
    if not isinstance(value, kind) or not low <= value <= high:
        what = "a whole number" if kind is Integral else "a number"
        raise ValueError(f"{name}={value!r} must be {what} from {low} to {high}")


class Form:
    """What an explorer's function gives; a notebook shows its HTML."""

    def __init__(self, name, start, figure):
        self.name, self.start, self.picture = name, start, base64.b64encode(png(figure)).decode()
        plt.close(figure)

    def __repr__(self):
        return f"{self.name} explorer"

    def _repr_html_(self):
        start = {k: v.item() if hasattr(v, "item") else v for k, v in self.start.items()}  # numpy
        form = html.escape(json.dumps({"name": self.name, "start": start}))
        return f"""<div data-form="{form}" class="minidiff-form-new">
<img alt="{self!r}" style="max-width: 100%" src="data:image/png;base64,{self.picture}"></div>
<script type="module">
{BUNDLE.read_text(encoding="utf-8")}
const el = document.querySelector(".minidiff-form-new");
el.classList.remove("minidiff-form-new");
minidiffForms.open(el);
</script>"""
