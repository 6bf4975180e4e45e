// A pair of a pivot: language model and image model, chosen separately, and ticked like a bridge.

import { find, make } from "./elements.js";

let pairs = new Map(); // id -> [language model, image model]
const box = make("input", { type: "checkbox", name: "bridge" });

export function setUp(models, { isChecked, changed }) {
  pairs = new Map(models.filter((model) => model.pair).map((model) => [model.id, model.pair]));
  if (!pairs.size) return;
  box.checked = isChecked;
  find("pair").hidden = false;
  find("pair-box").replaceChildren(make("label", {}, box, make("span", {})));
  for (const [place, id] of ["language", "vision"].entries()) {
    const names = new Set([...pairs.values()].map((pair) => pair[place]));
    find(id).replaceChildren(...[...names].map((name) => make("option", {}, name)));
    find(id).addEventListener("change", () => {
      box.checked = true;
      follow();
      changed();
    });
  }
  follow();
}

// Makes the box stand for the pair that is selected; a browser may remember one that is gone.
export function follow() {
  if (!pairs.size) return;
  const [[, first]] = pairs;
  if (!pairs.has(selected())) [find("language").value, find("vision").value] = first;
  box.value = selected();
  box.nextSibling.textContent = ` ${box.value}`;
}

// Selects the pair of a recipe, if it is one.
export function choose(id) {
  if (!pairs.has(id)) return;
  [find("language").value, find("vision").value] = pairs.get(id);
  follow();
}

export const isOther = (id) => pairs.has(id) && id !== box.value;

const selected = () => `${find("language").value}+${find("vision").value}`;
