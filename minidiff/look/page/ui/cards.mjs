// A card for each model: the prompt itself, tinted by what the byte that is pointed at looks at.
// For DIFF V2 three lines that read as the formula: A1, minus lambda A2, equals the difference.

import { quoted, sign, BOS } from "./bytes.mjs";
import { css, inkOn, tint } from "./colour.mjs";
import { clamp, fixed, h, percent, range, set, uniqueId, write } from "./dom.mjs";

const LINES = {
  softmax: [{ name: "weights", label: "A", says: "A, the weights" }],
  diff_v2: [
    { name: "a1", label: "A₁", says: "A1, the first map" },
    { name: "minus", label: "− λA₂", says: "lambda A2, which is taken away" },
    { name: "weights", label: "= A₁ − λA₂", says: "A1 minus lambda A2" },
  ],
};

export class Card {
  constructor(page, voice) {
    Object.assign(this, { page, voice });
    const title = uniqueId("title");
    this.layer = this.chooser("layer", voice.layers);
    this.head = this.chooser("head", voice.heads);
    this.held = h("span.held");
    this.lines = LINES[voice.kind].map((line) => this.line(line));
    this.most = h("p.most");
    this.node = h(
      `section.card.${voice.kind}`,
      { "aria-labelledby": title },
      h(
        "header",
        {},
        h("h2", { id: title }, voice.title),
        h("label", {}, "layer ", this.layer),
        h("label", {}, "head ", this.head),
        this.held,
      ),
      this.lines.map(({ node }) => node),
      this.most,
    );
  }

  chooser(what, count) {
    const onchange = ({ target }) => {
      const place = { ...this.page.state.places[this.voice.key], [what]: Number(target.value) };
      this.page.enter(this.voice, place);
    };
    const name = `${this.voice.title}: ${what}`;
    return h(
      "select",
      { onchange, "aria-label": name },
      range(count, (i) => h("option", { value: i }, `${i}`)),
    );
  }

  line({ name, label, says }) {
    const cells = h("div.cells", {
      role: "slider",
      tabindex: 0,
      "aria-valuemin": 0,
      "aria-orientation": "horizontal",
      "aria-label": `${this.voice.title}, ${says}: the byte that looks`,
      onkeydown: (event) => this.key(event),
      onpointermove: (event) => this.point(event),
      onpointerdown: (event) => this.point(event),
      onscroll: () => this.page.scrolled(cells),
    });
    const aside = h("div.aside");
    const node = h(`div.line.${name}`, {}, h("div.label", {}, label), cells, aside);
    return { name, node, cells, aside };
  }

  /** By place, not by target: a finger that slides keeps the target it began with. */
  point(event) {
    const cell = document.elementFromPoint(event.clientX, event.clientY)?.closest("[data-i]");
    if (cell && this.node.contains(cell)) this.page.pointer(event, Number(cell.dataset.i));
  }

