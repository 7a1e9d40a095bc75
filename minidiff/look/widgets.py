"""Explorers for the notebooks, each with a figure for readers without a kernel beside it.

    difference_explorer()  difference_figure()      three tokens, two maps, lambda
    rms_explorer()         rms_figure()             context RMS over n, peaks, lambda, correlation
    cost_explorer()        cost_figure()            weights and decoding cost of a layer
    map_explorer(model)    plots.attention_maps()   maps of a trained model on your own prompt

The first three are closed form: theory.js, explorers.js and tokens.js compute and draw them in the
browser, at once, and need no kernel: not in a notebook that was saved and reopened, and not in an
exported page. Wrong input gets a red line in the explorer.
"""

import base64
import html
import io
import json
import math
from pathlib import Path

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from minidiff import data, theory
from minidiff.look import plots, probe, style

LOG2 = math.log(2)
LARGEST_N = 2**20  # tokens of a row in rms_figure: 16 MB
_FILES = "theory.js", "explorers.js", "tokens.js"
_CODE = "".join(Path(__file__).with_name(name).read_text(encoding="utf-8") for name in _FILES)


# ---- Computed in the browser -------------------------------------------------------------------


def difference_explorer(scores1=(0, LOG2, 0), scores2=(LOG2, 0, 0), lam=0.5):
    """Change the scores of one head's two queries over tokens A, B, C, and lambda; see the weights.

    Args:
        scores1, scores2: three logits each, from -6 to 6. lam: lambda. Defaults: course/example.py.
    """
    keys = (token + query for query in "12" for token in "abc")
    start = dict(zip(keys, (*scores1, *scores2), strict=True)) | {"lam": lam}
    return BrowserExplorer("difference", start, difference_figure)


def rms_explorer(n=1024, gap1=6.0, gap2=6.0, lam=0.5, rho=0.0, same=True):
    """Move sliders and see the context RMS of one query: softmax in blue, DIFF V2 in vermilion.

    A map is softmax over n logits, one of which, the peak, stands ``gap`` above the equal others.

    Args:
        n: tokens that the query sees. gap1, gap2: how sharply A1 and A2 peak; 0 is uniform.
        lam: lambda. rho: correlation of the values. same: both maps peak at the same token.
    """
    start = {"n": n, "gap1": gap1, "gap2": gap2, "lam": lam, "rho": rho, "same": same}
    return BrowserExplorer("rms", start, rms_figure)


def cost_explorer(n_head=32, n_kv_head=8, head_dim=128, n_embd=4096, n_keys=8192):
    """Change a layer's shape and see its weights and the cost of decoding one token."""
    start = {"n_head": n_head, "n_kv_head": n_kv_head, "head_dim": head_dim, "n_embd": n_embd}
    return BrowserExplorer("cost", start | {"n_keys": n_keys}, cost_figure)


class BrowserExplorer:
    """A table of controls and a picture, both drawn by explorers.js; it never needs its kernel.

    Its output is HTML and no widget: a widget's view dies with its kernel ("model not found").
    """

    def __init__(self, name, start, figure):
        self.name, self.start, self._figure = name, start, figure

    def __repr__(self):
        return f"{self.name} explorer"

    def _repr_html_(self):
        """The program, around its static figure for readers where no script may run."""
        try:
            fig = self._figure(**self.start)
        except (ValueError, TypeError, IndexError):  # the explorer says in red what is wrong
            picture = ""
        else:
            picture = base64.b64encode(_png(fig)).decode()
            plt.close(fig)
        start = html.escape(json.dumps({"name": self.name, "start": self.start}))
        return f"""<div class="minidiff-explorer" data-model="{start}">
<img alt="{self!r}" style="max-width: 100%" src="data:image/png;base64,{picture}"></div>
<script type="module">
{_CODE}
const el = document.querySelector(".minidiff-explorer:not(.alive)");
el.classList.add("alive");
const {{ name, start }} = JSON.parse(el.dataset.model);
explore(el, EXPLORERS[name], start);
</script>"""


def _png(fig):
    """A figure as PNG in 128 colours, a quarter of the size: it travels in every notebook."""
    buffer, small = io.BytesIO(), io.BytesIO()
    fig.savefig(buffer, format="png", dpi=80)
    Image.open(buffer).convert("RGB").quantize(128).save(small, "png", optimize=True)
    return small.getvalue()


