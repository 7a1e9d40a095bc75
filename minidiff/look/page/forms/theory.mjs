// The closed forms of theory.py in JavaScript, so that an explorer answers at once and without a
// kernel. tests/test_forms_theory.py compares the two over random inputs.
//
// A row of n weights is a list of groups [weight, count]: so many tokens have this weight.

const sumOver = (row, f) => row.reduce((sum, [weight, count]) => sum + count * f(weight), 0);

// sqrt((1 - rho) |w|^2 + rho (sum w)^2)
export function expectedRms(row, rho = 0) {
  const squares = sumOver(row, (w) => w * w);
  const total = sumOver(row, (w) => w);
  return Math.sqrt((1 - rho) * squares + rho * total * total);
}

// 1 / |a|^2 of a softmax row
export const effectiveTokens = (row) => 1 / sumOver(row, (w) => w * w);

// [lowest, highest] RMS over n tokens; lam = null for softmax. Correlation rho adds the part that
// all values share, times the sum of the weights, which is 1 or 1 - lambda.
export function rmsBounds(n, lam = null, rho = 0) {
  const total = 1 - (lam ?? 0);
  const highest = n > 1 ? Math.sqrt(1 + (lam ?? 0) ** 2) : total;
  const correlated = (bound) => Math.sqrt((1 - rho) * bound * bound + rho * total * total);
  return [correlated(total / Math.sqrt(n)), correlated(highest)];
}

// softmax of one logit that stands `gap` above n - 1 equal ones: [weight of the peak, of the rest]
export function peakedRow(n, gap) {
  const peak = 1 / (1 + (n - 1) * Math.exp(-gap));
  return [peak, peak * Math.exp(-gap)];
}

// A1 - lam A2, where both rows peak, at the same token or at two different ones
export function differenceRow(n, gap1, gap2, lam, same) {
  const [peak1, rest1] = peakedRow(n, gap1);
  const [peak2, rest2] = peakedRow(n, gap2);
  if (same)
    return [
      [peak1 - lam * peak2, 1],
      [rest1 - lam * rest2, n - 1],
    ];
  return [
    [peak1 - lam * rest2, 1],
    [rest1 - lam * peak2, 1],
    [rest1 - lam * rest2, n - 2],
  ];
}

// Weights of one attention layer, by part; D model width, h heads, hKv key/value heads of size d
export function attentionParts(D, h, hKv, d, diffV2 = false) {
  const heads = h * d * D;
  return { q: heads * (diffV2 ? 2 : 1), o: heads, kv: 2 * hKv * d * D, lambda: diffV2 ? h * D : 0 };
}
export const attentionParams = (...shape) =>
  Object.values(attentionParts(...shape)).reduce((a, b) => a + b);

// Share of the weights that DIFF V2 saves against softmax with `factor` times h heads
export const saved = (D, h, hKv, d, factor = 2) =>
  1 - attentionParams(D, h, hKv, d, true) / attentionParams(D, factor * h, hKv, d);

// [operations, bytes] of one decoded token's attention in one layer
export const decodeAttentionCost = (nKeys, queryHeads, hKv, d, bytesPerNumber = 2) => [
  4 * nKeys * queryHeads * d,
  2 * nKeys * hKv * d * bytesPerNumber,
];
