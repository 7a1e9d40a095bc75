// The explorer of notebook 00: three tokens, two softmax rows over them, and their difference.

const SCORES = range(97, (i) => (i - 48) / 8); // -6 to 6
const MAX_SCORE = 6;
const three = (first, second, lam) => {
  const [a1, b1, c1] = first, [a2, b2, c2] = second;
  return { a1, b1, c1, a2, b2, c2, lam };
};

EXPLORERS.difference = {
  controls: [
    ...["a", "b", "c"].flatMap((token) =>
      ["1", "2"].map((query) => ({
        key: token + query, label: `score of ${token.toUpperCase()}, query ${query}`, steps: SCORES,
      })),
    ),
    { key: "lam", label: "λ", steps: fractions },
  ],
  scenes: { // the first is course/example.py
    "Noise in both": three([0, Math.log(2), 0], [Math.log(2), 0, 0], 0.5),
    "Nothing to say": three([0, 0, 0], [0, 0, 0], 0.96),
    "Two equal maps": three([0, 2, 0], [0, 2, 0], 0.5),
    "Less than nothing": three([0, 2, 0], [3, 0, 0], 0.8),
  },
  check({ lam, ...scores }) {
    for (const [key, score] of Object.entries(scores))
      if (wrong(score, -MAX_SCORE, MAX_SCORE))
        return `score of ${key[0].toUpperCase()}, query ${key[1]}: a number from −6 to 6`;
    if (wrong(lam, 0, 1)) return "λ must be a number from 0 to 1, where a sigmoid puts it";
    return null;
  },
  draw(s) {
    const { a1, a2, w } = differenceOfThree(s), left = digits(1 - s.lam);
    const low = Math.min(-0.12, ...w); // room under the zero line, the same in all panels
    const panels = [
      weightPanel("A₁: softmax", a1, BLUE, "1", low),
      weightPanel("− λ A₂", a2.map((weight) => s.lam * weight), GREY, digits(s.lam), low),
      weightPanel("= A₁ − λ A₂: DIFF V2", w, RED, `1 − λ = ${left}`, low),
    ];
    const size = w.reduce((sum, weight) => sum + Math.abs(weight), 0);
    const share = (weight, total) => (total > 1e-9 ? Math.round((100 * weight) / total) : 0);
    return `<div class="panels">${panels.join("")}</div>
      <p>Token B has <b>${share(a1[1], 1)}%</b> of what softmax attends to, and
      <b>${share(Math.abs(w[1]), size)}%</b> of what is left after the subtraction (signs ignored).
      Softmax must hand out a weight of <b>1</b> whatever the scores; DIFF V2
      <b>${left}</b>.</p>`;
  },
};

// The two softmax rows and the weights of DIFF V2, three numbers each
export function differenceOfThree({ a1, b1, c1, a2, b2, c2, lam }) {
  const softmax = (scores) => {
    const powers = scores.map(Math.exp), sum = powers.reduce((x, y) => x + y);
    return powers.map((power) => power / sum);
  };
  const first = softmax([a1, b1, c1]), second = softmax([a2, b2, c2]);
  return { a1: first, a2: second, w: first.map((weight, j) => weight - lam * second[j]) };
}

function digits(value) {
  return String(Number(value.toFixed(3))).replace("-", "−");
}

// Three bars from one zero line; narrow, so that a phone can put the panels under each other
function weightPanel(title, weights, colour, total, low) {
  const unit = 132 / (1 - low), zero = 42 + unit;
  let out = text(160, 18, title, { size: 18, bold: true, fill: colour === GREY ? INK : colour });
  for (const [j, weight] of weights.entries()) {
    const x = 34 + 88 * j, height = unit * Math.abs(weight), negative = weight < -0.0005;
    out += rect(x, negative ? zero : zero - height, 76, height, colour);
    out += text(x + 38, negative ? zero + height + 16 : zero - height - 5, digits(weight));
    out += text(x + 38, negative ? zero - 5 : zero + 18, "ABC"[j], { bold: true });
  }
  out += line([[20, zero], [308, zero]], INK, "") + text(160, 208, `sum ${total}`, { size: 17 });
  const spoken = weights.map((weight, j) => `${"ABC"[j]} ${digits(weight)}`).join(", ");
  return `<svg viewBox="0 0 320 214" role="img" aria-label="${title}: ${spoken}">${out}</svg>`;
}
