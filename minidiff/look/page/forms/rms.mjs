// Context RMS of one query: softmax against DIFF V2, for any length, peaks, lambda, correlation.
// A map is softmax over n logits, one of which, the peak, stands `gap` above the equal others.

import { differenceRow, effectiveTokens, expectedRms, rmsBounds } from "./theory.mjs";
import { range } from "../ui/dom.mjs";
import { area, dot, line, rect, svg, text } from "./draw.mjs";
import { apart } from "./labels.mjs";
import { count, digits, signed } from "./numbers.mjs";

const MAX_N = 16384,
  MAX_GAP = 14;
const fractions = () => range(51, (i) => i / 50);
const gaps = () => range(4 * MAX_GAP + 1, (i) => i / 4);
const powers = () => range(14, (i) => 2 ** (i + 1));
const scene = (n, gap1, gap2, lam, rho, same) => ({ n, gap1, gap2, lam, rho, same });

export const rms = {
  name: "Context RMS explorer",
  controls: [
    {
      key: "n",
      label: "n, tokens seen",
      steps: powers,
      whole: true,
      low: 2,
      high: MAX_N,
      word: count,
    },
    { key: "lam", label: "λ", steps: fractions, low: 0, high: 1 },
    { key: "gap1", label: "peak of A₁ (logit gap)", steps: gaps, low: 0, high: MAX_GAP },
    { key: "rho", label: "ρ, values' correlation", steps: fractions, low: 0, high: 1 },
    { key: "gap2", label: "peak of A₂ (logit gap)", steps: gaps, low: 0, high: MAX_GAP },
    { key: "same", label: "both peak at the same token" },
  ],
  scenes: {
    "Nothing stands out": scene(1024, 0, 0, 0.5, 0, true),
    "Two equal maps": scene(1024, 6, 6, 0.5, 0, true),
    "Two different tokens": scene(1024, 14, 14, 1, 0, false),
    "Values with a shared part": scene(1024, 4, 0, 0.9, 0.3, true),
  },
  draw: (s) => bars(s) + curves(s) + table(s),
};

// softmax is A1 alone, which is the difference at lambda = 0
const rowAt = ({ gap1, gap2, same }, n, lam) => differenceRow(n, gap1, gap2, lam, same);

function bars(s) {
  const softmax = rowAt(s, s.n, 0),
    diff = rowAt(s, s.n, s.lam);
  const names = s.same ? ["token A"] : ["token A", "token B"],
    rest = s.n - names.length;
  const width = 420 / (names.length + (rest > 0)),
    bar = (width - 24) / 3;
  const y = (weight) => 150 - 100 * weight;
  let out = text(0, 18, `Weights of one query, n = ${count(s.n)}`, {
    anchor: "start",
    kind: "title",
  });
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
  for (const [i, [weight, many]] of diff.entries()) {
    if (!many) continue;
    const a1 = many * softmax[i][0],
      difference = many * weight,
      left = 58 + i * width;
    for (const [j, value] of [a1, a1 - difference, difference].entries()) {
      const x = left + j * bar,
        top = Math.min(y(0), y(value));
      out += rect(x + 2, top, bar - 4, Math.abs(y(value) - y(0)), ["softmax", "minus", "diff"][j]);
      out += text(x + bar / 2, y(value) + (value < 0 ? 16 : -5), signed(value), { size: 14 });
    }
    const under = names[i] ?? `other ${count(rest)} together`;
    out += text(left + 1.5 * bar, 285, under);
  }
  const key = [
    ["softmax", "A₁ (softmax)"],
    ["minus", "λA₂"],
    ["diff", "A₁ − λA₂"],
  ];
  for (const [i, [kind, words]] of key.entries()) {
    const x = [58, 208, 300][i];
    out += rect(x, 298, 15, 15, kind) + text(x + 21, 311, words, { anchor: "start" });
  }
  const said = diff.map(([weight, many], i) => `${names[i] ?? "others"} ${signed(many * weight)}`);
  return svg(322, `Weights of A1 minus lambda A2: ${said.join(", ")}`, out);
}

