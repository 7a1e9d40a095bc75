// Take the wheel: hold lambda of a head, a layer or all heads, switch heads off, and see what the
// prompt's loss, the shares on BOS and the context RMS become.

import { fixed, h, percent, range, set, uniqueId, write } from "./dom.mjs";
import { isHeld } from "./state.mjs";

const SCOPES = { head: "this head", layer: "this layer", all: "all heads" };

export class Wheel {
  constructor(page) {
    this.page = page;
    this.scope = "head";
    this.made = new Map();
    this.controls = h("div.controls");
    this.body = h("tbody");
    this.reset = h(
      "button",
      { type: "button", onclick: () => page.change({ wheels: {} }) },
      "All as trained",
    );
    const heads = ["as trained", "now"].map((name) => h("th", { scope: "col" }, name));
    this.node = h(
      "div.wheel",
      {},
      this.controls,
      h(
        "div.effects",
        {},
        h("table", {}, h("thead", {}, h("tr", {}, h("td"), heads)), this.body),
        this.reset,
        h(
          "p.hint",
          {},
          "Held at 0, a head keeps its first map only: softmax attention. Nothing here is trained again, and the loss is of this one prompt.",
        ),
      ),
    );
  }

  // ---- Controls: a set for each model ----------------------------------------------------------

  make(voice) {
    const title = h("legend", {}, voice.title),
      where = h("p.where");
    const off = h("input", {
      type: "checkbox",
      onchange: () => this.switchOff(voice, off.checked),
    });
    const silence = h("label.check", {}, off, h("span", {}, "switch this head off"));
    const parts = { where, off, node: null };
    const rows = [where, silence];
    if (voice.kind === "diff_v2") {
      const name = uniqueId("scope");
      const scopes = Object.entries(SCOPES).map(([key, label]) =>
        h(
          "label.check",
          {},
          h("input", {
            type: "radio",
            name,
            value: key,
            ...(key === this.scope && { checked: "" }),
            onchange: () => {
              this.scope = key;
              this.draw();
            },
          }),
          label,
        ),
      );
      const slider = h("input", {
        type: "range",
        min: 0,
        max: 1,
        step: 0.01,
        "aria-label": `${voice.title}: hold λ at`,
        oninput: () => this.hold(voice, Number(slider.value)),
      });
      Object.assign(parts, {
        slider,
        value: h("output"),
        trained: h("span.trained", { "aria-hidden": "true" }, "▾"),
        meaning: h("p.note"),
        free: h("button", { type: "button", onclick: () => this.hold(voice, null) }, "Let go"),
        board: this.board(voice),
      });
      rows.splice(
        0,
        1,
        where,
        h(
          "div.scopes",
          { role: "radiogroup", "aria-label": "Hold λ of" },
          h("span", {}, "Hold λ of"),
          scopes,
        ),
        h("div.hold", {}, h("span.rail", {}, parts.trained, slider), parts.value, parts.free),
        parts.meaning,
      );
      rows.push(parts.board.node);
    }
    parts.node = h(`fieldset.${voice.kind}`, {}, title, rows);
    return parts;
  }

  /** lambda of every head, mean over the prompt: a bar each; those that are held have a frame. */
  board(voice) {
    const cells = range(voice.layers * voice.heads, (i) => {
      const place = { layer: Math.floor(i / voice.heads), head: i % voice.heads };
      return h(
        "button.lam",
        { type: "button", onclick: () => this.page.enter(voice, place) },
        h("span"),
      );
    });
    const grid = h("div.board", {
      role: "group",
      "aria-label": "λ of every head: choose one",
      style: `--layers: ${voice.layers}`,
    });
    for (let head = 0; head < voice.heads; head++)
      for (let layer = 0; layer < voice.layers; layer++)
        grid.append(cells[layer * voice.heads + head]);
    const node = h(
      "figure.lambdas",
      {},
      grid,
      h("figcaption", {}, "λ of every head (mean over the prompt): a column is a layer"),
    );
    return { cells, node };
  }

  // ---- What they do ----------------------------------------------------------------------------

  wheel(voice) {
    return structuredClone(this.page.state.wheels[voice.key] ?? voice.untouched());
  }

  set(voice, wheel) {
    const { [voice.key]: _, ...others } = this.page.state.wheels;
    return this.page.change({ wheels: isHeld(wheel) ? { ...others, [voice.key]: wheel } : others });
  }

