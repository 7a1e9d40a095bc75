// The RMS explorer and the cost explorer. widgets.py puts theory.js in front of this file and hands
// the whole to anywidget, or to a page that has no kernel at all.
//
// An explorer is a table of controls, a check of their values, and a picture drawn from them.

const BLUE = "#0072B2", RED = "#D55E00", GREY = "#9a9a9a", INK = "#222"; // as in plots.py
const STYLE = `
.minidiff { background: #fff; color: ${INK}; font: 16px/1.4 sans-serif; padding: 12px; max-width: 1100px }
.minidiff .controls { display: grid; grid-template-columns: 1fr 1fr; gap: 6px 32px }
.minidiff label { display: grid; grid-template-columns: 13em 1fr 5.5em; gap: 10px; align-items: center }
.minidiff input { accent-color: ${RED}; font: inherit; min-width: 0 }
.minidiff input[type=checkbox] { width: 20px; height: 20px }
.minidiff button { font: inherit; margin: 0 8px 10px 0; padding: 4px 12px; cursor: pointer }
.minidiff .message { color: #b00020; font-weight: bold; min-height: 1.4em; margin: 6px 0 }
.minidiff .stale { opacity: 0.25 }
.minidiff svg { width: 100%; display: block; font-family: sans-serif }
.minidiff table { border-collapse: collapse; margin-top: 6px }
.minidiff td, .minidiff th { padding: 3px 22px 3px 0; text-align: left }`;

// ---- Controls: the same for both explorers -----------------------------------------------------

// Build an explorer into an element. `start` holds a value for each control's key.
export function explore(el, { controls, scenes, check, draw }, start) {
  const control = ({ key, label, steps }) =>
    steps
      ? `<label><span>${label}</span>
         <input type="range" data-key="${key}" min="0" max="${steps.length - 1}" aria-label="${label}"
                data-lm-suppress-shortcuts="true">
         <input type="text" data-key="${key}" inputmode="decimal" aria-label="${label}, exact value"
                data-lm-suppress-shortcuts="true"></label>`
      : `<label><span>${label}</span>
         <input type="checkbox" data-key="${key}" data-lm-suppress-shortcuts="true"></label>`;
  const buttons = Object.keys(scenes).map((name) => `<button type="button">${name}</button>`);
  el.innerHTML = `<div class="minidiff"><style>${STYLE}</style><div>${buttons.join("")}</div>
    <div class="controls">${controls.map(control).join("")}</div>
    <p class="message" role="alert"></p><div class="picture"></div></div>`;
  const [message, picture] = [".message", ".picture"].map((name) => el.querySelector(name));
  const state = { ...start };

  // Show the state; `typing` is the text box that the reader is in, which we must not rewrite.
  function show(typing) {
    for (const { key, steps } of controls) {
      const [slider, box] = el.querySelectorAll(`[data-key=${key}]`);
      if (!steps) slider.checked = state[key];
      else slider.value = nearest(steps, state[key]);
      if (box && box !== typing) box.value = state[key];
    }
    message.textContent = check(state) ?? "";
    picture.classList.toggle("stale", message.textContent !== "");
    if (message.textContent === "") picture.innerHTML = draw(state);
  }
  el.addEventListener("input", ({ target }) => {
    const { steps } = controls.find(({ key }) => key === target.dataset.key);
    if (target.type === "checkbox") state[target.dataset.key] = target.checked;
    else if (target.type === "range") state[target.dataset.key] = steps[target.value];
    else state[target.dataset.key] = target.value.trim() === "" ? NaN : Number(target.value);
    show(target);
  });
  el.addEventListener("click", ({ target }) => {
    if (target.type === "button") show(void Object.assign(state, scenes[target.textContent]));
  });
  show();
}

const nearest = (steps, value) =>
  steps.reduce((best, step, i) => (Math.abs(step - value) < Math.abs(steps[best] - value) ? i : best), 0);
const range = (count, f) => Array.from({ length: count }, (_, i) => f(i));
const wrong = (value, low, high, whole = false) =>
  !(value >= low && value <= high) || (whole && !Number.isInteger(value));

// ---- Drawing: strings of SVG -------------------------------------------------------------------

