// What all closed-form explorers share: scenes, controls that fold, a check, pictures in SVG.
//
// An explorer is {name, scenes, controls, check(state), draw(state)}. A control is a slider with a
// box, {key, label, steps}, where steps(state) lists what is possible now, or a tick {key, label}.
// check() gives a line about what does not fit together, or null; draw() gives HTML.

import { h, set, write } from "../ui/dom.mjs";
import { followTheme } from "../ui/theme.mjs";
import { nearest, parse } from "./numbers.mjs";
import STYLE from "./form.css";

/** Build an explorer into an element. `start` has a value for the key of each control. */
export function form(el, explorer, start) {
  const state = { ...start },
    problems = {}; // key -> what is wrong with the text in its box
  const message = h("p.problem", { role: "alert" }),
    picture = h("div.picture");
  const rows = explorer.controls.map((control) => row(control));

  function row({ key, label, steps, whole, low, high, word = String }) {
    if (!steps) {
      const onchange = () => change(key, tick.checked);
      const tick = h("input", { type: "checkbox", "data-key": key, onchange });
      return {
        node: h("label.tick", {}, tick, h("span", {}, label)),
        show: () => (tick.checked = state[key]),
      };
    }
    const slider = h("input", {
      type: "range",
      min: 0,
      step: 1,
      "aria-label": label,
      "data-key": key,
      oninput: () => change(key, steps(state)[slider.value]),
    });
    const box = h("input.box", {
      type: "text",
      inputmode: "decimal",
      "aria-label": `${label}, as a number`,
      "data-key": key,
      autocomplete: "off",
      oninput: () => {
        const value = parse(box.value, whole),
          fits = value >= low && value <= high;
        const good = fits && (!whole || Number.isInteger(value));
        if (good) change(key, value, box);
        else
          problems[key] =
            `${label}: a ${whole ? "whole " : ""}number from ${word(low)} to ${word(high)}`;
        if (!good) show(box);
      },
    });
    const node = h("div.control", {}, h("span.label", {}, label), slider, box);
    return {
      node,
      show(typing) {
        const possible = steps(state);
        set(slider, "max", possible.length - 1);
        slider.value = nearest(possible, state[key]);
        set(slider, "aria-valuetext", word(state[key]));
        set(box, "aria-invalid", key in problems);
        if (box !== typing && !(key in problems)) box.value = word(state[key]);
      },
    };
  }

  function change(key, value, typing = null) {
    state[key] = value;
    delete problems[key];
    show(typing);
  }

  function show(typing = null) {
    for (const one of rows) one.show(typing);
    const [typed] = Object.values(problems),
      problem = typed ?? explorer.check?.(state) ?? null;
    write(message, problem ?? "");
    picture.classList.toggle("stale", problem !== null);
    if (problem !== null) return;
    const focused = picture.contains(document.activeElement) && document.activeElement.dataset.drag;
    picture.innerHTML = explorer.draw(state);
    if (focused) picture.querySelector(`[data-drag="${focused}"]`)?.focus();
  }

  const scenes = Object.entries(explorer.scenes).map(([name, scene]) =>
    h(
      "button",
      {
        type: "button",
        onclick: () => {
          for (const key in problems) delete problems[key];
          Object.assign(state, scene);
          show();
        },
      },
      name,
    ),
  );
  el.classList.add("minidiff-form");
  followTheme(el, (theme) => (el.dataset.theme = theme));
  set(el, "role", "group");
  set(el, "aria-label", explorer.name);
  el.addEventListener("mousedown", (event) => event.stopPropagation()); // JupyterLab: keep the focus
  el.replaceChildren(
    h("style", {}, STYLE),
    h("div.scenes", {}, scenes),
    h(
      "div.dials",
      {},
      rows.map(({ node }) => node),
    ),
    message,
    picture,
  );
  if (explorer.move) draggable(picture, explorer, state, show);
  show();
  return { state, show };
}

/** Points of the picture with data-drag: by pointer, and by the arrow keys. */
function draggable(picture, { move, nudge }, state, show) {
  let key = null;
  picture.addEventListener("pointerdown", (event) => {
    key = event.target.dataset.drag ?? null;
    if (key === null) return;
    event.preventDefault();
    event.target.focus();
    picture.setPointerCapture(event.pointerId);
  });
  picture.addEventListener("pointermove", ({ clientX, clientY }) => {
    if (key === null) return;
    const box = picture.querySelector("svg").getBoundingClientRect(),
      scale = 500 / box.width;
    move(state, key, scale * (clientX - box.left), scale * (clientY - box.top));
    show();
  });
  for (const end of ["pointerup", "pointercancel"])
    picture.addEventListener(end, () => (key = null));
  picture.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
    const point = event.target.dataset.drag;
    if (point === undefined || !(event.key in steps)) return;
    event.preventDefault();
    nudge(state, point, ...steps[event.key]);
    show();
  });
}
