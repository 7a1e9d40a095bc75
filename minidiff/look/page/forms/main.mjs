// All closed-form explorers, for a notebook's output or any page: open(element) reads what to build
// from its data-form, {"name": "rms", "start": {...}}.

import { cost } from "./cost.mjs";
import { difference } from "./difference.mjs";
import { form } from "./form.mjs";
import { hull } from "./hull.mjs";
import { pairs } from "./pairs.mjs";
import { rms } from "./rms.mjs";

export const EXPLORERS = { difference, rms, cost, hull, pairs };

export function open(el) {
  const { name, start } = JSON.parse(el.dataset.form);
  const explorer = EXPLORERS[name],
    [first] = Object.values(explorer.scenes);
  return form(el, explorer, { ...first, ...start });
}
