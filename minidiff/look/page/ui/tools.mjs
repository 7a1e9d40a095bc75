// The tools in the corner: light or dark, share, save, open a run of one's own.

import { droppedFiles, readRun } from "./files.mjs";
import { h, write } from "./dom.mjs";
import { picture, save, toPng } from "./picture.mjs";
import { Voice } from "./voice.mjs";
import { toHash } from "./state.mjs";

export class Tools {
  constructor(page) {
    this.page = page;
    const button = (label, onclick) => h("button.quiet", { type: "button", onclick }, label);
    this.theme = button("Dark", () => page.setTheme(page.theme === "dark" ? "light" : "dark"));
    this.files = h("input", {
      type: "file",
      multiple: "",
      accept: ".json,.safetensors",
      hidden: "",
      onchange: () => this.open([...this.files.files]),
    });
    this.own = button("Open a run…", () => this.files.click());
    this.own.title = "or drop its folder on the page";
    this.node = h(
      "div.tools",
      {},
      page.sharing ? button("Copy link", () => this.share()) : null,
      button("Save SVG", () => save(picture(page), "attention.svg", "image/svg+xml")),
      button("Save PNG", async () =>
        save(await toPng(picture(page)), "attention.png", "image/png"),
      ),
      ...(page.compact ? [] : [this.own, this.files]),
      this.theme,
    );
    if (page.compact) return;
    page.root.addEventListener("dragover", (event) => event.preventDefault());
    page.root.addEventListener("drop", (event) => {
      event.preventDefault();
      this.open(droppedFiles(event.dataTransfer));
    });
  }

  draw() {
    write(this.theme, this.page.theme === "dark" ? "Light" : "Dark");
  }

  async share() {
    const address = new URL(location);
    address.hash = toHash(this.page.state);
    history.replaceState(null, "", address);
    try {
      await navigator.clipboard.writeText(address.href);
      this.page.say("The link is copied: it opens this prompt, these heads, this byte.");
    } catch {
      this.page.say("The link is in the address bar: copy it from there.");
    }
  }

  /** Files of a run folder, or a promise of them. Its model replaces the one of its kind. */
  async open(files) {
    const { page } = this;
    this.files.value = "";
    page.complain("");
    page.say("Reading the run…");
    const voice = new Voice(null, null);
    try {
      const run = await readRun(await files);
      await voice.load(run);
      voice.key = voice.kind;
      voice.title = `${voice.title}: ${run.name}`;
      await page.add(voice);
      page.say(
        `${run.name}: ${(voice.parameters / 1e6).toFixed(1)} million weights, ${voice.layers} layers.`,
      );
    } catch (error) {
      voice.engine.close();
      page.say("");
      page.complain(error.message);
    }
  }
}
