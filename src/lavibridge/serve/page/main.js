// Beginning: the token if one is needed, then the bridges, then the two sections.

import { askJson, dropToken, hasToken, setToken } from "./api.js";
import * as draw from "./draw.js";
import { cell, find } from "./elements.js";
import * as history from "./history.js";
import * as picture from "./picture.js";
import { readRecipe } from "./png.js";
import * as runs from "./runs.js";

async function start() {
  const { needs_token: needsToken } = await askJson("/health");
  if (needsToken && !hasToken()) return askToken();
  let models;
  try {
    models = (await askJson("/v1/models")).data;
  } catch (error) {
    if (error.status === 401) {
      dropToken();
      return askToken();
    }
    throw error;
  }
  find("token-form").hidden = true;
  draw.setUp(models, { finished, opens: picture.open });
  picture.setUp(models, { restored: draw.restore, removed });
  find("file").addEventListener("change", ({ target }) => { take(target.files[0]); target.value = ""; });
  find("clear").addEventListener("click", async () => {
    if (confirm("Delete all pictures of the history from this browser?")) { await history.clear(); await showHistory(); }
  });
  setUpDrop();
  addEventListener("hashchange", route);
  route();
  await showHistory();
}

function askToken() {
  find("draw").hidden = true;
  find("token-form").hidden = false;
  find("token-form").addEventListener("submit", (event) => {
    event.preventDefault();
    setToken(find("token").value);
    location.reload();
  });
  find("token").focus();
}

function route() {
  const isRuns = location.hash === "#runs";
  find("draw").hidden = isRuns;
  find("runs").hidden = !isRuns;
  find("to-draw").toggleAttribute("aria-current", false);
  find("to-runs").toggleAttribute("aria-current", false);
  find(isRuns ? "to-runs" : "to-draw").setAttribute("aria-current", "page");
  document.title = isRuns ? "Runs · lavibridge" : "lavibridge";
  runs.show(isRuns);
}

async function finished(entry) {
  await history.keep(entry);
  await showHistory();
}

async function removed(id) {
  await history.drop(id);
  await showHistory();
}

async function showHistory() {
  const pictures = await history.all();
  find("history-empty").hidden = pictures.length > 0;
  find("clear").hidden = pictures.length === 0;
  find("history").replaceChildren(...pictures.map((each) => {
    const item = document.createElement("li");
    item.append(cell(each, picture.open));
    return item;
  }));
}

async function take(file) {
  try {
    draw.restore(await readRecipe(file));
  } catch (error) {
    draw.say(error.message, true);
  }
}

function setUpDrop() {
  const hasFiles = (event) => [...event.dataTransfer.types].includes("Files");
  addEventListener("dragover", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    find("drop").hidden = false;
  });
  addEventListener("dragleave", (event) => { if (!event.relatedTarget) find("drop").hidden = true; });
  addEventListener("drop", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    find("drop").hidden = true;
    location.hash = "#draw";
    take(event.dataTransfer.files[0]);
  });
}

start().catch((error) => draw.say(error.message, true));
