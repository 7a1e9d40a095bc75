// node bench.mjs RUN_FOLDER: median and p95 milliseconds of what a reader does. A bench, no test.

import { readFileSync } from "node:fs";

import { Model, untouched } from "../../minidiff/look/page/engine/model.mjs";
import { readConfig, readSafetensors } from "../../minidiff/look/page/engine/safetensors.mjs";
import { maps, numbers, overview } from "../../minidiff/look/page/engine/views.mjs";

const folder = process.argv[2];
const file = readFileSync(`${folder}/model.safetensors`);
const config = readConfig(readFileSync(`${folder}/config.json`, "utf8"));
const text = new TextEncoder().encode(readFileSync(new URL(import.meta.url), "utf8"));
const prompt = (bytes, shift = 0) => [256, ...text.subarray(shift, shift + bytes)];

const results = {};
function time(what, rounds, run) {
  const times = Array.from({ length: rounds }, (_, i) => {
    const began = performance.now();
    run(i);
    return performance.now() - began;
  }).sort((a, b) => a - b);
  const at = (share) => Number(times[Math.floor(share * (rounds - 1))].toFixed(2));
  results[what] = { median: at(0.5), p95: at(0.95), first: undefined };
}

let model;
time("load the weights", 1, () => (model = new Model(config, readSafetensors(file))));
time("first prompt of 200 bytes, cold", 1, () => model.read(prompt(200)));
time("a new prompt of 200 bytes", 15, (i) => model.read(prompt(200, i + 1)));
time("a new prompt of 1000 bytes", 3, (i) => model.read(prompt(1000, i + 1)));
model.read(prompt(200));
time("one more byte at 200", 30, (i) => model.read(prompt(201 + i)));
model.read(prompt(50));
const lam = (value) => Array(untouched(config).lam.length).fill(value);
time("lambda of all heads held, 50 bytes", 30, (i) =>
  model.read(prompt(50), { ...untouched(config), lam: lam(i / 30) }),
);
time("maps of a head, 50 bytes", 30, () => maps(model, 3, 1));
time("numbers of all heads, 50 bytes", 30, () => numbers(model));
time("overview of all heads, 50 bytes", 10, () => overview(model));
model.read(prompt(200));
time("overview of all heads, 200 bytes", 10, () => overview(model));
console.log(JSON.stringify(results, null, 1));