@plots.styled
def difference_figure(lam, **scores):
    """The picture of :func:`difference_explorer`: two softmax rows over three tokens, and w."""
    logits = np.array([[scores[token + query] for token in "abc"] for query in "12"], dtype=float)
    a1, a2 = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    fig, axes = plt.subplots(1, 3, figsize=(13, 4), sharey=True)
    looks = plots.colour("softmax"), "#9a9a9a", plots.colour("diff_v2")
    titles = "A1: softmax", "− λ A2", "= A1 − λ A2: DIFF V2"
    rows = a1, lam * a2, a1 - lam * a2
    for ax, weights, title, colour in zip(axes, rows, titles, looks, strict=True):
        ax.bar_label(ax.bar(list("ABC"), weights, color=colour), fmt="%.3g", padding=2)
        ax.set(title=title, xlabel=f"sum {weights.sum():.3g}", ylim=(min(-0.1, *rows[2]) - 0.1, 1))
        ax.axhline(0, color="black", linewidth=1)
        ax.grid(axis="x", visible=False)
    axes[0].set_ylabel("weight")
    return fig


@plots.styled
def rms_figure(n=1024, gap1=6.0, gap2=6.0, lam=0.5, rho=0.0, same=True):
    """The picture of :func:`rms_explorer` at one setting: a query's weights, and RMS against n."""
    theory.rms_bounds(n, lam)  # refuses a wrong n or lam, before there is a figure
    if n > LARGEST_N:
        raise ValueError(f"n={n} is over {LARGEST_N}, the longest row that is drawn here")
    a1, a2 = _peaked_rows(n, gap1, gap2, same)
    fig, (bars, ax) = plt.subplots(1, 2, figsize=(14, 5.6), width_ratios=(3, 4))
    named = 1 if same else 2  # tokens with a bar of their own
    shown = {"A1 (softmax)": a1, "λ A2": lam * a2, "A1 − λ A2": a1 - lam * a2}
    looks = style.bar("softmax"), {"color": "#9a9a9a"}, style.bar("diff_v2")
    for i, ((label, w), look) in enumerate(zip(shown.items(), looks, strict=True)):
        x, heights = np.arange(named + 1) + 0.28 * (i - 1), [*w[:named], w[named:].sum()]
        drawn = bars.bar(x, heights, width=0.25, label=label, **look)
        bars.bar_label(drawn, fmt="%.2f", fontsize=13, padding=2)
    names = [*["token A", "token B"][:named], f"other {n - named} together"]
    bars.set_xticks(range(named + 1), names)
    bars.set(ylabel="weight", ylim=(-1.15, 1.3), title=f"Weights of one query, n = {n}")
    bars.legend(ncols=3, loc="lower center", columnspacing=1)
    grid = 2 ** np.arange(1, 15)
    plots.rms_bands(ax, grid, lam, rho)
    for label, factor in (("softmax", 0), ("DIFF V2", lam)):
        rows = (_peaked_rows(k, gap1, gap2, same) for k in grid)
        curve = [theory.expected_rms(first - factor * second, rho) for first, second in rows]
        ax.plot(grid, curve, label=label, **style.line(label))
        here = theory.expected_rms(a1 - factor * a2, rho)
        size = 19 if label == "softmax" else 12  # both can be seen where they have one place
        ax.plot(n, here, markersize=size, **style.dots(label))
    ax.legend(loc="lower left")
    return fig


def _peaked_rows(n, gap1, gap2, same):
    """Two softmax rows (2, n): A1 peaks at token 0, A2 at token 0 or 1."""
    logits = np.zeros((2, n))
    logits[0, 0] = gap1
    logits[1, 0 if same else 1] = gap2
    rows = np.exp(logits)
    return rows / rows.sum(1, keepdims=True)


@plots.styled
def cost_figure(n_head=32, n_kv_head=8, head_dim=128, n_embd=4096, n_keys=8192):
    """The picture of :func:`cost_explorer` at one setting: a layer's weights, and decoding."""
    fig, axes = plt.subplots(1, 3, figsize=(14, 4.4), sharey=True)
    softmax = [(f"softmax, {factor}h heads", factor) for factor in ("", 1.5, 2)]
    for label, factor in [*softmax, ("DIFF V2", 1)]:
        diff, heads = label == "DIFF V2", (factor or 1) * n_head
        weights = theory.attention_params(n_embd, heads, n_kv_head, head_dim, diff_v2=diff)
        queries = 2 * heads if diff else heads
        cost = theory.decode_attention_cost(n_keys, queries, n_kv_head, head_dim)
        for ax, value in zip(axes, (weights, *cost), strict=True):
            bar = ax.barh(label, value / 1e6, color=plots.colour(label))
            ax.bar_label(bar, fmt="%.4g", padding=4)
    titles = "Weights of one layer", "Decode: operations", "Decode: bytes read"
    cache = f"for each token,\n{n_keys} tokens in the cache"
    units = "millions", f"millions {cache}", f"MB {cache}"
    for ax, title, label in zip(axes, titles, units, strict=True):
        ax.set(title=title, xlabel=label)
        ax.margins(x=0.22)
        ax.grid(axis="y", visible=False)
    axes[0].invert_yaxis()
    return fig


