// The page: reads the form, begins what is asked, shows how it ends.

import { Card, clear } from "/page/cards.js";
import { curl, python, showCode } from "/page/code.js";
import { Inflow } from "/page/inflow.js";
import { picturesOf, takePictures } from "/page/pictures.js";
import { addMessage, messages, picturesIn, promptOf, sent } from "/page/prompt.js";
import { watch } from "/page/running.js";
import { get, post, setKey, stream } from "/page/server.js";
import { idsOf, legend, textOf, tokensOf, withPictures } from "/page/text.js";
import { Vocabulary } from "/page/vocabulary.js";

const form = document.getElementById("form");
const field = (name) => form.elements[name];
const stopping = new Set(); // of the requests that run
let listed = [];

// -- the form ------------------------------------------------------------------------------------

function named(model, adapter) {
  if (!adapter) return model;
  return adapter.startsWith("tinker://") ? `${model};${adapter}` : adapter;
}

function chosen(model, adapter) {
  const picked = { model: field(model).value, adapter: field(adapter).value };
  return { ...picked, name: named(picked.model, picked.adapter) };
}

function request() {
  const number = (name) => Number(field(name).value);
  return {
    task: field("task").value,
    model: chosen("model", "adapter"),
    other: chosen("otherModel", "otherAdapter"),
    kind: field("kind").value,
    text: field("prompt").value,
    pictures: picturesOf(document.getElementById("plain")),
    messages: messages(),
    n: number("n"),
    k: number("k"),
    maxTokens: number("maxTokens"),
    temperature: number("temperature"),
    topP: number("topP"),
    topK: number("topK"),
    seed: field("seed").value === "" ? null : number("seed"),
  };
}

function models({ task, model, other }) {
  return task === "compare" ? [model, other] : [model];
}

// Why a model cannot read the pictures; empty if all can, or there are none.
function blindness(asked) {
  if (!picturesIn(asked).length) return "";
  const reads = ({ model }) => listed.find(({ id }) => id === model)?.architecture.input_modalities.includes("image");
  const blind = models(asked).find((model) => !reads(model));
  return blind ? `${blind.model} reads no images; choose another model, or remove the pictures` : "";
}

function bodyOf({ task, n, k, maxTokens, temperature, topP, topK, seed }, model, prompt) {
  const body = { model, prompt: sent(prompt), logprobs: k, return_tokens_as_token_ids: true };
  if (task !== "sample") return { ...body, max_tokens: 0, echo: true };
  const drawn = seed === null ? {} : { seed };
  return { ...body, n, max_tokens: maxTokens, temperature, top_p: topP, top_k: topK, ...drawn };
}

// -- what is asked -------------------------------------------------------------------------------

async function draw(asked, prompt, cards, signal) {
  const inflow = new Inflow(cards[0].vocabulary);
  let n = 0;
  try {
    for await (const { choices } of stream("/v1/completions", bodyOf(asked, asked.model.name, prompt), signal)) {
      for (const { index, logprobs, finish_reason } of choices) {
        if (logprobs) inflow.add(cards[index], tokensOf(logprobs));
        if (finish_reason) cards[index].ending = finish_reason;
        n += logprobs?.tokens.length ?? 0;
      }
    }
  } finally {
    await inflow.flowing;
    cards.forEach((card) => card.say(card.ending ?? "stopped"));
  }
  return n;
}

function makeCard(asked, title, vocabulary, prompt, after) {
  const how = { onBranch: branch, onCode: showCardCode };
  return new Card({ title, vocabulary, prompt, request: asked, after, ...how });
}

async function sample(asked, signal) {
  const prompt = await promptOf(asked, asked.model.name, signal);
  clear();
  showLegends(true, false);
  const vocabulary = Vocabulary.of(asked.model.name);
  const begun = { ...asked, prompt };
  const cards = Array.from({ length: asked.n }, (_, i) => makeCard(begun, `${i + 1}`, vocabulary, prompt));
  const began = performance.now();
  const n = await draw(asked, prompt, cards, signal);
  const speed = (n / (performance.now() - began)) * 1000;
  return `${counted(asked.n, "continuation")}, ${counted(n, "token")}, ${speed.toFixed(1)} tokens per second`;
}

