// Which labels of an explorer touch, or leave the picture, over its scenes and many random states.
// For Chromium, with forms.js loaded: touching("hull", 150) -> {states, touching: [...]}.
export function touching(name, many) {
  const el = document.createElement("div");
  el.dataset.form = JSON.stringify({ name, start: {} });
  document.body.replaceChildren(el);
  const { state, show } = minidiffForms.open(el),
    { controls, scenes } = minidiffForms.EXPLORERS[name];
  let seed = 7;
  const random = () => (seed = (seed * 16807) % 2147483647) / 2147483647;
  const pick = (list) => list[Math.floor(random() * list.length)];
  const row = () => {
    const some = [0, 1, 2].map(() => random() ** 3 + 1e-3),
      sum = some.reduce((a, b) => a + b);
    return some.map((x) => x / sum);
  };
  const all = Object.values(scenes),
    found = [];
  for (let round = 0; round < many; round++) {
    if (round < all.length) Object.assign(state, structuredClone(all[round]));
    else {
      for (const { key, steps } of controls)
        state[key] = pick(steps ? steps(state) : [true, false]);
      if (state.values) {
        state.values = state.values.map(() => [
          3.4 * random() - 1.7,
          2.3 * random() - 1.15,
        ]);
        Object.assign(state, { a1: row(), a2: row() });
      }
    }
    show();
    for (const svg of el.querySelectorAll("svg")) {
      const labels = [...svg.querySelectorAll("text")].filter((node) =>
        node.textContent.trim(),
      );
      const box = svg.getBoundingClientRect(),
        boxes = labels.map((node) => node.getBoundingClientRect());
      for (const [i, a] of boxes.entries()) {
        if (
          a.left < box.left - 2 ||
          a.right > box.right + 2 ||
          a.top < box.top - 3
        )
          found.push(
            `${labels[i].textContent} leaves the picture: ${JSON.stringify(state)}`,
          );
        for (const [j, b] of boxes.slice(0, i).entries()) {
          const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left),
            high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
          if (wide > 2 && high > 5)
            // a line's box is higher than its letters
            found.push(
              `${labels[i].textContent} | ${labels[j].textContent}: ${JSON.stringify(state)}`,
            );
        }
      }
    }
  }
  return { states: many, touching: found };
}
