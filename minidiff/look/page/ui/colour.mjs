// Colours: softmax blue and DIFF V2 vermilion (Okabe and Ito, as in plots.py); violet is what
// lambda A2 takes away. Only these; the rest is ink and paper.

const HUES = {
  light: {
    softmax: [0, 114, 178],
    diff_v2: [213, 94, 0],
    minus: [94, 76, 146],
    paper: [255, 255, 255],
  },
  dark: {
    softmax: [64, 164, 226],
    diff_v2: [240, 126, 44],
    minus: [158, 138, 220],
    paper: [24, 26, 31],
  },
};

/** What part of full colour a weight gets: the root, so that a hundredth can be seen too. */
export const strength = (weight) => Math.min(1, Math.sqrt(Math.abs(weight)));

/** [red, green, blue] of a signed weight; `hue` is the colour of what is above zero. */
export function tint(weight, hue, theme) {
  const { paper, ...hues } = HUES[theme],
    full = weight < 0 ? hues.minus : hues[hue];
  const part = strength(weight);
  return paper.map((from, i) => Math.round(from + part * (full[i] - from)));
}

const luminance = (rgb) => {
  const [r, g, b] = rgb.map((c) =>
    c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4,
  );
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
export const contrast = (one, other) => {
  const [low, high] = [luminance(one), luminance(other)].sort((a, b) => a - b);
  return (high + 0.05) / (low + 0.05);
};

const BLACK = [0, 0, 0],
  WHITE = [255, 255, 255];
/** Black or white, whichever reads better; the worse case of all is 4.58 : 1. */
export const inkOn = (rgb) => (contrast(rgb, BLACK) >= contrast(rgb, WHITE) ? "#000" : "#fff");

export const css = (rgb) => `rgb(${rgb.join(" ")})`;