// Continue with another token in the place of one: a card beside the one that it leaves.
function branch(card, i, side, id, logprob) {
  run(async (signal) => {
    const title = `${card.title}.${++card.nBranches}`;
    const ids = card.tokens.slice(0, i).map((token) => token.id);
    // A scored text is the card's own tokens: of it the branch keeps the first ones.
    const cut = card.prompt.length ? undefined : Math.min(card.request.cut ?? i, i);
    const asked = { ...card.request, task: "sample", n: 1, cut, continued: [...ids.slice(cut), id] };
    if (side === "B") asked.model = asked.other;
    const { top } = side === "B" ? card.tokens[i].other : card.tokens[i];
    const made = makeCard(asked, title, Vocabulary.of(asked.model.name), card.prompt, card);
    const before = card.tokens.slice(0, i).map(({ change, other, ...token }) => (side === "B" ? other : token));
    before.forEach((token) => made.append(token, "inherited"));
    made.append({ id, logprob, top }, "chosen");
    made.element.scrollIntoView({ block: "nearest" });
    made.text.span(i).focus({ preventScroll: true });
    const n = await draw(asked, [...card.before(i), id], [made], signal);
    return `branch ${title} at token ${i + 1}: ${counted(n, "token")}`;
  }, "branching");
}

async function scored(asked, model, prompt, signal) {
  const { choices } = await post("/v1/completions", bodyOf(asked, model, prompt), signal);
  const tokens = tokensOf(choices[0].logprobs);
  await Vocabulary.of(model).learn(idsOf(tokens));
  return withPictures(tokens, prompt);
}

function showScored(asked, title, model, tokens, prompt) {
  const card = makeCard({ ...asked, model, prompt }, title, Vocabulary.of(model.name), []);
  tokens.forEach((token) => card.append(token));
  return card;
}

async function score(asked, signal) {
  const prompt = await promptOf(asked, asked.model.name, signal);
  const tokens = await scored(asked, asked.model.name, prompt, signal);
  clear();
  showLegends(true, false);
  showScored(asked, asked.model.name, asked.model, tokens, prompt);
  return `${counted(textOf(tokens).length, "token")} scored`;
}

async function compare(asked, signal) {
  const models = [asked.model, asked.other];
  const prompts = await Promise.all(models.map(({ name }) => promptOf(asked, name, signal)));
  const [a, b] = await Promise.all(models.map(({ name }, i) => scored(asked, name, prompts[i], signal)));
  clear();
  const isSame = prompts[0].length === prompts[1].length && prompts[0].every((id, i) => id === prompts[1][i]);
  showLegends(true, isSame);
  if (isSame) showDifference(asked, a, b, prompts[0]);
  showScored(asked, `A  ${asked.model.name}`, asked.model, a, prompts[0]);
  showScored(asked, `B  ${asked.other.name}`, asked.other, b, prompts[1]);
  return isSame ? `${counted(textOf(a).length, "token")} compared` : "The models tokenize the text differently, so there is no difference by token.";
}

function showDifference(asked, a, b, prompt) {
  const differences = a.map(({ logprob }, i) => (logprob === null ? null : b[i].logprob - logprob));
  const tokens = a.map((token, i) => ({ ...token, change: differences[i], other: b[i] }));
  const card = showScored(asked, "B − A", asked.model, tokens, prompt);
  const known = differences.filter((difference) => difference !== null);
  const mean = known.reduce((sum, difference) => sum + difference, 0) / known.length;
  card.element.classList.add("wide");
  const sign = mean > 0 ? "+" : "";
  card.element.querySelector(".numbers").textContent =
    `mean ${sign}${mean.toFixed(3).replace("-", "−")}  ·  perplexity × ${Math.exp(-mean).toFixed(3)}  ·  blue: B finds the token more probable`;
}

function counted(n, what) {
  return `${n.toLocaleString("en")} ${what}${n === 1 ? "" : "s"}`;
}

function showLegends(ofLevels, ofChanges) {
  document.getElementById("welcome").hidden = true;
  legend(document.getElementById("legend"), false);
  legend(document.getElementById("change-legend"), true);
  document.getElementById("legend").hidden = !ofLevels;
  document.getElementById("change-legend").hidden = !ofChanges;
}

// -- running -------------------------------------------------------------------------------------

const TASKS = { sample, score, compare };
const VERBS = { sample: ["Sample", "sampling"], score: ["Score", "scoring"], compare: ["Compare", "comparing"] };

