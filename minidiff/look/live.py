"""The page of page/ in a notebook's cell, for models in memory.

    live_explorer({"softmax": softmax, "DIFF V2": diff}, "for name in names: print(na")

The kernel sends the weights once; then the browser computes, and needs the kernel no more. A saved
notebook keeps a picture: the cell must run again to come alive. Nothing of it is a widget then,
since a stored widget shows "model not found" in place of its picture.
"""

import base64
import dataclasses
import json
import uuid
from pathlib import Path

import anywidget
import matplotlib.pyplot as plt
import torch
import traitlets
from IPython.display import display
from safetensors.torch import save

from minidiff import data
from minidiff.look import plots, probe
from minidiff.look.sketches_forms import png

READABLE = "softmax", "diff_v2"  # what page/engine/model.mjs computes


def live_explorer(models, text="for name in names:\n    print(na", heads=None):
    """See the maps of trained models, hold lambda, follow a query, write on: all in the cell.

    Args:
        models: a GPT, or title -> GPT for several side by side. text: the first prompt.
        heads: title -> (layer, head) to open first; without one, the head that copies most.
    Raises:
        ValueError: a model whose attention or tokens the page cannot draw, a text too long, or a
            head that is not there.
    """
    models = models if isinstance(models, dict) else {"model": models}
    return LiveExplorer(models, text, heads or {})


class LiveExplorer:
    """What :func:`live_explorer` gives: shown, it brings the models to the browser."""

    def __init__(self, models, text, heads):
        for title, model in models.items():
            config, n_bytes = model.config, len(text.encode())
            if config.attention not in READABLE:
                raise ValueError(
                    f"{title}: attention={config.attention!r} cannot be drawn; the page reads "
                    f"{' and '.join(READABLE)}"
                )
            if config.vocab_size != 257:
                raise ValueError(f"{title}: {config.vocab_size} tokens are not bytes and BOS")
            if not 1 <= n_bytes < config.block_size:
                raise ValueError(
                    f"{n_bytes} bytes of text: {title} reads 1 to {config.block_size - 1}"
                )
        for title, (layer, head) in heads.items():
            if title not in models:
                raise ValueError(f"heads names {title!r}; the models are {', '.join(models)}")
            n_layer, n_head = models[title].config.n_layer, models[title].config.n_head
            if not (0 <= layer < n_layer and 0 <= head < n_head):
                raise ValueError(
                    f"{title} has layers 0 to {n_layer - 1} and heads 0 to {n_head - 1}, "
                    f"not layer {layer}, head {head}"
                )
        self.models, self.text, self.heads, self.carrier = models, text, heads, None

    def __repr__(self):
        return f"live explorer of {', '.join(self.models)}"

    def _ipython_display_(self):
        """First the widget, which carries the weights; when they are there, HTML in its place."""
        key, picture = uuid.uuid4().hex, self._picture()
        runs = [_packed(title, model) for title, model in self.models.items()]
        for run in runs:
            run["head"] = self.heads.get(run["title"])
        self.carrier = _Carrier(key=key, runs=runs, text=self.text)
        bundle, _ = self.carrier._repr_mimebundle_()
        shown = {"text/plain": repr(self), "text/html": picture}
        handle = display(bundle | shown, raw=True, display_id=True)

        def replace(_):
            self.carrier.close()
            alive = shown | {"text/html": picture + _WAKE.replace("KEY", key)}
            handle.update(alive, raw=True)

        self.carrier.observe(replace, "arrived")

    def _picture(self):
        """The maps of one head of each model as <img>: for a page where nothing runs."""
        parts = []
        for title, model in self.models.items():
            figure = _figure(title, model, data.encode(self.text), self.heads.get(title))
            encoded = base64.b64encode(png(figure)).decode()
            plt.close(figure)
            look = f'alt="{title}" style="max-width: 100%; display: block"'
            parts.append(f'<img {look} src="data:image/png;base64,{encoded}">')
        return f'<div class="minidiff-live">{"".join(parts)}</div>'


_WAKE = """<script type="module">
const el = document.querySelector(".minidiff-live:not(.alive)");
const run = globalThis.minidiffRuns?.get("KEY");
if (el && run) { el.classList.add("alive"); run.open(el, run); }
</script>"""


class _Carrier(anywidget.AnyWidget):
    """Takes weights to the browser and says that they arrived; it draws nothing itself."""

    _esm = Path(__file__).parent / "page" / "dist" / "widget.js"
    key = traitlets.Unicode().tag(sync=True)
    runs = traitlets.List().tag(sync=True)
    text = traitlets.Unicode().tag(sync=True)
    arrived = traitlets.Bool(False).tag(sync=True)


def _packed(title, model):
    """A model as the page reads it: its config as JSON, its weights as safetensors in float32."""
    config = json.dumps({"model": dataclasses.asdict(model.config)})
    weights = {k: v.detach().float().cpu().contiguous() for k, v in model.state_dict().items()}
    return {"title": title, "config": config, "weights": save(weights)}


@torch.no_grad()
def _figure(title, model, idx, place=None):
    """The maps of the head that the page opens: this one, or the one that copies most."""
    views, tokens = probe.attention_maps(model, idx), idx[0]
    layer, head = place or _copying(views, tokens)
    view = views[layer]
    maps = {"A": view.weights} if view.a2 is None else {"A1": view.a1, "A2": view.a2}
    maps |= {} if view.a2 is None else {"A1 − λ A2": view.weights}
    lam = None if view.lam is None else view.lam[:, head]
    maps = {name: m[head] for name, m in maps.items()}
    figure = plots.attention_maps(maps, plots.token_labels(tokens), lam)
    figure.suptitle(f"{title}: layer {layer}, head {head}", fontsize=16)
    return figure


def _copying(views, tokens):
    """(layer, head) with the most weight on what followed the query's byte before."""
    after_copy = torch.zeros(len(tokens), len(tokens))  # 1 where the byte before is the query's
    after_copy[:, 1:] = (tokens[:, None] == tokens[None, :-1]).float()
    scores = torch.stack([(view.weights * after_copy).sum((1, 2)) for view in views])  # (L, h)
    return divmod(scores.argmax().item(), scores.shape[1])
