// Follow one query of one head through the formula, step by step, with its numbers.

import { quoted, sign } from "./bytes.mjs";
import { clamp, fixed, h, set, write } from "./dom.mjs";

/** The steps of a trace (engine/views.mjs): title, formula, what it says, rows of bars. */
export function steps(trace, tokens, diff) {
  const [one, two] = trace.branches,
    n = one.a.length,
    d = one.q.length,
    who = quoted(tokens[n - 1]);
  const most = (values) => {
    const [at] = [...values.keys()].sort((a, b) => values[b] - values[a]);
    return `${quoted(tokens[at])} ${fixed(values[at])}`;
  };
  const bytes = tokens.slice(0, n).map(sign),
    norm = (x) => Math.hypot(...x);
  const row = (label, values, hue, labels = null) => ({ label, values, hue, labels });
  const pair = (pick, first, second, labels) =>
    diff
      ? [row(first, pick(one), "diff_v2", labels), row(second, pick(two), "minus", labels)]
      : [row(first, pick(one), "softmax", labels)];
  const rms = (one) => fixed(one.rms / trace.size);
  const both = (text) => (diff ? text : "");
  const found = [
    {
      title: "Scores",
      formula: diff ? "s₁ = q₁·k / √d,  s₂ = q₂·k / √d" : "s = q·k / √d",
      says: `${who} compares its query with the key of each byte up to itself; d = ${d}.${both(" Two queries, the same keys: two rows.")} Highest: ${most(one.scores)}${both(`, and ${most(diff ? two.scores : [0])}`)}.`,
      rows: pair(({ scores }) => scores, diff ? "s₁" : "s", "s₂", bytes),
    },
    {
      title: "Softmax",
      formula: diff ? "A₁ = softmax(s₁),  A₂ = softmax(s₂)" : "A = softmax(s)",
      says: `Scores become weights that sum to 1. Largest: ${most(one.a)}${both(`, and ${most(diff ? two.a : [0])}`)}.`,
      rows: pair(({ a }) => a, diff ? "A₁" : "A", "A₂", bytes),
    },
    {
      title: "Times the values",
      formula: diff ? "c₁ = A₁V,  c₂ = A₂V" : "c = AV",
      says: `The weights average the values, ${d} numbers each. Context RMS ${rms(one)}${both(` and ${rms(diff ? two : one)}`)}, where the values have 1.`,
      rows: pair(({ context }) => context, diff ? "c₁" : "c", "c₂"),
    },
  ];
  if (diff) {
    const { lam, logit } = trace,
      own = 1 / (1 + Math.exp(-logit));
    const held = Math.abs(lam - own) > 1e-6 ? ` It is held at ${fixed(lam)} instead.` : "";
    found.push(
      {
        title: "Lambda",
        formula: "λ = sigmoid(w·x)",
        says: `From its own state x, ${who} makes one number for this head: w·x = ${fixed(logit)}, so λ = ${fixed(own)}.${held}`,
        rows: [
          row("c₂", two.context, "minus"),
          row(
            "λc₂",
            two.context.map((c) => lam * c),
            "minus",
          ),
        ],
      },
      {
        title: "Subtract",
        formula: "c = c₁ − λc₂",
        says: `What both maps read alike cancels. Context RMS ${rms(one)} becomes ${rms(trace)}.`,
        rows: [
          row("c₁", one.context, "diff_v2"),
          row(
            "λc₂",
            two.context.map((c) => lam * c),
            "minus",
          ),
          row("c", trace.context, "diff_v2"),
        ],
      },
    );
  }
  const share = norm(trace.out) / norm(trace.residual);
  found.push({
    title: "Out",
    formula: "x ← x + W_O c",
    says: `W_O turns the context into ${trace.out.length} numbers, which are added to the state of ${who}: ${fixed(100 * share, 1)}% of its length, from this head alone.`,
    rows: [row("W_O c", trace.out, diff ? "diff_v2" : "softmax")],
  });
  return found;
}

export class Steps {
  constructor(page) {
    this.page = page;
    this.at = 0;
    this.chosen = null; // key of a voice, once the reader chooses
    this.who = h("select", {
      "aria-label": "The model to follow",
      onchange: () => ((this.chosen = this.who.value), this.draw()),
    });
    this.back = h("button", { type: "button", onclick: () => this.go(-1) }, "‹ Back");
    this.forth = h("button.main", { type: "button", onclick: () => this.go(1) }, "Next ›");
    this.list = h("ol.track-steps");
    this.title = h("h3");
    this.formula = h("p.formula");
    this.says = h("p.says", { "aria-live": "polite" });
    this.picture = h("div.bars");
    this.node = h(
      "div.steps",
      { onkeydown: (event) => this.key(event) },
      h("div.buttons", {}, this.back, this.forth, this.who, this.list),
      h("div.words", {}, this.title, this.formula, this.says),
      this.picture,
    );
  }

