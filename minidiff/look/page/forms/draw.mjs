// Drawing: strings of SVG, whose classes get their colours from form.css.

const escape = (text) => String(text).replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);

/** One picture, 500 wide, with a name for those who hear it. */
export const svg = (height, name, body, role = "img", width = 500) =>
  `<svg viewBox="0 0 ${width} ${height}" role="${role}" aria-label="${escape(name)}">${body}</svg>`;
export const text = (x, y, words, { anchor = "middle", kind = "", turn = 0, size = 15 } = {}) =>
  `<text x="${x}" y="${y}" text-anchor="${anchor}" font-size="${size}" class="${kind}"` +
  `${turn ? ` transform="rotate(${turn} ${x} ${y})"` : ""}>${escape(words)}</text>`;
export const rect = (x, y, width, height, kind) =>
  `<rect x="${x}" y="${y}" width="${Math.max(0, width)}" height="${Math.max(0, height)}" class="${kind}"/>`;
const list = (points) => points.map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`).join(" ");
export const line = (points, kind) => `<polyline points="${list(points)}" class="${kind}"/>`;
export const area = (points, kind) => `<polygon points="${list(points)}" class="${kind}"/>`;
export const dot = (x, y, kind, radius = 8, more = "") =>
  `<circle cx="${x.toFixed(1)}" cy="${y.toFixed(1)}" r="${radius}" class="${kind}" ${more}/>`;
