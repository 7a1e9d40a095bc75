// The RMS explorer and the cost explorer; tokens.js adds a third. widgets.py puts theory.js in front
// of them, and the whole into the output of a notebook's cell, which then needs no kernel.
//
// An explorer is a table of controls, a check of their values, and a picture drawn from them.

const BLUE = "#0072B2", RED = "#D55E00", GREY = "#9a9a9a", INK = "#222"; // as in plots.py
const BLUE_TINT = "#cce2f0", RED_TINT = "#f7dfcc";
const STYLE = `
.minidiff { background: #fff; color: ${INK}; font: 16px/1.4 sans-serif; padding: 8px 12px;
            max-width: 1000px }
.minidiff .inputs { display: grid; gap: 4px 32px;
                      grid-template-columns: repeat(auto-fit, minmax(min(100%, 22em), 1fr)) }
.minidiff label { display: grid; grid-template-columns: minmax(7em, 13em) minmax(6em, 1fr) 5.5em;
                  gap: 10px; align-items: center }
.minidiff .panels { display: grid; gap: 4px 12px;
                    grid-template-columns: repeat(auto-fit, minmax(190px, 1fr)) }
.minidiff p { margin: 4px 0 }
.minidiff input { accent-color: ${RED}; font: inherit; min-width: 0 }
.minidiff input[type=checkbox] { width: 20px; height: 20px }
.minidiff button { font: inherit; margin: 0 8px 6px 0; padding: 2px 12px; cursor: pointer }
.minidiff .message { color: #b00020; font-weight: bold; min-height: 1.4em; margin: 0 }
.minidiff .stale { opacity: 0.25 }
.minidiff svg { width: 100%; max-height: 345px; display: block; font-family: sans-serif }
.minidiff table { display: block; overflow-x: auto; border-collapse: collapse; margin-top: 6px }
.minidiff td, .minidiff th { padding: 3px 22px 3px 0; text-align: left }`;

// ---- Controls: the same for all explorers ------------------------------------------------------

// JupyterLab takes keys for itself (arrows; a, b, d d) unless what has the focus carries this.
const OURS = 'data-lm-suppress-shortcuts="true"';

// Build an explorer into an element. `start` holds a value for each control's key.
export function explore(el, { controls, scenes, check, draw }, start) {
  const control = ({ key, label, steps }) =>
    `<label><span>${label}</span>` +
    (steps
      ? `<input type="range" min="0" max="${steps.length - 1}" data-key="${key}" ${OURS}>
         <input type="text" inputmode="decimal" data-key="${key}" aria-label="${label}" ${OURS}>`
      : `<input type="checkbox" data-key="${key}" ${OURS}>`) +
    `</label>`;
  const buttons = Object.keys(scenes).map(
    (name) => `<button type="button" ${OURS}>${name}</button>`,
  );
  el.innerHTML = `<div class="minidiff"><style>${STYLE}</style><div>${buttons.join("")}</div>
    <div class="inputs">${controls.map(control).join("")}</div>
    <p class="message" role="alert"></p><div class="picture"></div></div>`;
  const [message, picture] = [".message", ".picture"].map((name) => el.querySelector(name));
  const state = { ...start };

  // Show the state; `typing` is the box that the reader is in, which must not be rewritten.
  function show(typing) {
    for (const { key, steps } of controls) {
      const [input, box] = el.querySelectorAll(`[data-key=${key}]`);
      if (steps) input.value = nearest(steps, state[key]);
      else input.checked = state[key];
      if (steps) input.setAttribute("aria-valuetext", shown(state[key]));
      if (box && box !== typing && !Number.isNaN(state[key])) box.value = shown(state[key]);
    }
    const problem = check(state);
    message.textContent = problem ?? "";
    picture.classList.toggle("stale", problem !== null);
    if (problem === null) picture.innerHTML = draw(state);
  }
  el.addEventListener("input", ({ target }) => {
    const { key, steps } = controls.find((one) => one.key === target.dataset.key);
    if (target.type === "checkbox") state[key] = target.checked;
    else if (target.type === "range") state[key] = steps[target.value];
    else state[key] = target.value.trim() ? Number(target.value.replace(",", ".")) : NaN;
    show(target);
  });
  el.addEventListener("click", ({ target }) => {
    if (target.type === "button") Object.assign(state, scenes[target.textContent]);
    if (target.type === "button") show();
  });
  show();
}

