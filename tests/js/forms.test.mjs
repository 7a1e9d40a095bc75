import assert from "node:assert/strict";
import { test } from "node:test";

import { cost } from "../../minidiff/look/page/forms/cost.mjs";
import { difference } from "../../minidiff/look/page/forms/difference.mjs";
import { differenceSet, hull, mix, turn, weightsAt } from "../../minidiff/look/page/forms/hull.mjs";
import { digits, nearest, parse, unit } from "../../minidiff/look/page/forms/numbers.mjs";
import { pairing, pairs } from "../../minidiff/look/page/forms/pairs.mjs";
import { rms } from "../../minidiff/look/page/forms/rms.mjs";
import { randomNumbers } from "../../minidiff/look/page/ui/writer.mjs";

test("numbers are read as people write them", () => {
  const read = (...texts) => texts.map((text) => parse(text));
  assert.deepEqual(read("0.5", "0,5", " 1e-2 ", "−3"), [0.5, 0.5, 0.01, -3]);
  assert.deepEqual(
    ["16384", "16,384", "16.384", "16 384"].map((text) => parse(text, true)),
    Array(4).fill(16384),
  );
  assert.deepEqual([parse("3.5", true), parse("3,5", true)].map(Number.isInteger), [false, false]);
  for (const text of ["", "many", "-", "1.2.3"]) assert.ok(Number.isNaN(parse(text)), text);
});

test("every step of the cost explorer is possible, wherever one starts", () => {
  const random = randomNumbers(4),
    { controls } = cost;
  const state = { ...cost.scenes["A large model"] };
  for (let round = 0; round < 300; round++) {
    const { key, steps } = controls[Math.floor(random() * controls.length)],
      possible = steps(state);
    assert.ok(possible.length > 0);
    state[key] = possible[Math.floor(random() * possible.length)];
    assert.equal(cost.check(state), null, JSON.stringify(state));
  }
  assert.match(cost.check({ ...state, n_head: 6, n_kv_head: 4, head_dim: 64 }), /straddles/);
});

test("what is drawn holds no NaN, whatever is set", () => {
  const random = randomNumbers(2);
  for (const explorer of [difference, rms, cost, hull, pairs])
    for (const scene of Object.values(explorer.scenes)) {
      const state = structuredClone(scene);
      for (let round = 0; round < 12; round++) {
        for (const { key, steps } of explorer.controls) {
          const possible = steps ? steps(state) : [true, false];
          state[key] = possible[Math.floor(random() * possible.length)];
        }
        if (explorer.check?.(state)) continue;
        const drawn = explorer.draw(state);
        assert.ok(
          !/NaN|undefined|Infinity/.test(drawn),
          `${explorer.name} ${JSON.stringify(state)}`,
        );
        assert.ok(drawn.includes('aria-label="'));
      }
    }
});

test("the set of differences holds all of them, and its corners are some", () => {
  const random = randomNumbers(9),
    row = () => {
      const some = [random(), random(), random()].map((x) => -Math.log(x)),
        sum = some.reduce((a, b) => a + b);
      return some.map((x) => x / sum);
    };
  for (let round = 0; round < 200; round++) {
    const values = [0, 1, 2].map(() => [4 * random() - 2, 4 * random() - 2]),
      lam = random();
    const corners = differenceSet(values, lam);
    const [c1, c2] = [mix(row(), values), mix(row(), values)];
    const c = c1.map((x, i) => x - lam * c2[i]);
    const inside = (p) =>
      corners.every((corner, i) => turn(corner, corners[(i + 1) % corners.length], p) > -1e-9);
    assert.ok(inside(c) && (lam > 0.99 || inside(mix(row(), values).map((x) => (1 - lam) * x))));
    const differences = values.flatMap(([x, y]) =>
      values.map(([u, v]) => [x - lam * u, y - lam * v]),
    );
    for (const corner of corners)
      assert.ok(differences.some((p) => Math.hypot(p[0] - corner[0], p[1] - corner[1]) < 1e-12));
  }
});

test("a point of the triangle is the mean that its weights say; one outside comes to its edge", () => {
  const values = [
    [0, 0],
    [2, 0],
    [0, 1],
  ];
  const weights = weightsAt([0.5, 0.25], values);
  assert.ok(Math.abs(weights.reduce((a, b) => a + b) - 1) < 1e-12);
  mix(weights, values).forEach((x, i) => assert.ok(Math.abs(x - [0.5, 0.25][i]) < 1e-12));
  assert.deepEqual(weightsAt([-1, -1], values), [1, 0, 0]);
  assert.deepEqual(
    weightsAt(
      [1, 1],
      [
        [0, 0],
        [1, 1],
        [2, 2],
      ],
    ),
    [1 / 3, 1 / 3, 1 / 3],
  ); // no triangle
});

test("neighbours share a key/value head where h_kv divides h; halves do only with one", () => {
  for (let h = 1; h <= 12; h++)
    for (let kv = 1; kv <= 2 * h; kv++) {
      if ((2 * h) % kv) continue;
      const wrong = (halves) =>
        pairing({ n_head: h, n_kv_head: kv, halves }).filter(([, , same]) => !same).length;
      assert.equal(wrong(false) === 0, h % kv === 0);
      assert.equal(wrong(true) === 0, kv === 1);
      const heads = pairing({ n_head: h, n_kv_head: kv, halves: true }).flatMap(([a, b]) => [a, b]);
      assert.deepEqual(
        heads.sort((a, b) => a - b),
        Array.from({ length: 2 * h }, (_, i) => i),
      );
    }
});

test("numbers as they are written", () => {
  assert.deepEqual([unit(999), unit(1500000), unit(33554432)], ["999", "1.5 M", "33.55 M"]);
  assert.deepEqual([digits(0.031249), digits(-2)], ["0.0312", "−2"]);
  assert.equal(nearest([1, 2, 4, 8], 5), 2);
});
