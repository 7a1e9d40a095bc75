import assert from "node:assert/strict";
import { test } from "node:test";

import { newestOnly } from "../../minidiff/look/page/engine/newest.mjs";
import { BOS, decode, encode, quoted, sign } from "../../minidiff/look/page/ui/bytes.mjs";
import { contrast, inkOn, tint } from "../../minidiff/look/page/ui/colour.mjs";
import { fixed, percent } from "../../minidiff/look/page/ui/dom.mjs";
import { freshState, fromHash, isHeld, toHash } from "../../minidiff/look/page/ui/state.mjs";
import { bars, steps } from "../../minidiff/look/page/ui/steps.mjs";
import { draw, randomNumbers } from "../../minidiff/look/page/ui/writer.mjs";
import { trace } from "../../minidiff/look/page/engine/views.mjs";
import { tinyModel } from "./tiny.mjs";

const SHAPES = {
  softmax: { layers: 7, heads: 6 },
  diff_v2: { layers: 7, heads: 4 },
};

test("a share link gives the state back", () => {
  const state = freshState("naïve & <b> #1\n");
  Object.assign(state, {
    bos: false,
    query: 3,
    tab: "wheel",
    temperature: 1.2,
  });
  state.places = {
    softmax: { layer: 3, head: 5 },
    diff_v2: { layer: 6, head: 0 },
  };
  const lam = Array(28).fill(null),
    off = Array(28).fill(false);
  lam[13] = 0.25;
  off[27] = true;
  state.wheels = { diff_v2: { lam, off, heads: 4 } };
  assert.deepEqual(fromHash(`#${toHash(state)}`, SHAPES), state);
  lam.fill(0.5);
  assert.ok(toHash(state).includes("diff_v2.lam=all%3A0.5"));
  assert.deepEqual(fromHash(toHash(state), SHAPES), state);
  assert.deepEqual(fromHash("", SHAPES), freshState());
});

test("a link that anybody may have typed cannot break the page", () => {
  const typed =
    "#q=-3&bos=maybe&tab=secrets&temperature=hot&diff_v2=9.1&softmax=1&diff_v2.lam=1.1:2,x,0.0:,9.9:0.5&softmax.off=7.0,,a.b";
  const state = fromHash(typed, SHAPES);
  assert.deepEqual(state, { ...freshState(), query: 0 });
  assert.ok(!isHeld(state.wheels.diff_v2));
});

test("bytes, their signs and their names", () => {
  assert.equal(decode(encode("é→x")), "é→x");
  assert.deepEqual([BOS, 32, 10, 65, 0xc3, 0].map(sign), ["BOS", "·", "↵", "A", "C3", "00"]);
  assert.deepEqual([BOS, 32, 65, 0xc3].map(quoted), ["BOS", "space", "“A”", "byte C3"]);
});

test("letters on every tint meet AA, in both themes", () => {
  for (const theme of ["light", "dark"])
    for (const hue of ["softmax", "diff_v2"])
      for (let weight = -1; weight <= 1; weight += 0.01) {
        const colour = tint(weight, hue, theme);
        const ink = inkOn(colour) === "#000" ? [0, 0, 0] : [255, 255, 255];
        assert.ok(contrast(colour, ink) >= 4.5, `${theme} ${hue} ${weight}`);
      }
});

test("numbers as the reader sees them", () => {
  assert.deepEqual([0.314, 0.0314, 0.0003, -0.2, 0, 1].map(percent), [
    "31%",
    "3.1%",
    "0%",
    "−20%",
    "0%",
    "100%",
  ]);
  assert.deepEqual([fixed(-0.004), fixed(-0.5), fixed(1.005, 1)], ["0.00", "−0.50", "1.0"]);
});

test("of many wishes the newest is done last, and none in between", async () => {
  const done = [];
  const wish = newestOnly(async (x) => {
    await Promise.resolve();
    done.push(x);
  });
  await Promise.all([1, 2, 3, 4].map(wish));
  assert.deepEqual(done, [1, 4]);
  await wish(5);
  assert.deepEqual(done, [1, 4, 5]);
  let failed = 0;
  const wrong = newestOnly(async () => {
    if (!failed++) throw new Error("no");
  });
  await assert.rejects(wrong());
  await wrong(); // and it goes on after an error
  assert.equal(failed, 2);
});

test("drawing follows the distribution; temperature 0 takes the likeliest", () => {
  const shares = Float32Array.of(0.1, 0.6, 0, 0.3),
    counts = [0, 0, 0, 0],
    random = randomNumbers(1);
  for (let i = 0; i < 20000; i++) counts[draw(shares, 1, random())]++;
  counts.forEach((count, i) => assert.ok(Math.abs(count / 20000 - shares[i]) < 0.015));
  assert.equal(counts[2], 0);
  assert.equal(draw(shares, 0, 0.99), 1);
  assert.equal(draw(Float32Array.of(0.5, 0.5), 1, 1), 1); // rounding never falls off the end
});

test("the steps say the trace's numbers", () => {
  for (const [attention, count] of [
    ["diff_v2", 6],
    ["softmax", 4],
  ]) {
    const model = tinyModel({ attention }),
      tokens = [256, 65, 60, 65];
    model.read(tokens);
    const found = trace(model, 0, 1, 3),
      told = steps(found, tokens, attention === "diff_v2");
    assert.equal(told.length, count);
    assert.deepEqual(told[1].rows[0].values, found.branches[0].a);
    if (count === 6) assert.ok(told[4].says.includes(`becomes ${fixed(found.rms / found.size)}`));
    const svg = bars(told[0].rows, 600, told[0].says);
    assert.equal(svg.match(/<rect/g).length, 4 * told[0].rows.length);
    assert.ok(svg.includes("&#60;") && !/>[^<]*<<\/text>/.test(svg)); // the byte "<" is escaped
  }
});
