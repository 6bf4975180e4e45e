// The form, and the jobs that it begins: the same prompt and seeds through every bridge that is ticked.

import { ask, askJson, listen, pngBlob, Refused } from "./api.js";
import { find, kept, make, showBlob } from "./elements.js";
import * as pair from "./pair.js";

const FIELDS = ["prompt", "count", "seed", "quality", "steps", "guidance", "negative", "size", "language", "vision"];
const MEMORY = "lavi-form";
let running = null;

export function setUp(models, { finished, opens }) {
  const bridges = models.filter((model) => !model.pair);
  find("bridges").hidden = !bridges.length;
  for (const [index, model] of bridges.entries()) {
    const box = make("input", { type: "checkbox", name: "bridge", value: model.id, checked: index < 3 });
    const told = `${model.language} → ${model.connector} → ${model.vision}`;
    find("bridges").append(make("label", { title: told }, box, ` ${model.id}`));
  }
  pair.setUp(models, { isChecked: !bridges.length, changed: count });
  recall();
  find("form").addEventListener("submit", (event) => {
    event.preventDefault();
    begin(finished, opens);
  });
  find("form").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) find("form").requestSubmit();
  });
  find("cancel").addEventListener("click", cancel);
  find("dice").addEventListener("click", () => {
    find("seed").value = bychance();
  });
  find("weights").addEventListener("change", count);
  let timer;
  find("prompt").addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(count, 300);
  });
  count();
}

export function restore(recipe) {
  const values = {
    prompt: recipe.prompt, seed: recipe.seed, steps: recipe.num_inference_steps, guidance: recipe.guidance_scale,
    quality: recipe.quality ?? "exact", negative: recipe.negative_prompt, size: recipe.size, count: 1,
  };
  for (const [name, value] of Object.entries(values)) find(name).value = value ?? "";
  find("weights").checked = recipe.prompt_weighting ?? recipe.weights ?? true; // pictures of versions that always read them do not say
  pair.choose(recipe.model);
  const boxes = [...document.querySelectorAll("[name=bridge]")];
  const known = boxes.some((box) => box.value === recipe.model);
  for (const box of boxes) if (known) box.checked = box.value === recipe.model;
  remember();
  count();
  say(known ? "The recipe is in the form: draw it again, or change it." :
    `The recipe is in the form; its bridge, ${recipe.model}, is not on this server.`);
  find("prompt").focus();
}

export const say = (text, isWrong = false) => {
  find("status").textContent = text;
  find("status").classList.toggle("wrong", isWrong);
};

const bychance = () => crypto.getRandomValues(new Uint32Array(1))[0];
const number = (id) => (find(id).value === "" ? undefined : Number(find(id).value));

async function begin(finished, opens) {
  if (running) return;
  const chosen = [...document.querySelectorAll("[name=bridge]:checked")].map((box) => box.value);
  if (!chosen.length) return say("Tick at least one bridge.", true);
  remember();
  const seed = number("seed") ?? bychance();
  const request = {
    prompt: find("prompt").value, n: number("count") ?? 1, seed, quality: find("quality").value,
    num_inference_steps: number("steps"),
    guidance_scale: number("guidance"), negative_prompt: find("negative").value, size: find("size").value || undefined,
    prompt_weighting: find("weights").checked, embed_recipe: find("embed").checked,
  };
  running = { stop: new AbortController(), jobs: [] };
  busy(true);
  say("Waiting in the queue");
  const sides = make("div", { className: "sides" });
  find("now").replaceChildren(sides);
  find("now").hidden = false;
  const outcomes = await Promise.allSettled(chosen.map((model) => {
    const side = make("div", { className: "side" }, make("h3", {}, model));
    sides.append(side);
    return follow({ ...request, model }, side, finished, opens);
  }));
  running = null;
  busy(false);
  const failed = outcomes.find((outcome) => outcome.status === "rejected");
  if (!failed) say(`Done: ${chosen.length * request.n} pictures from seed ${seed}.`);
  else if (failed.reason.name === "AbortError") say("Cancelled.");
  else say(failed.reason.message, true);
}

