// A few lines in place of a framework.

const KEYED = ["button", "input", "select", "textarea", "summary"];

/** An element: h("button.quiet", {onclick, "aria-label": ...}, "text", child, ...). */
export function h(what, attributes = {}, ...children) {
  const [tag, ...classes] = what.split(".");
  const node = document.createElement(tag);
  if (classes.length) node.className = classes.join(" ");
  // JupyterLab takes keys for its own shortcuts from what has the focus, but for this attribute.
  if (KEYED.includes(tag) || "tabindex" in attributes)
    set(node, "data-lm-suppress-shortcuts", true);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else set(node, name, value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

/** Set an attribute only where it changes; false and null take it away. */
export function set(node, name, value) {
  if (value === false || value === null || value === undefined) node.removeAttribute(name);
  else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
}

/** Set the text only where it changes. */
export function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

let ids = 0;
export const uniqueId = (stem) => `minidiff-${stem}-${++ids}`;

export const range = (count, f = (i) => i) => Array.from({ length: count }, (_, i) => f(i));
export const clamp = (x, low, high) => Math.min(Math.max(x, low), high);

// ---- Numbers as the reader sees them -----------------------------------------------------------

const minus = (text) => text.replace("-", "−");
export const fixed = (x, digits = 2) =>
  minus((Math.abs(x) < 0.5 * 10 ** -digits ? 0 : x).toFixed(digits));
/** 0.314 -> "31%"; under one percent, one digit more. */
export const percent = (x) =>
  `${minus((100 * x).toFixed(Math.abs(x) < 0.0995 && Math.abs(x) >= 0.0005 ? 1 : 0))}%`;