async function run(work, said) {
  const stop = new AbortController();
  stopping.add(stop);
  tell(`${said} …`);
  complain("");
  try {
    tell(await work(stop.signal));
  } catch (error) {
    if (stop.signal.aborted) tell("stopped");
    else fail(error);
  } finally {
    stopping.delete(stop);
    document.getElementById("stop").disabled = !stopping.size;
  }
}

function fail(error) {
  tell("");
  if (error.status === 401) document.getElementById("key-field").hidden = false;
  complain(error.message || `${error}`);
}

function tell(text) {
  document.getElementById("status").textContent = text;
  document.getElementById("stop").disabled = !stopping.size;
}

function complain(text) {
  const place = document.getElementById("error");
  place.textContent = text;
  place.hidden = !text;
}

function stopAll() {
  for (const stop of stopping) stop.abort();
}

function begin() {
  if (!form.reportValidity()) return;
  stopAll();
  const asked = request();
  complain(blindness(asked));
  if (blindness(asked)) return;
  run((signal) => TASKS[asked.task](asked, signal), VERBS[asked.task][1]);
}

function showCardCode(card) {
  showCode(`${card.title} as Python`, python(card.request));
}

async function showPython() {
  const asked = request();
  if (picturesIn(asked).length) {
    asked.prompt = await promptOf(asked, asked.model.name);
    if (asked.task === "compare") asked.otherPrompt = await promptOf(asked, asked.other.name);
  }
  showCode("Python", python(asked));
}

async function showCurl() {
  const asked = request();
  const bodies = await Promise.all(models(asked).map(async ({ name }) => bodyOf(asked, name, await promptOf(asked, name))));
  showCode("curl", curl(bodies, picturesIn(asked), !document.getElementById("key-field").hidden));
}

// -- the form's own parts ------------------------------------------------------------------------

function fill(select, options) {
  const before = select.value;
  select.replaceChildren(...options.map(([value, text]) => new Option(text, value)));
  if (options.some(([value]) => value === before)) select.value = before;
}

function fillAdapters() {
  for (const [model, adapter] of [["model", "adapter"], ["otherModel", "otherAdapter"]]) {
    const fitting = listed.filter(({ parent }) => parent === "" || (parent && parent === field(model).value));
    fill(field(adapter), [["", "none"], ...fitting.map(({ id }) => [id, id])]);
  }
}

async function listModels() {
  try {
    listed = (await get("/v1/models")).data;
  } catch (error) {
    fail(error);
    return;
  }
  complain("");
  for (const name of ["model", "otherModel"]) {
    fill(field(name), listed.filter(({ parent }) => typeof parent !== "string").map(({ id }) => [id, id]));
  }
  fillAdapters();
  if (!field("model").options.length) complain("there is no model here yet; see tinker-local models");
}

function arrange() {
  const [task, kind] = [field("task").value, field("kind").value];
  for (const part of document.querySelectorAll("[data-for]")) part.hidden = ![task, kind].includes(part.dataset.for);
  document.getElementById("prompt-label").textContent = task === "sample" ? "Prompt" : "Text";
  document.getElementById("go").textContent = VERBS[task][0];
}

function setTheme(theme) {
  if (theme) document.documentElement.setAttribute("theme", theme);
  else document.documentElement.removeAttribute("theme");
  localStorage.setItem("theme", theme);
}

function begun() {
  const theme = localStorage.getItem("theme") ?? "";
  for (const radio of document.querySelectorAll("[name=theme]")) {
    radio.checked = radio.value === theme;
    radio.addEventListener("change", () => setTheme(radio.value));
  }
  setTheme(theme);
  takePictures(document.getElementById("plain"));
  addMessage("user", "What is a log-probability?");
  arrange();
  form.addEventListener("change", ({ target }) => {
    arrange();
    if (target.name === "model" || target.name === "otherModel") fillAdapters();
    complain(blindness(request()));
  });
  form.addEventListener("problem", ({ detail }) => complain(detail));
  field("key").addEventListener("change", ({ target }) => {
    setKey(target.value);
    listModels();
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    begin();
  });
  form.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    begin();
  });
  document.getElementById("stop").addEventListener("click", stopAll);
  document.getElementById("add-message").addEventListener("click", () => addMessage().querySelector("textarea").focus());
  document.getElementById("python").addEventListener("click", () => showPython().catch(fail));
  document.getElementById("curl").addEventListener("click", () => showCurl().catch(fail));
  listModels();
  watch();
}

begun();
