// A model in a worker of its own, so that the page never waits. Requests and answers:
//
//     {id, type: "load", config: text, weights: Uint8Array or base64}  -> see load()
//     {id, type: "look", tokens, wheel, layer, head, overview}         -> see look()
//     {id, type: "trace", layer, head, query}                          -> views.trace()
//
// An answer is {id, result}, or {id, error} with one line for the reader.

import { Model } from "./model.mjs";
import { parameterCount, readConfig, readSafetensors } from "./safetensors.mjs";
import { losses, maps, numbers, overview, trace } from "./views.mjs";

let model = null;

const answers = {
  load({ config: text, weights }) {
    const config = readConfig(text);
    const file = typeof weights === "string" ? fromBase64(weights) : weights;
    model = null; // the old one's memory may go before the new one's comes
    model = new Model(config, readSafetensors(file));
    const { limit, arena } = model;
    return { config, limit, parameters: parameterCount(config), simd: arena.simd };
  },

  look({ tokens, wheel, layer, head, overview: wanted }) {
    const began = performance.now();
    const computed = model.read(tokens, wheel);
    const result = {
      tokens,
      layer,
      head,
      computed,
      logits: model.logits.slice(0, tokens.length * model.V), // (T, V)
      losses: losses(model),
      maps: maps(model, layer, head),
      numbers: numbers(model),
      overview: wanted ? overview(model) : null,
    };
    return { ...result, ms: performance.now() - began };
  },

  trace: ({ layer, head, query }) => trace(model, layer, head, query),
};

function fromBase64(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const letters = atob(text),
    bytes = new Uint8Array(letters.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = letters.charCodeAt(i);
  return bytes;
}

self.onmessage = ({ data: { id, type, ...request } }) => {
  try {
    const result = answers[type](request);
    const move = [result.logits, ...Object.values(result.maps ?? {})].filter((x) => x?.buffer);
    self.postMessage({ id, result }, [...new Set(move.map((array) => array.buffer))]);
  } catch (error) {
    self.postMessage({ id, error: error.message });
  }
};
