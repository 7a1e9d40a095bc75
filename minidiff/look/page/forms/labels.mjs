// Labels that do not touch each other.

const GLYPH = 0.68; // width of a letter, in sizes

/** Numbers near the wanted ones, in the same order, at least `gap` apart, and none above `most`. */
export function apart(wanted, gap, most) {
  const order = wanted.map((_, i) => i).sort((i, j) => wanted[i] - wanted[j]);
  const ys = order.map((i) => wanted[i]);
  for (let round = 0; round < 200; round++)
    for (let i = 1; i < ys.length; i++) {
      const missing = gap - (ys[i] - ys[i - 1]);
      if (missing <= 1e-6) continue;
      ys[i - 1] -= missing / 2;
      ys[i] += missing / 2;
    }
  for (let i = ys.length - 1; i >= 0; i--) ys[i] = Math.min(ys[i], (ys[i + 1] ?? most + gap) - gap);
  const result = [];
  order.forEach((i, rank) => (result[i] = ys[rank]));
  return result;
}

/**
 * A place for the label of each point: {at: [x, y], words, size, towards: [u, v]}, which says where
 * the label would like to be. Returns [{x, y, anchor}], for text(). Dots and labels stay clear of
 * each other, inside the picture, as far as there is room.
 */
export function besidePoints(points, width, height) {
  const taken = points.map(({ at: [x, y] }) => [x - 9, y - 9, x + 9, y + 9]);
  return points.map((point) => {
    const found = candidates(point).map((one) => ({
      ...one,
      cost: cost(one, taken, width, height),
    }));
    const best = found.reduce((a, b) => (b.cost < a.cost - 1e-9 ? b : a));
    taken.push(best.box);
    return best;
  });
}

function candidates({ at: [x, y], words, size, towards: [u, v] }) {
  const long = GLYPH * size * words.length,
    first = Math.atan2(v, u),
    found = [];
  for (const far of [1, 1.5, 2.2, 3])
    for (const turn of [0, 1, -1, 2, -2, 3, -3, 4]) {
      const angle = first + (turn * Math.PI) / 4,
        [p, q] = [Math.cos(angle), Math.sin(angle)];
      const anchor = Math.abs(p) < 0.4 ? "middle" : p > 0 ? "start" : "end";
      const [left, base] = [x + 15 * far * p, y + 19 * far * q + 5];
      const start = left - { start: 0, middle: long / 2, end: long }[anchor];
      found.push({
        x: left,
        y: base,
        anchor,
        box: [start, base - 0.85 * size, start + long, base + 0.3 * size],
        detour: far - 1 + 0.1 * Math.abs(turn),
      });
    }
  return found;
}

/** Square pixels that the label would cover or lose, and a little for standing farther off. */
function cost({ box, detour }, taken, width, height) {
  const overlap = ([a, b, c, d], [p, q, r, s]) =>
    Math.max(0, Math.min(c, r) - Math.max(a, p)) * Math.max(0, Math.min(d, s) - Math.max(b, q));
  const area = (box[2] - box[0]) * (box[3] - box[1]);
  const outside = area - overlap(box, [0, 0, width, height]);
  return taken.reduce((sum, other) => sum + overlap(box, other), 10 * outside) + detour;
}
