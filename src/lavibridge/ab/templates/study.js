"use strict";
const study = JSON.parse(document.getElementById("study").textContent);
const questions = Object.keys(study.questions);
const pairs = study.parts.flat().length;
const STORE = `lavi-ab-${study.study}`;
const $ = (id) => document.getElementById(id);

let state = null; // {rater, session, at, votes: {"item/question": vote}, unsaved}
let order = []; // this rater's comparisons, in this rater's order
let isMirrored = false; // whether this rater sees every pair with swapped sides
let begun = 0; // time at which the question appeared
let away = 0; // milliseconds since then during which the page was hidden
let hiddenAt = 0;
let isBusy = true; // while pictures are still loading

/* Storage in this browser ---------------------------------------------------------------------------- */

function keep() {
  try {
    if (state) localStorage.setItem(STORE, JSON.stringify(state));
    else localStorage.removeItem(STORE);
  } catch {
    $("unkept").hidden = false;
  }
}

function kept() {
  try {
    return JSON.parse(localStorage.getItem(STORE));
  } catch {
    return null;
  }
}

/* Randomness, reproducible for a session ----------------------------------------------------- */

function chances(seed) {
  // Mulberry32 (Tommy Ettinger 2017)
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let mixed = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}

function shuffled(things, chance) {
  const found = [...things];
  for (let last = found.length - 1; last > 0; last--) {
    const other = Math.floor(chance() * (last + 1));
    [found[last], found[other]] = [found[other], found[last]];
  }
  return found;
}

/* The stages: start, voting, end ------------------------------------------------------------------ */

function stage(name) {
  document.body.dataset.stage = name;
  for (const each of ["start", "voting", "end"]) $(each).hidden = each !== name;
}

function begin(rater) {
  const drawn = crypto.getRandomValues(new Uint32Array(2));
  const session = [...drawn].map((each) => each.toString(16).padStart(8, "0")).join("");
  state = { rater, session, at: 0, votes: {}, unsaved: 0 };
  keep();
  resume();
}

function resume() {
  const chance = chances(parseInt(state.session.slice(0, 8), 16));
  isMirrored = chance() < 0.5;
  order = study.parts.flatMap((part) => shuffled(part, chance));
  show(true);
}

async function show(isNew) {
  if (state.at >= pairs * questions.length) return finish();
  isBusy = true;
  const place = Math.floor(state.at / questions.length);
  const pair = order[place];
  const question = questions[state.at % questions.length];
  if (isNew) await present(pair);
  const isFirst = document.body.dataset.stage !== "voting";
  stage("voting");
  const isLong = $("prompt").scrollHeight > $("prompt").clientHeight + 4;
  $("of").textContent = isLong ? "The description (long: scroll to read all of it)" : "The description";
  $("bar").max = pairs;
  $("bar").value = place;
  $("count").textContent = `Pair ${place + 1} of ${pairs}`;
  const number = state.at % questions.length + 1;
  $("question").textContent = `${number}/${questions.length} ${study.questions[question]}`;
  $("voting").dataset.question = question;
  const vote = state.votes[`${pair.item}/${question}`];
  for (const answer of ["left", "tie", "right"]) {
    $(answer).setAttribute("aria-pressed", Boolean(vote) && vote.choice === choiceOf(answer));
  }
  $("back").disabled = state.at === 0;
  const first = isNew ? `Pair ${place + 1} of ${pairs}. Description: ${pair.prompt}. ` : "";
  $("spoken").textContent = first + study.questions[question];
  if (isFirst) $("question").focus({ preventScroll: true });
  begun = performance.now();
  away = 0;
  isBusy = false;
}

async function present(pair) {
  const shown = isMirrored ? [pair.second, pair.first] : [pair.first, pair.second];
  const images = [$("left-picture"), $("right-picture")];
  images.forEach((image, side) => { image.src = study.pictures[shown[side]]; });
  await Promise.allSettled(images.map((image) => image.decode()));
  const isSmall = images.every((image) => Math.max(image.naturalWidth, image.naturalHeight) <= 128);
  for (const image of [...images, $("large-picture")]) image.classList.toggle("small", isSmall);
  $("prompt").textContent = pair.prompt;
  $("prompt").scrollTop = 0;
}

