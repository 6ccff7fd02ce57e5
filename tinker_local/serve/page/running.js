// What runs, from /metrics: numbers of the whole server.

import { getText } from "/page/server.js";

const PREFIX = "tinker_local_";
const EVERY = 1500; // ms
let before;

function parse(text) {
  const values = {};
  for (const line of text.split("\n")) {
    const [name, value] = line.split(" ");
    if (name.startsWith(PREFIX)) values[name.slice(PREFIX.length)] = Number(value);
  }
  return values;
}

function say(name, text) {
  const place = document.querySelector(`[data-figure="${name}"]`);
  if (place.textContent !== text) place.textContent = text;
}

function show(now) {
  const since = before && now.sampled_tokens_total > before.sampled_tokens_total ? before : undefined;
  const sampled = now.sampled_tokens_total - (since?.sampled_tokens_total ?? 0);
  const busy = now.busy_seconds_total - (since?.busy_seconds_total ?? 0);
  const isNew = since || !before;
  say("running", `${now.requests_unfinished}`);
  say("requests", now.requests_total.toLocaleString("en"));
  say("sampled", now.sampled_tokens_total.toLocaleString("en"));
  if (isNew && busy > 0) say("speed", (sampled / busy).toFixed(1));
  if (now.prompt_tokens_total) say("cache", `${Math.round((100 * now.cached_prompt_tokens_total) / now.prompt_tokens_total)} %`);
  if (now.time_to_first_token_seconds_mean) say("first", `${Math.round(1000 * now.time_to_first_token_seconds_mean)} ms`);
  before = now;
}

export async function watch() {
  if (!document.hidden) await getText("/metrics").then((text) => show(parse(text)), () => say("running", "–"));
  setTimeout(watch, EVERY);
}
