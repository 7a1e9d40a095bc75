// The page: prompt, cards, next byte, and four parts under tabs, built into any element.

import { newestOnly } from "../engine/newest.mjs";
import { Card, key } from "./cards.mjs";
import { encode, decode } from "./bytes.mjs";
import { clamp, h, set, uniqueId, write } from "./dom.mjs";
import { Heads } from "./heads.mjs";
import { Next } from "./next.mjs";
import STYLE from "./page.css";
import { FIRST_TEXT, TABS, freshState, fromHash, toHash } from "./state.mjs";
import { Steps } from "./steps.mjs";
import { Tools, wantedTheme } from "./tools.mjs";
import { Wheel } from "./wheel.mjs";
import { Writer } from "./writer.mjs";

const EXAMPLES = {
  "a repetition": FIRST_TEXT,
  "a function": "def area(width, height):\n    return width * ",
  "a class": "class Queue:\n    def __init__(self, items):\n        self.items = ",
  "an import": "import os, sys\nprint(os.pa",
};

export class Page {
  constructor(root, { text = FIRST_TEXT, sharing = true } = {}) {
    this.root = root;
    root.minidiff = this; // for the console, and for tests
    this.sharing = sharing;
    this.text = text;
    this.loaded = []; // all models
    this.voices = []; // those that have looked at the prompt
    this.hash = sharing ? location.hash : "";
    this.cards = [];
    this.state = freshState(text);
    this.refresh = newestOnly(() => this.look());
    this.next = new Next(this);
    this.parts = {
      heads: new Heads(this),
      wheel: new Wheel(this),
      steps: new Steps(this),
      write: new Writer(this),
    };
    this.tools = new Tools(this);
    this.build();
    this.setTheme(wantedTheme());
  }

  // ---- The frame -------------------------------------------------------------------------------

  build() {
    const promptId = uniqueId("prompt");
    this.prompt = h("textarea", {
      id: promptId,
      rows: 2,
      spellcheck: "false",
      autocomplete: "off",
      autocapitalize: "off",
      oninput: () => this.type(encode(this.prompt.value)),
    });
    this.bos = h("input", {
      type: "checkbox",
      onchange: () => this.change({ bos: this.bos.checked, query: null }),
    });
    this.status = h("p.status", { role: "status" });
    this.problem = h("p.problem", { role: "alert" });
    const examples = Object.entries(EXAMPLES).map(([name, text]) =>
      h("button.quiet", { type: "button", onclick: () => this.type(encode(text), true) }, name),
    );
    this.cardsNode = h("div.cards");
    this.key = h("p.key", { "aria-hidden": "true" });
    this.tabs = TABS.map((name) => this.tab(name));
    this.live = h(
      "div.live",
      { hidden: true },
      h("div.look", {}, this.cardsNode, this.next.node),
      h(
        "div.tabs",
        { role: "tablist", "aria-label": "Parts", onkeydown: (event) => this.tabKey(event) },
        this.tabs.map(({ button }) => button),
      ),
      this.tabs.map(({ panel }) => panel),
    );
    this.root.classList.add("minidiff-page");
    set(this.root, "data-lm-suppress-shortcuts", "true"); // JupyterLab: these keys are ours
    this.root.replaceChildren(
      h("style", {}, STYLE),
      h("header.top", {}, h("h1", {}, "Where does attention look?"), this.tools.node),
      h(
        "p.lead",
        {},
        "Two small language models run inside this page. Point at a letter: its attention colours the text, softmax in blue, DIFF V2 in orange.",
      ),
      h(
        "div.ask",
        {},
        h("label", { for: promptId }, "Prompt"),
        this.prompt,
        h(
          "div.beside",
          {},
          h("span.try", {}, "Try "),
          examples,
          h("label.check", {}, this.bos, " begin with BOS, the start token"),
        ),
      ),
      this.problem,
      this.status,
      this.live,
    );
  }

  tab(name) {
    const labels = {
      heads: "All heads",
      wheel: "Take the wheel",
      steps: "Step by step",
      write: "Write on",
    };
    const [id, panelId] = [uniqueId("tab"), uniqueId("panel")];
    const button = h(
      "button.tab",
      {
        type: "button",
        role: "tab",
        id,
        "aria-controls": panelId,
        onclick: () => this.change({ tab: name }),
      },
      labels[name],
    );
    const panel = h(
      "div.panel",
      { role: "tabpanel", id: panelId, "aria-labelledby": id },
      this.parts[name].node,
    );
    return { name, button, panel };
  }

  tabKey(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const at = this.tabs.findIndex(({ name }) => name === this.state.tab);
    const { name, button } = this.tabs[(at + step + this.tabs.length) % this.tabs.length];
    button.focus();
    this.change({ tab: name });
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
      if (this.loaded.length === 1) {
        this.state = shared;
        this.prompt.value = decode(shared.bytes); // also where it is too long to be read
      }
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
    return this.change({ bytes, query: null });
  }

  /** Look from another byte: nothing has to be computed. */
  point(query) {
    if (query === this.query && this.state.query !== null) return;
    this.state.query = query;
    this.draw(true);
    this.remember();
  }

  enter(voice, place) {
    return this.change({ places: { ...this.state.places, [voice.key]: place } });
  }

  // ---- Computing and drawing -------------------------------------------------------------------

  async look() {
    if (!this.loaded.length) return;
    const wanted = Boolean(this.parts[this.state.tab]?.wantsOverview);
    try {
      await Promise.all(this.loaded.map((voice) => voice.look(this.state, wanted)));
      this.voices = this.loaded.filter(({ seen }) => seen);
    } catch (error) {
      this.complain(error.message);
      return;
    }
    this.draw(false);
    this.remember();
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
