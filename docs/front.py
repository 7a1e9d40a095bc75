"""The start page's picture: whom the last letter of a prompt attends to, in both shipped models."""

from html import escape

import torch

import minidiff
from minidiff import data
from minidiff.look import plots, probe

TEXT = "for name in names: print(na"


def picture():
    """The prompt once for each map of the head that copies most, its letters tinted, as HTML."""
    tokens = data.encode(TEXT)  # (1, T)
    softmax, i = _copying(minidiff.load_pretrained("softmax_1.5h"), tokens)
    diff, j = _copying(minidiff.load_pretrained("diff_v2"), tokens)
    a1, taken = diff.a1[j, -1], diff.lam[-1, j] * diff.a2[j, -1]  # (T,) each
    letters = plots.token_labels(tokens[0])
    return "\n".join(
        [
            _row("softmax", "Softmax", softmax.weights[i, -1], letters),
            _row("diff", "A<sub>1</sub>", a1, letters),
            _row("diff", "− λ A<sub>2</sub>", -taken, letters),
            _row("diff", "DIFF V2", diff.weights[j, -1], letters),
        ]
    )


@torch.no_grad()
def _copying(model, tokens):
    """(view, head): the head that looks most at what followed the same byte before."""
    views = probe.attention_maps(model, tokens)
    same = tokens[0][:, None] == tokens[0][None, :-1]  # (T, T-1)
    scores = torch.stack([(view.weights[:, :, 1:] * same).sum((1, 2)) for view in views])  # (L, h)
    layer, head = divmod(scores.argmax().item(), scores.shape[1])
    return views[layer], head


def _row(kind, name, weights, letters):
    """One line: opacity is the size of a weight; below zero has a colour of its own."""
    cells = [
        f'<span class="{"minus" if w < 0 else "plus"}" style="--w:{abs(w):.2f}">{escape(x)}</span>'
        for x, w in zip(letters, weights.tolist(), strict=True)
    ]
    return f'<div class="row {kind}"><b>{name}</b><code>{"".join(cells)}</code></div>'
