// What softmax can say, and what only a difference can: three values in a plane, which one drags.
// A softmax context is a mean of the values: inside their triangle. A1 V - lambda A2 V is not.

import { range } from "../ui/dom.mjs";
import { area, dot, line, rect, svg, text } from "./draw.mjs";
import { besidePoints } from "./labels.mjs";
import { digits, signed } from "./numbers.mjs";

const NAMES = ["A", "B", "C"],
  SIZE = 320,
  ZOOM = 68,
  MIDDLE = [250, 165]; // pixels a unit; origin
const MOST = [1.7, 1.15]; // of a value, so that every difference is in the picture
const start = (values, a1, a2, lam) => ({ values, a1, a2, lam });
const VALUES = [
  [-0.9, -0.5],
  [1.1, -0.3],
  [0.1, 1.1],
];

export const hull = {
  name: "Three values",
  controls: [{ key: "lam", label: "λ", steps: () => range(51, (i) => i / 50), low: 0, high: 1 }],
  scenes: {
    "Two different maps": start(VALUES, [0.05, 0.15, 0.8], [0.7, 0.2, 0.1], 0.8),
    "Two equal maps": start(VALUES, [0.3, 0.3, 0.4], [0.3, 0.3, 0.4], 0.8),
    "Softmax: λ = 0": start(VALUES, [0.2, 0.5, 0.3], [0.4, 0.3, 0.3], 0),
    "Values with a shared part": start(
      [
        [0.9, 0.6],
        [1.3, 0.8],
        [1, 1.1],
      ],
      [0.2, 0.2, 0.6],
      [0.4, 0.3, 0.3],
      0.9,
    ),
  },
  draw: (s) => plane(s) + bars(s) + words(s),

  /** Drag a value, or a context in the triangle, to the pixel (x, y) of the picture. */
  move(state, key, x, y) {
    place(state, key, [(x - MIDDLE[0]) / ZOOM, (MIDDLE[1] - y) / ZOOM]);
  },
  nudge(state, key, dx, dy) {
    const [x, y] = key in NAMES ? state.values[key] : mix(state[key], state.values);
    place(state, key, [x + 0.05 * dx, y + 0.05 * dy]);
  },
};

function place(state, key, wanted) {
  const to = wanted.map((c, i) => Math.max(-MOST[i], Math.min(MOST[i], c)));
  if (key in NAMES) state.values = state.values.map((value, i) => (i === Number(key) ? to : value));
  else state[key] = weightsAt(to, state.values);
}

/** sum_i w_i v_i */
export const mix = (weights, values) =>
  [0, 1].map((c) => weights.reduce((sum, w, i) => sum + w * values[i][c], 0));

/** The weights of a point of the triangle; outside, those that are below 0 become 0. */
export function weightsAt([x, y], [[ax, ay], [bx, by], [cx, cy]]) {
  const whole = (bx - ax) * (cy - ay) - (cx - ax) * (by - ay);
  if (Math.abs(whole) < 1e-9) return [1 / 3, 1 / 3, 1 / 3];
  const b = ((x - ax) * (cy - ay) - (cx - ax) * (y - ay)) / whole;
  const c = ((bx - ax) * (y - ay) - (x - ax) * (by - ay)) / whole;
  const kept = [1 - b - c, b, c].map((w) => Math.max(0, w)),
    sum = kept.reduce((p, q) => p + q);
  return kept.map((w) => w / sum);
}

/** All that A1 V - lambda A2 V can be: the hull of the differences v_i - lambda v_j. */
export function differenceSet(values, lam) {
  const points = values.flatMap(([x, y]) => values.map(([u, v]) => [x - lam * u, y - lam * v]));
  points.sort((p, q) => p[0] - q[0] || p[1] - q[1]);
  const half = (sorted) => {
    const chain = [];
    for (const p of sorted) {
      while (chain.length > 1 && turn(chain.at(-2), chain.at(-1), p) <= 1e-12) chain.pop();
      chain.push(p);
    }
    return chain.slice(0, -1);
  };
  return [...half(points), ...half(points.reverse())];
}
export const turn = ([ax, ay], [bx, by], [cx, cy]) => (bx - ax) * (cy - ay) - (by - ay) * (cx - ax);

const pixel = ([x, y]) => [MIDDLE[0] + ZOOM * x, MIDDLE[1] - ZOOM * y];

