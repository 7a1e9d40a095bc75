// The page: prompt, cards, next byte, and four parts under tabs, built into any element.

import { newestOnly } from "../engine/newest.mjs";
import { Card, key } from "./cards.mjs";
import { decode } from "./bytes.mjs";
import { clamp, set, write } from "./dom.mjs";
import { frame } from "./frame.mjs";
import { Heads } from "./heads.mjs";
import { Next } from "./next.mjs";
import { FIRST_TEXT, freshState, fromHash, toHash } from "./state.mjs";
import { Steps } from "./steps.mjs";
import { followTheme } from "./theme.mjs";
import { Tools } from "./tools.mjs";
import { Wheel } from "./wheel.mjs";
import { Writer } from "./writer.mjs";

const GLANCE = 80; // milliseconds of rest before the pictures of all heads are computed

export class Page {
  constructor(root, { text = FIRST_TEXT, sharing = true, compact = false, home = null } = {}) {
    this.root = root;
    root.minidiff = this; // for the console, and for tests
    this.sharing = sharing; // whether the address holds the state
    this.compact = compact; // for a notebook's cell
    this.home = home; // the address of the course, where this page is part of its site
    this.text = text;
    this.loaded = []; // all models
    this.voices = []; // those that have looked at the prompt
    this.hash = sharing ? location.hash : "";
    this.cards = [];
    this.pinned = false; // whether a click holds the byte that looks
    this.state = sharing ? fromHash(this.hash, {}, text) : freshState(text);
    if (compact) this.state.tab = "text";
    this.refresh = newestOnly(() => this.look());
    this.next = new Next(this);
    this.parts = {
      heads: new Heads(this),
      wheel: new Wheel(this),
      steps: new Steps(this),
      write: new Writer(this),
    };
    this.tools = new Tools(this);
    frame(this);
    followTheme(root, (theme) => this.setTheme(theme));
  }

  // ---- Models ----------------------------------------------------------------------------------

  /** Put a loaded Voice on the page, in the place of the one with its key. */
  add(voice) {
    const old = this.loaded.find(({ key }) => key === voice.key);
    old?.engine.close();
    const order = ({ kind }) => (kind === "softmax" ? 0 : 1);
    this.loaded = [...this.loaded.filter((other) => other !== old), voice];
    this.loaded.sort((a, b) => order(a) - order(b));
    if (old) {
      delete this.state.places[voice.key];
      delete this.state.wheels[voice.key];
    } else if (this.sharing) {
      const shape = { [voice.key]: { layers: voice.layers, heads: voice.heads } };
      const shared = fromHash(this.hash, shape, this.text);
      Object.assign(this.state.places, shared.places);
      Object.assign(this.state.wheels, shared.wheels);
    }
    return this.refresh();
  }

  // ---- What the reader does --------------------------------------------------------------------

  get tokens() {
    return this.voices[0].seen.tokens;
  }

  get query() {
    const last = this.tokens.length - 1;
    return clamp(this.state.query ?? last, 0, last);
  }

  get limit() {
    return Math.min(...this.voices.map(({ limit }) => limit)) - 1;
  }

  /** Change the state, compute what that needs, draw. */
  change(patch) {
    Object.assign(this.state, patch);
    return this.refresh();
  }

  /** A new prompt, as bytes. */
  type(bytes, chosen = false) {
    if (bytes.length > this.limit || !bytes.length) {
      write(
        this.problem,
        bytes.length
          ? `${bytes.length} bytes: these models read up to ${this.limit}`
          : "Type something: at least one byte",
      );
      return null;
    }
    this.complain("");
    if (chosen) this.prompt.value = decode(bytes);
    this.pinned = false;
    this.root.classList.remove("pinned");
    return this.change({ bytes, query: null });
  }

  /**
   * A mouse over a byte looks from there; a click holds that byte, so that the way to a button
   * does not lead over others, and another click lets go. A finger only points.
   */
  pointer({ type, pointerType }, query) {
    if (type === "pointerdown" && pointerType === "mouse") {
      this.pinned = !(this.pinned && query === this.query);
      this.root.classList.toggle("pinned", this.pinned);
    } else if (this.pinned) return;
    this.point(query);
  }

  /** Look from another byte: nothing has to be computed. */
  point(query) {
    if (query === this.query && this.state.query !== null) return;
    this.state.query = query;
    this.draw(true);
    this.remember();
  }

  /** Lines of text that scroll, scroll together. */
  scrolled(box) {
    if (this.scrolling) return;
    this.scrolling = true; // what this moves, tells of it in the next frame
    const share = box.scrollTop / Math.max(1, box.scrollHeight - box.clientHeight);
    for (const { cells } of this.cards.flatMap(({ lines }) => lines))
      if (cells !== box) cells.scrollTop = share * (cells.scrollHeight - cells.clientHeight);
    requestAnimationFrame(() => requestAnimationFrame(() => (this.scrolling = false)));
  }

  enter(voice, place) {
    return this.change({ places: { ...this.state.places, [voice.key]: place } });
  }

  // ---- Computing and drawing -------------------------------------------------------------------

  async look() {
    if (!this.loaded.length) return;
    clearTimeout(this.soon);
    try {
      await Promise.all(this.loaded.map((voice) => voice.look(this.state)));
      this.voices = this.loaded.filter(({ seen }) => seen);
    } catch (error) {
      this.complain(error.message);
      return;
    }
    this.draw(false);
    this.remember();
    this.soon = setTimeout(() => this.glance(), GLANCE);
  }

  /** The pictures of all heads take longer than a byte: they wait until the reader pauses. */
  async glance() {
    const part = this.parts[this.state.tab];
    if (!part.glance) return;
    const { wheels } = this.state;
    const news = await Promise.all(this.voices.map((voice) => voice.glance(wheels[voice.key])));
    if (news.some(Boolean)) part.glance();
  }

  draw(queryOnly) {
    const { state } = this;
    if (
      this.cards.map(({ voice }) => voice).some((voice, i) => voice !== this.voices[i]) ||
      this.cards.length !== this.voices.length
    ) {
      this.cards = this.voices.map((voice) => new Card(this, voice));
      this.cardsNode.replaceChildren(...this.cards.map(({ node }) => node), this.key);
    }
    this.live.hidden = false;
    this.bos.checked = state.bos;
    const text = decode(state.bytes);
    if (this.prompt.value !== text && document.activeElement !== this.prompt) {
      this.prompt.value = text;
      this.prompt.scrollTop = this.prompt.scrollHeight;
    }
    if (!queryOnly) this.key.replaceChildren(...key(this));
    for (const card of this.cards) card.draw();
    this.next.draw();
    for (const { name, button, panel } of this.tabs) {
      const open = name === state.tab;
      set(button, "aria-selected", String(open));
      set(button, "tabindex", open ? 0 : -1);
      panel.hidden = !open;
      if (open) this.parts[name].draw(queryOnly);
    }
  }

  /** Keep the state in the address, not more often than browsers allow. */
  remember() {
    if (!this.sharing) return;
    clearTimeout(this.later);
    this.later = setTimeout(() => history.replaceState(null, "", `#${toHash(this.state)}`), 300);
  }

  get theme() {
    return this.root.dataset.theme;
  }

  setTheme(theme) {
    this.root.dataset.theme = theme;
    this.tools.draw();
    if (this.voices.length) this.draw(false);
  }

  /** A line about what goes on, and a line about what went wrong. */
  say(words) {
    write(this.status, words);
  }

  complain(words) {
    write(this.problem, words);
  }
}