const shown = (value) => (typeof value === "number" ? String(Number(value.toFixed(3))) : value);
const range = (count, f) => Array.from({ length: count }, (_, i) => f(i));
const nearest = (steps, value) => {
  const distance = steps.map((step) => Math.abs(step - value));
  return Math.max(0, distance.indexOf(Math.min(...distance)));
};
const wrong = (value, low, high, whole = false) =>
  !(value >= low && value <= high) || (whole && !Number.isInteger(value));

// ---- Drawing: strings of SVG -------------------------------------------------------------------

const TITLE = { anchor: "start", size: 18, bold: true };
const LEFT = { anchor: "start", size: 15 };
const RIGHT = { anchor: "end", size: 15 };
const text = (x, y, s, { anchor = "middle", fill = INK, size = 16, turn = 0, bold = false } = {}) =>
  `<text x="${x}" y="${y}" text-anchor="${anchor}" fill="${fill}" font-size="${size}"` +
  `${bold ? ' font-weight="bold"' : ""} transform="rotate(${turn} ${x} ${y})">${s}</text>`;
const line = (points, stroke, extra = 'stroke-width="3"') =>
  `<polyline points="${points.join(" ")}" fill="none" stroke="${stroke}" ${extra}/>`;
const area = (points, fill) => `<polygon points="${points.join(" ")}" fill="${fill}"/>`;
const rect = (x, y, width, height, fill, opacity = 1) =>
  `<rect x="${x}" y="${y}" width="${width}" height="${height}" fill="${fill}"` +
  ` opacity="${opacity}"/>`;
const svg = (height, name, body) =>
  `<svg viewBox="0 0 1000 ${height}" role="img" aria-label="${name}">${body}</svg>`;
const swatch = (x, y, fill, label) =>
  rect(x - 1, y - 1, 18, 18, "#888") + rect(x, y, 16, 16, fill) + text(x + 22, y + 14, label, LEFT);
const logScale = (low, high, from, to) => (value) => {
  const inside = Math.min(Math.max(value, low), high);
  return from + ((to - from) * Math.log(inside / low)) / Math.log(high / low);
};
const digits3 = (value) => String(Number(value.toPrecision(3)));
const signed = (value) =>
  Math.abs(value) < 0.005 ? "0" : value.toFixed(2).replace("-", "−");
const unit = (value) => {
  const k = Math.max(0, Math.floor(Math.log10(value) / 3));
  return `${Number((value / 1000 ** k).toPrecision(4))} ${["", "k", "M", "G", "T"][k]}`;
};

// ---- The RMS explorer --------------------------------------------------------------------------

const MAX_N = 16384, MAX_GAP = 14;
const fractions = range(51, (i) => i / 50);
const gaps = range(4 * MAX_GAP + 1, (i) => i / 4);
const scene = (n, gap1, gap2, lam, rho, same) => ({ n, gap1, gap2, lam, rho, same });

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
    "Nothing stands out": scene(1024, 0, 0, 0.5, 0, true),
    "Two equal maps": scene(1024, 6, 6, 0.5, 0, true),
    "Two different tokens": scene(1024, 14, 14, 1, 0, false),
    "Values with a shared part": scene(1024, 4, 0, 0.9, 0.3, true),
  },
  check({ n, gap1, gap2, lam, rho }) {
    if (wrong(n, 2, MAX_N, true)) return `n must be a whole number from 2 to ${MAX_N}`;
    if (wrong(gap1, 0, MAX_GAP) || wrong(gap2, 0, MAX_GAP))
      return `a logit gap must be a number from 0 (uniform) to ${MAX_GAP}`;
    if (wrong(lam, 0, 1)) return "λ must be a number from 0 to 1, where a sigmoid puts it";
    if (wrong(rho, 0, 1)) return "ρ must be a number from 0 (unrelated values) to 1 (equal ones)";
    return null;
  },
  draw: (s) => svg(430, "Weights and context RMS", weightBars(s) + rmsCurves(s)) + rmsTable(s),
};

// softmax is A1 alone, which is the difference at lambda = 0
const rowAt = ({ gap1, gap2, same }, n, lam) => differenceRow(n, gap1, gap2, lam, same);