const show3 = (value) => (value === 0 ? "0" : String(Number(value.toPrecision(3))));
const text = (x, y, s, { anchor = "middle", fill = INK, size = 16, turn = 0, bold = false } = {}) =>
  `<text x="${x}" y="${y}" text-anchor="${anchor}" fill="${fill}" font-size="${size}"` +
  `${bold ? ' font-weight="bold"' : ""} transform="rotate(${turn} ${x} ${y})">${s}</text>`;
const line = (points, stroke, extra = 'stroke-width="3"') =>
  `<polyline points="${points.join(" ")}" fill="none" stroke="${stroke}" ${extra}/>`;
const area = (points, fill) => `<polygon points="${points.join(" ")}" fill="${fill}"/>`;
const rect = (x, y, width, height, fill, opacity = 1) =>
  `<rect x="${x}" y="${y}" width="${width}" height="${height}" fill="${fill}" opacity="${opacity}"/>`;
const TITLE = { anchor: "start", size: 18, bold: true };
const START = { anchor: "start", size: 15 };
const unit = (value) => {
  const k = Math.max(0, Math.floor(Math.log10(value) / 3));
  return `${Number((value / 1000 ** k).toPrecision(4))} ${["", "k", "M", "G", "T"][k]}`;
};
const svg = (height, body) => `<svg viewBox="0 0 1000 ${height}" role="img">${body}</svg>`;
const logScale = (low, high, from, to) => (value) =>
  from + ((to - from) * Math.log(Math.min(Math.max(value, low), high) / low)) / Math.log(high / low);

// ---- The RMS explorer --------------------------------------------------------------------------

const MAX_N = 16384;
const fractions = range(51, (i) => i / 50);
const gaps = range(57, (i) => i / 4);

const rms = {
  controls: [
    { key: "n", label: "n, tokens the query sees", steps: range(14, (i) => 2 ** (i + 1)) },
    { key: "lam", label: "λ", steps: fractions },
    { key: "gap1", label: "peak of A1 (logit gap)", steps: gaps },
    { key: "rho", label: "ρ, correlation of values", steps: fractions },
    { key: "gap2", label: "peak of A2 (logit gap)", steps: gaps },
    { key: "same", label: "both peak at token A" },
  ],
  scenes: {
    "Nothing stands out": { n: 1024, gap1: 0, gap2: 0, lam: 0.5, rho: 0, same: true },
    "Two equal maps": { n: 1024, gap1: 6, gap2: 6, lam: 0.5, rho: 0, same: true },
    "Two different tokens": { n: 1024, gap1: 14, gap2: 14, lam: 1, rho: 0, same: false },
    "Values with a shared part": { n: 1024, gap1: 4, gap2: 0, lam: 0.9, rho: 0.3, same: true },
  },
  check({ n, gap1, gap2, lam, rho }) {
    if (wrong(n, 2, MAX_N, true)) return `n must be a whole number from 2 to ${MAX_N}`;
    if (wrong(gap1, 0, 14) || wrong(gap2, 0, 14)) return "a logit gap must be a number from 0 to 14";
    if (wrong(lam, 0, 1)) return "λ must be a number from 0 to 1, where a sigmoid puts it";
    if (wrong(rho, 0, 1)) return "ρ must be a number from 0 (unrelated values) to 1 (equal values)";
    return null;
  },
  draw: (s) => svg(430, weightBars(s) + rmsCurves(s)) + rmsTable(s),
};

const rowsAt = ({ gap1, gap2, lam, same }, n) => ({
  softmax: differenceRow(n, gap1, gap2, 0, same),
  diff: differenceRow(n, gap1, gap2, lam, same),
});

function weightBars(s) {
  const { softmax, diff } = rowsAt(s, s.n);
  const y = (value) => 210 - 130 * value;
  const names = [...["token A", "token B"].slice(0, s.same ? 1 : 2)];
  const rest = s.n - names.length;
  const width = 320 / (rest ? names.length + 1 : names.length);
  let out = text(70, 24, `Weights of one query, n = ${s.n}`, TITLE);
  for (const tick of [-1, -0.5, 0, 0.5, 1])
    out += line([[70, y(tick)], [400, y(tick)]], tick ? "#e4e4e4" : INK, "") +
      text(62, y(tick) + 5, tick, { anchor: "end" });
  for (const [i, [weight, count]] of diff.entries()) {
    if (!count) continue;
    const a1 = count * softmax[i][0], w = count * weight, left = 76 + i * width;
    for (const [j, value] of [a1, a1 - w, w].entries()) {
      const x = left + 8 + (j * (width - 24)) / 3, bar = (width - 24) / 3 - 4;
      out += rect(x, Math.min(y(0), y(value)), bar, Math.abs(y(value) - y(0)), [BLUE, GREY, RED][j]);
      out += text(x + bar / 2, y(value) + (value < 0 ? 17 : -5), value.toFixed(2), { size: 14 });
    }
    out += text(left + width / 2 - 6, 366, names[i] ?? `other ${rest} together`);
  }
  ["A1 (softmax)", "λ A2", "A1 − λ A2"].forEach((label, j) => {
    const x = [76, 212, 290][j];
    out += rect(x, 392, 16, 16, [BLUE, GREY, RED][j]) + text(x + 22, 406, label, { anchor: "start" });
  });
  return out;
}

