"""The picture of the layer: softmax attention beside DIFF V2, as an SVG that needs nothing else.

    python -m minidiff.look.diagram notebooks/figures/layer.svg

Blue and dashed is softmax, vermilion and solid what DIFF V2 adds, grey what is the same in both.
The small maps are real: two causal softmax maps that share noise, and their difference at lambda =
0.5. The colours follow the reader's light or dark theme; every word stays above 11 pixels on a
phone, 390 pixels wide.
"""

import re
import sys
from html import escape
from pathlib import Path

import torch

WIDTH, HEIGHT = 700, 664
TITLE = "Softmax attention and DIFF V2, one layer each"
DESCRIPTION = (
    "Left, softmax: x goes through q_proj to h query heads, and through k_proj and v_proj. Queries "
    "and keys give one map A for each head. A times v goes through o_proj. Right, DIFF V2: q_proj "
    "makes 2h query heads, and lambda_proj one number lambda for each token and output head. Each "
    "pair of query heads, over the same keys, gives two maps, A1 and A2. Lambda times A2 is "
    "subtracted from A1, and with it what both share. The difference times v goes through o_proj."
)
STYLE = """
svg { --card: #fff; --ink: #222; --same: #5a5a5a; --soft: #0072B2; --new: #D55E00; --word: #ad4c00;
      --tint: #f4f4f4; font-family: sans-serif; font-size: 21px; text-anchor: middle }
@media (prefers-color-scheme: dark) { svg { --card: #16191d; --ink: #eee; --same: #aaa;
      --soft: #56b4e9; --new: #ff8a3d; --word: #ff8a3d; --tint: #24282d } }
text { fill: var(--ink) } .bold { font-weight: bold } .small { font-size: 20px }
.start { text-anchor: start }
path { fill: none; stroke-width: 2.5 } .box { stroke-width: 2.5; fill: var(--tint) }
.same { --c: var(--same) } .soft { --c: var(--soft) } .new { --c: var(--new) }
.new.ink { --c: var(--word) }
path.soft, .box.soft { stroke-dasharray: 8 3 }
.box, path { stroke: var(--c) } .ink, .cell, .head { fill: var(--c) }
"""
MAP = 88  # the side of a small map
# Where things stand: columns of the softmax layer, then of DIFF V2; rows from x down to the output.
KV, Q, KV2, Q1, Q2, LAM = 66, 176, 300, 404, 520, 632
X, PROJECT, BUS, MAPS, MINUS, REST, TIMES, OUT = 62, 126, 212, 228, 354, 392, 520, 558


def text(x, y, words, kind=""):
    """Words centred at x; ``A_1`` and ``h_kv`` have small indices."""
    words = escape(words)
    lower = r'<tspan dy="5" font-size="70%">\1</tspan><tspan dy="-5">&#8203;</tspan>'
    words = re.sub(r"_(1|2|kv)\b", lower, words)
    return f'<text x="{x}" y="{y}" class="{kind}">{words}</text>'


def box(x, y, width, height, kind, *lines):
    """A box of one kind (same, soft or new), centred at x, with one or two lines of text."""
    out = f'<rect x="{x - width / 2:g}" y="{y}" width="{width}" height="{height}" rx="7"'
    out += f' class="box {kind}"/>'
    for i, line in enumerate(lines):
        middle = y + height / 2 + 7 + 25 * (i - (len(lines) - 1) / 2)
        out += text(x, f"{middle:g}", line, "" if i else "bold")
    return out


def arrow(kind, *points):
    """A line through the points, with a head at the last."""
    (x0, y0), (x, y) = points[-2:]
    dx, dy = (x > x0) - (x < x0), (y > y0) - (y < y0)
    head = [(x, y), (x - 11 * dx + 6 * dy, y - 11 * dy + 6 * dx)]
    head.append((x - 11 * dx - 6 * dy, y - 11 * dy - 6 * dx))
    corners = [*points[:-1], (x - 8 * dx, y - 8 * dy)]
    line, tip = (" ".join(f"{px:g},{py:g}" for px, py in ps) for ps in (corners, head))
    return f'<path class="{kind}" d="M{line}"/><polygon class="head {kind}" points="{tip}"/>'


def node(x, y, kind, sign):
    """A round operation, such as a minus."""
    circle = f'<circle cx="{x}" cy="{y}" r="17" class="box {kind}"/>'
    return circle + text(x, y + 8, sign, "bold")


def causal_map(x, y, weights, kind):
    """A causal map (T, T) whose top left corner is (x, y): the darker a cell, the more weight."""
    size = MAP / len(weights)
    cells = ""
    for i, row in enumerate(weights.tolist()):
        for j, weight in enumerate(row[: i + 1]):
            place = f'x="{x + j * size:.1f}" y="{y + i * size:.1f}"'
            cells += f'<rect {place} width="{size - 1:.1f}" height="{size - 1:.1f}" '
            cells += f'class="cell {kind}" opacity="{0.1 + 0.9 * min(max(weight, 0), 1):.2f}"/>'
    return cells