async function follow(request, side, finished, opens) {
  const { signal } = running.stop;
  const job = await askJson("/v1/jobs", { method: "POST", body: request, signal });
  running.jobs.push(job.id);
  const cells = job.pictures.map((picture) => blank(picture.recipe));
  side.append(...cells.map((each) => each.button));
  let last = job;
  await listen(`/v1/jobs/${job.id}/events`, (now) => {
    last = now;
    if (now.status === "drawing") say(progressText(now));
    now.pictures.forEach((picture, index) => draw(cells[index], picture, now, finished, opens));
  }, signal);
  if (last.status === "cancelled") throw new DOMException("cancelled", "AbortError");
  if (last.status !== "done") throw new Refused(500, last.error ?? "The server stopped before the end.");
}

const progressText = (job) => {
  const done = job.pictures.reduce((sum, picture) => sum + picture.step, 0);
  const total = job.pictures.reduce((sum, picture) => sum + picture.steps, 0);
  return `Drawing: ${Math.floor((100 * done) / total / 10) * 10} %`; // by tens, as it is read aloud
};

function blank(recipe) {
  const image = make("img", { alt: "", className: "blank" });
  image.hidden = true;
  const filler = make("div", { className: "blank" });
  const bar = make("progress", { max: recipe.num_inference_steps, value: 0, "aria-label": `Seed ${recipe.seed}` });
  const label = make("span", {}, `seed ${recipe.seed}`);
  const button = make("button", { type: "button", className: "cell", disabled: true }, filler, image, bar, label);
  return { image, filler, bar, label, button, isDone: false };
}

function draw(at, picture, job, finished, opens) {
  if (at.isDone) return;
  at.bar.value = picture.step;
  const png = picture.b64_json ?? picture.preview;
  if (!png) return;
  const blob = pngBlob(png);
  at.filler.hidden = true;
  at.image.hidden = false;
  at.image.classList.toggle("unfinished", !picture.is_finished);
  showBlob(at.image, blob);
  if (!picture.b64_json) return;
  at.isDone = true;
  at.bar.hidden = true;
  at.image.alt = `${picture.recipe.prompt}, seed ${picture.recipe.seed}, by ${picture.recipe.model}`;
  const entry = {
    id: `${Date.now()}-${bychance()}`, time: Date.now(), png: blob, recipe: picture.recipe, verdict: picture.verdict,
    used: job.tokens_used, cut: job.tokens_cut,
  };
  if (picture.verdict) {
    const isKept = kept(picture.verdict);
    at.label.append(make("b", { className: isKept ? "good" : "bad" }, isKept ? "✓ as promised" : "✗ not as promised"));
  }
  at.button.disabled = false;
  at.button.addEventListener("click", () => opens(entry));
  finished(entry);
}

async function cancel() {
  const { jobs, stop } = running ?? { jobs: [] };
  await Promise.allSettled(jobs.map((id) => ask(`/v1/jobs/${id}`, { method: "DELETE" })));
  stop?.abort();
}

function busy(isBusy) {
  find("go").disabled = isBusy;
  find("cancel").hidden = !isBusy;
  find("now").setAttribute("aria-busy", String(isBusy));
}

async function count() {
  const prompt = find("prompt").value;
  if (!prompt) return find("tokens").replaceChildren();
  try {
    const counts = await askJson("/v1/tokens", { method: "POST", body: { prompt, prompt_weighting: find("weights").checked } });
    find("tokens").replaceChildren(...Object.entries(counts).filter(([model]) => !pair.isOther(model)).map(([model, { used, cut, max_tokens: most }]) =>
      make("span", { className: cut ? "wrong" : "" },
        cut ? `${model}: the last ${cut} tokens are cut off, ${most} fit. ` : `${model}: ${used} of ${most} tokens. `)));
  } catch (error) {
    find("tokens").textContent = error.message;
  }
}

function remember() {
  localStorage.setItem(MEMORY, JSON.stringify(Object.fromEntries(FIELDS.map((name) => [name, find(name).value]))));
}

function recall() {
  const values = JSON.parse(localStorage.getItem(MEMORY) ?? "{}");
  for (const name of FIELDS) if (values[name] !== undefined) find(name).value = values[name];
  pair.follow();
}