function rmsCurves(s) {
  const x = logScale(2, MAX_N, 500, 920), y = logScale(0.001, 2, 350, 45);
  const ns = range(53, (i) => 2 ** (1 + i / 4));
  const curve = (f) => ns.map((n) => [x(n), y(f(n))]);
  const band = (lam, fill) =>
    area([...curve((n) => rmsBounds(n, lam, s.rho)[0]), ...curve((n) => rmsBounds(n, lam, s.rho)[1]).reverse()], fill);
  let out = text(500, 24, "Context RMS", TITLE);
  out += band(s.lam, "#f7dfcc") + band(null, "#cce2f0"); // softmax's range lies inside DIFF V2's
  for (const n of [4, 16, 64, 256, 1024, 4096, 16384]) out += text(x(n), 374, n, { size: 14 });
  for (const value of [0.001, 0.01, 0.1, 1])
    out += line([[500, y(value)], [920, y(value)]], "#888", 'opacity="0.35"') +
      text(492, y(value) + 5, value, { anchor: "end" }) +
      text(928, y(value) + 5, (1 / value ** 2).toLocaleString("en"), { anchor: "start", size: 14 });
  out += text(710, 404, "n, tokens the query sees") + text(444, 200, "context RMS", { turn: -90 });
  out += text(1000, 24, "effective tokens*", { anchor: "end", size: 15 });
  for (const [which, colour] of [["softmax", BLUE], ["diff", RED]]) {
    const at = (rho) => (n) => expectedRms(rowsAt(s, n)[which], rho);
    if (s.rho > 0) out += line(curve(at(0)), colour, 'stroke-width="2" stroke-dasharray="3 5"');
    out += line(curve(at(s.rho)), colour);
    out += `<circle cx="${x(s.n)}" cy="${y(at(s.rho)(s.n))}" r="9" fill="${colour}" stroke="#fff" stroke-width="2"/>`;
  }
  out += rect(512, 300, 16, 16, "#cce2f0") + text(534, 314, "softmax can be here", START);
  out += rect(512, 323, 16, 16, "#f7dfcc") + text(534, 337, "only DIFF V2 can", START);
  return out + text(920, 424, "* 1/|A1|², for the blue line at ρ = 0 (dotted when ρ > 0)", { anchor: "end", size: 14 });
}

function rmsTable(s) {
  const { softmax, diff } = rowsAt(s, s.n);
  const line = (name, colour, row, bounds, tokens) =>
    `<tr><th style="color:${colour}">${name}</th><td><b>${show3(expectedRms(row, s.rho))}</b></td>
     <td>${bounds.map(show3).join(" to ")}</td><td>${show3(sumOver(row, (w) => w))}</td><td>${tokens}</td></tr>`;
  return `<table><tr><th></th><th>context RMS</th><th>possible at this n</th><th>sum of weights</th>
    <th>effective tokens</th></tr>
    ${line("softmax", BLUE, softmax, rmsBounds(s.n, null, s.rho), show3(effectiveTokens(softmax)))}
    ${line("DIFF V2", RED, diff, rmsBounds(s.n, s.lam, s.rho), "")}</table>`;
}

// ---- The cost explorer -------------------------------------------------------------------------

const layer = (n_head, n_kv_head, head_dim, n_embd, n_keys) => ({ n_head, n_kv_head, head_dim, n_embd, n_keys });

