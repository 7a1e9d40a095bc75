// What the page shows of a prompt that a Model has read: maps, the numbers of every head, the next
// byte, the loss, and one query step by step. Definitions as in minidiff/probe.py.

import { softmax } from "./math.mjs";

/** The maps of one head, T x T each, row by row: a1 (softmax), a2 and weights for DIFF V2. */
export function maps(model, layer, head) {
  const T = model.tokens.length,
    { diff, h } = model,
    { lam } = model.layers[layer];
  const branch = (which) => {
    const map = new Float32Array(T * T),
      { wide } = model,
      [block] = model.scratch.maps;
    for (let start = 0; start < T; start += 16) {
      const end = Math.min(start + 16, T);
      model.mapRows(layer, head, which, start, end, block, wide);
      for (let t = start; t < end; t++) {
        const row = (t - start) * wide;
        map.set(block.subarray(row, row + t + 1), t * T);
      }
    }
    return map;
  };
  const a1 = branch(0);
  if (!diff) return { T, a1, a2: null, weights: a1 };
  const a2 = branch(1);
  const weights = a1.map((a, at) => a - lam[Math.floor(at / T) * h + head] * a2[at]);
  return { T, a1, a2, weights };
}

/** The first queries say little: with few keys, each gets a large share. As probe.py. */
export const skipped = (T) => Math.max(1, Math.min(64, Math.floor(T / 4)));

/** RMS of the values that a head reads, over the whole prompt. */
function valueRms({ layers, tokens, kv, h, d }, layer, head) {
  const group = Math.floor((head * kv) / h);
  const squares = tokens.map((_, t) => layers[layer].squares[t * kv + group]);
  return Math.sqrt(squares.reduce((a, b) => a + b) / (tokens.length * d));
}

const range = (count, f) => Array.from({ length: count }, (_, i) => f(i));

/**
 * lam, rms and the share of token 0 (first: of |A1 - lambda A2|, first1 and first2 of the maps) of
 * every layer, token and head; `heads` has the same as one number for each head, over the queries
 * after the first few. rms is over the RMS of the head's values.
 */
export function numbers(model) {
  const { L, h, diff } = model,
    T = model.tokens.length,
    skip = Math.min(skipped(T), T - 1);
  const layers = model.layers.map((cache, l) => {
    const upTo = (array) => array.slice(0, T * h),
      size = range(h, (i) => valueRms(model, l, i));
    const names = diff ? ["lam", "first", "first1", "first2"] : ["first", "first1"];
    const found = Object.fromEntries(names.map((name) => [name, upTo(cache[name])]));
    return { ...found, rms: upTo(cache.rms).map((rms, at) => rms / size[at % h]) };
  });
  const heads = [];
  for (let l = 0; l < L; l++)
    for (let i = 0; i < h; i++) {
      const over = (name, f = (x) => x) => {
        let sum = 0;
        for (let t = skip; t < T; t++) sum += f(layers[l][name][t * h + i]);
        return sum / (T - skip);
      };
      heads.push({
        lam: diff ? over("lam") : null,
        rms: Math.sqrt(over("rms", (x) => x * x)),
        first: over("first"),
      });
    }
  return { layers, heads };
}

/**
 * Every head at a glance. pictures: its map of what multiplies the values, side x side, of each
 * cell the largest weight. copying: mean over queries of the weight on bytes that came after an
 * earlier copy of the query's own byte, as a head does that continues a repetition.
 */
export function overview(model, most = 48) {
  const { L, h, tokens } = model,
    T = tokens.length,
    side = Math.min(T, most);
  const pictures = new Float32Array(L * h * side * side),
    copying = new Float32Array(L * h);
  for (let l = 0; l < L; l++)
    for (let i = 0; i < h; i++) {
      const { weights } = maps(model, l, i),
        from = (l * h + i) * side * side;
      for (let t = 0; t < T; t++)
        for (let s = 0; s <= t; s++) {
          const cell = from + Math.floor((t * side) / T) * side + Math.floor((s * side) / T);
          const weight = weights[t * T + s];
          if (Math.abs(weight) > Math.abs(pictures[cell])) pictures[cell] = weight;
          if (s > 0 && tokens[s - 1] === tokens[t]) copying[l * h + i] += weight / T;
        }
    }
  return { side, pictures, copying };
}

/** The probability of each token after token t. */
export function nextToken(model, t, temperature = 1) {
  const row = model.logits.slice(t * model.V, (t + 1) * model.V);
  softmax(row, 0, row.length, 1 / temperature);
  return row;
}

/** Nats for each token but the first: how surprised the model was by it. */
export function losses(model) {
  return model.tokens.slice(1).map((token, t) => -Math.log(nextToken(model, t)[token]));
}

/** One query of one head, every step of the formula with its numbers. size: RMS of the values. */
export function trace(model, layer, head, t) {
  const { d, h, H, kv, D, diff, wide } = model,
    cache = model.layers[layer];
  const group = Math.floor((head * kv) / h),
    n = t + 1;
  const value = (s, c) => cache.vT[(group * d + c) * wide + s];
  const rms = (vector) => Math.sqrt(vector.reduce((sum, x) => sum + x * x, 0) / vector.length);
  const branches = (diff ? [0, 1] : [0]).map((which) => {
    const at = (t * H + (diff ? 2 * head + which : head)) * d;
    const q = cache.q.slice(at, at + d);
    const scores = Array.from({ length: n }, (_, s) => {
      const k = cache.k.subarray((s * kv + group) * d, (s * kv + group + 1) * d);
      return q.reduce((sum, x, c) => sum + x * k[c], 0) / Math.sqrt(d);
    });
    const a = Float64Array.from(scores);
    softmax(a, 0, n);
    const context = Array.from({ length: d }, (_, c) =>
      a.reduce((sum, w, s) => sum + w * value(s, c), 0),
    );
    return { q, scores, a: Array.from(a), context, rms: rms(context) };
  });
  const lam = diff ? cache.lam[t * h + head] : 0,
    logit = diff ? cache.logit[t * h + head] : null;
  const context = branches[0].context.map((c, i) => c - (diff ? lam * branches[1].context[i] : 0));
  const W = model.weights[`blocks.${layer}.attn.o_proj.weight`]; // (D, h d)
  const out = Array.from({ length: D }, (_, row) =>
    context.reduce((sum, c, i) => sum + c * W[row * h * d + head * d + i], 0),
  );
  return {
    branches,
    lam,
    size: valueRms(model, layer, head),
    logit,
    context,
    rms: rms(context),
    out,
    residual: cache.x.slice(t * D, (t + 1) * D),
  };
}
