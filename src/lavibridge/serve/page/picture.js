// One picture, large: its recipe, the checker's verdict, and which words each region attended to.

import { askJson, listen } from "./api.js";
import { find, kept, make, showBlob } from "./elements.js";

const NAMES = {
  model: "Bridge", prompt: "Prompt", negative_prompt: "Negative prompt", seed: "Seed", num_inference_steps: "Steps",
  guidance_scale: "Guidance", quality: "Quality", size: "Size", lavibridge: "Version",
};
let current = null;

export function setUp(models, { restored, removed }) {
  const dialog = find("picture");
  find("close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  dialog.addEventListener("close", () => { current = null; });
  find("restore").addEventListener("click", () => { const { recipe } = current; dialog.close(); restored(recipe); });
  find("remove").addEventListener("click", () => { const { id } = current; dialog.close(); removed(id); });
  find("why").addEventListener("click", () => explain(current));
  open.models = new Map(models.map((model) => [model.id, model]));
}

export function open(picture) {
  current = picture;
  const { recipe } = picture;
  find("picture-title").textContent = recipe.prompt;
  showBlob(find("large"), picture.png);
  find("large").alt = `${recipe.prompt}, seed ${recipe.seed}, by ${recipe.model}`;
  find("heat").hidden = true;
  find("words").replaceChildren();
  find("why-status").textContent = "";
  const model = open.models.get(recipe.model);
  find("why").hidden = !model || model.has_attention_maps === false; // null: a pair that was not loaded yet
  const name = `${recipe.prompt.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "-").slice(0, 48)}-${recipe.seed}`;
  link("download", picture.png, `${name}.png`);
  link("recipe", new Blob([JSON.stringify(recipe, null, 2)], { type: "application/json" }), `${name}.json`);
  find("facts").replaceChildren(...Object.entries(NAMES).filter(([key]) => recipe[key] !== "" && recipe[key] !== undefined)
    .flatMap(([key, told]) => [make("dt", {}, told), make("dd", {}, `${recipe[key]}`)]), ...tokens(picture));
  find("verdict").replaceChildren(...(picture.verdict ? verdict(picture.verdict) : []));
  find("picture").showModal();
}

function tokens({ used, cut }) {
  if (used == null) return [];
  return [make("dt", {}, "Tokens"), make("dd", {}, cut ? `${used} used, ${cut} cut off` : `${used} used`)];
}

function verdict(clauses) {
  const title = kept(clauses) ? "The checker: every promise is kept" : "The checker: not every promise is kept";
  const items = Object.entries(clauses).map(([name, { holds, reason }]) =>
    make("li", {}, make("b", { className: holds ? "good" : "bad" }, holds ? "✓ kept " : "✗ broken "), make("b", {}, name), `: ${reason}`));
  return [make("h3", {}, title), make("ul", { className: "clauses" }, ...items)];
}

function link(id, blob, name) {
  URL.revokeObjectURL(find(id).href);
  find(id).href = URL.createObjectURL(blob);
  find(id).download = name;
}

// The picture is drawn once more by its recipe, which gives the same one, with its attention noted down.
async function explain(picture) {
  const status = find("why-status");
  find("why").disabled = true;
  status.textContent = "Drawing it again, to watch its attention";
  try {
    const { lavibridge, ...request } = picture.recipe;
    const job = await askJson("/v1/jobs", { method: "POST", body: { ...request, attention_maps: true } });
    let last = job;
    await listen(`/v1/jobs/${job.id}/events`, (now) => { last = now; });
    if (last.status !== "done") throw new Error(last.error ?? "It was cancelled.");
    if (current === picture) showWords(last.pictures[0].attention_maps);
  } catch (error) {
    status.textContent = error.message;
  } finally {
    find("why").disabled = false;
  }
}

function showWords(why) {
  const status = find("why-status");
  if (!why) {
    status.textContent = "This image model has no cross-attention that could be watched.";
    return;
  }
  status.textContent = why.by === "word" ?
    "Choose a word, to see which regions attended to it. Numbers are shares of all attention." :
    "This connector makes tokens of its own, which are no single word's. Choose one.";
  const buttons = why.maps.map((map) => {
    const name = map.word || "frame and padding";
    const button = make("button", { type: "button", "aria-pressed": "false" }, `${name} ${(100 * map.share).toFixed(1)} %`);
    button.addEventListener("click", () => {
      const isShown = button.getAttribute("aria-pressed") === "true";
      for (const each of buttons) each.setAttribute("aria-pressed", "false");
      button.setAttribute("aria-pressed", String(!isShown));
      find("heat").hidden = isShown;
      if (!isShown) paint(why, map);
    });
    return button;
  });
  find("words").replaceChildren(...buttons);
  buttons[0]?.focus();
}

// Dark where nothing attended, clear where most did.
function paint({ width, height }, { values }) {
  const canvas = find("heat");
  canvas.width = width;
  canvas.height = height;
  const image = new ImageData(width, height);
  values.forEach((value, place) => image.data.set([8, 10, 28, 225 - Math.round((225 * value) / 255)], 4 * place));
  canvas.getContext("2d").putImageData(image, 0, 0);
}
