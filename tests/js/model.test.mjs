import assert from "node:assert/strict";
import { test } from "node:test";

import { Arena } from "../../minidiff/look/page/engine/matmul.mjs";
import { Model, untouched } from "../../minidiff/look/page/engine/model.mjs";
import {
  losses,
  maps,
  nextToken,
  numbers,
  overview,
  trace,
} from "../../minidiff/look/page/engine/views.mjs";
import { randomNumbers } from "../../minidiff/look/page/ui/writer.mjs";
import { largestGap, randomTensors, tiny, tinyModel } from "./tiny.mjs";

const NEAR = 1e-5;
/** BOS and a few bytes again and again. */
const prompt = (length, seed) => {
  const random = randomNumbers(seed);
  return [256, ...Array.from({ length: length - 1 }, () => Math.floor(random() * 4))];
};
const logits = (model) => model.logits.slice(0, model.tokens.length * model.V);

test("the product in WebAssembly is that in JavaScript, for any shape and stride", () => {
  const random = randomNumbers(3),
    pick = (low, high) => low + Math.floor(random() * (high - low + 1));
  for (let round = 0; round < 60; round++) {
    const [T, I, O] = [pick(1, 11), 4 * pick(1, 9), pick(1, 11)];
    const [xs, ws, ys] = [I + 4 * pick(0, 2), I + 4 * pick(0, 2), O + pick(0, 3)];
    const found = [true, false].map((simd) => {
      const arena = new Arena(2000, { simd }),
        fill = randomNumbers(round);
      assert.equal(arena.simd, simd);
      const [x, w, y] = [T * xs, O * ws, T * ys].map((count) => arena.array(count));
      for (const array of [x, w]) array.forEach((_, i) => (array[i] = fill() - 0.5));
      y.fill(7);
      arena.matmul([y, 0, ys], [x, 0, xs], [w, 0, ws], T, I, O);
      return y.slice();
    });
    assert.ok(largestGap(...found) < NEAR, `T=${T} I=${I} O=${O}`);
  }
});

test("whatever was read before, a prompt gives what a fresh model gives", () => {
  for (const attention of ["diff_v2", "softmax"]) {
    const model = tinyModel({ attention }),
      random = randomNumbers(5),
      wheel = untouched(model.config);
    let tokens = prompt(9, 1);
    for (let round = 0; round < 40; round++) {
      const kind = Math.floor(random() * 5),
        at = Math.floor(random() * tokens.length);
      const head = Math.floor(random() * wheel.lam.length);
      if (kind === 0) tokens = [...tokens, at].slice(0, 40);
      if (kind === 1) tokens = tokens.slice(0, Math.max(1, at));
      if (kind === 2) tokens = tokens.with?.(at, round) ?? tokens;
      if (kind === 3) wheel.lam[head] = random() < 0.3 ? null : random();
      if (kind === 4) wheel.off[head] = !wheel.off[head];
      model.read(tokens, wheel);
      const fresh = tinyModel({ attention });
      fresh.read(tokens, wheel);
      assert.ok(largestGap(logits(model), logits(fresh)) < NEAR, `${attention}, round ${round}`);
      assert.ok(largestGap(numbers(model).layers[2].rms, numbers(fresh).layers[2].rms) < NEAR);
    }
  }
});

test("only what changed is computed", () => {
  const model = tinyModel(),
    wheel = untouched(model.config);
  assert.deepEqual(model.read(prompt(20, 1)), [20, 20, 20]);
  assert.deepEqual(model.read(prompt(20, 1)), [0, 0, 0]);
  assert.deepEqual(model.read([...prompt(20, 1), 65]), [1, 1, 1]);
  const edited = prompt(20, 1);
  edited[15] = 99;
  assert.deepEqual(model.read(edited), [5, 5, 5]);
  wheel.lam[4] = 0.5; // a head of layer 1
  assert.deepEqual(model.read(edited, wheel), [0, 20, 20]);
  assert.deepEqual(model.read([...edited, 1], wheel), [1, 1, 1]);
});

test("DIFF V2 with lambda held at 0 is softmax with the even query heads", () => {
  const diff = tiny(),
    softmax = tiny({ attention: "softmax" }),
    tensors = randomTensors(diff);
  const even = new Map(tensors);
  for (const [name, { bytes }] of tensors)
    if (name.endsWith("q_proj.weight")) {
      const rows = new Float32Array(bytes.buffer),
        head = 8 * 16; // d rows of D numbers
      const kept = new Float32Array(rows.length / 2);
      for (let i = 0; i < 4; i++)
        kept.set(rows.subarray(2 * i * head, (2 * i + 1) * head), i * head);
      even.set(name, {
        dtype: "F32",
        shape: [32, 16],
        bytes: new Uint8Array(kept.buffer),
      });
    }
  const [one, other] = [new Model(diff, tensors), new Model(softmax, even)];
  const wheel = untouched(diff);
  wheel.lam.fill(0);
  one.read(prompt(30, 2), wheel);
  other.read(prompt(30, 2));
  assert.ok(largestGap(logits(one), logits(other)) < NEAR);
  assert.ok(largestGap(maps(one, 2, 3).weights, maps(other, 2, 3).weights) < NEAR);
});

