// Three tokens, the softmax rows of two queries over them, and the difference: notebook 00.

import { range } from "../ui/dom.mjs";
import { line, rect, svg, text } from "./draw.mjs";
import { digits } from "./numbers.mjs";

const MOST = 6;
const SCORES = range(16 * MOST + 1, (i) => (i - 8 * MOST) / 8);
const scene = ([a1, b1, c1], [a2, b2, c2], lam) => ({ a1, b1, c1, a2, b2, c2, lam });
const short = (x) => digits(Number(x.toFixed(3)));

export const difference = {
  name: "Three tokens",
  controls: [
    ...["a", "b", "c"].flatMap((token) =>
      ["1", "2"].map((query) => ({
        key: token + query,
        label: `score of ${token.toUpperCase()}, query ${query}`,
        steps: () => SCORES,
        low: -MOST,
        high: MOST,
        word: short,
      })),
    ),
    { key: "lam", label: "λ", steps: () => range(51, (i) => i / 50), low: 0, high: 1 },
  ],
  scenes: {
    "Noise in both": scene([0, Math.log(2), 0], [Math.log(2), 0, 0], 0.5), // course/example.py
    "Nothing to say": scene([0, 0, 0], [0, 0, 0], 0.96),
    "Two equal maps": scene([0, 2, 0], [0, 2, 0], 0.5),
    "Less than nothing": scene([0, 2, 0], [3, 0, 0], 0.8),
  },
  draw: (s) => panels(s) + words(s),
};

/** The two softmax rows, and the weights of DIFF V2: three numbers each. */
export function differenceOfThree({ a1, b1, c1, a2, b2, c2, lam }) {
  const softmax = (scores) => {
    const powers = scores.map(Math.exp),
      sum = powers.reduce((x, y) => x + y);
    return powers.map((power) => power / sum);
  };
  const first = softmax([a1, b1, c1]),
    second = softmax([a2, b2, c2]);
  return { a1: first, a2: second, w: first.map((weight, j) => weight - lam * second[j]) };
}

function panels(s) {
  const { a1, a2, w } = differenceOfThree(s),
    taken = a2.map((weight) => -s.lam * weight);
  const low = Math.min(-0.12, ...taken, ...w); // room under the zero line, the same in all three
  const three = [
    panel("A₁: softmax", a1, "softmax", "1", low),
    panel("− λA₂", taken, "minus", `−λ = ${short(-s.lam)}`, low),
    panel("A₁ − λA₂: DIFF V2", w, "diff", `1 − λ = ${short(1 - s.lam)}`, low),
  ];
  return `<div class="panels">${three.join("")}</div>`;
}

// Three bars from one zero line; narrow, so that a phone can put the panels under each other.
function panel(title, weights, kind, total, low) {
  const unit = 120 / (1 - low),
    zero = 50 + unit;
  let out = text(160, 18, title, { kind: `title ${kind === "minus" ? "" : kind}` });
  for (const [j, weight] of weights.entries()) {
    const x = 34 + 88 * j,
      height = unit * Math.abs(weight),
      below = weight < -0.0005;
    out += rect(x, below ? zero : zero - height, 76, height, kind);
    out += text(x + 38, below ? zero + height + 17 : zero - height - 6, short(weight));
    out += text(x + 38, below ? zero - 6 : zero + 18, "ABC"[j], { kind: "title" });
  }
  out += line(
    [
      [20, zero],
      [308, zero],
    ],
    "axis",
  );
  out += text(160, 214, `sum ${total}`, { kind: "soft" });
  const spoken = weights.map((weight, j) => `${"ABC"[j]} ${short(weight)}`).join(", ");
  return svg(222, `${title}: ${spoken}`, out, "img", 320);
}

function words(s) {
  const { a1, w } = differenceOfThree(s),
    size = w.reduce((sum, weight) => sum + Math.abs(weight), 0);
  const share = (weight, total) => (total > 1e-9 ? Math.round((100 * weight) / total) : 0);
  return `<p class="told">Token B has <b>${share(a1[1], 1)}%</b> of what softmax attends to, and
    <b>${share(Math.abs(w[1]), size)}%</b> of what is left after the subtraction (signs ignored). Softmax
    must hand out a weight of <b>1</b> whatever the scores; DIFF V2 <b>${short(1 - s.lam)}</b>.</p>`;
}
