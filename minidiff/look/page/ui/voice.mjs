// One model on the page: its worker, and what it last saw.

import { Engine } from "../engine/client.mjs";
import { BOS } from "./bytes.mjs";
import { range } from "./dom.mjs";
import { isHeld } from "./state.mjs";

const TITLES = { softmax: "Softmax", diff_v2: "DIFF V2" };

export const tokensOf = ({ bytes, bos }) => (bos ? [BOS, ...bytes] : bytes);

export class Voice {
  constructor(key, title) {
    this.key = key; // in share links
    this.title = title;
    this.engine = new Engine();
    this.seen = null; // the newest look(), see engine/worker.mjs
    this.before = null; // the same prompt without the wheel's changes
    this.atGlance = null; // the newest overview
  }

  /** Load a run folder's two files. Rejects with one line for the reader. */
  async load({ config, weights }) {
    const info = await this.engine.ask("load", { config, weights });
    this.kind = info.config.attention;
    this.title ??= TITLES[this.kind];
    this.layers = info.config.n_layer;
    this.heads = info.config.n_head;
    this.limit = info.limit;
    this.parameters = info.parameters;
    return this;
  }

  untouched() {
    const count = this.layers * this.heads;
    return { lam: Array(count).fill(null), off: Array(count).fill(false), heads: this.heads };
  }

  /** Read the state's prompt. `overview` asks for the pictures of all heads, too. */
  async look(state, overview) {
    const tokens = tokensOf(state),
      wheel = state.wheels[this.key],
      free = this.untouched();
    const place = state.places[this.key];
    const ask = (held, extra) =>
      this.engine.ask("look", { tokens, wheel: held, layer: 0, head: 0, ...place, ...extra });
    const known = this.before && String(this.before.tokens) === String(tokens);
    if (isHeld(wheel) && !known) this.before = await ask(free, { overview: false });
    this.seen = await ask(wheel ?? free, { overview: overview || !place });
    if (!isHeld(wheel)) this.before = this.seen;
    if (this.seen.overview) this.atGlance = this.seen.overview;
    if (place) return;
    const { copying } = this.atGlance,
      best = copying.indexOf(Math.max(...copying));
    state.places[this.key] = { layer: Math.floor(best / this.heads), head: best % this.heads };
    await this.look(state, overview);
  }

  get place() {
    return { layer: this.seen.layer, head: this.seen.head };
  }

  /** Row of a map of the chosen head: name is a1, a2 or weights. */
  row(name, query) {
    const { T, [name]: map } = this.seen.maps;
    return map.subarray(query * T, query * T + query + 1);
  }

  /** lam, rms or first of the chosen head at a query. */
  number(name, query) {
    const { layer, head } = this.place;
    return this.seen.numbers.layers[layer][name][query * this.heads + head];
  }

  /** The probability of every token after `query`, in what was seen or before the wheel turned. */
  next(query, look = this.seen, temperature = 1) {
    const V = 257,
      row = look.logits.slice(query * V, (query + 1) * V);
    const top = row.reduce((a, b) => Math.max(a, b));
    const powers = row.map((x) => Math.exp((x - top) / temperature));
    const sum = powers.reduce((a, b) => a + b);
    return powers.map((x) => x / sum);
  }

  /** Mean loss on the prompt in nats a byte, and the largest share on the first token of a head. */
  summary(look = this.seen) {
    const { losses, numbers } = look;
    const worst = range(numbers.heads.length).reduce((a, b) =>
      numbers.heads[b].first > numbers.heads[a].first ? b : a,
    );
    const loss = losses.length ? losses.reduce((a, b) => a + b) / losses.length : NaN;
    return { loss, worst, first: numbers.heads[worst].first };
  }
}
