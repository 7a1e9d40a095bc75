// The cards as one SVG, to be saved; and as PNG. Made from the numbers, not from the screen, so it
// looks the same from a phone, a notebook and a dark room.

import { quoted, sign } from "./bytes.mjs";
import { css, inkOn, tint } from "./colour.mjs";
import { fixed, percent, range } from "./dom.mjs";

const WIDTH = 1000,
  LEFT = 120,
  CELL = 17,
  ROW = 30,
  COLUMNS = Math.floor((WIDTH - LEFT - 20) / CELL);
const HUES = { softmax: "#00619a", diff_v2: "#a64900" };
const LINES = {
  softmax: { weights: "A" },
  diff_v2: { a1: "A₁", minus: "− λA₂", weights: "= A₁ − λA₂" },
};
const escape = (text) => text.replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);
const text = (x, y, words, more = "") => `<text x="${x}" y="${y}" ${more}>${escape(words)}</text>`;

/** The picture of a page's state: one block for each model. */
export function picture({ voices, query, state }) {
  let y = 40;
  const parts = [];
  for (const voice of voices) {
    const { tokens } = voice.seen,
      at = Math.min(query, tokens.length - 1),
      { layer, head } = voice.place;
    const off = state.wheels[voice.key]?.off[layer * voice.heads + head] ? ", switched off" : "";
    const lam = voice.kind === "diff_v2" ? voice.number("lam", at) : 0;
    const held =
      (state.wheels[voice.key]?.lam[layer * voice.heads + head] ?? null) !== null ? " (held)" : "";
    const numbers = `${voice.kind === "diff_v2" ? `λ ${fixed(lam)}${held}, ` : ""}context RMS ${fixed(voice.number("rms", at))}`;
    parts.push(
      text(20, y, voice.title, `font-weight="bold" font-size="19" fill="${HUES[voice.kind]}"`),
    );
    parts.push(
      text(
        LEFT + 60,
        y,
        `layer ${layer}, head ${head}${off}: where ${quoted(tokens[at])} looks; ${numbers}`,
      ),
    );
    y += 14;
    for (const [name, label] of Object.entries(LINES[voice.kind])) {
      const row = name === "minus" ? voice.row("a2", at).map((a) => -lam * a) : voice.row(name, at);
      parts.push(text(LEFT - 12, y + 21, label, 'text-anchor="end" font-style="italic"'));
      for (const i of range(tokens.length)) {
        const x = LEFT + (i % COLUMNS) * CELL,
          top = y + Math.floor(i / COLUMNS) * ROW;
        const rgb = i <= at ? tint(row[i], voice.kind, "light") : [255, 255, 255];
        const frame = i === at ? 'stroke="#1d1f23" stroke-width="2"' : "";
        parts.push(
          `<rect x="${x}" y="${top + 2}" width="${CELL}" height="${ROW - 4}" fill="${css(rgb).replaceAll(" ", ",")}" ${frame}/>`,
        );
        const size = sign(tokens[i]).length > 1 ? 8 : 16,
          ink = i <= at ? inkOn(rgb) : "#5a5f69";
        parts.push(
          text(
            x + CELL / 2,
            top + 21,
            sign(tokens[i]),
            `text-anchor="middle" font-family="monospace" font-size="${size}" fill="${ink}"`,
          ),
        );
      }
      y += ROW * Math.ceil(tokens.length / COLUMNS) + 4;
    }
    const { loss, first } = voice.summary();
    parts.push(
      text(
        LEFT,
        y + 16,
        `on ${state.bos ? "BOS" : "the first byte"}: ${percent(voice.row("weights", at)[0])}; the largest share of a head: ${percent(first)}; loss on this prompt: ${fixed(loss, 3)}`,
        'font-size="13" fill="#5a5f69"',
      ),
    );
    y += 58;
  }
  return (
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${y}" width="${WIDTH}" height="${y}" font-family="sans-serif" font-size="15" fill="#1d1f23">` +
    `<rect width="100%" height="100%" fill="#fff"/>${parts.join("")}</svg>`
  );
}

/** An SVG's text -> a PNG blob, twice as large. */
export async function toPng(svg) {
  const image = new Image();
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(svg)}`;
  await image.decode();
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [2 * image.naturalWidth, 2 * image.naturalHeight];
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}

/** Offer a blob or text as a file. */
export function save(content, name, type) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([content], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
