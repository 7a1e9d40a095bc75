// node parity.mjs RUN_FOLDER REFERENCE [scalar]: the largest error against PyTorch, as JSON.
// REFERENCE is a safetensors file of tests/test_page.py: tokens, logits (T, V) and for each layer
// a1, a2, weights (h, T, T), lam, rms, first (T, h).

import { readFileSync } from "node:fs";

import { Model } from "../../minidiff/look/page/engine/model.mjs";
import {
  readConfig,
  readSafetensors,
  toFloat32,
} from "../../minidiff/look/page/engine/safetensors.mjs";
import { losses, maps, numbers } from "../../minidiff/look/page/engine/views.mjs";

const [folder, reference, scalar] = process.argv.slice(2);
const config = readConfig(readFileSync(`${folder}/config.json`, "utf8"));
const tensors = readSafetensors(readFileSync(`${folder}/model.safetensors`));
const model = new Model(config, tensors, { simd: scalar !== "scalar" });
const expected = new Map();
for (const [name, tensor] of readSafetensors(readFileSync(reference)))
  expected.set(name, toFloat32(tensor, new Float32Array(tensor.shape.reduce((a, b) => a * b, 1))));

const tokens = Array.from(expected.get("tokens"));
const began = performance.now();
model.read(tokens);
const ms = performance.now() - began;
const worst = { simd: model.arena.simd, ms };
const compare = (what, found, name) => {
  const wanted = expected.get(name);
  if (wanted === undefined) return;
  if (wanted.length !== found.length)
    throw new Error(`${name}: ${found.length} numbers, not ${wanted.length}`);
  const error = found.reduce((most, x, i) => Math.max(most, Math.abs(x - wanted[i])), 0);
  worst[what] = Math.max(worst[what] ?? 0, error);
};
compare("logits", model.logits.subarray(0, tokens.length * model.V), "logits");
compare("loss", Float32Array.from(losses(model)), "loss");
const { layers } = numbers(model);
for (let l = 0; l < model.L; l++) {
  for (const name of ["lam", "rms", "first"])
    if (layers[l][name]) compare(name, layers[l][name], `${l}.${name}`);
  for (let i = 0; i < model.h; i++) {
    const found = maps(model, l, i);
    for (const name of ["a1", "a2", "weights"])
      if (found[name]) compare(name, found[name], `${l}.${i}.${name}`);
  }
}
console.log(JSON.stringify(worst));
