// Where the two files of a run come from: a server, a script beside the page, or the reader's disk.
// All give {config: text, weights: Uint8Array or base64, name}.

const NAMES = ["config.json", "model.safetensors"];

/** From a server. `progress` gets (bytes so far, bytes in all or null). */
export async function fetchRun(folder, progress = () => {}) {
  const [config, weights] = await Promise.all(
    NAMES.map(async (name) => {
      const response = await fetch(`${folder}/${name}`);
      if (!response.ok)
        throw new Error(
          `${folder}/${name} is not there (${response.status}): was the site built whole?`,
        );
      return response;
    }),
  );
  const whole = Number(weights.headers.get("content-length")) || null,
    pieces = [];
  let count = 0;
  for (const reader = weights.body.getReader(); ;) {
    const { done, value } = await reader.read();
    if (done) break;
    pieces.push(value);
    progress((count += value.length), whole);
  }
  const bytes = new Uint8Array(count);
  pieces.reduce((at, piece) => (bytes.set(piece, at), at + piece.length), 0);
  return { config: await config.text(), weights: bytes };
}

const delivered = {};
/** Called by the script folder.js that build.py writes: a browser fetches nothing from file://. */
export function deliver(folder, config, weights) {
  delivered[folder] = { config, weights };
}

/** From the script beside the page. */
export function scriptRun(folder) {
  return new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = `${folder}.js`;
    script.onload = () => {
      script.remove();
      const run = delivered[folder];
      delete delivered[folder]; // megabytes of text
      resolve(run);
    };
    script.onerror = () =>
      reject(new Error(`${folder}.js is not there: was the site copied whole?`));
    document.head.append(script);
  });
}

export const shippedRun = (folder, progress) =>
  location.protocol === "file:" ? scriptRun(folder) : fetchRun(folder, progress);

/** From files that the reader chose or dropped: a folder, or its two files. */
export async function readRun(files) {
  const found = NAMES.map((name) => files.filter((file) => file.name === name));
  const missing = NAMES.filter((_, i) => !found[i].length);
  if (missing.length) {
    const resumed = files.some(({ name }) => name === "checkpoint.safetensors")
      ? " (checkpoint.safetensors is for --resume only)"
      : "";
    throw new Error(
      `no ${missing.join(" and no ")} here${resumed}: give a whole run folder of minidiff train`,
    );
  }
  const several = found.findIndex((same) => same.length > 1);
  if (several >= 0)
    throw new Error(
      `${found[several].length} files named ${NAMES[several]}: give one run folder at a time`,
    );
  const [[config], [weights]] = found;
  const path = config.webkitRelativePath || config.path || "";
  const name = path.split("/").filter(Boolean).at(-2) ?? "your run";
  return {
    config: await config.text(),
    weights: new Uint8Array(await weights.arrayBuffer()),
    name,
  };
}

/**
 * All files of a drop, those inside folders too. Chromium opens folders of a page from file:// by
 * handles only, Firefox and Safari know no handles: so both ways. Asked for at once, since a
 * browser empties the list when the event is over.
 */
export async function droppedFiles({ items, files }) {
  const loose = [...files],
    found = [...items].filter(({ kind }) => kind === "file");
  const handles = found.map((item) => item.getAsFileSystemHandle?.());
  const entries = found.map((item) => item.webkitGetAsEntry?.());
  try {
    const ways = handles.map(async (handle, i) => {
      const opened = await handle;
      if (opened) return walkHandle(opened, "");
      return entries[i] ? walkEntry(entries[i]) : [loose[i]];
    });
    return (await Promise.all(ways)).flat();
  } catch {
    if (loose.some(({ name }) => name === "config.json")) return loose;
    throw new Error("this browser opens no folder here: drop config.json and model.safetensors");
  }
}

async function walkHandle(handle, folder) {
  const path = `${folder}/${handle.name}`;
  if (handle.kind === "file") return [Object.assign(await handle.getFile(), { path })];
  const inside = [];
  for await (const child of handle.values()) inside.push(...(await walkHandle(child, path)));
  return inside;
}

async function walkEntry(entry) {
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
    return [Object.assign(file, { path: entry.fullPath })];
  }
  const reader = entry.createReader(),
    inside = [];
  for (;;) {
    // a reader gives a hundred entries at a time
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) break;
    inside.push(...some);
  }
  return (await Promise.all(inside.map(walkEntry))).flat();
}
