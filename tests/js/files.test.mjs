import assert from "node:assert/strict";
import { test } from "node:test";

import { Model } from "../../minidiff/look/page/engine/model.mjs";
import {
  readConfig,
  readSafetensors,
  toFloat32,
} from "../../minidiff/look/page/engine/safetensors.mjs";
import { readRun } from "../../minidiff/look/page/ui/files.mjs";
import { randomTensors, safetensors, tiny } from "./tiny.mjs";

const bytesOf = (array) => new Uint8Array(array.buffer);
const numbers = (tensor, scale) =>
  Array.from(toFloat32(tensor, new Float32Array(tensor.shape.reduce((a, b) => a * b)), scale));
const configText = (changes) => JSON.stringify({ model: tiny(changes) });

test("all kinds of numbers are read", () => {
  const file = safetensors([
    ["a", "F32", [2], bytesOf(Float32Array.of(1.5, -2))],
    ["odd", "I8", [1], Uint8Array.of(7)], // the next tensor starts at an odd address
    ["b", "BF16", [2, 2], bytesOf(Uint16Array.of(0x3f80, 0xbf00, 0x4049, 0))],
    ["c", "F16", [4], bytesOf(Uint16Array.of(0x3c00, 0xc000, 0x0001, 0x3555))],
    ["d", "I8", [2, 2], Uint8Array.of(1, 255, 127, 129)],
  ]);
  const tensors = readSafetensors(file);
  assert.deepEqual(numbers(tensors.get("a")), [1.5, -2]);
  assert.deepEqual(numbers(tensors.get("b")), [1, -0.5, 3.140625, 0]);
  assert.deepEqual(numbers(tensors.get("c")), [1, -2, 2 ** -24, 0.333251953125]);
  assert.deepEqual(numbers(tensors.get("d"), [0.5, 2]), [0.5, -0.5, 254, -254]);
});

test("a file that is cut short, or another kind of file, is refused in one line", () => {
  const file = safetensors([["a", "F32", [4], new Uint8Array(16)]]);
  assert.throws(() => readSafetensors(file.subarray(0, -1)), /a is cut short.*copy it again/);
  assert.throws(() => readSafetensors(file.subarray(0, 5)), /model\.safetensors of a run folder/);
  assert.throws(
    () => readSafetensors(new TextEncoder().encode("PNG, or anything else")),
    /\.safetensors file/,
  );
  assert.throws(
    () => readSafetensors(safetensors([["a", "I64", [1], new Uint8Array(8)]])),
    /type I64/,
  );
});

test("a config that the page cannot draw says which and why", () => {
  for (const [changes, problem] of [
    [{ attention: "diff_v1" }, /"diff_v1" is not drawn here/],
    [{ attention: "gated" }, /"gated" is not drawn here/],
    [{ vocab_size: 50257 }, /50257 tokens/],
    [{ head_dim: 6 }, /head_dim = 6.*multiple of 4/],
    [{ n_kv_head: 3 }, /straddle two groups/],
    [{ n_layer: 0 }, /no n_layer/],
    [{ n_layer: 100, n_embd: 1024 }, /million weights/],
  ])
    assert.throws(() => readConfig(configText(changes)), problem);
  assert.throws(() => readConfig("{"), /not JSON/);
  assert.throws(() => readConfig("{}"), /no model of minidiff/);
  assert.throws(() => readConfig("null"), /no model of minidiff/);
  assert.equal(readConfig(configText()).n_layer, 3);
});

test("weights of another run are refused", () => {
  const config = tiny(),
    tensors = randomTensors(config);
  assert.throws(
    () => new Model(tiny({ n_layer: 4 }), tensors),
    /no blocks\.3.*belong to this config/,
  );
  assert.throws(() => new Model(tiny({ n_embd: 20 }), tensors), /belong to different runs/);
  const values = new Float32Array(16).fill(NaN);
  tensors.set("norm.weight", {
    dtype: "F32",
    shape: [16],
    bytes: bytesOf(values),
  });
  assert.throws(() => new Model(config, tensors), /norm\.weight.*not finite/);
});

const file = (name, content = "", path) => Object.assign(new Blob([content]), { name, path });

test("a run folder among what was dropped", async () => {
  const good = [
    file("config.json", "{}", "/runs/mine/config.json"),
    file("metrics.jsonl"),
    file("model.safetensors", "abc"),
  ];
  const run = await readRun(good);
  assert.equal(run.name, "mine");
  assert.equal(run.config, "{}");
  assert.deepEqual(run.weights, new TextEncoder().encode("abc"));
  await assert.rejects(
    readRun([file("photo.jpg")]),
    /no config\.json and no model\.safetensors here/,
  );
  await assert.rejects(
    readRun([file("config.json"), file("checkpoint.safetensors")]),
    /--resume only/,
  );
  await assert.rejects(readRun([...good, ...good]), /one run folder at a time/);
});
