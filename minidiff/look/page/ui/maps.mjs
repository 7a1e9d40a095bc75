// The maps of the chosen head of a model, large: A; or A1, lambda A2 and their difference.

import { strength, tint } from "./colour.mjs";
import { clamp, h, set, write } from "./dom.mjs";

const STEPS = 255; // of colour, above and below zero

/** Every colour that a map may have, as a pixel: weight -1 comes first, 1 last. */
function palette(hue, theme) {
  const bytes = new Uint8ClampedArray(4 * (2 * STEPS + 1));
  for (let i = -STEPS; i <= STEPS; i++) {
    const weight = Math.sign(i) * (i / STEPS) ** 2; // strength() is the root
    bytes.set([...tint(weight, hue, theme), 255], 4 * (i + STEPS));
  }
  return new Uint32Array(bytes.buffer);
}

/** Paint a signed map, side x side row by row, its upper triangle left empty, into a canvas. */
export function paint(canvas, side, values, hue, theme) {
  if (canvas.width !== side || canvas.height !== side) [canvas.width, canvas.height] = [side, side];
  const context = canvas.getContext("2d"),
    image = context.createImageData(side, side);
  const pixels = new Uint32Array(image.data.buffer),
    colours = palette(hue, theme);
  for (let t = 0; t < side; t++)
    for (let at = t * side; at <= t * side + t; at++) {
      const step = Math.round(STEPS * strength(values[at]));
      pixels[at] = colours[STEPS + (values[at] < 0 ? -step : step)];
    }
  context.putImageData(image, 0, 0);
}

const NAMES = {
  softmax: { weights: "A" },
  diff_v2: { a1: "A₁", minus: "λA₂", weights: "A₁ − λA₂" },
};

export class Maps {
  constructor(page) {
    this.page = page;
    this.figures = new Map(); // voice -> its figures
    this.node = h("div.maps");
  }

  make(voice) {
    return Object.entries(NAMES[voice.kind]).map(([name, label]) => {
      const point = (event) => this.point(event);
      const canvas = h("canvas", { role: "img", onpointermove: point, onpointerdown: point });
      const mark = h("span.mark"),
        caption = h("figcaption");
      const node = h(`figure.${voice.kind}`, {}, h("div.frame", {}, canvas, mark), caption);
      return { name, label, canvas, mark, caption, node };
    });
  }

  point(event) {
    const T = this.page.tokens.length,
      row = (event.offsetY / event.target.clientHeight) * T;
    this.page.pointer(event, clamp(Math.floor(row), 0, T - 1));
  }

  draw(queryOnly, voices = this.page.voices) {
    for (const voice of this.figures.keys())
      if (!this.page.voices.includes(voice)) this.figures.delete(voice);
    for (const voice of voices)
      if (!this.figures.has(voice)) this.figures.set(voice, this.make(voice));
    const nodes = voices.flatMap((voice) => this.figures.get(voice).map(({ node }) => node));
    const same =
      nodes.length === this.node.children.length &&
      nodes.every((node, i) => node === this.node.children[i]);
    if (!same) this.node.replaceChildren(...nodes);
    for (const voice of voices) this.drawVoice(voice, queryOnly && same);
  }

  drawVoice(voice, queryOnly) {
    const { query, theme } = this.page,
      { T, a1, a2, weights } = voice.seen.maps;
    const { layer, head } = voice.place,
      figures = this.figures.get(voice);
    for (const { mark } of figures) {
      mark.style.top = `${(100 * query) / T}%`;
      mark.style.height = `${100 / T}%`;
    }
    if (queryOnly) return;
    const { lam } = voice.seen.numbers.layers[layer];
    const minus = a2?.map((a, at) => -lam[Math.floor(at / T) * voice.heads + head] * a);
    const values = { a1, minus, weights };
    for (const { name, label, canvas, caption } of figures) {
      paint(canvas, T, values[name], voice.kind, theme);
      canvas.classList.toggle("fine", T > 250); // smaller on the screen than in truth
      write(caption, label);
      set(
        canvas,
        "aria-label",
        `${voice.title}, layer ${layer}, head ${head}: the map ${label}, ${T} by ${T} bytes`,
      );
    }
  }
}