  key(event) {
    const { query, tokens } = this.page,
      last = tokens.length - 1;
    const moves = {
      ArrowLeft: query - 1,
      ArrowRight: query + 1,
      ArrowUp: query - 10,
      ArrowDown: query + 10,
      Home: 0,
      End: last,
    };
    if (!(event.key in moves) || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    this.page.point(clamp(moves[event.key], 0, last));
  }

  /** Cells, tints, numbers and words for the query. */
  draw() {
    const { voice, page } = this,
      { tokens } = voice.seen,
      query = Math.min(page.query, tokens.length - 1);
    const { layer, head } = voice.place;
    this.layer.value = layer;
    this.head.value = head;
    write(this.held, this.heldWords(layer, head));
    const size = fittingSize(this.lines[0].cells.clientWidth, tokens.length, page.compact);
    for (const line of this.lines) {
      line.cells.style.setProperty("--size", `${size}px`);
      this.spell(line, tokens);
      this.tint(line, query);
    }
    const top = strongest(voice.row("weights", query), 3).map(
      ([s, w]) => `${quoted(tokens[s])} ${percent(w)}`,
    );
    const words = `${quoted(tokens[query])} looks most at ${top.join(", ")}`;
    write(this.most, words);
    for (const { cells } of this.lines) {
      set(cells, "aria-valuemax", tokens.length - 1);
      set(cells, "aria-valuenow", query);
      set(cells, "aria-valuetext", `byte ${query} of ${tokens.length - 1}: ${words}`);
    }
  }

  /** Cells for these tokens; those of an unchanged beginning stay. */
  spell(line, tokens) {
    const old = line.tokens ?? [];
    let same = 0;
    while (same < Math.min(old.length, tokens.length) && old[same] === tokens[same]) same++;
    while (line.cells.children.length > same) line.cells.lastChild.remove();
    line.cells.append(...tokens.slice(same).map((token, i) => cell(token, same + i)));
    line.tokens = tokens;
  }

  heldWords(layer, head) {
    const wheel = this.page.state.wheels[this.voice.key];
    if (!wheel) return "";
    const at = layer * this.voice.heads + head;
    if (wheel.off[at]) return "switched off";
    return wheel.lam[at] === null ? "" : `λ held at ${fixed(wheel.lam[at])}`;
  }

  tint({ name, cells, aside }, query) {
    const { voice, page } = this,
      lam = voice.kind === "diff_v2" ? voice.number("lam", query) : 0;
    const row =
      name === "minus" ? voice.row("a2", query).map((a) => -lam * a) : voice.row(name, query);
    for (const [i, node] of [...cells.children].entries()) {
      const colour = i <= query ? tint(row[i], voice.kind, page.theme) : null;
      node.style.backgroundColor = colour ? css(colour) : "";
      node.style.color = colour ? inkOn(colour) : "";
      node.classList.toggle("query", i === query);
      node.classList.toggle("later", i > query);
      node.classList.toggle("negative", name === "weights" && row[i] < -0.005);
      if (name === "minus") node.style.setProperty("--lam", voice.number("lam", i).toFixed(3));
    }
    reveal(cells, cells.children[query]);
    const first = `${percent(row[0])} on ${voice.seen.tokens[0] === BOS ? "BOS" : "the first byte"}`;
    const size = `context RMS ${fixed(voice.number("rms", query))}`;
    const said = { a1: [first], minus: [first, `λ ${fixed(lam)}`], weights: [first, size] }[name];
    aside.replaceChildren(...said.map((words) => h("span", {}, words)));
  }
}

const cell = (token, i) =>
  h(
    `span.cell${token === BOS ? ".bos" : ""}${token < 33 ? ".blank" : ""}`,
    { "data-i": i },
    sign(token),
  );

/** Scroll a box, and nothing around it, until this cell is seen. */
function reveal(box, cell) {
  if (!cell || box.scrollHeight <= box.clientHeight) return;
  const top = cell.offsetTop - box.offsetTop,
    bottom = top + cell.offsetHeight - box.clientHeight;
  box.scrollTop = clamp(box.scrollTop, bottom + 4, top - 4);
}

/** Letters as large as one line holds, within reason: then it wraps. */
const fittingSize = (width, count, compact) =>
  clamp(Math.floor((width - 60) / (0.87 * count)), compact ? 15 : 18, compact ? 20 : 25);

/** What the colours mean. */
export function key(page) {
  const swatch = (weight, hue, words) => {
    const colour = css(tint(weight, hue, page.theme));
    return h("span", {}, h("i", { style: `background: ${colour}` }), words);
  };
  const { kind } = page.voices.at(-1),
    diff = kind === "diff_v2";
  const weights = [0.01, 0.1, 0.5, 1].map((weight) => swatch(weight, kind, percent(weight)));
  const below = [swatch(-0.1, kind, "below zero"), h("span", {}, h("span.bar"), "λ of each byte")];
  const click = h("span.click", {}, "a click holds a byte");
  return [h("span", {}, "weight"), ...weights, ...(diff ? below : []), click];
}

/** The `count` entries of a row with the largest weight in size: [[index, weight], ...]. */
export const strongest = (row, count) =>
  Array.from(row, (weight, i) => [i, weight])
    .sort((a, b) => Math.abs(b[1]) - Math.abs(a[1]))
    .slice(0, count);
