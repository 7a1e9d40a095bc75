// Numbers: read as people write them, and written as people read them.

/** A typed number; a decimal comma is one too, and in a whole number a comma parts thousands. */
export function parse(text, whole = false) {
  const plain = text
    .trim()
    .replace("−", "-")
    .replace(/[\s\u00a0_']/g, "");
  if (!/\d/.test(plain)) return NaN;
  return Number(whole ? plain.replace(/[.,](?=\d{3}\b)/g, "") : plain.replace(",", "."));
}

export function nearest(steps, value) {
  const distance = steps.map((step) => Math.abs(step - value));
  return distance.indexOf(Math.min(...distance));
}

export const count = (n) => n.toLocaleString("en");
export const digits = (x, many = 3) => String(Number(x.toPrecision(many))).replace("-", "−");
export const signed = (x) => (Math.abs(x) < 0.005 ? "0" : x.toFixed(2).replace("-", "−"));
/** 1500000 -> "1.5 M" */
export function unit(x) {
  const k = Math.max(0, Math.floor(Math.log10(x) / 3));
  return `${Number((x / 1000 ** k).toPrecision(4))} ${["", "k", "M", "G", "T"][k]}`.trim();
}
