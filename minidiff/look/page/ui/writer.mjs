// Write on: sample the next byte again and again, while text, maps and next bytes grow.

import { BOS } from "./bytes.mjs";
import { fixed, h, set, uniqueId, write } from "./dom.mjs";
import { Maps } from "./maps.mjs";

const PAUSE = 50; // milliseconds between bytes: slow enough to be seen

export class Writer {
  constructor(page) {
    this.page = page;
    this.random = randomNumbers(1); // the same page writes the same text again
    this.start = null; // length of the prompt before anything was written
    this.running = false;
    this.chosen = null; // key of a voice, once the reader chooses
    const id = uniqueId("temperature");
    this.who = h("select", {
      "aria-label": "The model that writes",
      onchange: () => ((this.chosen = this.who.value), this.draw()),
    });
    this.slider = h("input", {
      id,
      type: "range",
      min: 0,
      max: 1.5,
      step: 0.1,
      oninput: () => page.change({ temperature: Number(this.slider.value) }),
    });
    this.value = h("output");
    this.one = h(
      "button",
      { type: "button", onclick: () => this.running || this.step() },
      "One byte",
    );
    this.go = h("button.main", { type: "button", onclick: () => this.toggle() }, "Write on");
    this.back = h("button", { type: "button", onclick: () => this.takeBack() }, "Take back");
    this.maps = new Maps(page);
    this.node = h(
      "div.write",
      {},
      h(
        "div.controls",
        {},
        h("p", {}, this.who, " writes"),
        h("div.buttons", {}, this.go, this.one, this.back),
        h("label.temperature", { for: id }, h("span", {}, "temperature"), this.slider, this.value),
        h("p.hint", {}, "Temperature 0 takes the likeliest byte; 1 draws as the model expects."),
      ),
      this.maps.node,
    );
  }

  get voice() {
    const { voices } = this.page;
    return voices.find(({ key }) => key === this.chosen) ?? voices.at(-1);
  }

  /** Draw one byte of the model's distribution and put it behind the prompt. */
  async step() {
    const { page, voice } = this,
      { bytes, temperature } = page.state;
    if (bytes.length >= page.limit) return false;
    this.start ??= bytes.length;
    const token = draw(
      voice.next(voice.seen.tokens.length - 1, voice.seen, temperature || 1),
      temperature,
      this.random(),
    );
    if (token === BOS) return false; // the model ends its text
    await page.change({ bytes: [...bytes, token], query: null });
    return true;
  }

  async toggle() {
    this.running = !this.running;
    this.draw();
    if (!this.running) return;
    while (this.running && this.page.state.tab === "write" && (await this.step()))
      await new Promise((resolve) => setTimeout(resolve, PAUSE));
    this.running = false;
    this.draw();
  }

  takeBack() {
    if (this.start === null) return null;
    this.running = false;
    const bytes = this.page.state.bytes.slice(0, this.start);
    this.start = null;
    return this.page.change({ bytes, query: null });
  }

  draw(queryOnly = false) {
    const { voices, state } = this.page,
      keys = voices.map(({ key }) => key);
    if (String([...this.who.options].map(({ value }) => value)) !== String(keys)) {
      this.who.replaceChildren(
        ...voices.map(({ key, title }) => h("option", { value: key }, title)),
      );
    }
    this.who.value = this.voice.key;
    const shorter = this.start !== null && state.bytes.length <= this.start;
    if (shorter) this.start = null; // the reader took it back by hand
    write(this.go, this.running ? "Stop" : "Write on");
    set(this.one, "aria-disabled", this.running);
    set(this.back, "aria-disabled", this.start === null);
    this.slider.value = state.temperature;
    write(this.value, fixed(state.temperature, 1));
    set(this.slider, "aria-valuetext", fixed(state.temperature, 1));
    this.maps.draw(queryOnly, [this.voice]);
  }
}

/** A token of a distribution for a random number from 0 to 1; temperature 0 takes the likeliest. */
export function draw(shares, temperature, random) {
  if (temperature === 0) return shares.indexOf(shares.reduce((a, b) => Math.max(a, b)));
  let left = random * shares.reduce((a, b) => a + b);
  const found = shares.findIndex((share) => (left -= share) < 0);
  return found < 0 ? shares.length - 1 : found;
}

/** Mulberry32: a small generator of random numbers with a seed (public domain, T. Ettinger). */
export function randomNumbers(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}
