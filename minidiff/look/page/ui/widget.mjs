// The module for anywidget (look/live.py). The widget only brings the models from the kernel; the
// page then lives in the cell's HTML, which asks for it here by key. So what a notebook stores is
// that HTML with its picture, and no widget that is dead when the notebook is opened again.

import { Page } from "./page.mjs";
import { Voice } from "./voice.mjs";

// Shared by all widgets of one browser window: each loads this module anew.
const brought = (globalThis.minidiffRuns ??= new Map()); // key -> {runs, text, open}

/** Build the page into an element, once; resolves with the Page when its models are there. */
async function open(el, { runs, text }) {
  const page = new Page(el, { text, sharing: false, compact: true });
  for (const { title, config, weights, head } of runs) {
    const voice = new Voice(title, title);
    if (head) page.state.places[title] = { layer: head[0], head: head[1] };
    try {
      await voice.load({ config, weights });
      await page.add(voice);
    } catch (error) {
      page.complain(`${title}: ${error.message}`);
    }
  }
  return page;
}

export default {
  render({ model, el }) {
    const runs = model.get("runs").map(({ weights, ...run }) => ({
      ...run,
      weights: new Uint8Array(weights.buffer, weights.byteOffset, weights.byteLength),
    }));
    brought.set(model.get("key"), { runs, text: model.get("text"), open });
    el.textContent = "The models are here.";
    model.set("arrived", true);
    model.save_changes();
  },
};
