// What the reader has set, and the same as text behind the # of a share link.
//
//     bytes     the prompt           bos      whether BOS stands before it
//     query     index of the token that looks; null is the last
//     tab       which part is open   temperature  of writing on
//     places    voice key -> {layer, head}; without one, the head that copies most
//     wheels    voice key -> {lam, off}, as engine/model.mjs; without one, as trained

import { clamp } from "./dom.mjs";
import { decode, encode } from "./bytes.mjs";

export const TABS = ["heads", "wheel", "steps", "write"];
export const FIRST_TEXT = "for name in names:\n    print(na";

export const freshState = (text = FIRST_TEXT) => ({
  bytes: encode(text),
  bos: true,
  query: null,
  tab: "heads",
  temperature: 0.8,
  places: {},
  wheels: {},
});

/** State -> "text=...&q=12&diff_v2=5.1&diff_v2.lam=5.1:0.5", only what differs from a fresh one. */
export function toHash(state) {
  const fields = new URLSearchParams({ text: decode(state.bytes) });
  if (!state.bos) fields.set("bos", 0);
  if (state.query !== null) fields.set("q", state.query);
  if (state.tab !== "heads") fields.set("tab", state.tab);
  if (state.temperature !== 0.8) fields.set("temperature", state.temperature);
  for (const [key, { layer, head }] of Object.entries(state.places))
    fields.set(key, `${layer}.${head}`);
  for (const [key, { lam, off, heads }] of Object.entries(state.wheels)) {
    const at = (i) => `${Math.floor(i / heads)}.${i % heads}`;
    const held = lam
      .map((value, i) => (value === null ? null : `${at(i)}:${value}`))
      .filter(Boolean);
    const silent = off.map((yes, i) => (yes ? at(i) : null)).filter(Boolean);
    const one = held.length === lam.length && lam.every((value) => value === lam[0]);
    if (one) fields.set(`${key}.lam`, `all:${lam[0]}`);
    else if (held.length) fields.set(`${key}.lam`, held.join(","));
    if (silent.length) fields.set(`${key}.off`, silent.join(","));
  }
  return fields.toString();
}

/**
 * The state that a hash describes; `shapes` gives {layers, heads} of each voice key. What makes no
 * sense is left out: a link is text that anybody may have typed.
 */
export function fromHash(hash, shapes, text = FIRST_TEXT) {
  const fields = new URLSearchParams(hash.replace(/^#/, "")),
    state = freshState(fields.get("text") ?? text);
  const number = (name) => (fields.get(name)?.trim() ? Number(fields.get(name)) : NaN);
  state.bos = fields.get("bos") !== "0";
  if (Number.isInteger(number("q"))) state.query = Math.max(0, number("q"));
  if (TABS.includes(fields.get("tab"))) state.tab = fields.get("tab");
  if (number("temperature") >= 0) state.temperature = clamp(number("temperature"), 0, 2);
  for (const [key, { layers, heads }] of Object.entries(shapes)) {
    const place = (word) => {
      const [layer, head] = (word ?? "").split(".").map(Number);
      const fits = Number.isInteger(layer) && Number.isInteger(head) && layer >= 0 && head >= 0;
      return fits && layer < layers && head < heads ? { layer, head } : null;
    };
    const here = place(fields.get(key));
    if (here) state.places[key] = here;
    const wheel = {
      lam: Array(layers * heads).fill(null),
      off: Array(layers * heads).fill(false),
      heads,
    };
    for (const word of (fields.get(`${key}.lam`) ?? "").split(",")) {
      const [where, value] = word.split(":");
      if (!value?.trim() || !(Number(value) >= 0 && Number(value) <= 1)) continue;
      const at = place(where);
      if (where === "all") wheel.lam.fill(Number(value));
      else if (at) wheel.lam[at.layer * heads + at.head] = Number(value);
    }
    for (const word of (fields.get(`${key}.off`) ?? "").split(",")) {
      const at = place(word);
      if (at) wheel.off[at.layer * heads + at.head] = true;
    }
    if (isHeld(wheel)) state.wheels[key] = wheel;
  }
  return state;
}

/** Whether a wheel changes anything. */
export const isHeld = (wheel) =>
  Boolean(wheel) && (wheel.lam.some((x) => x !== null) || wheel.off.some(Boolean));
