// Weights of an attention layer, and what it costs to decode one token, for any shape.

import { attentionParams, attentionParts, decodeAttentionCost, saved } from "./theory.mjs";
import { range } from "../ui/dom.mjs";
import { rect, svg, text } from "./draw.mjs";
import { count, digits, unit } from "./numbers.mjs";

const MAX_HEADS = 512;
const shape = (n_head, n_kv_head, head_dim, n_embd, n_keys) => ({
  n_head,
  n_kv_head,
  head_dim,
  n_embd,
  n_keys,
});
const powers = (from, to) => range(to - from + 1, (i) => 2 ** (from + i));

export const cost = {
  name: "Cost explorer",
  controls: [
    // only what is possible: a step never meets an h that h_kv does not divide
    {
      key: "n_head",
      label: "h, output heads",
      whole: true,
      low: 1,
      high: MAX_HEADS,
      steps: ({ n_kv_head }) => range(64, (i) => n_kv_head * (i + 1)).filter((h) => h <= MAX_HEADS),
    },
    {
      key: "n_kv_head",
      label: "h_kv, key/value heads",
      whole: true,
      low: 1,
      high: MAX_HEADS,
      steps: ({ n_head }) => range(n_head, (i) => i + 1).filter((kv) => n_head % kv === 0),
    },
    {
      key: "head_dim",
      label: "d, size of a head",
      whole: true,
      low: 2,
      high: 1024,
      steps: () => range(16, (i) => 16 * (i + 1)),
    },
    {
      key: "n_embd",
      label: "D, width of the model",
      whole: true,
      low: 1,
      high: 65536,
      word: count,
      steps: () => range(64, (i) => 128 * (i + 1)),
    },
    {
      key: "n_keys",
      label: "n, tokens in the cache",
      whole: true,
      low: 1,
      high: 2 ** 24,
      word: count,
      steps: () => powers(10, 20),
    },
  ],
  scenes: {
    "A large model": shape(32, 8, 128, 4096, 8192),
    "No grouping: h_kv = h": shape(32, 32, 128, 4096, 8192),
    "One key/value head": shape(32, 1, 128, 4096, 8192),
    "This course's model": shape(4, 2, 32, 128, 1024),
  },
  check({ n_head: h, n_kv_head: kv, head_dim: d }) {
    if (d % 2) return `d = ${d} must be even: RoPE turns pairs of channels`;
    if (h % kv)
      return `h = ${h} must be a multiple of h_kv = ${kv}, or a pair straddles two groups`;
    return null;
  },
  draw: (s) => weights(rowsOf(s)) + decoding(rowsOf(s), s) + words(s),
};

function rowsOf({ n_head: h, n_kv_head: kv, head_dim: d, n_embd: D, n_keys: n }) {
  const models = [
    ["softmax, h", 1],
    ["softmax, 1.5h", 1.5],
    ["softmax, 2h", 2],
    ["DIFF V2", 1],
  ];
  return models.map(([name, factor]) => {
    const diff = name === "DIFF V2",
      parts = attentionParts(D, factor * h, kv, d, diff);
    const [operations, bytes] = decodeAttentionCost(n, factor * h * (diff ? 2 : 1), kv, d);
    const all = attentionParams(D, factor * h, kv, d, diff);
    return { name, kind: diff ? "diff" : "softmax", parts, weights: all, operations, bytes };
  });
}

const most = (rows, what) => Math.max(...rows.map((row) => row[what]));
const title = (x, words) => text(x, 18, words, { anchor: "start", kind: "title" });

function weights(rows) {
  let out = title(0, "Weights of one layer");
  for (const [i, row] of rows.entries()) {
    const y = 34 + 52 * i;
    out += text(112, y + 18, row.name, { anchor: "end", kind: row.kind, size: 14 });
    let x = 118;
    for (const [part, look] of [
      ["q", ""],
      ["o", "faint"],
      ["kv", ""],
      ["lambda", ""],
    ]) {
      const width = (300 * row.parts[part]) / most(rows, "weights");
      out += rect(x, y, width - 1, 26, part === "kv" ? "shared" : `${row.kind} ${look}`);
      if (width > 18)
        out += text(x + width / 2, y + 41, part === "kv" ? "k, v" : part, {
          kind: "soft",
          size: 13,
        });
      x += width;
    }
    out += text(x + 6, y + 18, unit(row.weights), { anchor: "start", size: 14 });
  }
  return svg(
    240,
    `Weights: ${rows.map((row) => `${row.name} ${unit(row.weights)}`).join(", ")}`,
    out,
  );
}

function decoding(rows, { n_keys }) {
  let out = title(0, `To decode one token after ${count(n_keys)}`);
  const columns = [
    ["operations", 118, "operations", ""],
    ["bytes", 316, "bytes read", "B"],
  ];
  for (const [i, row] of rows.entries()) {
    const y = 34 + 52 * i;
    out += text(112, y + 18, row.name, { anchor: "end", kind: row.kind, size: 14 });
    for (const [what, left, label, suffix] of columns) {
      const width = (98 * row[what]) / most(rows, what);
      out += rect(left, y, width, 26, row.kind);
      out += text(left + width + 6, y + 18, unit(row[what]) + suffix, {
        anchor: "start",
        size: 14,
      });
      if (i === rows.length - 1)
        out += text(left, y + 44, label, { anchor: "start", kind: "soft" });
    }
  }
  const said = rows.map(
    (row) => `${row.name} ${unit(row.operations)} operations, ${unit(row.bytes)}B`,
  );
  return svg(240, `Decoding: ${said.join("; ")}`, out);
}

function words({ n_head: h, n_kv_head: kv, head_dim: d, n_embd: D, n_keys: n }) {
  const against = (factor) => {
    const share = saved(D, h, kv, d, factor);
    return `<b>${Math.abs(100 * share).toFixed(2)}% ${share < 0 ? "more" : "fewer"}</b>`;
  };
  const [operations, bytes] = decodeAttentionCost(n, 2 * h, kv, d);
  const bound = operations / bytes < 150 ? "reading the cache takes longest" : "arithmetic counts";
  return `<p class="told">DIFF V2 has ${against(2)} attention weights than softmax with 2h heads,
    ${against(1.5)} than with 1.5h, and ${against(1)} than with h. To decode a token it reads the same
    cache as all of them and does ${digits(operations / bytes)} operations for each byte (16-bit numbers).
    A GPU can do hundreds in the time of one byte: here ${bound}.</p>`;
}
