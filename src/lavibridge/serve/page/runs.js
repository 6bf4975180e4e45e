// Runs in training and finished ones: loss, previews, scores and the report. Read-only.

import { askBlob, askJson, hasToken } from "./api.js";
import { find, make, showBlob } from "./elements.js";

const EVERY = 5000;
const SVG = "http://www.w3.org/2000/svg";
let timer = null;

export function show(isShown) {
  clearInterval(timer);
  if (!isShown) return;
  update();
  timer = setInterval(update, EVERY);
}

async function update() {
  let runs;
  try {
    runs = await askJson("/v1/runs");
  } catch (error) {
    find("runs-list").replaceChildren(make("p", { className: "wrong", role: "alert" }, error.message));
    return;
  }
  find("runs-empty").hidden = runs.length > 0;
  const known = new Map([...find("runs-list").querySelectorAll(".run")].map((card) => [card.dataset.name, card]));
  const cards = await Promise.all(runs.map((run, index) => card(run, known.get(run.name), index === 0)));
  find("runs-list").replaceChildren(...cards);
}

async function card(run, before, isFirst) {
  const stamp = JSON.stringify(run);
  const wasOpen = before ? before.querySelector("details")?.open : isFirst;
  if (before?.dataset.stamp === stamp) return before;
  const made = make("article", { className: "run" });
  Object.assign(made.dataset, { name: run.name, stamp });
  const badge = make("span", { className: run.state === "training" ? "badge live" : "badge" }, run.state);
  made.append(make("div", { className: "line" }, make("h2", {}, run.name), badge));
  if (run.error) {
    made.append(make("p", { className: "wrong" }, run.error));
    return made;
  }
  const { language, connector, vision } = run.parts;
  const steps = run.step == null ? "no step yet" : `step ${run.step} of ${run.steps}, loss ${run.loss?.toFixed(4) ?? "none"}`;
  made.append(make("p", { className: "soft" }, `${[language, connector, vision].filter(Boolean).join(" → ")} · ${steps}`));
  const inside = make("div");
  const details = make("details", { open: Boolean(wasOpen) }, make("summary", {}, "Loss, pictures, scores"), inside);
  let isFilled = false;
  const fill = () => {
    if (!details.open || isFilled) return;
    isFilled = true;
    detail(run, inside);
  };
  details.addEventListener("toggle", fill);
  fill();
  made.append(details);
  return made;
}

async function detail(run, inside) {
  const path = `/v1/runs/${encodeURIComponent(run.name)}`;
  try {
    const full = await askJson(path);
    const points = full.curve.filter((row) => row.loss != null);
    if (points.length > 1) inside.append(curve(points));
    if (Object.keys(full.scores).length) inside.append(scores(full.scores));
    if (full.samples.length) {
      const name = full.samples.at(-1);
      const image = make("img", { alt: `Preview of ${run.name}, ${name}` });
      showBlob(image, await askBlob(`${path}/samples/${encodeURIComponent(name)}`));
      inside.append(make("p", { className: "soft" }, `Preview: ${name}`), image);
    }
    if (full.has_report) inside.append(make("p", {}, await report(path, run.name)));
    if (!inside.hasChildNodes()) inside.append(make("p", { className: "soft" }, "Nothing was logged yet."));
  } catch (error) {
    inside.append(make("p", { className: "wrong" }, error.message));
  }
}

// A link cannot carry the token: with one, the report is fetched and offered as a file.
async function report(path, name) {
  if (!hasToken()) return make("a", { href: `${path}/report`, target: "_blank", rel: "noopener" }, "Report");
  const address = URL.createObjectURL(await askBlob(`${path}/report`));
  return make("a", { href: address, download: `${name}.html` }, "Report (file)");
}

function scores(found) {
  const percent = (value) => (value == null ? "–" : `${(100 * value).toFixed(1)} %`);
  const rows = Object.entries(found).map(([name, { n, mean, low, high }]) =>
    make("tr", {}, make("th", { scope: "row" }, name), make("td", {}, percent(mean)), make("td", {}, `${percent(low)} to ${percent(high)}`), make("td", {}, `${n}`)));
  const head = ["category", "all right", "95 % interval", "n"].map((name) => make("th", { scope: "col" }, name));
  return make("table", {}, make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...rows));
}

function curve(points) {
  const [width, height, left, bottom] = [600, 200, 44, 20];
  const steps = points.map((row) => row.step);
  const losses = points.map((row) => row.loss);
  const [low, high] = [Math.min(...losses), Math.max(...losses)];
  const x = (step) => left + ((step - steps[0]) / (steps.at(-1) - steps[0] || 1)) * (width - left - 4);
  const y = (loss) => 6 + (1 - (loss - low) / (high - low || 1)) * (height - bottom - 10);
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", `Loss from step ${steps[0]} to ${steps.at(-1)}: ${losses[0].toFixed(4)} to ${losses.at(-1).toFixed(4)}`);
  const add = (name, attributes, text) => {
    const element = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (text !== undefined) element.textContent = text;
    svg.append(element);
  };
  add("line", { x1: left, y1: height - bottom, x2: width, y2: height - bottom });
  add("polyline", { points: points.map((row) => `${x(row.step).toFixed(1)},${y(row.loss).toFixed(1)}`).join(" ") });
  add("text", { x: 0, y: y(high) + 8 }, high.toPrecision(3));
  add("text", { x: 0, y: y(low) }, low.toPrecision(3));
  add("text", { x: left, y: height - 4 }, `step ${steps[0]}`);
  add("text", { x: width - 4, y: height - 4, "text-anchor": "end" }, `${steps.at(-1)}`);
  return svg;
}
