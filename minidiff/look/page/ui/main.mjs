// The classic script of the page: minidiff.open(element, {models: [{key, folder}]}).

import { Page, Voice } from "./page.mjs";
import { fetchRun } from "./files.mjs";

export { Engine } from "../engine/client.mjs";

export async function open(root, { models = [], ...options } = {}) {
  const page = new Page(root, options);
  await Promise.all(
    models.map(async ({ key, folder }) =>
      page.add(await new Voice(key).load(await fetchRun(folder))),
    ),
  );
  return page;
}