function curves(s) {
  const scale = (low, high, from, to) => (value) =>
    from +
    ((to - from) * Math.log(Math.min(Math.max(value, low), high) / low)) / Math.log(high / low);
  const x = scale(2, MAX_N, 58, 440),
    y = scale(0.001, 2, 262, 34),
    ns = range(53, (i) => 2 ** (1 + i / 4));
  const curve = (f) => ns.map((n) => [x(n), y(f(n))]);
  const at = (lam, rho) => (n) => expectedRms(rowAt(s, n, lam), rho);
  let out = text(0, 18, "Context RMS against n", { anchor: "start", kind: "title" });
  for (const [lam, kind] of [
    [s.lam, "diff-tint"],
    [null, "softmax-tint"],
  ]) {
    const [low, high] = [0, 1].map((end) => curve((n) => rmsBounds(n, lam, s.rho)[end]));
    out += area([...low, ...high.reverse()], kind); // softmax's range lies inside DIFF V2's
  }
  for (const n of [4, 64, 1024, 16384])
    out += text(x(n), 282, count(n), { kind: "soft", size: 14 });
  for (const value of [0.001, 0.01, 0.1, 1]) {
    out += line(
      [
        [58, y(value)],
        [440, y(value)],
      ],
      "grid",
    );
    out += text(50, y(value) + 5, value, { anchor: "end", kind: "soft", size: 14 });
  }
  for (const [lam, kind, radius] of [
    [0, "softmax", 10],
    [s.lam, "diff", 7],
  ]) {
    if (s.rho > 0) out += line(curve(at(lam, 0)), `${kind}-line dotted`);
    out += line(curve(at(lam, s.rho)), `${kind}-line`);
    out += dot(x(s.n), y(at(lam, s.rho)(s.n)), kind, radius);
  }
  const ends = [
    [null, "softmax"],
    [s.lam, "diff"],
  ].flatMap(([lam, kind]) => rmsBounds(MAX_N, lam, s.rho).map((bound) => ({ bound, kind })));
  const places = apart(
    ends.map(({ bound }) => y(bound) + 5),
    14,
    266,
  );
  for (const [i, { bound, kind }] of ends.entries())
    // written where the bands end
    out += text(446, places[i], digits(bound, 2), { anchor: "start", kind, size: 13 });
  out += text(250, 302, "n, tokens the query sees", { kind: "soft" });
  out +=
    rect(60, 312, 14, 14, "softmax-tint") +
    text(80, 324, "softmax can be here", { anchor: "start", size: 14 });
  out +=
    rect(250, 312, 14, 14, "diff-tint") +
    text(270, 324, "only DIFF V2 can", { anchor: "start", size: 14 });
  const now = (lam) => digits(at(lam, s.rho)(s.n));
  return svg(332, `Context RMS at n = ${s.n}: softmax ${now(0)}, DIFF V2 ${now(s.lam)}`, out);
}

function table(s) {
  const softmax = rowAt(s, s.n, 0),
    diff = rowAt(s, s.n, s.lam),
    tokens = effectiveTokens(softmax);
  const entry = (name, kind, row, bounds, last) =>
    `<tr><th class="${kind}" scope="row">${name}</th><td>${digits(expectedRms(row, s.rho))}</td>` +
    `<td>${bounds.map((bound) => digits(bound)).join(" to ")}</td>` +
    `<td>${digits(row.reduce((sum, [weight, many]) => sum + many * weight, 0))}</td><td>${last}</td></tr>`;
  const names = [
    "context RMS",
    "possible at this n",
    "sum of weights",
    "effective tokens, 1/|A₁|²",
  ];
  const heads = names.map((name) => `<th scope="col">${name}</th>`).join("");
  return (
    `<table><thead><tr><td></td>${heads}</tr></thead><tbody>` +
    entry("softmax", "softmax", softmax, rmsBounds(s.n, null, s.rho), digits(tokens, 4)) +
    entry("DIFF V2", "diff", diff, rmsBounds(s.n, s.lam, s.rho), "") +
    "</tbody></table>"
  );
}
