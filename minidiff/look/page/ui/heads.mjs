// All heads of all layers as small maps; and the maps of the chosen one, large.

import { BOS } from "./bytes.mjs";
import { tint } from "./colour.mjs";
import { clamp, fixed, h, percent, range, set, write } from "./dom.mjs";

/** Paint a signed map, side x side row by row, upper triangle left as paper, into a canvas. */
export function paint(canvas, side, values, hue, theme) {
  [canvas.width, canvas.height] = [side, side];
  const context = canvas.getContext("2d"),
    image = context.createImageData(side, side);
  const paper = tint(0, hue, theme);
  for (let t = 0; t < side; t++)
    for (let s = 0; s < side; s++) {
      const at = t * side + s,
        rgb = s > t ? paper : tint(values[at], hue, theme);
      image.data.set([...rgb, 255], 4 * at);
    }
  context.putImageData(image, 0, 0);
}

export class Heads {
  constructor(page) {
    this.page = page;
    this.made = new Map();
    this.note = h("p.hint");
    this.node = h("div.heads");
    this.wantsOverview = true;
  }

  make(voice) {
    const buttons = range(voice.layers * voice.heads, (i) => {
      const parts = {
        canvas: h("canvas", { "aria-hidden": "true" }),
        share: h("span.share"),
        rms: h("span.rms"),
      };
      const onclick = () => this.page.enter(voice, place(voice, i));
      const node = h(
        "button.thumb",
        { type: "button", onclick, onkeydown: (e) => this.key(e, voice, i) },
        parts.canvas,
        parts.share,
        parts.rms,
      );
      return { ...parts, node };
    });
    const columns = h(
      "div.columns",
      { "aria-hidden": "true" },
      range(voice.heads, (i) => h("span", {}, i ? `${i}` : "head 0")),
    );
    const rows = range(voice.layers, (l) =>
      h(
        "div.row",
        {},
        h("span.layer", { "aria-hidden": "true" }, l ? `${l}` : "layer 0"),
        buttons.slice(l * voice.heads, (l + 1) * voice.heads).map(({ node }) => node),
      ),
    );
    const grid = h(
      "div.grid",
      {
        role: "group",
        "aria-label": `${voice.title}: all heads`,
        style: `--heads: ${voice.heads}`,
      },
      columns,
      rows,
    );
    const names =
      voice.kind === "diff_v2"
        ? { a1: "A1", minus: "λ A2", weights: "A1 − λ A2" }
        : { weights: "A" };
    const maps = Object.entries(names).map(([name, label]) => {
      const canvas = h("canvas", {
        role: "img",
        onpointermove: (event) => this.point(event),
        onpointerdown: (event) => this.point(event),
      });
      const mark = h("span.mark");
      return {
        name,
        label,
        canvas,
        mark,
        node: h("figure", {}, h("div.frame", {}, canvas, mark), h("figcaption", {}, label)),
      };
    });
    const caption = h("h3", {});
    const node = h(
      `section.model.${voice.kind}`,
      { "aria-label": `${voice.title}: heads` },
      caption,
      h(
        "div.both",
        {},
        grid,
        h(
          "div.maps",
          {},
          maps.map(({ node }) => node),
        ),
      ),
    );
    this.made.set(voice, { buttons, maps, caption, node });
  }

  key(event, voice, i) {
    const moves = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -voice.heads, ArrowDown: voice.heads };
    const to = i + moves[event.key];
    const { buttons } = this.made.get(voice);
    if (!(event.key in moves) || !buttons[to]) return;
    event.preventDefault();
    buttons[to].node.focus();
    this.page.enter(voice, place(voice, to));
  }

  point({ target, offsetY }) {
    const T = this.page.tokens.length;
    this.page.point(clamp(Math.floor((offsetY / target.clientHeight) * T), 0, T - 1));
  }

  draw(queryOnly) {
    const { voices } = this.page;
    for (const voice of this.made.keys()) if (!voices.includes(voice)) this.made.delete(voice);
    for (const voice of voices) if (!this.made.has(voice)) this.make(voice);
    const nodes = voices.map((voice) => this.made.get(voice).node);
    if (
      String(nodes.map((n) => n.className)) !== this.shown ||
      nodes.some((node) => node.parentNode !== this.node)
    ) {
      const first = this.page.state.bos ? "BOS" : "the first byte";
      write(
        this.note,
        `Each square is a head: rows are bytes that look, columns what they look at. Below it the share of ${first}, and the context RMS, a mean over bytes.`,
      );
      this.node.replaceChildren(this.note, ...nodes);
      this.shown = String(nodes.map((n) => n.className));
    }
    for (const voice of voices) this.drawVoice(voice, queryOnly);
  }

  drawVoice(voice, queryOnly) {
    const { buttons, maps, caption } = this.made.get(voice),
      { query, theme } = this.page;
    const { T, a1, a2, weights } = voice.seen.maps,
      { layer, head } = voice.place;
    for (const { mark } of maps) {
      mark.style.top = `${(100 * query) / T}%`;
      mark.style.height = `${100 / T}%`;
    }
    if (queryOnly) return;
    write(caption, `${voice.title}: layer ${layer}, head ${head}`);
    const { lam } = voice.seen.numbers.layers[layer];
    const minus = a2?.map((a, at) => -lam[Math.floor(at / T) * voice.heads + head] * a);
    const shown = { a1, minus, weights };
    for (const { name, label, canvas } of maps) {
      paint(canvas, T, shown[name], voice.kind, theme);
      set(
        canvas,
        "aria-label",
        `${voice.title}, layer ${layer}, head ${head}: ${label}, ${T} by ${T} bytes`,
      );
    }
    const { side, pictures } = voice.atGlance,
      at = layer * voice.heads + head;
    const off = this.page.state.wheels[voice.key]?.off;
    for (const [i, { canvas, share, rms, node }] of buttons.entries()) {
      paint(
        canvas,
        side,
        pictures.subarray(i * side * side, (i + 1) * side * side),
        voice.kind,
        theme,
      );
      const found = voice.seen.numbers.heads[i],
        where = place(voice, i);
      write(share, percent(found.first));
      write(rms, fixed(found.rms));
      node.style.setProperty("--share", found.first.toFixed(3));
      node.classList.toggle("silent", Boolean(off?.[i]));
      set(node, "aria-pressed", String(i === at));
      set(node, "tabindex", i === at ? 0 : -1);
      const first = voice.seen.tokens[0] === BOS ? "BOS" : "the first byte";
      set(
        node,
        "aria-label",
        `layer ${where.layer}, head ${where.head}: ${percent(found.first)} on ${first}, context RMS ${fixed(found.rms)}${off?.[i] ? ", switched off" : ""}`,
      );
    }
  }
}

const place = (voice, i) => ({ layer: Math.floor(i / voice.heads), head: i % voice.heads });
