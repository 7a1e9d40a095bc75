// Light or dark, as the surroundings have it: JupyterLab and the course's site say it on the body.

const dark = matchMedia("(prefers-color-scheme: dark)");

export function wantedTheme() {
  const { jpThemeLight: lab, theme: site } = document.body.dataset;
  if (lab) return lab === "false" ? "dark" : "light";
  if (site === "dark" || site === "light") return site;
  return dark.matches ? "dark" : "light";
}

/** Call set("light" or "dark") now, and whenever that changes while `node` is on the page. */
export function followTheme(node, set) {
  let last = wantedTheme();
  const follow = () => {
    if (!node.isConnected) {
      watch.disconnect();
      dark.removeEventListener("change", follow);
    } else if (last !== wantedTheme()) set((last = wantedTheme()));
  };
  const watch = new MutationObserver(follow);
  watch.observe(document.body, { attributeFilter: ["data-theme", "data-jp-theme-light"] });
  dark.addEventListener("change", follow);
  set(last);
}