function finish() {
  stage("end");
  const count = Object.keys(state.votes).length;
  $("thanks").textContent = `Thank you, ${state.rater}: that was the last pair.`;
  const where = study.sendTo ? `send the file to ${study.sendTo}` : "send the file to the organiser";
  $("summary").textContent = `You gave ${count} answers. Download them, and ${where}.`;
  $("thanks").focus();
}

/* Answers ----------------------------------------------------------------------------------------- */

function choiceOf(answer) {
  if (answer === "tie") return "tie";
  return (answer === "left") !== isMirrored ? "first" : "second";
}

function vote(answer) {
  if (isBusy || document.body.dataset.stage !== "voting") return;
  const pair = order[Math.floor(state.at / questions.length)];
  const question = questions[state.at % questions.length];
  $("saved").textContent = "";
  state.votes[`${pair.item}/${question}`] = {
    study: study.study,
    form: study.form,
    rater: state.rater,
    session: state.session,
    item: pair.item,
    question,
    choice: choiceOf(answer),
    left: isMirrored ? "second" : "first",
    ms: Math.max(0, Math.round(performance.now() - begun - away)),
    at: new Date().toISOString(),
  };
  state.at += 1;
  state.unsaved += 1;
  keep();
  show(state.at % questions.length === 0);
}

function back() {
  if (isBusy && document.body.dataset.stage === "voting") return;
  if (state.at === 0) return;
  state.at -= 1;
  keep();
  show(true);
}

function download() {
  const lines = Object.values(state.votes).map((each) => `${JSON.stringify(each)}\n`);
  const link = document.createElement("a");
  const name = state.rater.replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "") || "rater";
  link.href = URL.createObjectURL(new Blob(lines, { type: "application/jsonl" }));
  link.download = `votes-${study.study}-${name}.jsonl`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  $("saved").textContent = `Downloaded as ${link.download}.`;
  state.unsaved = 0;
  keep();
}

function another() {
  const lost = `Answers of ${state.rater} are not downloaded yet and would be lost. Continue?`;
  if (state.unsaved && !confirm(lost)) return;
  state = null;
  keep();
  $("rater").value = "";
  stage("start");
  $("rater").focus();
}

/* A closer look ----------------------------------------------------------------------------------- */

function enlarge(side) {
  $("large-picture").src = $(`${side}-picture`).src;
  $("large-picture").alt = side === "left" ? "The left picture" : "The right picture";
  for (const each of ["left", "right"]) $(`show-${each}`).setAttribute("aria-pressed", each === side);
  if (!$("large").open) $("large").showModal();
}

/* Input ------------------------------------------------------------------------------ */

const KEYS = { ArrowLeft: "left", ArrowDown: "tie", ArrowRight: "right", 1: "left", 2: "tie", 3: "right" };

function press(event) {
  const answer = KEYS[event.key];
  if (event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
  if (document.body.dataset.stage !== "voting" || !$("keys").checked) return;
  if ($("large").open) {
    if (answer === "left" || answer === "right") enlarge(answer);
  } else if (event.key === "Backspace") {
    back();
  } else if (answer && !(event.key === "ArrowDown" && event.target === $("prompt"))) {
    event.preventDefault();
    vote(answer);
  }
}

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  const rater = $("rater").value.trim();
  if (rater) begin(rater);
});
for (const answer of ["left", "tie", "right"]) $(answer).addEventListener("click", () => vote(answer));
for (const side of ["left", "right"]) {
  $(`see-${side}`).addEventListener("click", () => enlarge(side));
  $(`show-${side}`).addEventListener("click", () => enlarge(side));
}
for (const each of ["back", "back-again"]) $(each).addEventListener("click", back);
for (const each of ["download", "download-early"]) $(each).addEventListener("click", download);
$("another").addEventListener("click", another);
$("close").addEventListener("click", () => $("large").close());
document.addEventListener("keydown", press);
document.addEventListener("visibilitychange", () => {
  if (document.hidden) hiddenAt = performance.now();
  else away += performance.now() - hiddenAt;
});
window.addEventListener("beforeunload", (event) => {
  if (state && state.unsaved && !$("unkept").hidden) event.preventDefault();
});

state = kept();
if (state) resume();
else stage("start");