function weightBars(s) {
  const softmax = rowAt(s, s.n, 0), diff = rowAt(s, s.n, s.lam);
  const names = s.same ? ["token A"] : ["token A", "token B"];
  const colours = [BLUE, GREY, RED], rest = s.n - names.length;
  const group = 320 / (names.length + (rest > 0)), bar = (group - 24) / 3;
  const y = (value) => 205 - 130 * value;
  let out = text(70, 24, `Weights of one query, n = ${s.n}`, TITLE);
  for (const tick of [-1, -0.5, 0, 0.5, 1]) {
    out += line([[70, y(tick)], [400, y(tick)]], tick ? "#e4e4e4" : INK, "");
    out += text(62, y(tick) + 5, String(tick).replace("-", "−"), RIGHT);
  }
  for (const [i, [weight, count]] of diff.entries()) {
    if (!count) continue;
    const a1 = count * softmax[i][0], difference = count * weight, left = 78 + i * group;
    for (const [j, value] of [a1, a1 - difference, difference].entries()) {
      const x = left + j * bar, top = Math.min(y(0), y(value));
      out += rect(x + 2, top, bar - 4, Math.abs(y(value) - y(0)), colours[j]);
      out += text(x + bar / 2, y(value) + (value < 0 ? 17 : -5), signed(value), { size: 14 });
    }
    out += text(left + (3 * bar) / 2, 376, names[i] ?? `other ${rest} together`);
  }
  out += swatch(78, 400, BLUE, "A1 (softmax)") + swatch(214, 400, GREY, "λ A2");
  return out + swatch(292, 400, RED, "A1 − λ A2");
}

function rmsCurves(s) {
  const x = logScale(2, MAX_N, 500, 920), y = logScale(0.001, 2, 345, 45);
  const ns = range(53, (i) => 2 ** (1 + i / 4));
  const curve = (f) => ns.map((n) => [x(n), y(f(n))]);
  const band = (lam, fill) => {
    const [low, high] = [0, 1].map((end) => curve((n) => rmsBounds(n, lam, s.rho)[end]));
    return area([...low, ...high.reverse()], fill);
  };
  let out = text(500, 24, "Context RMS", TITLE) + text(1000, 24, "effective tokens*", RIGHT);
  out += band(s.lam, RED_TINT) + band(null, BLUE_TINT); // softmax's range lies inside DIFF V2's
  for (const n of [4, 16, 64, 256, 1024, 4096, 16384]) out += text(x(n), 368, n, { size: 14 });
  for (const value of [0.001, 0.01, 0.1, 1]) {
    out += line([[500, y(value)], [920, y(value)]], "#888", 'opacity="0.35"');
    out += text(492, y(value) + 5, value, RIGHT);
    out += text(928, y(value) + 5, (1 / value ** 2).toLocaleString("en"), { ...LEFT, size: 14 });
  }
  for (const [lam, colour, radius] of [[0, BLUE, 11], [s.lam, RED, 8]]) {
    const at = (rho) => (n) => expectedRms(rowAt(s, n, lam), rho);
    if (s.rho > 0) out += line(curve(at(0)), colour, 'stroke-width="2" stroke-dasharray="3 5"');
    out += line(curve(at(s.rho)), colour);
    out += `<circle cx="${x(s.n)}" cy="${y(at(s.rho)(s.n))}" r="${radius}" fill="${colour}"
            stroke="#fff" stroke-width="2"/>`;
  }
  out += swatch(512, 296, BLUE_TINT, "softmax can be here");
  out += swatch(512, 320, RED_TINT, "only DIFF V2 can");
  out += text(444, 195, "context RMS", { turn: -90 }) + text(710, 396, "n, tokens the query sees");
  return out + text(1000, 422, "* 1/|A1|²: where the blue line is at ρ = 0 (dotted)", RIGHT);
}

function rmsTable(s) {
  const entry = (name, colour, row, bounds, tokens) =>
    `<tr><th style="color:${colour}">${name}</th><td><b>${digits3(expectedRms(row, s.rho))}</b></td>
     <td>${bounds.map(digits3).join(" to ")}</td><td>${digits3(sumOver(row, (w) => w))}</td>
     <td>${tokens}</td></tr>`;
  const softmax = rowAt(s, s.n, 0), diff = rowAt(s, s.n, s.lam);
  const heads = ["", "context RMS", "possible at this n", "sum of weights", "effective tokens"];
  const tokens = digits3(effectiveTokens(softmax));
  return `<table><tr>${heads.map((head) => `<th>${head}</th>`).join("")}</tr>
    ${entry("softmax", BLUE, softmax, rmsBounds(s.n, null, s.rho), tokens)}
    ${entry("DIFF V2", RED, diff, rmsBounds(s.n, s.lam, s.rho), "")}</table>`;
}

// ---- The cost explorer -------------------------------------------------------------------------

const shape = (n_head, n_kv_head, head_dim, n_embd, n_keys) =>
  ({ n_head, n_kv_head, head_dim, n_embd, n_keys });