# ---- Computed by the kernel --------------------------------------------------------------------


def map_explorer(models, text="def add(a, b): return a"):
    """Look at the attention maps of trained models, on a prompt that can be edited (press Enter).

    Args:
        models: a GPT, or label -> GPT for several to switch between. text: the first prompt.
    """
    return MapExplorer(models if isinstance(models, dict) else {"model": models}, text)


class MapExplorer(ipywidgets.VBox):
    """Sliders over layer and head. A new prompt makes a new figure; a slider only changes the data
    in it and sends the picture again, which takes about a tenth of a second."""

    def __init__(self, models, text):
        self.models, self.views, self.figure = models, [], None
        self.model = ipywidgets.ToggleButtons(options=list(models), description="model")
        self.prompt = ipywidgets.Text(text, description="prompt", continuous_update=False)
        self.layer = ipywidgets.IntSlider(max=0, description="layer")
        self.head = ipywidgets.IntSlider(max=0, description="head")
        self.message = ipywidgets.HTML()
        self.picture = ipywidgets.Image(format="png", layout={"max_width": "100%"})
        self.prompt.layout.width = "40em"
        controls = self.model, self.prompt, self.layer, self.head
        super().__init__([*controls, self.message, self.picture])
        for control in controls:
            control.observe(self._read if control in controls[:2] else self._show, "value")
        self._read()

    def __repr__(self):
        return "map explorer (its sliders need a running kernel)"

    def _read(self, change=None):
        """Compute all maps of this model and prompt, and draw the figure anew."""
        model = self.models[self.model.value]
        vocab_size, block_size = model.config.vocab_size, model.config.block_size
        idx = data.encode(self.prompt.value, vocab_size)  # (1, T), BOS first
        if vocab_size != 257:
            return self._refuse("the tokens of this model are not bytes: it cannot read a prompt")
        if not 2 <= idx.shape[1] <= block_size:
            return self._refuse(f"{idx.shape[1] - 1} bytes of text: type 1 to {block_size - 1}")
        self._refuse("")
        views, self.views = probe.attention_maps(model, idx), []
        self.layer.max, self.head.max = len(views) - 1, len(views[0].weights) - 1
        self.views, self.figure = views, None
        self.labels = plots.token_labels(idx[0])
        self._show()

    def _refuse(self, problem):
        self.message.value = f'<b style="color: #b00020">{problem}</b>'
        self.picture.layout.opacity = "0.25" if problem else "1"

    def _show(self, change=None):
        """Put the maps of this layer and head into the figure, and its picture into the widget."""
        if not self.views:  # the sliders are being set up
            return
        maps, lam = self._selected()
        where = f"{self.model.value}: layer {self.layer.value}, head {self.head.value}"
        if self.figure is None:
            self._draw_frame(maps, lam, where)
        self.canvas.restore_region(self.frame)
        self.figure.texts[0].set_text(where)
        for ax, weights in zip(self.figure.axes, maps.values(), strict=False):
            ax.images[0].set_data(np.where(np.tri(len(weights)), weights, np.nan))
        if lam is not None:
            for bar, height in zip(self.figure.axes[len(maps)].patches, lam, strict=True):
                bar.set_height(height)
        for artist in self.moving:
            self.figure.draw_artist(artist)
        buffer = io.BytesIO()
        pixels = Image.fromarray(np.asarray(self.canvas.buffer_rgba()))
        pixels.convert("RGB").save(buffer, "png", compress_level=1)
        self.picture.value = buffer.getvalue()

    def _draw_frame(self, maps, lam, title):
        """A figure without what the sliders change; drawing only that again is 5 times faster."""
        limit = max(float(np.quantile(view.weights.abs().numpy(), 0.995)) for view in self.views)
        self.figure = plots.attention_maps(maps, self.labels, lam, limit)
        plt.close(self.figure)
        self.moving = [self.figure.suptitle(title, fontsize=16)]
        for ax in self.figure.axes[:-1]:  # the last is the colour bar
            self.moving += [*ax.images, *ax.patches, *ax.lines]
        for artist in self.moving:
            artist.set_animated(True)
        self.canvas = FigureCanvasAgg(self.figure)
        self.canvas.draw()
        self.frame = self.canvas.copy_from_bbox(self.figure.bbox)

    def _selected(self):
        """Title -> map of this layer and head, and lambda of each query where there is one."""
        view, head = self.views[self.layer.value], self.head.value
        if view.a2 is None:
            return {"A": view.weights[head].numpy()}, None
        maps = {"A1": view.a1, "A2": view.a2, "A1 − λ A2": view.weights}
        return {title: m[head].numpy() for title, m in maps.items()}, view.lam[:, head].numpy()