test("a head that is switched off adds nothing: as if its columns of W_O were 0", () => {
  const config = tiny(),
    tensors = randomTensors(config),
    model = new Model(config, tensors);
  const wheel = untouched(config);
  wheel.off[1 * 4 + 2] = true; // layer 1, head 2
  model.read(prompt(20, 3), wheel);
  const silent = new Map(tensors),
    name = "blocks.1.attn.o_proj.weight";
  const W = Float32Array.from(new Float32Array(tensors.get(name).bytes.buffer));
  for (let row = 0; row < 16; row++) W.fill(0, row * 32 + 16, row * 32 + 24);
  silent.set(name, { ...tensors.get(name), bytes: new Uint8Array(W.buffer) });
  const other = new Model(config, silent);
  other.read(prompt(20, 3));
  assert.ok(largestGap(logits(model), logits(other)) < NEAR);
  const free = new Model(config, tensors);
  free.read(prompt(20, 3));
  assert.ok(largestGap(logits(model), logits(free)) > 1e-3);
});

test("rows of maps sum to 1, those of the difference to 1 - lambda", () => {
  const model = tinyModel(),
    T = 37;
  model.read(prompt(T, 4));
  for (const [l, i] of [
    [0, 0],
    [1, 3],
    [2, 2],
  ]) {
    const { a1, a2, weights } = maps(model, l, i);
    for (let t = 0; t < T; t++) {
      const sum = (map) => map.subarray(t * T, t * T + T).reduce((a, b) => a + b);
      assert.ok(Math.abs(sum(a1) - 1) < NEAR && Math.abs(sum(a2) - 1) < NEAR);
      assert.ok(Math.abs(sum(weights) - 1 + model.layers[l].lam[t * 4 + i]) < NEAR);
      for (let s = t + 1; s < T; s++) assert.equal(a1[t * T + s], 0); // no look ahead
    }
  }
});

test("the steps of one query arrive where the forward pass does", () => {
  for (const attention of ["diff_v2", "softmax"]) {
    const model = tinyModel({ attention }),
      t = 13;
    model.read(prompt(20, 6));
    const { T, a1 } = maps(model, 1, 2),
      steps = trace(model, 1, 2, t);
    assert.ok(
      largestGap(steps.branches[0].a, Array.from(a1.subarray(t * T, t * T + t + 1))) < NEAR,
    );
    assert.ok(Math.abs(steps.rms - model.layers[1].rms[t * 4 + 2]) < NEAR);
    if (attention === "diff_v2")
      assert.ok(Math.abs(steps.lam - 1 / (1 + Math.exp(-steps.logit))) < NEAR);
    assert.equal(steps.out.length, 16);
  }
});

test("next bytes sum to 1; losses are their negative logarithms; temperature sharpens", () => {
  const model = tinyModel(),
    tokens = prompt(12, 7);
  model.read(tokens);
  const next = nextToken(model, 4);
  assert.ok(Math.abs(next.reduce((a, b) => a + b) - 1) < NEAR);
  assert.ok(Math.abs(losses(model)[4] + Math.log(next[tokens[5]])) < NEAR);
  assert.ok(Math.max(...nextToken(model, 4, 0.5)) > Math.max(...next));
});

test("the overview keeps the largest weights, and finds a head that copies", () => {
  const model = tinyModel();
  model.read(prompt(30, 8));
  const whole = overview(model),
    small = overview(model, 10);
  assert.equal(whole.side, 30);
  assert.ok(largestGap(whole.pictures.subarray(0, 900), maps(model, 0, 0).weights) === 0);
  assert.equal(small.pictures.length, 12 * 100);
  const most = (picture) => picture.reduce((a, b) => Math.max(a, Math.abs(b)), 0);
  assert.ok(Math.abs(most(small.pictures) - most(whole.pictures)) < NEAR);
  const { weights, T } = maps(model, 2, 1); // the definition, once more
  let share = 0;
  for (let t = 0; t < T; t++)
    for (let s = 1; s <= t; s++)
      if (model.tokens[s - 1] === model.tokens[t]) share += weights[t * T + s] / T;
  assert.ok(Math.abs(whole.copying[2 * 4 + 1] - share) < NEAR);
});

test("prompts of a wrong length are refused", () => {
  const model = tinyModel();
  assert.throws(() => model.read([]), /0 tokens: this model reads 1 to 40/);
  assert.throws(() => model.read(Array(41).fill(1)), /41 tokens/);
  model.read([256]);
  assert.equal(numbers(model).layers[0].first[0], 1);
});
