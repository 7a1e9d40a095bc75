// The forward pass of minidiff/model.py for one prompt at a time, softmax or DIFF V2, with a cache
// that keeps what an edit leaves as it was. Names as there: D model width, h output heads, H query
// heads (2h for DIFF V2), kv key/value heads, d head size, T tokens.
//
// Every layer keeps, for each token, its input and its queries, keys and values. So a new byte runs
// one row through all layers, a new lambda in layer 3 all rows through layers 3 and later, and the
// maps of any head can be computed when they are asked for.

import { ropeTable, softmax } from "./math.mjs";
import { Arena } from "./matmul.mjs";
import { hiddenSize, parameterCount, tensorShapes, toFloat32 } from "./safetensors.mjs";

const EPSILON = 1e-6; // of every RMSNorm
const MOST_TOKENS = 1024; // memory for so many positions is set aside
const ROWS = 16; // queries that share one block of the maps

/** What one may hold: lambda of a head at a value (null: as trained), heads switched off. */
export const untouched = (config) => ({
  lam: Array(config.n_layer * config.n_head).fill(null),
  off: Array(config.n_layer * config.n_head).fill(false),
});

export class Model {
  /** From readConfig() and readSafetensors(). Throws one line where a tensor does not fit. */
  constructor(config, tensors, { simd = true } = {}) {
    const { n_layer: L, n_head: h, n_kv_head: kv, head_dim: d, n_embd: D } = config;
    const diff = config.attention === "diff_v2",
      H = diff ? 2 * h : h;
    const limit = Math.min(config.block_size, MOST_TOKENS),
      hidden = hiddenSize(config);
    const wide = 4 * Math.ceil(limit / 4); // a row of V^T, whole groups of 4
    Object.assign(this, {
      config,
      L,
      h,
      kv,
      d,
      D,
      H,
      diff,
      limit,
      hidden,
      wide,
      V: config.vocab_size,
    });

    const layer = limit * (D + H * d + kv * d) + kv * d * wide + limit * (kv + 7 * h + 8);
    const shared = limit * (2 * D + H * d + 2 * hidden + this.V) + 2 * ROWS * wide;
    const slack = 4 * (Object.keys(tensorShapes(config)).length + 16 * L + 16);
    this.arena = new Arena(parameterCount(config) + L * layer + shared + slack + 1024, { simd });
    this.weights = this.readWeights(tensors);
    this.rope = ropeTable(limit, d, config.rope_theta);
    const array = (count) => this.arena.array(count);
    this.layers = Array.from({ length: L }, () => ({
      valid: 0, // the first so many tokens are right
      x: array(limit * D),
      q: array(limit * H * d),
      k: array(limit * kv * d),
      vT: array(kv * d * wide),
      squares: array(limit * kv), // |v|^2 of each token and value head
      logit: array(limit * h),
      lam: array(limit * h), // of each token and head, as used
      rms: array(limit * h), // of the context, not yet divided by that of the values
      first: array(limit * h),
      first1: array(limit * h),
      first2: array(limit * h), // share on token 0
    }));
    this.scratch = {
      out: array(limit * D),
      normed: array(limit * D),
      context: array(limit * H * d),
      gate: array(limit * hidden),
      up: array(limit * hidden),
      maps: [array(ROWS * wide), array(ROWS * wide)],
    };
    this.logits = array(limit * this.V);
    this.tokens = [];
    this.wheel = untouched(config);
  }

  readWeights(tensors) {
    const weights = {};
    for (const [name, shape] of Object.entries(tensorShapes(this.config))) {
      const found = tensors.get(name);
      if (!found)
        throw new Error(`model.safetensors has no ${name}: does it belong to this config.json?`);
      if (String(found.shape) !== String(shape))
        throw new Error(
          `${name} is (${found.shape}) and config.json says (${shape}): they belong to different runs`,
        );
      const scale = tensors.get(`${name}.scale`);
      const factors = scale && toFloat32(scale, new Float32Array(shape[0]));
      weights[name] = toFloat32(found, this.arena.array(shape.reduce((a, b) => a * b)), factors);
      if (!weights[name].every(Number.isFinite))
        throw new Error(`${name} holds numbers that are not finite: did the run diverge?`);
    }
    return weights;
  }