function plane(s) {
  const [c1, c2] = [mix(s.a1, s.values), mix(s.a2, s.values)];
  const c = c1.map((x, i) => x - s.lam * c2[i]),
    corners = s.values.map(pixel);
  let out =
    line(
      [
        [0, MIDDLE[1]],
        [500, MIDDLE[1]],
      ],
      "grid",
    ) +
    line(
      [
        [MIDDLE[0], 0],
        [MIDDLE[0], SIZE],
      ],
      "grid",
    );
  out +=
    area(differenceSet(s.values, s.lam).map(pixel), "diff-tint") + area(corners, "softmax-tint");
  out += line([pixel(c1), pixel(c)], "axis dotted");
  const handle = (key, [x, y], label) =>
    `data-drag="${key}" tabindex="0" role="slider" aria-label="${label}"` +
    ` aria-valuenow="${x.toFixed(2)}" aria-valuetext="${x.toFixed(2)}, ${y.toFixed(2)}" data-lm-suppress-shortcuts="true"`;
  for (const [i, [x, y]] of corners.entries())
    out += dot(x, y, "", 9, handle(i, s.values[i], `value of token ${NAMES[i]}`));
  out += dot(...pixel(c1), "softmax", 8, handle("a1", c1, "A₁V"));
  out += dot(...pixel(c2), "minus", 8, handle("a2", c2, "A₂V"));
  out += dot(...pixel(c), "diff", 10);
  out += names(c1, c2, c, corners);
  return svg(
    SIZE,
    `Three values; A1 V at ${at(c1)}, A1 V minus lambda A2 V at ${at(c)}`,
    out,
    "group",
  );
}

// The labels of A1 V and of the difference would like to point away from each other.
function names(c1, c2, c, corners) {
  const [dx, dy] = [pixel(c)[0] - pixel(c1)[0], pixel(c)[1] - pixel(c1)[1]];
  const away = Math.hypot(dx, dy) < 1 ? [0, 1] : [dx, dy];
  const middle = mix([1 / 3, 1 / 3, 1 / 3], corners),
    outwards = (at) => at.map((x, i) => x - middle[i]);
  const points = [
    { at: pixel(c), words: "A₁V − λA₂V", towards: away, kind: "diff" },
    { at: pixel(c1), words: "A₁V", towards: away.map((part) => -part), kind: "softmax" },
    { at: pixel(c2), words: "A₂V", towards: [1, 0], kind: "minus" },
    ...corners.map((at, i) => ({ at, words: NAMES[i], towards: outwards(at), kind: "title" })),
  ].map((point) => ({ ...point, size: point.kind === "title" ? 17 : 14 }));
  return besidePoints(points, 500, SIZE)
    .map(({ x, y, anchor }, i) => {
      const { words, kind, size } = points[i];
      return text(x, y, words, { kind, anchor, size });
    })
    .join("");
}
const at = (point) => point.map((x) => x.toFixed(2)).join(", ");

function bars(s) {
  const diff = s.a1.map((w, i) => w - s.lam * s.a2[i]),
    y = (w) => 150 - 100 * w;
  let out = text(0, 18, "Weights", { anchor: "start", kind: "title" });
  for (const tick of [-1, -0.5, 0, 0.5, 1]) {
    out += line(
      [
        [50, y(tick)],
        [480, y(tick)],
      ],
      tick ? "grid" : "axis",
    );
    out += text(43, y(tick) + 5, String(tick).replace("-", "−"), { anchor: "end", kind: "soft" });
  }
  for (const [i, name] of NAMES.entries()) {
    for (const [j, value] of [s.a1[i], s.lam * s.a2[i], diff[i]].entries()) {
      const x = 66 + 142 * i + 40 * j;
      out += rect(
        x,
        Math.min(y(0), y(value)),
        36,
        Math.abs(y(value) - y(0)),
        ["softmax", "minus", "diff"][j],
      );
      out += text(x + 18, y(value) + (value < 0 ? 16 : -5), signed(value), { size: 14 });
    }
    out += text(124 + 142 * i, 285, `token ${name}`);
  }
  const key = [
    ["softmax", "A₁ (softmax)"],
    ["minus", "λA₂"],
    ["diff", "A₁ − λA₂"],
  ];
  for (const [i, [kind, label]] of key.entries())
    out +=
      rect([58, 208, 300][i], 298, 15, 15, kind) +
      text([79, 229, 321][i], 311, label, { anchor: "start" });
  return svg(
    SIZE,
    `Weights of A1 minus lambda A2: ${diff.map((w, i) => `${NAMES[i]} ${signed(w)}`).join(", ")}`,
    out,
  );
}

function words(s) {
  const c1 = mix(s.a1, s.values),
    c2 = mix(s.a2, s.values),
    length = (c) => digits(Math.hypot(...c));
  const c = c1.map((x, i) => x - s.lam * c2[i]);
  return `<p class="told">Drag the three values, A₁V and A₂V (or focus one and use the arrow keys). A softmax
    context stays in the <b>triangle</b>; the difference can be anywhere in the <b>orange</b> set, beyond the values and
    at 0 as well. Lengths: softmax ${length(c1)}, difference ${length(c)}; its weights sum to
    1 − λ = ${digits(1 - s.lam)}.</p>`;
}
