// Cards: one continuation or scored text each, with its numbers.

import { hide, number, show } from "/page/alternatives.js";
import { Text, textOf } from "/page/text.js";

const template = document.getElementById("card");
const place = document.getElementById("cards");

export class Card {
  // prompt: ids and pictures before the first token; request: what made it, for branches and code.
  constructor({ title, vocabulary, prompt, request, after, onBranch, onCode }) {
    const fragment = template.content.cloneNode(true);
    this.element = fragment.querySelector(".card");
    this.vocabulary = vocabulary;
    this.prompt = prompt;
    this.request = request;
    this.title = title;
    this.nBranches = 0;
    this.element.querySelector("h2").textContent = title;
    const group = this.element.querySelector(".tl-text");
    group.setAttribute("aria-label", `${title}. Arrow keys move from token to token, Enter shows alternatives.`);
    this.text = new Text(group, vocabulary, (how, i, span) => this.#show(how, i, span, onBranch));
    this.element.querySelector(".remove").addEventListener("click", () => this.remove());
    this.element.querySelector(".remove").setAttribute("aria-label", `Remove ${title}`);
    const code = this.element.querySelector(".code");
    code.setAttribute("aria-label", `${title} as Python`);
    code.addEventListener("click", () => onCode(this));
    if (after) after.element.after(fragment);
    else place.append(fragment);
  }

  get tokens() {
    return this.text.tokens;
  }

  // The ids and pictures before a place: what a branch there begins with.
  before(i) {
    return [...this.prompt, ...this.tokens.slice(0, i).map(({ picture, id }) => picture ?? id)];
  }

  append(token, ...classes) {
    this.text.append(token, ...classes);
    this.say();
  }

  say(end = "") {
    this.end = end || this.end;
    const scored = this.tokens.map(({ logprob }) => logprob).filter((logprob) => logprob !== null);
    const mean = scored.reduce((sum, logprob) => sum + logprob, 0) / scored.length;
    const parts = [`${textOf(this.tokens).length} tokens`];
    if (scored.length) parts.push(`mean log-probability ${number(mean, 3)}`, `perplexity ${Math.exp(-mean).toFixed(2)}`);
    if (this.end) parts.push(this.end);
    this.element.querySelector(".numbers").textContent = parts.join("  ·  ");
  }

  remove() {
    hide();
    const next = this.element.nextElementSibling ?? this.element.previousElementSibling;
    this.element.remove();
    (next?.querySelector(".remove") ?? document.getElementById("results")).focus();
  }

  #show(how, i, span, onBranch) {
    const token = this.tokens[i];
    if (token.picture) hide();
    else show(span, token, this.vocabulary, (...chosen) => onBranch(this, i, ...chosen), how === "open");
  }
}

export function clear() {
  hide();
  place.replaceChildren();
}
