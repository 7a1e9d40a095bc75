// The fixed parts of the page: prompt, tabs and their panels. Fills in page.prompt, .bos, .status,
// .problem, .cardsNode, .key, .tabs and .live.

import { decode, encode } from "./bytes.mjs";
import { h, uniqueId } from "./dom.mjs";
import STYLE from "./page.css";
import { FIRST_TEXT } from "./state.mjs";

const TITLE = "Where does attention look?";
const LEAD =
  "Two small language models run inside this page. Point at a letter: its attention colours the text, softmax in blue, DIFF V2 in orange.";
const EXAMPLES = {
  "a repetition": FIRST_TEXT,
  "a function": "def area(width, height):\n    return width * ",
  "a class": "class Queue:\n    def __init__(self, items):\n        self.items = ",
  "an import": "import os, sys\nprint(os.pa",
};
const LABELS = {
  text: "Text",
  heads: "All heads",
  wheel: "Take the wheel",
  steps: "Step by step",
  write: "Write on",
};

/** Build everything into page.root. Compact: no heading, and the tinted text is a tab too. */
export function frame(page) {
  const { root, compact } = page;
  page.status = h("p.status", { role: "status" });
  page.problem = h("p.problem", { role: "alert" });
  page.cardsNode = h("div.cards");
  page.key = h("p.key", { "aria-hidden": "true" });
  const look = h("div.look", {}, page.cardsNode, page.next.node);
  if (compact) page.parts = { text: { node: look, draw() {} }, ...page.parts };
  page.tabs = Object.entries(page.parts).map(([name, part]) => tab(page, name, part.node));
  const onkeydown = (event) => tabKey(page, event);
  const bar = h(
    "div.tabs",
    { role: "tablist", "aria-label": "Parts", onkeydown },
    page.tabs.map(({ button }) => button),
  );
  const panels = page.tabs.map(({ panel }) => panel);
  page.live = h("div.live", { hidden: true }, compact ? null : look, bar, panels);
  const home = page.home && h("a", { href: page.home }, "The course explains what it means.");
  const lead = h("p.lead", {}, LEAD, home && " ", home);
  const heading = [h("header.top", {}, h("h1", {}, TITLE), page.tools.node), lead];
  root.classList.add("minidiff-page");
  root.classList.toggle("compact", compact);
  if (compact) root.addEventListener("mousedown", (event) => event.stopPropagation()); // keep focus
  root.replaceChildren(
    h("style", {}, STYLE),
    ...(compact ? [] : heading),
    ask(page),
    page.problem,
    page.status,
    page.live,
    ...(compact ? [] : [about()]),
  );
}

const ABOUT = {
  "Softmax attention":
    "Each byte averages what earlier bytes offer. Its weights, a row of the map A, are above 0 and sum to 1: a byte that needs nothing must still put its weight somewhere, often on the first token.",
  "DIFF V2":
    "Differential Transformer V2 computes two maps and subtracts: A₁ − λA₂. What both look at cancels; a weight may fall below zero.",
  λ: "A number from 0 to 1 that each byte computes anew in every head.",
  BOS: "The token before every text. A head that leaves much weight there, whatever the text, has an attention sink.",
  "Context RMS":
    "The size of what a head reads, where the values it averages have size 1. The more evenly a softmax map spreads, the smaller it gets.",
  "The models":
    "Trained byte by byte on the same text, Python code, with nearly the same number of weights. They know some Python and little else.",
};

/** For one who has never heard of it. */
function about() {
  const terms = Object.entries(ABOUT).map(([term, text]) =>
    h("div", {}, h("dt", {}, term), h("dd", {}, text)),
  );
  const more = h("a", { href: "forms.html" }, "The formulas behind it, alive");
  return h(
    "section.about",
    {},
    h("h2", {}, "What you see"),
    h("dl", {}, terms),
    h("p.more", {}, more),
  );
}

function ask(page) {
  const id = uniqueId("prompt");
  page.prompt = h("textarea", {
    id,
    rows: 2,
    spellcheck: "false",
    autocomplete: "off",
    autocapitalize: "off",
    oninput: () => page.type(encode(page.prompt.value)),
  });
  page.prompt.value = decode(page.state.bytes);
  page.bos = h("input", {
    type: "checkbox",
    onchange: () => page.change({ bos: page.bos.checked, query: null }),
  });
  page.bos.checked = page.state.bos;
  const examples = Object.entries(EXAMPLES).map(([name, text]) =>
    h("button.quiet", { type: "button", onclick: () => page.type(encode(text), true) }, name),
  );
  const check = h("label.check", {}, page.bos, " begin with BOS, the start token");
  const beside = page.compact
    ? h("div.beside", {}, page.tools.node, check)
    : h("div.beside", {}, h("span.try", {}, "Try "), examples, check);
  return h("div.ask", {}, h("label", { for: id }, "Prompt"), page.prompt, beside);
}

function tab(page, name, content) {
  const [id, panelId] = [uniqueId("tab"), uniqueId("panel")];
  const onclick = () => page.change({ tab: name });
  const attributes = { type: "button", role: "tab", id, "aria-controls": panelId, onclick };
  const button = h("button.tab", attributes, LABELS[name]);
  const panel = h("div.panel", { role: "tabpanel", id: panelId, "aria-labelledby": id }, content);
  return { name, button, panel };
}

function tabKey(page, event) {
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!step) return;
  event.preventDefault();
  const at = page.tabs.findIndex(({ name }) => name === page.state.tab);
  const { name, button } = page.tabs[(at + step + page.tabs.length) % page.tabs.length];
  button.focus();
  page.change({ tab: name });
}
