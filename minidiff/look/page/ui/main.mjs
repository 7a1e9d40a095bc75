// The classic script of the page: minidiff.open(element, {models: [{key, title, folder}]}).

import { Page } from "./page.mjs";
import { shippedRun } from "./files.mjs";
import { Voice } from "./voice.mjs";

export { Engine } from "../engine/client.mjs";
export { deliver } from "./files.mjs";

const mega = (bytes) => (bytes / 1e6).toFixed(1);

/** Build the page and load its models, side by side. Resolves with the Page when all are there. */
export async function open(root, { models = [], ...options } = {}) {
  const page = new Page(root, options),
    progress = {};
  const report = () =>
    page.say(
      Object.entries(progress)
        .map(
          ([title, [count, all]]) =>
            `Loading ${title}: ${mega(count)}${all ? ` of ${mega(all)}` : ""} MB`,
        )
        .join("; "),
    );
  await Promise.all(
    models.map(async ({ key, title, folder }) => {
      const voice = new Voice(key, title);
      try {
        const run = await shippedRun(folder, (...counts) => ((progress[title] = counts), report()));
        await voice.load(run);
        delete progress[title];
        report();
        await page.add(voice);
      } catch (error) {
        page.complain(error.message);
      }
    }),
  );
  return page;
}
