"""Closed-form explorers that live in the browser: in JupyterLab, and in a page with no kernel.

    rms_explorer()     context RMS against n, peaks, lambda, correlation of the values
    cost_explorer()    weights of a layer, and what it costs to decode a token
    hull_explorer()    three values in a plane, which one drags: what only a difference can say
    pairs_explorer()   which query heads are subtracted, for any h and h_kv

Each is shown as HTML: a picture, and the program of page/forms/ that takes its place. Nothing of it
is a widget, so it lives on when a notebook is saved, opened again or exported; a notebook that
JupyterLab does not trust shows the picture.
"""

import base64
import html
import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from minidiff.look import plots
from minidiff.look.widgets import _png, cost_figure, rms_figure

BUNDLE = Path(__file__).parent / "page" / "dist" / "forms.js"
VALUES = [[-0.9, -0.5], [1.1, -0.3], [0.1, 1.1]]  # of three tokens, for hull_explorer


def rms_explorer(n=1024, gap1=6.0, gap2=6.0, lam=0.5, rho=0.0, same=True):
    """Move sliders and see the context RMS of one query: softmax in blue, DIFF V2 in vermilion.

    A map is softmax over n logits, one of which, the peak, stands ``gap`` above the equal others.

    Args:
        n: tokens that the query sees. gap1, gap2: how sharply A1 and A2 peak; 0 is uniform.
        lam: lambda. rho: correlation of the values. same: both maps peak at the same token.
    Raises:
        ValueError: n or lam makes no sense.
    """
    start = {"n": n, "gap1": gap1, "gap2": gap2, "lam": lam, "rho": rho, "same": same}
    return Form("rms", start, rms_figure(**start))


def cost_explorer(n_head=32, n_kv_head=8, head_dim=128, n_embd=4096, n_keys=8192):
    """Change a layer's shape and see its weights and the cost of decoding one token."""
    start = {"n_head": n_head, "n_kv_head": n_kv_head, "head_dim": head_dim}
    start |= {"n_embd": n_embd, "n_keys": n_keys}
    if n_head % n_kv_head or head_dim % 2:
        raise ValueError(
            f"n_kv_head={n_kv_head} must divide n_head={n_head}, and head_dim={head_dim} be even"
        )
    return Form("cost", start, cost_figure(**start))


def hull_explorer(lam=0.8, a1=(0.05, 0.15, 0.8), a2=(0.7, 0.2, 0.1)):
    """Drag three values and two contexts: softmax stays in the triangle, the difference does not.

    Args:
        lam: lambda. a1, a2: the weights of the two maps on three tokens; each sums to 1.
    Raises:
        ValueError: weights that are no softmax row, or lam outside 0 to 1.
    """
    for name, row in (("a1", a1), ("a2", a2)):
        if len(row) != 3 or min(row) < 0 or abs(sum(row) - 1) > 1e-6:
            raise ValueError(f"{name}={row} must be three weights >= 0 that sum to 1")
    if not 0 <= lam <= 1:
        raise ValueError(f"lam={lam} must be from 0 to 1, where a sigmoid puts it")
    start = {"lam": lam, "a1": list(a1), "a2": list(a2), "values": VALUES}
    return Form("hull", start, hull_figure(lam, a1, a2))


def pairs_explorer(n_head=4, n_kv_head=2, halves=False):
    """See which two of the 2h query heads make a pair, and whether they read the same keys.

    Args:
        n_head: h, up to 16. n_kv_head: h_kv, which divides 2h. halves: pair head i with i + h.
    """
    if not 1 <= n_head <= 16 or n_kv_head < 1 or 2 * n_head % n_kv_head:
        raise ValueError(f"n_head={n_head} must be 1 to 16, and n_kv_head={n_kv_head} divide 2h")
    start = {"n_head": n_head, "n_kv_head": n_kv_head, "halves": halves}
    return Form("pairs", start, pairs_figure(n_head, n_kv_head, halves))


class Form:
    """What an explorer's function gives; a notebook shows its HTML."""

    def __init__(self, name, start, figure):
        self.name, self.start, self.picture = name, start, base64.b64encode(_png(figure)).decode()
        plt.close(figure)

    def __repr__(self):
        return f"{self.name} explorer"

    def _repr_html_(self):
        form = html.escape(json.dumps({"name": self.name, "start": self.start}))
        return f"""<div data-form="{form}" class="minidiff-form-new">
<img alt="{self!r}" style="max-width: 100%" src="data:image/png;base64,{self.picture}"></div>
<script type="module">
{BUNDLE.read_text(encoding="utf-8")}
const el = document.querySelector(".minidiff-form-new");
el.classList.remove("minidiff-form-new");
minidiffForms.open(el);
</script>"""


# ---- Their pictures, for a page where nothing runs ---------------------------------------------


@plots.styled
def hull_figure(lam, a1, a2, values=VALUES):
    """Triangle of the softmax contexts, set of the differences, and both contexts of one query."""
    values, a1, a2 = np.array(values), np.array(a1), np.array(a2)  # (3, 2), (3,), (3,)
    corners = (values[:, None] - lam * values[None]).reshape(-1, 2)  # v_i - lam v_j: (9, 2)
    fig, ax = plt.subplots(figsize=(7, 5.6))
    middle = corners.mean(0)
    for angle in np.linspace(0, 2 * np.pi, 181):  # the farthest corner in each direction
        direction = np.array([np.cos(angle), np.sin(angle)])
        middle = np.vstack((middle, corners[(corners @ direction).argmax()]))
    ax.fill(*middle[1:].T, color="#f7dfcc", label="differences")
    ax.fill(*values.T, color="#cce2f0", label="softmax contexts")
    first, second = a1 @ values, a2 @ values
    shown = {"A1 V": (first, "softmax"), "A1 V − λ A2 V": (first - lam * second, "diff_v2")}
    for label, (point, colour) in shown.items():
        ax.plot(*point, color=plots.colour(colour), linestyle="", label=label, **plots.DOT)
    for name, value in zip("ABC", values, strict=True):
        ax.annotate(name, value, fontsize=16, weight="bold")
    ax.set(aspect="equal", title=f"Three values, λ = {lam}")
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return fig


@plots.styled
def pairs_figure(n_head, n_kv_head, halves):
    """The 2h query heads in their key/value groups, and an arc for each pair."""
    fig, ax = plt.subplots(figsize=(10, 3.4))
    size = 2 * n_head // n_kv_head
    for group in range(n_kv_head):
        ax.axvspan(group * size - 0.5, group * size + size - 0.5, color="#e8eef3", alpha=group % 2)
    for i in range(n_head):
        first, second = (i, i + n_head) if halves else (2 * i, 2 * i + 1)
        right = first // size == second // size
        x = np.linspace(first, second, 50)
        height = (x - first) * (second - x) / (second - first)
        look = "-" if right else "--"
        ax.plot(x, height, look, color=plots.colour("diff_v2") if right else "#b00020")
    ax.plot(range(2 * n_head), [0] * (2 * n_head), "s", color="#444444")
    ax.set(xlabel="query head (shades: key/value heads)", yticks=(), xticks=range(2 * n_head))
    ax.grid(visible=False)
    ax.set_title("pairs: " + ("halves, dashed where keys differ" if halves else "neighbours"))
    return fig
