// Two small functions of numbers.

/** Cosine and sine of each position and channel pair, rounded where PyTorch rounds. */
export function ropeTable(limit, d, theta) {
  const table = new Float32Array(limit * d);
  for (let c = 0; c < d; c += 2) {
    const frequency = Math.fround(theta ** -Math.fround(c / d));
    for (let t = 0; t < limit; t++) {
      const angle = Math.fround(t * frequency);
      table[t * d + c] = Math.cos(angle);
      table[t * d + c + 1] = Math.sin(angle);
    }
  }
  return table;
}

/** softmax(factor * x[start..end-1]) in place. */
export function softmax(x, start, end, factor = 1) {
  let top = -Infinity,
    sum = 0;
  for (let i = start; i < end; i++) if (x[i] > top) top = x[i];
  for (let i = start; i < end; i++) sum += x[i] = Math.exp(factor * (x[i] - top));
  for (let i = start; i < end; i++) x[i] /= sum;
}