def maps():
    """A1, A2 and A1 - 0.5 A2, each (7, 7): A1 has a signal and noise, A2 the noise alone."""
    i, j = torch.arange(7)[:, None], torch.arange(7)
    noise = (5 * i + 3 * j * j + i * j) % 7 / 2.5  # scores that look random, and never change
    noise[:, 0] += 2  # a token that every query looks at
    signal = 3.2 * (j == torch.tensor([0, 1, 1, 3, 2, 5, 3])[:, None])
    hidden = j > i
    a1, a2 = ((s + noise).masked_fill(hidden, -torch.inf).softmax(-1) for s in (signal, 0 * signal))
    return a1, a2, a1 - 0.5 * a2


def layer():
    """The whole picture, as the text of an SVG file."""
    a1, a2, difference = maps()
    half = MAP / 2
    parts = [
        f'<rect width="{WIDTH}" height="{HEIGHT}" rx="14" style="fill: var(--card)"/>',
        text(121, 36, "softmax", "bold ink soft"),
        text(470, 36, "DIFF V2", "bold ink new"),
        box(WIDTH / 2, X - 8, WIDTH - 40, 34, "same", "x, one vector for each token"),
    ]
    for kv, q, kind in ((KV, Q, "soft"), (KV2, Q1, "soft")):  # what both layers have
        parts += [
            arrow("same", (kv, X + 26), (kv, PROJECT)),
            arrow(kind, (q, X + 26), (q, PROJECT)),
        ]
        parts += [box(kv, PROJECT, 84, 62, "same", "k, v", "h_kv")]
        parts += [arrow("same", (kv, PROJECT + 62), (kv, TIMES), (q - 17, TIMES))]
        parts += [arrow("same", (kv, BUS), (q - 24, BUS), (q - 24, MAPS))]
        parts += [arrow(kind, (q, PROJECT + 62), (q, MAPS)), causal_map(q - half, MAPS, a1, kind)]
    parts += [
        box(Q, PROJECT, 96, 62, "soft", "q", "h heads"),
        text(Q + 34, MAPS + 24, "A", "bold ink soft"),
        arrow("soft", (Q, MAPS + MAP), (Q, TIMES - 17)),
        # DIFF V2: a second query, a second map, lambda, and the subtraction
        box(Q1, PROJECT, 96, 62, "soft", "q_1", "2i"),
        *[arrow("new", (x, X + 26), (x, PROJECT)) for x in (Q2, LAM)],
        box(Q2, PROJECT, 96, 62, "new", "q_2", "2i + 1"),
        box(LAM, PROJECT, 92, 62, "new", "λ", "h logits"),
        arrow("same", (Q1 - 24, BUS), (Q2 - 24, BUS), (Q2 - 24, MAPS)),
        arrow("new", (Q2, PROJECT + 62), (Q2, MAPS)),
        causal_map(Q2 - half, MAPS, a2, "new"),
        text((Q1 + Q2) / 2, PROJECT - 12, "2h heads", "small ink new"),
        text(Q1 + 34, MAPS + 24, "A_1", "bold ink soft"),
        text(Q2 + 34, MAPS + 24, "A_2", "bold ink new"),
        arrow("soft", (Q1, MAPS + MAP), (Q1, MINUS - 17)),
        arrow("new", (Q2, MAPS + MAP), (Q2, MINUS - 17)),
        arrow("new", (LAM, PROJECT + 62), (LAM, MINUS), (Q2 + 17, MINUS)),
        text(LAM - 46, MINUS - 12, "sigmoid", "small ink new"),
        arrow("new", (Q2 - 17, MINUS), (Q1 + 17, MINUS)),
        node(Q2, MINUS, "new", "×"),
        node(Q1, MINUS, "new", "−"),
        arrow("new", (Q1, MINUS + 17), (Q1, REST)),
        causal_map(Q1 - half, REST, difference, "new"),
        text(Q1 + 60, REST + 44, "A_1 − λ A_2", "bold ink new start"),
        text(Q1 + 60, REST + 74, "what both maps", "small start"),
        text(Q1 + 60, REST + 99, "share is subtracted", "small start"),
        arrow("new", (Q1, REST + MAP), (Q1, TIMES - 17)),
    ]
    for kv, q, kind in ((KV, Q, "soft"), (KV2, Q1, "new")):
        parts += [node(q, TIMES, "same", "×"), text((kv + q) / 2 - 12, TIMES - 8, "v", "bold")]
        parts += [arrow(kind, (q, TIMES + 17), (q, OUT)), box(q, OUT, 110, 36, "same", "o_proj")]
        parts += [arrow("same", (q, OUT + 36), (q, OUT + 60)), text(q, OUT + 84, "out")]
    legend = {"soft": "softmax", "new": "new", "same": "the same"}
    for i, (kind, words) in enumerate(legend.items()):
        y = OUT + 10 + 30 * i
        parts.append(f'<rect x="548" y="{y - 14}" width="16" height="16" class="cell {kind}"/>')
        parts.append(text(574, y, words, "small start"))
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
    head += 'aria-labelledby="title description">'
    named = f'<title id="title">{TITLE}</title><desc id="description">{DESCRIPTION}</desc>'
    return "\n".join([head, named, f"<style>{STYLE}</style>", *parts, "</svg>"]) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(layer(), encoding="utf-8")