const cost = {
  controls: [
    { key: "n_head", label: "h, output heads", steps: range(64, (i) => i + 1) },
    { key: "n_kv_head", label: "h_kv, key/value heads", steps: range(64, (i) => i + 1) },
    { key: "head_dim", label: "d, size of a head", steps: range(16, (i) => 16 * (i + 1)) },
    { key: "n_embd", label: "D, width of the model", steps: range(64, (i) => 128 * (i + 1)) },
    { key: "n_keys", label: "n, tokens in the cache", steps: range(11, (i) => 2 ** (i + 10)) },
  ],
  scenes: {
    "A large model": shape(32, 8, 128, 4096, 8192),
    "No grouping: h_kv = h": shape(32, 32, 128, 4096, 8192),
    "One key/value head": shape(32, 1, 128, 4096, 8192),
    "This course's model": shape(4, 2, 32, 128, 1024),
  },
  check({ n_head: h, n_kv_head: hKv, head_dim: d, n_embd: D, n_keys: n }) {
    const limits = [["h", h, 512], ["h_kv", hKv, 512], ["d", d, 1024], ["D", D, 65536]];
    for (const [name, value, high] of [...limits, ["n", n, 2 ** 24]])
      if (wrong(value, 1, high, true)) return `${name} must be a whole number from 1 to ${high}`;
    if (d % 2) return `d = ${d} must be even: RoPE turns pairs of channels`;
    if (h % hKv)
      return `h = ${h} must be a multiple of h_kv = ${hKv}, or a pair straddles two groups`;
    return null;
  },
  draw: (s) => svg(290, "Weights of a layer, and decoding", costBars(s)) + costWords(s),
};

function costBars({ n_head: h, n_kv_head: hKv, head_dim: d, n_embd: D, n_keys: n }) {
  const softmax = [["softmax, h heads", 1], ["softmax, 1.5h heads", 1.5], ["softmax, 2h heads", 2]];
  const rows = [...softmax, ["DIFF V2", 1]].map(([name, factor]) => {
    const diff = name === "DIFF V2", parts = attentionParts(D, factor * h, hKv, d, diff);
    const [operations, bytes] = decodeAttentionCost(n, factor * h * (diff ? 2 : 1), hKv, d);
    const weights = attentionParams(D, factor * h, hKv, d, diff);
    return { name, colour: diff ? RED : BLUE, parts, weights, operations, bytes };
  });
  const length = (what, row, room) => (room * row[what]) / Math.max(...rows.map((r) => r[what]));
  let out = text(178, 24, "Weights of one layer", TITLE) + text(820, 24, "Decode: bytes", TITLE);
  out += text(610, 24, "Decode: operations", TITLE);
  for (const [i, row] of rows.entries()) {
    const y = 42 + 60 * i, middle = y + 29;
    out += text(168, middle, row.name, { anchor: "end", fill: row.colour, bold: true });
    let x = 178;
    for (const [part, opacity] of [["q", 1], ["o", 0.65], ["kv", 0.4], ["lambda", 1]]) {
      const width = (length("weights", row, 320) * row.parts[part]) / row.weights;
      out += rect(x, y, width, 46, row.colour, opacity);
      const fill = opacity < 0.5 ? INK : "#fff";
      if (width > 24) out += text(x + width / 2, middle, part === "kv" ? "k v" : part, { fill });
      x += width;
    }
    out += text(x + 6, middle, unit(row.weights), LEFT);
    for (const [what, left, suffix] of [["operations", 610, ""], ["bytes", 820, "B"]]) {
      const width = length(what, row, 105);
      out += rect(left, y, width, 46, row.colour);
      out += text(left + width + 6, middle, unit(row[what]) + suffix, LEFT);
    }
  }
  return out;
}

function costWords({ n_head: h, n_kv_head: hKv, head_dim: d, n_embd: D, n_keys: n }) {
  const against = (factor) => {
    const share = saved(D, h, hKv, d, factor);
    return `<b>${Math.abs(100 * share).toFixed(2)}% ${share < 0 ? "more" : "fewer"}</b>`;
  };
  const [operations, bytes] = decodeAttentionCost(n, 2 * h, hKv, d);
  const bound = operations / bytes < 150 ? "reading the cache takes longest" : "arithmetic counts";
  return `<p><b style="color:${RED}">DIFF V2</b> has ${against(2)} attention weights than softmax
    with 2h heads, ${against(1.5)} than with 1.5h, and ${against(1)} than with h.<br>
    To decode a token it reads the same cache as all of them and does
    ${digits3(operations / bytes)} operations for each byte (16-bit numbers). A GPU can do hundreds
    in the time of one byte: here ${bound}.</p>`;
}

const EXPLORERS = { rms, cost };
