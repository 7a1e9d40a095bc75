// Builds what is committed from what is read: engine/kernel.mjs (the WebAssembly in base64) and
// dist/. Needs `npm ci` in this folder; users of the page and of the package do not.
//
//     node build.mjs [OUTPUT FOLDER]     default: here

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));

/** The text of engine/kernel.mjs. */
export async function kernelModule() {
  const { default: asc } = await import("assemblyscript/asc");
  const folder = mkdtempSync(join(tmpdir(), "minidiff-"));
  const out = join(folder, "kernel.wasm");
  const flags = ["-O3", "--runtime", "stub", "--importMemory", "--enable", "simd", "--noAssert"];
  const { error, stderr } = await asc.main([join(here, "engine/kernel.ts"), "-o", out, ...flags]);
  if (error) throw new Error(stderr.toString());
  const base64 = readFileSync(out).toString("base64");
  rmSync(folder, { recursive: true });
  return `// Written by build.mjs from kernel.ts: its WebAssembly in base64.\nexport const KERNEL =\n  "${base64}";\n`;
}

const out = process.argv[2] ?? here;
writeFileSync(join(out, "engine/kernel.mjs"), await kernelModule());
