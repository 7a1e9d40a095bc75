// Small models with seeded random weights, and what several tests share.

import { Model } from "../../minidiff/look/page/engine/model.mjs";
import { tensorShapes } from "../../minidiff/look/page/engine/safetensors.mjs";
import { randomNumbers } from "../../minidiff/look/page/ui/writer.mjs";

export const tiny = (changes = {}) => ({
  attention: "diff_v2",
  n_layer: 3,
  n_head: 4,
  n_kv_head: 2,
  head_dim: 8,
  n_embd: 16,
  block_size: 40,
  vocab_size: 257,
  rope_theta: 10000,
  ...changes,
});

/** name -> tensor as readSafetensors gives it. */
export function randomTensors(config, seed = 1) {
  const random = randomNumbers(seed),
    tensors = new Map();
  for (const [name, shape] of Object.entries(tensorShapes(config))) {
    const count = shape.reduce((a, b) => a * b),
      spread = shape.length === 1 ? 0.2 : 0.6;
    const values = Float32Array.from(
      { length: count },
      () => spread * (random() - 0.5) + (shape.length === 1 ? 1 : 0),
    );
    tensors.set(name, {
      dtype: "F32",
      shape,
      bytes: new Uint8Array(values.buffer),
    });
  }
  return tensors;
}

export const tinyModel = (changes, seed, options) => {
  const config = tiny(changes);
  return new Model(config, randomTensors(config, seed), options);
};

/** A .safetensors file: [[name, dtype, shape, bytes], ...]. */
export function safetensors(entries) {
  const header = {},
    pieces = [];
  let at = 0;
  for (const [name, dtype, shape, bytes] of entries) {
    header[name] = { dtype, shape, data_offsets: [at, (at += bytes.length)] };
    pieces.push(bytes);
  }
  const text = new TextEncoder().encode(JSON.stringify(header)),
    file = new Uint8Array(8 + text.length + at);
  new DataView(file.buffer).setBigUint64(0, BigInt(text.length), true);
  file.set(text, 8);
  let end = 8 + text.length;
  for (const bytes of pieces) {
    file.set(bytes, end);
    end += bytes.length;
  }
  return file;
}

export const largestGap = (a, b) => {
  if (a.length !== b.length) return Infinity;
  return a.reduce((most, x, i) => Math.max(most, Math.abs(x - b[i])), 0);
};