  /** Indices of the heads that the chosen scope names. */
  scoped(voice) {
    const { layer, head } = this.page.state.places[voice.key];
    if (this.scope === "head") return [layer * voice.heads + head];
    if (this.scope === "layer") return range(voice.heads, (i) => layer * voice.heads + i);
    return range(voice.layers * voice.heads);
  }

  hold(voice, value) {
    const wheel = this.wheel(voice);
    for (const i of this.scoped(voice)) wheel.lam[i] = value;
    return this.set(voice, wheel);
  }

  switchOff(voice, yes) {
    const wheel = this.wheel(voice),
      { layer, head } = voice.place;
    wheel.off[layer * voice.heads + head] = yes;
    return this.set(voice, wheel);
  }

  // ---- Drawing ---------------------------------------------------------------------------------

  draw(queryOnly = false) {
    if (queryOnly) return;
    const { voices } = this.page;
    for (const voice of this.made.keys()) if (!voices.includes(voice)) this.made.delete(voice);
    for (const voice of voices) if (!this.made.has(voice)) this.made.set(voice, this.make(voice));
    const nodes = voices.map((voice) => this.made.get(voice).node);
    if (nodes.some((node, i) => node !== this.controls.children[i]))
      this.controls.replaceChildren(...nodes);
    for (const voice of voices) this.drawControls(voice);
    this.body.replaceChildren(...voices.flatMap((voice) => this.effects(voice)));
    set(this.reset, "aria-disabled", !Object.keys(this.page.state.wheels).length);
  }

  drawControls(voice) {
    const { where, off, slider, value, free, trained, meaning, board } = this.made.get(voice);
    const { layer, head } = voice.place,
      at = layer * voice.heads + head,
      wheel = this.wheel(voice);
    write(where, `Chosen: layer ${layer}, head ${head}`);
    off.checked = wheel.off[at];
    if (!slider) return;
    const scoped = this.scoped(voice),
      own = voice.before.numbers.heads;
    const mean = scoped.reduce((sum, i) => sum + own[i].lam, 0) / scoped.length;
    const held = scoped.every((i) => wheel.lam[i] !== null && wheel.lam[i] === wheel.lam[scoped[0]])
      ? wheel.lam[scoped[0]]
      : null;
    if (document.activeElement !== slider || held === null) slider.value = held ?? mean;
    write(value, held === null ? "as trained" : `λ = ${fixed(held)}`);
    set(
      slider,
      "aria-valuetext",
      held === null ? `as trained, ${fixed(mean)} in the mean` : `held at ${fixed(held)}`,
    );
    set(free, "aria-disabled", !scoped.some((i) => wheel.lam[i] !== null));
    trained.style.setProperty("--at", mean.toFixed(3));
    write(
      meaning,
      `▾ trained: ${fixed(mean)}, the mean over the prompt${scoped.length > 1 ? " and these heads" : ""}`,
    );
    for (const [i, cell] of board.cells.entries()) {
      const { lam } = voice.seen.numbers.heads[i],
        fixedHere = wheel.lam[i] !== null;
      cell.style.setProperty("--lam", lam.toFixed(3));
      cell.classList.toggle("fixed", fixedHere);
      set(cell, "aria-pressed", String(i === at));
      set(
        cell,
        "aria-label",
        `layer ${Math.floor(i / voice.heads)}, head ${i % voice.heads}: λ ${fixed(lam)}${fixedHere ? ", held" : ""}`,
      );
    }
  }

  effects(voice) {
    const { layer, head } = voice.place,
      at = layer * voice.heads + head;
    const before = voice.summary(voice.before),
      now = voice.summary();
    const name = (i) => `${Math.floor(i / voice.heads)}.${i % voice.heads}`;
    const first = this.page.state.bos ? "BOS" : "the first byte";
    const rms = (look) => fixed(look.numbers.heads[at].rms);
    const rows = [
      ["loss, nats a byte", fixed(before.loss, 3), fixed(now.loss, 3)],
      [
        `largest share on ${first} (head)`,
        `${percent(before.first)} (${name(before.worst)})`,
        `${percent(now.first)} (${name(now.worst)})`,
      ],
      [`context RMS of head ${name(at)}`, rms(voice.before), rms(voice.seen)],
    ];
    const title = h(
      `tr.${voice.kind}`,
      {},
      h("th.name", { colspan: 3, scope: "colgroup" }, voice.title),
    );
    return [
      title,
      ...rows.map(([what, old, present]) =>
        h(
          "tr",
          {},
          h("th", { scope: "row" }, what),
          h("td", {}, old),
          h(present === old ? "td" : "td.changed", {}, present),
        ),
      ),
    ];
  }
}
