// All heads of all layers as small maps, and the maps of the chosen ones, large.

import { BOS } from "./bytes.mjs";
import { fixed, h, percent, range, set, write } from "./dom.mjs";
import { Maps, paint } from "./maps.mjs";

export class Heads {
  constructor(page) {
    this.page = page;
    this.wantsOverview = true;
    this.made = new Map(); // voice -> its grid
    this.note = h("p.hint");
    this.grids = h("div.grids");
    this.maps = new Maps(page);
    this.node = h("div", {}, this.note, h("div.heads", {}, this.grids, this.maps.node));
  }

  make(voice) {
    const buttons = range(voice.layers * voice.heads, (i) => this.thumbnail(voice, i));
    const columns = range(voice.heads, (i) => h("span", {}, i ? `${i}` : "head 0"));
    const rows = range(voice.layers, (l) => {
      const own = buttons.slice(l * voice.heads, (l + 1) * voice.heads).map(({ node }) => node);
      return h(
        "div.row",
        {},
        h("span.layer", { "aria-hidden": "true" }, l ? `${l}` : "layer 0"),
        own,
      );
    });
    const node = h(
      `div.model.${voice.kind}`,
      {
        role: "group",
        "aria-label": `${voice.title}: all heads`,
        style: `--heads: ${voice.heads}`,
      },
      h("h3", {}, voice.title),
      h("div.columns", { "aria-hidden": "true" }, columns),
      rows,
    );
    return { buttons, node };
  }

  thumbnail(voice, i) {
    const canvas = h("canvas", { "aria-hidden": "true" }),
      share = h("span.share"),
      rms = h("span.rms");
    const onclick = () => this.page.enter(voice, place(voice, i));
    const onkeydown = (event) => this.key(event, voice, i);
    const node = h("button.thumb", { type: "button", onclick, onkeydown }, canvas, share, rms);
    return { canvas, share, rms, node };
  }

  key(event, voice, i) {
    const moves = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -voice.heads, ArrowDown: voice.heads };
    const to = i + moves[event.key],
      { buttons } = this.made.get(voice);
    if (!(event.key in moves) || !buttons[to]) return;
    event.preventDefault();
    buttons[to].node.focus();
    this.page.enter(voice, place(voice, to));
  }

  draw(queryOnly) {
    const { voices, state } = this.page;
    for (const voice of this.made.keys()) if (!voices.includes(voice)) this.made.delete(voice);
    for (const voice of voices) if (!this.made.has(voice)) this.made.set(voice, this.make(voice));
    const nodes = voices.map((voice) => this.made.get(voice).node);
    if (
      nodes.length !== this.grids.children.length ||
      nodes.some((node, i) => node !== this.grids.children[i])
    )
      this.grids.replaceChildren(...nodes);
    const first = state.bos ? "BOS" : "the first byte";
    write(
      this.note,
      `Each square is a head: a row is a byte that looks, a column what it looks at. Below it, the share of ${first} and the context RMS. Choose a head to enter it.`,
    );
    if (!queryOnly) for (const voice of voices) this.drawGrid(voice);
    this.maps.draw(queryOnly);
  }

  drawGrid(voice) {
    const { side, pictures } = voice.atGlance,
      { layer, head } = voice.place;
    const off = this.page.state.wheels[voice.key]?.off;
    const first = voice.seen.tokens[0] === BOS ? "BOS" : "the first byte";
    for (const [i, { canvas, share, rms, node }] of this.made.get(voice).buttons.entries()) {
      paint(
        canvas,
        side,
        pictures.subarray(i * side * side, (i + 1) * side * side),
        voice.kind,
        this.page.theme,
      );
      const found = voice.seen.numbers.heads[i],
        where = place(voice, i),
        chosen = i === layer * voice.heads + head;
      set(share, "data-text", `${Math.round(100 * found.first)}%`); // spoken by the button's name
      set(rms, "data-text", fixed(found.rms).replace(/^0/, ""));
      node.style.setProperty("--share", found.first.toFixed(3));
      node.classList.toggle("silent", Boolean(off?.[i]));
      set(node, "aria-pressed", String(chosen));
      set(node, "tabindex", chosen ? 0 : -1);
      set(
        node,
        "aria-label",
        `layer ${where.layer}, head ${where.head}: ${percent(found.first)} on ${first}, ` +
          `context RMS ${fixed(found.rms)}${off?.[i] ? ", switched off" : ""}`,
      );
    }
  }
}

const place = (voice, i) => ({ layer: Math.floor(i / voice.heads), head: i % voice.heads });
