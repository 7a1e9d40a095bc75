// Builds what is committed from what is read: engine/kernel.mjs (WebAssembly in base64), and
// dist/ explorer.js, the one classic script of the page, widget.js, a module for anywidget,
// and forms.js, the closed-form explorers. Needs `npm ci` in this folder; whoever uses the page or
// the package does not.
//
//     node build.mjs [FOLDER]     writes there instead of here, for the test that compares

import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

import asc from "assemblyscript/asc";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));

/** The text of engine/kernel.mjs. */
async function kernelModule() {
  const folder = mkdtempSync(join(tmpdir(), "minidiff-")),
    out = join(folder, "kernel.wasm");
  const flags = ["-O3", "--runtime", "stub", "--importMemory", "--enable", "simd", "--noAssert"];
  const { error, stderr } = await asc.main([join(here, "engine/kernel.ts"), "-o", out, ...flags]);
  if (error) throw new Error(stderr.toString());
  const base64 = readFileSync(out).toString("base64");
  rmSync(folder, { recursive: true });
  return `// Written by build.mjs from kernel.ts: its WebAssembly in base64.\nexport const KERNEL =\n  "${base64}";\n`;
}

const shared = {
  absWorkingDir: here,
  bundle: true,
  write: false,
  minify: true,
  legalComments: "none",
  charset: "utf8",
  target: ["chrome111", "firefox113", "safari16.4"], // 2023: container queries, WebAssembly SIMD
  loader: { ".css": "text" },
};

/** import WORKER from "worker-source": the worker's whole program as text. */
const workerSource = {
  name: "worker-source",
  setup(building) {
    building.onResolve({ filter: /^worker-source$/ }, ({ path }) => ({
      path,
      namespace: "worker",
    }));
    building.onLoad({ filter: /.*/, namespace: "worker" }, async () => {
      const worker = await build({ ...shared, entryPoints: ["engine/worker.mjs"], format: "iife" });
      return { contents: worker.outputFiles[0].text, loader: "text" };
    });
  },
};

async function bundle(entry, options) {
  const banner = { js: "// minidiff, MIT licence: built by build.mjs from minidiff/look/page/" };
  const built = await build({
    ...shared,
    ...options,
    banner,
    entryPoints: [entry],
    plugins: [workerSource],
  });
  return built.outputFiles[0].text;
}

const out = process.argv[2] ?? here;
for (const folder of ["engine", "dist"]) mkdirSync(join(out, folder), { recursive: true });
writeFileSync(join(out, "engine/kernel.mjs"), await kernelModule());
const bundles = {
  "explorer.js": ["ui/main.mjs", { format: "iife", globalName: "minidiff" }],
  "widget.js": ["ui/widget.mjs", { format: "esm" }],
  "forms.js": ["forms/main.mjs", { format: "iife", globalName: "minidiffForms" }],
};
for (const [name, how] of Object.entries(bundles))
  writeFileSync(join(out, "dist", name), await bundle(...how));