  /**
   * Read a prompt: 1 to `limit` token ids. Only what changed since the last call is computed.
   * Afterwards the layers, logits (T x V) and everything below describe this prompt.
   */
  read(tokens, wheel = untouched(this.config)) {
    if (!(tokens.length >= 1 && tokens.length <= this.limit))
      throw new Error(`${tokens.length} tokens: this model reads 1 to ${this.limit}`);
    let same = 0;
    while (same < Math.min(tokens.length, this.tokens.length) && tokens[same] === this.tokens[same])
      same++;
    const held = wheel.lam.findIndex(
      (lam, i) => lam !== this.wheel.lam[i] || wheel.off[i] !== this.wheel.off[i],
    );
    const layer = held < 0 ? this.L : Math.floor(held / this.h); // the first that the wheel changed
    this.layers.forEach((cache, l) => (cache.valid = l < layer ? Math.min(cache.valid, same) : 0));
    [this.tokens, this.wheel] = [Array.from(tokens), structuredClone(wheel)];
    const { D, L } = this,
      T = tokens.length,
      embed = this.weights["embed.weight"];
    for (let t = this.layers[0].valid; t < T; t++)
      this.layers[0].x.set(embed.subarray(tokens[t] * D, (tokens[t] + 1) * D), t * D);
    const computed = this.layers.map(({ valid }) => T - valid);
    for (let l = 0; l < L; l++) {
      const from = this.layers[l].valid;
      if (from < T) this.block(l, from, T);
      this.layers[l].valid = T;
    }
    const from = T - computed[L - 1];
    if (from < T) {
      this.norm(this.scratch.out, this.weights["norm.weight"], from, T);
      this.project(this.logits, this.V, this.scratch.normed, "embed.weight", from, T);
    }
    return computed; // rows that each layer had to run
  }

  /** x + attention(norm(x)), then x + mlp(norm(x)), for the tokens from..T-1. */
  block(l, from, T) {
    const { D, hidden, scratch, layers, weights } = this,
      name = `blocks.${l}.`;
    const out = l + 1 < this.L ? layers[l + 1].x : scratch.out;
    this.norm(layers[l].x, weights[`${name}attn_norm.weight`], from, T);
    this.heads(l, from, T);
    this.project(out, D, scratch.context, `${name}attn.o_proj.weight`, from, T);
    for (let i = from * D; i < T * D; i++) out[i] += layers[l].x[i];
    this.norm(out, weights[`${name}mlp_norm.weight`], from, T);
    const { gate, up } = scratch;
    this.project(gate, hidden, scratch.normed, `${name}mlp.w1.weight`, from, T);
    this.project(up, hidden, scratch.normed, `${name}mlp.w3.weight`, from, T);
    for (let i = from * hidden; i < T * hidden; i++) up[i] *= gate[i] / (1 + Math.exp(-gate[i]));
    this.project(scratch.normed, D, up, `${name}mlp.w2.weight`, from, T);
    for (let i = from * D; i < T * D; i++) out[i] += scratch.normed[i];
  }

  /** Queries, keys, values and lambda of these tokens; then the context of every head. */
  heads(l, from, T) {
    const { d, h, H, kv, wide, scratch, wheel } = this,
      cache = this.layers[l];
    const name = `blocks.${l}.attn.`,
      values = scratch.context; // the values only pass through
    this.project(cache.q, H * d, scratch.normed, `${name}q_proj.weight`, from, T);
    this.project(cache.k, kv * d, scratch.normed, `${name}k_proj.weight`, from, T);
    this.project(values, kv * d, scratch.normed, `${name}v_proj.weight`, from, T);
    this.rotate(cache.q, H, from, T);
    this.rotate(cache.k, kv, from, T);
    cache.squares.fill(0, from * kv, T * kv);
    for (let t = from; t < T; t++)
      for (let c = 0; c < kv * d; c++) {
        const v = values[t * kv * d + c];
        cache.vT[c * wide + t] = v;
        cache.squares[t * kv + Math.floor(c / d)] += v * v;
      }
    if (this.diff)
      this.project(cache.logit, h, scratch.normed, `${name}lambda_proj.weight`, from, T);
    for (let i = from * h; i < T * h; i++)
      cache.lam[i] = this.diff
        ? (wheel.lam[l * h + (i % h)] ?? 1 / (1 + Math.exp(-cache.logit[i])))
        : 0;
    for (let i = 0; i < h; i++) this.attend(l, i, from, T);
  }