  go(by) {
    this.at = clamp(this.at + by, 0, this.found.length - 1);
    this.show();
  }

  key(event) {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!by || event.target === this.who) return;
    event.preventDefault();
    this.go(by);
  }

  get voice() {
    const { voices } = this.page;
    return voices.find(({ key }) => key === this.chosen) ?? voices.at(-1);
  }

  /** Ask for the numbers of this query; only the newest answer is shown. */
  async draw() {
    const { voices, query } = this.page,
      keys = voices.map(({ key }) => key);
    if (String([...this.who.options].map(({ value }) => value)) !== String(keys)) {
      this.who.replaceChildren(
        ...voices.map(({ key, title }) => h("option", { value: key }, title)),
      );
    }
    this.who.value = this.voice.key;
    const { voice } = this,
      tokens = voice.seen.tokens,
      asked = (this.asked = {});
    const trace = await voice.engine.ask("trace", {
      ...voice.place,
      query: Math.min(query, tokens.length - 1),
    });
    if (asked !== this.asked) return;
    this.found = steps(trace, tokens, voice.kind === "diff_v2");
    this.at = clamp(this.at, 0, this.found.length - 1);
    this.show();
  }

  show() {
    const { title, formula, says, rows } = this.found[this.at];
    write(this.title, `${this.at + 1}. ${title}`);
    write(this.formula, formula);
    write(this.says, says);
    set(this.back, "aria-disabled", this.at === 0);
    set(this.forth, "aria-disabled", this.at === this.found.length - 1);
    this.list.replaceChildren(
      ...this.found.map((step, i) =>
        h("li", i === this.at ? { "aria-current": "step" } : {}, step.title),
      ),
    );
    const width = Math.max(280, this.picture.clientWidth || this.page.root.clientWidth - 60);
    this.picture.innerHTML = bars(rows, width, `${title}: ${says}`);
  }
}

// ---- Rows of bars, all on one scale ------------------------------------------------------------

const escape = (text) => text.replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);
const ROOM = 96,
  LEFT = 52,
  RIGHT = 56; // height of a row; room for its name, and for its scale

export function bars(rows, width, label) {
  const most = Math.max(...rows.flatMap(({ values }) => Array.from(values, Math.abs))) || 1;
  const low = Math.min(0, ...rows.flatMap(({ values }) => Array.from(values)));
  const labelled = rows[0].labels && (width - LEFT - RIGHT) / rows[0].labels.length > 9;
  const room = labelled ? ROOM + 22 : ROOM;
  const parts = rows.map(({ label: name, values, hue, labels }, i) => {
    const top = i * room + 8,
      y = (x) => top + (ROOM - 16) * (1 - (x - low) / (most - low));
    const step = Math.min((width - LEFT - RIGHT) / values.length, 40),
      gap = step > 4 ? 1 : 0;
    const x = (at) => LEFT + at * step;
    const drawn = Array.from(values, (value, at) => {
      const [from, to] = [y(0), y(value)].sort((a, b) => a - b);
      return `<rect x="${x(at).toFixed(1)}" y="${from.toFixed(1)}" width="${(step - gap).toFixed(2)}" height="${Math.max(to - from, 0.5).toFixed(1)}"/>`;
    }).join("");
    const axis = `<line x1="${LEFT}" x2="${x(values.length)}" y1="${y(0)}" y2="${y(0)}"/>`;
    const end = x(values.length) + 6,
      scale =
        `<text x="${end}" y="${y(most) + 10}">${fixed(most)}</text>` +
        (low ? `<text x="${end}" y="${y(low) + 2}">${fixed(low)}</text>` : "");
    const names = labelled
      ? labels
          .map(
            (text, at) =>
              `<text class="byte" x="${(x(at) + step / 2).toFixed(1)}" y="${top + ROOM - 1}" ${text.length > 1 ? 'font-size="9"' : ""}>${escape(text)}</text>`,
          )
          .join("")
      : "";
    return `<text class="name" x="${LEFT - 10}" y="${top + 20}">${name}</text><g class="${hue}">${drawn}</g>${axis}${scale}${names}`;
  });
  const height = rows.length * room + 8;
  return `<svg viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img" aria-label="${escape(label)}">${parts.join("")}</svg>`;
}
