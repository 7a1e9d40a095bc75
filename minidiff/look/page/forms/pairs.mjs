// Which two query heads are subtracted? Neighbours share their key/value head; i and i + h do not.

import { range } from "../ui/dom.mjs";
import { rect, svg, text } from "./draw.mjs";

const MOST = 16;
const scene = (n_head, n_kv_head, halves) => ({ n_head, n_kv_head, halves });

export const pairs = {
  name: "Pairing of heads",
  controls: [
    {
      key: "n_head",
      label: "h, output heads",
      whole: true,
      low: 1,
      high: MOST,
      steps: ({ n_kv_head }) => range(MOST, (i) => i + 1).filter((h) => (2 * h) % n_kv_head === 0),
    },
    {
      key: "n_kv_head",
      label: "h_kv, key/value heads",
      whole: true,
      low: 1,
      high: 2 * MOST,
      steps: ({ n_head }) =>
        range(2 * n_head, (i) => i + 1).filter((kv) => (2 * n_head) % kv === 0),
    },
    { key: "halves", label: "pair head i with head i + h: the known mistake" },
  ],
  scenes: {
    "As DIFF V2 does": scene(4, 2, false),
    Halves: scene(4, 2, true),
    "One key/value head hides it": scene(4, 1, true),
    "h = 3, h_kv = 2": scene(3, 2, false),
  },
  check({ n_head: h, n_kv_head: kv }) {
    return (2 * h) % kv
      ? `2h = ${2 * h} query heads cannot share h_kv = ${kv} key/value heads evenly`
      : null;
  },
  draw: (s) => picture(s) + words(s),
};

/** [first, second, whether both read the same key/value head] for each output head. */
export function pairing({ n_head: h, n_kv_head: kv, halves }) {
  const group = (head) => Math.floor((head * kv) / (2 * h));
  return range(h, (i) => (halves ? [i, i + h] : [2 * i, 2 * i + 1])).map(([a, b]) => [
    a,
    b,
    group(a) === group(b),
  ]);
}

function picture(s) {
  const { n_head: h, n_kv_head: kv } = s,
    step = 480 / (2 * h),
    size = Math.min(step - 4, 34),
    x = (j) => 10 + step * (j + 0.5);
  let out = text(0, 18, `${2 * h} query heads, ${kv} key/value head${kv > 1 ? "s" : ""}`, {
    anchor: "start",
    kind: "title",
  });
  for (let g = 0; g < kv; g++) {
    const width = 480 / kv;
    out += rect(11 + g * width, 126, width - 2, 64, g % 2 ? "group odd" : "group");
    const words = width > 80 ? `k, v head ${g}` : g;
    out += text(10 + (g + 0.5) * width, 182, words, { kind: "soft", size: width > 24 ? 13 : 10 });
  }
  for (const [a, b, same] of pairing(s)) {
    const rise = Math.min(115, 26 + 0.24 * (x(b) - x(a)));
    out += `<path d="M ${x(a)} 128 C ${x(a)} ${128 - rise} ${x(b)} ${128 - rise} ${x(b)} 128" class="arc ${same ? "right" : "wrong"}"/>`;
  }
  for (let j = 0; j < 2 * h; j++) {
    out += rect(x(j) - size / 2, 130, size, 26, "head");
    if (size > 13) out += text(x(j), 148, j, { size: size > 20 ? 14 : 11, kind: "on" });
  }
  const wrong = pairing(s).filter(([, , same]) => !same).length;
  return svg(196, `${h - wrong} pairs within a key/value head, ${wrong} across two`, out);
}

function words(s) {
  const found = pairing(s),
    wrong = found.filter(([, , same]) => !same).length;
  const list =
    found
      .slice(0, 8)
      .map(([a, b]) => `a[${a}] − λ a[${b}]`)
      .join(", ") + (found.length > 8 ? ", …" : "");
  const verdict = wrong
    ? `<b>${wrong} of ${s.n_head}</b> pairs (dashed) subtract attention over other keys and values: nothing cancels there.`
    : `Each pair reads one key/value head: the same keys, the same values, so that what both see cancels.`;
  const hint =
    s.n_kv_head === 1 && s.halves ? " With one key/value head the mistake cannot be seen." : "";
  return `<div class="told beside"><p>${verdict}${hint}</p><p>${list}</p></div>`;
}