  /** The context of output head i: the rows of its map, block by block, times the values. */
  attend(l, i, from, T) {
    const { d, h, wide, scratch } = this,
      cache = this.layers[l];
    const [a1, a2] = scratch.maps,
      off = this.wheel.off[l * h + i];
    const group = Math.floor((i * this.kv) / h);
    for (let start = from; start < T; start += ROWS) {
      const end = Math.min(start + ROWS, T);
      this.mapRows(l, i, 0, start, end, a1, wide);
      if (this.diff) this.mapRows(l, i, 1, start, end, a2, wide);
      for (let t = start; t < end; t++) {
        const at = t * h + i,
          row = (t - start) * wide,
          lam = cache.lam[at];
        cache.first1[at] = a1[row];
        if (this.diff) {
          cache.first2[at] = a2[row];
          for (let s = row; s <= row + t; s++) a1[s] -= lam * a2[s];
        }
        let total = 0; // of the sizes: a row of A1 - lambda A2 sums to 1 - lambda only
        for (let s = row; s <= row + t; s++) total += Math.abs(a1[s]);
        cache.first[at] = total ? Math.abs(a1[row]) / total : 0;
      }
      const context = [scratch.context, start * h * d + i * d, h * d];
      const keys = 4 * Math.ceil(end / 4); // a map is 0 beyond the row's last key
      this.arena.matmul(
        context,
        [a1, 0, wide],
        [cache.vT, group * d * wide, wide],
        end - start,
        keys,
        d,
      );
      for (let t = start; t < end; t++) {
        const row = scratch.context.subarray((t * h + i) * d, (t * h + i + 1) * d);
        cache.rms[t * h + i] = Math.sqrt(row.reduce((sum, c) => sum + c * c, 0) / d);
        if (off) row.fill(0);
      }
    }
  }

  /** Rows start..end-1 of a softmax map of output head i; branch 0 or 1; later keys get 0. */
  mapRows(l, i, branch, start, end, map, stride) {
    const { d, H, kv, h } = this,
      cache = this.layers[l];
    const j = this.diff ? 2 * i + branch : i,
      group = Math.floor((i * kv) / h);
    const queries = [cache.q, (start * H + j) * d, H * d],
      keys = [cache.k, group * d, kv * d];
    this.arena.matmul([map, 0, stride], queries, keys, end - start, d, end);
    for (let t = start; t < end; t++) {
      const row = (t - start) * stride;
      softmax(map, row, row + t + 1, 1 / Math.sqrt(d));
      map.fill(0, row + t + 1, row + 4 * Math.ceil(end / 4));
    }
  }

  // ---- Small parts -----------------------------------------------------------------------------

  /** y[t] = W x[t]; rows of x are as long as those of W. */
  project(y, width, x, name, from, T) {
    const W = this.weights[name],
      columns = W.length / width;
    const place = (array, stride) => [array, from * stride, stride];
    this.arena.matmul(
      place(y, width),
      place(x, columns),
      [W, 0, columns],
      T - from,
      columns,
      width,
    );
  }

  /** RMSNorm of the rows of x into scratch.normed. */
  norm(x, gain, from, T) {
    const { D } = this,
      { normed } = this.scratch;
    for (let t = from; t < T; t++) {
      let squares = 0;
      for (let i = t * D; i < (t + 1) * D; i++) squares += x[i] * x[i];
      const factor = 1 / Math.sqrt(squares / D + EPSILON);
      for (let i = 0; i < D; i++) normed[t * D + i] = x[t * D + i] * factor * gain[i];
    }
  }

  /** RoPE: turn the channel pairs (0,1), (2,3), ... of every head by the token's angles. */
  rotate(x, heads, from, T) {
    const { d, rope } = this;
    for (let t = from; t < T; t++)
      for (let c = 0; c < heads * d; c += 2) {
        const at = t * heads * d + c,
          angle = t * d + (c % d);
        const even = x[at],
          odd = x[at + 1],
          cos = rope[angle],
          sin = rope[angle + 1];
        x[at] = even * cos - odd * sin;
        x[at + 1] = even * sin + odd * cos;
      }
  }
}
