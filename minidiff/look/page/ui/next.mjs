// What each model expects after the byte that is pointed at; a thin mark shows the model without
// the wheel's changes.

import { quoted, sign } from "./bytes.mjs";
import { fixed, h, percent, range, set, write } from "./dom.mjs";
import { isHeld } from "./state.mjs";
import { strongest } from "./cards.mjs";

const SHOWN = 5;

export class Next {
  constructor(page) {
    this.page = page;
    this.title = h("h2", {}, "Next byte");
    this.lists = h("div.lists");
    this.node = h("section.next", { "aria-label": "Next byte" }, this.title, this.lists);
    this.made = new Map();
  }

  make(voice) {
    const rows = range(SHOWN, () => {
      const parts = {
        byte: h("span.byte"),
        bar: h("span.bar"),
        was: h("span.was"),
        value: h("span.value"),
      };
      return {
        ...parts,
        node: h("li", {}, parts.byte, h("span.track", {}, parts.bar, parts.was), parts.value),
      };
    });
    const note = h("p.note");
    const list = h(
      "ol",
      { "aria-label": `${voice.title}: likeliest next bytes` },
      rows.map(({ node }) => node),
    );
    const node = h(`div.list.${voice.kind}`, {}, h("h3", {}, voice.title), list, note);
    this.made.set(voice, { rows, note, node });
  }

  draw() {
    const { voices, state, query } = this.page;
    for (const voice of this.made.keys()) if (!voices.includes(voice)) this.made.delete(voice);
    for (const voice of voices) if (!this.made.has(voice)) this.make(voice);
    const nodes = voices.map((voice) => this.made.get(voice).node);
    if (
      nodes.some((node, i) => node !== this.lists.children[i]) ||
      nodes.length !== this.lists.children.length
    )
      this.lists.replaceChildren(...nodes);
    for (const voice of voices) {
      const { tokens } = voice.seen,
        at = Math.min(query, tokens.length - 1);
      write(this.title, `Next byte after ${quoted(tokens[at])}`);
      const { rows, note } = this.made.get(voice),
        found = voice.next(at);
      const before = isHeld(state.wheels[voice.key]) ? voice.next(at, voice.before) : null;
      for (const [i, [token, share]] of strongest(found, SHOWN).entries()) {
        write(rows[i].byte, sign(token));
        write(rows[i].value, percent(share));
        rows[i].bar.style.width = `${100 * share}%`;
        rows[i].was.hidden = !before;
        if (before) rows[i].was.style.left = `${100 * before[token]}%`;
        set(rows[i].node, "aria-label", `${quoted(token)} ${percent(share)}`);
      }
      const real = tokens[at + 1];
      const came =
        real === undefined
          ? ""
          : `came: ${quoted(real)}, ${percent(found[real])}; loss ${fixed(-Math.log(found[real]))}`;
      write(note, came);
    }
  }
}
