// Tokens are bytes, and BOS (256), which stands before every text.

export const BOS = 256;

export const encode = (text) => [...new TextEncoder().encode(text)];
/** Bytes -> text; those that are no UTF-8 become U+FFFD. */
export const decode = (bytes) => new TextDecoder().decode(new Uint8Array(bytes));

const SIGNS = { 9: "⇥", 10: "↵", 13: "␍", 32: "·", [BOS]: "BOS" };
const WORDS = {
  9: "tab",
  10: "line end",
  13: "carriage return",
  32: "space",
  [BOS]: "BOS",
};
const hex = (byte) => byte.toString(16).toUpperCase().padStart(2, "0");

/** How a token looks in a small box. */
export const sign = (token) =>
  SIGNS[token] ?? (token > 32 && token < 127 ? String.fromCharCode(token) : hex(token));

/** How a token is called: by a screen reader, and in a sentence. */
export const spoken = (token) =>
  WORDS[token] ?? (token > 32 && token < 127 ? String.fromCharCode(token) : `byte ${hex(token)}`);
export const quoted = (token) =>
  token in WORDS || token > 126 || token < 32 ? spoken(token) : `“${spoken(token)}”`;