const cost = {
  controls: [
    { key: "n_head", label: "h, output heads", steps: range(64, (i) => i + 1) },
    { key: "n_kv_head", label: "h_kv, key/value heads", steps: range(64, (i) => i + 1) },
    { key: "head_dim", label: "d, size of a head", steps: range(16, (i) => 16 * (i + 1)) },
    { key: "n_embd", label: "D, width of the model", steps: range(64, (i) => 128 * (i + 1)) },
    { key: "n_keys", label: "n, tokens in the cache", steps: range(11, (i) => 2 ** (i + 10)) },
  ],
  scenes: {
    "A large model": layer(32, 8, 128, 4096, 8192),
    "No grouping: h_kv = h": layer(32, 32, 128, 4096, 8192),
    "One key/value head": layer(32, 1, 128, 4096, 8192),
    "This course's model": layer(4, 2, 32, 128, 1024),
  },
  check({ n_head: h, n_kv_head: hKv, head_dim: d, n_embd: D, n_keys: n }) {
    const limits = { h: [h, 512], h_kv: [hKv, 512], d: [d, 1024], D: [D, 65536], n: [n, 2 ** 24] };
    for (const [name, [value, high]] of Object.entries(limits))
      if (wrong(value, 1, high, true)) return `${name} must be a whole number from 1 to ${high}`;
    if (d % 2) return `d = ${d} must be even: RoPE turns pairs of channels`;
    if (h % hKv)
      return `h = ${h} must be a multiple of h_kv = ${hKv}, or a pair of query heads straddles two groups`;
    return null;
  },
  draw: (s) => svg(290, costBars(s)) + costWords(s),
};

const MODELS = [["softmax, h heads", 1], ["softmax, 1.5h heads", 1.5], ["softmax, 2h heads", 2], ["DIFF V2", 1]];

function costBars({ n_head: h, n_kv_head: hKv, head_dim: d, n_embd: D, n_keys: n }) {
  const rows = MODELS.map(([name, factor]) => {
    const diff = name === "DIFF V2", shape = [D, factor * h, hKv, d, diff];
    const [operations, bytes] = decodeAttentionCost(n, factor * h * (diff ? 2 : 1), hKv, d);
    const parts = attentionParts(...shape), weights = attentionParams(...shape);
    return { name, colour: diff ? RED : BLUE, parts, weights, operations, bytes };
  });
  const length = (key, row, room) => (room * row[key]) / Math.max(...rows.map((r) => r[key]));
  let out = text(178, 24, "Weights of one layer", TITLE) + text(610, 24, "Decode: operations", TITLE);
  out += text(820, 24, "Decode: bytes", TITLE);
  for (const [i, row] of rows.entries()) {
    const y = 42 + 60 * i, middle = y + 29;
    out += text(168, middle, row.name, { anchor: "end", fill: row.colour, bold: true });
    let x = 178;
    for (const [part, label, opacity] of [["q", "q", 1], ["o", "o", 0.65], ["kv", "k v", 0.4], ["lambda", "", 1]]) {
      const width = (length("weights", row, 320) * row.parts[part]) / row.weights;
      out += rect(x, y, width, 46, row.colour, opacity);
      if (width > 24) out += text(x + width / 2, middle, label, { fill: opacity < 0.5 ? INK : "#fff" });
      x += width;
    }
    out += text(x + 6, middle, unit(row.weights), START);
    for (const [key, left] of [["operations", 610], ["bytes", 820]]) {
      const width = length(key, row, 105);
      out += rect(left, y, width, 46, row.colour);
      out += text(left + width + 6, middle, unit(row[key]) + (key === "bytes" ? "B" : ""), START);
    }
  }
  return out;
}

function costWords({ n_head: h, n_kv_head: hKv, head_dim: d, n_embd: D, n_keys: n }) {
  const compared = (factor) => {
    const share = saved(D, h, hKv, d, factor);
    return `<b>${Math.abs(100 * share).toFixed(1)}% ${share < 0 ? "more" : "fewer"}</b>`;
  };
  const [operations, bytes] = decodeAttentionCost(n, 2 * h, hKv, d);
  return `<p><b style="color:${RED}">DIFF V2</b> has ${compared(2)} attention weights than softmax
    with 2h heads, ${compared(1.5)} than with 1.5h, and ${compared(1)} than with h.<br>
    To decode a token it reads the same cache as all of them and does ${show3(operations / bytes)}
    operations for each byte (16-bit numbers). A GPU can do hundreds in that time: the cache decides.</p>`;
}

const EXPLORERS = { rms, cost };
export default {
  render: ({ model, el }) => explore(el, EXPLORERS[model.get("name")], model.get("start")),
};
